//! The two floats the executor runs on: f32, the product, and f64, the reference.
//!
//! The f32 functions are branch-free so that loops over them vectorise; they are accurate to about 1e-6 relative.
//! The f64 functions are those of the standard library and of `libm`.

use pulp::Simd;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A float of the executor.
pub trait Float:
    Copy
    + Debug
    + Default
    + Send
    + Sync
    + PartialOrd
    + bytemuck::Pod
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// Whether products may be computed in half precision: for f32, never for the reference.
    const HALVES: bool;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Below every number.
    const NEG_INFINITY: Self;
    /// A vector register of these floats under the instruction set `S`.
    type Vector<S: Simd>: Copy;

    /// `x` in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a * b + c` lane by lane; with one rounding where the instruction set has it.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// The nearest float.
    fn from_f64(x: f64) -> Self;
    /// The same number in 64 bits.
    fn to_f64(self) -> f64;
    /// Square root.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
    /// e^x.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Sine and cosine.
    fn sin_cos(self) -> (Self, Self);
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;

    /// The larger; NaN if either is.
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if self >= other || self.is_nan() { self } else { other }
    }

    /// The smaller; NaN if either is.
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        if self <= other || self.is_nan() { self } else { other }
    }

    /// Whether this is not a number.
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    fn is_nan(self) -> bool {
        self != self
    }

    /// A byte of an image as a number in [0, 1]: `x / 255`, correctly rounded.
    #[inline(always)]
    fn from_u8(x: u8) -> Self {
        Self::from_f64(f64::from(x)) / Self::from_f64(255.0)
    }

    /// The top 24 bits of a random word as a number in [0, 1), a multiple of 2^-24.
    #[inline(always)]
    fn from_random_word(word: u32) -> Self {
        Self::from_f64(crate::philox::unit(word))
    }
}

impl Float for f64 {
    const HALVES: bool = false;
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    type Vector<S: Simd> = S::f64s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f64) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_e_f64s(a, b, c)
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn sin_cos(self) -> (f64, f64) {
        f64::sin_cos(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn erf(self) -> f64 {
        libm::erf(self)
    }
}

impl Float for f32 {
    const HALVES: bool = true;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, c)
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    /// Cody-Waite reduction by ln 2 and the polynomial of Cephes' `expf`.
    #[inline(always)]
    fn exp(self) -> f32 {
        // Above, infinity; below, 0 (the clamps keep the exponent's arithmetic in range, NaN passes them).
        let x = if self > 89.0 { 89.0 } else { self };
        let x = if x < -104.0 { -104.0 } else { x };
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer without an instruction for it.
        const ROUND: f32 = 12_582_912.0;
        let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
        // ln 2 in two parts, the first exact in 9 bits (Cody and Waite 1980).
        let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let y = p * r * r + r + 1.0;
        // 2^n in two factors, so that neither leaves the range of exponents.
        // `as` turns NaN into 0; y is NaN then and stays so.
        let n = n as i32;
        let half = n >> 1;
        let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
        y * power(half) * power(n - half)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn sin_cos(self) -> (f32, f32) {
        f32::sin_cos(self)
    }
    /// Cephes' `tanhf`: an odd polynomial near 0, `1 - 2 / (e^2x + 1)` elsewhere.
    #[inline(always)]
    fn tanh(self) -> f32 {
        let size = self.abs();
        let z = self * self;
        let p = -5.704_988_7e-3;
        let p = p * z + 2.063_909e-2;
        let p = p * z - 5.373_971_7e-2;
        let p = p * z + 1.333_144_2e-1;
        let p = p * z - 3.333_328e-1;
        let near = p * z * self + self;
        let far = (1.0 - 2.0 / (Float::exp(2.0 * size) + 1.0)).copysign(self);
        if size < 0.625 { near } else { far }
    }
    /// The rational function in x^2 of Eigen's `erf`, clamped where erf is 1 in f32.
    #[inline(always)]
    fn erf(self) -> f32 {
        let x = if self > 4.0 { 4.0 } else { self };
        let x = if x < -4.0 { -4.0 } else { x };
        let z = x * x;
        let p = -2.726_142_3e-10;
        let p = p * z + 2.770_681_5e-8;
        let p = p * z - 2.101_024e-6;
        let p = p * z - 5.692_506_5e-5;
        let p = p * z - 7.349_906_4e-4;
        let p = p * z - 2.954_6e-3;
        let p = p * z - 1.609_603_3e-2;
        let q = -1.456_607_2e-5;
        let q = q * z - 2.133_740_6e-4;
        let q = q * z - 1.682_827e-3;
        let q = q * z - 7.373_329e-3;
        let q = q * z - 1.426_473_9e-2;
        x * p / q
    }
}

#[cfg(test)]
mod tests {
    use super::Float;

    /// Largest error of `f` against `exact` over [lo, hi], relative where the truth exceeds `floor`.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, lo: f32, hi: f32, floor: f64) -> f64 {
        (0..=200_000)
            .map(|i| lo + (hi - lo) * (i as f32 / 200_000.0))
            .map(|x| {
                let truth = exact(f64::from(x));
                (f64::from(f(x)) - truth).abs() / truth.abs().max(floor)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn f32_functions_are_accurate() {
        let normal = f64::from(f32::MIN_POSITIVE);
        assert!(worst(<f32 as Float>::exp, f64::exp, -104.0, 88.7, normal) < 3e-7);
        assert!(worst(<f32 as Float>::tanh, f64::tanh, -12.0, 12.0, normal) < 5e-7);
        assert!(worst(<f32 as Float>::erf, libm::erf, -6.0, 6.0, normal) < 1e-6);
    }

    #[test]
    fn f32_functions_keep_their_limits() {
        assert_eq!(Float::exp(0.0f32), 1.0);
        assert_eq!(Float::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(Float::exp(100.0f32), f32::INFINITY);
        assert_eq!(Float::exp(f32::NEG_INFINITY), 0.0);
        assert!(Float::exp(f32::NAN).is_nan());
        assert!(Float::tanh(f32::NAN).is_nan() && Float::erf(f32::NAN).is_nan());
        assert_eq!(Float::tanh(50.0f32), 1.0);
        assert_eq!(Float::tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(Float::tanh(0.0f32), 0.0);
    }

    #[test]
    fn maximum_and_minimum_keep_nan() {
        assert!(Float::maximum(f32::NAN, 1.0).is_nan() && Float::maximum(1.0, f32::NAN).is_nan());
        assert!(Float::minimum(f64::NAN, 1.0).is_nan() && Float::minimum(1.0, f64::NAN).is_nan());
        assert_eq!((Float::maximum(2.0f32, 1.0), Float::minimum(2.0f32, 1.0)), (2.0, 1.0));
    }
}
