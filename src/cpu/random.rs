//! Random tensors: [`super::philox`] over the examples of a batch.

use super::blocks::{BLOCK, vectorized, write_blocks};
use super::float::Float;
use super::philox;
use super::stages::Epilogue;
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
            Distribution::Uniform => philox::uniforms::<T>(words),
            Distribution::Normal => philox::normals::<T>(words),
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
