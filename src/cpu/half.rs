//! Products in half precision: operands rounded to bf16, sums in f32.
//!
//! Processors with AVX512_BF16 multiply 32 pairs of bf16 an instruction and add them to 16 sums in f32: twice the
//! multiply-adds of an f32 instruction (measured on one core of a Zen 5: 512 against 266 GFLOP/s). bf16 has the
//! exponents of f32, so nothing leaves its range. On other processors products stay in f32.
//!
//! The tile is that of [`super::tile`], over pairs of neighbours along the sum: the left operand is read in place, two
//! numbers at a time, the right one lies in panels whose lines hold the two numbers of a pair side by side. A run of odd
//! length ends with a pair whose second number belongs to somebody else and meets a zero.

use super::blocks::{Line, Scratch, for_each, lines};
use super::conv2d::HalfCorrelate;
use super::float::Float;
use super::matmul::Product;
use super::stages::Epilogue;
use super::tile::Row;
use crate::launch::Kernel;

/// Results across a panel: two vectors.
pub(super) const WIDTH: usize = 32;
/// Numbers of a panel's line: a pair for each result.
pub(super) const LINE: usize = 2 * WIDTH;
/// Rows of a matrix product that a task converts and multiplies.
const ROWS: usize = 24;

/// Whether this processor multiplies bf16.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A product in half precision, ready to run again and again.
pub(super) enum HalfProduct {
    Correlate(Box<HalfCorrelate>),
    MatMul(Product),
}

impl HalfProduct {
    /// The product of `kernel`, where half precision makes it faster on this processor. Gradients by weights stay in
    /// f32: an attack has none.
    pub(super) fn new(kernel: &Kernel) -> Option<HalfProduct> {
        if !available() {
            return None;
        }
        match kernel {
            &Kernel::MatMul { m, n, k, ta: false, tb } if m * n * k > 0 => {
                Some(HalfProduct::MatMul(Product { m, n, k, ta: false, tb }))
            }
            Kernel::Conv2d(shape) => HalfCorrelate::forward(shape).map(Box::new).map(HalfProduct::Correlate),
            Kernel::Conv2dInputGrad(shape) => {
                HalfCorrelate::input_grad(shape).map(Box::new).map(HalfProduct::Correlate)
            }
            _ => None,
        }
    }

    /// Memory for the packed right operand, in cache lines.
    pub(super) fn memory(&self) -> usize {
        let halves = match self {
            HalfProduct::Correlate(plan) => plan.packed(),
            HalfProduct::MatMul(product) => product.n.div_ceil(WIDTH) * product.k.div_ceil(2) * LINE,
        };
        lines::<f32>(halves.div_ceil(2))
    }

    /// Floats of a thread's own memory that a task takes, and elements of a task's result.
    pub(super) fn own(&self) -> (usize, usize) {
        match self {
            HalfProduct::Correlate(plan) => plan.own(),
            HalfProduct::MatMul(p) => ((ROWS * p.k + 1).div_ceil(2), ROWS * p.n),
        }
    }

    /// Packs the right operand.
    pub(super) fn pack<T: Float>(&self, b: &[T], packed: &mut [Line]) {
        let (b, packed) = (bytemuck::cast_slice(b), bytemuck::cast_slice_mut(packed));
        match self {
            HalfProduct::Correlate(plan) => plan.pack(b, packed),
            HalfProduct::MatMul(product) => product.pack(b, packed),
        }
    }

    /// `out = stages(product of a with what is packed)`.
    pub(super) fn run<T: Float>(&self, a: &[T], packed: &[Line], out: &mut [T], epilogue: &Epilogue<T>) {
        let (a, packed) = (bytemuck::cast_slice(a), bytemuck::cast_slice(packed));
        match self {
            HalfProduct::Correlate(plan) => plan.run(a, packed, out, epilogue),
            HalfProduct::MatMul(product) => product.run(a, packed, out, epilogue),
        }
    }

    /// Elements of its two operands.
    pub(super) fn operands(&self) -> (usize, usize) {
        match self {
            HalfProduct::Correlate(plan) => plan.operands(),
            HalfProduct::MatMul(p) => (p.m * p.k, p.k * p.n),
        }
    }
}

impl Product {
    /// Panels of [`WIDTH`] columns, a line for each pair of depths.
    fn pack(&self, b: &[f32], packed: &mut [u16]) {
        let (pairs, panels) = (self.k.div_ceil(2), self.n.div_ceil(WIDTH));
        let (row, column) = if self.tb { (1, self.k) } else { (self.n, 1) };
        super::blocks::for_each_block(&mut packed[..panels * pairs * LINE], pairs * LINE, |panel, block| {
            for (pair, line) in block.chunks_exact_mut(LINE).enumerate() {
                for (i, half) in line.iter_mut().enumerate() {
                    let (depth, column_of) = (2 * pair + i % 2, panel * WIDTH + i / 2);
                    let inside = depth < self.k && column_of < self.n;
                    *half = if inside { round(b[depth * row + column_of * column]) } else { 0 };
                }
            }
        });
    }

    fn run<T: Float>(&self, a: &[f32], packed: &[u16], out: &mut [T], epilogue: &Epilogue<T>) {
        let &Product { m, n, k, .. } = self;
        let pairs = k.div_ceil(2);
        assert!(a.len() == m * k && out.len() == m * n && packed.len() >= n.div_ceil(WIDTH) * pairs * LINE);
        let shared = Shared(out.as_mut_ptr());
        for_each(m.div_ceil(ROWS), |index| {
            let shared = &shared;
            let top = index * ROWS;
            let rows = ROWS.min(m - top);
            // SAFETY: the tasks' rows are disjoint and lie in out, and nobody else holds it.
            let block = unsafe { std::slice::from_raw_parts_mut(shared.0.add(top * n), rows * n) };
            epilogue.finish(top * n, block, |block| {
                let block: &mut [f32] = bytemuck::cast_slice_mut(block);
                // The last row of an odd depth reads one number more.
                let mut halves = Scratch::<f32>::take((rows * k + 1).div_ceil(2));
                let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut halves);
                convert(&a[top * k..(top + rows) * k], halves);
                let places: [Row; ROWS] =
                    std::array::from_fn(|i| Row { from: (i * k) as u32, to: (i * n) as u32 });
                for (panel, lines) in packed.chunks_exact(pairs * LINE).enumerate().take(n.div_ceil(WIDTH)) {
                    let (left, valid) = (panel * WIDTH, WIDTH.min(n - panel * WIDTH));
                    let walk = Pairs { segments: &[0], run: pairs };
                    // SAFETY: row i reads 2 * pairs <= k + 1 numbers from i * k on, inside `halves` for all rows, and
                    // writes `valid` results at i * n + left, inside the block; the panel has `pairs` lines.
                    unsafe {
                        let out = block.as_mut_ptr().add(left);
                        multiply_rows(halves.as_ptr(), &places[..rows], walk, lines.as_ptr(), out, valid);
                    }
                }
            });
        });
    }
}

/// The result, written by several threads.
struct Shared<T>(*mut T);

// SAFETY: every thread writes the rows of its own tasks only.
unsafe impl<T: Send> Sync for Shared<T> {}

/// A float as bf16, to nearest even.
#[inline(always)]
pub(super) fn round(x: f32) -> u16 {
    ::half::bf16::from_f32(x).to_bits()
}

/// What the rows of a product are multiplied by: for each offset of `segments` in turn, `run` pairs from there on meet
/// the next `run` lines of the panel.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) segments: &'a [usize],
    pub(super) run: usize,
}

/// Rounds floats to bf16, and puts a zero behind them where there is room.
pub(super) fn convert(from: &[f32], to: &mut [u16]) {
    assert!(to.len() >= from.len());
    if let Some(behind) = to.get_mut(from.len()) {
        *behind = 0;
    }
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the processor has the instructions.
        return unsafe { x86::convert(from, to) };
    }
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = round(from));
}

/// `out[row.to ..][..valid] = sum over segments and run of the pairs' products, a[row.from + segment + 2 i ..][..2] by
/// panel[line]`, for all rows.
///
/// # Safety
/// The processor must have [`available`] instructions. `a` must be readable at every `row.from + segment + 2 i` for two
/// numbers, the panel for `segments * run` lines, `out` writable for `valid` floats from every `row.to` on; `valid` is at
/// most [`WIDTH`].
#[inline]
pub(super) unsafe fn multiply_rows(
    a: *const u16,
    rows: &[Row],
    walk: Pairs,
    panel: *const u16,
    out: *mut f32,
    valid: usize,
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on from the caller.
    unsafe {
        if valid > WIDTH / 2 {
            x86::multiply_panel::<2>(a, rows, walk, panel, out, valid);
        } else {
            x86::multiply_panel::<1>(a, rows, walk, panel, out, valid);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (a, rows, walk, panel, out, valid);
        unreachable!("no product is planned in half precision on this processor");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINE, Pairs, Row};
    use std::arch::x86_64::*;

    /// As [`super::convert`].
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn convert(from: &[f32], to: &mut [u16]) {
        let mut blocks = from.chunks_exact(32);
        let mut into = to.chunks_exact_mut(32);
        for (from, to) in (&mut blocks).zip(&mut into) {
            // SAFETY: both chunks have 32 elements.
            unsafe {
                let low = _mm512_loadu_ps(from.as_ptr());
                let high = _mm512_loadu_ps(from.as_ptr().add(16));
                let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), halves);
            }
        }
        let done = from.len() - blocks.remainder().len();
        to[done..].iter_mut().zip(blocks.remainder()).for_each(|(to, &from)| *to = super::round(from));
    }

    /// As [`super::multiply_rows`], for results of `K` vectors.
    ///
    /// # Safety
    /// As [`super::multiply_rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn multiply_panel<const K: usize>(
        a: *const u16,
        rows: &[Row],
        walk: Pairs,
        panel: *const u16,
        out: *mut f32,
        valid: usize,
    ) {
        let mut rest = rows;
        // SAFETY: each call takes rows that are there; the rest is the caller's.
        unsafe {
            if K == 1 {
                while let Some((tile, after)) = rest.split_first_chunk::<24>() {
                    multiply_tile::<24, K>(a, tile, walk, panel, out, valid);
                    rest = after;
                }
            }
            while let Some((tile, after)) = rest.split_first_chunk::<12>() {
                multiply_tile::<12, K>(a, tile, walk, panel, out, valid);
                rest = after;
            }
            while let Some((tile, after)) = rest.split_first_chunk::<4>() {
                multiply_tile::<4, K>(a, tile, walk, panel, out, valid);
                rest = after;
            }
            while let Some((tile, after)) = rest.split_first_chunk::<1>() {
                multiply_tile::<1, K>(a, tile, walk, panel, out, valid);
                rest = after;
            }
        }
    }

    /// As [`super::multiply_rows`], for `R` rows at once.
    ///
    /// # Safety
    /// As [`super::multiply_rows`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn multiply_tile<const R: usize, const K: usize>(
        a: *const u16,
        rows: &[Row; R],
        walk: Pairs,
        panel: *const u16,
        out: *mut f32,
        valid: usize,
    ) {
        let mut sums = [[_mm512_setzero_ps(); K]; R];
        let mut line = panel;
        // SAFETY: the caller vouches for every address; reads and writes are unaligned.
        unsafe {
            for &segment in walk.segments {
                let mut from = [a; R];
                for (from, row) in from.iter_mut().zip(rows) {
                    *from = a.add(row.from as usize + segment);
                }
                for i in 0..walk.run {
                    let mut b = [_mm512_setzero_si512(); K];
                    for (k, b) in b.iter_mut().enumerate() {
                        *b = _mm512_loadu_si512(line.add(k * LINE / 2).cast());
                    }
                    for (sums, from) in sums.iter_mut().zip(&from) {
                        let pair = _mm512_set1_epi32(from.add(2 * i).cast::<i32>().read_unaligned());
                        let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = _mm512_dpbf16_ps(*sum, pair, std::mem::transmute::<__m512i, __m512bh>(b));
                        }
                    }
                    line = line.wrapping_add(LINE);
                }
            }
            for (row, sums) in rows.iter().zip(&sums) {
                for (k, sum) in sums.iter().enumerate() {
                    let to = out.add(row.to as usize + 16 * k);
                    let lanes = (valid - 16 * k).min(16);
                    _mm512_mask_storeu_ps(to, ((1u32 << lanes) - 1) as __mmask16, *sum);
                }
            }
        }
    }
}
