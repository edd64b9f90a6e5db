//! The training loop: one submission a step, an epoch's validation, the best weights kept, everything resumable.
//!
//! In the order of a run: what is compiled (plans.rs), what a step is a function of (steps.rs), the loop that hands steps
//! over and collects what comes back (run.rs), what an epoch is judged by (watch.rs), what is saved and gone on from (state.rs).

mod exchange;
mod plans;
mod run;
mod state;
mod statistics;
mod steps;
mod watch;

pub use plans::Phase;
pub use run::Outcome;

use super::checkpoint::{self, Position};
use super::feed::Feed;
use super::peers::{Peers, Share};
use super::{Averaging, CheckpointEvery, Decayed, Method, Optimizer, Recipe, Schedule, examples, method};
use crate::attack::{Classifier, Inputs, Names};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Architecture, Collapsed, Mode, Params};
use crate::plan::{Plan, Precision};
use crate::shape::Shape;
use crate::tensor::{Host, Store};
use crate::weights::{self, Taking, Weights};
use plans::BoundPhase;
use std::path::{Path, PathBuf};
use watch::Watched;

/// Images an evaluation takes at once: large enough to keep a device busy, small enough for any.
pub const EVALUATION_BATCH: usize = 250;
const LOSS: &str = "metrics.loss";
const CORRECT: &str = "metrics.correct";
/// Prefix of the tensors that hold averaged weights.
const AVERAGE: &str = "average/";
/// Prefix of the tensors that hold gradients, summed over the passes of a batch.
const GRADIENT: &str = "gradient/";
/// One over the images of a step, where a batch is cut into passes; a scalar.
const PART: &str = "gradient.part";

/// The plans of a training step for batches of one size.
struct BatchPlans {
    feed: Feed,
    phases: Vec<BoundPhase>,
}

/// A training run: a recipe, data on a device, weights.
pub struct Trainer {
    recipe: Recipe,
    method: Box<dyn Method>,
    architecture: Box<dyn Architecture>,
    params: Params,
    optimizer: Optimizer,
    averaging: Option<Averaging>,
    decayed: Decayed,
    schedule: Schedule,
    store: Store,
    /// Examples trained on, in data-set order.
    train: Vec<u32>,
    /// Examples held out.
    validation: Vec<u32>,
    labels: Vec<u32>,
    /// What the examples are.
    inputs: Inputs,
    /// SHA-256 of the data set.
    data: String,
    plans: Vec<(usize, BatchPlans)>,
    /// The update by gradients that were summed over the passes of a batch, where there are several.
    update: Option<Plan>,
    /// A batch of the pass that recomputes running statistics, where the recipe has one.
    statistics: Option<Plan>,
    watched: Watched,
    position: Position,
    best: Option<Weights>,
    /// All that the steps to come depend on as it was when the epoch began, where a collapse goes back to it.
    epoch_start: Option<checkpoint::State>,
    checkpoint_every: CheckpointEvery,
    folder: Option<PathBuf>,
    /// Its part of the work, where several processes train together.
    share: Share,
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
        Trainer::with_peers(recipe, architecture, data, device, None)
    }

    /// As [`Trainer::new`], for one of several processes that train together, each on its share of every batch. All are
    /// given the same recipe and data; the one of rank 0 saves, and what it finds after an epoch decides.
    ///
    /// What is drawn for an example does not depend on how many processes there are, and sums of gradients have the same
    /// terms in another order: the losses are those of one process but for rounding. With batch norm they are not: each
    /// process normalises by its own share of the batch, and the running statistics are the mean of theirs.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::Argument`] for a method whose steps are more than sums over examples (free, AWP),
    /// and for a batch of fewer images than there are processes.
    pub fn with_peers(
        recipe: Recipe,
        architecture: Box<dyn Architecture>,
        data: &Dataset,
        device: &Device,
        peers: Option<Box<dyn Peers>>,
    ) -> Result<Trainer> {
        recipe.check()?;
        recipe.check_data(&data.name, data.image, data.classes)?;
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
        let augment = recipe.augment()?;
        let refuse =
            |why: String| Err(Error::argument("augment", format!("`{}`", recipe.augment.join(",")), why));
        if !augment.is_none() && examples::inputs(data) != Inputs::Images {
            return refuse(format!("it changes images, but `{}` holds {}", data.name, data.kind()));
        }
        let method = method(&recipe)?;
        if !method.takes_features() && examples::inputs(data) != Inputs::Images {
            let why =
                format!("it knows no bounds but those of pixels, and `{}` holds {}", data.name, data.kind());
            return Err(Error::argument("method", format!("`{}`", recipe.method), why));
        }
        if augment.image.padding >= h.min(w) {
            return refuse(format!(
                "the crop's padding must be smaller than the images, which are {h} by {w}"
            ));
        }
        if augment.image.cutout > h.min(w) {
            return refuse(format!("the hole must not be larger than the images, which are {h} by {w}"));
        }
        if !augment.mixing.is_none() && !method.takes_soft_targets() {
            return refuse(format!(
                "method `{}` learns from classes, not from mixtures of them",
                recipe.method
            ));
        }
        let (train, validation) =
            data.split_validation(recipe.validation, recipe.held_out_groups(), recipe.seed)?;
        if recipe.train_images > train.len() {
            let why = format!("only {} are left beside those held out; 0 takes all", train.len());
            return Err(Error::argument("training images", recipe.train_images, why));
        }
        let train = match recipe.train_images {
            0 => train,
            count => data.choose(&train, count, recipe.seed).1,
        };
        if recipe.batch > train.len() {
            return Err(Error::argument(
                "batch",
                recipe.batch,
                format!("larger than the {} training images; use at most that", train.len()),
            ));
        }
        let params = Params::of(architecture.as_ref())?;
        let store = Store::new(device);
        examples::put(&store, "train", data)?;
        if !augment.mixing.is_none() {
            examples::put_places(&store, "train", data)?;
        }
        let mut trainer = Trainer {
            method,
            optimizer: Optimizer::of(&recipe)?,
            averaging: recipe.averaging()?,
            decayed: recipe.weight_decay_on.parse()?,
            schedule: Schedule::of(&recipe)?,
            recipe,
            architecture,
            store,
            train,
            validation,
            labels: data.labels.clone(),
            inputs: examples::inputs(data),
            data: data.sha256.clone(),
            plans: Vec::new(),
            update: None,
            statistics: None,
            watched: Watched::default(),
            position: Position::default(),
            best: None,
            epoch_start: None,
            checkpoint_every: CheckpointEvery::default(),
            folder: None,
            share: Share(peers),
            params,
        };
        let initial = trainer.params.initial(trainer.recipe.seed);
        let names: Vec<String> = trainer.params.iter().map(|param| param.name.clone()).collect();
        trainer.begin_from(&names.into_iter().zip(initial).collect())?;
        if trainer.in_parts() {
            trainer.can_pass_in_parts()?;
            for param in trainer.params.trained() {
                let zeros = Host::F32(vec![0.0; param.shape.len()]);
                trainer.store.put(&format!("{GRADIENT}{}", param.name), param.shape, &zeros)?;
            }
        }
        for name in [LOSS, CORRECT] {
            trainer.store.put(name, Shape::scalar(), &Host::F32(vec![0.0]))?;
        }
        trainer.compile()?;
        Ok(trainer)
    }

    /// Begins from these weights, which are also what an average of weights begins at.
    ///
    /// # Errors
    /// Of the device.
    pub fn begin_from(&mut self, weights: &Weights) -> Result<()> {
        checkpoint::put_weights(&self.store, &self.params, weights)?;
        if self.averaging.is_some() {
            for (name, values) in weights {
                let shape = self.params.get(name).map_or(Shape::new(&[values.len()]), |param| param.shape);
                self.store.put(&format!("{AVERAGE}{name}"), shape, &Host::F32(values.clone()))?;
            }
        }
        Ok(())
    }

    /// Begins a new run from the weights that the recipe names, if it names any; the network is that of the trainer. (A
    /// run that is resumed has its own.) Gives the file.
    ///
    /// # Errors
    /// As [`weights::load`], and of the device.
    pub fn begin_from_recipe(&mut self) -> Result<Option<PathBuf>> {
        if self.recipe.weights.is_empty() {
            return Ok(None);
        }
        let (network, params, seed) = (self.architecture.as_ref(), &self.params, self.recipe.seed);
        let names = match self.recipe.weights_names.as_str() {
            "" => weights::Names::default(),
            file => weights::Names::read(Path::new(file))?,
        };
        let redraw_last = (self.recipe.weights_head == "redraw").then_some(seed);
        let mut file = weights::open(Path::new(&self.recipe.weights), &names)?;
        let taken = weights::take(&mut file, network, params, &Taking { names, redraw_last })?;
        self.begin_from(&taken)?;
        Ok(Some(file.path().to_path_buf()))
    }

    /// Refuses methods that need a whole batch at once.
    fn can_pass_in_parts(&self) -> Result<()> {
        let stages = 0..=self.method.stages().len();
        let prepares = stages.into_iter().any(|stage| self.method.prepares(stage));
        let state = !self.method.state(self.on(Mode::Train).images(self.recipe.batch)).is_empty();
        if self.share.0.is_some() {
            let refuse = |what: &str, value: String, why: &str| Err(Error::argument(what, value, why));
            if prepares || state || self.method.replays() > 1 {
                let why = "needs whole batches, but several processes each have a part: train it in one";
                return refuse("method", format!("`{}`", self.recipe.method), why);
            }
            if self.recipe.micro_batch > 0 {
                let why = "several processes each have a part of a batch already: leave it out";
                return refuse("micro-batch", self.recipe.micro_batch.to_string(), why);
            }
            return self.share.check(self.recipe.batch);
        }
        if prepares || state || self.method.replays() > 1 {
            let why = format!("`{}` needs whole batches: leave it out", self.recipe.method);
            return Err(Error::argument("micro-batch", self.recipe.micro_batch, why));
        }
        Ok(())
    }

    /// Saves checkpoints into this folder from now on.
    pub fn save_into(&mut self, folder: &Path) {
        self.folder = Some(folder.to_path_buf());
    }

    /// Saves what it goes on from so often while an epoch is under way. This never changes what a run comes to.
    pub fn checkpoint_every(&mut self, every: CheckpointEvery) {
        self.checkpoint_every = every;
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

    fn on(&self, mode: Mode) -> Classifier<'_> {
        let (architecture, precision) = (self.architecture.as_ref(), Precision::F32);
        Classifier { architecture, mode, examples: self.labels.len(), inputs: self.inputs, precision }
    }

    /// `judge` given the network as it is judged: where it has dummy classes, what it collapses to.
    fn judged<T>(&self, judge: impl FnOnce(Classifier<'_>) -> T) -> T {
        let on = self.on(Mode::Eval);
        if !self.method.has_dummies() {
            return judge(on);
        }
        let collapsed = Collapsed(self.architecture.as_ref());
        judge(Classifier { architecture: &collapsed, ..on })
    }

    /// The network as the attack inside training sees it.
    fn attacked(&self) -> Result<Classifier<'_>> {
        Ok(Classifier { precision: self.recipe.precision()?, ..self.on(self.recipe.mode()?) })
    }

    /// Names of the tensors of a batch. (A run whose images are mixed says so here: see [`crate::attack::Targets`].)
    fn names(&self, batch: usize) -> Names {
        let names = Names::new(&format!("batch{batch}"), "train").with_inputs(self.inputs);
        match self.recipe.augment().is_ok_and(|augment| !augment.mixing.is_none()) {
            true => names.with_soft_targets(self.architecture.classes()),
            false => names,
        }
    }
}
