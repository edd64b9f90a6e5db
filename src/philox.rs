//! Philox4x32-10, the counter-based random numbers of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
//! easy as 1, 2, 3" (2011). Every executor draws exactly these bits.
//!
//! A number is a pure function of (key, purpose, counter, example, element):
//!
//! * Philox's key is `(key[0], key[1] ^ purpose)`; `key` holds the seed.
//! * Philox's counter is `(element / 4, example, counter[1], counter[0])`; `counter` holds (epoch, step). `example`
//!   is the example's number in the data set, not its place in the batch, so a result does not depend on how
//!   examples are put into batches. `element` counts within the example.
//! * The four words of the result serve elements `4 i .. 4 i + 3`: word `element % 4`.
//! * Uniform: `(word >> 8) * 2^-24`, in [0, 1), exact in f32.
//! * Normal (Box and Muller 1958): elements 0 and 1 of the four come from words 0 and 1, elements 2 and 3 from
//!   words 2 and 3. With `u1`, `u2` the uniforms of such a pair, `r = sqrt(-2 ln(1 - u1))` (`1 - u1` is in (0, 1])
//!   and `angle = 2 pi u2`, the even element is `r cos(angle)`, the odd one `r sin(angle)`.

use crate::tape::Purpose;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Key increments: the golden ratio and sqrt(3) - 1 as binary fractions.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The bijection: ten rounds on `counter` under `key`.
#[inline(always)]
pub fn philox(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let wide = |lane: usize, i: usize| u64::from(MULTIPLIERS[i]) * u64::from(counter[lane]);
        let (a, b) = (wide(0, 0), wide(2, 1));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The four words that serve elements `4 group .. 4 group + 3` of an example.
#[inline(always)]
pub fn words(key: [u32; 2], purpose: Purpose, counter: [u32; 2], example: u32, group: u32) -> [u32; 4] {
    philox([key[0], key[1] ^ purpose.0], [group, example, counter[1], counter[0]])
}

/// The word of one element.
pub fn word(key: [u32; 2], purpose: Purpose, counter: [u32; 2], example: u32, element: u32) -> u32 {
    words(key, purpose, counter, example, element / 4)[element as usize % 4]
}

/// The uniform number in [0, 1) that a word stands for.
#[inline(always)]
pub fn unit(word: u32) -> f64 {
    f64::from(word >> 8) * (1.0 / 16_777_216.0)
}

/// One uniform number in [0, 1), for the host.
pub fn uniform(key: [u32; 2], purpose: Purpose, counter: [u32; 2], example: u32, element: u32) -> f64 {
    unit(word(key, purpose, counter, example, element))
}

/// One standard normal number, for the host: the same on every platform, as `libm`'s functions are.
pub fn normal(key: [u32; 2], purpose: Purpose, counter: [u32; 2], example: u32, element: u32) -> f64 {
    let words = words(key, purpose, counter, example, element / 4);
    let pair = element as usize % 4 / 2 * 2;
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - unit(words[pair])));
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * unit(words[pair + 1]));
    radius * if element.is_multiple_of(2) { cos } else { sin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // `kat_vectors` of the authors' Random123 1.14.
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniforms_and_normals_have_their_moments() {
        let n = 40_000;
        let moments = |draw: fn([u32; 2], Purpose, [u32; 2], u32, u32) -> f64| {
            let sample: Vec<f64> = (0..n).map(|i| draw([1, 2], Purpose::TEST, [0, 0], 0, i)).collect();
            let mean = sample.iter().sum::<f64>() / f64::from(n);
            (mean, sample.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n))
        };
        let (mean, variance) = moments(normal);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        let (mean, variance) = moments(uniform);
        assert!((mean - 0.5).abs() < 0.006 && (variance * 12.0 - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
