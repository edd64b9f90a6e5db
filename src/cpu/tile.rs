//! The inner loops of convolution: register tiles of a matrix product whose left operand is read in place, by
//! offsets, instead of being copied to a matrix of windows first ("implicit GEMM").
//!
//! Both tiles keep some rows by `K` vector registers of sums, and for each step broadcast one number a row and load
//! `K` vectors. With 32 registers (AVX-512, NEON) a tile has 12 rows by 2 vectors, with 16 it has 6 by 2: the most
//! multiply-adds a load that fit. The sums of one result are taken in the same order whatever tile it falls in.

use super::float::Float;
use pulp::Simd;

/// Vectors side by side in a tile; packed matrices are cut into panels of this many.
pub(super) const VECTORS: usize = 2;

/// Floats of a vector register under `S`.
#[inline(always)]
pub(super) const fn lanes<T: Float, S: Simd>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Floats across a panel on this processor.
pub(super) fn panel_width<T: Float>() -> usize {
    struct Width<T>(std::marker::PhantomData<T>);
    impl<T: Float> pulp::WithSimd for Width<T> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            VECTORS * lanes::<T, S>()
        }
    }
    pulp::Arch::new().dispatch(Width::<T>(std::marker::PhantomData))
}

/// Runs a task with the widest vectors the processor has. Never inlined: one copy of its code is large enough.
#[inline(never)]
pub(super) fn run_task(task: impl pulp::WithSimd<Output = ()>) {
    pulp::Arch::new().dispatch(task);
}

/// Where one row of a product starts: in the left operand, and in the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// What the rows of a product are multiplied by: for each offset of `segments` in turn, `run` numbers from there on
/// meet the next `run` lines of the panel.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) segments: &'a [usize],
    pub(super) run: usize,
    /// Whether the products are added to what is there.
    pub(super) add: bool,
}

/// `out[row.to ..][..valid] = sum over segments and run of a[row.from + segment + i] * panel[line]`, for all rows,
/// or `+=` when the walk adds. The panel's lines are `VECTORS` registers wide.
///
/// # Safety
/// `a` must be readable at every `row.from + segment + i`, the panel for `segments * run` lines, `out` writable
/// (and readable, when the walk adds) for `valid` floats from every `row.to` on; `valid` is at most a line.
#[inline(always)]
pub(super) unsafe fn multiply_rows<T: Float, S: Simd>(
    simd: S,
    a: *const T,
    rows: &[Row],
    walk: Walk,
    panel: *const T,
    out: *mut T,
    valid: usize,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        if valid > lanes::<T, S>() {
            multiply_panel::<T, S, 2>(simd, a, rows, walk, panel, out, valid);
        } else {
            multiply_panel::<T, S, 1>(simd, a, rows, walk, panel, out, valid);
        }
    }
}

/// As [`multiply_rows`], for results of `K` vectors.
///
/// # Safety
/// As [`multiply_rows`].
#[inline(always)]
unsafe fn multiply_panel<T: Float, S: Simd, const K: usize>(
    simd: S,
    a: *const T,
    rows: &[Row],
    walk: Walk,
    panel: *const T,
    out: *mut T,
    valid: usize,
) {
    // SAFETY: each call takes rows that are there; the rest is the caller's.
    unsafe {
        let mut rest = rows;
        if S::REGISTER_COUNT >= 32 {
            while let Some((tile, after)) = rest.split_first_chunk::<12>() {
                multiply_tile::<T, S, 12, K>(simd, a, tile, walk, panel, out, valid);
                rest = after;
            }
            if let Some((tile, after)) = rest.split_first_chunk::<9>() {
                multiply_tile::<T, S, 9, K>(simd, a, tile, walk, panel, out, valid);
                rest = after;
            }
        }
        while let Some((tile, after)) = rest.split_first_chunk::<6>() {
            multiply_tile::<T, S, 6, K>(simd, a, tile, walk, panel, out, valid);
            rest = after;
        }
        while let Some((tile, after)) = rest.split_first_chunk::<4>() {
            multiply_tile::<T, S, 4, K>(simd, a, tile, walk, panel, out, valid);
            rest = after;
        }
        while let Some((tile, after)) = rest.split_first_chunk::<1>() {
            multiply_tile::<T, S, 1, K>(simd, a, tile, walk, panel, out, valid);
            rest = after;
        }
    }
}

/// As [`multiply_rows`], for `R` rows at once.
///
/// # Safety
/// As [`multiply_rows`].
#[inline(always)]
unsafe fn multiply_tile<T: Float, S: Simd, const R: usize, const K: usize>(
    simd: S,
    a: *const T,
    rows: &[Row; R],
    walk: Walk,
    panel: *const T,
    out: *mut T,
    valid: usize,
) {
    let lanes = lanes::<T, S>();
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; K]; R];
    let mut line = panel;
    // SAFETY: the caller vouches for every address; the vectors are read and written unaligned.
    unsafe {
        if walk.add {
            for (row, sums) in rows.iter().zip(&mut sums) {
                let out = out.add(row.to as usize);
                for (k, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<T, S>(out.add(k * lanes), zero, valid - k * lanes);
                }
            }
        }
        for &segment in walk.segments {
            let mut from = [a; R];
            for (from, row) in from.iter_mut().zip(rows) {
                *from = a.add(row.from as usize + segment);
            }
            for i in 0..walk.run {
                let mut b = [zero; K];
                for (k, b) in b.iter_mut().enumerate() {
                    *b = line.add(k * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
                for (sums, from) in sums.iter_mut().zip(&from) {
                    let x = T::splat(simd, *from.add(i));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = T::multiply_add(simd, x, b, *sum);
                    }
                }
                line = line.wrapping_add(VECTORS * lanes);
            }
        }
        for (row, sums) in rows.iter().zip(&sums) {
            let out = out.add(row.to as usize);
            for (k, sum) in sums.iter().enumerate() {
                store::<T, S>(out.add(k * lanes), *sum, valid - k * lanes);
            }
        }
    }
}

/// Reads a vector whose first `valid` lanes are there, the others of `zero`.
///
/// # Safety
/// `from` must be readable for as many floats.
#[inline(always)]
unsafe fn load<T: Float, S: Simd>(from: *const T, zero: T::Vector<S>, valid: usize) -> T::Vector<S> {
    // SAFETY: the caller's; a vector has the size of its lanes.
    unsafe {
        if valid >= lanes::<T, S>() {
            from.cast::<T::Vector<S>>().read_unaligned()
        } else {
            let mut vector = zero;
            std::ptr::copy_nonoverlapping(from, (&raw mut vector).cast::<T>(), valid);
            vector
        }
    }
}

/// Writes the first `valid` lanes of a vector, or all of them.
///
/// # Safety
/// `out` must be writable for as many floats.
#[inline(always)]
unsafe fn store<T: Float, S: Simd>(out: *mut T, vector: T::Vector<S>, valid: usize) {
    // SAFETY: the caller's; a vector has the size of its lanes.
    unsafe {
        if valid >= lanes::<T, S>() {
            out.cast::<T::Vector<S>>().write_unaligned(vector);
        } else {
            std::ptr::copy_nonoverlapping((&raw const vector).cast::<T>(), out, valid);
        }
    }
}

/// The steps of an outer product, over images, their rows and their columns.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) images: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Distance of images, rows and columns in the left operand.
    pub(super) a: [usize; 3],
    /// Distance of steps in the right operand.
    pub(super) b: usize,
}

/// `out[i][..] += sum over steps of a[i + step] * b[step][..]` for `i < height`; lines of `out` are `stride` apart,
/// `vectors` (1 or 2) registers wide, and so are those of `b`.
///
/// # Safety
/// The operands must be readable at every step, `out` readable and writable for `height` lines.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one inner loop's operands")]
pub(super) unsafe fn accumulate<T: Float, S: Simd>(
    simd: S,
    a: *const T,
    b: *const T,
    steps: Steps,
    out: *mut T,
    stride: usize,
    height: usize,
    vectors: usize,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        if vectors > 1 {
            accumulate_lines::<T, S, 2>(simd, a, b, steps, out, stride, height);
        } else {
            accumulate_lines::<T, S, 1>(simd, a, b, steps, out, stride, height);
        }
    }
}

/// As [`accumulate`], for lines of `K` vectors.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
unsafe fn accumulate_lines<T: Float, S: Simd, const K: usize>(
    simd: S,
    a: *const T,
    b: *const T,
    steps: Steps,
    out: *mut T,
    stride: usize,
    height: usize,
) {
    let mut i = 0;
    // SAFETY: every tile lies below `height`.
    unsafe {
        if S::REGISTER_COUNT >= 32 {
            while i + 8 <= height {
                accumulate_tile::<T, S, 8, K>(simd, a.add(i), b, steps, out.add(i * stride), stride);
                i += 8;
            }
        }
        while i + 4 <= height {
            accumulate_tile::<T, S, 4, K>(simd, a.add(i), b, steps, out.add(i * stride), stride);
            i += 4;
        }
        while i < height {
            accumulate_tile::<T, S, 1, K>(simd, a.add(i), b, steps, out.add(i * stride), stride);
            i += 1;
        }
    }
}

/// As [`accumulate`], for `R` lines at once.
///
/// # Safety
/// As [`accumulate`].
#[inline(always)]
unsafe fn accumulate_tile<T: Float, S: Simd, const R: usize, const K: usize>(
    simd: S,
    a: *const T,
    b: *const T,
    steps: Steps,
    out: *mut T,
    stride: usize,
) {
    let lanes = lanes::<T, S>();
    let zero = T::splat(simd, T::ZERO);
    let mut sums = [[zero; K]; R];
    // SAFETY: the caller vouches for every address; the vectors are read and written unaligned.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (k, sum) in sums.iter_mut().enumerate() {
                *sum = out.add(r * stride + k * lanes).cast::<T::Vector<S>>().read_unaligned();
            }
        }
        let mut line = b;
        for row in 0..steps.images * steps.rows {
            let (image, row) = (row / steps.rows, row % steps.rows);
            let mut from = a.add(image * steps.a[0] + row * steps.a[1]);
            for _ in 0..steps.columns {
                let mut b = [zero; K];
                for (k, b) in b.iter_mut().enumerate() {
                    *b = line.add(k * lanes).cast::<T::Vector<S>>().read_unaligned();
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = T::splat(simd, *from.add(r));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = T::multiply_add(simd, x, b, *sum);
                    }
                }
                from = from.wrapping_add(steps.a[2]);
                line = line.wrapping_add(steps.b);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (k, sum) in sums.iter().enumerate() {
                out.add(r * stride + k * lanes).cast::<T::Vector<S>>().write_unaligned(*sum);
            }
        }
    }
}
