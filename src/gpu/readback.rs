//! Values that come back some submissions later, without a wait: a ring of buffers that the host can map.
//!
//! The copy into such a buffer and its mapping are part of the submission that makes the values. A buffer goes back
//! into the ring when its values were taken, so there are as many as there are submissions under way.

use super::memory::padded;
use super::{Gpu, lock};
use crate::error::Result;
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// A buffer of the ring: its size in bytes, and the buffer.
pub(super) type Staging = (u64, wgpu::Buffer);

/// Values under way from the device.
pub struct Readback {
    gpu: Gpu,
    /// Bytes of each buffer that was asked for.
    sizes: Vec<u64>,
    /// Empty once the values were taken.
    staging: Option<Staging>,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    /// Has what `buffers` hold in their first bytes when `encoder`'s commands have run copied and mapped.
    pub(super) fn record(
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[(&wgpu::Buffer, u64)],
    ) -> Result<Readback> {
        let sizes: Vec<u64> = buffers.iter().map(|(_, bytes)| *bytes).collect();
        let total = sizes.iter().map(|&bytes| padded(bytes)).sum();
        let free = {
            let mut ring = lock(&gpu.0.ring);
            let found = ring.iter().position(|(bytes, _)| *bytes == total);
            found.map(|at| ring.swap_remove(at))
        };
        let staging = match free {
            Some(staging) => staging,
            None => (total, gpu.staging(total)?),
        };
        let mut offset = 0;
        for (buffer, bytes) in buffers {
            encoder.copy_buffer_to_buffer(buffer, 0, &staging.1, offset, padded(*bytes));
            offset += padded(*bytes);
        }
        let (tell, mapped) = mpsc::channel();
        // Nobody listens any more when the readback was dropped.
        encoder.map_buffer_on_submit(&staging.1, wgpu::MapMode::Read, .., move |r| drop(tell.send(r)));
        Ok(Readback { gpu: gpu.clone(), sizes, staging: Some(staging), mapped })
    }

    /// The values, if they are there: the bytes of each buffer. It never waits, and gives them once.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub fn take(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        if self.staging.is_none() {
            return Ok(None);
        }
        let told = match self.mapped.try_recv() {
            Err(TryRecvError::Empty) => {
                self.gpu.poll(wgpu::PollType::Poll)?;
                self.mapped.try_recv()
            }
            told => told,
        };
        let failed = |why: String| self.gpu.error(format!("readback failed: {why}"));
        match told {
            Ok(Ok(())) => {}
            Err(TryRecvError::Empty) => return self.gpu.check().map(|()| None),
            Ok(Err(error)) => {
                return Err(self.gpu.check().err().unwrap_or_else(|| failed(error.to_string())));
            }
            Err(TryRecvError::Disconnected) => {
                return Err(self.gpu.check().err().unwrap_or_else(|| failed("it was given up".into())));
            }
        }
        let Some(staging) = self.staging.take() else { return Ok(None) };
        let view = staging.1.get_mapped_range(..).map_err(|error| failed(error.to_string()))?;
        let mut offset = 0;
        let values = self.sizes.iter().map(|&bytes| {
            let at = offset as usize;
            offset += padded(bytes);
            view[at..at + bytes as usize].to_vec()
        });
        let values = values.collect();
        drop(view);
        staging.1.unmap();
        lock(&self.gpu.0.ring).push(staging);
        Ok(Some(values))
    }

    /// The values, waited for; none if they were taken before.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub fn wait(mut self) -> Result<Vec<Vec<u8>>> {
        while self.staging.is_some() {
            if let Some(values) = self.take()? {
                return Ok(values);
            }
            self.gpu.wait()?;
        }
        Ok(Vec::new())
    }
}
