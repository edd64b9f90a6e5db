//! What memory a work takes: by the allocator's count, and by the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with bytes counted.
pub struct Counted;

fn grow(bytes: usize) {
    MOST.fetch_max(ALIVE.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing but two atomics.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps alloc_zeroed's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        ALIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes allocated now.
pub fn alive() -> usize {
    ALIVE.load(Relaxed)
}

/// The most bytes allocated at a time since the last call of [`reset`].
pub fn most() -> usize {
    MOST.load(Relaxed)
}

/// Counts [`most`] and [`resident_most`] from now on.
pub fn reset() {
    MOST.store(alive(), Relaxed);
    // Linux: the process's high-water mark goes back to what is resident. Elsewhere there is no such file, and no
    // high-water mark is read.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Resident bytes now, where the system says so.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most resident bytes since the last call of [`reset`], where the system says so.
pub fn resident_most() -> Option<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}
