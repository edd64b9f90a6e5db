//! Counted memory: allocation, upload, readback.

use super::{AdapterSummary, Gpu, MAX_PENDING_WRITES};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Assumed memory where neither the driver nor the system says: 4 GiB.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// Bytes a device has handed out and may hand out.
pub(super) struct Account {
    used: AtomicU64,
    budget: AtomicU64,
}

impl Account {
    /// The budget a device starts with: 9/10 of the memory of a card, half of the memory of a device that shares it
    /// with the rest of the machine.
    pub(super) fn new(adapter: &AdapterSummary) -> Account {
        let budget = match (adapter.kind, adapter.memory) {
            (super::AdapterKind::Discrete, Some(bytes)) => bytes / 10 * 9,
            (super::AdapterKind::Software, _) => system_memory().unwrap_or(UNKNOWN_MEMORY) / 2,
            (_, Some(bytes)) => bytes / 2,
            (_, None) => system_memory().unwrap_or(UNKNOWN_MEMORY) / 2,
        };
        Account { used: AtomicU64::new(0), budget: AtomicU64::new(budget) }
    }
}

/// Memory of the machine, where the system says so in a file.
fn system_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Memory on the device; clones share it, the last one gives it back. Its contents start as zeros.
#[derive(Clone)]
pub struct Buffer(Arc<Allocation>);

struct Allocation {
    buffer: wgpu::Buffer,
    bytes: u64,
    account: Arc<Account>,
}

impl Buffer {
    /// Bytes asked for.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Whether both are the same memory.
    pub fn is(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.0.buffer
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.0.bytes)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.account.used.fetch_sub(padded(self.bytes), Ordering::Relaxed);
    }
}

/// Bytes a buffer of `bytes` takes: whole words (bytes are read as words of four), and never none.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.max(1).saturating_add(3) & !3
}

impl Gpu {
    /// A buffer of `bytes`, all zero; `what` names it in errors. Its bytes count as used until the last clone is
    /// dropped.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when it exceeds the largest binding, the budget, or what the driver has.
    pub fn allocate(&self, bytes: u64, what: &str) -> Result<Buffer> {
        let (account, size) = (&self.0.memory, padded(bytes));
        let refused = |available: u64, hint: &str| Error::OutOfMemory {
            what: what.into(),
            needed: bytes,
            available,
            device: self.summary().name.clone(),
            hint: hint.into(),
        };
        if size > self.max_buffer() {
            return Err(refused(self.max_buffer(), " for one buffer"));
        }
        let budget = account.budget.load(Ordering::Relaxed);
        let take = |used: u64| used.checked_add(size).filter(|&total| total <= budget);
        if let Err(used) = account.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            return Err(refused(budget.saturating_sub(used), ""));
        }
        let made = self.scoped(what, bytes, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(what),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        match made {
            Ok(buffer) => Ok(Buffer(Arc::new(Allocation { buffer, bytes, account: account.clone() }))),
            Err(error) => {
                account.used.fetch_sub(size, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Bytes of the buffers alive.
    pub fn memory_used(&self) -> u64 {
        self.0.memory.used.load(Ordering::Relaxed)
    }

    /// Bytes that buffers may take together: 9/10 of a card's memory, half of a memory shared with the machine, or
    /// what [`Gpu::set_memory_budget`] was told.
    pub fn memory_budget(&self) -> u64 {
        self.0.memory.budget.load(Ordering::Relaxed)
    }

    /// Sets how many bytes buffers may take together; what is in use stays.
    pub fn set_memory_budget(&self, bytes: u64) {
        self.0.memory.budget.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of the largest buffer a kernel can bind.
    pub fn max_buffer(&self) -> u64 {
        let summary = self.summary();
        summary.max_binding.min(summary.max_buffer) & !3
    }

    /// Fills a buffer from the host; ordered after everything submitted and before everything submitted later.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the sizes differ.
    pub fn write(&self, buffer: &Buffer, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != buffer.bytes() {
            return Err(self.error(format!("{} bytes were written to {buffer:?}", bytes.len())));
        }
        let whole = bytes.len() & !3;
        self.scoped("upload", buffer.bytes(), |_| {
            let queue = &self.0.queue;
            if whole > 0 {
                queue.write_buffer(buffer.raw(), 0, &bytes[..whole]);
            }
            if whole < bytes.len() {
                let mut last = [0; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                queue.write_buffer(buffer.raw(), whole as u64, &last);
            }
        })?;
        self.0.uploads.fetch_add(1, Ordering::Relaxed);
        if self.0.pending_writes.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_PENDING_WRITES {
            self.0.pending_writes.store(0, Ordering::Relaxed);
            self.0.queue.submit([]);
        }
        Ok(())
    }

    /// What the buffers hold after everything submitted so far, in one readback for all of them.
    ///
    /// # Errors
    /// What the driver reports, also for earlier work that this call waits for.
    pub fn read(&self, buffers: &[&Buffer]) -> Result<Vec<Vec<u8>>> {
        let total: u64 = buffers.iter().map(|buffer| padded(buffer.bytes())).sum();
        if total == 0 {
            return self.check().map(|()| Vec::new());
        }
        self.0.readbacks.fetch_add(1, Ordering::Relaxed);
        let staging = self.staging(total)?;
        self.scoped("readback", total, |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut offset = 0;
            for buffer in buffers {
                let size = padded(buffer.bytes());
                encoder.copy_buffer_to_buffer(buffer.raw(), 0, &staging, offset, size);
                offset += size;
            }
            self.0.queue.submit([encoder.finish()]);
            self.0.pending_writes.store(0, Ordering::Relaxed);
        })?;
        let bytes = self.map(&staging)?;
        let mut offset = 0;
        Ok(buffers
            .iter()
            .map(|buffer| {
                let at = offset as usize;
                offset += padded(buffer.bytes());
                bytes[at..at + buffer.bytes() as usize].to_vec()
            })
            .collect())
    }

    /// A buffer that the host can map for reading.
    pub(super) fn staging(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.scoped("readback", bytes, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Waits for everything submitted and returns what a staging buffer holds then.
    pub(super) fn map(&self, staging: &wgpu::Buffer) -> Result<Vec<u8>> {
        let (tell, told) = mpsc::channel();
        // Nobody listens any more when this call has returned with an error.
        staging.map_async(wgpu::MapMode::Read, .., move |result| drop(tell.send(result)));
        // Another thread that polls may be the one that runs the callback, a moment after this one has waited.
        let outcome = loop {
            self.wait()?;
            match told.recv_timeout(Duration::from_millis(100)) {
                Ok(outcome) => break outcome,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.error("readback was given up")),
            }
        };
        outcome.map_err(|error| self.error(format!("readback failed: {error}")))?;
        let view = staging.get_mapped_range(..);
        let view = view.map_err(|error| self.error(format!("readback failed: {error}")))?;
        let bytes = view.to_vec();
        drop(view);
        staging.unmap();
        Ok(bytes)
    }
}
