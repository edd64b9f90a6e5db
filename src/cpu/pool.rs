//! Pooling over windows of NHWC images. Padding never wins a maximum and counts as zero in an average.

use super::blocks::{for_each_block, vectorized, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::launch::PoolShape;

/// First and one past the last window position at output `p` that lie inside the image, along one axis.
#[inline(always)]
fn taps(p: usize, kernel: usize, stride: usize, padding: usize, extent: usize) -> (usize, usize) {
    let first = padding.saturating_sub(p * stride);
    let last = (extent + padding).saturating_sub(p * stride).min(kernel);
    (first, last.max(first))
}

impl PoolShape {
    /// Row `p`'s window positions inside the image.
    #[inline(always)]
    fn rows(&self, p: usize) -> (usize, usize) {
        taps(p, self.window.kernel[0], self.window.stride[0], self.window.padding[0], self.h)
    }

    /// Column `q`'s window positions inside the image.
    #[inline(always)]
    fn columns(&self, q: usize) -> (usize, usize) {
        taps(q, self.window.kernel[1], self.window.stride[1], self.window.padding[1], self.w)
    }

    /// Index within an image of channel 0 at window position (r, s) of output (p, q); the position is inside.
    #[inline(always)]
    fn at(&self, p: usize, q: usize, r: usize, s: usize) -> usize {
        let y = p * self.window.stride[0] + r - self.window.padding[0];
        let x = q * self.window.stride[1] + s - self.window.padding[1];
        (y * self.w + x) * self.c
    }

    fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of the pooled tensor.
    pub(super) fn input(&self) -> usize {
        self.n * self.image()
    }

    /// Elements of the result.
    pub(super) fn output(&self) -> usize {
        self.n * self.result()
    }

    fn result(&self) -> usize {
        self.p * self.q * self.c
    }
}

/// Channels whose maxima are looked for at once: the best values so far stay in registers.
const CHANNELS: usize = 64;

/// Where in its window (row * kernel width + column) the maximum stands, the first of equals, packed. Positions outside
/// the image are skipped; a NaN never wins against a number.
pub(super) fn max_index<T: Float>(shape: &PoolShape, x: &[T], out: &mut [u32]) {
    let &PoolShape { q: width, c, .. } = shape;
    let bits = shape.position_bits();
    let per = 32 / bits;
    // Some rows of windows: as many as make whole words.
    let block = (width * c).max(1);
    for_each_block(out, block, |index, words| {
        words.fill(0);
        let start = index * block * per;
        let end = (start + words.len() * per).min(shape.output());
        let mut positions = [0u32; CHANNELS];
        let mut at = start;
        while at < end {
            // Channels of one window, or what of them lies in this block.
            let (window, channel) = (at / c, at % c);
            let count = (c - channel).min(CHANNELS).min(end - at);
            let (row, q) = (window / width, window % width);
            let (n, p) = (row / shape.p, row % shape.p);
            let x = &x[n * shape.image()..(n + 1) * shape.image()];
            let positions = &mut positions[..count];
            vectorized(
                #[inline(always)]
                || {
                    best_positions(shape, [p, q, channel], x, positions);
                    if (at - start).is_multiple_of(per) && count.is_multiple_of(per) {
                        let words = words[(at - start) / per..].iter_mut();
                        words.zip(positions.chunks_exact(per)).for_each(|(word, positions)| {
                            let shifted =
                                positions.iter().zip(0..).map(|(position, k)| position << (bits * k));
                            *word = shifted.fold(0, |word, bits| word | bits);
                        });
                    } else {
                        for (i, &position) in (at - start..).zip(&*positions) {
                            words[i / per] |= position << (bits * (i % per));
                        }
                    }
                },
            );
            at += count;
        }
    });
}

/// Where the maxima stand in window (p, q) of an image, of the channels from `channel` on.
#[inline(always)]
fn best_positions<T: Float>(shape: &PoolShape, [p, q, channel]: [usize; 3], x: &[T], out: &mut [u32]) {
    let ((r0, r1), (s0, s1)) = (shape.rows(p), shape.columns(q));
    let mut best = [T::NEG_INFINITY; CHANNELS];
    let best = &mut best[..out.len()];
    for r in r0..r1 {
        for s in s0..s1 {
            let from = shape.at(p, q, r, s) + channel;
            let position = (r * shape.window.kernel[1] + s) as u32;
            let first = r == r0 && s == s0;
            let x = &x[from..from + out.len()];
            for ((o, best), &x) in out.iter_mut().zip(&mut *best).zip(x) {
                let wins = first || x > *best || (best.is_nan() && !x.is_nan());
                *best = if wins { x } else { *best };
                *o = if wins { position } else { *o };
            }
        }
    }
}

/// The positions that [`max_index`] packed.
#[derive(Clone, Copy)]
struct Positions<'a> {
    words: &'a [u32],
    /// Shift from an element to its word, and bits of a position.
    shift: u32,
    bits: u32,
}

impl<'a> Positions<'a> {
    fn new(shape: &PoolShape, words: &'a [u32]) -> Positions<'a> {
        let bits = shape.position_bits() as u32;
        Positions { words, shift: (32 / bits).ilog2(), bits }
    }

    /// Those of pooled elements `first..first + out.len()`.
    #[inline(always)]
    fn read(&self, first: usize, out: &mut [u32]) {
        let (per, last) = (1 << self.shift, u32::MAX >> (32 - self.bits));
        if first.is_multiple_of(per) && out.len().is_multiple_of(per) {
            let words = &self.words[first >> self.shift..];
            for (out, &word) in out.chunks_exact_mut(per).zip(words) {
                out.iter_mut().zip(0..).for_each(|(out, k)| *out = (word >> (self.bits * k)) & last);
            }
        } else {
            for (i, out) in (first..).zip(out) {
                let shift = self.bits * (i & (per - 1)) as u32;
                *out = (self.words[i >> self.shift] >> shift) & last;
            }
        }
    }
}

/// `out = stages(x at the window positions index)`: each position of a window is compared with the index, which vectors
/// do faster than reading at one place an element.
pub(super) fn gather<T: Float>(
    shape: &PoolShape,
    x: &[T],
    index: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    let &PoolShape { q: width, c, .. } = shape;
    let index = Positions::new(shape, index);
    write_blocks(out, (width * c).max(1), epilogue, |start, block| {
        let row = start / (width * c);
        let (n, p) = (row / shape.p, row % shape.p);
        let x = &x[n * shape.image()..(n + 1) * shape.image()];
        let (r0, r1) = shape.rows(p);
        let mut positions = [0; CHANNELS];
        for (q, out) in block.chunks_exact_mut(c).enumerate() {
            let (s0, s1) = shape.columns(q);
            vectorized(
                #[inline(always)]
                || {
                    for (group, out) in out.chunks_mut(CHANNELS).enumerate() {
                        let (channel, len) = (group * CHANNELS, out.len());
                        let positions = &mut positions[..len];
                        index.read(start + q * c + channel, positions);
                        // In an array of its own, which may be written whatever the index says: no branches.
                        let mut values = [T::ZERO; CHANNELS];
                        let values = &mut values[..len];
                        for r in r0..r1 {
                            for s in s0..s1 {
                                let here = (r * shape.window.kernel[1] + s) as u32;
                                let x = &x[shape.at(p, q, r, s) + channel..][..len];
                                for ((value, &x), &position) in values.iter_mut().zip(x).zip(&*positions) {
                                    *value = if position == here { x } else { *value };
                                }
                            }
                        }
                        out.copy_from_slice(values);
                    }
                },
            );
        }
    });
}

/// `out = stages(dy added where index says)`: the transpose of [`gather`]. Overlaps add in the order of the windows.
pub(super) fn scatter<T: Float>(
    shape: &PoolShape,
    dy: &[T],
    index: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    let (image, result, c) = (shape.image(), shape.result(), shape.c);
    let index = Positions::new(shape, index);
    write_blocks(out, image.max(1), epilogue, |start, block| {
        let n = start / image;
        let dy = &dy[n * result..(n + 1) * result];
        block.fill(T::ZERO);
        let mut positions = [0; CHANNELS];
        for (pixel, dy) in dy.chunks_exact(c).enumerate() {
            let (p, q) = (pixel / shape.q, pixel % shape.q);
            let ((r0, r1), (s0, s1)) = (shape.rows(p), shape.columns(q));
            vectorized(
                #[inline(always)]
                || {
                    for (group, dy) in dy.chunks(CHANNELS).enumerate() {
                        let (channel, len) = (group * CHANNELS, dy.len());
                        let positions = &mut positions[..len];
                        index.read(n * result + pixel * c + channel, positions);
                        for r in r0..r1 {
                            for s in s0..s1 {
                                let here = (r * shape.window.kernel[1] + s) as u32;
                                let out = &mut block[shape.at(p, q, r, s) + channel..][..len];
                                for ((out, &dy), &position) in out.iter_mut().zip(dy).zip(&*positions) {
                                    // Where it stands elsewhere 0 is added, which changes no bit: a sum that began with
                                    // 0 is never -0.
                                    *out += if position == here { dy } else { T::ZERO };
                                }
                            }
                        }
                    }
                },
            );
        }
    });
}

/// `out = stages(average of x over windows)`; the divisor is the whole window, padding included.
pub(super) fn average<T: Float>(shape: &PoolShape, x: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let &PoolShape { q: width, c, .. } = shape;
    let scale = window_share::<T>(shape);
    write_blocks(out, (width * c).max(1), epilogue, |start, block| {
        let row = start / (width * c);
        let (n, p) = (row / shape.p, row % shape.p);
        let x = &x[n * shape.image()..(n + 1) * shape.image()];
        let (r0, r1) = shape.rows(p);
        vectorized(
            #[inline(always)]
            || {
                for (q, out) in block.chunks_exact_mut(c).enumerate() {
                    let (s0, s1) = shape.columns(q);
                    out.fill(T::ZERO);
                    for r in r0..r1 {
                        for s in s0..s1 {
                            let from = shape.at(p, q, r, s);
                            out.iter_mut().zip(&x[from..from + c]).for_each(|(o, x)| *o += *x);
                        }
                    }
                    out.iter_mut().for_each(|o| *o = *o * scale);
                }
            },
        );
    });
}

/// `out = stages(each dy spread evenly over its window)`: the transpose of [`average`].
pub(super) fn average_grad<T: Float>(shape: &PoolShape, dy: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let (image, result, c) = (shape.image(), shape.result(), shape.c);
    let scale = window_share::<T>(shape);
    write_blocks(out, image.max(1), epilogue, |start, block| {
        let n = start / image;
        let dy = &dy[n * result..(n + 1) * result];
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for (pixel, dy) in dy.chunks_exact(c).enumerate() {
                    let (p, q) = (pixel / shape.q, pixel % shape.q);
                    let ((r0, r1), (s0, s1)) = (shape.rows(p), shape.columns(q));
                    for r in r0..r1 {
                        for s in s0..s1 {
                            let to = shape.at(p, q, r, s);
                            block[to..to + c].iter_mut().zip(dy).for_each(|(o, dy)| *o += *dy * scale);
                        }
                    }
                }
            },
        );
    });
}

/// One over the elements of a window.
fn window_share<T: Float>(shape: &PoolShape) -> T {
    T::ONE / T::from_f64((shape.window.kernel[0] * shape.window.kernel[1]) as f64)
}
