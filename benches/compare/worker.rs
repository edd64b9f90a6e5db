//! The worker's side of the conversation: one JSON object a line in, one a line out.
//!
//! | asked | answered |
//! |---|---|
//! | `{"do": "hello"}` | `name`, `versions` |
//! | `{"do": "load", "work": {...}, "file": PATH}` | nothing: the work is compiled for the file's weights and inputs |
//! | `{"do": "check", "file": PATH}` | nothing: what the work computes is written there |
//! | `{"do": "round", "runs": N}` | `seconds` for N runs in a row, waited for |
//! | `{"do": "memory"}` | bytes of two runs: `planned`, `measured`, `resident`, each where it is known |
//! | `{"do": "overhead"}` | `step` and `kernels` in seconds, `launches` |
//! | `{"do": "quit"}` | |
//!
//! Where something fails the answer is `{"error": WHY}`, and the worker goes on.

use crate::measure::seconds;
use crate::work::{Loaded, Work};
use crate::{memory, overhead, tensors};
use adamant::gpu::AdapterSummary;
use adamant::plan::Precision;
use adamant::report::Environment;
use adamant::{Device, Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::path::PathBuf;

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    Hello,
    Load { work: Work, file: PathBuf },
    Check { file: PathBuf },
    Round { runs: usize },
    Memory,
    Overhead,
    Quit,
}

/// What memory was before a work was loaded.
struct Before {
    alive: usize,
    resident: Option<u64>,
    device: Option<u64>,
}

struct Worker {
    device: Device,
    precision: Precision,
    loaded: Option<(Loaded, Before)>,
}

impl Worker {
    fn loaded(&self) -> Result<&(Loaded, Before)> {
        self.loaded.as_ref().ok_or_else(|| Error::Unsupported("no work is loaded".into()))
    }

    fn answer(&mut self, request: Request) -> Result<Value> {
        match request {
            Request::Hello => {
                let environment = Environment::capture("", Vec::new());
                Ok(json!({
                    "name": match self.precision {
                        Precision::F32 => self.device.describe(),
                        half => format!("{}, attack in {}", self.device.describe(), half.on(&self.device)),
                    },
                    "versions": { "adamant": environment.adamant, "commit": environment.commit, "rustc": environment.rustc },
                }))
            }
            Request::Load { work, file } => {
                self.loaded = None;
                let before = Before {
                    alive: memory::alive(),
                    resident: memory::resident(),
                    device: self.device.memory().map(|memory| memory.used),
                };
                let loaded = Loaded::new(work, self.precision, tensors::read(&file)?, &self.device)?;
                self.loaded = Some((loaded, before));
                Ok(json!({}))
            }
            Request::Check { file } => {
                tensors::write(&file, &self.loaded()?.0.results()?)?;
                Ok(json!({}))
            }
            Request::Round { runs } => {
                let (loaded, _) = self.loaded()?;
                Ok(json!({ "seconds": seconds(|| loaded.run(runs))? }))
            }
            Request::Memory => {
                let (loaded, before) = self.loaded()?;
                memory::reset();
                loaded.run(2)?;
                let (tensors, temporaries) = loaded.planned();
                let measured = match (self.device.memory(), before.device) {
                    (Some(now), Some(before)) => now.used - before,
                    _ => (memory::most() - before.alive) as u64,
                };
                let resident = memory::resident_most().zip(before.resident);
                Ok(json!({
                    "planned": tensors + temporaries,
                    "measured": measured,
                    "resident": resident.map(|(most, before)| most.saturating_sub(before)),
                }))
            }
            Request::Overhead => {
                let (loaded, _) = self.loaded()?;
                let found = overhead::of(loaded)?;
                Ok(json!({ "step": found.step, "kernels": found.kernels, "launches": found.launches }))
            }
            Request::Quit => Ok(json!({})),
        }
    }
}

/// Serves requests from standard input until the end of it, on the CPU executor or the adapter of this number.
pub fn serve(device: &str, precision: &str) -> Result<()> {
    let (device, _) = Device::select(device)?;
    let mut worker = Worker { device, precision: precision.parse()?, loaded: None };
    for line in std::io::stdin().lock().lines() {
        let failed = |why: String| json!({ "error": why });
        let line = line.map_err(|e| Error::Unsupported(format!("standard input: {e}")))?;
        let (answer, quit) = match serde_json::from_str(&line) {
            Err(e) => (failed(format!("not a request: {e}")), false),
            Ok(request) => {
                let quit = matches!(request, Request::Quit);
                (worker.answer(request).unwrap_or_else(|e| failed(e.to_string())), quit)
            }
        };
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{answer}").and_then(|()| out.flush());
        if quit || written.is_err() {
            break;
        }
    }
    Ok(())
}

/// Prints the adapters as one line of JSON.
pub fn print_devices() {
    let adapters = Device::adapters();
    let row = |a: &AdapterSummary| json!({ "index": a.index, "name": a.name, "software": a.is_software(), "driver": a.to_string() });
    println!("{}", Value::from(adapters.iter().map(row).collect::<Vec<_>>()));
}
