//! The gradient of a convolution by its filter: for every tap and channel an outer product of the inputs it read
//! with `dy`, summed over pixels and examples.
//!
//! The examples are split into a number of parts that follows from the shape; each part sums into its own copy of
//! the filter, then the copies are added in order.

use super::geometry::{BUFFER, Geometry, TASKS};
use crate::cpu::blocks::{BLOCK, Scratch, for_each_block, vectorized, write_blocks};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::{Steps, VECTORS, accumulate, panel_width, run_task};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};

/// Floats that all copies of the filter together may take, where the filter is smaller than that.
const COPIES: usize = 1 << 20;
/// Pixels summed between two visits to the copy.
const PIXELS: usize = 256;

/// A filter gradient, ready to run.
pub(super) struct WeightGrad {
    geometry: Geometry,
    stride: [usize; 2],
    /// Offsets into the buffer of the runs that taps read, and the runs' length.
    segments: Vec<usize>,
    run: usize,
    /// Lines of a panel: taps times channels read.
    lines: usize,
    /// Panels a group.
    panels: usize,
    /// Panels of a task: all of a group, or one where there would be few tasks.
    chunk: usize,
    /// Examples, or bands of an example's rows, handled at once; and how many of these there are.
    units: usize,
    /// Copies of the filter.
    splits: usize,
}

impl WeightGrad {
    pub(super) fn new<T: Float>(s: &ConvShape) -> WeightGrad {
        let mut g = Geometry::forward(s);
        let (all, pixels) = (g.rows.results, g.rows.results * g.columns.results);
        let floats = g.buffer(all).max(1);
        (g.examples, g.band) = (1, all);
        if floats <= BUFFER {
            g.examples = PIXELS.div_ceil(pixels.max(1)).min(BUFFER / floats).min(s.n.div_ceil(TASKS)).max(1);
        } else {
            while g.band > 1 && g.buffer(g.band) > BUFFER {
                g.band = g.band.div_ceil(2);
            }
        }
        let units = s.n.div_ceil(g.examples) * all.div_ceil(g.band.max(1));

        let width = g.buffer_columns() * g.cin;
        let adjacent = s.dilation[1] == 1;
        let (starts, run) = if adjacent { (1, s.s * g.cin) } else { (s.s, g.cin) };
        let segment = |r: usize, t: usize| r * s.dilation[0] * width + t * s.dilation[1] * g.cin;
        let segments = (0..s.r).flat_map(|r| (0..starts).map(move |t| segment(r, t))).collect();
        let lines = s.r * s.s * g.cin;
        let panels = g.cout.div_ceil(panel_width::<T>());
        let size = g.groups * panels * lines * panel_width::<T>();
        let splits = (COPIES / size.max(1)).clamp(1, TASKS).min(units).max(1);
        let chunk = if splits * g.groups >= TASKS { panels } else { 1 };
        WeightGrad { geometry: g, stride: s.stride, segments, run, lines, panels, chunk, units, splits }
    }

    /// Floats of one copy of the filter.
    fn copy<T: Float>(&self) -> usize {
        self.geometry.groups * self.panels * self.lines * panel_width::<T>()
    }

    /// Floats of scratch memory for the copies.
    pub(super) fn scratch<T: Float>(&self) -> usize {
        self.splits * self.copy::<T>()
    }

    /// Floats of scratch memory of a task, and of its block of results.
    pub(super) fn own<T: Float>(&self) -> (usize, usize) {
        let g = &self.geometry;
        let lines = g.band * g.columns.results * panel_width::<T>();
        (g.examples * (g.buffer(g.band) + lines), BLOCK.max(g.cout * g.groups))
    }

    /// `out = stages(sum over examples and pixels of x dy)`.
    pub(super) fn run<T: Float>(
        &self,
        x: &[T],
        dy: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        copies: &mut [T],
    ) {
        let (width, g) = (panel_width::<T>(), &self.geometry);
        let copies = &mut copies[..self.scratch::<T>()];
        let per_split = g.groups * self.panels / self.chunk;
        for_each_block(copies, self.chunk * self.lines * width, |index, panels| {
            let (split, first) = (index / per_split, index % per_split * self.chunk);
            run_task(Task { plan: self, x, dy, split, first, panels });
        });
        let (copies, copy) = (&*copies, self.copy::<T>());
        let k = g.cout * g.groups;
        write_blocks(out, (BLOCK / k).max(1) * k, epilogue, |start, block| {
            vectorized(
                #[inline(always)]
                || {
                    for (line, out) in block.chunks_exact_mut(k).enumerate() {
                        let line = start / k + line;
                        for (group, out) in out.chunks_exact_mut(g.cout).enumerate() {
                            for (panel, out) in out.chunks_mut(width).enumerate() {
                                let at = ((group * self.panels + panel) * self.lines + line) * width;
                                out.copy_from_slice(&copies[at..at + out.len()]);
                                for split in 1..self.splits {
                                    let from = split * copy + at;
                                    let part = &copies[from..from + out.len()];
                                    out.iter_mut().zip(part).for_each(|(o, x)| *o += *x);
                                }
                            }
                        }
                    }
                },
            );
        });
    }
}

/// Some panels of one copy.
struct Task<'a, T> {
    plan: &'a WeightGrad,
    x: &'a [T],
    dy: &'a [T],
    split: usize,
    /// First panel, counted over the groups.
    first: usize,
    panels: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { plan, x, dy, split, first, panels } = self;
        let (g, width) = (&plan.geometry, panel_width::<T>());
        let group = first / plan.panels;
        let (row, image) = (g.result_row(), g.source_image());
        let bands = g.rows.results.div_ceil(g.band);
        let floats = g.buffer(g.band);
        panels.fill(T::ZERO);
        let mut scratch = Scratch::<T>::take(g.examples * (floats + g.band * g.columns.results * width));
        let (buffer, lines) = scratch.split_at_mut(g.examples * floats);
        for unit in split * plan.units / plan.splits..(split + 1) * plan.units / plan.splits {
            let (example, top) = (unit / bands * g.examples, unit % bands * g.band);
            let (examples, rows) = (g.examples.min(g.n - example), g.band.min(g.rows.results - top));
            let x = &x[example * image..(example + examples) * image];
            for (x, buffer) in x.chunks_exact(image).zip(buffer.chunks_exact_mut(floats)) {
                g.fill_buffer(x, group, top, rows, buffer);
            }
            // Examples of a unit are whole, so its dy is one piece either way.
            let from = (example * g.rows.results + top) * row;
            let dy = &dy[from..from + examples * rows * row];
            let steps = Steps {
                images: examples,
                rows,
                columns: g.columns.results,
                a: [floats, plan.stride[0] * g.buffer_columns() * g.cin, plan.stride[1] * g.cin],
                b: 0,
            };
            for (panel, out) in panels.chunks_exact_mut(plan.lines * width).enumerate() {
                let first = (first + panel) % plan.panels * width;
                plan.outer(simd, buffer, dy, lines, steps, group, first, out);
            }
        }
    }
}

impl WeightGrad {
    /// Adds one unit's products to a panel, whose first channel of the group is `first`.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "one inner loop's operands")]
    fn outer<T: Float, S: Simd>(
        &self,
        simd: S,
        buffer: &[T],
        dy: &[T],
        lines: &mut [T],
        steps: Steps,
        group: usize,
        first: usize,
        out: &mut [T],
    ) {
        let (g, width) = (&self.geometry, panel_width::<T>());
        let (lanes, k) = (width / VECTORS, g.cout * g.groups);
        let valid = width.min(g.cout - first);
        let column = group * g.cout + first;
        let (b, stride) = if valid.is_multiple_of(lanes) {
            (&dy[column..], k)
        } else {
            // Channels that do not fill vectors are copied to lines that do.
            for (line, dy) in lines.chunks_exact_mut(width).zip(dy.chunks_exact(k)) {
                line[..valid].copy_from_slice(&dy[column..column + valid]);
                line[valid..].fill(T::ZERO);
            }
            (&*lines, width)
        };
        let vectors = valid.div_ceil(lanes);
        let pixels = steps.images * steps.rows * steps.columns;
        let deepest = (steps.images - 1) * steps.a[0]
            + (steps.rows - 1) * steps.a[1]
            + (steps.columns - 1) * steps.a[2]
            + self.segments.last().map_or(0, |last| last + self.run);
        assert!(deepest <= buffer.len() && (pixels - 1) * stride + vectors * lanes <= b.len());
        assert!(self.segments.len() * self.run * width <= out.len());
        let steps = Steps { b: stride, ..steps };
        for (&segment, out) in self.segments.iter().zip(out.chunks_exact_mut(self.run * width)) {
            // SAFETY: segments ascend, so the assertions above hold for each of them.
            unsafe {
                let a = buffer.as_ptr().add(segment);
                accumulate(simd, a, b.as_ptr(), steps, out.as_mut_ptr(), width, self.run, vectors);
            }
        }
    }
}
