//! Tracing submissions: when each was handed over and seen to end, and when its parts ran by the device's clock.

use super::{Gpu, Readback, lock};
use crate::error::Result;
use crate::trace::{Event, Trace};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most parts of a submission that are told apart; what follows counts into the last.
const PARTS: u32 = 32;

/// A trace under way.
pub(super) struct Tracing {
    trace: Arc<Trace>,
    /// Submissions traced so far.
    count: u64,
    /// Their timestamps on the way: the submission's number, its parts' names, when they began and the last ended.
    pending: VecDeque<(u64, Vec<&'static str>, Readback)>,
}

/// The timestamps of a submission that is being recorded: one as each part begins, one at the end.
pub(super) struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    pub(super) names: Vec<&'static str>,
}

impl Stamps {
    fn new(device: &wgpu::Device) -> Stamps {
        Stamps {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: PARTS + 1,
            }),
            resolved: device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 8 * u64::from(PARTS + 1),
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            names: Vec::new(),
        }
    }

    /// A part begins.
    pub(super) fn part(&mut self, pass: &mut wgpu::ComputePass<'_>, name: &'static str) {
        if self.names.len() < PARTS as usize {
            pass.write_timestamp(&self.set, self.names.len() as u32);
            self.names.push(name);
        }
    }

    /// The last part ended.
    pub(super) fn end(&self, pass: &mut wgpu::ComputePass<'_>) {
        if !self.names.is_empty() {
            pass.write_timestamp(&self.set, self.names.len() as u32);
        }
    }

    /// Has the timestamps brought to the host with the submission.
    pub(super) fn resolve(
        self,
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<Option<(Vec<&'static str>, Readback)>> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let count = self.names.len() as u32 + 1;
        encoder.resolve_query_set(&self.set, 0..count, &self.resolved, 0);
        let readback = Readback::record(gpu, encoder, &[(&self.resolved, 8 * u64::from(count))])?;
        Ok(Some((self.names, readback)))
    }
}

impl Gpu {
    /// Records every submission from now on.
    pub fn start_trace(&self, trace: &Arc<Trace>) {
        *lock(&self.0.tracing) = Some(Tracing { trace: trace.clone(), count: 0, pending: VecDeque::new() });
    }

    /// Waits until everything submitted has run, and records no more.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn end_trace(&self) -> Result<()> {
        self.wait()?;
        self.collect_stamps()?;
        *lock(&self.0.tracing) = None;
        Ok(())
    }

    /// The trace, while there is one.
    pub(super) fn trace(&self) -> Option<Arc<Trace>> {
        lock(&self.0.tracing).as_ref().map(|tracing| tracing.trace.clone())
    }

    /// Room for the timestamps of a submission, where there is a trace and the adapter has timestamps within a pass.
    pub(super) fn stamps(&self) -> Option<Stamps> {
        let device = &self.0.device;
        let can = device.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        (can && lock(&self.0.tracing).is_some()).then(|| Stamps::new(device))
    }

    /// A submission is about to be handed over. What ended before is seen first, so that the order of the events says
    /// whether the device had run dry.
    pub(super) fn trace_submission(&self, stamps: Option<(Vec<&'static str>, Readback)>) -> Result<()> {
        if lock(&self.0.tracing).is_none() {
            return Ok(());
        }
        self.poll(wgpu::PollType::Poll)?;
        self.collect_stamps()?;
        if let Some(tracing) = &mut *lock(&self.0.tracing) {
            let submission = tracing.count;
            tracing.count += 1;
            tracing.trace.push(Event::Submitted { submission, at: tracing.trace.now() });
            tracing.pending.extend(stamps.map(|(names, readback)| (submission, names, readback)));
        }
        Ok(())
    }

    /// Has it recorded when the submission that was just handed over is seen to have run.
    pub(super) fn trace_end_of_submission(&self) {
        if let Some(Tracing { trace, count, .. }) = &*lock(&self.0.tracing) {
            let (trace, submission) = (trace.clone(), count - 1);
            let seen = move || trace.push(Event::Done { submission, at: trace.now() });
            self.0.queue.on_submitted_work_done(seen);
        }
    }

    /// Records the timestamps that have come back.
    fn collect_stamps(&self) -> Result<()> {
        let period = f64::from(self.0.queue.get_timestamp_period()) * 1e-9;
        loop {
            let Some((submission, names, mut readback)) =
                lock(&self.0.tracing).as_mut().and_then(|tracing| tracing.pending.pop_front())
            else {
                return Ok(());
            };
            // Taking polls the device, whose callbacks record events: no lock may be held meanwhile.
            let values = readback.take()?;
            let mut tracing = lock(&self.0.tracing);
            let Some(tracing) = &mut *tracing else { return Ok(()) };
            let Some(values) = values else {
                tracing.pending.push_front((submission, names, readback));
                return Ok(());
            };
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&values[0]);
            for (name, pair) in names.into_iter().zip(ticks.windows(2)) {
                let [start, end] = [pair[0], pair[1]].map(|ticks| ticks as f64 * period);
                tracing.trace.push(Event::Device { submission, name, start, end });
            }
        }
    }
}
