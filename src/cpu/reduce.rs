//! Folds over axes: `[outer, extent, inner]` to `[outer, inner]`.
//!
//! The extent is cut into slices of a fixed length; each slice is folded on its own (in parallel), then the slices'
//! results are folded in order. Within a slice a contiguous row is summed in `LANES` running sums, a column in one.

use super::blocks::Line;
use super::blocks::{BLOCK, floats, for_each_block, vectorized, write_blocks};
use super::float::Float;
use super::stages::{CHUNK, Epilogue};
use crate::tape::Reduction;

/// Running sums along a contiguous row: a multiple of every vector width, so the order of the sum does not depend
/// on the processor.
const LANES: usize = 32;

/// Extents of a fold and how it is cut.
pub(super) struct Fold {
    pub(super) kind: Reduction,
    pub(super) outer: usize,
    pub(super) extent: usize,
    pub(super) inner: usize,
}

impl Fold {
    /// Elements of the extent that one slice folds: about a block's worth of input.
    fn slice(&self) -> usize {
        (BLOCK / self.inner.max(1)).clamp(1, self.extent.max(1))
    }

    fn slices(&self) -> usize {
        self.extent.div_ceil(self.slice())
    }

    /// Floats of scratch memory the slices' results need.
    pub(super) fn scratch(&self) -> usize {
        if self.slices() <= 1 { 0 } else { self.outer * self.slices() * self.inner }
    }

    /// `out[o, i] = stages(fold over e of before(x[o, e, i]))`.
    pub(super) fn run<T: Float>(
        &self,
        x: &[T],
        out: &mut [T],
        before: &Epilogue<T>,
        epilogue: &Epilogue<T>,
        scratch: &mut [Line],
    ) {
        let &Fold { outer, extent, inner, .. } = self;
        let (slice, slices) = (self.slice(), self.slices());
        if inner == 0 {
            return;
        }
        if slices <= 1 {
            // Whole rows: several to a block.
            let rows = (BLOCK / (extent * inner).max(1)).max(1);
            write_blocks(out, rows * inner, epilogue, |start, block| {
                for (row, result) in block.chunks_exact_mut(inner).enumerate() {
                    let at = (start / inner + row) * extent * inner;
                    self.fold_slice(x, at, extent, before, result);
                }
            });
            return;
        }
        let partial = &mut floats::<T>(scratch)[..outer * slices * inner];
        for_each_block(partial, inner, |index, result| {
            let (o, first) = (index / slices, index % slices * slice);
            let at = o * extent * inner;
            let last = (first + slice).min(extent);
            self.fold_slice(x, at + first * inner, last - first, before, result);
        });
        let partial = &*partial;
        let rows = (BLOCK / (slices * inner)).max(1);
        write_blocks(out, rows * inner, epilogue, |start, block| {
            for (row, result) in block.chunks_exact_mut(inner).enumerate() {
                let at = (start / inner + row) * slices * inner;
                vectorized(
                    #[inline(always)]
                    || fold_columns(self.kind, &partial[at..at + slices * inner], result, true),
                );
            }
        });
    }

    /// Folds `before(x[at..])`, seen as `[extent, inner]`, to `[inner]`.
    fn fold_slice<T: Float>(
        &self,
        x: &[T],
        at: usize,
        extent: usize,
        before: &Epilogue<T>,
        result: &mut [T],
    ) {
        let x = &x[at..at + extent * self.inner];
        vectorized(
            #[inline(always)]
            || {
                if before.is_empty() && self.inner > 1 {
                    return fold_columns(self.kind, x, result, true);
                }
                let mut held = [T::ZERO; CHUNK];
                // `start` is the place of x within the slice.
                let mut fold = |start: usize, x: &[T], columns: &mut [T], first: bool| {
                    let x = if before.is_empty() {
                        x
                    } else {
                        let held = &mut held[..x.len()];
                        held.copy_from_slice(x);
                        before.apply_chunk(at + start, held, &[]);
                        held
                    };
                    if self.inner == 1 {
                        let value = fold_row(self.kind, x);
                        columns[0] = if first { value } else { combine(self.kind, columns[0], value) };
                    } else {
                        fold_columns(self.kind, x, columns, first);
                    }
                };
                if self.inner <= CHUNK {
                    let step = CHUNK / self.inner * self.inner;
                    for (index, chunk) in x.chunks(step).enumerate() {
                        fold(index * step, chunk, result, index == 0);
                    }
                } else {
                    for (e, row) in x.chunks_exact(self.inner).enumerate() {
                        for (piece, columns) in result.chunks_mut(CHUNK).enumerate() {
                            let from = piece * CHUNK;
                            fold(e * self.inner + from, &row[from..from + columns.len()], columns, e == 0);
                        }
                    }
                }
            },
        );
    }
}

#[inline(always)]
fn combine<T: Float>(kind: Reduction, a: T, b: T) -> T {
    match kind {
        Reduction::Sum => a + b,
        Reduction::Max => a.maximum(b),
    }
}

/// Folds rows of `result.len()` into `result`, which the first row overwrites when `first`.
#[inline(always)]
fn fold_columns<T: Float>(kind: Reduction, x: &[T], result: &mut [T], first: bool) {
    let mut rows = x.chunks_exact(result.len());
    if first && let Some(row) = rows.next() {
        result.copy_from_slice(row);
    }
    for row in rows {
        match kind {
            Reduction::Sum => result.iter_mut().zip(row).for_each(|(r, x)| *r += *x),
            Reduction::Max => result.iter_mut().zip(row).for_each(|(r, x)| *r = r.maximum(*x)),
        }
    }
}

/// Folds a contiguous row to one number.
#[inline(always)]
fn fold_row<T: Float>(kind: Reduction, x: &[T]) -> T {
    let neutral = if kind == Reduction::Sum { T::ZERO } else { T::NEG_INFINITY };
    let mut lanes = [neutral; LANES];
    let mut groups = x.chunks_exact(LANES);
    for group in &mut groups {
        match kind {
            Reduction::Sum => lanes.iter_mut().zip(group).for_each(|(l, x)| *l += *x),
            Reduction::Max => lanes.iter_mut().zip(group).for_each(|(l, x)| *l = l.maximum(*x)),
        }
    }
    for (lane, x) in lanes.iter_mut().zip(groups.remainder()) {
        *lane = combine(kind, *lane, *x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(kind, lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}
