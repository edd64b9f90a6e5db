//! Depthwise convolution, one filter a channel: vectors run along the channels, there is nothing to multiply twice.

use crate::cpu::blocks::{for_each_block, vectorized, write_blocks};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::launch::ConvShape;

/// Most copies of the filter that its gradient is summed in.
const SPLITS: usize = 16;

/// Whether every channel is a group of its own with one filter.
pub(super) fn suits(s: &ConvShape) -> bool {
    s.groups == s.c && s.k == s.c && s.c > 1
}

/// Position along one axis that tap `tap` of output `out` reads, or `None` in the padding.
#[inline(always)]
fn read(s: &ConvShape, axis: usize, out: usize, tap: usize) -> Option<usize> {
    let at = (out * s.stride[axis] + tap * s.dilation[axis]).checked_sub(s.padding[axis])?;
    (at < [s.h, s.w][axis]).then_some(at)
}

/// Output along one axis whose tap `tap` reads position `at`, or `None` when there is none.
#[inline(always)]
fn read_by(s: &ConvShape, axis: usize, at: usize, tap: usize) -> Option<usize> {
    let reach = (at + s.padding[axis]).checked_sub(tap * s.dilation[axis])?;
    let out = reach / s.stride[axis];
    (reach % s.stride[axis] == 0 && out < [s.p, s.q][axis]).then_some(out)
}

/// `sums += a * b`, channel by channel.
#[inline(always)]
fn multiply_add<T: Float>(sums: &mut [T], a: &[T], b: &[T]) {
    for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
        *sum += *a * *b;
    }
}

/// `out[N,P,Q,C] = stages(x * w)`, a row at a time.
pub(super) fn forward<T: Float>(s: &ConvShape, x: &[T], w: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let c = s.c;
    write_blocks(out, s.q * c, epilogue, |start, block| {
        let (n, p) = (start / (s.q * c) / s.p, start / (s.q * c) % s.p);
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for (r, w) in w.chunks_exact(s.s * c).enumerate() {
                    let Some(y) = read(s, 0, p, r) else { continue };
                    let x = &x[(n * s.h + y) * s.w * c..][..s.w * c];
                    for (q, out) in block.chunks_exact_mut(c).enumerate() {
                        for (t, w) in w.chunks_exact(c).enumerate() {
                            let Some(at) = read(s, 1, q, t) else { continue };
                            multiply_add(out, &x[at * c..(at + 1) * c], w);
                        }
                    }
                }
            },
        );
    });
}

/// `out[N,H,W,C] = stages(gradient by the input)`, a row at a time.
pub(super) fn input_grad<T: Float>(s: &ConvShape, dy: &[T], w: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let c = s.c;
    write_blocks(out, s.w * c, epilogue, |start, block| {
        let (n, y) = (start / (s.w * c) / s.h, start / (s.w * c) % s.h);
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for (r, w) in w.chunks_exact(s.s * c).enumerate() {
                    let Some(p) = read_by(s, 0, y, r) else { continue };
                    let dy = &dy[(n * s.p + p) * s.q * c..][..s.q * c];
                    for (at, out) in block.chunks_exact_mut(c).enumerate() {
                        for (t, w) in w.chunks_exact(c).enumerate() {
                            let Some(q) = read_by(s, 1, at, t) else { continue };
                            multiply_add(out, &dy[q * c..(q + 1) * c], w);
                        }
                    }
                }
            },
        );
    });
}

/// Floats of scratch memory for the copies of the filter.
pub(super) fn scratch(s: &ConvShape) -> usize {
    s.n.min(SPLITS) * s.filter()
}

/// `out[R,S,1,C] = stages(gradient by the filter)`: each part of the examples sums into its own copy, then the
/// copies are added in order.
pub(super) fn weight_grad<T: Float>(
    s: &ConvShape,
    x: &[T],
    dy: &[T],
    out: &mut [T],
    epilogue: &Epilogue<T>,
    copies: &mut [T],
) {
    let (c, splits, filter) = (s.c, s.n.min(SPLITS), s.filter());
    let copies = &mut copies[..scratch(s)];
    for_each_block(copies, filter, |split, copy| {
        vectorized(
            #[inline(always)]
            || {
                copy.fill(T::ZERO);
                for row in split * s.n / splits * s.p..(split + 1) * s.n / splits * s.p {
                    let (n, p) = (row / s.p, row % s.p);
                    let dy = &dy[row * s.q * c..(row + 1) * s.q * c];
                    for (r, copy) in copy.chunks_exact_mut(s.s * c).enumerate() {
                        let Some(y) = read(s, 0, p, r) else { continue };
                        let x = &x[(n * s.h + y) * s.w * c..][..s.w * c];
                        for (q, dy) in dy.chunks_exact(c).enumerate() {
                            for (t, copy) in copy.chunks_exact_mut(c).enumerate() {
                                let Some(at) = read(s, 1, q, t) else { continue };
                                multiply_add(copy, &x[at * c..(at + 1) * c], dy);
                            }
                        }
                    }
                }
            },
        );
    });
    let copies = &*copies;
    write_blocks(out, filter, epilogue, |_, block| {
        block.fill(T::ZERO);
        for copy in copies.chunks_exact(filter) {
            block.iter_mut().zip(copy).for_each(|(sum, x)| *sum += *x);
        }
    });
}
