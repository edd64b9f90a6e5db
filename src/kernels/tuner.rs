//! Choosing among the variants of launches by measuring them once on this device, and remembering.
//!
//! Without a tuner every launch takes the first of its [`variants`], a fixed rule of launch and [`Target`]; with one,
//! the fastest that was measured, by a file that keeps what was. Variants add the same numbers in another order, so
//! that another choice is another last bit: results are a function of the file, which a run's record therefore names.
//! The same file gives the same choices; read without leave to measure, it leaves what it does not know to the rule.
//!
//! The file is JSON, for the eye too: each launch in words, the variant chosen and the times of all, in microseconds.
//! It belongs to one adapter, driver and set of kernel sources; one that does not is set aside with a warning.
//!
//! The CPU executor has nothing to tune: how it cuts its work is fixed by shapes.

use super::{Calls, Compiled, Target, Variant, calls, shaders, variants};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Buffer, Gpu};
use crate::launch::{Kernel, Launch, Operand, Place, Stage};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most time for the variants of one launch; what was not reached by then is not chosen.
const LAUNCH_BUDGET: Duration = Duration::from_secs(2);
/// Most rounds of measurements: the fastest counts.
const ROUNDS: usize = 7;
/// A measurement repeats a launch until it takes about so long, to stand out from what a submission costs.
const MEASUREMENT: f64 = 4e-3;
/// A variant that takes so many times as long as the best at first is measured no more.
const HOPELESS: f64 = 2.0;
/// What is not faster than the rule's choice by this factor is as fast: the rule's choice stays.
const WORTHWHILE: f64 = 0.97;

/// What a tuner remembers, as it stands in its file.
#[derive(Debug, Deserialize, Serialize)]
pub struct Cache {
    /// The adapter and its driver.
    device: String,
    /// SHA-256 of all that the kernels' texts are made of.
    kernels: String,
    /// By launch.
    choices: BTreeMap<String, Choice>,
}

impl Cache {
    /// What a file holds; `None` where there is none. Nothing in it is believed of a device: what a launch is said to take is
    /// looked up among those that there are.
    ///
    /// # Errors
    /// Why it cannot be used, as [`Tuner::warnings`] say it.
    pub fn read(file: &Path) -> std::result::Result<Option<Cache>, String> {
        match std::fs::read(file) {
            Ok(bytes) => {
                let parsed = serde_json::from_slice(&bytes);
                parsed.map(Some).map_err(|error| format!("it is no cache of a tuner ({error})"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("it cannot be read ({error})")),
        }
    }

    fn to_json(&self) -> String {
        // Strings and numbers alone: nothing here that JSON could refuse.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// What was measured of a launch.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Choice {
    /// The variant chosen.
    variant: String,
    /// The least of each of those measured to the end.
    microseconds: BTreeMap<String, f64>,
}

/// What a tuner did so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuned {
    /// Launches that differ, of those that there are several ways to run.
    pub launches: usize,
    /// Those of them that take another variant than the rule's.
    pub changed: usize,
    /// Those that were measured now.
    pub measured: usize,
    /// Those that neither the file knew nor there was time or leave to measure.
    pub unknown: usize,
    /// Time that measuring took.
    pub time: Duration,
}

struct State {
    cache: Cache,
    /// What each launch came to in this process: the same for as long as it runs.
    settled: BTreeMap<String, Option<String>>,
    tuned: Tuned,
    warnings: Vec<String>,
    /// A second file that is kept as the first.
    copy: Option<PathBuf>,
}

/// Chooses among the variants of launches on one device.
pub struct Tuner {
    file: PathBuf,
    target: Target,
    /// Time left to measure in, where it may measure.
    budget: Option<Duration>,
    state: Mutex<State>,
}

impl Tuner {
    /// A tuner that remembers in `file`, which need not exist, and measures what it does not know for up to `budget`
    /// in all; `None` to measure nothing and leave the file as it is. A file that cannot be used, because it is
    /// damaged or of another device, driver or version of the kernels, counts as empty, with a warning.
    pub fn new(gpu: &Gpu, file: &Path, budget: Option<Duration>) -> Tuner {
        let mut warnings = Vec::new();
        let mut cache = Cache { device: device(gpu), kernels: sources(), choices: BTreeMap::new() };
        match Cache::read(file) {
            Ok(None) => {}
            Ok(Some(found)) if found.device != cache.device => {
                warnings.push(format!("it is of another device, {}", found.device));
            }
            Ok(Some(found)) if found.kernels != cache.kernels => {
                warnings.push("it is of another version of the kernels".into());
            }
            Ok(Some(found)) => cache = found,
            Err(why) => warnings.push(why),
        }
        let then = if budget.is_some() { "measuring anew" } else { "taking the fixed choices" };
        let warnings = warnings.into_iter().map(|why| format!("{}: {why}; {then}", file.display())).collect();
        let state = State { cache, settled: BTreeMap::new(), tuned: Tuned::default(), warnings, copy: None };
        Tuner { file: file.into(), target: Target::of(gpu), budget, state: Mutex::new(state) }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes all that it knows into `copy` too, now and whenever it has measured something: a tuner of that file that
    /// measures nothing makes the same choices, whatever becomes of the first file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written now; later that is a warning.
    pub fn keep_copy(&self, copy: &Path) -> Result<()> {
        let mut state = self.lock();
        files::write_atomically(copy, state.cache.to_json().as_bytes())?;
        state.copy = Some(copy.into());
        Ok(())
    }

    /// What it did so far.
    pub fn tuned(&self) -> Tuned {
        self.lock().tuned.clone()
    }

    /// What went wrong so far, a sentence each; tells each once.
    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().warnings)
    }

    /// SHA-256 of its choices: two runs with the same take the same variants where both know a launch.
    pub fn hash(&self) -> String {
        let state = self.lock();
        let mut hash = Sha256::new();
        hash.update([state.cache.device.as_bytes(), &[0], state.cache.kernels.as_bytes()].concat());
        for (launch, choice) in &state.cache.choices {
            hash.update([launch.as_bytes(), &[0], choice.variant.as_bytes(), &[0]].concat());
        }
        hex(&hash.finalize())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No lock is held while something is half done to the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls of each launch; those it does not know are measured first, small ones before large ones, where it may
    /// and while there is time. `bytes` are the sizes of the places that launches name.
    ///
    /// # Errors
    /// As [`calls`]; an error of the device. A file that cannot be written is a warning.
    pub fn choose(&self, gpu: &Gpu, launches: &[Launch], bytes: impl Fn(Place) -> u64) -> Result<Vec<Calls>> {
        let mut open: Vec<(u64, String, Launch, Vec<u64>)> = Vec::new();
        for launch in launches {
            let (canonical, places) = canonical(launch);
            let key = key(&canonical);
            if self.lock().settled.contains_key(&key) || open.iter().any(|(_, have, ..)| *have == key) {
                continue;
            }
            let sizes = places.into_iter().map(&bytes).collect();
            open.push((launch.kernel.flops(), key, canonical, sizes));
        }
        open.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut measured = false;
        for (_, key, launch, sizes) in open {
            measured |= self.settle(gpu, key, &launch, &sizes)?;
        }
        if measured {
            self.save();
        }
        launches.iter().map(|launch| self.calls(launch)).collect()
    }

    /// Bytes of scratch memory that running `launches` takes, beside their slots and tensors; of those that are yet to
    /// be measured, as the variant that takes most.
    ///
    /// # Errors
    /// As [`calls`].
    pub fn scratch_bytes(&self, launches: &[Launch]) -> Result<u64> {
        let mut all = Vec::new();
        for launch in launches {
            let key = key(&canonical(launch).0);
            let known = {
                let state = self.lock();
                state.settled.contains_key(&key) || state.cache.choices.contains_key(&key)
            };
            match known || self.budget.is_none() {
                true => all.push(self.calls(launch)?),
                false => all.extend(variants(launch, &self.target)?.into_iter().map(|v| v.calls)),
            }
        }
        Ok(super::scratch_sizes(&all).iter().sum())
    }

    /// The calls of a launch as far as is known.
    fn calls(&self, launch: &Launch) -> Result<Calls> {
        let key = key(&canonical(launch).0);
        let wanted = {
            let state = self.lock();
            let known = || state.cache.choices.get(&key).map(|choice| choice.variant.clone());
            state.settled.get(&key).cloned().unwrap_or_else(known)
        };
        let found = match wanted {
            Some(wanted) => variants(launch, &self.target)?.into_iter().find(|v| v.name == wanted),
            None => None,
        };
        found.map_or_else(|| calls(launch, &self.target), |variant| Ok(variant.calls))
    }

    /// Settles what a launch takes in this process; whether it was measured for that.
    fn settle(&self, gpu: &Gpu, key: String, launch: &Launch, sizes: &[u64]) -> Result<bool> {
        let ways = variants(launch, &self.target)?;
        if ways.len() < 2 {
            self.lock().settled.insert(key, None);
            return Ok(false);
        }
        let known = {
            let state = self.lock();
            let choice = state.cache.choices.get(&key);
            choice.filter(|choice| ways.iter().any(|way| way.name == choice.variant)).cloned()
        };
        let spent = self.lock().tuned.time;
        let left = self.budget.is_some_and(|budget| spent < budget);
        let start = Instant::now();
        let (choice, measured) = match known {
            Some(choice) => (Some(choice), false),
            None if left => (measure(gpu, launch, sizes, &ways)?, true),
            None => (None, false),
        };
        let mut state = self.lock();
        state.tuned.launches += 1;
        if measured {
            state.tuned.time += start.elapsed();
        }
        match &choice {
            Some(choice) => {
                state.tuned.measured += usize::from(measured);
                state.tuned.changed += usize::from(choice.variant != ways[0].name);
            }
            None => state.tuned.unknown += 1,
        }
        state.settled.insert(key.clone(), choice.as_ref().map(|choice| choice.variant.clone()));
        let fresh = measured && choice.is_some();
        if let Some(choice) = choice.filter(|_| measured) {
            state.cache.choices.insert(key, choice);
        }
        Ok(fresh)
    }

    fn save(&self) {
        let (text, copy) = {
            let state = self.lock();
            (state.cache.to_json(), state.copy.clone())
        };
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.map_or(Ok(()), std::fs::create_dir_all);
        let written = made
            .map_err(|error| Error::io(&self.file, "its folder could not be made", error))
            .and_then(|()| files::write_atomically(&self.file, text.as_bytes()));
        if let Err(error) = written {
            self.lock().warnings.push(format!("{error}; what was measured is used in this run alone"));
        }
        if let Some(Err(error)) = copy.map(|copy| files::write_atomically(copy, text.as_bytes())) {
            self.lock()
                .warnings
                .push(format!("{error}; to go on with this run it lacks what was measured last"));
        }
    }
}

impl std::fmt::Display for Tuner {
    /// In a line: what it chose, and what that took.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tuned { launches, changed, measured, unknown, time } = self.tuned();
        write!(f, "{launches} launches, {changed} by another kernel than the default; ")?;
        match measured {
            0 => write!(f, "none measured now")?,
            _ => write!(f, "{measured} measured now in {:.1} s", time.as_secs_f64())?,
        }
        if unknown > 0 {
            write!(f, ", {unknown} not known and left at the default")?;
        }
        write!(f, "; {}, sha256 {}", self.file.display(), &self.hash()[..12])
    }
}

/// A device as far as measurements depend on it.
fn device(gpu: &Gpu) -> String {
    let summary = gpu.summary();
    let [vendor, device] = summary.ids;
    let parameters = if gpu.bakes() { "constants" } else { "uniforms" };
    format!(
        "{} ({vendor:04x}:{device:04x}, {}; {}; parameters as {parameters})",
        summary.name, summary.backend, summary.driver
    )
}

/// A file's name for the tuner's cache of a device: another for every adapter and driver.
pub fn file_name(gpu: &Gpu) -> String {
    let hash = hex(&Sha256::digest(device(gpu).as_bytes()));
    format!("tuner-{}.json", &hash[..16])
}

/// SHA-256 of the shaders with all that they include.
fn sources() -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    for shader in shaders() {
        hash.update([shader.path.as_bytes(), &[0]].concat());
        hash.update(shader.plain().unwrap_or_default());
    }
    super::text::included().for_each(|text| hash.update(text));
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The launch with its output as slot 0 and what it reads as tensors 0, 1, ... in the order in which it names them, and
/// the places those were, the output's first: launches that differ in places alone take equally long.
fn canonical(launch: &Launch) -> (Launch, Vec<Place>) {
    let mut launch = launch.clone();
    let mut places = vec![launch.output];
    let mut number = |place: Place| {
        let at = places.iter().skip(1).position(|&have| have == place).unwrap_or_else(|| {
            places.push(place);
            places.len() - 2
        });
        Place::Tensor(at)
    };
    launch.inputs.iter_mut().for_each(|place| *place = number(*place));
    let before = match &mut launch.kernel {
        Kernel::Reduce { before, .. } => before.as_mut_slice(),
        _ => &mut [],
    };
    for stage in before.iter_mut().chain(&mut launch.stages) {
        if let Stage::Binary {
            operand: Operand::Buffer { place, .. } | Operand::Bits { place, .. }, ..
        } = stage
        {
            *place = number(*place);
        }
    }
    launch.output = Place::Slot(0);
    // In the order of the numbers, whichever it was in.
    let is_half = |at: &usize| launch.halves.contains(&places[at + 1]);
    launch.halves = (0..places.len() - 1).filter(is_half).map(Place::Tensor).collect();
    (launch, places)
}

/// A canonical launch in words that tell it from every other.
fn key(launch: &Launch) -> String {
    format!("{launch:?}")
}

/// Measures the variants of a canonical launch whose output and tensors have these sizes in bytes, and chooses; `None`
/// where there is no memory for that.
fn measure(gpu: &Gpu, launch: &Launch, sizes: &[u64], ways: &[Variant]) -> Result<Option<Choice>> {
    let start = Instant::now();
    let allocate = |&bytes: &u64| gpu.allocate(bytes, "measuring kernels");
    let buffers: Vec<Buffer> = match sizes.iter().map(allocate).collect() {
        Ok(buffers) => buffers,
        Err(Error::OutOfMemory { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let run = |compiled: &Compiled, times: usize| -> Result<f64> {
        let start = Instant::now();
        gpu.submit(|pass| (0..times).for_each(|_| compiled.encode(pass)))?;
        gpu.wait()?;
        Ok(start.elapsed().as_secs_f64() / times as f64)
    };
    // The first run of each builds what the driver puts off; the better of the next two counts.
    let mut contenders: Vec<(&str, Compiled, f64)> = Vec::new();
    for way in ways {
        let made = Compiled::with_calls(
            gpu,
            std::slice::from_ref(launch),
            std::slice::from_ref(&way.calls),
            0,
            &buffers[..1],
            &buffers[1..],
        );
        let compiled = match made {
            Ok(compiled) => compiled,
            Err(Error::OutOfMemory { .. }) if !contenders.is_empty() => continue,
            Err(Error::OutOfMemory { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        run(&compiled, 1)?;
        let first = run(&compiled, 1)?.min(run(&compiled, 1)?);
        contenders.push((&way.name, compiled, first));
        if start.elapsed() > LAUNCH_BUDGET {
            break;
        }
    }
    let best = contenders.iter().map(|(.., first)| *first).fold(f64::INFINITY, f64::min);
    let rule = ways[0].name.as_str();
    contenders.retain(|(name, _, first)| *name == rule || *first <= HOPELESS * best);
    let times = (MEASUREMENT / best.max(1e-9)).ceil().clamp(1.0, 64.0) as usize;
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..if contenders.len() > 1 { ROUNDS } else { 1 } {
        // In turn: what else the machine does meets all of them.
        for ((_, compiled, _), samples) in contenders.iter().zip(&mut samples) {
            samples.push(run(compiled, times)?);
        }
        if start.elapsed() > LAUNCH_BUDGET {
            break;
        }
    }
    // What else the machine does only adds to a time; medians of so few chose worse (docs/decisions/tuner.md).
    let least: Vec<f64> =
        samples.iter().map(|samples| samples.iter().copied().fold(f64::INFINITY, f64::min)).collect();
    let fixed = least[0];
    let mut fastest = 0;
    for (at, &time) in least.iter().enumerate() {
        if time < WORTHWHILE * fixed && time < least[fastest] {
            fastest = at;
        }
    }
    let named = contenders.iter().zip(&least);
    Ok(Some(Choice {
        variant: contenders[fastest].0.to_string(),
        microseconds: named.map(|((name, ..), t)| (name.to_string(), (t * 1e8).round() / 100.0)).collect(),
    }))
}
