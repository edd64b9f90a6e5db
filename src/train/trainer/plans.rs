//! What a run compiles: the plans of a step for each size of batch, known to fit before anything is made.

use super::{AVERAGE, BatchPlans, CORRECT, EVALUATION_BATCH, LOSS, Trainer};
use crate::attack::{Evaluation, Names, RecordedAttack};
use crate::error::{Error, Result};
use crate::nn::{Mode, Net, Role};
use crate::plan::{self, Plan, Schedule as Launches};
use crate::shape::{DType, Shape};
use crate::tape::{Purpose, Tape};
use crate::tensor::Host;
use crate::train::feed::Feed;
use crate::train::optimizer;

impl Trainer {
    /// Records the weight update on a batch whose adversarial images are in the store.
    fn record_update(&self, batch: usize) -> Tape {
        let tape = Tape::new();
        let names = Trainer::names(batch);
        let (_, labels, adversarial) = names.batch(&tape, self.on(Mode::Train).images(batch));
        let net = Net::new(&tape, Mode::Train).with_draw(names.draw(&tape, batch));
        let logits = self.architecture.forward(&net, adversarial);
        let scalar = |name: &str| tape.source(name, Shape::scalar(), DType::F32);
        let losses = tape.scope("loss", || self.method.loss(logits, labels));
        tape.scope("metrics", || {
            tape.assign(LOSS, losses.sum_all() + scalar(LOSS));
            tape.assign(CORRECT, logits.correct(labels).sum_all() + scalar(CORRECT));
        });
        let weights = net.weights();
        let vars: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
        let gradients = tape.grad(losses.scale(1.0 / batch as f64), &vars);
        tape.scope("optimizer", || {
            for ((name, weight), gradient) in weights.iter().zip(gradients) {
                let role = self.params.get(name).map_or(Role::Weight, |param| param.role);
                let optimizer = self.optimizer.decaying(self.decayed.has(role));
                let updated = optimizer.record(&tape, name, *weight, gradient);
                if self.recipe.weight_average > 0.0 {
                    let average = format!("{AVERAGE}{name}");
                    optimizer::record_average(&tape, &average, updated, self.recipe.weight_average);
                }
            }
            for (name, value) in net.updates() {
                tape.assign(&name, value);
                if self.recipe.weight_average > 0.0 {
                    // Running statistics are copied, not averaged (spec 2.9).
                    tape.assign(&format!("{AVERAGE}{name}"), value);
                }
            }
        });
        tape
    }

    /// The schedules of loading, one step of the attack, and the update, for a batch of this size.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn schedules(&self, batch: usize) -> Result<[Launches; 3]> {
        let (names, attack, on) = (Trainer::names(batch), self.method.attack(), self.attacked()?);
        let augment = self.recipe.augment()?;
        let load = RecordedAttack::record_load(attack, on, &names, batch, Purpose::ATTACK_START, augment);
        let step = RecordedAttack::schedule_step(attack, on, &names, batch, false)?;
        let update = self.record_update(batch);
        Ok([Launches::new(&load, true)?, step, Launches::new(&update, true)?])
    }

    /// The schedules that begin and end the program of a step: they tell the device what the step is. `whole` is the
    /// size of the batches that an epoch is cut into, `batch` that of this one.
    fn feed_schedules(&self, whole: usize, batch: usize, others: &[Launches]) -> Result<[Launches; 2]> {
        let names = Trainer::names(batch);
        let own = ["radius", "step"].map(|name| (name, names.of(name)));
        let optimizer = self.optimizer.scalars(1, 0.0).into_iter().map(|(name, _)| (name, name.to_string()));
        let scalars: Vec<(&str, String)> = own.into_iter().chain(optimizer).collect();
        Feed::schedules(&names, [self.train.len(), whole, batch], &scalars, others)
    }

    /// The schedules that begin and end the program of a step on a whole batch: what the device tells itself.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn feeding(&self) -> Result<[Launches; 2]> {
        let batch = self.recipe.batch;
        self.feed_schedules(batch, batch, &self.schedules(batch)?)
    }

    /// All that a run in batches of this size compiles: the plans of whole batches, those of an epoch's short last
    /// one, and those that judge the validation images (in batches that need not be larger).
    fn all_schedules(&self, batch: usize) -> Result<Vec<Launches>> {
        let mut all = Vec::new();
        for (size, _) in self.batches(batch) {
            let plans = self.schedules(size)?;
            all.extend(self.feed_schedules(batch, size, &plans)?);
            all.extend(plans);
        }
        if !self.validation.is_empty() {
            let judged = batch.min(EVALUATION_BATCH).min(self.validation.len());
            let attack = self.validation_attack()?;
            all.extend(Evaluation::schedules(&attack, self.on(Mode::Eval), "train", judged)?);
        }
        Ok(all)
    }

    /// Sizes of the batches that an epoch is cut into, `whole` ones and the short last one, with their names.
    pub(super) fn batches(&self, whole: usize) -> Vec<(usize, Names)> {
        let sizes = [whole, self.train.len() % whole];
        sizes.into_iter().filter(|&size| size > 0).map(|size| (size, Trainer::names(size))).collect()
    }

    /// Compiles the plans of whole batches and of the short last one, once it is clear that everything fits.
    pub(super) fn compile(&mut self) -> Result<()> {
        let batch = self.recipe.batch;
        plan::fits(&self.all_schedules(batch)?, &self.store).map_err(|error| match error {
            Error::OutOfMemory { needed, available, device, .. } => {
                let largest = plan::largest_batch(&self.store, batch - 1, |batch| self.all_schedules(batch));
                let hint = match largest {
                    Some(batch) => format!("; the largest batch that fits is {batch}: use --batch {batch}"),
                    None => "; not even a batch of 1 fits: use a smaller model, or another device".into(),
                };
                let what = format!("training `{}` in batches of {batch}", self.recipe.model);
                Error::OutOfMemory { what, needed, available, device, hint }
            }
            other => other,
        })?;
        for (size, names) in self.batches(batch) {
            let plans = self.schedules(size)?;
            let feed = Feed::of(self.feed_schedules(batch, size, &plans)?, &self.store)?;
            let [load, step, update] = plans;
            let steps = self.method.attack().steps();
            let attack = RecordedAttack::of(load, step, steps, &self.store)?;
            let update = Plan::of(update, &self.store)?;
            self.store.put(&names.of("key"), [2], &Host::U32(self.key().into()))?;
            self.plans.push((size, BatchPlans { feed, attack, update }));
        }
        Ok(())
    }

    pub(super) fn plans(&self, batch: usize) -> &BatchPlans {
        let found = self.plans.iter().find(|(size, _)| *size == batch);
        &found.expect("plans of both sizes of batch are compiled at the start").1
    }
}
