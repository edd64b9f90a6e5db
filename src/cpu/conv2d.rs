//! Convolution of NHWC images by HWIO filters, and its two gradients.
//!
//! Six ways, chosen by the shape: register tiles over windows read in place ([`correlate`], [`weight_grad`]), fewer
//! products for 3x3 filters at stride 1 ([`winograd`]) and at stride 2 ([`strided`]), two ways for a gradient
//! that goes to few channels ([`narrow`], [`scatter`]), and loops along the channels for depthwise filters
//! ([`depthwise`]).

mod correlate;
mod depthwise;
mod geometry;
mod half;
mod narrow;
mod points;
mod scatter;
mod strided;
mod tiling;
mod weight_grad;
mod winograd;

use super::blocks::{BLOCK, Line, floats};
use super::float::Float;
use super::stages::Epilogue;
use crate::launch::{ConvShape, Kernel};
use correlate::Correlate;
pub(super) use half::HalfCorrelate;
use narrow::Narrow;
use scatter::Scatter;
use strided::Strided;
use weight_grad::WeightGrad;
use winograd::Winograd;

impl ConvShape {
    /// Elements of x.
    pub(super) fn input(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of w.
    pub(super) fn filter(&self) -> usize {
        self.r * self.s * (self.c / self.groups) * self.k
    }

    /// Elements of y.
    pub(super) fn output(&self) -> usize {
        self.n * self.p * self.q * self.k
    }
}

/// Which of the three products of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Forward,
    InputGrad,
    WeightGrad,
}

enum Way {
    Correlate(Correlate),
    Narrow(Narrow),
    Scatter(Scatter),
    Strided(Strided),
    WeightGrad(WeightGrad),
    Winograd(Winograd),
    Depthwise(Direction),
    /// Some extent is zero: the result, if it has elements, is an empty sum.
    Empty,
}

/// A convolution or one of its gradients, ready to run again and again.
pub(super) struct Convolution {
    shape: ConvShape,
    direction: Direction,
    way: Way,
}

impl Convolution {
    /// The convolution of `kernel`, if it is one.
    pub(super) fn new<T: Float>(kernel: &Kernel) -> Option<Convolution> {
        let (shape, direction) = match kernel {
            Kernel::Conv2d(shape) => (*shape, Direction::Forward),
            Kernel::Conv2dInputGrad(shape) => (*shape, Direction::InputGrad),
            Kernel::Conv2dWeightGrad(shape) => (*shape, Direction::WeightGrad),
            _ => return None,
        };
        let s = &shape;
        let way = if s.input() * s.filter() * s.output() == 0 {
            Way::Empty
        } else if depthwise::suits(s) {
            Way::Depthwise(direction)
        } else {
            match direction {
                Direction::Forward => {
                    if let Some(plan) = Winograd::forward::<T>(s) {
                        Way::Winograd(plan)
                    } else if let Some(plan) = Strided::forward::<T>(s) {
                        Way::Strided(plan)
                    } else {
                        Way::Correlate(Correlate::forward::<T>(s))
                    }
                }
                Direction::InputGrad => {
                    if let Some(plan) = Narrow::new::<T>(s) {
                        Way::Narrow(plan)
                    } else if Scatter::suits::<T>(s) {
                        Way::Scatter(Scatter::new::<T>(s))
                    } else if let Some(plan) = Winograd::input_grad::<T>(s) {
                        Way::Winograd(plan)
                    } else if let Some(plan) = Strided::input_grad::<T>(s) {
                        Way::Strided(plan)
                    } else {
                        Way::Correlate(Correlate::input_grad::<T>(s))
                    }
                }
                Direction::WeightGrad => Way::WeightGrad(WeightGrad::new::<T>(s)),
            }
        };
        Some(Convolution { shape, direction, way })
    }

    /// Floats of scratch memory it needs beyond a thread's own.
    pub(super) fn scratch<T: Float>(&self) -> usize {
        match &self.way {
            Way::Correlate(plan) => plan.scratch::<T>(),
            Way::Narrow(plan) => plan.scratch(),
            Way::Scatter(plan) => plan.scratch::<T>(),
            Way::WeightGrad(plan) => plan.scratch::<T>(),
            Way::Strided(plan) => plan.scratch(),
            Way::Winograd(plan) => plan.scratch(),
            Way::Depthwise(Direction::WeightGrad) => depthwise::scratch(&self.shape),
            Way::Depthwise(_) | Way::Empty => 0,
        }
    }

    /// Floats of a thread's own scratch memory that a task takes, and floats of the block of results it writes.
    pub(super) fn own<T: Float>(&self) -> (usize, usize) {
        match &self.way {
            Way::Correlate(plan) => plan.own(),
            Way::Narrow(plan) => plan.own(),
            Way::Scatter(plan) => plan.own::<T>(),
            Way::WeightGrad(plan) => plan.own::<T>(),
            Way::Strided(plan) => plan.own(),
            Way::Winograd(plan) => plan.own(),
            Way::Depthwise(_) => (0, self.shape.w.max(self.shape.q) * self.shape.c),
            Way::Empty => (0, BLOCK),
        }
    }

    /// Elements of its two operands.
    pub(super) fn operands(&self) -> (usize, usize) {
        let s = &self.shape;
        match self.direction {
            Direction::Forward => (s.input(), s.filter()),
            Direction::InputGrad => (s.output(), s.filter()),
            Direction::WeightGrad => (s.input(), s.output()),
        }
    }

    /// `out = stages(product of a and b)`.
    pub(super) fn run<T: Float>(
        &self,
        a: &[T],
        b: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        scratch: &mut [Line],
    ) {
        let scratch = floats(scratch);
        match &self.way {
            Way::Correlate(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::Narrow(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::Scatter(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::WeightGrad(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::Strided(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::Winograd(plan) => plan.run(a, b, out, epilogue, scratch),
            Way::Depthwise(Direction::Forward) => depthwise::forward(&self.shape, a, b, out, epilogue),
            Way::Depthwise(Direction::InputGrad) => depthwise::input_grad(&self.shape, a, b, out, epilogue),
            Way::Depthwise(Direction::WeightGrad) => {
                depthwise::weight_grad(&self.shape, a, b, out, epilogue, scratch);
            }
            Way::Empty => super::map::fill(0.0, out, epilogue),
        }
    }
}
