//! Where plans run: a GPU adapter, the CPU executor, or the f64 reference executor.

use crate::error::{Error, Result};
use crate::gpu::{self, AdapterSummary, Gpu};
use crate::kernels::Target;
use crate::kernels::tuner::{self, Tuner};
use crate::trace::Trace;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often the host and the device have talked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Programs handed to the device.
    pub submissions: u64,
    /// Times the host waited for values.
    pub readbacks: u64,
    /// Tensors that the host wrote to.
    pub uploads: u64,
}

/// Memory of a GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Of the buffers alive.
    pub used: u64,
    /// That buffers may take together: 9/10 of a card's memory, half of a memory shared with the machine, or what
    /// [`Device::set_memory_budget`] was told.
    pub budget: u64,
}

/// A device that runs plans. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Device {
    pub(crate) kind: Kind,
    /// What [`Device::counters`] tells of the executors on the CPU.
    counters: Arc<[AtomicU64; 3]>,
    /// Bytes that tensors may take on the CPU; `u64::MAX` for what the system has.
    budget: Arc<AtomicU64>,
    tracing: Arc<Mutex<Option<Arc<Trace>>>>,
    tuner: Arc<OnceLock<Tuner>>,
}

#[derive(Clone)]
pub(crate) enum Kind {
    /// f32, all cores.
    Cpu,
    /// f64, all cores.
    Reference,
    Gpu(Gpu),
}

impl Device {
    fn new(kind: Kind) -> Device {
        Device {
            kind,
            counters: Arc::default(),
            budget: Arc::new(AtomicU64::new(u64::MAX)),
            tracing: Arc::default(),
            tuner: Arc::default(),
        }
    }

    /// A hardware GPU if there is one, else the CPU executor; never a software adapter, which is ten times slower
    /// than the CPU executor. A GPU that does not open is passed over.
    pub fn best() -> Device {
        Device::select("auto").map(|(device, _)| device).unwrap_or_else(|_| Device::cpu())
    }

    /// The CPU executor in f32, on all cores that rayon's pool has.
    pub fn cpu() -> Device {
        Device::new(Kind::Cpu)
    }

    /// The CPU executor in f64: what kernels and gradients are tested against.
    pub fn reference() -> Device {
        Device::new(Kind::Reference)
    }

    /// This GPU adapter.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the driver does not open it.
    pub fn gpu(adapter: &AdapterSummary) -> Result<Device> {
        Ok(Device::new(Kind::Gpu(Gpu::open(adapter)?)))
    }

    /// The GPU adapters there are, software ones included.
    pub fn adapters() -> Vec<AdapterSummary> {
        gpu::adapters()
    }

    /// The device called `name`, and why it was chosen: `auto`, `cpu`, `gpu` (a hardware GPU, or an error), an
    /// adapter's index, or part of an adapter's name (a software adapter too, when so named).
    ///
    /// # Errors
    /// [`Error::NoDevice`], with the adapters there are.
    pub fn select(name: &str) -> Result<(Device, String)> {
        let wanted = name.trim().to_lowercase();
        if wanted == "cpu" {
            return Ok((Device::cpu(), "asked for".into()));
        }
        let adapters = gpu::adapters();
        let hardware = adapters.iter().find(|adapter| !adapter.is_software());
        let list = match adapters.is_empty() {
            true => "no adapter was found: no Vulkan, Metal or DX12 driver answers".to_string(),
            false => {
                let lines: Vec<String> = adapters.iter().map(|a| format!("  {a}")).collect();
                format!("the adapters are\n{}", lines.join("\n"))
            }
        };
        match wanted.as_str() {
            "auto" => match hardware {
                Some(adapter) => match Device::gpu(adapter) {
                    Ok(device) => Ok((device, "the first hardware GPU".into())),
                    Err(error) => Ok((Device::cpu(), format!("the GPU does not open: {error}"))),
                },
                None if adapters.is_empty() => Ok((Device::cpu(), "no GPU adapter was found".into())),
                None => Ok((
                    Device::cpu(),
                    format!("no hardware GPU; {} is software, ask for it by name", adapters[0].name),
                )),
            },
            "gpu" => match hardware {
                Some(adapter) => Ok((Device::gpu(adapter)?, "asked for".into())),
                None => Err(Error::NoDevice(format!(
                    "device `gpu`: there is no hardware GPU here; {list}\nuse --device cpu, or name a software adapter"
                ))),
            },
            _ => {
                let index = wanted.parse::<usize>().ok();
                let found = adapters.iter().find(|a| {
                    index.map_or(a.name.to_lowercase().contains(&wanted), |index| a.index == index)
                });
                match found {
                    Some(adapter) => Ok((Device::gpu(adapter)?, "asked for".into())),
                    None => Err(Error::NoDevice(format!(
                        "device `{name}`: not `auto`, `cpu`, `gpu`, nor an adapter's index or part of its name; {list}"
                    ))),
                }
            }
        }
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Cpu => format!("CPU executor, f32, {} threads", rayon::current_num_threads()),
            Kind::Reference => {
                format!("CPU reference executor, f64, {} threads", rayon::current_num_threads())
            }
            Kind::Gpu(gpu) => gpu.summary().to_string(),
        }
    }

    /// What becomes of cooperative matrices in products of half precision, where the adapter offers them: whether a
    /// product of known result came out right, without which they are not used.
    pub fn cooperative_matrices(&self) -> Option<String> {
        let Kind::Gpu(gpu) = &self.kind else { return None };
        let size = gpu.summary().cooperative?;
        let target = Target::of(gpu);
        let found = match target.cooperative {
            Some(_) if target.software => "gave the right product; not used on software",
            Some(_) => "gave the right product: attacks in f16 use them",
            None => "failed a product of known result: not used",
        };
        Some(format!("cooperative matrices of {size}x{size} {found}"))
    }

    /// Whether it is a GPU adapter (software or hardware).
    pub fn is_gpu(&self) -> bool {
        matches!(self.kind, Kind::Gpu(_))
    }

    /// Whether it computes in f64.
    pub fn is_f64(&self) -> bool {
        matches!(self.kind, Kind::Reference)
    }

    /// How often the host and this device have talked so far.
    pub fn counters(&self) -> Counters {
        match &self.kind {
            Kind::Gpu(gpu) => {
                let counters = gpu.counters();
                Counters {
                    submissions: counters.submissions,
                    readbacks: counters.readbacks,
                    uploads: counters.uploads,
                }
            }
            _ => {
                let [submissions, readbacks, uploads] =
                    self.counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
                Counters { submissions, readbacks, uploads }
            }
        }
    }

    /// Memory of a GPU; `None` for the executors on the CPU, which do not count.
    pub fn memory(&self) -> Option<Memory> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(Memory { used: gpu.memory_used(), budget: gpu.memory_budget() }),
            _ => None,
        }
    }

    /// Sets how many bytes tensors and temporaries may take together; what is in use stays.
    pub fn set_memory_budget(&self, bytes: u64) {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.set_memory_budget(bytes),
            _ => self.budget.store(bytes, Ordering::Relaxed),
        }
    }

    /// Bytes that are left on the CPU for the plans of a store whose tensors take `used`: of the budget, or of what
    /// the system has, as far as it says.
    pub(crate) fn memory_left(&self, used: u64) -> u64 {
        match self.budget.load(Ordering::Relaxed) {
            u64::MAX => system_memory_left().unwrap_or(u64::MAX),
            budget => budget.saturating_sub(used),
        }
    }

    /// Bytes that the system has left, for executors that share them with all other programs: those on the CPU, where no
    /// budget is set and the system says.
    pub(crate) fn shared_memory_left(&self) -> Option<u64> {
        match &self.kind {
            Kind::Gpu(_) => None,
            _ if self.budget.load(Ordering::Relaxed) != u64::MAX => None,
            _ => system_memory_left(),
        }
    }

    /// Counts a submission and gives its number, from 0.
    pub(crate) fn count_submission(&self) -> u64 {
        self.counters[0].fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count_upload(&self) {
        self.counters[2].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_readback(&self) {
        self.counters[1].fetch_add(1, Ordering::Relaxed);
    }

    /// Has the kernels of plans that are compiled from now on chosen by what the tuner's `file` remembers; what it
    /// does not know is measured and remembered, for up to `budget` in all, or left to the fixed rule without one. See
    /// [`crate::kernels::tuner`]. A device takes one tuner; the executors on the CPU have nothing to tune and take none.
    /// Gives the tuner that the device has now.
    pub fn tune(&self, file: &Path, budget: Option<Duration>) -> Option<&Tuner> {
        match &self.kind {
            Kind::Gpu(gpu) => Some(self.tuner.get_or_init(|| Tuner::new(gpu, file, budget))),
            _ => None,
        }
    }

    /// Its tuner, where it has one.
    pub fn tuner(&self) -> Option<&Tuner> {
        self.tuner.get()
    }

    /// What a file of a tuner's for this device is called by default; `None` on the CPU.
    pub fn tuner_file_name(&self) -> Option<String> {
        if let Kind::Gpu(gpu) = &self.kind { Some(tuner::file_name(gpu)) } else { None }
    }

    /// Records what host and device do from now on.
    pub fn start_trace(&self, trace: &Arc<Trace>) {
        *self.tracing.lock().unwrap_or_else(PoisonError::into_inner) = Some(trace.clone());
        if let Kind::Gpu(gpu) = &self.kind {
            gpu.start_trace(trace);
        }
    }

    /// Waits until the device has done all it was given, and records no more.
    ///
    /// # Errors
    /// Of the device.
    pub fn end_trace(&self) -> Result<()> {
        *self.tracing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match &self.kind {
            Kind::Gpu(gpu) => gpu.end_trace(),
            _ => Ok(()),
        }
    }

    /// The trace, while there is one.
    pub fn trace(&self) -> Option<Arc<Trace>> {
        self.tracing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the device has done all it was given.
    ///
    /// # Errors
    /// Of the device, [`Error::DeviceLost`] among them.
    pub fn wait(&self) -> Result<()> {
        match &self.kind {
            Kind::Gpu(gpu) => gpu.wait(),
            _ => Ok(()),
        }
    }
}

/// Memory that programs can still take, in bytes, where the system says so in files (Linux): of the machine, and of
/// the control group this process is in.
fn system_memory_left() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let machine = line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10;
    // "max" where there is no limit, which is no number.
    let group = |name: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let left = group("max").zip(group("current")).map(|(most, used)| most.saturating_sub(used));
    Some(left.map_or(machine, |left| left.min(machine)))
}
