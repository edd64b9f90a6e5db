//! A recipe: every number of a training run, as a TOML file or as flags.

use super::OnCollapse;
use crate::attack::{Norm, Rational, Start, ThreatModel};
use crate::data::Groups;
use crate::error::{Error, Result};
use crate::nn::{Architecture, BATCH_NORM_MOMENTUM, Dummies, Mode, Momentum, architectures};
use crate::plan::Precision;
use crate::train::Augmentation;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that determines a run, besides the device. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// The data set: a name or a path, as [`crate::data::load`] takes it.
    pub data: String,
    /// Pixels on each side that pictures are resized to; 0 takes them as they are.
    pub image_size: usize,
    /// Random changes of the training images: `crop:4` (a crop out of the image padded by 4 zeros on each side),
    /// `crop:4:reflect` (padded by its mirror image), `flip` (left to right, one in two), `cutout:14` (a square of 14
    /// pixels becomes 0), `brightness:0.2` and `contrast:0.2` (times a number from 0.8 to 1.2, contrast about the middle
    /// grey), `mixup:1.4` and `cutmix:1` (images and targets mixed by shares from Beta); none by default.
    pub augment: Vec<String>,
    /// The architecture's name.
    pub model: String,
    /// Momentum of batch norm: the share of a new batch in its running statistics (PyTorch's default is 0.1; Gowal et al.
    /// train with 0.01).
    pub batch_norm_momentum: f64,
    /// The training method's name.
    pub method: String,
    /// Norm of the perturbation: `linf`, `l2` or `l1`.
    pub norm: String,
    /// Radius of the perturbation in pixel values: "8/255" or a decimal (in a file also without quotes).
    #[serde(deserialize_with = "text_or_number")]
    pub epsilon: String,
    /// Steps of the attack inside training.
    pub steps: usize,
    /// Length of a step, as epsilon is given.
    #[serde(deserialize_with = "text_or_number")]
    pub step_size: String,
    /// Where the attack of pgd, trades, mart and ducat starts: `uniform` (at random in the ball), `normal` (0.001 times
    /// normal noise) or `none` (at the image); `auto` is what the method's reference does.
    pub start: String,
    /// Clip the random start of fgsm-rs to [0, 1] before the gradient.
    pub clip_start: bool,
    /// Batch norm inside the attack: `eval`, `train` or `train-frozen`.
    pub attack_batch_norm: String,
    /// What the attack inside training is computed in: `f32`, or `f16` for half precision (the weight update stays
    /// in f32, as evaluation does).
    pub attack_precision: String,
    /// Share of the steps over which epsilon and step size grow from 0.
    pub epsilon_warmup: f64,
    /// Whether the step size does.
    pub step_size_warmup: bool,
    /// Runs of the attack of pgd, trades, mart and ducat; the worst end is kept for each example.
    pub restarts: u32,
    /// Whether that attack ends with the worst of its iterates (one more forward pass).
    pub use_best: bool,
    /// Label smoothing: this share of each target is spread evenly over the classes.
    pub label_smoothing: f64,
    /// Share of a batch that is adversarial, the rest being clean.
    pub adversarial_ratio: f64,
    /// Learn from each image both clean and adversarial, as one batch.
    pub keep_clean: bool,
    /// n-fgsm: half width of the noise in epsilons.
    pub noise: f64,
    /// free: updates on each batch.
    pub replays: u32,
    /// trades, mart: weight of the robust part.
    pub beta: f64,
    /// grad-align: weight of the alignment.
    pub grad_align_lambda: f64,
    /// grad-align: `exact`, or `first-order` for an approximation without second derivatives.
    pub grad_align_form: String,
    /// Adversarial weight perturbation round pgd, trades or mart: its size relative to each weight's; 0 does without.
    pub awp_gamma: f64,
    /// Epochs before it begins.
    pub awp_warmup: u32,
    /// ducat: epochs of pgd before dummy classes are learned.
    pub dummy_start: u32,
    /// ducat: share of a clean image's target that goes to the dummy.
    pub dummy_clean: f64,
    /// ducat: share of an adversarial image's target that goes to the dummy.
    pub dummy_adversarial: f64,
    /// Passes over the training images.
    pub epochs: u32,
    /// Images in a batch.
    pub batch: usize,
    /// `sgd`, `adam` or `adamw`.
    pub optimizer: String,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// `constant`, `linear`, `cosine`, `cyclic` (up to the full rate at `schedule_peak`, down to 0), `one-cycle`
    /// (PyTorch's), `piecewise` (1/10 at 50 % and at 75 % of the run), `multistep` or `interpolated`.
    pub schedule: String,
    /// Where the rate of a step is read: `end` (after the step), `start` (before it), `epoch` (before its epoch); `auto`
    /// is `start` for one-cycle and multistep, as PyTorch has them, and else `end`. See [`super::Schedule`].
    pub schedule_at: String,
    /// Share of the run at which `cyclic` and `one-cycle` are at the full rate (PyTorch's `pct_start`).
    pub schedule_peak: f64,
    /// Points of `multistep` and `interpolated`: below 1 shares of the run, from 1 on epochs that are done.
    pub milestones: Vec<f64>,
    /// `multistep`: what the rate is multiplied by at each milestone, or one number for all. `interpolated`: the factor
    /// on the full rate at each milestone, with lines between.
    pub schedule_factors: Vec<f64>,
    /// In front of the schedule the rate rises in a line from 0: below 1 over this share of the run, from 1 on over so
    /// many epochs.
    pub learning_rate_warmup: f64,
    /// Momentum of sgd.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Decay rate of adam's average of gradients.
    pub beta1: f64,
    /// Decay rate of adam's average of their squares.
    pub beta2: f64,
    /// What adam adds to the root that it divides by.
    pub adam_epsilon: f64,
    /// L2 penalty as the optimizer adds it to gradients (adamw: decoupled).
    pub weight_decay: f64,
    /// What it is on: `all` parameters (plain PyTorch), `no-norm-bias` (Rice et al. `--l2`) or `weights` of convolutions
    /// and linear layers alone (Madry et al.).
    pub weight_decay_on: String,
    /// Largest norm of the gradient by all weights together: a longer one is scaled down to it (`clip_grad_norm_`); 0
    /// does without.
    pub clip_gradient: f64,
    /// Images that pass through the network at once where a whole batch does not fit into memory: a divisor of `batch`,
    /// over which gradients are summed before the one update; 0 takes whole batches. Batch norm sees the images of one
    /// pass.
    pub micro_batch: usize,
    /// Decay of the averaged weights that are validated and saved; 0 does without.
    pub weight_average: f64,
    /// Above 0, averaging begins after this share of the run, with a decay that grows (Gowal et al.; theirs is 0.025).
    pub weight_average_warmup: f64,
    /// Running statistics beside averaged weights: `copy` (those of the trained weights), `average`, or `recompute` (by
    /// a pass over the training images after every epoch).
    pub weight_average_buffers: String,
    /// Stochastic weight averaging in the place of the decaying average: from here on (below 1 a share of the run, from
    /// 1 epochs) the mean of snapshots is what is validated and saved; 0 does without.
    pub swa_start: f64,
    /// Snapshots are taken after every `epoch` or every `step`.
    pub swa_every: String,
    /// Weights to begin from: a safetensors file, a `.pt` or `.pth` file of PyTorch, or the folder of a run; none by
    /// default.
    pub weights: String,
    /// What the names in them mean, where they are not known: a table as [`crate::weights::Names::read`] takes it.
    pub weights_names: String,
    /// Of those weights, the last layer is taken (`keep`), or drawn anew (`redraw`), as other classes need it.
    pub weights_head: String,
    /// Images held out of the training set to choose the checkpoint by.
    pub validation: usize,
    /// They are held out in groups of so many neighbours of one class in the training set, where neighbours show one object
    /// (frames of a film, photographs of one sign), so that no twin of theirs is trained on. `validation` is then rounded
    /// to whole groups. 1 holds out one by one.
    pub validation_group: usize,
    /// So many neighbours of one class on either side of what is held out are not trained on either: for groups that may
    /// begin or end within an object.
    pub validation_gap: usize,
    /// Steps of the PGD attack on the validation images, of step size 2.5 epsilon / steps.
    pub validation_steps: usize,
    /// Seed of everything random.
    pub seed: u64,

    /// Train on so many images alone of those that are not held out, of each class its share; 0 takes all.
    pub train_images: usize,
    /// Stop after so many epochs without a better validation accuracy (robust; for standard training clean); 0 never.
    pub patience: u32,
    /// Training images, the same throughout, that PGD-5 attacks after each epoch to see catastrophic overfitting (and
    /// whose input gradients are held against those nearby); 0 does without, and so does standard training.
    pub probe: usize,
    /// What to do about catastrophic overfitting: `warn`, `stop`, or `back` (take the weights from before the epoch, and
    /// stop).
    pub on_collapse: String,
    /// Measure test images every so many epochs, for the curves alone; 0 never.
    pub test_every: u32,
    /// Test images that this measures, of each class its share.
    pub test_images: usize,

    /// Classes that the data have to have; 0 takes any.
    pub classes: usize,
    /// Height, width and channels that the images have to have; none takes any.
    pub image: Vec<usize>,
}

impl Default for Recipe {
    /// The main job: the fast-adversarial CNN on the embedded MNIST sample, as in models/mnist-fast-pgd.
    ///
    /// Tried on the 2 000 test images (clean / PGD-40, one seed): 15 epochs at 2e-3 without averaging 97.1 / 81.1;
    /// 40 epochs 98.3 / 87.1; with averaged weights and 3e-3 98.5 / 89.1. From a cold start at the full radius PGD
    /// can stick at chance, so the radius grows over the first 30 %.
    fn default() -> Recipe {
        Recipe {
            data: "mnist".into(),
            image_size: 0,
            augment: Vec::new(),
            model: "mnist-fast".into(),
            batch_norm_momentum: BATCH_NORM_MOMENTUM,
            method: "pgd".into(),
            norm: "linf".into(),
            epsilon: "0.3".into(),
            steps: 5,
            step_size: "0.1".into(),
            start: "auto".into(),
            clip_start: false,
            attack_batch_norm: "eval".into(),
            attack_precision: "f32".into(),
            epsilon_warmup: 0.3,
            step_size_warmup: true,
            restarts: 1,
            use_best: false,
            label_smoothing: 0.0,
            adversarial_ratio: 1.0,
            keep_clean: false,
            noise: 2.0,
            replays: 8,
            beta: 6.0,
            grad_align_lambda: 0.2,
            grad_align_form: "exact".into(),
            awp_gamma: 0.0,
            awp_warmup: 0,
            dummy_start: 0,
            dummy_clean: 0.25,
            dummy_adversarial: 1.0,
            epochs: 40,
            batch: 64,
            optimizer: "adam".into(),
            learning_rate: 3e-3,
            schedule: "linear".into(),
            schedule_at: "auto".into(),
            schedule_peak: 0.4,
            milestones: Vec::new(),
            schedule_factors: vec![0.1],
            learning_rate_warmup: 0.0,
            momentum: 0.9,
            nesterov: false,
            beta1: 0.9,
            beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            weight_decay_on: "all".into(),
            clip_gradient: 0.0,
            micro_batch: 0,
            weight_average: 0.998,
            weight_average_warmup: 0.0,
            weight_average_buffers: "copy".into(),
            swa_start: 0.0,
            swa_every: "epoch".into(),
            weights: String::new(),
            weights_names: String::new(),
            weights_head: "keep".into(),
            validation: 1000,
            validation_group: 1,
            validation_gap: 0,
            validation_steps: 10,
            seed: 0,
            train_images: 0,
            patience: 0,
            probe: 128,
            on_collapse: "warn".into(),
            test_every: 0,
            test_images: 1000,
            classes: 0,
            image: Vec::new(),
        }
    }
}

/// Most bytes that a recipe may have.
const MOST_BYTES: u64 = 1 << 20;

/// The names batch-norm modes go by.
pub const MODES: [&str; 3] = ["eval", "train", "train-frozen"];

impl Recipe {
    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::File`] when it is not TOML, has an unknown key, a value of the
    /// wrong type or one that [`Recipe::check`] refuses.
    pub fn read(path: &Path) -> Result<Recipe> {
        let refuse = |e| Error::io(path, "could not read the recipe", e);
        let about = std::fs::metadata(path).map_err(refuse)?;
        // A folder is refused by reading it; a device may never end.
        if !(about.is_file() || about.is_dir()) || about.len() > MOST_BYTES {
            let why = format!("could not read the recipe: it is no file of at most {MOST_BYTES} bytes");
            return Err(Error::file(path, why));
        }
        let text = std::fs::read_to_string(path).map_err(refuse)?;
        Recipe::parse(&text, path)
    }

    /// The recipe that is the text of a file; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Recipe::read`], but for reading.
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let refuse = |e: toml::de::Error| Error::file(path, format!("is not a recipe: {e}"));
        let table: toml::Table = toml::from_str(text).map_err(refuse)?;
        let known = toml::Table::try_from(Recipe::default())
            .map_err(|e| Error::Unsupported(format!("recipe: {e}")))?;
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
            let at = text.lines().position(|line| line.split('=').next().is_some_and(|k| k.trim() == key));
            let line = at.map(|at| format!("line {}, ", at + 1)).unwrap_or_default();
            return Err(Error::file(path, Error::unknown(&format!("{line}key"), key, &known).to_string()));
        }
        let recipe: Recipe = toml::from_str(text).map_err(refuse)?;
        recipe.check().map_err(|e| Error::file(path, e.to_string()))?;
        Ok(recipe)
    }

    /// The keys whose values differ from those of `other`.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn differing_keys(&self, other: &Recipe) -> Result<Vec<String>> {
        let table =
            |recipe| toml::Table::try_from(recipe).map_err(|e| Error::Unsupported(format!("recipe: {e}")));
        let (own, others) = (table(self)?, table(other)?);
        Ok(own
            .into_iter()
            .filter(|(key, value)| others.get(key) != Some(value))
            .map(|(key, _)| key)
            .collect())
    }

    /// As a TOML file.
    ///
    /// # Errors
    /// Never for a recipe that passes [`Recipe::check`].
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::Unsupported(format!("recipe: {e}")))
    }

    /// Checks every value that can be checked without data or device.
    ///
    /// # Errors
    /// [`Error::Argument`] for the first that is refused.
    pub fn check(&self) -> Result<()> {
        self.augment()?;
        self.threat()?;
        self.step()?;
        self.mode()?;
        self.precision()?;
        super::method(self)?;
        super::Optimizer::of(self)?;
        super::Schedule::of(self)?;
        self.on_collapse()?;
        if !self.image.is_empty() && (self.image.len() != 3 || self.image.contains(&0)) {
            let why = "write height, width and channels, as [32, 32, 3], or leave it out";
            return Err(Error::argument("image", format!("{:?}", self.image), why));
        }
        let positive = |what: &str, value: usize| match value {
            0 => Err(Error::argument(what, 0, "must be at least 1")),
            _ => Ok(()),
        };
        positive("epochs", self.epochs as usize)?;
        positive("batch", self.batch)?;
        positive("validation group", self.validation_group)?;
        positive("validation steps", self.validation_steps)?;
        positive("test images", self.test_images)?;
        let share =
            |what: &str, value: f64, most: f64| match value.is_finite() && (0.0..=most).contains(&value) {
                true => Ok(()),
                false => Err(Error::argument(what, value, format!("must be a number from 0 to {most:?}"))),
            };
        share("epsilon warm-up", self.epsilon_warmup, 1.0)?;
        share("weight decay", self.weight_decay, 1e3)?;
        share("learning rate", self.learning_rate, 1e30)?;
        share("momentum", self.momentum, 1.0)?;
        share("batch norm's momentum", self.batch_norm_momentum, 1.0)?;
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::argument("nesterov", "true", "needs a momentum above 0"));
        }
        for (what, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::argument(what, beta, "must be a number from 0 to below 1"));
            }
        }
        share("adam's epsilon", self.adam_epsilon, 1.0)?;
        self.weight_decay_on.parse::<super::Decayed>()?;
        self.averaging()?;
        share("largest gradient", self.clip_gradient, 1e30)?;
        if !matches!(self.weights_head.as_str(), "keep" | "redraw") {
            return Err(Error::unknown("head of the weights", &self.weights_head, &["keep", "redraw"]));
        }
        if self.micro_batch > 0 && !self.batch.is_multiple_of(self.micro_batch) {
            let why = format!("must divide the batch of {}", self.batch);
            return Err(Error::argument("micro-batch", self.micro_batch, why));
        }
        Ok(())
    }

    /// Checks that data of so many classes and images of this height, width and channels are what the recipe is for.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check_data(&self, name: &str, image: [usize; 3], classes: usize) -> Result<()> {
        let text = |image: &[usize]| image.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let refuse = |what: String, has: String| {
            let why = format!(
                "the recipe is for {what}, but `{name}` has {has}: give the data that belong to it by --data, or begin from a \
                 copy of the recipe with other `classes` and `image` (and a model, epsilon and epochs to suit)"
            );
            Err(Error::argument("data", format!("`{}`", self.data), why))
        };
        if self.classes > 0 && self.classes != classes {
            return refuse(format!("{} classes", self.classes), format!("{classes} classes"));
        }
        if !self.image.is_empty() && self.image != image {
            return refuse(format!("images of {}", text(&self.image)), format!("images of {}", text(&image)));
        }
        Ok(())
    }

    /// What to do about catastrophic overfitting.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn on_collapse(&self) -> Result<OnCollapse> {
        match self.on_collapse.as_str() {
            "warn" => Ok(OnCollapse::Warn),
            "stop" => Ok(OnCollapse::Stop),
            "back" => Ok(OnCollapse::Back),
            other => Err(Error::unknown("what to do on collapse", other, &["warn", "stop", "back"])),
        }
    }

    /// Norm and radius.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn threat(&self) -> Result<ThreatModel> {
        let norm: Norm = self.norm.parse()?;
        let epsilon = rational("epsilon", &self.epsilon)?;
        let value = epsilon.value();
        if norm == Norm::Linf && value > 1.0 {
            let why = "larger than 1, the whole range of a pixel";
            let whole = value <= 255.0 && !self.epsilon.contains('/');
            let meant = if whole { format!("; did you mean {epsilon}/255?") } else { String::new() };
            return Err(Error::argument("epsilon", format!("`{epsilon}`"), format!("{why}{meant}")));
        }
        Ok(ThreatModel { norm, epsilon })
    }

    /// The network that is trained: the architecture of this name for images of `image` (rows, columns, channels) and so
    /// many classes, with a second output for each where the method has dummy classes.
    ///
    /// # Errors
    /// As [`architectures::by_name`] and [`super::method`].
    pub fn network(&self, image: [usize; 3], classes: usize) -> Result<Box<dyn Architecture>> {
        let network = match super::method(self)?.has_dummies() {
            false => architectures::by_name(&self.model, image, classes)?,
            true => Box::new(Dummies::new(architectures::by_name(&self.model, image, 2 * classes)?)),
        };
        Ok(match self.batch_norm_momentum {
            BATCH_NORM_MOMENTUM => network,
            momentum => Box::new(Momentum::new(network, momentum)),
        })
    }

    /// Where the attack starts; `None` where that is left to the method.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn start(&self) -> Result<Option<Start>> {
        match self.start.as_str() {
            "auto" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Error::unknown("start", text, &["auto", Start::NAMES[0], Start::NAMES[1], Start::NAMES[2]])
            }),
        }
    }

    /// What validation images are held out by.
    pub fn held_out_groups(&self) -> Groups {
        Groups { size: self.validation_group, gap: self.validation_gap }
    }

    /// Random changes of the training images.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn augment(&self) -> Result<Augmentation> {
        Augmentation::of(&self.augment)
    }

    /// How weights are averaged, if they are.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn averaging(&self) -> Result<Option<super::Averaging>> {
        super::Averaging::of(self)
    }

    /// Length of a step.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn step(&self) -> Result<Rational> {
        rational("step size", &self.step_size)
    }

    /// Precision of the attack inside training.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn precision(&self) -> Result<Precision> {
        let text = self.attack_precision.as_str();
        text.parse().map_err(|_| Error::unknown("attack precision", text, &Precision::NAMES))
    }

    /// Batch norm inside the attack.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn mode(&self) -> Result<Mode> {
        match self.attack_batch_norm.as_str() {
            "eval" => Ok(Mode::Eval),
            "train" => Ok(Mode::Train),
            "train-frozen" => Ok(Mode::TrainFrozen),
            other => Err(Error::unknown("batch norm in the attack", other, &MODES)),
        }
    }
}

/// Largest radius or step size taken: far beyond any image, and far below where f32 ends.
const LARGEST: f64 = 1e6;

/// A radius or step size called `what` in errors.
///
/// # Errors
/// [`Error::Argument`].
pub fn rational(what: &str, text: &str) -> Result<Rational> {
    let number: Rational = text.parse().map_err(|error| match error {
        Error::Argument { value, why, .. } => Error::Argument { what: what.into(), value, why },
        other => other,
    })?;
    if number.value() > LARGEST {
        return Err(Error::argument(what, format!("`{text}`"), "larger than any image; pixels are 0 to 1"));
    }
    Ok(number)
}

/// `"8/255"`, `"0.3"` or `0.3`.
fn text_or_number<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number like 0.3, or a fraction in quotes like \"8/255\"")]
    enum Given {
        Text(String),
        Whole(i64),
        Number(f64),
    }
    Ok(match Given::deserialize(from)? {
        Given::Text(text) => text,
        Given::Whole(number) => number.to_string(),
        Given::Number(number) => number.to_string(),
    })
}
