//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What Ctrl-C does: while training, the first one asks for a stop after the step, and the second ends the program at
/// once; when training is done there is nothing left to save.
pub(crate) struct Interrupt {
    pub(crate) stop: Arc<AtomicBool>,
    saved: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on, for a process that another speaks for: a stop after the step, each time.
    pub(crate) fn quietly(stop: Arc<AtomicBool>) {
        let _ = ctrlc::set_handler(move || stop.store(true, Ordering::Relaxed));
    }

    /// From now on; `resume` is the command that goes on with the run, and `stop` what is set.
    pub(crate) fn new(resume: &str, stop: Arc<AtomicBool>) -> Interrupt {
        let interrupt = Interrupt { stop, saved: Arc::default() };
        let (stop, saved, resume) = (interrupt.stop.clone(), interrupt.saved.clone(), resume.to_string());
        // Without a handler Ctrl-C just ends the program, and the last checkpoint is whole.
        let _ = ctrlc::set_handler(move || {
            if saved.load(Ordering::Relaxed) {
                eprintln!("\ninterrupted; the weights are saved, test them again with\n  {resume}");
                std::process::exit(130);
            }
            if stop.swap(true, Ordering::Relaxed) {
                eprintln!("stopped at once; go on from the last checkpoint with\n  {resume}");
                std::process::exit(130);
            }
            eprintln!("\nfinishing the step and saving; once more to stop at once");
        });
        interrupt
    }

    pub(crate) fn all_is_saved(&self) {
        self.saved.store(true, Ordering::Relaxed);
    }
}
