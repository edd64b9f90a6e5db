//! Elementwise launches: the chain of stages is all there is.

use super::blocks::{BLOCK, for_each_block, write_blocks};
use super::float::Float;
use super::stages::{Epilogue, fill_stretched};
use crate::shape::Stretch;

/// `out[i] = stages(x[start.index(i)])`.
pub(super) fn map<T: Float>(start: Stretch, x: &[T], out: &mut [T], epilogue: &Epilogue<T>) {
    write_blocks(out, BLOCK, epilogue, |at, block| fill_stretched(x, start, at, block));
}

/// `out[i] = stages(out[i])`.
pub(super) fn update<T: Float>(out: &mut [T], epilogue: &Epilogue<T>) {
    for_each_block(out, BLOCK, |index, block| epilogue.update(index * BLOCK, block));
}

/// `out[i] = stages(value)`.
pub(super) fn fill<T: Float>(value: f64, out: &mut [T], epilogue: &Epilogue<T>) {
    write_blocks(out, BLOCK, epilogue, |_, block| block.fill(T::from_f64(value)));
}
