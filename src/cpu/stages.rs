//! The elementwise stages of a launch, run over blocks that are still in the first-level cache.

use super::blocks::{Scratch, vectorized};
use super::float::Float;
use super::mask::fill_bits;
use crate::launch::{Launch, MAX_OPERANDS, Operand, Stage};
use crate::shape::Stretch;
use crate::tape::{Binary, Unary};

/// Elements each stage passes over before the next stage does: three such rows of f64 fit a first-level cache.
pub(super) const CHUNK: usize = 1024;

/// Where a stage's other argument comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The n-th operand of the launch.
    Operand(usize, Stretch),
    /// Bits of the n-th operand of the launch, see [`Operand::Bits`].
    Bits(usize),
    /// What the output held.
    Previous,
}

/// A stage with its operand looked up.
#[derive(Clone, Copy, Debug)]
enum Step {
    Unary(Unary),
    Binary { op: Binary, swapped: bool, source: Source },
}

/// The stages of a launch with their operands numbered in the order of [`Launch::operands`].
pub(super) struct Steps(Vec<Step>);

impl Steps {
    /// Whether a stage reads what the output held before.
    pub(super) fn read_previous(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::Binary { source: Source::Previous, .. }))
    }

    /// Those behind the kernel.
    pub(super) fn new(launch: &Launch) -> Steps {
        Steps::of(&launch.stages, launch)
    }

    /// Those before a reduction.
    pub(super) fn before(launch: &Launch) -> Steps {
        Steps::of(launch.before(), launch)
    }

    /// None at all.
    #[cfg(test)]
    pub(super) fn none() -> Steps {
        Steps(Vec::new())
    }

    fn of(stages: &[Stage], launch: &Launch) -> Steps {
        let operands = launch.operands();
        let step = |stage: &Stage| match *stage {
            Stage::Unary(unary) => Step::Unary(unary),
            Stage::Binary { op, swapped, operand } => {
                let source = match operand {
                    Operand::Previous => Source::Previous,
                    Operand::Buffer { place, stretch } => {
                        let index = operands.iter().position(|o| *o == (place, stretch));
                        Source::Operand(index.expect("operands() lists every operand"), stretch)
                    }
                    Operand::Bits { place, stretch } => {
                        let index = operands.iter().position(|o| *o == (place, stretch));
                        Source::Bits(index.expect("operands() lists every operand"))
                    }
                };
                Step::Binary { op, swapped, source }
            }
        };
        Steps(stages.iter().map(step).collect())
    }
}

/// The stages of a launch with the memory they read.
pub(super) struct Epilogue<'a, T> {
    pub(super) steps: &'a Steps,
    pub(super) operands: [&'a [T]; MAX_OPERANDS],
    /// Operands that are bits.
    pub(super) bits: [&'a [u32]; MAX_OPERANDS],
    /// Whether a stage reads what the output held before.
    pub(super) reads_previous: bool,
}

impl<T: Float> Epilogue<'_, T> {
    /// Fills `out`, elements `start..` of the result: `compute` writes the kernel's values, the stages follow.
    #[inline]
    pub(super) fn finish(&self, start: usize, out: &mut [T], compute: impl FnOnce(&mut [T])) {
        if self.reads_previous {
            let mut fresh = Scratch::take(out.len());
            compute(&mut fresh);
            self.apply(start, &mut fresh, out);
            out.copy_from_slice(&fresh);
        } else {
            compute(out);
            self.apply(start, out, &[]);
        }
    }

    /// Runs the stages over `out`, elements `start..` of the result, as it stands.
    pub(super) fn update(&self, start: usize, out: &mut [T]) {
        if self.reads_previous {
            // A later stage may ask for what an earlier one has changed.
            let mut before = Scratch::take(out.len());
            before.copy_from_slice(out);
            self.apply(start, out, &before);
        } else {
            self.apply(start, out, &[]);
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.0.is_empty()
    }

    /// Runs the stages over `values`, elements `start..` of the result; `previous` is what the output holds there
    /// (empty unless a stage asks for it).
    pub(super) fn apply(&self, start: usize, values: &mut [T], previous: &[T]) {
        if self.steps.0.is_empty() {
            return;
        }
        vectorized(
            #[inline(always)]
            || {
                for (index, chunk) in values.chunks_mut(CHUNK).enumerate() {
                    let at = index * CHUNK;
                    let before = if previous.is_empty() { previous } else { &previous[at..at + chunk.len()] };
                    self.apply_chunk(start + at, chunk, before);
                }
            },
        );
    }

    /// As [`Epilogue::apply`], on at most [`CHUNK`] values, for code that is vectorized itself.
    #[inline(always)]
    pub(super) fn apply_chunk(&self, start: usize, values: &mut [T], previous: &[T]) {
        let mut stretched = [T::ZERO; CHUNK];
        for step in &self.steps.0 {
            match *step {
                Step::Unary(unary) => apply_unary(unary, values),
                Step::Binary { op, swapped, source } => {
                    let other: &[T] = match source {
                        Source::Previous => previous,
                        Source::Bits(index) => {
                            let stretched = &mut stretched[..values.len()];
                            fill_bits(self.bits[index], start, stretched);
                            stretched
                        }
                        Source::Operand(index, stretch) => {
                            let operand = self.operands[index];
                            let (from, len) = (start / stretch.div, values.len());
                            if stretch.div == 1 && start + len <= stretch.modulo {
                                &operand[from..from + len]
                            } else {
                                let stretched = &mut stretched[..len];
                                fill_stretched(operand, stretch, start, stretched);
                                stretched
                            }
                        }
                    };
                    apply_binary(op, swapped, values, other);
                }
            }
        }
    }
}

/// Writes `operand[stretch.index(start + i)]` to each `out[i]`.
#[inline(always)]
pub(super) fn fill_stretched<T: Float>(operand: &[T], stretch: Stretch, start: usize, out: &mut [T]) {
    let len = out.len();
    if stretch.modulo == 1 {
        out.fill(operand[0]);
    } else if stretch.div == 1 {
        // One period, begun where `start` falls in it; then copies of what is there already, doubling.
        let (modulo, phase) = (stretch.modulo, start % stretch.modulo);
        let first = len.min(modulo - phase);
        out[..first].copy_from_slice(&operand[phase..phase + first]);
        let second = (len - first).min(phase);
        out[first..first + second].copy_from_slice(&operand[..second]);
        let mut filled = first + second;
        while filled < len {
            let more = filled.min(len - filled);
            let (done, rest) = out.split_at_mut(filled);
            rest[..more].copy_from_slice(&done[..more]);
            filled += more;
        }
    } else {
        let mut at = 0;
        while at < len {
            let i = start + at;
            let run = (stretch.div - i % stretch.div).min(len - at);
            out[at..at + run].fill(operand[stretch.index(i)]);
            at += run;
        }
    }
}

/// `values[i] = f(values[i])`.
#[inline(always)]
fn apply_unary<T: Float>(unary: Unary, values: &mut [T]) {
    #[inline(always)]
    fn each<T: Float>(values: &mut [T], f: impl Fn(T) -> T) {
        for v in values {
            *v = f(*v);
        }
    }
    let zero = T::ZERO;
    let one = T::ONE;
    match unary {
        Unary::Affine { scale, shift } => {
            let (scale, shift) = (T::from_f64(scale), T::from_f64(shift));
            each(values, |x| scale * x + shift);
        }
        Unary::Exp => each(values, T::exp),
        Unary::Log => each(values, T::ln),
        Unary::Sqrt => each(values, T::sqrt),
        Unary::Square => each(values, |x| x * x),
        Unary::Abs => each(values, T::abs),
        Unary::Sign => each(values, |x| {
            let positive = if x > zero { one } else { zero };
            let negative = if x < zero { one } else { zero };
            positive - negative
        }),
        Unary::Relu => each(values, |x| if x <= zero { zero } else { x }),
        Unary::LeakyRelu { slope } => {
            let slope = T::from_f64(slope);
            each(values, |x| if x > zero { x } else { slope * x });
        }
        Unary::Silu => each(values, |x| x / (one + (-x).exp())),
        Unary::Gelu => {
            let (half, scale) = (T::from_f64(0.5), T::from_f64(std::f64::consts::FRAC_1_SQRT_2));
            each(values, |x| half * x * (one + (x * scale).erf()));
        }
        Unary::Tanh => each(values, T::tanh),
        Unary::Sigmoid => each(values, |x| one / (one + (-x).exp())),
        Unary::Erf => each(values, T::erf),
        Unary::Clamp { lo, hi } => {
            let (lo, hi) = (T::from_f64(lo), T::from_f64(hi));
            each(values, |x| {
                let x = if x < lo { lo } else { x };
                if x > hi { hi } else { x }
            });
        }
    }
}

/// `values[i] = f(values[i], other[i])`, or `f(other[i], values[i])` when swapped.
#[inline(always)]
fn apply_binary<T: Float>(op: Binary, swapped: bool, values: &mut [T], other: &[T]) {
    #[inline(always)]
    fn each<T: Float>(swapped: bool, values: &mut [T], other: &[T], f: impl Fn(T, T) -> T) {
        if swapped {
            for (v, o) in values.iter_mut().zip(other) {
                *v = f(*o, *v);
            }
        } else {
            for (v, o) in values.iter_mut().zip(other) {
                *v = f(*v, *o);
            }
        }
    }
    let truth = |yes: bool| if yes { T::ONE } else { T::ZERO };
    match op {
        Binary::Add => each(swapped, values, other, |x, y| x + y),
        Binary::Sub => each(swapped, values, other, |x, y| x - y),
        Binary::Mul => each(swapped, values, other, |x, y| x * y),
        Binary::Div => each(swapped, values, other, |x, y| x / y),
        Binary::Max => each(swapped, values, other, T::maximum),
        Binary::Min => each(swapped, values, other, T::minimum),
        Binary::AddScaled { scale } => {
            let scale = T::from_f64(scale);
            each(swapped, values, other, |x, y| x + scale * y);
        }
        Binary::Gate { slope: 0.0 } => {
            each(swapped, values, other, |x, y| if y > T::ZERO { x } else { T::ZERO });
        }
        Binary::Gate { slope } => {
            let slope = T::from_f64(slope);
            each(swapped, values, other, |x, y| if y > T::ZERO { x } else { slope * x });
        }
        Binary::Greater => each(swapped, values, other, |x, y| truth(x > y)),
        Binary::GreaterEqual => each(swapped, values, other, |x, y| truth(x >= y)),
        Binary::Equal => each(swapped, values, other, |x, y| truth(x == y)),
    }
}
