//! Matrix products, by the `gemm` crate over fixed blocks of rows.

use super::blocks::write_blocks;
use super::float::Float;
use super::stages::Epilogue;

/// Extents and transpositions of a product: see [`crate::launch::Kernel::MatMul`].
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) ta: bool,
    pub(super) tb: bool,
}

/// Rows of a block.
const ROWS: usize = 32;

/// `out[m, n] = stages(a b)`.
pub(super) fn matmul<T: Float>(product: Product, a: &[T], b: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let Product { m, n, k, ta, tb } = product;
    let (a_row, a_column) = if ta { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if tb { (1, k) } else { (n, 1) };
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n);
    write_blocks(out, (ROWS * n).max(1), epilogue, |start, block| {
        let (first, rows) = (start / n, block.len() / n);
        // SAFETY: the block has `rows` rows of n, rows `first..first + rows` of a exist, and the strides stay
        // within the lengths asserted above.
        unsafe {
            gemm::gemm(
                rows,
                n,
                k,
                block.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr().add(first * a_row),
                a_column as isize,
                a_row as isize,
                b.as_ptr(),
                b_column as isize,
                b_row as isize,
                T::ZERO,
                T::ONE,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
}
