//! Convolution of NHWC images by HWIO filters, and its two gradients.

use super::blocks::{vectorized, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::launch::ConvShape;

impl ConvShape {
    /// Elements of x.
    pub(super) fn input(&self) -> usize {
        self.n * self.h * self.w * self.c
    }

    /// Elements of w.
    pub(super) fn filter(&self) -> usize {
        self.r * self.s * (self.c / self.groups) * self.k
    }

    /// Elements of y.
    pub(super) fn output(&self) -> usize {
        self.n * self.p * self.q * self.k
    }
}

/// Position along one axis that tap `tap` of output `out` reads, or `None` in the padding.
#[inline(always)]
fn read(shape: &ConvShape, axis: usize, out: usize, tap: usize) -> Option<usize> {
    let extent = [shape.h, shape.w][axis];
    let at = (out * shape.stride[axis] + tap * shape.dilation[axis]).checked_sub(shape.padding[axis])?;
    (at < extent).then_some(at)
}

/// Output along one axis whose tap `tap` reads position `at`, or `None` when there is none.
#[inline(always)]
fn read_by(shape: &ConvShape, axis: usize, at: usize, tap: usize) -> Option<usize> {
    let reach = (at + shape.padding[axis]).checked_sub(tap * shape.dilation[axis])?;
    let out = reach / shape.stride[axis];
    (reach % shape.stride[axis] == 0 && out < [shape.p, shape.q][axis]).then_some(out)
}

/// `out[N,P,Q,K] = stages(x * w)`.
pub(super) fn forward<T: Float>(s: &ConvShape, x: &[T], w: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let (cg, kg) = (s.c / s.groups, s.k / s.groups);
    write_blocks(out, (s.q * s.k).max(1), epilogue, |start, block| {
        let (n, p) = (start / (s.q * s.k) / s.p, start / (s.q * s.k) % s.p);
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for (q, out) in block.chunks_exact_mut(s.k).enumerate() {
                    for r in 0..s.r {
                        let Some(y) = read(s, 0, p, r) else { continue };
                        for t in 0..s.s {
                            let Some(at) = read(s, 1, q, t) else { continue };
                            let x = &x[((n * s.h + y) * s.w + at) * s.c..][..s.c];
                            let w = &w[(r * s.s + t) * cg * s.k..][..cg * s.k];
                            for (g, x) in x.chunks_exact(cg).enumerate() {
                                let out = &mut out[g * kg..(g + 1) * kg];
                                for (x, w) in x.iter().zip(w.chunks_exact(s.k)) {
                                    let w = &w[g * kg..(g + 1) * kg];
                                    out.iter_mut().zip(w).for_each(|(o, w)| *o += *x * *w);
                                }
                            }
                        }
                    }
                }
            },
        );
    });
}

/// `out[N,H,W,C] = stages(gradient of the convolution by its input)`.
pub(super) fn input_grad<T: Float>(s: &ConvShape, dy: &[T], w: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let (cg, kg) = (s.c / s.groups, s.k / s.groups);
    write_blocks(out, (s.w * s.c).max(1), epilogue, |start, block| {
        let (n, y) = (start / (s.w * s.c) / s.h, start / (s.w * s.c) % s.h);
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for (at, out) in block.chunks_exact_mut(s.c).enumerate() {
                    for r in 0..s.r {
                        let Some(p) = read_by(s, 0, y, r) else { continue };
                        for t in 0..s.s {
                            let Some(q) = read_by(s, 1, at, t) else { continue };
                            let dy = &dy[((n * s.p + p) * s.q + q) * s.k..][..s.k];
                            let w = &w[(r * s.s + t) * cg * s.k..][..cg * s.k];
                            for (c, out) in out.iter_mut().enumerate() {
                                let g = c / cg;
                                let w = &w[c % cg * s.k + g * kg..][..kg];
                                let dy = &dy[g * kg..(g + 1) * kg];
                                *out += dy.iter().zip(w).fold(T::ZERO, |sum, (a, b)| sum + *a * *b);
                            }
                        }
                    }
                }
            },
        );
    });
}

/// `out[R,S,C/groups,K] = stages(gradient of the convolution by its filter)`.
pub(super) fn weight_grad<T: Float>(s: &ConvShape, x: &[T], dy: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    let (cg, kg) = (s.c / s.groups, s.k / s.groups);
    write_blocks(out, s.k.max(1), epilogue, |start, block| {
        let tap = start / s.k;
        let (r, t, c) = (tap / cg / s.s, tap / cg % s.s, tap % cg);
        vectorized(
            #[inline(always)]
            || {
                block.fill(T::ZERO);
                for n in 0..s.n {
                    for p in 0..s.p {
                        let Some(y) = read(s, 0, p, r) else { continue };
                        for q in 0..s.q {
                            let Some(at) = read(s, 1, q, t) else { continue };
                            let x = &x[((n * s.h + y) * s.w + at) * s.c..][..s.c];
                            let dy = &dy[((n * s.p + p) * s.q + q) * s.k..][..s.k];
                            let groups = block.chunks_exact_mut(kg).zip(dy.chunks_exact(kg));
                            for (g, (out, dy)) in groups.enumerate() {
                                let x = x[g * cg + c];
                                out.iter_mut().zip(dy).for_each(|(o, dy)| *o += x * *dy);
                            }
                        }
                    }
                }
            },
        );
    });
}
