//! The input gradient where the input has few channels, as an image has: the step every attack ends with.
//!
//! With one or three channels a correlation would fill a fraction of a vector. Instead each pixel of `dy` is
//! multiplied by the whole filter at once, `[K] x [K, R S C]`, which fills vectors, and the products are added where
//! they belong.

use super::geometry::BUFFER;
use crate::cpu::blocks::{Scratch, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::{Row, Walk, multiply_rows, panel_width, run_task};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};

/// An input gradient to few channels, ready to run.
pub(super) struct Scatter {
    shape: ConvShape,
    /// Products of a pixel, and panels they fill.
    products: usize,
    panels: usize,
    /// Rows of `dy` multiplied before their products are added up.
    band: usize,
    /// Extents of the padded input.
    padded: [usize; 2],
    /// Examples of a task.
    examples: usize,
    /// Pixels of a band: where they read `dy`, where their products are stored.
    pixels: Vec<Row>,
}

impl Scatter {
    /// Whether this way is faster than a correlation: when the vectors it fills are well fewer.
    pub(super) fn suits<T: Float>(s: &ConvShape) -> bool {
        let lanes = panel_width::<T>() / crate::cpu::tile::VECTORS;
        s.groups == 1 && 3 * (s.r * s.s * s.c).div_ceil(lanes) <= 2 * s.r * s.s * s.c.div_ceil(lanes)
    }

    pub(super) fn new<T: Float>(s: &ConvShape) -> Scatter {
        let width = panel_width::<T>();
        let products = s.r * s.s * s.c;
        let panels = products.div_ceil(width);
        let row = s.q * panels * width;
        let band = (BUFFER / row.max(1)).clamp(1, s.p);
        let extent =
            |results: usize, stride: usize, taps: usize, dilation: usize, input: usize, pad: usize| {
                ((results - 1) * stride + (taps - 1) * dilation + 1).max(input + pad)
            };
        let padded = [
            extent(s.p, s.stride[0], s.r, s.dilation[0], s.h, s.padding[0]),
            extent(s.q, s.stride[1], s.s, s.dilation[1], s.w, s.padding[1]),
        ];
        let pixels = (0..band * s.q)
            .map(|i| Row { from: (i * s.k) as u32, to: (i * panels * width) as u32 })
            .collect();
        let examples = s.n.div_ceil(super::geometry::TASKS).min(4);
        Scatter { shape: *s, products, panels, band, padded, examples, pixels }
    }

    /// Floats of scratch memory for the packed filter.
    pub(super) fn scratch<T: Float>(&self) -> usize {
        self.panels * self.shape.k * panel_width::<T>()
    }

    /// Floats of scratch memory of a task, and of its block of results.
    pub(super) fn own<T: Float>(&self) -> (usize, usize) {
        let s = &self.shape;
        let products = self.band * s.q * self.panels * panel_width::<T>();
        (self.padded[0] * self.padded[1] * s.c + products, self.examples * s.h * s.w * s.c)
    }

    /// `out = stages(gradient of the convolution by its input)`.
    pub(super) fn run<T: Float>(
        &self,
        dy: &[T],
        w: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        packed: &mut [T],
    ) {
        let (width, k) = (panel_width::<T>(), self.shape.k);
        let packed = &mut packed[..self.scratch::<T>()];
        packed.fill(T::ZERO);
        for (product, w) in w.chunks_exact(k).enumerate() {
            let panel = &mut packed[product / width * k * width + product % width..];
            panel.iter_mut().step_by(width).zip(w).for_each(|(line, w)| *line = *w);
        }
        let packed = &*packed;
        let image = self.shape.h * self.shape.w * self.shape.c;
        for_each_block(out, self.examples * image, |index, block| {
            let example = index * self.examples;
            epilogue.finish(example * image, block, |block| {
                run_task(Task { plan: self, dy, packed, example, out: block });
            });
        });
    }
}

/// Some examples' results.
struct Task<'a, T> {
    plan: &'a Scatter,
    dy: &'a [T],
    packed: &'a [T],
    example: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { plan, dy, packed, example, out } = self;
        let (s, width) = (&plan.shape, panel_width::<T>());
        let stride = plan.panels * width;
        let [height, across] = plan.padded;
        let image = height * across * s.c;
        let mut scratch = Scratch::<T>::take(image + plan.band * s.q * stride);
        let (sums, products) = scratch.split_at_mut(image);
        for (e, out) in out.chunks_exact_mut(s.h * s.w * s.c).enumerate() {
            sums.fill(T::ZERO);
            for first in (0..s.p).step_by(plan.band) {
                let rows = plan.band.min(s.p - first);
                let from = ((example + e) * s.p + first) * s.q * s.k;
                let dy = &dy[from..from + rows * s.q * s.k];
                let pixels = &plan.pixels[..rows * s.q];
                for (panel, lines) in packed.chunks_exact(s.k * width).enumerate() {
                    let valid = width.min(plan.products - panel * width);
                    let walk = Walk { segments: &[0], run: s.k, add: false };
                    assert!(pixels.len() * stride <= products.len() && pixels.len() * s.k <= dy.len());
                    // SAFETY: pixel i reads k floats of dy from i * k on and writes `valid` products at
                    // i * stride + panel * width; both lie inside by the assertion.
                    unsafe {
                        let out = products.as_mut_ptr().add(panel * width);
                        multiply_rows(simd, dy.as_ptr(), pixels, walk, lines.as_ptr(), out, valid);
                    }
                }
                plan.add(first, &products[..pixels.len() * stride], stride, sums);
            }
            // The padding's gradient is nobody's.
            for (y, out) in out.chunks_exact_mut(s.w * s.c).enumerate() {
                let from = ((y + s.padding[0]) * across + s.padding[1]) * s.c;
                out.copy_from_slice(&sums[from..from + out.len()]);
            }
        }
    }
}

impl Scatter {
    /// Adds the products of the pixels of `dy` from row `first` on to the padded gradient.
    #[inline(always)]
    fn add<T: Float>(&self, first: usize, products: &[T], stride: usize, sums: &mut [T]) {
        let s = &self.shape;
        if s.dilation[1] == 1 {
            // Taps side by side are one run; the usual lengths as constants, so that no loop is left of them.
            match s.s * s.c {
                3 => return self.add_runs::<T, 3>(first, products, stride, sums),
                4 => return self.add_runs::<T, 4>(first, products, stride, sums),
                5 => return self.add_runs::<T, 5>(first, products, stride, sums),
                9 => return self.add_runs::<T, 9>(first, products, stride, sums),
                _ => {}
            }
        }
        let across = self.padded[1] * s.c;
        for (row, products) in products.chunks_exact(s.q * stride).enumerate() {
            for r in 0..s.r {
                let y = (first + row) * s.stride[0] + r * s.dilation[0];
                let sums = &mut sums[y * across..(y + 1) * across];
                for (q, products) in products.chunks_exact(stride).enumerate() {
                    let products = &products[r * s.s * s.c..(r + 1) * s.s * s.c];
                    for (t, products) in products.chunks_exact(s.c).enumerate() {
                        let to = (q * s.stride[1] + t * s.dilation[1]) * s.c;
                        let sums = &mut sums[to..to + s.c];
                        sums.iter_mut().zip(products).for_each(|(sum, x)| *sum += *x);
                    }
                }
            }
        }
    }

    /// As [`Scatter::add`], for rows of taps that make one run of `RUN` numbers.
    #[inline(always)]
    fn add_runs<T: Float, const RUN: usize>(
        &self,
        first: usize,
        products: &[T],
        stride: usize,
        sums: &mut [T],
    ) {
        let s = &self.shape;
        let (across, step) = (self.padded[1] * s.c, s.stride[1] * s.c);
        // Pixels whose runs overlap are taken in separate passes: a sum read back right after a part of it was
        // stored stalls the processor.
        let apart = s.s.div_ceil(s.stride[1]);
        for (row, products) in products.chunks_exact(s.q * stride).enumerate() {
            for r in 0..s.r {
                let y = (first + row) * s.stride[0] + r * s.dilation[0];
                let sums = &mut sums[y * across..(y + 1) * across];
                let products = &products[r * RUN..];
                for pass in 0..apart {
                    let (mut to, mut from) = (pass * step, pass * stride);
                    while from < products.len() {
                        let x: [T; RUN] = products[from..from + RUN].try_into().unwrap_or([T::ZERO; RUN]);
                        let sums = &mut sums[to..to + RUN];
                        // Read whole, added whole, written whole: vectors instead of numbers.
                        let mut sum: [T; RUN] = (&*sums).try_into().unwrap_or([T::ZERO; RUN]);
                        for (sum, x) in sum.iter_mut().zip(x) {
                            *sum += x;
                        }
                        sums.copy_from_slice(&sum);
                        to += apart * step;
                        from += apart * stride;
                    }
                }
            }
        }
    }
}
