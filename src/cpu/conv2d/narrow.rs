//! The input gradient of a 3x3 or 5x5 convolution at stride 1 where the input has up to four channels, as an image
//! has: the step every attack ends with.
//!
//! Vectors run along the channels of `dy`: each sum of the result is kept in a whole register of partial sums, and
//! the registers are added up across at the end, so no lane is wasted on the few channels. Down the rows it is
//! Winograd's scheme of six points ([`points`]): six rows of `dy` become six positions, which take 6 products in
//! place of 12 (3 taps, 4 rows) or of 10 (5 taps, 2 rows); across the columns the taps are taken one by one.

use super::points;
use crate::cpu::blocks::{Scratch, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::run_task;
use crate::cpu::vectors::{LANES, Zeros, fetch_part, load, store, sum_across};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};

/// Positions: rows of `dy` a tile reads.
const N: usize = 6;

/// Columns of the result done at once: the positions they read stay in the first-level cache. A multiple of the
/// lanes, so that sums are whole groups for every number of channels.
const BLOCK: usize = 16;

/// Such an input gradient, ready to run.
pub(super) struct Narrow {
    shape: ConvShape,
    /// Columns of the positions that a block reads.
    columns: usize,
    /// Examples of a task.
    examples: usize,
}

impl Narrow {
    /// The input gradient, where it can be done this way.
    pub(super) fn new<T: Float>(s: &ConvShape) -> Option<Narrow> {
        let suits = std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>()
            && s.groups == 1
            && s.c <= 4
            && s.k.is_multiple_of(LANES)
            && [s.stride, s.dilation] == [[1, 1]; 2]
            && s.r == s.s
            && (s.r == 3 || s.r == 5)
            && s.padding[0].max(s.padding[1]) < s.r;
        let columns = BLOCK + s.s - 1;
        let examples = s.n.div_ceil(super::geometry::TASKS).min(4);
        suits.then_some(Narrow { shape: *s, columns, examples })
    }

    /// Floats of scratch memory for the transformed filter.
    pub(super) fn scratch(&self) -> usize {
        N * self.shape.s * self.shape.c * self.shape.k
    }

    /// Floats of a position's inputs for all positions, of the partial sums of one, and of the sums of all: what a task
    /// takes of scratch memory, with a line of zeros.
    fn parts(&self, lanes: usize) -> [usize; 3] {
        let width = BLOCK * self.shape.c;
        [N * self.shape.k * self.columns, width * lanes, N * width]
    }

    /// Floats of scratch memory of a task, and of its block of results.
    pub(super) fn own(&self) -> (usize, usize) {
        let s = &self.shape;
        (s.k + self.parts(LANES).iter().sum::<usize>() + LANES, self.examples * s.h * s.w * s.c)
    }

    /// `out = stages(gradient of the convolution by its input)`.
    pub(super) fn run<T: Float>(
        &self,
        dy: &[T],
        w: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        scratch: &mut [T],
    ) {
        let (dy, w): (&[f32], &[f32]) = (bytemuck::cast_slice(dy), bytemuck::cast_slice(w));
        let filter: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..self.scratch()];
        run_task(Filter { plan: self, w, out: filter });
        let (filter, s) = (&*filter, &self.shape);
        let image = s.h * s.w * s.c;
        for_each_block(out, self.examples * image, |index, block| {
            let example = index * self.examples;
            epilogue.finish(example * image, block, |block| {
                let out = bytemuck::cast_slice_mut(block);
                run_task(Task { plan: self, dy, filter, example, out });
            });
        });
    }
}

/// Transforms the filter: `[position][vector of channels][tap of the row][channel of the result]`, taps turned by
/// half a turn.
struct Filter<'a> {
    plan: &'a Narrow,
    w: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Filter<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Filter { plan, w, out } = self;
        let (s, lanes) = (&plan.shape, S::F32_LANES);
        assert!(w.len() == s.filter() && out.len() == plan.scratch());
        for tap in 0..s.s {
            for c in 0..s.c {
                for vector in 0..s.k / lanes {
                    let g: [S::f32s; 5] = std::array::from_fn(|r| {
                        if r < s.r {
                            let from = ((s.r - 1 - r) * s.s + s.s - 1 - tap) * s.c + c;
                            // SAFETY: a tap's filter of a channel has k floats.
                            unsafe { load::<S>(w.as_ptr().add(from * s.k + vector * lanes)) }
                        } else {
                            simd.splat_f32s(0.0)
                        }
                    });
                    for (position, value) in points::long_filter(simd, g, s.r).into_iter().enumerate() {
                        let to = ((position * (s.k / lanes) + vector) * s.s + tap) * s.c + c;
                        // SAFETY: every index is below its extent.
                        unsafe { store::<S>(out.as_mut_ptr().add(to * lanes), value) };
                    }
                }
            }
        }
    }
}

/// Some examples' results.
struct Task<'a> {
    plan: &'a Narrow,
    dy: &'a [f32],
    filter: &'a [f32],
    example: usize,
    out: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { plan, dy, filter, example, out } = self;
        let s = &plan.shape;
        let (image, row) = (s.h * s.w * s.c, s.w * s.c);
        let [floats, part, sum] = plan.parts(S::F32_LANES);
        let width = sum / N;
        let zeros = Zeros::take(s.k);
        let mut scratch = Scratch::<f32>::take(floats + part + sum);
        let (inputs, rest) = scratch.split_at_mut(floats);
        let (parts, sums) = rest.split_at_mut(part);
        let rows = N + 1 - s.r;
        for (index, out) in out.chunks_exact_mut(image).enumerate() {
            let dy = &dy[(example + index) * s.p * s.q * s.k..][..s.p * s.q * s.k];
            for (tile, out) in out.chunks_mut(rows * row).enumerate() {
                for left in (0..s.w).step_by(BLOCK) {
                    plan.inputs(simd, dy, &zeros, tile * rows, left, inputs);
                    for position in 0..N {
                        plan.fetch(dy, tile * rows + N + position, left);
                        plan.products(simd, inputs, filter, position, parts);
                        let sums = &mut sums[position * width..(position + 1) * width];
                        let parts = parts.chunks_exact(LANES * S::F32_LANES);
                        for (sums, parts) in sums.chunks_exact_mut(LANES).zip(parts) {
                            sum_across(simd, parts, sums);
                        }
                    }
                    plan.outputs(simd, sums, width, left, out);
                }
            }
        }
    }
}

impl Narrow {
    /// Transforms the part of `dy` that a tile's results, from row `top` and column `left` on, read:
    /// `[position][vector][column]`.
    #[inline(always)]
    fn inputs<S: Simd>(
        &self,
        simd: S,
        dy: &[f32],
        zeros: &Zeros,
        top: usize,
        left: usize,
        inputs: &mut [f32],
    ) {
        let (s, lanes) = (&self.shape, S::F32_LANES);
        let vectors = s.k / lanes;
        let first = top as isize - (s.r - 1 - s.padding[0]) as isize;
        let rows: [Option<&[f32]>; N] = std::array::from_fn(|i| {
            let y = usize::try_from(first + i as isize).ok().filter(|&y| y < s.p)?;
            Some(&dy[y * s.q * s.k..(y + 1) * s.q * s.k])
        });
        let plane = vectors * self.columns;
        assert!(inputs.len() == N * plane * lanes && zeros.len() == s.k);
        for column in 0..self.columns {
            // Columns past the edges of dy are zeros.
            let at = (left + column).checked_sub(s.s - 1 - s.padding[1]).filter(|&at| at < s.q);
            let mut from = [zeros.as_ptr(); N];
            for (from, row) in from.iter_mut().zip(&rows) {
                if let (Some(row), Some(at)) = (row, at) {
                    *from = row[at * s.k..(at + 1) * s.k].as_ptr();
                }
            }
            for vector in 0..vectors {
                let to = vector * self.columns + column;
                // SAFETY: each pointer is followed by k floats.
                let d = std::array::from_fn(|i| unsafe { load::<S>(from[i].add(vector * lanes)) });
                for (position, value) in points::input::<S, N>(simd, d).into_iter().enumerate() {
                    // SAFETY: position, vector and column are below their extents.
                    unsafe { store::<S>(inputs.as_mut_ptr().add((position * plane + to) * lanes), value) };
                }
            }
        }
    }

    /// Asks for the part of a row of `dy` that the block below reads: row `row` counted from the first one that the
    /// first tile reads.
    #[inline(always)]
    fn fetch(&self, dy: &[f32], row: usize, left: usize) {
        let s = &self.shape;
        if let Some(y) = (row + s.padding[0]).checked_sub(s.r - 1).filter(|&y| y < s.p) {
            let first = left.saturating_sub(s.s - 1 - s.padding[1]).min(s.q);
            let last = (first + self.columns).min(s.q);
            fetch_part(&dy[(y * s.q + first) * s.k..(y * s.q + last) * s.k], 0, 1);
        }
    }

    /// The partial sums of one position: a register for each column and channel of the result.
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, inputs: &[f32], filter: &[f32], position: usize, parts: &mut [f32]) {
        // As many columns as leave registers for the operands.
        if S::REGISTER_COUNT >= 32 {
            match self.shape.c {
                1 => self.columns::<S, 1, 16>(simd, inputs, filter, position, parts),
                2 => self.columns::<S, 2, 8>(simd, inputs, filter, position, parts),
                3 => self.columns::<S, 3, 8>(simd, inputs, filter, position, parts),
                _ => self.columns::<S, 4, 4>(simd, inputs, filter, position, parts),
            }
        } else {
            match self.shape.c {
                1 => self.columns::<S, 1, 8>(simd, inputs, filter, position, parts),
                2 => self.columns::<S, 2, 4>(simd, inputs, filter, position, parts),
                3 => self.columns::<S, 3, 4>(simd, inputs, filter, position, parts),
                _ => self.columns::<S, 4, 2>(simd, inputs, filter, position, parts),
            }
        }
    }

    /// As [`Narrow::products`], for `C` channels, `W` columns at a time.
    #[inline(always)]
    fn columns<S: Simd, const C: usize, const W: usize>(
        &self,
        simd: S,
        inputs: &[f32],
        filter: &[f32],
        position: usize,
        parts: &mut [f32],
    ) {
        let (s, lanes) = (&self.shape, S::F32_LANES);
        let vectors = s.k / lanes;
        let inputs = &inputs[position * vectors * self.columns * lanes..][..vectors * self.columns * lanes];
        let filter = &filter[position * vectors * s.s * C * lanes..][..vectors * s.s * C * lanes];
        assert!(BLOCK.is_multiple_of(W) && self.columns == BLOCK + s.s - 1);
        assert!(parts.len() == BLOCK * C * lanes);
        for first in (0..BLOCK).step_by(W) {
            let mut sums = [[simd.splat_f32s(0.0); C]; W];
            // SAFETY: by the assertion; the filter has C vectors for each vector of channels and tap.
            unsafe {
                let mut line = filter.as_ptr();
                for vector in 0..vectors {
                    let from = inputs.as_ptr().add((vector * self.columns + first) * lanes);
                    for tap in 0..s.s {
                        let mut w = [simd.splat_f32s(0.0); C];
                        for (c, w) in w.iter_mut().enumerate() {
                            *w = load::<S>(line.add(c * lanes));
                        }
                        line = line.add(C * lanes);
                        for (column, sums) in sums.iter_mut().enumerate() {
                            let x = load::<S>(from.add((column + tap) * lanes));
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = simd.mul_add_e_f32s(x, w, *sum);
                            }
                        }
                    }
                }
                let to = parts.as_mut_ptr().add(first * C * lanes);
                for (column, sums) in sums.iter().enumerate() {
                    for (c, sum) in sums.iter().enumerate() {
                        store::<S>(to.add((column * C + c) * lanes), *sum);
                    }
                }
            }
        }
    }

    /// Transforms the sums of the positions, lines of `width`, to the tile's results from column `left` on.
    #[inline(always)]
    fn outputs<S: Simd>(&self, simd: S, sums: &[f32], width: usize, left: usize, out: &mut [f32]) {
        let (c, row) = (self.shape.c, self.shape.w * self.shape.c);
        assert!(sums.len() == N * width && width.is_multiple_of(LANES));
        let valid = width.min(row - left * c);
        for first in (0..valid).step_by(S::F32_LANES) {
            // SAFETY: the width is a multiple of the lanes.
            let m = std::array::from_fn(|position| unsafe {
                load::<S>(sums.as_ptr().add(position * width + first))
            });
            let valid = S::F32_LANES.min(valid - first);
            let mut write = |values: &[S::f32s]| {
                for (value, out) in values.iter().zip(out.chunks_exact_mut(row)) {
                    let out = &mut out[left * c + first..][..valid];
                    if valid == S::F32_LANES {
                        // SAFETY: there is room for a vector.
                        unsafe { store::<S>(out.as_mut_ptr(), *value) };
                    } else {
                        let mut lanes = [0.0; LANES];
                        // SAFETY: no vector has more lanes.
                        unsafe { store::<S>(lanes.as_mut_ptr(), *value) };
                        out.copy_from_slice(&lanes[..valid]);
                    }
                }
            };
            if self.shape.r == 3 {
                write(&points::output::<S, N, 4>(simd, m));
            } else {
                write(&points::output::<S, N, 2>(simd, m));
            }
        }
    }
}
