//! Recording and submitting work: one compute pass a submission, and the same work under the clock.

use super::stamps::Stamps;
use super::{Buffer, Gpu, IN_FLIGHT, Pipeline, Readback, lock};
use crate::error::Result;
use crate::trace::Span;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Timestamps taken in one submission: a query set holds at most 4096.
const MAX_TIMED: usize = 2048;

/// A pipeline with its buffers bound and its grid: ready to be recorded any number of times.
pub struct Dispatch {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    /// Keeps the memory counted while it is bound.
    _buffers: Vec<Buffer>,
}

/// A compute pass being recorded. Dispatches run in the order they are recorded, each seeing what the ones before
/// it wrote.
pub struct Pass<'encoder> {
    pass: wgpu::ComputePass<'encoder>,
    dispatches: u64,
    /// Where the submission is traced.
    stamps: Option<Stamps>,
}

impl Pass<'_> {
    /// A part of the submission begins, as a trace shows it.
    pub fn part(&mut self, name: &'static str) {
        if let Some(stamps) = &mut self.stamps {
            stamps.part(&mut self.pass, name);
        }
    }

    /// Records a dispatch.
    pub fn dispatch(&mut self, dispatch: &Dispatch) {
        let [x, y, z] = dispatch.grid;
        if x == 0 || y == 0 || z == 0 {
            return;
        }
        self.pass.set_pipeline(&dispatch.pipeline.pipeline);
        self.pass.set_bind_group(0, &dispatch.group, &[]);
        self.pass.dispatch_workgroups(x, y, z);
        self.dispatches += 1;
    }
}

impl Gpu {
    /// Binds `buffers` (binding number, buffer) and `uniform` (binding 0, when the entry point uses it) to a
    /// pipeline, to be dispatched over `grid` workgroups.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the bindings are not what the entry point needs.
    pub fn bind(
        &self,
        pipeline: &Arc<Pipeline>,
        buffers: &[(u32, &Buffer)],
        uniform: &[u8],
        grid: [u32; 3],
    ) -> Result<Dispatch> {
        let label = pipeline.label.as_str();
        if let Some(axis) = grid.iter().position(|&count| count > self.summary().workgroups) {
            return Err(
                self.error(format!("{label}: {} workgroups along axis {axis} are too many", grid[axis]))
            );
        }
        let mut bound = Vec::new();
        for &binding in pipeline.bindings().iter().filter(|&&binding| binding > 0) {
            let buffer = buffers.iter().find(|(number, _)| *number == binding).map(|(_, buffer)| *buffer);
            let missing = || self.error(format!("{label}: nothing is bound to binding {binding}"));
            bound.push((binding, buffer.ok_or_else(missing)?));
        }
        let group = self.scoped(label, 0, |device| {
            let params = pipeline.bindings().contains(&0).then(|| {
                let size = uniform.len().next_multiple_of(16) as u64;
                let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: true,
                });
                if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
                    view.slice(..uniform.len()).copy_from_slice(uniform);
                }
                buffer.unmap();
                buffer
            });
            let mut entries: Vec<wgpu::BindGroupEntry<'_>> = bound
                .iter()
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding: *binding,
                    resource: buffer.raw().as_entire_binding(),
                })
                .collect();
            if let Some(params) = &params {
                entries.push(wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() });
            }
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        let buffers = bound.into_iter().map(|(_, buffer)| buffer.clone()).collect();
        Ok(Dispatch { pipeline: pipeline.clone(), group, grid, _buffers: buffers })
    }

    /// Records one compute pass and submits it. Returns without waiting for it, but waits for the submission three
    /// back, so that memory and the driver's queue stay bounded.
    ///
    /// # Errors
    /// What the driver reports: at once for what is recorded, from a later call for what goes wrong while it runs.
    pub fn submit(&self, encode: impl FnOnce(&mut Pass<'_>)) -> Result<()> {
        self.send(&[], encode).map(drop)
    }

    /// As [`Gpu::submit`]; what `buffers` hold after it comes back with the same submission, when it is there.
    ///
    /// # Errors
    /// As [`Gpu::submit`].
    pub fn submit_reading(
        &self,
        buffers: &[&Buffer],
        encode: impl FnOnce(&mut Pass<'_>),
    ) -> Result<Readback> {
        let made = self.send(buffers, encode)?;
        made.ok_or_else(|| self.error("a readback of no buffers"))
    }

    fn send(&self, buffers: &[&Buffer], encode: impl FnOnce(&mut Pass<'_>)) -> Result<Option<Readback>> {
        let trace = self.trace();
        let encoding = Span::new(trace.as_deref(), "encode");
        let (index, dispatches, readback) = self.scoped("submission", 0, |device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let (dispatches, stamps) = {
                let pass = encoder.begin_compute_pass(&Default::default());
                let mut pass = Pass { pass, dispatches: 0, stamps: self.stamps() };
                encode(&mut pass);
                if let Some(stamps) = &pass.stamps {
                    stamps.end(&mut pass.pass);
                }
                (pass.dispatches, pass.stamps)
            };
            let stamps = stamps.map(|stamps| stamps.resolve(self, &mut encoder)).transpose()?.flatten();
            let buffers: Vec<_> = buffers.iter().map(|buffer| (buffer.raw(), buffer.bytes())).collect();
            let readback = match &buffers[..] {
                [] => None,
                buffers => Some(Readback::record(self, &mut encoder, buffers)?),
            };
            let commands = encoder.finish();
            drop(encoding);
            let _handing_over = Span::new(trace.as_deref(), "submit");
            self.trace_submission(stamps)?;
            let index = self.0.queue.submit([commands]);
            self.trace_end_of_submission();
            Ok((index, dispatches, readback))
        })??;
        let _waiting = Span::new(trace.as_deref(), "wait for room in the queue");
        self.submitted(index, dispatches)?;
        Ok(readback)
    }

    /// Counts a submission and bounds the work under way.
    fn submitted(&self, index: wgpu::SubmissionIndex, dispatches: u64) -> Result<()> {
        self.0.pending_writes.store(0, Ordering::Relaxed);
        self.0.submissions.fetch_add(1, Ordering::Relaxed);
        self.0.dispatches.fetch_add(dispatches, Ordering::Relaxed);
        let oldest = {
            let mut under_way = lock(&self.0.under_way);
            under_way.push_back(index);
            if under_way.len() > IN_FLIGHT { under_way.pop_front() } else { None }
        };
        match oldest {
            Some(index) => self.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None }),
            None => Ok(()),
        }
    }

    /// Runs `encode(0)`, ..., `encode(count - 1)` in order and returns the time each took on the device, by
    /// timestamps within one pass where the adapter has them, around a pass each where it has only those, and by
    /// the host's clock around a submission each where it has neither.
    ///
    /// # Errors
    /// As [`Gpu::submit`] and [`Gpu::read`].
    pub fn timed(&self, count: usize, encode: impl Fn(usize, &mut Pass<'_>)) -> Result<Vec<Duration>> {
        let features = self.0.device.features();
        let mut times = Vec::with_capacity(count);
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            for i in 0..count {
                self.wait()?;
                let start = Instant::now();
                self.submit(|pass| encode(i, pass))?;
                self.wait()?;
                times.push(start.elapsed());
            }
            return Ok(times);
        }
        let inside = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        for first in (0..count).step_by(MAX_TIMED) {
            let some = MAX_TIMED.min(count - first);
            self.timed_chunk(inside, first..first + some, &encode, &mut times)?;
        }
        Ok(times)
    }

    /// Times some launches in one submission: timestamps `2i` and `2i + 1` enclose the i-th.
    fn timed_chunk(
        &self,
        inside: bool,
        launches: std::ops::Range<usize>,
        encode: &impl Fn(usize, &mut Pass<'_>),
        times: &mut Vec<Duration>,
    ) -> Result<()> {
        let queries = 2 * launches.len() as u32;
        let bytes = 8 * u64::from(queries);
        let staging = self.staging(bytes)?;
        let (index, dispatches) = self.scoped("timed submission", bytes, |device| {
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: queries,
            });
            let resolved = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut dispatches = 0;
            if inside {
                let mut pass = Pass {
                    pass: encoder.begin_compute_pass(&Default::default()),
                    dispatches: 0,
                    stamps: None,
                };
                for (i, launch) in launches.clone().enumerate() {
                    pass.pass.write_timestamp(&set, 2 * i as u32);
                    encode(launch, &mut pass);
                    pass.pass.write_timestamp(&set, 2 * i as u32 + 1);
                }
                dispatches += pass.dispatches;
            } else {
                for (i, launch) in launches.clone().enumerate() {
                    let descriptor = wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                            query_set: &set,
                            beginning_of_pass_write_index: Some(2 * i as u32),
                            end_of_pass_write_index: Some(2 * i as u32 + 1),
                        }),
                    };
                    let mut pass =
                        Pass { pass: encoder.begin_compute_pass(&descriptor), dispatches: 0, stamps: None };
                    encode(launch, &mut pass);
                    dispatches += pass.dispatches;
                }
            }
            encoder.resolve_query_set(&set, 0..queries, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
            (self.0.queue.submit([encoder.finish()]), dispatches)
        })?;
        self.submitted(index, dispatches)?;
        let ticks = self.map(&staging)?;
        let nanoseconds = f64::from(self.0.queue.get_timestamp_period());
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&ticks);
        times.extend(ticks.chunks_exact(2).map(|pair| {
            Duration::from_secs_f64(pair[1].saturating_sub(pair[0]) as f64 * nanoseconds * 1e-9)
        }));
        Ok(())
    }
}
