//! Data movement: transposition, slicing, padding, broadcast, concatenation.

use super::blocks::{BLOCK, for_each_block, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::shape::{MAX_RANK, Shape, StridedAxes, StridedAxis};

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
    let axes = StridedAxes::joined(view.shape.dims(), view.strides, view.lo, view.hi);
    write_blocks(out, BLOCK, epilogue, |start, block| copy_block(view.offset, axes.list(), x, start, block));
}

/// Elements `start..` of the view, a run along the innermost axis at a time: of a slice along the first axis, all that a
/// block holds. (Along the last axis as the tape has it, a run was one element where images have one channel, and a slice of
/// them took ten times as long as arithmetic on it.)
fn copy_block<T: Float>(offset: isize, axes: &[StridedAxis], x: &[T], start: usize, block: &mut [T]) {
    let Some((first, outer)) = axes.split_first() else {
        block[0] = x[offset as usize];
        return;
    };
    // Index vector of the run's first element.
    let mut index = [0; MAX_RANK];
    let mut rest = start;
    for (index, axis) in index.iter_mut().zip(axes) {
        *index = rest % axis.extent;
        rest /= axis.extent;
    }
    let mut done = 0;
    while done < block.len() {
        let from = index[0];
        let run = (first.extent - from).min(block.len() - done);
        let out = &mut block[done..done + run];
        let indices = || outer.iter().zip(&index[1..]);
        let inside = indices().all(|(axis, index)| (axis.lo..axis.hi).contains(index));
        // The part of the run that lies inside x.
        let a = first.lo.clamp(from, from + run);
        let b = if inside { first.hi.clamp(a, from + run) } else { a };
        if a == b {
            out.fill(T::ZERO);
        } else {
            let base: isize = offset
                + indices().map(|(axis, index)| (index * axis.stride) as isize).sum::<isize>()
                + (a * first.stride) as isize;
            let base = base as usize;
            out[..a - from].fill(T::ZERO);
            out[b - from..].fill(T::ZERO);
            let out = &mut out[a - from..b - from];
            match first.stride {
                0 => out.fill(x[base]),
                1 => out.copy_from_slice(&x[base..base + out.len()]),
                step => out.iter_mut().zip(x[base..].iter().step_by(step)).for_each(|(o, x)| *o = *x),
            }
        }
        done += run;
        // The next run begins at 0 on the innermost axis; carry into the others.
        index[0] = 0;
        for (axis, index) in outer.iter().zip(&mut index[1..]) {
            *index += 1;
            if *index < axis.extent {
                break;
            }
            *index = 0;
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
