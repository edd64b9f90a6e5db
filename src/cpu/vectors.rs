//! Vectors of f32 in memory, and what needs more than lane by lane arithmetic.

use super::blocks::Scratch;
use super::float::Float;
use super::tile::run_task;
use pulp::{Simd, WithSimd};
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

/// Asks for the second-level cache to hold a part of `x`: part `index` of `count` equal ones.
#[inline(always)]
pub(super) fn fetch_part(x: &[f32], index: usize, count: usize) {
    for at in (x.len() * index / count..x.len() * (index + 1) / count).step_by(LANES) {
        fetch(&x[at]);
    }
}

/// As [`fetch_part`], of what will be written.
#[inline(always)]
pub(super) fn fetch_part_to_write(x: &[f32], index: usize, count: usize) {
    for at in (x.len() * index / count..x.len() * (index + 1) / count).step_by(LANES) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch changes nothing that the program can see.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_ET0>((&raw const x[at]).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// Asks for a cache line.
#[inline(always)]
pub(super) fn fetch(x: &f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that the program can see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>((&raw const *x).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
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

/// `to[j * to_line + i] = from[i * line + j]` for `i < lines` and `j < columns`.
pub(super) fn turn<T: Float>(
    from: &[T],
    [lines, columns]: [usize; 2],
    line: usize,
    to: &mut [T],
    to_line: usize,
) {
    if lines * columns == 0 {
        return;
    }
    assert!((lines - 1) * line + columns <= from.len() && (columns - 1) * to_line + lines <= to.len());
    let (mut whole_lines, mut whole_columns) = (0, 0);
    if std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>() {
        (whole_lines, whole_columns) = (lines / LANES * LANES, columns / LANES * LANES);
        let (from, to): (&[f32], &mut [f32]) = (bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
        run_task(Turn { from, whole: [whole_lines, whole_columns], line, to, to_line });
    }
    for i in 0..lines {
        let first = if i < whole_lines { whole_columns } else { 0 };
        for j in first..columns {
            to[j * to_line + i] = from[i * line + j];
        }
    }
}

/// The whole blocks of [`turn`], whose lengths it has asserted.
struct Turn<'a> {
    from: &'a [f32],
    whole: [usize; 2],
    line: usize,
    to: &'a mut [f32],
    to_line: usize,
}

impl WithSimd for Turn<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Turn { from, whole, line, to, to_line } = self;
        for i in (0..whole[0]).step_by(LANES) {
            for j in (0..whole[1]).step_by(LANES) {
                // SAFETY: the block lies in the lines and columns that both hold.
                unsafe {
                    let from = from.as_ptr().add(i * line + j);
                    let to = to.as_mut_ptr().add(j * to_line + i);
                    transpose(simd, from, line, LANES, to, to_line);
                }
            }
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
    fn turns_matrices_of_any_extents() {
        for [lines, columns] in [[1, 1], [16, 16], [3, 40], [33, 17], [50, 31], [0, 5]] {
            let (line, to_line) = (columns + 2, lines + 3);
            let x: Vec<f64> = (0..lines * line).map(|i| i as f64).collect();
            let small: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let (mut y, mut small_y) = (vec![0.0; columns * to_line], vec![0.0; columns * to_line]);
            turn(&x, [lines, columns], line, &mut y, to_line);
            turn(&small, [lines, columns], line, &mut small_y, to_line);
            for at in 0..y.len() {
                let (j, i) = (at / to_line, at % to_line);
                let want = if i < lines { x[i * line + j] } else { 0.0 };
                assert_eq!((y[at], f64::from(small_y[at])), (want, want), "{lines} {columns}: {i}, {j}");
            }
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
