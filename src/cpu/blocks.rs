//! How work is cut: into blocks whose extents follow from shapes alone, never from the number of threads, so that
//! every thread count gives the same bits.

use super::float::Float;
use super::stages::Epilogue;
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Elements of a parallel block of elementwise work: large against the cost of handing it to a thread, small
/// against the second-level cache.
pub(super) const BLOCK: usize = 16 * 1024;

/// One cache line: the unit scratch memory is made of, so that vectors never straddle lines.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u64; 8]);

impl Line {
    pub(super) const ZERO: Line = Line([0; 8]);
}

/// Cache lines that hold `len` floats.
pub(super) fn lines<T: Float>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(size_of::<Line>())
}

/// Zero-filled scratch memory for `len` floats.
pub(super) fn scratch<T: Float>(len: usize) -> Vec<Line> {
    vec![Line::ZERO; lines::<T>(len)]
}

/// Scratch memory as floats.
pub(super) fn floats<T: Float>(scratch: &mut [Line]) -> &mut [T] {
    bytemuck::cast_slice_mut(scratch)
}

thread_local! {
    /// Scratch memory of this thread, taken while in use and put back after, so it is allocated once and grows to
    /// the largest need.
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Floats of this thread's scratch memory, of unspecified contents; given back when dropped.
///
/// An object rather than a closure's argument: a closure would cut the code inside off from the vector instructions
/// of the code around it wherever the compiler does not inline it.
pub(super) struct Scratch<T: Float> {
    memory: Vec<Line>,
    len: usize,
    float: PhantomData<T>,
}

impl<T: Float> Scratch<T> {
    /// Takes `len` floats.
    pub(super) fn take(len: usize) -> Scratch<T> {
        let mut memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        if memory.len() < lines::<T>(len) {
            memory = scratch::<T>(len);
        }
        Scratch { memory, len, float: PhantomData }
    }
}

impl<T: Float> Drop for Scratch<T> {
    fn drop(&mut self) {
        SPARE.with_borrow_mut(|spare| spare.push(std::mem::take(&mut self.memory)));
    }
}

impl<T: Float> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.memory)[..self.len]
    }
}

impl<T: Float> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut floats(&mut self.memory)[..self.len]
    }
}

/// Runs `body` with the widest vector instructions the processor has. `body` and what it calls must be
/// `#[inline(always)]` to profit. No instruction set changes a result: nothing is contracted or reassociated.
#[inline(always)]
pub(super) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// Calls `body(index)` for each index below `count`, in parallel when there are several.
pub(super) fn for_each(count: usize, body: impl Fn(usize) + Sync + Send) {
    if count == 1 { body(0) } else { (0..count).into_par_iter().for_each(body) }
}

/// Calls `body(index, block)` on blocks of `block` elements of `out`, in parallel when there are several.
pub(super) fn for_each_block<U: Send>(out: &mut [U], block: usize, body: impl Fn(usize, &mut [U]) + Sync) {
    if out.len() <= block {
        if !out.is_empty() {
            body(0, out);
        }
    } else {
        out.par_chunks_mut(block).enumerate().for_each(|(index, chunk)| body(index, chunk));
    }
}

/// Fills `out` in blocks of `block` elements: `compute(start, block)` writes the kernel's values for the elements
/// from `start` on, then the stages run on the hot block.
pub(super) fn write_blocks<T: Float>(
    out: &mut [T],
    block: usize,
    epilogue: &Epilogue<T>,
    compute: impl Fn(usize, &mut [T]) + Sync,
) {
    for_each_block(out, block, |index, chunk| {
        epilogue.finish(index * block, chunk, |fresh| compute(index * block, fresh));
    });
}
