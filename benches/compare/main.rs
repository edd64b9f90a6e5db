//! adamant as a contestant of `tools/compare`: a process that does works on request.
//!
//!     cargo bench --bench compare -- worker cpu      # or an adapter's number; tools/compare starts it so
//!     cargo bench --bench compare -- worker cpu f16  # attacks in half precision
//!
//! A worker reads one JSON object a line and answers each with one; what it can be asked is in `worker.rs`. It is
//! also a bench of its own, for a machine without Python:
//!
//!     cargo bench --bench compare                    # every work, on the CPU executor and every adapter
//!     cargo bench --bench compare -- W1 W3           # works whose name contains one of these
//!     cargo bench --bench compare -- launches W1     # of a training step, what each launch takes

#[path = "../measure/mod.rs"]
mod measure;

mod alone;
mod memory;
mod overhead;
mod tensors;
mod work;
mod worker;

use std::process::ExitCode;

#[global_allocator]
static COUNTED: memory::Counted = memory::Counted;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    measure::report(match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", device] => worker::serve(device, "f32"),
        ["worker", device, precision] => worker::serve(device, precision),
        ["devices"] => {
            worker::print_devices();
            Ok(())
        }
        ["launches", ..] => alone::launches(),
        _ => alone::run(),
    })
}
