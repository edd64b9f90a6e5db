//! What the programs have in common: where they run, and how they speak.

pub(crate) mod machine;

pub(crate) use machine::Machine;

use adamant::Result;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// Whether another process says what is to be said: all but the first of several are quiet.
pub(crate) static QUIET: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output. Where nobody listens any more (`train | head`), the run goes on.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        if !$crate::common::QUIET.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = writeln!(std::io::stdout(), $($line)*);
        }
    }};
}
pub(crate) use say;

/// What a program ends with: an error is told of.
pub(crate) fn end(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Keeps Mesa's device-select layer out where there is no desktop session: it puts the adapters into the order that a
/// desktop wants, which is of no use here, and for that asks a Wayland server, whose library prints "error:
/// XDG_RUNTIME_DIR is invalid or not set in the environment" twice. The variable is the one that the layer's own
/// manifest declares for switching it off.
///
/// # Safety
/// Nothing else may run yet.
pub(crate) unsafe fn quieten_vulkan() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the caller says that nothing else runs.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
