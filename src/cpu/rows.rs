//! Kernels over the rows of a matrix, mostly logits: softmax, cross-entropy and its gradient, argmax, correctness.
//!
//! A label past the last class counts as the last class in the loss and its gradient, and is never correct.

use super::blocks::{BLOCK, for_each_block, vectorized, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use rayon::iter::{Either, repeat_n};
use rayon::prelude::*;

/// What a launch gives of each row beside the gradient, by [`crate::launch::PerRow`].
pub(super) type Also<'a, T> = [Option<&'a mut [T]>; 2];

/// Rows of `columns` elements that make a block.
fn rows_of_block(columns: usize) -> usize {
    (BLOCK / columns.max(1)).max(1)
}

/// Largest element.
#[inline(always)]
fn largest<T: Float>(row: &[T]) -> T {
    row.iter().fold(T::NEG_INFINITY, |best, &x| best.maximum(x))
}

/// Sum of `e^(x - shift)` over a row.
#[inline(always)]
fn sum_exp<T: Float>(row: &[T], shift: T) -> T {
    row.iter().fold(T::ZERO, |sum, &x| sum + (x - shift).exp())
}

/// Writes the softmax of `row` to `out`; the largest of the row, and the sum that its powers were divided by.
#[inline(always)]
fn softmax_row<T: Float>(row: &[T], out: &mut [T]) -> (T, T) {
    let shift = largest(row);
    out.iter_mut().zip(row).for_each(|(o, x)| *o = (*x - shift).exp());
    let sum = out.iter().fold(T::ZERO, |sum, &e| sum + e);
    out.iter_mut().for_each(|o| *o = *o / sum);
    (shift, sum)
}

/// Softmax of each row (shifted by its maximum), or its logarithm.
pub(super) fn softmax<T: Float>(columns: usize, log: bool, x: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    write_blocks(out, rows_of_block(columns) * columns, epilogue, |start, block| {
        vectorized(
            #[inline(always)]
            || {
                let x = &x[start..start + block.len()];
                for (row, out) in x.chunks_exact(columns).zip(block.chunks_exact_mut(columns)) {
                    if log {
                        let shift = largest(row);
                        let log_sum = sum_exp(row, shift).ln();
                        out.iter_mut().zip(row).for_each(|(o, x)| *o = *x - shift - log_sum);
                    } else {
                        softmax_row(row, out);
                    }
                }
            },
        );
    });
}

/// `-log softmax(row)_label`, of the row's largest element and the sum of `e^(x - shift)`.
#[inline(always)]
fn loss<T: Float>(row: &[T], label: usize, shift: T, sum: T) -> T {
    sum.ln() - (row[label] - shift)
}

/// `-log softmax(logits)_label` per row.
pub(super) fn cross_entropy<T: Float>(
    columns: usize,
    logits: &[T],
    labels: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    write_blocks(out, rows_of_block(columns), epilogue, |start, block| {
        vectorized(
            #[inline(always)]
            || {
                let rows = logits[start * columns..].chunks_exact(columns).zip(&labels[start..]);
                for (out, (row, &label)) in block.iter_mut().zip(rows) {
                    let shift = largest(row);
                    *out = loss(row, (label as usize).min(columns - 1), shift, sum_exp(row, shift));
                }
            },
        );
    });
}

/// The blocks of a result that may not be asked for.
fn blocks<T: Float>(
    also: Option<&mut [T]>,
    block: usize,
    count: usize,
) -> impl IndexedParallelIterator<Item = Option<&mut [T]>> {
    match also {
        Some(also) => Either::Left(also.par_chunks_mut(block).map(Some)),
        None => Either::Right(repeat_n((), count).map(|()| None)),
    }
}

/// The softmax of each row and the place of its label, given to `finish`; of the same pass what `also` asks for.
#[inline(always)]
fn by_logits<T: Float>(
    columns: usize,
    logits: &[T],
    labels: &[u32],
    out: &mut [T],
    also: Also<T>,
    epilogue: &Epilogue<T>,
    finish: impl Fn(&mut [T], usize) + Sync,
) {
    let rows = rows_of_block(columns);
    let body = |index: usize, out: &mut [T], [mut losses, mut right]: Also<T>| {
        let (first, start) = (index * rows, index * rows * columns);
        epilogue.finish(start, out, |block| {
            vectorized(
                #[inline(always)]
                || {
                    let rows = logits[start..].chunks_exact(columns).zip(&labels[first..]);
                    for (at, (out, (row, &label))) in block.chunks_exact_mut(columns).zip(rows).enumerate() {
                        let (shift, sum) = softmax_row(row, out);
                        let place = (label as usize).min(columns - 1);
                        if let Some(losses) = &mut losses {
                            losses[at] = loss(row, place, shift, sum);
                        }
                        if let Some(right) = &mut right {
                            right[at] = is_right(row, label);
                        }
                        finish(out, place);
                    }
                },
            );
        });
    };
    if out.len() <= rows * columns {
        return body(0, out, also);
    }
    let count = out.len().div_ceil(rows * columns);
    let [losses, right] = also.map(|also| blocks(also, rows, count));
    let all = out.par_chunks_mut(rows * columns).zip(losses).zip(right).enumerate();
    all.for_each(|(index, ((out, losses), right))| body(index, out, [losses, right]));
}

/// `softmax(logits) - onehot(labels)`: the gradient of [`cross_entropy`] by its logits.
pub(super) fn cross_entropy_grad<T: Float>(
    columns: usize,
    logits: &[T],
    labels: &[u32],
    out: &mut [T],
    also: Also<T>,
    epilogue: &Epilogue<T>,
) {
    by_logits(
        columns,
        logits,
        labels,
        out,
        also,
        epilogue,
        #[inline(always)]
        |row, label| row[label] = row[label] - T::ONE,
    );
}

/// The power of two that brings a magnitude into [1/2, 1), but at most 2^126, the largest whose inverse f32 has too.
fn unit_scale(x: f64) -> f64 {
    // x lies in [2^(e-1), 2^e) with e off its bits.
    let e = (x.to_bits() >> 52) as i32 - 1022;
    2f64.powi((-e).clamp(-126, 126))
}

/// As [`cross_entropy_grad`], with the largest magnitude of each row brought into [1/2, 1) by a power of two, and the
/// label's element as what the others add up to.
pub(super) fn cross_entropy_direction<T: Float>(
    columns: usize,
    logits: &[T],
    labels: &[u32],
    out: &mut [T],
    also: Also<T>,
    epilogue: &Epilogue<T>,
) {
    by_logits(
        columns,
        logits,
        labels,
        out,
        also,
        epilogue,
        #[inline(always)]
        |row, label| {
            // Of a sure network p - 1 is rounded away where what the others add up to is still there. As that sum it
            // is the row's largest.
            row[label] = T::ZERO;
            let others = row.iter().fold(T::ZERO, |sum, &p| sum + p);
            row[label] = T::ZERO - others;
            let scale = T::from_f64(unit_scale(others.to_f64()));
            row.iter_mut().for_each(|x| *x = *x * scale);
        },
    );
}

/// Index of the first largest element; a NaN never wins against a number.
#[inline(always)]
fn first_largest<T: Float>(row: &[T]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] || (row[best].is_nan() && !x.is_nan()) {
            best = i;
        }
    }
    best
}

/// 1 where the label's logit is the first largest of its row, else 0.
#[inline(always)]
fn is_right<T: Float>(row: &[T], label: u32) -> T {
    if first_largest(row) == label as usize { T::ONE } else { T::ZERO }
}

/// Index of the largest element of each row, the first of equals; a NaN never wins against a number.
pub(super) fn argmax<T: Float>(columns: usize, x: &[T], out: &mut [u32]) {
    let rows = rows_of_block(columns);
    for_each_block(out, rows, |index, block| {
        for (out, row) in block.iter_mut().zip(x[index * rows * columns..].chunks_exact(columns)) {
            *out = first_largest(row) as u32;
        }
    });
}

/// 1 where the label's logit is the first largest of its row, else 0.
pub(super) fn correct<T: Float>(
    columns: usize,
    logits: &[T],
    labels: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    write_blocks(out, rows_of_block(columns), epilogue, |start, block| {
        let rows = logits[start * columns..].chunks_exact(columns).zip(&labels[start..]);
        for (out, (row, &label)) in block.iter_mut().zip(rows) {
            *out = is_right(row, label);
        }
    });
}
