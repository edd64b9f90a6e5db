//! Which elements are positive, as bits.

use super::blocks::{BLOCK, for_each_block, vectorized};
use super::float::Float;

/// Elements whose bits are a word.
const WORD: usize = 32;

/// `out[w]` bit b = `x[32 w + b] > 0`; bits past the end of x are 0.
pub(super) fn mask<T: Float>(x: &[T], out: &mut [u32]) {
    let words = BLOCK / WORD;
    for_each_block(out, words, |index, block| {
        let first = index * BLOCK;
        let x = &x[first..x.len().min(first + block.len() * WORD)];
        vectorized(
            #[inline(always)]
            || {
                for (word, x) in block.iter_mut().zip(x.chunks(WORD)) {
                    let mut bits = 0;
                    for (bit, &x) in x.iter().enumerate() {
                        bits |= u32::from(x > T::ZERO) << bit;
                    }
                    *word = bits;
                }
            },
        );
    });
}

/// Writes 1 to `out[i]` where bit `start + i` of `words` is set, else 0.
#[inline(always)]
pub(super) fn fill_bits<T: Float>(words: &[u32], start: usize, out: &mut [T]) {
    let one = |set: bool| if set { T::ONE } else { T::ZERO };
    let (head, rest) = out.split_at_mut((start.wrapping_neg() % WORD).min(out.len()));
    for (i, out) in head.iter_mut().enumerate() {
        *out = one(words[start / WORD] >> ((start + i) % WORD) & 1 == 1);
    }
    let first = start.div_ceil(WORD);
    for (out, &word) in rest.chunks_mut(WORD).zip(&words[first..]) {
        for (bit, out) in out.iter_mut().enumerate() {
            *out = one(word >> bit & 1 == 1);
        }
    }
}
