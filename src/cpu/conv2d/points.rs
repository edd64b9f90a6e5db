//! The one-dimensional transforms of Winograd's convolution by 3 taps: N = 4 for 2 results a tile (the points 0, 1,
//! -1, infinity), N = 6 for 4 (0, a, -a, b, -b, infinity with a = sqrt(1/2), b = sqrt 2), or for 2 by 5 taps. By 2 taps,
//! N - 1 results a tile: N = 6 with the same points, N = 5 with c, -c, d, -d, infinity, c = 0.4, d = 1.3.
//!
//! With `m(x) = x (x^2 - a^2) (x^2 - b^2)` and `N_p = m'(p)`, the Toom-Cook scheme for a correlation with g is
//! `y = A^T ((G g) * (B^T d))`: row p of `B^T` holds the coefficients of `m(x) / (x - p)` (of `m` itself for
//! infinity), row p of G is `[1, p, p^2, ..] / N_p`, and row i of `A^T` is `p^i`.
//!
//! A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, with points 0, 1, -1, 2, -2;
//! B. Barabasz, A. Anderson, K. Soodhalter and D. Gregg, "Error Analysis and Improving the Accuracy of Winograd
//! Convolution for Deep Neural Networks", ACM TOMS 2020, on how much the points matter. Largest error in f32 over
//! largest result, 64 and 256 channels of normal numbers, against 2e-7 and 3e-7 by direct sums: 3e-7 and 7e-7 with
//! N = 4; with N = 6 1e-6 and 3e-6 by these points, 9e-6 and 1e-5 by Lavin's (b = 2, a = 1), 6e-6 and 1e-5 by
//! (1/2, 1), 1.6e-6 and 3.4e-6 by (3/4, 3/2). By 2 taps, 32 to 64 channels, against 4e-7 to 5e-7 by direct sums: 7e-7
//! with N = 5 (2e-6 to 3e-6 by 0, 1, -1 and 2 or 1/2), 2.4e-6 with N = 6; N = 8, which would fit images of 14 and 7 rows
//! best, errs by 1e-5 at the best points found and is left out.

use pulp::Simd;

/// a and b; `a^2 = 1/2`, `b^2 = 2`, so that `a^2 b^2 = 1`.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;
const A2: f32 = 0.5;
const B2: f32 = 2.0;
/// `1 / m'(a)` and `1 / m'(b)`.
const NA: f32 = 1.0 / (2.0 * A2 * (A2 - B2));
const NB: f32 = 1.0 / (2.0 * B2 * (B2 - A2));

/// Vectors of one instruction set, with the arithmetic the transforms need.
#[derive(Clone, Copy)]
struct Lanes<S>(S);

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn add(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.add_f32s(a, b)
    }
    #[inline(always)]
    fn sub(self, a: S::f32s, b: S::f32s) -> S::f32s {
        self.0.sub_f32s(a, b)
    }
    #[inline(always)]
    fn scale(self, a: f32, x: S::f32s) -> S::f32s {
        self.0.mul_f32s(self.0.splat_f32s(a), x)
    }
    /// `a * x + y`.
    #[inline(always)]
    fn fma(self, a: f32, x: S::f32s, y: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(self.0.splat_f32s(a), x, y)
    }
}

/// `B^T d`.
#[inline(always)]
pub(super) fn input<S: Simd, const N: usize>(simd: S, d: [S::f32s; N]) -> [S::f32s; N] {
    let v = Lanes(simd);
    let mut y = d;
    if N == 4 {
        y[0] = v.sub(d[0], d[2]);
        y[1] = v.add(d[1], d[2]);
        y[2] = v.sub(d[2], d[1]);
        y[3] = v.sub(d[3], d[1]);
    } else {
        let (even_a, odd_a) = (v.fma(-B2, d[2], d[4]), v.fma(-B2, d[1], d[3]));
        let (even_b, odd_b) = (v.fma(-A2, d[2], d[4]), v.fma(-A2, d[1], d[3]));
        y[0] = v.fma(-(A2 + B2), d[2], v.add(d[0], d[4]));
        y[1] = v.fma(A, odd_a, even_a);
        y[2] = v.fma(-A, odd_a, even_a);
        y[3] = v.fma(B, odd_b, even_b);
        y[4] = v.fma(-B, odd_b, even_b);
        y[5] = v.fma(-(A2 + B2), d[3], v.add(d[1], d[5]));
    }
    y
}

/// `G g`.
#[inline(always)]
pub(super) fn filter<S: Simd, const N: usize>(simd: S, g: [S::f32s; 3]) -> [S::f32s; N] {
    let v = Lanes(simd);
    let mut y = [g[0]; N];
    if N == 4 {
        let even = v.scale(0.5, v.add(g[0], g[2]));
        y[1] = v.fma(0.5, g[1], even);
        y[2] = v.fma(-0.5, g[1], even);
        y[3] = g[2];
    } else {
        let even_a = v.scale(NA, v.fma(A2, g[2], g[0]));
        let even_b = v.scale(NB, v.fma(B2, g[2], g[0]));
        y[1] = v.fma(A * NA, g[1], even_a);
        y[2] = v.fma(-A * NA, g[1], even_a);
        y[3] = v.fma(B * NB, g[1], even_b);
        y[4] = v.fma(-B * NB, g[1], even_b);
        y[5] = g[2];
    }
    y
}

/// `G g` with N = 6 for the first `taps` of g, 3 or 5; the others are zeros.
#[inline(always)]
pub(super) fn long_filter<S: Simd>(simd: S, g: [S::f32s; 5], taps: usize) -> [S::f32s; 6] {
    let v = Lanes(simd);
    let at = |p2: f32| (v.fma(p2, v.fma(p2, g[4], g[2]), g[0]), v.fma(p2, g[3], g[1]));
    let ((even_a, odd_a), (even_b, odd_b)) = (at(A2), at(B2));
    let (even_a, even_b) = (v.scale(NA, even_a), v.scale(NB, even_b));
    [
        g[0],
        v.fma(A * NA, odd_a, even_a),
        v.fma(-A * NA, odd_a, even_a),
        v.fma(B * NB, odd_b, even_b),
        v.fma(-B * NB, odd_b, even_b),
        g[taps - 1],
    ]
}

/// `A^T m`; with N = 6, M = 4 for 3 taps and M = 2 for 5.
#[inline(always)]
pub(super) fn output<S: Simd, const N: usize, const M: usize>(simd: S, m: [S::f32s; N]) -> [S::f32s; M] {
    let v = Lanes(simd);
    let (sum_a, difference_a) = (v.add(m[1], m[2]), v.sub(m[1], m[2]));
    let mut y = [m[0]; M];
    if N == 4 {
        y[0] = v.add(m[0], sum_a);
        y[1] = v.add(difference_a, m[3]);
    } else {
        let (sum_b, difference_b) = (v.add(m[3], m[4]), v.sub(m[3], m[4]));
        y[0] = v.add(m[0], v.add(sum_a, sum_b));
        y[1] = v.fma(A, difference_a, v.scale(B, difference_b));
        if M == 2 {
            y[1] = v.add(y[1], m[5]);
        } else {
            y[2] = v.fma(A2, sum_a, v.scale(B2, sum_b));
            y[3] = v.fma(A * A2, difference_a, v.fma(B * B2, difference_b, m[5]));
        }
    }
    y
}

/// c and d, the points of N = 5: c, -c, d, -d and infinity.
const C: f32 = 0.4;
const D: f32 = 1.3;
const C2: f32 = C * C;
const D2: f32 = D * D;
/// `1 / m'(c)` and `1 / m'(d)`.
const NC: f32 = 1.0 / (2.0 * C * (C2 - D2));
const ND: f32 = 1.0 / (2.0 * D * (D2 - C2));

/// `B^T d` for 2 taps, N = 5 or 6: `N - 1` results a tile.
#[inline(always)]
pub(super) fn pair_input<S: Simd, const N: usize>(simd: S, d: [S::f32s; N]) -> [S::f32s; N] {
    if N == 6 {
        return input(simd, d);
    }
    let v = Lanes(simd);
    let mut y = d;
    let (odd_c, even_c) = (v.fma(-D2, d[1], d[3]), v.fma(-D2, d[0], d[2]));
    let (odd_d, even_d) = (v.fma(-C2, d[1], d[3]), v.fma(-C2, d[0], d[2]));
    y[0] = v.fma(C, even_c, odd_c);
    y[1] = v.fma(-C, even_c, odd_c);
    y[2] = v.fma(D, even_d, odd_d);
    y[3] = v.fma(-D, even_d, odd_d);
    y[4] = v.fma(C2 * D2, d[0], v.fma(-(C2 + D2), d[2], d[4]));
    y
}

/// `G g` for 2 taps.
#[inline(always)]
pub(super) fn pair_filter<S: Simd, const N: usize>(simd: S, g: [S::f32s; 2]) -> [S::f32s; N] {
    let v = Lanes(simd);
    let mut y = [g[0]; N];
    if N == 6 {
        let (even_a, even_b) = (v.scale(NA, g[0]), v.scale(NB, g[0]));
        y[1] = v.fma(A * NA, g[1], even_a);
        y[2] = v.fma(-A * NA, g[1], even_a);
        y[3] = v.fma(B * NB, g[1], even_b);
        y[4] = v.fma(-B * NB, g[1], even_b);
        y[5] = g[1];
    } else {
        let (at_c, at_d) = (v.scale(NC, g[0]), v.scale(ND, g[0]));
        let (minus_c, minus_d) = (v.scale(-NC, g[0]), v.scale(-ND, g[0]));
        y[0] = v.fma(C * NC, g[1], at_c);
        y[1] = v.fma(C * NC, g[1], minus_c);
        y[2] = v.fma(D * ND, g[1], at_d);
        y[3] = v.fma(D * ND, g[1], minus_d);
        y[4] = g[1];
    }
    y
}

/// `A^T m` for 2 taps; M = N - 1.
#[inline(always)]
pub(super) fn pair_output<S: Simd, const N: usize, const M: usize>(simd: S, m: [S::f32s; N]) -> [S::f32s; M] {
    let v = Lanes(simd);
    let mut y = [m[0]; M];
    if N == 6 {
        let (sum_a, difference_a) = (v.add(m[1], m[2]), v.sub(m[1], m[2]));
        let (sum_b, difference_b) = (v.add(m[3], m[4]), v.sub(m[3], m[4]));
        y[0] = v.add(m[0], v.add(sum_a, sum_b));
        y[1] = v.fma(A, difference_a, v.scale(B, difference_b));
        y[2] = v.fma(A2, sum_a, v.scale(B2, sum_b));
        y[3] = v.fma(A * A2, difference_a, v.scale(B * B2, difference_b));
        y[4] = v.fma(A2 * A2, sum_a, v.fma(B2 * B2, sum_b, m[5]));
    } else {
        let (sum_c, difference_c) = (v.add(m[0], m[1]), v.sub(m[0], m[1]));
        let (sum_d, difference_d) = (v.add(m[2], m[3]), v.sub(m[2], m[3]));
        y[0] = v.add(sum_c, sum_d);
        y[1] = v.fma(C, difference_c, v.scale(D, difference_d));
        y[2] = v.fma(C2, sum_c, v.scale(D2, sum_d));
        y[3] = v.fma(C * C2, difference_c, v.fma(D * D2, difference_d, m[4]));
    }
    y
}
