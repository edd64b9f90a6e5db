//! What a step learns from, known to the device before the epoch begins.
//!
//! The order of an epoch's examples, its learning rates and its radii are functions of the recipe: they are uploaded
//! once an epoch as tables with a row a step. Every step's program begins by taking its row of each and ends by
//! counting on, so that nothing goes to the device between two steps, and the host may be as many steps ahead as it
//! likes. Counting is a look-up too: integers are moved on a device, never calculated with.
//!
//! Several steps as one submission, which this would allow, would gain nothing: with submissions waiting in its queue,
//! software Vulkan stands still for 0.3 ms between steps of 150 ms (by `train --trace`).

use crate::attack::{MIX, Names};
use crate::error::Result;
use crate::plan::{Plan, Schedule, Step};
use crate::shape::{DType, Shape};
use crate::tape::Tape;
use crate::tensor::{Host, Store};

/// Steps of the epoch that are done, u32 `[1]`.
const DONE: &str = "epoch.done";
/// The same while a step is under way, u32 `[1]`: no launch reads and writes one integer tensor.
const NOW: &str = "epoch.now";
/// 0, 1, 2, ... as u32 `[steps]`: from [`DONE`] to [`NOW`].
const SAME: &str = "epoch.same";
/// 1, 2, 3, ... as u32 `[steps]`: from [`NOW`] to the next step's [`DONE`].
const NEXT: &str = "epoch.next";
/// Which batch of the epoch each update is on, as u32 `[steps]`, where there are several on each.
const BATCH: &str = "epoch.batch";
/// What random numbers are counted by, u32 `[steps, 2]`: (epoch, step).
const COUNTERS: &str = "epoch.counter";

/// The table of a scalar, f32 `[steps]`.
fn table(scalar: &str) -> String {
    format!("epoch.{scalar}")
}

/// An epoch as the device is told it.
pub(super) struct Epoch {
    /// Its number, from 0.
    pub(super) number: u32,
    /// Its examples in order.
    pub(super) order: Vec<u32>,
    /// Updates in a row on each batch. (A step of the tables is an update.)
    pub(super) replays: u32,
    /// What each of its examples is mixed with, in their order; `None` where nothing is mixed.
    pub(super) mixed: Option<Mixed>,
    /// Passes that a batch is cut into, each of them a batch to what is below. (A step of the tables is a pass, then.)
    pub(super) passes: u32,
    /// The scalars of its steps, by name: a number a step. Always the same names in a run.
    pub(super) scalars: Vec<(&'static str, Vec<f64>)>,
}

/// What examples are mixed with, in the order of an epoch.
pub(super) struct Mixed {
    /// The other one.
    pub(super) partner: Vec<u32>,
    /// Of the two that with the larger share.
    pub(super) major: Vec<u32>,
    /// [`MIX`] numbers an example.
    pub(super) mix: Vec<f32>,
}

impl Epoch {
    /// Writes it to the store, `done` of its steps being done. `batches` are the sizes of batch that the
    /// order is cut into: whole ones, and that of the short last one where there is one.
    ///
    /// # Errors
    /// Of the device.
    pub(super) fn tell(&self, store: &Store, batches: &[(usize, Names)], done: u32) -> Result<()> {
        let whole = batches[0].0;
        let replays = self.replays as usize;
        let steps = self.order.len().div_ceil(whole) * replays;
        if replays > 1 {
            let batches = (0..steps as u32).map(|step| step / self.replays).collect();
            store.put(BATCH, [steps], &Host::U32(batches))?;
        }
        for (batch, names) in batches {
            // Only augmentation asks for it.
            if store.get(&names.of("epoch")).is_some() {
                store.write_u32(&names.of("epoch"), &[self.number, 0])?;
            }
            let rows = rows(self.order.len(), whole, *batch);
            let from = if *batch == whole { 0 } else { self.order.len() - batch };
            let order = self.order[from..from + rows * batch].to_vec();
            store.put(&names.of("order"), [rows, *batch], &Host::U32(order))?;
            if let Some(mixed) = &self.mixed {
                for (what, values) in [("partners", &mixed.partner), ("majors", &mixed.major)] {
                    let values = values[from..from + rows * batch].to_vec();
                    store.put(&names.of(what), [rows, *batch], &Host::U32(values))?;
                }
                let mix = mixed.mix[from * MIX..(from + rows * batch) * MIX].to_vec();
                store.put(&names.of("mixes"), [rows, batch * MIX], &Host::F32(mix))?;
            }
        }
        for (name, values) in &self.scalars {
            store.put(&table(name), [steps], &Host::F64(values.clone()))?;
        }
        // An image gets the same numbers whatever passes with it.
        let counters = (0..steps as u32).flat_map(|step| [self.number, step / self.passes]).collect();
        store.put(COUNTERS, [steps, 2], &Host::U32(counters))?;
        store.put(SAME, [steps], &Host::U32((0..steps as u32).collect()))?;
        store.put(NEXT, [steps], &Host::U32((1..=steps as u32).collect()))?;
        store.put(DONE, [1], &Host::U32(vec![done * self.replays * self.passes]))
    }
}

/// Batches of this size in an epoch of so many examples, cut into `whole` ones.
fn rows(examples: usize, whole: usize, batch: usize) -> usize {
    if batch == whole { examples / whole } else { 1 }
}

/// The plans that tell the steps of one size of batch what they are: one begins a step's program, one ends it.
pub(super) struct Feed {
    take: Plan,
    count: Plan,
}

impl Feed {
    /// The two plans' schedules, for batches of `batch` of an epoch's `examples`, which is cut into batches of
    /// `whole`, with so many updates on each. Scalars are taken from their tables to the tensors they are paired with; those and the counter of
    /// random numbers only where the step's other plans name the tensor.
    ///
    /// # Errors
    /// Never, for sizes above 0.
    pub(super) fn schedules<'a>(
        names: &Names,
        [examples, whole, batch, replays]: [usize; 4],
        scalars: &[(&str, String)],
        others: impl Iterator<Item = &'a Schedule> + Clone,
    ) -> Result<[Schedule; 2]> {
        let wanted = |name: &str| others.clone().flat_map(|plan| &plan.tensors).any(|t| t.name == name);
        let steps = examples.div_ceil(whole) * replays;
        let (take, count) = (Tape::new(), Tape::new());
        take.scope("feed", || {
            let done = take.source(DONE, [1], DType::U32);
            // The short last batch is the only row of its table: an index past a table reads the last row.
            let order = take.source(&names.of("order"), [rows(examples, whole, batch), batch], DType::U32);
            let row = match replays {
                1 => done,
                _ => take.source(BATCH, [steps], DType::U32).gather_rows(done),
            };
            take.assign(&names.of("example"), order.gather_rows(row).reshape([batch]));
            if wanted(&names.of("mix")) {
                let rows = rows(examples, whole, batch);
                for (table, to) in [("partners", "partner"), ("majors", "major")] {
                    let all = take.source(&names.of(table), [rows, batch], DType::U32);
                    take.assign(&names.of(to), all.gather_rows(row).reshape([batch]));
                }
                let all = take.source(&names.of("mixes"), [rows, batch * MIX], DType::F32);
                take.assign(&names.of("mix"), all.gather_rows(row).reshape([batch, MIX]));
            }
            take.assign(NOW, take.source(SAME, [steps], DType::U32).gather_rows(done));
            if wanted(&names.of("counter")) {
                let counters = take.source(COUNTERS, [steps, 2], DType::U32);
                take.assign(&names.of("counter"), counters.gather_rows(done).reshape([2]));
            }
            for (from, to) in scalars.iter().filter(|(_, to)| wanted(to)) {
                let values = take.source(&table(from), [steps], DType::F32);
                take.assign(to, values.gather_rows(done).reshape(Shape::scalar()));
            }
        });
        count.scope("feed", || {
            let now = count.source(NOW, [1], DType::U32);
            count.assign(DONE, count.source(NEXT, [steps], DType::U32).gather_rows(now));
        });
        Ok([Schedule::new(&take, true)?, Schedule::new(&count, true)?])
    }

    /// Binds the schedules to a store.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub(super) fn of([take, count]: [Schedule; 2], store: &Store) -> Result<Feed> {
        Ok(Feed { take: Plan::of(take, store)?, count: Plan::of(count, store)? })
    }

    /// The part that begins a step.
    pub(super) fn take(&self) -> Step<'_> {
        Step::Run(&self.take)
    }

    /// The part that ends a step.
    pub(super) fn count(&self) -> Step<'_> {
        Step::Run(&self.count)
    }
}
