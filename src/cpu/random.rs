//! Random tensors: [`crate::philox`] over the examples of a batch.

use super::blocks::{BLOCK, vectorized, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::philox;
use crate::tape::{Distribution, Purpose};

/// What is drawn, and from which stream.
pub(super) struct Stream {
    pub(super) distribution: Distribution,
    pub(super) purpose: Purpose,
    pub(super) key: [u32; 2],
    pub(super) counter: [u32; 2],
}

/// `out[r, e] = stages(number of example examples[r], element e)`, `row` elements an example.
pub(super) fn random<T: Float>(
    stream: &Stream,
    row: usize,
    examples: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    write_blocks(out, BLOCK, epilogue, |start, block| {
        let mut done = 0;
        while done < block.len() {
            let at = start + done;
            let (example, element) = (examples[at / row], at % row);
            let run = (row - element).min(block.len() - done);
            vectorized(
                #[inline(always)]
                || draw(stream, example, element, &mut block[done..done + run]),
            );
            done += run;
        }
    });
}

/// Elements `element..` of one example.
#[inline(always)]
fn draw<T: Float>(stream: &Stream, example: u32, element: usize, out: &mut [T]) {
    let four = |group: usize| {
        let words = philox::words(stream.key, stream.purpose, stream.counter, example, group as u32);
        match stream.distribution {
            Distribution::Uniform => uniforms::<T>(words),
            Distribution::Normal => normals::<T>(words),
        }
    };
    // A head that begins inside a group of four, then whole groups, then a tail.
    let head = ((4 - element % 4) % 4).min(out.len());
    let (first, rest) = out.split_at_mut(head);
    first.copy_from_slice(&four(element / 4)[element % 4..][..head]);
    let mut group = (element + head) / 4;
    let mut groups = rest.chunks_exact_mut(4);
    for out in &mut groups {
        out.copy_from_slice(&four(group));
        group += 1;
    }
    let tail = groups.into_remainder();
    tail.copy_from_slice(&four(group)[..tail.len()]);
}

/// Four uniform numbers from four words.
#[inline(always)]
fn uniforms<T: Float>(words: [u32; 4]) -> [T; 4] {
    words.map(T::from_random_word)
}

/// Four standard normal numbers from four words.
#[inline(always)]
fn normals<T: Float>(words: [u32; 4]) -> [T; 4] {
    let pair = |u1: u32, u2: u32| {
        let radius = (T::from_f64(-2.0) * (T::ONE - T::from_random_word(u1)).ln()).sqrt();
        let (sin, cos) = (T::from_f64(std::f64::consts::TAU) * T::from_random_word(u2)).sin_cos();
        [radius * cos, radius * sin]
    };
    let [[a, b], [c, d]] = [pair(words[0], words[1]), pair(words[2], words[3])];
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_at_once_are_the_hosts_one_by_one() {
        let (key, counter) = ([7, 8], [3, 4]);
        for element in 0..9 {
            let words = philox::words(key, Purpose::TEST, counter, 5, element / 4);
            let place = element as usize % 4;
            let uniform = philox::uniform(key, Purpose::TEST, counter, 5, element);
            assert_eq!(uniforms::<f32>(words)[place], uniform as f32);
            assert_eq!(uniforms::<f64>(words)[place], uniform);
            let normal = philox::normal(key, Purpose::TEST, counter, 5, element);
            assert!((f64::from(normals::<f32>(words)[place]) - normal).abs() < 1e-5);
            assert!((normals::<f64>(words)[place] - normal).abs() < 1e-14);
        }
    }
}
