//! Vectors of f32 in memory, and what needs more than lane by lane arithmetic.

use crate::cpu::blocks::Scratch;
use pulp::Simd;
use std::ops::Deref;

/// Lanes of the widest vectors: extents that are a multiple of this are whole vectors on every processor.
pub(super) const LANES: usize = 16;

/// A line of zeros, which stands for whatever lies outside an image.
pub(super) struct Zeros(Scratch<f32>);

impl Zeros {
    pub(super) fn take(len: usize) -> Zeros {
        let mut zeros = Scratch::take(len);
        zeros.fill(0.0);
        Zeros(zeros)
    }
}

impl Deref for Zeros {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// # Safety
/// A vector must be readable there.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller's; any bits are floats.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// # Safety
/// A vector must be writable there.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(to: *mut f32, value: S::f32s) {
    // SAFETY: the caller's.
    unsafe { to.cast::<S::f32s>().write_unaligned(value) };
}

/// `sums[i] = sum of the lanes of vector i of x`, for [`LANES`] vectors.
#[inline(always)]
pub(super) fn sum_across<S: Simd>(simd: S, x: &[f32], sums: &mut [f32]) {
    assert!(x.len() == LANES * S::F32_LANES && sums.len() == LANES);
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 {
        // SAFETY: only AVX-512 has vectors of 16 here, and `simd` exists only where the processor has it; the
        // lengths are asserted.
        return unsafe { x86::sum_across(x.as_ptr(), sums.as_mut_ptr()) };
    }
    for (sum, x) in sums.iter_mut().zip(x.chunks_exact(S::F32_LANES)) {
        // SAFETY: a chunk is a vector.
        *sum = simd.reduce_sum_f32s(unsafe { load::<S>(x.as_ptr()) });
    }
}

/// `to[j * to_line + i] = from[i * line + j]` for i below `lines` and j below [`LANES`].
///
/// # Safety
/// All of these must be readable and writable.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(
    _: S,
    from: *const f32,
    line: usize,
    lines: usize,
    to: *mut f32,
    to_line: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if S::F32_LANES == 16 && lines == 16 {
        // SAFETY: the caller's; as above.
        return unsafe { x86::transpose(from, line, to, to_line) };
    }
    for i in 0..lines {
        for j in 0..LANES {
            // SAFETY: the caller's.
            unsafe { *to.add(j * to_line + i) = *from.add(i * line + j) };
        }
    }
}

/// With AVX-512: trees of shuffles, each of which halves what is left to do.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// The even, or the odd, quarters of a and then of b.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;

    /// # Safety
    /// As [`super::sum_across`], of 16 vectors of 16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn sum_across(x: *const f32, sums: *mut f32) {
        // SAFETY: the caller's.
        let v: [__m512; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(x.add(16 * i)) });
        // Numbers a quarter: four partial sums of two vectors, two of four, one of four.
        let two: [__m512; 8] = std::array::from_fn(|i| {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b))
        });
        let four: [__m512; 4] = std::array::from_fn(|i| {
            let (a, b) = (_mm512_castps_pd(two[2 * i]), _mm512_castps_pd(two[2 * i + 1]));
            let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
        });
        // Quarters: four of each four vectors, two, one.
        let quarters = |a: __m512, b: __m512| {
            _mm512_add_ps(_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<ODD>(a, b))
        };
        let (low, high) = (quarters(four[0], four[1]), quarters(four[2], four[3]));
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(sums, quarters(low, high)) };
    }

    /// # Safety
    /// As [`super::transpose`], of 16 lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose(from: *const f32, line: usize, to: *mut f32, to_line: usize) {
        // SAFETY: the caller's.
        let v: [__m512; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(from.add(line * i)) });
        // Within quarters: pairs of lines, then fours; four[4 g + j] holds columns j, 4 + j, 8 + j, 12 + j of lines
        // 4 g to 4 g + 3.
        let two: [__m512d; 16] = std::array::from_fn(|i| {
            let (a, b) = (v[i / 2 * 2], v[i / 2 * 2 + 1]);
            _mm512_castps_pd(if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) })
        });
        let four: [__m512; 16] = std::array::from_fn(|i| {
            let (a, b) = (two[i / 4 * 4 + i % 4 / 2], two[i / 4 * 4 + i % 4 / 2 + 2]);
            _mm512_castpd_ps(if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
        });
        for j in 0..4 {
            // Quarters: columns j and 8 + j, then 4 + j and 12 + j, of lines 0 to 7 and of 8 to 15.
            let (a, b) = (four[j], four[4 + j]);
            let (c, d) = (four[8 + j], four[12 + j]);
            let (low, high) = (_mm512_shuffle_f32x4::<EVEN>(a, b), _mm512_shuffle_f32x4::<EVEN>(c, d));
            let (low_odd, high_odd) = (_mm512_shuffle_f32x4::<ODD>(a, b), _mm512_shuffle_f32x4::<ODD>(c, d));
            let columns = [
                (j, _mm512_shuffle_f32x4::<EVEN>(low, high)),
                (8 + j, _mm512_shuffle_f32x4::<ODD>(low, high)),
                (4 + j, _mm512_shuffle_f32x4::<EVEN>(low_odd, high_odd)),
                (12 + j, _mm512_shuffle_f32x4::<ODD>(low_odd, high_odd)),
            ];
            for (column, value) in columns {
                // SAFETY: the caller's.
                unsafe { _mm512_storeu_ps(to.add(column * to_line), value) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tile::run_task;
    use pulp::WithSimd;

    struct Both<'a> {
        x: &'a [f32],
        sums: &'a mut [f32],
        turned: &'a mut [f32],
    }

    impl WithSimd for Both<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            sum_across(simd, &self.x[..LANES * S::F32_LANES], self.sums);
            for (i, sum) in self.sums.iter().enumerate() {
                let lanes = &self.x[i * S::F32_LANES..(i + 1) * S::F32_LANES];
                assert_eq!(*sum, lanes.iter().sum::<f32>());
            }
            // SAFETY: 15 lines of 20 and a vector lie in x, 15 of 17 and a vector in the other.
            unsafe { transpose(simd, self.x.as_ptr(), 20, 16, self.turned.as_mut_ptr(), 17) };
        }
    }

    #[test]
    fn sums_across_and_transposes() {
        // Small whole numbers: every order of the sum gives the same.
        let x: Vec<f32> = (0..16 * 20).map(|i| (i * i % 101) as f32).collect();
        let (mut sums, mut turned) = (vec![0.0; LANES], vec![0.0; 16 * 17]);
        run_task(Both { x: &x, sums: &mut sums, turned: &mut turned });
        for i in 0..LANES {
            for j in 0..LANES {
                assert_eq!(turned[j * 17 + i], x[i * 20 + j], "{i}, {j}");
            }
        }
    }
}
