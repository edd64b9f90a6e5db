//! Matrix products, by the `gemm` crate over a fixed grid of blocks.

use super::blocks::{Scratch, for_each};
use super::float::Float;
use super::product::{self, Extents, Matrix};
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

/// Floating-point operations below which a product is not split for a second thread, and above which a block is
/// split for machines with many.
const SMALL: usize = 4 << 20;
const LARGE: usize = 64 << 20;

impl Product {
    /// Rows and columns of a block, from the shape alone. A block packs its rows of a and its columns of b anew, so
    /// blocks are few and near square.
    fn block(&self) -> (usize, usize) {
        let (mut rows, mut columns) = (self.m, self.n);
        loop {
            let blocks = self.m.div_ceil(rows) * self.n.div_ceil(columns);
            let flops = 2 * rows * columns * self.k;
            if !(blocks < 4 && flops > SMALL || blocks < 64 && flops > LARGE) || rows.max(columns) <= 16 {
                return (rows, columns);
            }
            if 2 * rows >= columns {
                rows = rows.div_ceil(2).next_multiple_of(8);
            } else {
                columns = columns.div_ceil(2).next_multiple_of(16);
            }
        }
    }
}

/// The result, written by several threads.
struct Shared<T>(*mut T);

// SAFETY: every thread writes the elements of its own blocks only.
unsafe impl<T: Send> Sync for Shared<T> {}

/// `out[m, n] = stages(a b)`.
pub(super) fn matmul<T: Float>(product: Product, a: &[T], b: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let Product { m, n, k, ta, tb } = product;
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n);
    let (a_row, a_column) = if ta { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if tb { (1, k) } else { (n, 1) };
    let (rows, columns) = product.block();
    let across = n.div_ceil(columns);
    let shared = Shared(out.as_mut_ptr());
    for_each(m.div_ceil(rows) * across, |index| {
        let shared = &shared;
        let (top, left) = (index / across * rows, index % across * columns);
        let (rows, columns) = (rows.min(m - top), columns.min(n - left));
        // Rows `top..top + rows` by columns `left..left + columns` of the product, to a block of these rows.
        let compute = |block: &mut [T]| {
            assert!(block.len() == rows * columns);
            // SAFETY: the block's rows of a and columns of b lie within the lengths asserted above.
            unsafe {
                let a = Matrix { start: a.as_ptr().add(top * a_row), row: a_row, column: a_column };
                let b = Matrix { start: b.as_ptr().add(left * b_column), row: b_row, column: b_column };
                product::product(Extents { rows, columns, k }, a, b, block);
            }
        };
        // SAFETY: the blocks are disjoint and lie in out, and nobody else holds it.
        let part =
            |from: usize, len: usize| unsafe { std::slice::from_raw_parts_mut(shared.0.add(from), len) };
        if columns == n {
            epilogue.finish(top * n, part(top * n, rows * n), compute);
        } else {
            let mut block = Scratch::take(rows * columns);
            compute(&mut block);
            for (row, values) in block.chunks_exact_mut(columns).enumerate() {
                let start = (top + row) * n + left;
                let out = part(start, columns);
                epilogue.apply(start, values, out);
                out.copy_from_slice(values);
            }
        }
    });
}
