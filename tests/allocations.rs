//! A training step on the CPU executor asks the allocator for nothing: everything it needs was made with the program.

use adamant::Device;
use adamant::data::Dataset;
use adamant::nn::architectures;
use adamant::train::{Recipe, Trainer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted over all threads.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_training_step_allocates_nothing() {
    for model in ["mlp-64", "mnist-fast", "mnist-madry", "preact-resnet18-w16", "resnet18-w16"] {
        let images = (0..64 * 28 * 28).map(|i| (i * 31 % 256) as u8).collect();
        let classes = (0..10).map(|class| class.to_string()).collect();
        let labels = (0..64).map(|i| i % 10).collect();
        let data = Dataset::new("test", "made here", [28, 28, 1], images, labels, classes).unwrap();
        let recipe = Recipe { model: model.into(), steps: 3, batch: 20, validation: 0, ..Recipe::default() };
        let architecture = architectures::by_name(model, [28, 28, 1], 10).unwrap();
        let trainer = Trainer::new(recipe, architecture, &data, &Device::cpu()).unwrap();
        let program = trainer.next_step().unwrap();
        program.run().unwrap();
        let mut taken: Vec<usize> = (0..9)
            .map(|_| {
                let before = TAKEN.load(Ordering::Relaxed);
                program.run().unwrap();
                TAKEN.load(Ordering::Relaxed) - before
            })
            .collect();
        taken.sort();
        // The thread pool's queue takes a block for every 63 submissions.
        assert!(taken[4] == 0 && taken[8] <= 1, "{model}: {taken:?} allocations a step");
    }
}
