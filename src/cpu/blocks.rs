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

/// Scratch memory as floats.
pub(super) fn floats<T: Float>(scratch: &mut [Line]) -> &mut [T] {
    bytemuck::cast_slice_mut(scratch)
}

/// Scratch memory of a thread, taken from the front and given back from the end.
struct Arena {
    memory: Vec<Line>,
    used: usize,
}

thread_local! {
    static ARENA: RefCell<Arena> = const { RefCell::new(Arena { memory: Vec::new(), used: 0 }) };
}

/// Makes this thread's scratch memory as large as this many cache lines.
pub(super) fn reserve(lines: usize) {
    ARENA.with_borrow_mut(|arena| {
        if arena.used == 0 && arena.memory.len() < lines {
            arena.memory = vec![Line::ZERO; lines];
        }
    });
}

/// Floats of this thread's scratch memory, of unspecified contents; given back when dropped, the last taken first.
///
/// An object rather than a closure's argument: a closure would cut the code inside off from the vector instructions
/// of the code around it wherever the compiler does not inline it.
pub(super) struct Scratch<T: Float> {
    start: *mut Line,
    lines: usize,
    len: usize,
    /// Memory of its own, where the thread's is too small.
    own: Vec<Line>,
    float: PhantomData<T>,
}

impl<T: Float> Scratch<T> {
    /// Takes `len` floats.
    pub(super) fn take(len: usize) -> Scratch<T> {
        let lines = lines::<T>(len);
        let (start, own) = ARENA.with_borrow_mut(|arena| {
            if arena.used == 0 && arena.memory.len() < lines {
                arena.memory = vec![Line::ZERO; lines];
            }
            if arena.memory.len() - arena.used < lines {
                let mut own = vec![Line::ZERO; lines];
                return (own.as_mut_ptr(), own);
            }
            arena.used += lines;
            // SAFETY: the lines before were taken, this many follow.
            (unsafe { arena.memory.as_mut_ptr().add(arena.used - lines) }, Vec::new())
        });
        Scratch { start, lines, len, own, float: PhantomData }
    }
}

impl<T: Float> Drop for Scratch<T> {
    fn drop(&mut self) {
        if !self.own.is_empty() {
            return;
        }
        ARENA.with_borrow_mut(|arena| {
            let before = arena.memory.as_mut_ptr();
            // Given back out of turn, it would be given to two at once: then it is lost instead.
            if before.wrapping_add(arena.used) == self.start.wrapping_add(self.lines) {
                arena.used -= self.lines;
            }
        });
    }
}

impl<T: Float> Deref for Scratch<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: these lines are this object's alone, are aligned for floats and hold floats: any bits are some. The
        // thread's memory is replaced only while nothing of it is taken.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl<T: Float> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
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
