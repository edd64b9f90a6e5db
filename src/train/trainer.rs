//! The training loop: one submission a step, an epoch's validation, the best weights kept, everything resumable.

use super::checkpoint::{self, Checkpoint, Position, Weights};
use super::feed::{Epoch, Feed};
use super::{EpochRecord, Method, Observer, Optimizer, Recipe, Schedule, StepReport, method, optimizer};
use crate::attack::{Classifier, Evaluation, Names, Pgd, Rational, RecordedAttack};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Architecture, Mode, Net, Params};
use crate::philox;
use crate::plan::{self, Plan, Precision, Program, Schedule as Launches, Step};
use crate::shape::{DType, Shape};
use crate::tape::{Purpose, Tape};
use crate::tensor::{Host, Reading, Store};
use crate::trace::Span;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Images an evaluation takes at once: large enough to keep a device busy, small enough for any.
pub const EVALUATION_BATCH: usize = 250;
const LOSS: &str = "metrics.loss";
const CORRECT: &str = "metrics.correct";
/// Prefix of the tensors that hold averaged weights.
const AVERAGE: &str = "average/";

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, finished its step and saved.
    Interrupted,
}

/// The plans of a training step for batches of one size.
struct BatchPlans {
    feed: Feed,
    attack: RecordedAttack,
    update: Plan,
}

/// The totals of loss and right answers after a step of the epoch, on their way from the device.
struct Underway {
    /// Steps of the epoch that they are of.
    steps: u32,
    reading: Reading,
}

/// The last totals that came back.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    steps: u32,
    loss: f64,
    correct: f64,
}

/// A training run: a recipe, data on a device, weights.
pub struct Trainer {
    recipe: Recipe,
    method: Box<dyn Method>,
    architecture: Box<dyn Architecture>,
    params: Params,
    optimizer: Optimizer,
    schedule: Schedule,
    store: Store,
    /// Examples trained on, in data-set order.
    train: Vec<u32>,
    /// Examples held out.
    validation: Vec<u32>,
    labels: Vec<u32>,
    /// SHA-256 of the data set.
    data: String,
    plans: Vec<(usize, BatchPlans)>,
    judge: Option<Evaluation>,
    position: Position,
    best: Option<Weights>,
    folder: Option<PathBuf>,
}

impl Trainer {
    /// Sets up a run: data to the device, weights drawn, plans compiled.
    ///
    /// # Errors
    /// A refused number of the recipe; images that do not fit the architecture; a batch larger than the data;
    /// [`Error::OutOfMemory`] with the largest batch that fits; an error of the device.
    pub fn new(
        recipe: Recipe,
        architecture: Box<dyn Architecture>,
        data: &Dataset,
        device: &Device,
    ) -> Result<Trainer> {
        recipe.check()?;
        if data.image != architecture.input() {
            return Err(Error::argument(
                "model",
                format!("`{}`", architecture.name()),
                format!(
                    "takes images of {:?}, but those of `{}` are {:?}",
                    architecture.input(),
                    data.name,
                    data.image
                ),
            ));
        }
        let [h, w, _] = data.image;
        if recipe.augment()?.padding >= h.min(w) {
            let why = format!("the crop's padding must be smaller than the images, which are {h} by {w}");
            return Err(Error::argument("augment", format!("`{}`", recipe.augment.join(",")), why));
        }
        let (train, validation) = data.split_validation(recipe.validation, recipe.seed)?;
        if recipe.batch > train.len() {
            return Err(Error::argument(
                "batch",
                recipe.batch,
                format!("larger than the {} training images; use at most that", train.len()),
            ));
        }
        let params = Params::of(architecture.as_ref())?;
        let store = Store::new(device);
        let [h, w, c] = data.image;
        store.put("train.images", [data.len(), h, w, c], &Host::U8(data.images.clone()))?;
        store.put("train.labels", [data.len()], &Host::U32(data.labels.clone()))?;
        let mut trainer = Trainer {
            method: method(&recipe)?,
            optimizer: Optimizer::of(&recipe)?,
            schedule: Schedule::of(&recipe)?,
            recipe,
            architecture,
            store,
            train,
            validation,
            labels: data.labels.clone(),
            data: data.sha256.clone(),
            plans: Vec::new(),
            judge: None,
            position: Position::default(),
            best: None,
            folder: None,
            params,
        };
        let initial = trainer.params.initial(trainer.recipe.seed);
        let names: Vec<String> = trainer.params.iter().map(|param| param.name.clone()).collect();
        let weights: Weights = names.into_iter().zip(initial).collect();
        checkpoint::put_weights(&trainer.store, &trainer.params, &weights)?;
        for (name, values) in &weights {
            if trainer.recipe.weight_average > 0.0 {
                let shape = Shape::new(trainer.params.get(name).map_or(&[][..], |param| param.shape.dims()));
                trainer.store.put(&format!("{AVERAGE}{name}"), shape, &Host::F32(values.clone()))?;
            }
        }
        for name in [LOSS, CORRECT] {
            trainer.store.put(name, Shape::scalar(), &Host::F32(vec![0.0]))?;
        }
        trainer.compile()?;
        Ok(trainer)
    }

    /// Saves checkpoints into this folder from now on.
    pub fn save_into(&mut self, folder: &Path) {
        self.folder = Some(folder.to_path_buf());
    }

    /// The network.
    pub fn architecture(&self) -> &dyn Architecture {
        self.architecture.as_ref()
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Its method.
    pub fn method(&self) -> &dyn Method {
        self.method.as_ref()
    }

    /// The attack it trains on, as accuracies are printed with it, and what it is computed in where that is not f32.
    ///
    /// # Errors
    /// A refused precision of the recipe.
    pub fn attack_line(&self) -> Result<String> {
        let line = self.method.attack().line();
        Ok(match self.recipe.precision()? {
            Precision::F32 => line,
            half => format!("{line}, in {}", half.on(self.store.device())),
        })
    }

    /// Its tensors.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The network's parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Where it stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Examples trained on and examples held out.
    pub fn sizes(&self) -> (usize, usize) {
        (self.train.len(), self.validation.len())
    }

    /// Bytes of its tensors (data set, weights, optimiser, batches) and of the temporaries that its plans share.
    pub fn memory(&self) -> (u64, u64) {
        (self.store.bytes(), self.store.temporary_bytes())
    }

    /// Steps of an epoch.
    pub fn steps_an_epoch(&self) -> u32 {
        self.train.len().div_ceil(self.recipe.batch) as u32
    }

    /// Steps of the run.
    pub fn total_steps(&self) -> u64 {
        u64::from(self.steps_an_epoch()) * u64::from(self.recipe.epochs)
    }

    /// The attack that judges the validation images, as its line.
    pub fn validation_attack(&self) -> Result<Pgd> {
        let threat = self.recipe.threat()?;
        let steps = self.recipe.validation_steps;
        let step_size = Rational::from((2.5e4 * threat.epsilon.value() / steps as f64).round() / 1e4);
        Ok(Pgd { threat, steps, step_size, random_start: true })
    }

    fn on(&self, mode: Mode) -> Classifier<'_> {
        let (architecture, precision) = (self.architecture.as_ref(), Precision::F32);
        Classifier { architecture, mode, examples: self.labels.len(), precision }
    }

    /// The network as the attack inside training sees it.
    fn attacked(&self) -> Result<Classifier<'_>> {
        Ok(Classifier { precision: self.recipe.precision()?, ..self.on(self.recipe.mode()?) })
    }

    fn names(batch: usize) -> Names {
        Names::new(&format!("batch{batch}"), "train")
    }

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
                let updated = self.optimizer.record(&tape, name, *weight, gradient);
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
    fn batches(&self, whole: usize) -> Vec<(usize, Names)> {
        let sizes = [whole, self.train.len() % whole];
        sizes.into_iter().filter(|&size| size > 0).map(|size| (size, Trainer::names(size))).collect()
    }

    /// Compiles the plans of whole batches and of the short last one, once it is clear that everything fits.
    fn compile(&mut self) -> Result<()> {
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

    fn plans(&self, batch: usize) -> &BatchPlans {
        let found = self.plans.iter().find(|(size, _)| *size == batch);
        &found.expect("plans of both sizes of batch are compiled at the start").1
    }

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

    fn key(&self) -> [u32; 2] {
        [self.recipe.seed as u32, (self.recipe.seed >> 32) as u32]
    }

    /// Learning rate, radius and step size of the step after `steps`.
    fn rates(&self, steps: u64) -> Result<(f64, f64, f64)> {
        let done = (steps + 1) as f64 / self.total_steps() as f64;
        let rate = self.recipe.learning_rate * self.schedule.factor(done);
        let warm = match self.recipe.epsilon_warmup {
            0.0 => 1.0,
            share => (done / share).min(1.0),
        };
        Ok((rate, warm * self.recipe.threat()?.epsilon.value(), warm * self.method.attack().step_size()))
    }

    /// All that the steps of an epoch are functions of.
    fn epoch(&self, epoch: u32) -> Result<Epoch> {
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
    fn tell(&self, epoch: &Epoch) -> Result<()> {
        epoch.tell(&self.store, &self.batches(self.recipe.batch), self.position.step)
    }

    /// Images of step `step` of an epoch.
    fn images(&self, step: u32) -> usize {
        self.recipe.batch.min(self.train.len() - step as usize * self.recipe.batch)
    }

    /// The program of step `step` of the epoch that the device was told.
    fn program(&self, step: u32) -> Program<'_> {
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

    /// Trains until the end or until `stop` is set, which is looked at after every step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the loss is not finite, with the launch that made it so, the last good weights
    /// being saved; an error of the device, of the disk or of the observer.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let mut known = None;
        let trace = self.store.device().trace();
        let span = |name| Span::new(trace.as_deref(), name);
        while self.position.epoch < self.recipe.epochs {
            let start = Instant::now();
            let begin = span("begin the epoch");
            let (before, position) = (self.state()?, self.position.clone());
            if self.position.step == 0 {
                self.reset_metrics()?;
            }
            let epoch = match known.take() {
                Some(epoch) => epoch,
                None => self.epoch(self.position.epoch)?,
            };
            self.tell(&epoch)?;
            drop(begin);
            let metrics = self.store.tensors(&[LOSS, CORRECT])?;
            let mut underway: VecDeque<Underway> = VecDeque::new();
            let mut totals = Totals { steps: self.position.step, ..Totals::default() };
            let mut images = 0;
            while self.position.step < self.steps_an_epoch() {
                let step = self.position.step;
                let reading = self.program(step).run_reading(&metrics);
                let reading = reading.map_err(|error| self.during(error, &totals))?;
                self.position.step += 1;
                self.position.steps += 1;
                underway.push_back(Underway { steps: self.position.step, reading });
                images += self.images(step);
                let last = self.position.step == self.steps_an_epoch();
                let stopping = !last && stop.load(Ordering::Relaxed);
                if last && self.position.epoch + 1 < self.recipe.epochs {
                    // While the device is at the epoch's last steps.
                    let _span = span("order the next epoch");
                    known = Some(self.epoch(self.position.epoch + 1)?);
                }
                let wait = last || stopping;
                let collecting = span("collect");
                let fresh = collect(&mut underway, wait, &mut totals);
                let fresh = fresh.map_err(|error| self.during(error, &totals))?;
                // What is about to be judged or saved is looked at as a whole.
                if !totals.loss.is_finite() || (wait && !self.is_finite()?) {
                    return Err(self.not_finite(totals.steps, &before, &position));
                }
                drop(collecting);
                let seen = self.train.len().min(totals.steps as usize * self.recipe.batch) as f64;
                observer.step(&StepReport {
                    epoch: self.position.epoch + 1,
                    images: self.images(step),
                    loss: fresh.then(|| totals.loss / seen),
                    accuracy: fresh.then(|| totals.correct / seen),
                });
                if stopping {
                    self.position.seconds += start.elapsed().as_secs_f64();
                    self.save()?;
                    return Ok(Outcome::Interrupted);
                }
            }
            let trained = start.elapsed().as_secs_f64();
            let ending = span("judge and save");
            let record = self.end_epoch(start, images as f64 / trained.max(1e-9), totals)?;
            // The record comes first: resuming drops the records of epochs after the checkpoint's, but could not
            // make one that was lost between the two.
            observer.epoch(&record)?;
            self.save()?;
            drop(ending);
            if stop.load(Ordering::Relaxed) && self.position.epoch < self.recipe.epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        Ok(Outcome::Finished)
    }

    /// The error of a device, with the steps that it may have come from: those after the last one whose loss came
    /// back, up to the one that was being handed over.
    fn during(&self, error: Error, totals: &Totals) -> Error {
        let (first, last) = (totals.steps + 1, self.position.step + 1);
        error.during(&format!("steps {first} to {last} of epoch {}", self.position.epoch + 1))
    }

    fn end_epoch(
        &mut self,
        start: Instant,
        examples_per_second: f64,
        Totals { loss, correct, .. }: Totals,
    ) -> Result<EpochRecord> {
        let (learning_rate, epsilon, _) = self.rates(self.position.steps.saturating_sub(1))?;
        let (mut clean, mut robust) = (None, None);
        if !self.validation.is_empty() {
            let (c, r) = self.validate()?;
            (clean, robust) = (Some(c), Some(r));
        }
        // A run without validation images keeps its last weights as the best.
        let adversarial = self.method.is_adversarial();
        let score = if adversarial { robust } else { clean }.unwrap_or(f64::from(self.position.epoch));
        let best = self.position.best.is_none_or(|(have, _)| score > have);
        self.position.epoch += 1;
        self.position.step = 0;
        let seconds = self.position.seconds + start.elapsed().as_secs_f64();
        self.position.seconds = 0.0;
        if best {
            self.position.best = Some((score, self.position.epoch));
            self.best = Some(self.weights()?);
            self.save_best()?;
        }
        let examples = self.train.len() as f64;
        let accuracy = Some(correct / examples);
        Ok(EpochRecord {
            epoch: self.position.epoch,
            seconds,
            loss: loss / examples,
            train_clean: if adversarial { None } else { accuracy },
            train_robust: if adversarial { accuracy } else { None },
            validation_clean: clean,
            validation_robust: robust,
            epsilon,
            learning_rate,
            examples_per_second,
            best,
        })
    }

    /// Clean and robust accuracy on the validation images, at the full radius.
    fn validate(&mut self) -> Result<(f64, f64)> {
        let attack = self.validation_attack()?;
        // The averaged weights, where there are any, are what is judged: they stand in for the others meanwhile.
        let raw = self.swap_in_average()?;
        let judge = match self.judge.take() {
            Some(judge) => judge,
            None => {
                let batch = EVALUATION_BATCH.min(self.validation.len());
                Evaluation::compile(&self.store, &attack, self.on(Mode::Eval), "train", batch)?
            }
        };
        let labels: Vec<u32> = self.validation.iter().map(|&i| self.labels[i as usize]).collect();
        let verdicts = judge.run(&self.validation, &labels, 1, self.recipe.seed, |_, _| {})?;
        self.judge = Some(judge);
        if let Some(raw) = raw {
            checkpoint::put_weights(&self.store, &self.params, &raw)?;
        }
        let share = |count: usize| count as f64 / self.validation.len() as f64;
        Ok((share(verdicts.clean_count()), share(verdicts.robust_count())))
    }

    /// Puts averaged weights in the place of the trained ones and gives those back, if the recipe averages.
    fn swap_in_average(&self) -> Result<Option<Weights>> {
        if self.recipe.weight_average == 0.0 {
            return Ok(None);
        }
        let raw = self.read_weights("")?;
        checkpoint::put_weights(&self.store, &self.params, &self.weights()?)?;
        Ok(Some(raw))
    }

    fn read_weights(&self, prefix: &str) -> Result<Weights> {
        let names: Vec<String> = self.params.iter().map(|param| format!("{prefix}{}", param.name)).collect();
        let hosts = self.store.read(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let floats = hosts.into_iter().map(|host| host.to_f64().into_iter().map(|x| x as f32).collect());
        Ok(self.params.iter().map(|param| param.name.clone()).zip(floats).collect())
    }

    /// The weights that count: averaged ones, where the recipe averages.
    ///
    /// # Errors
    /// Of the device.
    pub fn weights(&self) -> Result<Weights> {
        self.read_weights(if self.recipe.weight_average > 0.0 { AVERAGE } else { "" })
    }

    /// The best weights so far by validation, and the epoch they are of.
    pub fn best(&self) -> Option<(&Weights, u32)> {
        Some((self.best.as_ref()?, self.position.best?.1))
    }

    fn reset_metrics(&self) -> Result<()> {
        [LOSS, CORRECT].iter().try_for_each(|name| self.store.write_f32(name, &[0.0]))
    }

    /// Names of everything that the steps to come depend on.
    fn state_names(&self) -> Vec<String> {
        let mut names = vec![LOSS.to_string(), CORRECT.to_string()];
        for param in &self.params {
            names.push(param.name.clone());
            if self.recipe.weight_average > 0.0 {
                names.push(format!("{AVERAGE}{}", param.name));
            }
            if param.role.is_trained() {
                names.extend(self.optimizer.state(&param.name));
            }
        }
        names
    }

    fn state(&self) -> Result<checkpoint::State> {
        let names = self.state_names();
        let hosts = self.store.read(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(names.into_iter().zip(hosts).collect())
    }

    /// Whether everything the steps to come depend on is a number.
    fn is_finite(&self) -> Result<bool> {
        Ok(self.state()?.iter().all(|(_, host)| host.to_f64().iter().all(|x| x.is_finite())))
    }

    fn restore(&self, state: &[(String, Host)]) -> Result<()> {
        state.iter().try_for_each(|(name, host)| self.store.write(name, host))
    }

    fn save_best(&self) -> Result<()> {
        let (Some(folder), Some(best)) = (&self.folder, &self.best) else { return Ok(()) };
        let (name, steps) = (self.architecture.name(), self.position.steps);
        checkpoint::save_weights(&folder.join("best.safetensors"), &name, &self.params, best, steps)
    }

    /// Saves weights and everything needed to go on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (name, steps) = (self.architecture.name(), self.position.steps);
        checkpoint::save_weights(
            &folder.join("last.safetensors"),
            &name,
            &self.params,
            &self.weights()?,
            steps,
        )?;
        let resume = folder.join("resume.safetensors");
        let (recipe, position) = (self.recipe.clone(), self.position.clone());
        let state = self.state()?;
        checkpoint::save_resume(&resume, &Checkpoint { recipe, data: self.data.clone(), position, state })
    }

    /// Goes on from a saved run: to the same bits as if it had not stopped, on the same device. `checkpoint` is what
    /// `folder` holds as `resume.safetensors`.
    ///
    /// # Errors
    /// [`Error::File`] when the checkpoint is of another recipe, architecture or data set, or `best.safetensors` is
    /// not what it should be; this run is then as it was.
    pub fn resume(&mut self, folder: &Path, checkpoint: Checkpoint) -> Result<()> {
        let path = folder.join("resume.safetensors");
        let Checkpoint { recipe, data, position, state } = checkpoint;
        if recipe != self.recipe {
            return Err(Error::file(&path, "it was saved under another recipe; resume without other flags"));
        }
        if data != self.data {
            let why = format!(
                "the training data in `{}` are not those the run began with (another SHA-256): put those back, or \
                 start a new run",
                self.recipe.data
            );
            return Err(Error::file(&path, why));
        }
        if position.epoch > recipe.epochs || position.step >= self.steps_an_epoch() {
            let why = format!("it stands at step {} of epoch {}", position.step, position.epoch + 1);
            return Err(Error::file(&path, format!("{why}, which the run does not have: use another copy")));
        }
        let names = self.state_names();
        for (name, host) in &state {
            let fits = self.store.get(name).is_some_and(|tensor| tensor.shape.len() == host.to_f64().len());
            if !names.contains(name) || !fits {
                let why = format!(
                    "`{name}` does not belong to `{}`: another architecture",
                    self.architecture.name()
                );
                return Err(Error::file(&path, why));
            }
        }
        if let Some(missing) = names.iter().find(|name| !state.iter().any(|(have, _)| have == *name)) {
            return Err(Error::file(
                &path,
                format!("it lacks `{missing}`: damaged, or of another architecture"),
            ));
        }
        if position.best.is_some() {
            let best = folder.join("best.safetensors");
            self.best = Some(checkpoint::load_weights(&best, self.architecture.as_ref(), &self.params)?);
        }
        self.restore(&state)?;
        self.position = position;
        Ok(())
    }

    /// The error of a loss or a weight that is not finite. Finds the launch that first made it so, and saves the
    /// weights that this stretch of training began with: the epoch's first, or those that were resumed from.
    fn not_finite(&mut self, last: u32, before: &[(String, Host)], position: &Position) -> Error {
        match self.find_not_finite(last, before, position) {
            Ok((launch, step)) => {
                let kept = match (position.steps, position.step) {
                    (0, _) => "the initial weights".to_string(),
                    (steps, 0) => format!("the weights from before this epoch ({steps} steps)"),
                    (steps, _) => format!("the weights that were resumed from ({steps} steps)"),
                };
                let file = self.folder.as_deref().unwrap_or(Path::new("")).join("last.safetensors");
                Error::NotFinite {
                    what: format!("training in epoch {}, step {}", position.epoch + 1, step + 1),
                    launch,
                    advice: format!(
                        "Kept are {kept}, in {}. Start again with a lower learning rate",
                        file.display()
                    ),
                }
            }
            Err(error) => error,
        }
    }

    /// Runs again from where this stretch of training began (the same bits) to the first step after which a weight,
    /// the optimiser's state or the loss is not finite, and that step once more launch by launch; `last` is a step of
    /// the epoch after which one was not, counted from 1. Gives the launch and the step within the epoch, counted
    /// from 0.
    fn find_not_finite(
        &mut self,
        last: u32,
        before: &[(String, Host)],
        position: &Position,
    ) -> Result<(String, u32)> {
        self.rewind(before, position)?;
        self.save()?;
        let mut culprit = position.step;
        while culprit + 1 < last {
            self.program(culprit).run()?;
            if !self.is_finite()? {
                break;
            }
            culprit += 1;
        }
        self.rewind(before, position)?;
        (position.step..culprit).try_for_each(|step| self.program(step).run())?;
        let launch = self.program(culprit).first_not_finite()?;
        self.rewind(before, position)?;
        Ok((launch.unwrap_or_else(|| "none on the second run".into()), culprit))
    }

    /// Goes back to a state of this run.
    fn rewind(&mut self, state: &[(String, Host)], position: &Position) -> Result<()> {
        self.position = position.clone();
        self.restore(state)?;
        if position.step == 0 {
            self.reset_metrics()?;
        }
        self.tell(&self.epoch(position.epoch)?)
    }
}

/// Takes the totals that came back, or waits for all that are under way; whether there were new ones. Stops at
/// totals that are not finite, and takes them a step at a time: the step that made them so is not far.
fn collect(underway: &mut VecDeque<Underway>, wait: bool, totals: &mut Totals) -> Result<bool> {
    let mut fresh = false;
    while let Some(mut next) = underway.pop_front() {
        let values = match (next.reading.take()?, wait) {
            (Some(values), _) => values,
            (None, true) => next.reading.wait()?,
            (None, false) => {
                underway.push_front(next);
                break;
            }
        };
        let value = |at: usize| values.get(at).map_or(f64::NAN, |host| host.to_f64()[0]);
        *totals = Totals { steps: next.steps, loss: value(0), correct: value(1) };
        fresh = true;
        if !totals.loss.is_finite() {
            break;
        }
    }
    Ok(fresh)
}
