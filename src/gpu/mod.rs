//! The GPU through wgpu: adapters, counted memory, pipelines, submissions, timestamps. No other room names `wgpu`.
//!
//! A [`Gpu`] is a device and its queue. Work is recorded into a [`Pass`] as [`Dispatch`]es whose pipelines and bind
//! groups were made beforehand, and leaves in one submission. Whatever the driver reports, at once or later, comes
//! back as [`crate::Error`] from the call that meets it or, when it arrives between calls, from the next one.

mod adapter;
mod memory;
mod pass;
mod pipeline;
mod readback;
mod stamps;

pub use adapter::{AdapterKind, AdapterSummary, adapters};
pub use memory::Buffer;
pub use pass::{Dispatch, Pass};
pub use pipeline::Pipeline;
pub use readback::Readback;

use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Submissions that may be under way at once: enough to keep the device busy while the host encodes, few enough
/// that memory freed by the host is soon free on the device.
const IN_FLIGHT: usize = 3;
/// Uploads after which a submission is forced: a queue with hundreds of pending writes has been seen to fail.
const MAX_PENDING_WRITES: u64 = 64;

/// How a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Let the shader compiler add bounds checks, loop bounds and division guards: slower by up to 1.8 times, for
    /// finding a kernel's mistake. On when the environment has `ADAMANT_CHECKED=1`.
    pub checked: bool,
    /// Write a launch's parameters into its shader as constants instead of a uniform buffer; `None` does so on
    /// software adapters, where a division by a run-time value costs as much as a load.
    pub bake: Option<bool>,
}

impl Default for Options {
    fn default() -> Options {
        let checked = std::env::var_os("ADAMANT_CHECKED").is_some_and(|value| value == "1");
        Options { checked, bake: None }
    }
}

/// What a device was asked to do since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of [`Gpu::submit`] and [`Gpu::submit_reading`] that reached the queue, and the submissions [`Gpu::timed`] makes.
    pub submissions: u64,
    /// Calls of [`Gpu::read`], which wait. What [`Gpu::submit_reading`] has on its way is not counted.
    pub readbacks: u64,
    /// Calls of [`Gpu::write`].
    pub uploads: u64,
    /// Dispatches inside the submissions.
    pub dispatches: u64,
}

/// An open device; clones share it.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    summary: AdapterSummary,
    options: Options,
    faults: Arc<Mutex<Faults>>,
    memory: Arc<memory::Account>,
    pipelines: Mutex<HashMap<pipeline::Key, Arc<Pipeline>>>,
    under_way: Mutex<VecDeque<wgpu::SubmissionIndex>>,
    tracing: Mutex<Option<stamps::Tracing>>,
    /// Buffers that readbacks may take.
    ring: Mutex<Vec<readback::Staging>>,
    pending_writes: AtomicU64,
    submissions: AtomicU64,
    readbacks: AtomicU64,
    uploads: AtomicU64,
    dispatches: AtomicU64,
}

/// What the driver reported outside any call.
#[derive(Default)]
struct Faults {
    lost: Option<String>,
    first: Option<wgpu::Error>,
}

/// Locks even when another thread panicked meanwhile: no lock here is held across a state that could be half made.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens an adapter with default [`Options`].
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the driver refuses.
    pub fn open(adapter: &AdapterSummary) -> Result<Gpu> {
        Gpu::open_with(adapter, Options::default())
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the driver refuses.
    pub fn open_with(adapter: &AdapterSummary, options: Options) -> Result<Gpu> {
        let request = |extra: wgpu::Features, experimental_features: wgpu::ExperimentalFeatures| {
            pollster::block_on(adapter.adapter.request_device(&wgpu::DeviceDescriptor {
                label: Some("adamant"),
                required_features: (adapter.adapter.features() & adapter::WANTED) | extra,
                required_limits: adapter.adapter.limits(),
                experimental_features,
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            }))
        };
        let plain = || request(wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled());
        let opened = if adapter.cooperative.is_some() {
            // SAFETY: experimental is what wgpu calls features whose validation may have holes. The one that is asked
            // for is used by this crate's own shaders alone, and only after a product of known result came out right.
            let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
            request(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, experimental).or_else(|_| plain())
        } else {
            plain()
        };
        let (device, queue) = opened.map_err(|error| {
            Error::NoDevice(format!(
                "{} cannot be opened: {error}. Update its driver, or use the CPU",
                adapter.name
            ))
        })?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let seen = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&seen).first.get_or_insert(error);
        }));
        let seen = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { message };
            lock(&seen).lost.get_or_insert(message);
        });
        Ok(Gpu(Arc::new(Inner {
            device,
            queue,
            memory: Arc::new(memory::Account::new(adapter)),
            summary: adapter.clone(),
            options,
            faults,
            pipelines: Mutex::default(),
            under_way: Mutex::default(),
            tracing: Mutex::default(),
            ring: Mutex::default(),
            pending_writes: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            readbacks: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            dispatches: AtomicU64::new(0),
        })))
    }

    /// The adapter behind it.
    pub fn summary(&self) -> &AdapterSummary {
        &self.0.summary
    }

    /// Whether the processor plays GPU here.
    pub fn is_software(&self) -> bool {
        self.0.summary.is_software()
    }

    /// The size of the cooperative matrices that its shaders may use: factors of f16, sums of f32.
    pub fn cooperative(&self) -> Option<u32> {
        let has = self.0.device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        self.0.summary.cooperative.filter(|_| has)
    }

    /// Whether launch parameters become constants of the shader (see [`Options::bake`]).
    pub fn bakes(&self) -> bool {
        self.0.options.bake.unwrap_or(self.is_software())
    }

    /// What it was asked to do so far.
    pub fn counters(&self) -> Counters {
        let inner = &self.0;
        Counters {
            submissions: inner.submissions.load(Ordering::Relaxed),
            readbacks: inner.readbacks.load(Ordering::Relaxed),
            uploads: inner.uploads.load(Ordering::Relaxed),
            dispatches: inner.dispatches.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything submitted has run.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub fn wait(&self) -> Result<()> {
        lock(&self.0.under_way).clear();
        self.poll(wgpu::PollType::wait_indefinitely())?;
        self.check()
    }

    /// Gives the device up: every later call is [`Error::DeviceLost`], as after a driver reset.
    pub fn destroy(&self) {
        self.0.device.destroy();
        let mut faults = lock(&self.0.faults);
        faults.lost.get_or_insert_with(|| "it was destroyed by its user".into());
    }

    /// Polls the device, which also frees what was dropped.
    fn poll(&self, how: wgpu::PollType) -> Result<()> {
        self.check()?;
        // A lost device makes wgpu's poll panic instead of returning an error.
        match catch_unwind(AssertUnwindSafe(|| self.0.device.poll(how))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(format!("waiting failed: {error}"))),
            Err(_) => {
                lock(&self.0.faults).lost.get_or_insert_with(|| "it stopped answering".into());
                self.check()
            }
        }
    }

    /// The error of the first report that no call has returned yet.
    fn check(&self) -> Result<()> {
        let mut faults = lock(&self.0.faults);
        if let Some(message) = &faults.lost {
            return Err(Error::DeviceLost { device: self.name(), message: message.clone() });
        }
        match faults.first.take() {
            Some(error) => Err(self.translate("the device", 0, error)),
            None => Ok(()),
        }
    }

    /// Runs `make` and returns what it reported as an error; `bytes` is what `what` needs, for out of memory.
    fn scoped<T>(&self, what: &str, bytes: u64, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.check()?;
        let device = &self.0.device;
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
                .map(|filter| device.push_error_scope(filter));
        let made = make(device);
        let mut first = None;
        // Scopes close in the reverse of the order they were opened in.
        for scope in scopes.into_iter().rev() {
            first = first.or(pollster::block_on(scope.pop()));
        }
        match first {
            Some(error) => Err(self.translate(what, bytes, error)),
            None => self.check().map(|()| made),
        }
    }

    fn translate(&self, what: &str, needed: u64, error: wgpu::Error) -> Error {
        match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory {
                what: what.into(),
                needed,
                available: self.memory_budget().saturating_sub(self.memory_used()),
                device: self.name(),
                hint: "; the driver refused it, other programs may hold the memory".into(),
            },
            other => self.error(format!("{what}: {other}")),
        }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::Gpu { device: self.name(), message: message.into() }
    }

    fn name(&self) -> String {
        self.0.summary.name.clone()
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.0.summary)
    }
}
