//! Data movement: transposition, slicing, padding, broadcast, concatenation.

use super::blocks::{BLOCK, for_each_block, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::shape::{MAX_RANK, Shape};

/// How the result of a copy reads its source: see [`crate::launch::Kernel::Copy`].
pub(super) struct View<'a> {
    pub(super) shape: Shape,
    pub(super) offset: isize,
    pub(super) strides: &'a [usize],
    pub(super) lo: &'a [usize],
    pub(super) hi: &'a [usize],
}

/// `out[o] = stages(x[offset + o . strides] or 0)`.
pub(super) fn copy<T: Float>(view: &View, x: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    write_blocks(out, BLOCK, epilogue, |start, block| copy_block(view, x, start, block));
}

/// Elements `start..` of the view, a run along the last axis at a time.
fn copy_block<T: Float>(view: &View, x: &[T], start: usize, block: &mut [T]) {
    let rank = view.shape.rank();
    if rank == 0 {
        block[0] = x[view.offset as usize];
        return;
    }
    let last = rank - 1;
    let (width, step) = (view.shape[last], view.strides[last]);
    // Index vector of the run's first element.
    let mut index = [0; MAX_RANK];
    let mut rest = start;
    for axis in (0..rank).rev() {
        index[axis] = rest % view.shape[axis];
        rest /= view.shape[axis];
    }
    let mut done = 0;
    while done < block.len() {
        let from = index[last];
        let run = (width - from).min(block.len() - done);
        let out = &mut block[done..done + run];
        let inside = (0..last).all(|axis| (view.lo[axis]..view.hi[axis]).contains(&index[axis]));
        // The part of the run that lies inside x.
        let a = view.lo[last].clamp(from, from + run);
        let b = if inside { view.hi[last].clamp(a, from + run) } else { a };
        if a == b {
            out.fill(T::ZERO);
        } else {
            let base: isize = view.offset
                + (0..last).map(|axis| (index[axis] * view.strides[axis]) as isize).sum::<isize>()
                + (a * step) as isize;
            let base = base as usize;
            out[..a - from].fill(T::ZERO);
            out[b - from..].fill(T::ZERO);
            let out = &mut out[a - from..b - from];
            match step {
                0 => out.fill(x[base]),
                1 => out.copy_from_slice(&x[base..base + out.len()]),
                _ => out.iter_mut().zip(x[base..].iter().step_by(step)).for_each(|(o, x)| *o = *x),
            }
        }
        done += run;
        // The next run begins at 0 on the last axis; carry into the axes before.
        index[last] = 0;
        for axis in (0..last).rev() {
            index[axis] += 1;
            if index[axis] < view.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// `[outer, columns_i]` joined to `[outer, sum of columns]`; `parts` are (columns, values).
pub(super) fn concat<T: Float>(outer: usize, parts: &[(usize, &[T])], out: &mut [T]) {
    let width: usize = parts.iter().map(|part| part.0).sum();
    if outer * width == 0 {
        return;
    }
    let rows = (BLOCK / width).max(1);
    for_each_block(out, rows * width, |index, block| {
        for (row, out) in block.chunks_exact_mut(width).enumerate() {
            let row = index * rows + row;
            let mut rest = out;
            for &(columns, x) in parts {
                let (head, tail) = rest.split_at_mut(columns);
                head.copy_from_slice(&x[row * columns..(row + 1) * columns]);
                rest = tail;
            }
        }
    });
}
