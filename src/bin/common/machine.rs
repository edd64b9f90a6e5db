//! Where a program runs.

use super::say;
use adamant::{Device, Error, Result};
use clap::Args;

/// The heading of `--help` that its flags stand under.
pub(crate) const DEVICE: &str = "Where it runs";

#[derive(Args)]
pub(crate) struct Machine {
    /// Where to run: auto (a hardware GPU, else the CPU), cpu, gpu, an adapter's index, or part of its name (also a
    /// software adapter's, as llvmpipe)
    #[arg(long, help_heading = DEVICE, default_value = "auto")]
    pub(crate) device: String,
    /// Threads of the CPU executor [default: all cores]; they never change a result
    #[arg(long, help_heading = DEVICE)]
    pub(crate) threads: Option<usize>,
    /// Most memory that tensors may take on the device, as 512MiB or 8GiB [default: 9/10 of a card's, half of one that
    /// shares the machine's, what is free on the CPU]
    #[arg(long, help_heading = DEVICE, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// List the GPU adapters there are, with limits and features, and stop
    #[arg(long, help_heading = DEVICE)]
    pub(crate) list_devices: bool,
}

impl Machine {
    /// Gives the CPU executor its threads.
    pub(crate) fn start_threads(&self) -> Result<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        if threads == 0 {
            return Err(Error::argument("threads", 0, "must be at least 1"));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|e| Error::argument("threads", threads, e.to_string()))
    }

    /// Bytes that tensors may take, where that is given.
    pub(crate) fn memory(&self) -> Result<Option<u64>> {
        self.memory.as_deref().map(bytes).transpose()
    }

    /// The device, said and with no more memory than it may take.
    pub(crate) fn device(&self) -> Result<Device> {
        let (device, why) = Device::select(&self.device)?;
        if let Some(bytes) = self.memory()? {
            device.set_memory_budget(bytes);
        }
        say!("device    {} ({why})", device.describe());
        Ok(device)
    }

    /// Prints the devices there are.
    pub(crate) fn list() {
        let adapters = Device::adapters();
        if adapters.is_empty() {
            say!("no GPU adapter was found");
        }
        for adapter in &adapters {
            say!("{adapter:#}");
            if let Some(line) = Device::gpu(adapter).ok().and_then(|device| device.cooperative_matrices()) {
                say!("   {line}");
            }
        }
        say!("cpu: {}", Device::cpu().describe());
    }
}

/// "512MiB", "8GiB" or a number of bytes.
fn bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let found = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
    });
    let why = "write a whole number with KiB, MiB or GiB after it, as 512MiB, or a number of bytes";
    found.ok_or_else(|| Error::argument("memory", format!("`{text}`"), why))
}
