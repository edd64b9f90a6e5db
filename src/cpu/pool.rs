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

/// Where in its window (row * kernel width + column) the maximum stands, the first of equals. Positions outside the
/// image are skipped; a NaN never wins against a number.
pub(super) fn max_index<T: Float>(shape: &PoolShape, x: &[T], out: &mut [u32]) {
    let &PoolShape { q: width, c, .. } = shape;
    for_each_block(out, (width * c).max(1), |row, block| {
        let (n, p) = (row / shape.p, row % shape.p);
        let x = &x[n * shape.image()..(n + 1) * shape.image()];
        let (r0, r1) = shape.rows(p);
        for (q, out) in block.chunks_exact_mut(c).enumerate() {
            let (s0, s1) = shape.columns(q);
            vectorized(
                #[inline(always)]
                || {
                    // Channels in groups, so that the best values so far stay in registers.
                    for (group, out) in out.chunks_mut(64).enumerate() {
                        let mut best = [T::NEG_INFINITY; 64];
                        let best = &mut best[..out.len()];
                        for r in r0..r1 {
                            for s in s0..s1 {
                                let from = shape.at(p, q, r, s) + group * 64;
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
                },
            );
        }
    });
}

/// Row and column of a window position, kept inside the image whatever the index says.
#[inline(always)]
fn unpack(shape: &PoolShape, p: usize, q: usize, position: u32) -> (usize, usize) {
    let width = shape.window.kernel[1];
    let ((r0, r1), (s0, s1)) = (shape.rows(p), shape.columns(q));
    let (r, s) = (position as usize / width, position as usize % width);
    (r.clamp(r0, r1 - 1), s.clamp(s0, s1 - 1))
}

/// `out = stages(x at the window positions index)`.
pub(super) fn gather<T: Float>(
    shape: &PoolShape,
    x: &[T],
    index: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    let &PoolShape { q: width, c, .. } = shape;
    write_blocks(out, (width * c).max(1), epilogue, |start, block| {
        let row = start / (width * c);
        let (n, p) = (row / shape.p, row % shape.p);
        let x = &x[n * shape.image()..(n + 1) * shape.image()];
        let index = &index[start..start + block.len()];
        for (q, (out, index)) in block.chunks_exact_mut(c).zip(index.chunks_exact(c)).enumerate() {
            for (channel, (out, &position)) in out.iter_mut().zip(index).enumerate() {
                let (r, s) = unpack(shape, p, q, position);
                *out = x[shape.at(p, q, r, s) + channel];
            }
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
    write_blocks(out, image.max(1), epilogue, |start, block| {
        let n = start / image;
        let dy = &dy[n * result..(n + 1) * result];
        let index = &index[n * result..(n + 1) * result];
        block.fill(T::ZERO);
        for (pixel, (dy, index)) in dy.chunks_exact(c).zip(index.chunks_exact(c)).enumerate() {
            let (p, q) = (pixel / shape.q, pixel % shape.q);
            for (channel, (&dy, &position)) in dy.iter().zip(index).enumerate() {
                let (r, s) = unpack(shape, p, q, position);
                block[shape.at(p, q, r, s) + channel] += dy;
            }
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
