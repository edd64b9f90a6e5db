//! What a run compiles: the plans of a step for each size of batch, known to fit before anything is made.

use super::{AVERAGE, BatchPlans, CORRECT, GRADIENT, LOSS, PART, Trainer};
use crate::attack::{Names, RecordedAttack};
use crate::error::{Error, Result};
use crate::nn::{Mode, Net, Param, Role};
use crate::plan::{self, Plan, Schedule as Launches, Step};
use crate::shape::{DType, Shape};
use crate::tape::{Purpose, Tape, Var};
use crate::tensor::Host;
use crate::train::feed::Feed;
use crate::train::method::Batch;
use crate::train::{Buffers, optimizer};
use std::ops::Range;

/// A part of a training step, as a plan of its own.
pub struct Phase {
    /// Its name, as a trace shows it.
    pub name: &'static str,
    /// Runs in a row.
    pub times: usize,
    /// Whether it is repeated with each update of the same batch ([`crate::train::Method::replays`]).
    pub replayed: bool,
    /// Epochs, counted from 0, that it is part of.
    pub epochs: Range<u32>,
    /// What it launches.
    pub schedule: Launches,
}

/// A phase bound to the store.
pub(super) struct BoundPhase {
    pub(super) name: &'static str,
    pub(super) times: usize,
    pub(super) replayed: bool,
    pub(super) epochs: Range<u32>,
    pub(super) plan: Plan,
}

impl BoundPhase {
    fn new(phase: Phase, trainer: &Trainer) -> Result<BoundPhase> {
        let Phase { name, times, replayed, epochs, schedule } = phase;
        Ok(BoundPhase { name, times, replayed, epochs, plan: Plan::of(schedule, &trainer.store)? })
    }

    pub(super) fn step(&self) -> Step<'_> {
        Step::Repeat(self.times, &self.plan)
    }
}

impl Trainer {
    /// A batch of this size as the method sees it.
    fn batch<'a, 't>(
        &'a self,
        net: &'a Net<'t>,
        names: &'a Names,
        batch: usize,
        stage: usize,
    ) -> Batch<'a, 't> {
        let sizes = [batch, self.recipe.batch.max(batch)];
        Batch::new(self.architecture.as_ref(), net, self.method.attack(), names, sizes, stage)
    }

    /// Records what the method runs before the update, on a batch whose adversarial images are in the store.
    fn record_preparation(&self, batch: usize, stage: usize) -> Tape {
        let tape = Tape::new();
        let names = self.names(batch);
        let net = Net::new(&tape, Mode::TrainFrozen).with_draw(names.draw(&tape, batch));
        self.method.prepare(&self.batch(&net, &names, batch, stage));
        tape
    }

    /// Records the weight update on a batch whose adversarial images are in the store.
    fn record_update(&self, batch: usize, stage: usize) -> Tape {
        let tape = Tape::new();
        let names = self.names(batch);
        let net = Net::new(&tape, Mode::Train).with_draw(names.draw(&tape, batch));
        let seen = self.batch(&net, &names, batch, stage);
        let objective = tape.scope("loss", || self.method.objective(&seen));
        tape.scope("metrics", || {
            let scalar = |name: &str| tape.source(name, Shape::scalar(), DType::F32);
            // An epoch sees each image once, however often it is learned from.
            let share = 1.0 / f64::from(self.method.replays());
            let reported = objective.reported.unwrap_or(objective.losses);
            tape.assign(LOSS, reported.sum_all().scale(share) + scalar(LOSS));
            tape.assign(CORRECT, objective.correct.sum_all().scale(share) + scalar(CORRECT));
        });
        let weights = net.weights();
        let vars: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
        if self.in_parts() {
            // A part of the batch: its sum over the images of the whole one adds to what the passes before it left.
            let part = tape.source(PART, Shape::scalar(), DType::F32);
            let gradients = tape.grad(objective.losses.sum_all() * part, &vars);
            tape.scope("gradient", || {
                for ((name, weight), gradient) in weights.iter().zip(gradients) {
                    let sum = format!("{GRADIENT}{name}");
                    tape.assign(&sum, tape.source(&sum, weight.shape(), DType::F32) + gradient);
                }
                net.updates().iter().for_each(|(name, value)| tape.assign(name, *value));
            });
            return tape;
        }
        let gradients = tape.grad(objective.losses.scale(1.0 / batch as f64), &vars);
        let after = |name: &str, updated| self.method.updated(&seen, name, updated);
        self.record_optimizer(&tape, &weights, gradients, after);
        net.updates().iter().for_each(|(name, value)| tape.assign(name, *value));
        self.record_average_of_buffers(&tape, net.updates());
        tape
    }

    /// Records the update by gradients that were summed over the passes of a batch, and empties the sums.
    fn record_late_update(&self) -> Tape {
        let tape = Tape::new();
        let source = |name: &str, shape| tape.source(name, shape, DType::F32);
        let named = |param: &Param| (param.name.clone(), source(&param.name, param.shape));
        let weights: Vec<_> = self.params.trained().map(named).collect();
        let sum = |param: &Param| source(&format!("{GRADIENT}{}", param.name), param.shape);
        let gradients = self.params.trained().map(sum).collect();
        self.record_optimizer(&tape, &weights, gradients, |_, updated| updated);
        for (name, weight) in &weights {
            tape.assign(&format!("{GRADIENT}{name}"), tape.fill(weight.shape(), 0.0));
        }
        let running = |param: &&Param| matches!(param.role, Role::RunningMean | Role::RunningVar);
        self.record_average_of_buffers(&tape, self.params.iter().filter(running).map(named).collect());
        tape
    }

    /// Records clipping, the optimiser and the average of weights; `after` is what becomes of a weight behind the
    /// optimiser.
    fn record_optimizer<'t>(
        &self,
        tape: &'t Tape,
        weights: &[(String, Var<'t>)],
        gradients: Vec<Var<'t>>,
        after: impl Fn(&str, Var<'t>) -> Var<'t>,
    ) {
        let gradients = match self.recipe.clip_gradient {
            0.0 => gradients,
            largest => tape.scope("clip", || optimizer::clipped(gradients, largest)),
        };
        tape.scope("optimizer", || {
            for ((name, weight), gradient) in weights.iter().zip(gradients) {
                let role = self.params.get(name).map_or(Role::Weight, |param| param.role);
                let optimizer = self.optimizer.decaying(self.decayed.has(role));
                let updated = after(name, optimizer.record(tape, name, *weight, gradient));
                tape.assign(name, updated);
                if let Some(averaging) = self.averaging {
                    averaging.record(tape, &format!("{AVERAGE}{name}"), updated);
                }
            }
        });
    }

    /// Records what stands beside the averaged weights, of running statistics as they are after a step.
    fn record_average_of_buffers<'t>(&self, tape: &'t Tape, running: Vec<(String, Var<'t>)>) {
        let Some(averaging) = self.averaging else { return };
        tape.scope("optimizer", || {
            for (name, value) in running {
                let name = format!("{AVERAGE}{name}");
                match averaging.buffers {
                    Buffers::Average => averaging.record(tape, &name, value),
                    Buffers::Copy | Buffers::Recompute => tape.assign(&name, value),
                }
            }
        });
    }

    /// The phases of a training step on a batch of this size, in order: loading, the attack, what the method prepares,
    /// the update.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn phases(&self, batch: usize) -> Result<Vec<Phase>> {
        let (names, attack, on) = (self.names(batch), self.method.attack(), self.attacked()?);
        let all = 0..self.recipe.epochs;
        let phase = |name, times, schedule| {
            let (replayed, epochs) = (false, all.clone());
            Phase { name, times, replayed, epochs, schedule }
        };
        let plan = |tape: Tape| Launches::new(&tape, true);
        let start = Purpose::ATTACK_START;
        let augment = self.recipe.augment()?.image;
        let load = RecordedAttack::record_load(attack, on, &names, batch, start, augment);
        let mut phases = vec![phase("load", 1, plan(load)?)];
        let keeps = attack.keeps_best() || attack.restarts() > 1;
        for restart in 0..attack.restarts() {
            if restart > 0 {
                let again = RecordedAttack::record_restart(attack, on, &names, batch, start, restart);
                phases.push(phase("restart", 1, plan(again)?));
            }
            if attack.steps() > 0 {
                let step = RecordedAttack::schedule_step(attack, on, &names, batch, false)?;
                phases.push(phase("attack", attack.steps(), step));
            }
            if keeps {
                phases.push(phase("keep", 1, plan(RecordedAttack::record_keep(attack, on, &names, batch))?));
            }
        }
        let mut turns = vec![0];
        turns.extend(self.method.stages().into_iter().map(|epoch| epoch.min(self.recipe.epochs)));
        turns.push(self.recipe.epochs);
        for (stage, turn) in turns.windows(2).enumerate().filter(|(_, turn)| turn[0] < turn[1]) {
            let phase = |name, tape| {
                let (times, replayed, epochs) = (1, true, turn[0]..turn[1]);
                Ok::<_, Error>(Phase { name, times, replayed, epochs, schedule: plan(tape)? })
            };
            if self.method.prepares(stage) {
                phases.push(phase("prepare", self.record_preparation(batch, stage))?);
            }
            phases.push(phase("update", self.record_update(batch, stage))?);
        }
        Ok(phases)
    }

    /// The schedules of the phases of a step, where there are as many as the caller names: of a PGD step without
    /// restarts loading, a step of the attack, and the update.
    ///
    /// # Errors
    /// A shape error of the architecture; [`Error::Argument`] for another number of phases.
    pub fn schedules<const N: usize>(&self, batch: usize) -> Result<[Launches; N]> {
        let all: Vec<Launches> = self.phases(batch)?.into_iter().map(|phase| phase.schedule).collect();
        all.try_into().map_err(|all: Vec<Launches>| {
            Error::argument("phases", N, format!("a step of `{}` has {}", self.recipe.method, all.len()))
        })
    }

    /// The schedules that begin and end the program of a step: they tell the device what the step is. `whole` is the
    /// size of the batches that an epoch is cut into, `batch` that of this one.
    fn feed_schedules<'a>(
        &self,
        whole: usize,
        batch: usize,
        others: impl Iterator<Item = &'a Launches> + Clone,
    ) -> Result<[Launches; 2]> {
        let names = self.names(batch);
        let own = ["radius", "step"].map(|name| (name, names.of(name)));
        let optimizer = self.optimizer.scalars(1, 0.0);
        let averaging = self.averaging.map(|averaging| averaging.scalars(0, 1, 1)).unwrap_or_default();
        let shared = optimizer.into_iter().chain(averaging).chain([(PART, 0.0)]);
        let shared = shared.map(|(name, _)| (name, name.to_string()));
        let scalars: Vec<(&str, String)> = own.into_iter().chain(shared).collect();
        let replays = self.method.replays() as usize;
        Feed::schedules(&names, [self.own_examples(whole), whole, batch, replays], &scalars, others)
    }

    /// The schedules that begin and end the program of a step on a whole batch: what the device tells itself.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn feeding(&self) -> Result<[Launches; 2]> {
        let batch = self.pass();
        let mut all = self.phases(batch)?.into_iter().map(|phase| phase.schedule).collect::<Vec<_>>();
        all.extend(self.late_update()?);
        self.feed_schedules(batch, batch, all.iter())
    }

    /// The schedule of the update by gradients that were summed over the passes of a batch, where there are several: it
    /// ends a step.
    ///
    /// # Errors
    /// Never, for a network that could be recorded.
    pub fn late_update(&self) -> Result<Option<Launches>> {
        if !self.in_parts() {
            return Ok(None);
        }
        Launches::new(&self.record_late_update(), true).map(Some)
    }

    /// All that a run in batches of this size compiles: the plans of whole batches, those of an epoch's short last
    /// one, and those that judge an epoch (in batches that need not be larger).
    fn all_schedules(&self, batch: usize) -> Result<Vec<Launches>> {
        let mut all = Vec::new();
        for (size, _) in self.batches(batch) {
            let phases = self.phases(size)?;
            let mut own: Vec<Launches> = phases.into_iter().map(|phase| phase.schedule).collect();
            own.extend(self.late_update()?);
            all.extend(self.feed_schedules(batch, size, own.iter())?);
            all.extend(own);
        }
        all.extend(self.watching_schedules(batch)?);
        all.extend(self.statistics_schedule(batch)?);
        Ok(all)
    }

    /// Sizes of the batches that an epoch is cut into, `whole` ones and the short last one, with their names.
    pub(super) fn batches(&self, whole: usize) -> Vec<(usize, Names)> {
        let last = self.own_examples(whole) % whole;
        [whole, last].into_iter().filter(|&size| size > 0).map(|size| (size, self.names(size))).collect()
    }

    /// Compiles the plans of whole batches and of the short last one, once it is clear that everything fits.
    pub(super) fn compile(&mut self) -> Result<()> {
        let batch = self.pass();
        plan::fits(&self.all_schedules(batch)?, &self.store).map_err(|error| match error {
            Error::OutOfMemory { needed, available, device, .. } => {
                let largest = plan::last_batch(&self.store, batch - 1, |batch| self.all_schedules(batch));
                let hint = match largest {
                    Some(_) if self.passes() > 1 => "; use a smaller --micro-batch".into(),
                    Some(largest) => {
                        let parts = (1..=largest).rev().find(|part| batch.is_multiple_of(*part)).unwrap_or(1);
                        format!(
                            "; the largest batch that fits is {largest}: use --batch {largest}, or the same batch in \
                             parts by --micro-batch {parts}"
                        )
                    }
                    None => "; not even a batch of 1 fits: use a smaller model, or another device".into(),
                };
                let what = format!("training `{}` in batches of {batch}", self.recipe.model);
                Error::OutOfMemory { what, needed, available, device, hint }
            }
            other => other,
        })?;
        for (size, names) in self.batches(batch) {
            let phases = self.phases(size)?;
            let late = self.late_update()?;
            let others = phases.iter().map(|phase| &phase.schedule).chain(&late);
            let feed = self.feed_schedules(batch, size, others)?;
            let feed = Feed::of(feed, &self.store)?;
            let phases =
                phases.into_iter().map(|phase| BoundPhase::new(phase, self)).collect::<Result<_>>()?;
            self.store.put(&names.of("key"), [2], &Host::U32(self.key().into()))?;
            self.plans.push((size, BatchPlans { feed, phases }));
        }
        let statistics = self.statistics_schedule(batch)?;
        self.statistics = statistics.map(|schedule| Plan::of(schedule, &self.store)).transpose()?;
        self.update = self.late_update()?.map(|update| Plan::of(update, &self.store)).transpose()?;
        Ok(())
    }

    pub(super) fn plans(&self, batch: usize) -> &BatchPlans {
        let found = self.plans.iter().find(|(size, _)| *size == batch);
        &found.expect("plans of both sizes of batch are compiled at the start").1
    }
}
