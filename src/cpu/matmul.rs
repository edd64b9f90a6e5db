//! Matrix products in register tiles: see [`super::tile`]. The right operand is packed into panels, the left one is
//! read where it stands, or turned first.
//!
//! Every element is one sum in order, whatever block or tile it falls in: a row of the result does not depend on the
//! rows beside it, nor an example's gradient on its batch. (The `gemm` crate has several ways to multiply, each with
//! its own order, and asks for memory in each call.)

use super::blocks::{Line, Scratch, floats, for_each, for_each_block};
use super::float::Float;
use super::stages::Epilogue;
use super::tile::{Row, Walk, multiply_rows, panel_width, run_task};
use super::vectors::turn;
use pulp::{Simd, WithSimd};

/// Extents and transpositions of a product: see [`crate::launch::Kernel::MatMul`].
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) ta: bool,
    pub(super) tb: bool,
}

/// Most rows of a block: a multiple of every tile's.
const ROWS: usize = 96;
/// Floating-point operations below which a product is one block.
const SMALL: usize = 1 << 18;
/// Blocks wanted of larger ones, for machines with many cores.
const BLOCKS: usize = 16;

impl Product {
    /// Rows and panels of a block, from the shape alone.
    fn block<T: Float>(&self) -> (usize, usize) {
        let panels = self.n.div_ceil(panel_width::<T>());
        if 2 * self.m * self.n * self.k <= SMALL && self.m <= ROWS {
            return (self.m, panels);
        }
        let rows = self.m.min(ROWS);
        let across = (BLOCKS / self.m.div_ceil(rows)).clamp(1, panels);
        (rows, panels.div_ceil(across))
    }

    /// Floats of the right operand in panels.
    fn packed<T: Float>(&self) -> usize {
        let width = panel_width::<T>();
        self.n.div_ceil(width) * self.k * width
    }

    /// Floats of scratch memory for the packed and the turned operand.
    pub(super) fn scratch<T: Float>(&self) -> usize {
        if self.m * self.n == 0 {
            return 0;
        }
        self.packed::<T>() + if self.ta { self.m * self.k } else { 0 }
    }

    /// Floats of a thread's own scratch memory that a block takes, and floats of the rows it writes.
    pub(super) fn own<T: Float>(&self) -> (usize, usize) {
        if self.m * self.n == 0 {
            return (0, 0);
        }
        let (rows, panels) = self.block::<T>();
        let columns = (panels * panel_width::<T>()).min(self.n);
        (if columns == self.n { 0 } else { rows * columns }, rows * self.n)
    }
}

/// The result, written by several threads.
struct Shared<T>(*mut T);

// SAFETY: every thread writes the elements of its own blocks only.
unsafe impl<T: Send> Sync for Shared<T> {}

/// `out[m, n] = stages(a b)`.
pub(super) fn matmul<T: Float>(
    product: Product,
    a: &[T],
    b: &[T],
    out: &mut [T],
    epilogue: &Epilogue<T>,
    scratch: &mut [Line],
) {
    let Product { m, n, k, ta, tb } = product;
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n);
    let width = panel_width::<T>();
    let (packed, turned) = floats(scratch)[..product.scratch::<T>()].split_at_mut(product.packed::<T>());
    for_each_block(packed, k * width, |panel, lines| {
        let (first, valid) = (panel * width, width.min(n - panel * width));
        if tb {
            turn(&b[first * k..], [valid, k], k, lines, width);
            // A line's end meets no column of the result, but must be numbers.
            lines.chunks_exact_mut(width).for_each(|line| line[valid..].fill(T::ZERO));
        } else {
            for (line, b) in lines.chunks_exact_mut(width).zip(b.chunks_exact(n)) {
                line[..valid].copy_from_slice(&b[first..first + valid]);
                line[valid..].fill(T::ZERO);
            }
        }
    });
    if ta {
        for_each_block(turned, ROWS * k, |index, rows| {
            turn(&a[index * ROWS..], [k, rows.len() / k], m, rows, k);
        });
    }
    let (packed, a) = (&*packed, if ta { &*turned } else { a });
    let (rows, panels) = product.block::<T>();
    let across = n.div_ceil(panels * width);
    let shared = Shared(out.as_mut_ptr());
    for_each(m.div_ceil(rows) * across, |index| {
        let shared = &shared;
        let (top, first) = (index / across * rows, index % across * panels);
        let (rows, left) = (rows.min(m - top), first * width);
        let columns = (panels * width).min(n - left);
        let a = &a[top * k..(top + rows) * k];
        let packed = &packed[first * k * width..];
        let compute = |out: &mut [T]| run_task(Block { a, packed, k, columns, out });
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

/// `out[rows, columns]` of rows of a, `[rows, k]`, and panels.
struct Block<'a, T> {
    a: &'a [T],
    packed: &'a [T],
    k: usize,
    columns: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { a, packed, k, columns, out } = self;
        let (width, rows) = (panel_width::<T>(), out.len() / columns);
        let places: [Row; ROWS] =
            std::array::from_fn(|i| Row { from: (i * k) as u32, to: (i * columns) as u32 });
        let segments: &[usize] = if k == 0 { &[] } else { &[0] };
        assert!(rows <= ROWS && rows * k <= a.len() && columns.div_ceil(width) * k * width <= packed.len());
        for panel in 0..columns.div_ceil(width) {
            let (left, valid) = (panel * width, width.min(columns - panel * width));
            // SAFETY: row i reads k floats of a from i * k on and writes `valid` of out from i * columns + left on;
            // the panel has k lines, by the assertion.
            unsafe {
                let lines = packed.as_ptr().add(panel * k * width);
                let out = out.as_mut_ptr().add(left);
                let walk = Walk { segments, run: k, add: false };
                multiply_rows(simd, a.as_ptr(), &places[..rows], walk, lines, out, valid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::{Line, lines};
    use super::super::stages::Steps;
    use super::*;
    use crate::launch::MAX_OPERANDS;

    fn multiply<T: Float>(product: Product, a: &[T], b: &[T]) -> Vec<T> {
        let mut out = vec![T::ONE; product.m * product.n];
        let mut scratch = vec![Line::ZERO; lines::<T>(product.scratch::<T>())];
        let steps = Steps::none();
        let epilogue = Epilogue {
            steps: &steps,
            operands: [&[]; MAX_OPERANDS],
            bits: [&[]; MAX_OPERANDS],
            reads_previous: false,
        };
        matmul(product, a, b, &mut out, &epilogue, &mut scratch);
        out
    }

    /// Rows of a product, alone and with others.
    fn a_row_alone<T: Float>() {
        let number = |i: usize| T::from_f64(((i * 2_654_435_761) % 1009) as f64 / 504.5 - 1.0);
        for (m, n, k) in [(37, 33, 4), (19, 70, 1300), (300, 3, 700), (5, 1, 2), (9, 9, 1), (130, 40, 600)] {
            let a: Vec<T> = (0..m * k).map(number).collect();
            let b: Vec<T> = (0..k * n).map(|i| number(i + 7)).collect();
            for tb in [false, true] {
                let whole = multiply(Product { m, n, k, ta: false, tb }, &a, &b);
                for (first, rows) in [(0, 1), (m - 1, 1), (m / 2, 3), (m / 3, m / 2)] {
                    let rows = rows.min(m - first);
                    let part = Product { m: rows, n, k, ta: false, tb };
                    let part = multiply(part, &a[first * k..(first + rows) * k], &b);
                    assert!(part == whole[first * n..(first + rows) * n], "{m}x{n}x{k} {tb}: {rows} rows");
                }
                // The left operand turned is the same numbers.
                let mut turned = vec![T::ZERO; m * k];
                turn(&a, [m, k], k, &mut turned, m);
                assert!(
                    multiply(Product { m, n, k, ta: true, tb }, &turned, &b) == whole,
                    "{m}x{n}x{k} {tb}"
                );
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it() {
        a_row_alone::<f32>();
        a_row_alone::<f64>();
    }
}
