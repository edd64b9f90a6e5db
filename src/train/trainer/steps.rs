//! What the steps of an epoch are functions of, and the program of a step.

use super::Trainer;
use crate::error::Result;
use crate::philox;
use crate::plan::{Program, Step};
use crate::tape::Purpose;
use crate::train::Place;
use crate::train::feed::Epoch;

impl Trainer {
    /// The order of an epoch's examples: sorted by random words, a pure function of seed and epoch.
    fn order(&self, epoch: u32) -> Vec<u32> {
        let key = self.key();
        let mut keyed: Vec<([u32; 2], u32)> = self
            .train
            .iter()
            .map(|&example| {
                let words = philox::words(key, Purpose::SHUFFLE, [epoch, 0], example, 0);
                ([words[0], words[1]], example)
            })
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, example)| example).collect()
    }

    pub(super) fn key(&self) -> [u32; 2] {
        [self.recipe.seed as u32, (self.recipe.seed >> 32) as u32]
    }

    /// Learning rate, radius and step size of the step after `steps`.
    pub(super) fn rates(&self, steps: u64) -> Result<(f64, f64, f64)> {
        let done = (steps + 1) as f64 / self.total_steps() as f64;
        let (per_epoch, epochs) = (u64::from(self.steps_an_epoch()), u64::from(self.recipe.epochs));
        let place = Place { step: steps, per_epoch, epochs };
        let rate = self.recipe.learning_rate * self.schedule.factor(place);
        let warm = match self.recipe.epsilon_warmup {
            0.0 => 1.0,
            share => (done / share).min(1.0),
        };
        Ok((rate, warm * self.recipe.threat()?.epsilon.value(), warm * self.method.attack().step_size()))
    }

    /// All that the steps of an epoch are functions of.
    pub(super) fn epoch(&self, epoch: u32) -> Result<Epoch> {
        let first = u64::from(epoch) * u64::from(self.steps_an_epoch());
        let elements = self.architecture.input().iter().product::<usize>();
        let threat = self.method.attack().threat();
        let mut scalars: Vec<(&'static str, Vec<f64>)> = Vec::new();
        for step in first..first + u64::from(self.steps_an_epoch()) {
            let (rate, epsilon, length) = self.rates(step)?;
            let own = [("radius", threat.projection_radius(epsilon, elements)), ("step", length)];
            let row = own.into_iter().chain(self.optimizer.scalars(step + 1, rate));
            for (at, (name, value)) in row.enumerate() {
                match scalars.get_mut(at) {
                    Some((_, values)) => values.push(value),
                    None => scalars.push((name, vec![value])),
                }
            }
        }
        Ok(Epoch { number: epoch, order: self.order(epoch), scalars })
    }

    /// Tells the device an epoch, of which `position` says what is done.
    pub(super) fn tell(&self, epoch: &Epoch) -> Result<()> {
        epoch.tell(&self.store, &self.batches(self.recipe.batch), self.position.step)
    }

    /// Images of step `step` of an epoch.
    pub(super) fn images(&self, step: u32) -> usize {
        self.recipe.batch.min(self.train.len() - step as usize * self.recipe.batch)
    }

    /// The program of step `step` of the epoch that the device was told.
    pub(super) fn program(&self, step: u32) -> Program<'_> {
        let plans = self.plans(self.images(step));
        let mut steps = vec![plans.feed.take()];
        steps.extend(plans.attack.program());
        steps.extend([Step::Run(&plans.update), plans.feed.count()]);
        Program::new(steps).named(&["feed", "load", "attack", "update", "count"])
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
