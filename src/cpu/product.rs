//! Products of blocks of matrices by the `gemm` crate, with sums in an order that does not depend on the blocks.
//!
//! The crate has several ways to multiply and takes one by the extents it is given: a dot product for a single row, a
//! horizontal one for small blocks, a cut through the sum for long rows. Each adds up in another order. A row's result
//! would then depend on the rows beside it, and an example's gradient on its batch. Here every block goes the same
//! way: the sum is cut at fixed places, and a block that the crate would treat apart is brought into another form.

use super::blocks::Scratch;
use super::float::Float;

/// Terms that are summed in one go whatever the extents: the least of the crate's own bounds.
const DEPTH: usize = 512;
/// Elements of a result up to which the crate multiplies horizontally, when both operands are contiguous along the
/// sum.
const HORIZONTAL: usize = 16 * 16;

/// Where a matrix begins, and the distances between its rows and its columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<T> {
    pub(super) start: *const T,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Extents of a product `[rows, k] [k, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Extents {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) k: usize,
}

/// `out[i * columns + j] = sum over l of a[i, l] * b[l, j]`.
///
/// # Safety
/// Both matrices must be readable at their extents.
pub(super) unsafe fn product<T: Float>(of: Extents, a: Matrix<T>, b: Matrix<T>, out: &mut [T]) {
    let Extents { rows, columns, k } = of;
    assert!(out.len() == rows * columns);
    if rows == 1 || columns == 1 {
        // Twice the same row or column, so that it is not a product with a vector.
        let twice = |one: bool, stride: usize| if one { 0 } else { stride };
        let (a, b) = (
            Matrix { row: twice(rows == 1, a.row), ..a },
            Matrix { column: twice(columns == 1, b.column), ..b },
        );
        let wide = Extents { rows: rows.max(2), columns: columns.max(2), k };
        let mut both = Scratch::take(wide.rows * wide.columns);
        // SAFETY: the rows and columns added are the ones that are there.
        unsafe { contiguous(wide, a, b, &mut both) };
        for (out, row) in out.chunks_exact_mut(columns).zip(both.chunks_exact(wide.columns)) {
            out.copy_from_slice(&row[..columns]);
        }
    } else {
        // SAFETY: passed on from the caller.
        unsafe { contiguous(of, a, b, out) };
    }
}

/// As [`product`], for two rows and columns or more.
///
/// # Safety
/// As [`product`].
unsafe fn contiguous<T: Float>(of: Extents, a: Matrix<T>, b: Matrix<T>, out: &mut [T]) {
    let Extents { rows, columns, k } = of;
    if rows * columns > HORIZONTAL || a.column != 1 || b.row != 1 {
        // SAFETY: passed on from the caller.
        return unsafe { cut(of, a, b, out) };
    }
    let mut turned = Scratch::take(k * rows);
    for (l, line) in turned.chunks_exact_mut(rows).enumerate() {
        for (i, x) in line.iter_mut().enumerate() {
            // SAFETY: l is below k and i below rows.
            *x = unsafe { *a.start.add(i * a.row + l) };
        }
    }
    // SAFETY: b is the caller's, the other operand has k lines of rows.
    unsafe { cut(of, Matrix { start: turned.as_ptr(), row: 1, column: rows }, b, out) };
}

/// As [`product`], in parts of the sum.
///
/// # Safety
/// As [`product`].
unsafe fn cut<T: Float>(of: Extents, a: Matrix<T>, b: Matrix<T>, out: &mut [T]) {
    let Extents { rows, columns, k } = of;
    for first in (0..k.max(1)).step_by(DEPTH) {
        // SAFETY: `first` is below k, or k is 0 and nothing is read.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                DEPTH.min(k - first),
                out.as_mut_ptr(),
                1,
                columns as isize,
                first > 0,
                a.start.add(first * a.column),
                a.column as isize,
                a.row as isize,
                b.start.add(first * b.row),
                b.column as isize,
                b.row as isize,
                if first > 0 { T::ONE } else { T::ZERO },
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a product by every number of rows and columns at a time.
    fn every_block_gives_the_same_bits<T: Float>() {
        let number = |i: usize| T::from_f64(((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0);
        for (m, n, k) in [(37, 33, 4), (19, 70, 1300), (70, 3, 700), (5, 1, 2), (9, 9, 1), (1, 40, 600)] {
            let a: Vec<T> = (0..m * k).map(number).collect();
            let b: Vec<T> = (0..k * n).map(|i| number(i + 7)).collect();
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let (a_row, a_column) = if ta { (1, m) } else { (k, 1) };
                let (b_row, b_column) = if tb { (1, k) } else { (n, 1) };
                let multiply = |top: usize, left: usize, rows: usize, columns: usize| {
                    let mut out = vec![T::ZERO; rows * columns];
                    let left = Matrix { start: b[left * b_column..].as_ptr(), row: b_row, column: b_column };
                    let top = Matrix { start: a[top * a_row..].as_ptr(), row: a_row, column: a_column };
                    // SAFETY: the block lies inside both.
                    unsafe { product(Extents { rows, columns, k }, top, left, &mut out) };
                    out
                };
                let whole = multiply(0, 0, m, n);
                for (rows, columns) in [(1, n), (2, n), (5, n), (32, n), (m, 1), (m, 16), (3, 7), (32, 64)] {
                    for (top, left) in [(0, 0), (m - rows.min(m), n - columns.min(n))] {
                        let (rows, columns) = (rows.min(m), columns.min(n));
                        let part = multiply(top, left, rows, columns);
                        for (i, part) in part.chunks_exact(columns).enumerate() {
                            let whole = &whole[(top + i) * n + left..][..columns];
                            assert!(
                                part == whole,
                                "{m}x{n}x{k} {ta} {tb}: {rows}x{columns} at {top}, {left}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_and_columns_beside_it() {
        every_block_gives_the_same_bits::<f32>();
        every_block_gives_the_same_bits::<f64>();
    }
}
