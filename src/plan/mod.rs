//! Compiling tapes: launches in order, memory placed, kernels chosen, everything a run needs made once.
//!
//! [`Schedule`] is the device-free part (what will be launched, how many bytes it takes), [`Plan`] the part that is
//! bound to a device and its tensors, [`Program`] plans and repeats of plans run as one submission.

mod group;
mod half;
mod lower;
mod memory;
mod order;
mod program;

pub use half::Precision;
pub use lower::TensorUse;
pub use memory::Slot;
pub use program::{Program, Step, Timing};

use crate::cpu::{self, Executor};
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::kernels::{self, Compiled};
use crate::launch::{self, Kernel, Launch, PerRow, Place};
use crate::shape::DType;
use crate::tape::{Op, Tape};
use crate::tensor::{self, Host, Storage, Store, Tensor};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// What a plan will do, before any device is asked for anything.
pub struct Schedule {
    /// The launches, in order.
    pub launches: Vec<Launch>,
    /// How many of them, at the front, are frozen: they depend only on tensors that the plan does not write and on
    /// each other, so that a repeat runs them once. The others never overwrite what they read of them.
    pub prologue: usize,
    /// For each launch, where in the network it comes from; a trailing ' marks gradients.
    pub scopes: Vec<Rc<str>>,
    /// The named tensors it reads or writes; [`Place::Tensor`] counts in these.
    pub tensors: Vec<TensorUse>,
    /// Its temporary memory; [`Place::Slot`] counts in these.
    pub slots: Vec<Slot>,
}

/// How a tape is lowered.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Elementwise ops join the launch that makes their argument; without, each op is its own launch (to hold the
    /// fused plan against).
    pub fuse: bool,
    /// What products are computed in, and values between them kept in.
    pub precision: Precision,
}

impl Default for Options {
    /// Fused, f32.
    fn default() -> Options {
        Options { fuse: true, precision: Precision::F32 }
    }
}

impl Schedule {
    /// Lowers a tape in f32; `fuse` as in [`Options`].
    ///
    /// # Errors
    /// As [`Schedule::with`].
    pub fn new(tape: &Tape, fuse: bool) -> Result<Schedule> {
        Schedule::with(tape, Options { fuse, ..Options::default() })
    }

    /// Lowers a tape. Everything the tape's assignments need is kept.
    ///
    /// # Errors
    /// The tape's first shape error; [`Error::Tensor`] for a value assigned to a tensor that the tape reads in another
    /// shape; [`Error::Unsupported`] for a copy of integers.
    pub fn with(tape: &Tape, options: Options) -> Result<Schedule> {
        tape.check()?;
        check_assignments(tape)?;
        let mut lowered = lower::lower(tape, options.fuse);
        if options.precision == Precision::F16 {
            half::halve(&mut lowered);
        }
        let (places, slots) = memory::place(&lowered.groups, lowered.prologue);
        let place_of = |base| match base {
            group::Base::Group(group) => places[group],
            group::Base::Tensor(tensor) => Place::Tensor(tensor),
        };
        let is_half = |base| matches!(base, group::Base::Group(g) if lowered.groups[g].dtype == DType::F16);
        let is_mask = |base| matches!(base, group::Base::Group(g) if matches!(lowered.groups[g].kernel, Kernel::Mask { .. }));
        let mut launches = Vec::with_capacity(places.len());
        let mut scopes = Vec::with_capacity(places.len());
        let mut also = Vec::new();
        for (group, &output) in lowered.groups.iter().zip(&places) {
            if group.with.is_some() {
                also.extend(PerRow::of(&group.kernel).map(|what| (what, output)));
                continue;
            }
            if !matches!(group.dtype, DType::F32 | DType::F16) && matches!(group.kernel, Kernel::Map { .. }) {
                return Err(Error::Unsupported(format!(
                    "a tensor of {} {} cannot be copied to another: only floats can be assigned from a tensor",
                    group.dtype, group.shape
                )));
            }
            let also = std::mem::take(&mut also);
            launches.push(group::launch(group, output, also, place_of, is_half, is_mask));
            scopes.push(group.scope.clone());
        }
        Ok(Schedule { launches, prologue: lowered.prologue, scopes, tensors: lowered.tensors, slots })
    }

    /// Whether a buffer stays as it is over all the repeats of [`Step::Repeat`].
    pub fn frozen(&self, place: Place) -> bool {
        launch::is_frozen(&self.launches, self.prologue, place)
    }

    /// Launches that `times` runs in a row take: the prologue once, the others each time.
    pub fn launch_count(&self, times: usize) -> usize {
        let prologue = if times == 0 { 0 } else { self.prologue };
        prologue + times * (self.launches.len() - self.prologue)
    }

    /// Type and elements of each slot on a device: executors on the CPU keep all floats in their own type.
    fn slot_sizes(&self, device: &Device) -> Vec<(DType, usize)> {
        let dtype = |slot: &Slot| match slot.dtype {
            DType::F16 if !device.is_gpu() => DType::F32,
            dtype => dtype,
        };
        self.slots.iter().map(|slot| (dtype(slot), slot.len)).collect()
    }

    /// Bytes of temporaries (on a GPU: executors on the CPU have no halves).
    pub fn temporary_bytes(&self) -> u64 {
        self.slots.iter().map(|slot| slot.dtype.buffer_bytes(slot.len)).sum()
    }

    /// Bytes of the tensors it names that `store` does not hold yet.
    pub fn new_tensor_bytes(&self, store: &Store) -> u64 {
        let missing = self.tensors.iter().filter(|tensor| store.get(&tensor.name).is_none());
        missing.map(|tensor| tensor.dtype.buffer_bytes(tensor.shape.len())).sum()
    }

    /// Floating-point operations of the products of a run.
    pub fn flops(&self) -> u64 {
        self.flops_of(1)
    }

    /// Floating-point operations of the products that `times` runs in a row take: the prologue's once.
    pub fn flops_of(&self, times: usize) -> u64 {
        let of = |launches: &[Launch]| launches.iter().map(|launch| launch.kernel.flops()).sum::<u64>();
        let (once, each) = self.launches.split_at(self.prologue);
        if times == 0 { 0 } else { of(once) + times as u64 * of(each) }
    }

    fn place_name(&self, place: Place) -> String {
        match place {
            Place::Slot(slot) if self.slots[slot].dtype == DType::F16 => format!("h{slot}"),
            Place::Slot(slot) => format!("t{slot}"),
            Place::Tensor(tensor) => self.tensors[tensor].name.clone(),
        }
    }

    fn len_of(&self, place: Place, launch: &Launch) -> usize {
        match place {
            Place::Tensor(tensor) => self.tensors[tensor].shape.len(),
            place if place == launch.output => launch.shape.len(),
            Place::Slot(slot) => self.slots[slot].len,
        }
    }

    /// Bytes a launch reads and writes when each buffer is touched once (a slot counts at its full size; of a table
    /// that rows are gathered from, those rows).
    pub fn bytes(&self, launch: &Launch) -> u64 {
        let operands = launch.operands();
        let reads = launch.inputs.iter().chain(operands.iter().map(|(place, _)| place));
        let bytes_of = |&place: &Place| match (&launch.kernel, place) {
            (Kernel::GatherRows { from, .. }, place) if Some(&place) == launch.inputs.first() => {
                launch.shape.len() * from.bytes()
            }
            (Kernel::Augment { .. }, place) if Some(&place) == launch.inputs.first() => launch.shape.len(),
            (_, Place::Tensor(tensor)) => self.len_of(place, launch) * self.tensors[tensor].dtype.bytes(),
            (_, Place::Slot(slot)) => self.slots[slot].dtype.bytes() * self.len_of(place, launch),
        };
        let read: usize = reads.map(bytes_of).sum();
        let beside = launch.kernel.gives_per_row().unwrap_or(0) * launch.also.len() * DType::F32.bytes();
        let written =
            launch.dtype.bytes() * launch.shape.len() * (1 + usize::from(launch.updates_in_place())) + beside;
        (read + written) as u64
    }
}

impl AsRef<[Schedule]> for Schedule {
    fn as_ref(&self) -> &[Schedule] {
        std::slice::from_ref(self)
    }
}

impl fmt::Display for Schedule {
    /// A launch a line: number, scope, what it writes, kernel with its stages, what it reads, shape, bytes read and
    /// written, million floating-point operations. `t0`, `t1`, ... are temporaries, `h0`, ... those that hold f16.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.scopes.iter().map(|scope| scope.len()).max().unwrap_or(0).max(5);
        for (index, (launch, scope)) in self.launches.iter().zip(&self.scopes).enumerate() {
            if index == self.prologue && index > 0 {
                writeln!(f, "    (once a repeat until here)")?;
            }
            let mut reads: Vec<String> = launch.inputs.iter().map(|&place| self.place_name(place)).collect();
            reads.extend(launch.operands().iter().map(|(place, _)| self.place_name(*place)));
            let update = if launch.updates_in_place() { "+=" } else { "=" };
            let mut output = self.place_name(launch.output);
            for &(what, place) in &launch.also {
                output.push_str(&format!(", {} {}", what.name(), self.place_name(place)));
            }
            write!(f, "{index:3} {scope:width$}  {output} {update} {launch} ({})", reads.join(", "))?;
            write!(f, "  {}  {:.1} kB", launch.shape, self.bytes(launch) as f64 / 1e3)?;
            match launch.kernel.flops() {
                0 => writeln!(f)?,
                flops => writeln!(f, "  {:.2} MFLOP", flops as f64 / 1e6)?,
            }
        }
        Ok(())
    }
}

enum Backend {
    F32(RefCell<Executor<f32>>),
    F64(RefCell<Executor<f64>>),
    Gpu(Box<Compiled>),
}

/// A compiled tape, bound to the tensors of a store.
pub struct Plan {
    schedule: Schedule,
    device: Device,
    /// Shared with the other plans of the store and thread.
    slots: Vec<Arc<Tensor>>,
    tensors: Vec<Tensor>,
    backend: Backend,
    /// Bytes it shares with no other plan, scratch memory of a GPU's kernels or packed filters; the store counts them
    /// while it is there.
    own: Arc<u64>,
}

impl Plan {
    /// Compiles a tape against a store: named tensors that the store lacks are made (zero-filled).
    ///
    /// # Errors
    /// A shape error of the tape; a name in use with another shape; [`Error::OutOfMemory`], decided before anything
    /// is allocated; an error of the device.
    pub fn compile(tape: &Tape, store: &Store) -> Result<Plan> {
        Plan::of(Schedule::new(tape, true)?, store)
    }

    /// As [`Plan::compile`] with each op its own launch.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile_unfused(tape: &Tape, store: &Store) -> Result<Plan> {
        Plan::of(Schedule::new(tape, false)?, store)
    }

    /// Binds a schedule to a store.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn of(schedule: Schedule, store: &Store) -> Result<Plan> {
        let device = store.device().clone();
        fits(schedule.as_ref(), store)?;
        let mut tensors = Vec::new();
        for tensor in &schedule.tensors {
            tensors.push(store.ensure(&tensor.name, tensor.shape, tensor.dtype)?);
            if let Some(value) = tensor.constant {
                store.write(&tensor.name, &Host::F64(vec![value]))?;
            }
        }
        let slots = store.temporaries(&schedule.slot_sizes(&device))?;
        let of_slots = || slots.iter().map(|slot| &**slot);
        let backend = match &device.kind {
            Kind::Cpu => Backend::F32(RefCell::new(Executor::new(
                schedule.launches.clone(),
                schedule.prologue,
                buffers(of_slots(), |s| if let Storage::F32(b) = s { Some(b.clone()) } else { None }),
                buffers(&tensors, |s| if let Storage::F32(b) = s { Some(b.clone()) } else { None }),
                store.workspace(),
            ))),
            Kind::Reference => Backend::F64(RefCell::new(Executor::new(
                schedule.launches.clone(),
                schedule.prologue,
                buffers(of_slots(), |s| if let Storage::F64(b) = s { Some(b.clone()) } else { None }),
                buffers(&tensors, |s| if let Storage::F64(b) = s { Some(b.clone()) } else { None }),
                store.workspace(),
            ))),
            Kind::Gpu(gpu) => {
                let of = |s: &Storage| if let Storage::Gpu(b) = s { Some(b.clone()) } else { None };
                let (slots, tensors) = (buffers(of_slots(), of), buffers(&tensors, of));
                let (launches, prologue) = (&schedule.launches, schedule.prologue);
                let compiled = match device.tuner() {
                    None => Compiled::new(gpu, launches, prologue, &slots, &tensors)?,
                    Some(tuner) => {
                        let calls = tuner.choose(gpu, launches, |place| match place {
                            Place::Slot(slot) => slots[slot].bytes(),
                            Place::Tensor(tensor) => tensors[tensor].bytes(),
                        })?;
                        Compiled::with_calls(gpu, launches, &calls, prologue, &slots, &tensors)?
                    }
                };
                Backend::Gpu(Box::new(compiled))
            }
        };
        let own = store.count(match &backend {
            Backend::Gpu(compiled) => compiled.scratch_bytes(),
            Backend::F32(_) => cpu::packed_bytes(&schedule.launches),
            Backend::F64(_) => 0,
        });
        Ok(Plan { schedule, device, slots, tensors, backend, own })
    }

    /// Its launches, tensors and slots.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Bytes of its temporaries, which it shares with other plans of its store: see [`Store::temporary_bytes`].
    pub fn temporary_bytes(&self) -> u64 {
        let sizes = self.schedule.slot_sizes(&self.device);
        sizes.into_iter().map(|(dtype, len)| dtype.buffer_bytes(len)).sum()
    }

    /// Bytes a run needs beside the tensors: temporaries, scratch memory, packed filters.
    pub fn bytes(&self) -> u64 {
        let launches = &self.schedule.launches;
        let scratch = match &self.device.kind {
            Kind::Cpu => cpu::scratch_bytes::<f32>(launches),
            Kind::Reference => cpu::scratch_bytes::<f64>(launches),
            Kind::Gpu(_) => 0,
        };
        self.temporary_bytes() + scratch + *self.own
    }

    /// Runs it once: one submission.
    ///
    /// # Errors
    /// Of the device.
    pub fn run(&self) -> Result<()> {
        Program::new(vec![Step::Run(self)]).run()
    }

    /// What a launch wrote, read back.
    fn output(&self, launch: usize) -> Result<Host> {
        let launch = &self.schedule.launches[launch];
        let tensor = match launch.output {
            Place::Slot(slot) => &*self.slots[slot],
            Place::Tensor(tensor) => &self.tensors[tensor],
        };
        // A slot may be larger than this value.
        let mut host = tensor::read(&self.device, std::slice::from_ref(tensor))?.remove(0);
        match &mut host {
            Host::F32(v) => v.truncate(launch.shape.len()),
            Host::F64(v) => v.truncate(launch.shape.len()),
            Host::U32(v) => v.truncate(launch.shape.len()),
            Host::U8(v) => v.truncate(launch.shape.len()),
        }
        Ok(host)
    }

    /// A launch's number, kernel and place in the network, for people.
    fn launch_name(&self, index: usize) -> String {
        let (launch, scope) = (&self.schedule.launches[index], &self.schedule.scopes[index]);
        let at = if scope.is_empty() { String::new() } else { format!(" at {scope}") };
        format!("{launch} {}{at}", launch.shape)
    }
}

fn buffers<'a, B>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    of: impl Fn(&Storage) -> Option<B>,
) -> Vec<B> {
    tensors
        .into_iter()
        .map(|tensor| of(&tensor.storage).expect("a store's tensors are on its device"))
        .collect()
}

/// That no tensor is read in one shape and written in another.
fn check_assignments(tape: &Tape) -> Result<()> {
    let nodes = tape.nodes();
    for (name, id) in tape.assignments() {
        let read = nodes.iter().find(|node| matches!(&node.op, Op::Source { name: have } if *have == name));
        if let Some(read) = read
            && (read.shape, read.dtype) != (nodes[id].shape, nodes[id].dtype)
        {
            return Err(Error::Tensor {
                name,
                have: format!("{} {}", read.dtype, read.shape),
                want: format!("{} {} (it is assigned such a value)", nodes[id].dtype, nodes[id].shape),
            });
        }
    }
    Ok(())
}

/// Whether compiling all of these, in this order, against `store` fits what its device has left: their temporaries
/// (which they share with each other and with the plans there are), the tensors that the store does not hold yet, and
/// their kernels' scratch memory.
///
/// # Errors
/// [`Error::OutOfMemory`] where it does not.
pub fn fits(schedules: &[Schedule], store: &Store) -> Result<()> {
    let device = store.device();
    let available = match &device.kind {
        Kind::Gpu(gpu) => gpu.memory_budget().saturating_sub(gpu.memory_used()),
        _ => device.memory_left(store.bytes() + store.temporary_bytes()),
    };
    fits_in(schedules, store, available)
}

/// As [`fits`], with so many bytes left.
fn fits_in(schedules: &[Schedule], store: &Store, available: u64) -> Result<()> {
    let device = store.device();
    let largest_buffer = match &device.kind {
        Kind::Gpu(gpu) => gpu.max_buffer(),
        _ => u64::MAX,
    };
    let mut new = BTreeMap::new();
    let (mut temporaries, mut scratch, mut largest) = (0, 0, 0);
    let mut at_hand = store.temporary_sizes();
    for schedule in schedules {
        let wanted = schedule.slot_sizes(device);
        let shared = tensor::share(&at_hand, &wanted);
        for (size, _) in wanted.into_iter().zip(shared).filter(|(_, shared)| shared.is_none()) {
            temporaries += size.0.buffer_bytes(size.1);
            at_hand.push(size);
        }
        match &device.kind {
            Kind::Gpu(gpu) => {
                temporaries += match device.tuner() {
                    None => kernels::scratch_bytes(&schedule.launches, &kernels::Target::of(gpu))?,
                    Some(tuner) => tuner.scratch_bytes(&schedule.launches)?,
                };
            }
            Kind::Cpu => {
                scratch = cpu::scratch_bytes::<f32>(&schedule.launches).max(scratch);
                temporaries += cpu::packed_bytes(&schedule.launches);
            }
            Kind::Reference => scratch = cpu::scratch_bytes::<f64>(&schedule.launches).max(scratch),
        }
        let missing = schedule.tensors.iter().filter(|tensor| store.get(&tensor.name).is_none());
        new.extend(missing.map(|t| (t.name.as_str(), t.dtype.buffer_bytes(t.shape.len()))));
        let slots = schedule.slot_sizes(device).into_iter().map(|(dtype, len)| dtype.buffer_bytes(len));
        largest = slots.chain(new.values().copied()).max().unwrap_or(0).max(largest);
    }
    let scratch = scratch.saturating_sub(store.workspace().bytes());
    let needed = temporaries + scratch + new.values().sum::<u64>();
    let (what, needed, available) = match () {
        () if needed > available => ("the plan", needed, available),
        () if largest > largest_buffer => ("the plan's largest tensor", largest, largest_buffer),
        () => return Ok(()),
    };
    let (what, device) = (what.to_string(), device.describe());
    Err(Error::OutOfMemory { what, needed, available, device, hint: String::new() })
}

/// A batch, at most `wanted`, whose plans together fit what the store's device has left, while those of the next
/// larger one do not; `None` if not even one image fits. `record` records the plans for a batch.
///
/// The CPU's executors share the machine's memory with everything else: where no budget is set, more than one image take
/// half of what is left at most. One may take all.
pub fn largest_batch<S: AsRef<[Schedule]>>(
    store: &Store,
    wanted: usize,
    record: impl Fn(usize) -> Result<S>,
) -> Option<usize> {
    let Some(left) = store.device().shared_memory_left() else { return last_batch(store, wanted, record) };
    let good = |batch: usize, most: u64| {
        record(batch).and_then(|schedules| fits_in(schedules.as_ref(), store, most)).is_ok()
    };
    largest(wanted, |batch| good(batch, if batch == 1 { left } else { left / 2 }))
}

/// As [`largest_batch`], with all that is left, as [`fits`] counts: the last batch that is not refused.
pub fn last_batch<S: AsRef<[Schedule]>>(
    store: &Store,
    wanted: usize,
    record: impl Fn(usize) -> Result<S>,
) -> Option<usize> {
    largest(wanted, |batch| record(batch).and_then(|schedules| fits(schedules.as_ref(), store)).is_ok())
}

/// The largest number up to `wanted` that is good, where all below a good one are.
fn largest(wanted: usize, good: impl Fn(usize) -> bool) -> Option<usize> {
    if wanted == 0 || !good(1) {
        return None;
    }
    if good(wanted) {
        return Some(wanted);
    }
    let (mut fit, mut over) = (1, wanted);
    while over - fit > 1 {
        let middle = fit + (over - fit) / 2;
        if good(middle) {
            fit = middle;
        } else {
            over = middle;
        }
    }
    Some(fit)
}
