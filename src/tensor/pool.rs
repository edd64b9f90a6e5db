//! Temporary memory that the plans of a store share.

use super::{Tensor, allocate};
use crate::cpu;
use crate::device::Device;
use crate::error::Result;
use crate::shape::{DType, Shape};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

/// Temporaries in use by plans. A plan does not leave its thread and runs to its end before another begins, and
/// nothing in a temporary outlives a run (or a repeat), so that plans of one store and thread work in the same memory.
#[derive(Default)]
pub(super) struct Pool {
    buffers: Vec<(ThreadId, Weak<Tensor>)>,
    scratch: Vec<(ThreadId, cpu::Workspace)>,
    /// Bytes that single plans have for themselves.
    own: Vec<Weak<u64>>,
}

impl Pool {
    fn live(&self) -> impl Iterator<Item = (ThreadId, Arc<Tensor>)> + '_ {
        self.buffers.iter().filter_map(|(thread, buffer)| Some((*thread, buffer.upgrade()?)))
    }

    /// The temporaries that a plan of this thread may use.
    fn at_hand(&self) -> Vec<Arc<Tensor>> {
        let here = thread::current().id();
        self.live().filter(|(thread, _)| *thread == here).map(|(_, buffer)| buffer).collect()
    }

    /// Type and elements of [`Pool::at_hand`].
    pub(super) fn sizes(&self) -> Vec<(DType, usize)> {
        self.at_hand().iter().map(|buffer| (buffer.dtype, buffer.shape.len())).collect()
    }

    /// A temporary of at least each of these sizes: those at hand first.
    pub(super) fn take(&mut self, device: &Device, wanted: &[(DType, usize)]) -> Result<Vec<Arc<Tensor>>> {
        self.buffers.retain(|(_, buffer)| buffer.strong_count() > 0);
        let have = self.at_hand();
        let shared = share(&self.sizes(), wanted);
        let mut taken = Vec::with_capacity(wanted.len());
        for (index, (&(dtype, len), shared)) in wanted.iter().zip(shared).enumerate() {
            taken.push(match shared {
                Some(at) => have[at].clone(),
                None => {
                    let storage = allocate(device, dtype, len, &format!("temporary t{index}"))?;
                    let buffer = Arc::new(Tensor { shape: Shape::new(&[len]), dtype, storage });
                    self.buffers.push((thread::current().id(), Arc::downgrade(&buffer)));
                    buffer
                }
            });
        }
        Ok(taken)
    }

    /// Scratch memory of the CPU executors of this thread.
    pub(super) fn workspace(&mut self) -> cpu::Workspace {
        let here = thread::current().id();
        match self.scratch.iter().find(|(thread, _)| *thread == here) {
            Some((_, workspace)) => workspace.clone(),
            None => {
                let workspace = cpu::Workspace::default();
                self.scratch.push((here, workspace.clone()));
                workspace
            }
        }
    }

    /// Counts bytes that a plan does not share, for as long as it holds what this returns.
    pub(super) fn count(&mut self, bytes: u64) -> Arc<u64> {
        let bytes = Arc::new(bytes);
        self.own.retain(|own| own.strong_count() > 0);
        self.own.push(Arc::downgrade(&bytes));
        bytes
    }

    /// Bytes of all of it, whichever thread uses it.
    pub(super) fn bytes(&self) -> u64 {
        let buffers: u64 = self.live().map(|(_, buffer)| buffer.dtype.buffer_bytes(buffer.shape.len())).sum();
        let scratch: u64 = self.scratch.iter().map(|(_, workspace)| workspace.bytes()).sum();
        buffers + scratch + self.own.iter().filter_map(Weak::upgrade).map(|bytes| *bytes).sum::<u64>()
    }
}

/// For each buffer wanted, which of those at hand it shares: the smallest that is large enough, each given once, the
/// largest wanted first.
pub(crate) fn share(have: &[(DType, usize)], wanted: &[(DType, usize)]) -> Vec<Option<usize>> {
    let mut given = vec![false; have.len()];
    let mut shared = vec![None; wanted.len()];
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(wanted[at].1));
    for at in order {
        let (dtype, len) = wanted[at];
        let fits = |&free: &usize| !given[free] && have[free].0 == dtype && have[free].1 >= len;
        shared[at] = (0..have.len()).filter(fits).min_by_key(|&free| have[free].1);
        if let Some(found) = shared[at] {
            given[found] = true;
        }
    }
    shared
}
