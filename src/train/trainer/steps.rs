//! What the steps of an epoch are functions of, and the program of a step.

use super::plans::BoundPhase;
use super::{PART, Trainer};
use crate::attack::MIX;
use crate::error::Result;
use crate::philox;
use crate::plan::{Program, Step};
use crate::tape::Purpose;
use crate::train::Place;
use crate::train::feed::{Epoch, Mixed};

impl Trainer {
    /// The order of an epoch's examples: sorted by random words, a pure function of seed and epoch.
    pub(super) fn order(&self, epoch: u32) -> Vec<u32> {
        self.shuffled(Purpose::SHUFFLE, epoch)
    }

    fn shuffled(&self, purpose: Purpose, epoch: u32) -> Vec<u32> {
        let key = self.key();
        let mut keyed: Vec<([u32; 2], u32)> = self
            .train
            .iter()
            .map(|&example| {
                let words = philox::words(key, purpose, [epoch, 0], example, 0);
                ([words[0], words[1]], example)
            })
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, example)| example).collect()
    }

    pub(super) fn key(&self) -> [u32; 2] {
        [self.recipe.seed as u32, (self.recipe.seed >> 32) as u32]
    }

    /// Updates of an epoch: one a step, or several in a row on the same batch.
    pub(super) fn updates_an_epoch(&self) -> u64 {
        u64::from(self.steps_an_epoch()) * u64::from(self.method.replays())
    }

    /// Learning rate, radius and step size of the update after so many.
    pub(super) fn rates(&self, updates: u64) -> Result<(f64, f64, f64)> {
        let (per_epoch, epochs) = (self.updates_an_epoch(), u64::from(self.recipe.epochs));
        let done = (updates + 1) as f64 / (per_epoch * epochs) as f64;
        let place = Place { step: updates, per_epoch, epochs };
        let rate = self.recipe.learning_rate * self.schedule.factor(place);
        let warm = match self.recipe.epsilon_warmup {
            0.0 => 1.0,
            share => (done / share).min(1.0),
        };
        let length = if self.recipe.step_size_warmup { warm } else { 1.0 } * self.method.attack().step_size();
        Ok((rate, warm * self.recipe.threat()?.epsilon.value(), length))
    }

    /// All that the steps of an epoch are functions of.
    pub(super) fn epoch(&self, epoch: u32) -> Result<Epoch> {
        let per_epoch = self.updates_an_epoch();
        let first = u64::from(epoch) * per_epoch;
        let on = self.attacked()?;
        let threat = self.method.attack().threat();
        let mut scalars: Vec<(&'static str, Vec<f64>)> = Vec::new();
        for update in first..first + per_epoch {
            let (rate, epsilon, length) = self.rates(update)?;
            let own = [("radius", on.projection_radius(threat, epsilon)), ("step", length)];
            let mut row = Vec::from(own);
            row.extend(self.optimizer.scalars(update + 1, rate));
            if let Some(averaging) = self.averaging {
                row.extend(averaging.scalars(update, per_epoch, u64::from(self.recipe.epochs)));
            }
            let mut passes = 1;
            if self.in_parts() {
                let images = self.images((update - first) as u32);
                row.push((PART, 1.0 / images as f64));
                if self.passes() > 1 {
                    passes = images.div_ceil(self.pass());
                }
            }
            for (at, (name, value)) in row.into_iter().enumerate() {
                if at == scalars.len() {
                    scalars.push((name, Vec::new()));
                }
                scalars[at].1.extend(std::iter::repeat_n(value, passes));
            }
        }
        let (replays, passes) = (self.method.replays(), self.passes());
        let order = self.order(epoch);
        let batch = self.recipe.batch;
        let mixed = self.mixed(epoch, &order)?.map(|Mixed { partner, major, mix }| Mixed {
            partner: self.share.own(partner, batch, 1),
            major: self.share.own(major, batch, 1),
            mix: self.share.own(mix, batch, MIX),
        });
        let order = self.share.own(order, batch, 1);
        Ok(Epoch { number: epoch, order, replays, passes, mixed, scalars })
    }

    /// What the examples of an epoch in this order are mixed with: the examples in another order, so that each is mixed
    /// into one other.
    fn mixed(&self, epoch: u32, order: &[u32]) -> Result<Option<Mixed>> {
        let mixing = self.recipe.augment()?.mixing;
        if mixing.is_none() {
            return Ok(None);
        }
        let [h, w, _] = self.architecture.input();
        let partner = self.shuffled(Purpose::SHUFFLE.stream(1), epoch);
        let (mut major, mut mix) = (Vec::with_capacity(order.len()), Vec::with_capacity(MIX * order.len()));
        for (&own, &other) in order.iter().zip(&partner) {
            let drawn = mixing.draw(self.key(), epoch, own, [h, w]);
            major.push(if drawn.share >= 0.5 { own } else { other });
            let places = drawn.rows.into_iter().chain(drawn.columns).map(|place| place as f32);
            mix.push(drawn.keep as f32);
            mix.extend(places);
            mix.push(drawn.share as f32);
        }
        Ok(Some(Mixed { partner, major, mix }))
    }

    /// Tells the device an epoch, of which `position` says what is done.
    pub(super) fn tell(&self, epoch: &Epoch) -> Result<()> {
        epoch.tell(&self.store, &self.batches(self.pass()), self.position.step)
    }

    /// Images of step `step` of an epoch.
    pub(super) fn images(&self, step: u32) -> usize {
        self.recipe.batch.min(self.train.len() - step as usize * self.recipe.batch)
    }

    /// Images of a whole batch that pass through the network at once (in this process, where there are several).
    pub fn pass(&self) -> usize {
        let batch = self.share.images(self.recipe.batch);
        if self.recipe.micro_batch == 0 { batch } else { self.recipe.micro_batch }
    }

    /// Whether gradients are summed before the update is a plan of its own: over passes, or over processes.
    pub(super) fn in_parts(&self) -> bool {
        self.passes() > 1 || self.share.0.is_some()
    }

    /// Examples of an epoch that run in this process, where it takes `whole` of each whole batch.
    pub(super) fn own_examples(&self, whole: usize) -> usize {
        let (all, batch) = (self.train.len(), self.recipe.batch);
        match (&self.share.0, all % batch) {
            (None, _) => all,
            (Some(_), 0) => all / batch * whole,
            (Some(_), last) => all / batch * whole + self.share.images(last).min(whole),
        }
    }

    /// Passes that a whole batch is cut into.
    pub fn passes(&self) -> u32 {
        self.recipe.batch.checked_div(self.recipe.micro_batch).unwrap_or(1) as u32
    }

    /// The program of step `step` of the epoch that the device was told.
    pub(super) fn program(&self, step: u32) -> Program<'_> {
        let (mut steps, mut names) = self.parts_before_update(step);
        if let Some(update) = &self.update {
            steps.push(Step::Run(update));
            names.push("update");
        }
        Program::new(steps).named(names)
    }

    /// The parts of step `step` with their names: all, or where gradients are summed up first, those before the update.
    pub(super) fn parts_before_update(&self, step: u32) -> (Vec<Step<'_>>, Vec<&'static str>) {
        let (mut steps, mut names) = (Vec::new(), Vec::new());
        let (images, pass) = (self.share.images(self.images(step)), self.pass());
        // Several updates on a batch, or a batch in several passes, but never both.
        let replays = (0..self.method.replays()).map(|replay| (replay, images));
        let passes = (0..images).step_by(pass).map(|from| (0, pass.min(images - from)));
        let turns: Vec<(u32, usize)> = if self.passes() == 1 { replays.collect() } else { passes.collect() };
        for (replay, images) in turns {
            let plans = self.plans(images);
            steps.push(plans.feed.take());
            names.push("feed");
            let now = |phase: &&BoundPhase| phase.epochs.contains(&self.position.epoch);
            let again = |phase: &&BoundPhase| replay == 0 || phase.replayed;
            for phase in plans.phases.iter().filter(now).filter(again) {
                steps.push(phase.step());
                names.push(phase.name);
            }
            steps.push(plans.feed.count());
            names.push("count");
        }
        (steps, names)
    }

    /// The program of the next step, for benches, profiles and tests. The device is told the epoch: running the
    /// program trains on the step, and running it again on the step after that.
    ///
    /// # Errors
    /// Of the device.
    pub fn next_step(&self) -> Result<Program<'_>> {
        self.tell(&self.epoch(self.position.epoch)?)?;
        Ok(self.program(self.position.step))
    }
}
