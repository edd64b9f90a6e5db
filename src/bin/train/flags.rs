//! The command line: its flags, and how they change a recipe.

use super::common::{Machine, machine::DEVICE};
use super::onnx;
use adamant::attack::Pgd;
use adamant::train::{CheckpointEvery, Recipe, rational};
use adamant::{Error, Result};
use clap::Parser;
use std::path::{Path, PathBuf};

/// Headings of `--help`; each flag stands under one.
const DATA: &str = "Recipe, data and network";
const METHOD: &str = "How it is hardened";
const OPTIMISER: &str = "How it is trained";
const WATCH: &str = "What is held out, watched and kept";
const TEST: &str = "How it is tested";
const RUN: &str = "Where the run lives";
const INSIDE: &str = "What it is doing";

/// Adversarially trains a network, and measures what it withstands.
///
/// With no arguments: PGD adversarial training (Linf, epsilon 0.3) of a small CNN on an embedded sample of MNIST, in
/// half a minute on two cores, on the GPU if there is one, else on the CPU. Results go into a new folder under runs/.
#[derive(Parser)]
#[command(version, about, max_term_width = 110, allow_negative_numbers = true)]
pub(crate) struct Flags {
    /// The recipe to begin from, a name from --list-recipes or a file (TOML); flags override it
    #[arg(long, help_heading = DATA, value_name = "NAME OR FILE")]
    pub(crate) recipe: Option<String>,
    /// List the recipes that are built in, and stop
    #[arg(long, help_heading = DATA)]
    pub(crate) list_recipes: bool,
    /// Data set: `mnist` (the embedded sample), `fashion-mnist` (where its Debian package is installed), or a folder or
    /// archive, whose format is told from what is there: the four IDX files, CIFAR-10 or CIFAR-100 in binary form,
    /// train.bin and test.bin with such records, train/CLASS/*.png or .jpg, train.csv and test.csv, or a file .npz
    #[arg(long, help_heading = DATA)]
    pub(crate) data: Option<String>,
    /// Resize pictures to so many pixels on each side: the shorter side, then the middle is cut out [default: as they are]
    #[arg(long, help_heading = DATA, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,
    /// Random changes of the training images: crop:4, crop:4:reflect, flip, cutout:14, brightness:0.2, contrast:0.2,
    /// mixup:1.4, cutmix:1; none
    #[arg(long, help_heading = DATA, value_name = "CHANGES", value_delimiter = ',')]
    pub(crate) augment: Option<Vec<String>>,
    /// Architecture: mlp (mlp-256-128 names hidden widths), mnist-fast, mnist-madry, lenet5, small-cnn, preact-resnet18
    /// (-fast, -gradalign, -nobn: the forms of other code), resnet18, resnet34 (-imagenet: torchvision's), resnet50, resnet101,
    /// resnet152, wide-resnet50-2, wide-resnet101-2, resnext50-32x4d, resnext101-32x8d, resnext101-64x4d (resnet50-cifar: for
    /// small images),
    /// wide-resnet-28-10 (depth, factor; -dropout0.3), vgg11-bn, vgg16-bn, convnext-tiny (-p2: patches of that side);
    /// resnet18-w16 names the width, -normalized at the end a normalisation of the pixels inside; or FILE.onnx, a network of
    /// other people, whose weights are what training begins from
    #[arg(long, help_heading = DATA)]
    pub(crate) model: Option<String>,
    /// Momentum of batch norm: the share of a new batch in its running statistics [default: PyTorch's 0.1]
    #[arg(long, help_heading = DATA, value_name = "SHARE")]
    pub(crate) batch_norm_momentum: Option<f64>,
    /// Training method: standard, fgsm, fgsm-rs, n-fgsm, pgd, free, trades, mart, grad-align or ducat; AWP goes round pgd,
    /// trades and mart (--awp-gamma)
    #[arg(long, help_heading = METHOD)]
    pub(crate) method: Option<String>,
    /// Norm of the perturbation: linf, l2 or l1
    #[arg(long, help_heading = METHOD)]
    pub(crate) norm: Option<String>,
    /// Radius of the perturbation in pixel values (0 to 1): a fraction as 8/255, or a decimal
    #[arg(long, help_heading = METHOD, allow_hyphen_values = true)]
    pub(crate) epsilon: Option<String>,
    /// Steps of the attack inside training (pgd, trades, mart, ducat)
    #[arg(long, help_heading = METHOD)]
    pub(crate) steps: Option<usize>,
    /// Length of a step, as epsilon is given [default: 1.25 epsilon for fgsm-rs, epsilon for n-fgsm,
    /// else 5/3 epsilon / steps]
    #[arg(long, help_heading = METHOD, allow_hyphen_values = true)]
    pub(crate) step_size: Option<String>,
    /// Where the attack of pgd, trades, mart and ducat starts: uniform (at random in the ball), normal (0.001 times normal
    /// noise), none (at the image), or auto (as the method's reference)
    #[arg(long, help_heading = METHOD, value_name = "WHERE")]
    pub(crate) start: Option<String>,
    /// Runs of that attack, the worst end of which is kept for each example
    #[arg(long, help_heading = METHOD, value_name = "RUNS")]
    pub(crate) restarts: Option<u32>,
    /// End that attack with the worst of its iterates
    #[arg(long, help_heading = METHOD, value_name = "BOOL")]
    pub(crate) use_best: Option<bool>,
    /// Label smoothing: this share of each target is spread over all classes
    #[arg(long, help_heading = METHOD, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f64>,
    /// Share of a batch that is adversarial, the rest being clean
    #[arg(long, help_heading = METHOD, value_name = "SHARE")]
    pub(crate) adversarial_ratio: Option<f64>,
    /// Learn from each image both clean and adversarial
    #[arg(long, help_heading = METHOD, value_name = "BOOL")]
    pub(crate) keep_clean: Option<bool>,
    /// Half width of the noise in epsilons (n-fgsm)
    #[arg(long, help_heading = METHOD, value_name = "EPSILONS")]
    pub(crate) noise: Option<f64>,
    /// Updates on each batch (free)
    #[arg(long, help_heading = METHOD, value_name = "UPDATES")]
    pub(crate) replays: Option<u32>,
    /// Weight of the robust part of the loss (trades, mart)
    #[arg(long, help_heading = METHOD)]
    pub(crate) beta: Option<f64>,
    /// Weight of the alignment of gradients (grad-align)
    #[arg(long, help_heading = METHOD, value_name = "LAMBDA")]
    pub(crate) grad_align_lambda: Option<f64>,
    /// How its gradient is had (grad-align): exact (second derivatives), or first-order (an approximation without)
    #[arg(long, help_heading = METHOD, value_name = "FORM")]
    pub(crate) grad_align_form: Option<String>,
    /// Adversarial weight perturbation round pgd, trades or mart: its size relative to each weight's; 0 does without
    #[arg(long, help_heading = METHOD, value_name = "GAMMA")]
    pub(crate) awp_gamma: Option<f64>,
    /// Epochs before that perturbation begins
    #[arg(long, help_heading = METHOD, value_name = "EPOCHS")]
    pub(crate) awp_warmup: Option<u32>,
    /// Epochs of pgd before dummy classes are learned (ducat)
    #[arg(long, help_heading = METHOD, value_name = "EPOCHS")]
    pub(crate) dummy_start: Option<u32>,
    /// Share of a clean image's target that goes to the dummy (ducat)
    #[arg(long, help_heading = METHOD, value_name = "SHARE")]
    pub(crate) dummy_clean: Option<f64>,
    /// Share of an adversarial image's target that goes to the dummy (ducat)
    #[arg(long, help_heading = METHOD, value_name = "SHARE")]
    pub(crate) dummy_adversarial: Option<f64>,
    /// Batch norm inside the attack: eval (running statistics), train (the batch's, updating the running ones) or
    /// train-frozen (the batch's)
    #[arg(long, help_heading = METHOD, value_name = "MODE")]
    pub(crate) attack_batch_norm: Option<String>,
    /// What the attack inside training is computed in: f32, or f16 for half precision (on the CPU bf16, where the
    /// processor has it); the weight update stays in f32
    #[arg(long, help_heading = METHOD, value_name = "PRECISION")]
    pub(crate) attack_precision: Option<String>,
    /// Share of the run over which epsilon and step size grow from 0
    #[arg(long, help_heading = METHOD, value_name = "SHARE")]
    pub(crate) epsilon_warmup: Option<f64>,
    /// Whether the step size grows with it
    #[arg(long, help_heading = METHOD, value_name = "BOOL")]
    pub(crate) step_size_warmup: Option<bool>,
    /// Passes over the training images
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) epochs: Option<u32>,
    /// Images in a batch
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) batch: Option<usize>,
    /// Optimiser: sgd (with --momentum, --nesterov), adam or adamw (with --beta1, --beta2, --adam-epsilon)
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) optimizer: Option<String>,
    /// Largest learning rate
    #[arg(long, help_heading = OPTIMISER, value_name = "RATE")]
    pub(crate) learning_rate: Option<f64>,
    /// Learning rate over the run: constant, linear, cosine, cyclic (up to the full rate, down to 0), one-cycle
    /// (PyTorch's), piecewise (1/10 at 50 % and 75 %), multistep or interpolated
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) schedule: Option<String>,
    /// Where the rate of a step is read: end (after the step), start (before it), epoch (before its epoch), or auto
    /// (start for one-cycle and multistep, else end)
    #[arg(long, help_heading = OPTIMISER, value_name = "PLACE")]
    pub(crate) schedule_at: Option<String>,
    /// Share of the run at which cyclic and one-cycle are at the full rate [default with --schedule one-cycle: 0.3, as
    /// PyTorch's]
    #[arg(long, help_heading = OPTIMISER, value_name = "SHARE")]
    pub(crate) schedule_peak: Option<f64>,
    /// Points of multistep and interpolated: below 1 shares of the run, from 1 on epochs, as 0.5,0.75 or 100,150
    #[arg(long, help_heading = OPTIMISER, value_name = "POINTS", value_delimiter = ',')]
    pub(crate) milestones: Option<Vec<f64>>,
    /// multistep: factor at each milestone (one number for all); interpolated: factor on the full rate at each
    #[arg(long, help_heading = OPTIMISER, value_name = "FACTORS", value_delimiter = ',')]
    pub(crate) schedule_factors: Option<Vec<f64>>,
    /// Over this share of the run (below 1) or so many epochs (from 1) the learning rate first rises from 0
    #[arg(long, help_heading = OPTIMISER, value_name = "SHARE")]
    pub(crate) learning_rate_warmup: Option<f64>,
    /// Momentum of sgd
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) momentum: Option<f64>,
    /// Nesterov's form of momentum
    #[arg(long, help_heading = OPTIMISER, value_name = "BOOL")]
    pub(crate) nesterov: Option<bool>,
    /// Decay rate of adam's average of gradients
    #[arg(long, help_heading = OPTIMISER, value_name = "RATE")]
    pub(crate) beta1: Option<f64>,
    /// Decay rate of adam's average of squared gradients
    #[arg(long, help_heading = OPTIMISER, value_name = "RATE")]
    pub(crate) beta2: Option<f64>,
    /// What adam adds to the root that it divides by
    #[arg(long, help_heading = OPTIMISER, value_name = "NUMBER")]
    pub(crate) adam_epsilon: Option<f64>,
    /// Weight decay
    #[arg(long, help_heading = OPTIMISER, value_name = "DECAY")]
    pub(crate) weight_decay: Option<f64>,
    /// What weight decay is on: all parameters, no-norm-bias, or weights of convolutions and linear layers alone
    #[arg(long, help_heading = OPTIMISER, value_name = "WHAT")]
    pub(crate) weight_decay_on: Option<String>,
    /// Largest norm of the gradient, a longer one is scaled down to it; 0 does without
    #[arg(long, help_heading = OPTIMISER, value_name = "NORM")]
    pub(crate) clip_gradient: Option<f64>,
    /// Images that pass through the network at once, a divisor of the batch, where a whole batch does not fit into memory:
    /// gradients are summed before the one update (batch norm sees the images of one pass); 0 takes whole batches
    #[arg(long, help_heading = OPTIMISER, value_name = "IMAGES")]
    pub(crate) micro_batch: Option<usize>,
    /// Decay of averaged weights (EMA), which are then what is validated and saved; 0 does without
    #[arg(long, help_heading = OPTIMISER, value_name = "DECAY")]
    pub(crate) weight_average: Option<f64>,
    /// Share of the run after which averaging begins, with a decay that grows; 0 averages from the first step
    #[arg(long, help_heading = OPTIMISER, value_name = "SHARE")]
    pub(crate) weight_average_warmup: Option<f64>,
    /// Running statistics beside averaged weights: copy (of the trained weights), average, or recompute (by a pass over
    /// the training images after every epoch, as SWA has it)
    #[arg(long, help_heading = OPTIMISER, value_name = "HOW")]
    pub(crate) weight_average_buffers: Option<String>,
    /// Average snapshots of the weights (SWA) from here on, below 1 a share of the run, from 1 epochs; 0 does without
    #[arg(long, help_heading = OPTIMISER, value_name = "START")]
    pub(crate) swa_start: Option<f64>,
    /// Snapshots after every epoch or step
    #[arg(long, help_heading = OPTIMISER, value_name = "WHEN")]
    pub(crate) swa_every: Option<String>,
    /// Begin from these weights: a safetensors file, a .pt or .pth file of PyTorch (nothing in it is run), or the folder
    /// of a run
    #[arg(long, help_heading = DATA, value_name = "FILE")]
    pub(crate) weights: Option<String>,
    /// What the names in those weights mean, where they are others than PyTorch's, torchvision's and RobustBench's: a
    /// table (TOML) with lines as "encoder.*" = "*" under [names]
    #[arg(long, help_heading = DATA, value_name = "FILE")]
    pub(crate) weights_names: Option<String>,
    /// Of those weights, keep the last layer, or redraw it, as other classes need it
    #[arg(long, help_heading = DATA, value_name = "WHICH")]
    pub(crate) weights_head: Option<String>,
    /// Images held out of the training set to choose the checkpoint by
    #[arg(long, help_heading = WATCH, value_name = "IMAGES")]
    pub(crate) validation: Option<usize>,
    /// Hold them out in groups of so many neighbours of one class, where these show one object (frames of a film,
    /// photographs of one sign) [default: one by one]
    #[arg(long, help_heading = WATCH, value_name = "IMAGES")]
    pub(crate) validation_group: Option<usize>,
    /// Nor train on so many neighbours of one class on either side of what is held out: for groups that may begin or end
    /// within an object
    #[arg(long, help_heading = WATCH, value_name = "IMAGES")]
    pub(crate) validation_gap: Option<usize>,
    /// Train on so many of the remaining images alone, of each class its share; 0 takes all
    #[arg(long, help_heading = DATA, value_name = "IMAGES")]
    pub(crate) train_images: Option<usize>,
    /// Stop after so many epochs without a better robust validation accuracy; 0 never does
    #[arg(long, help_heading = WATCH, value_name = "EPOCHS")]
    pub(crate) patience: Option<u32>,
    /// Training images, always the same, that PGD-5 attacks after each epoch to see catastrophic overfitting; 0 does
    /// without
    #[arg(long, help_heading = WATCH, value_name = "IMAGES")]
    pub(crate) probe: Option<usize>,
    /// What to do about catastrophic overfitting: warn; stop; or back, which goes back to the weights from before the
    /// epoch and stops
    #[arg(long, help_heading = WATCH, value_name = "WHAT")]
    pub(crate) on_collapse: Option<String>,
    /// Measure test images too every so many epochs, for the curves alone: they choose nothing; 0 never does
    #[arg(long, help_heading = WATCH, value_name = "EPOCHS")]
    pub(crate) test_every: Option<u32>,
    /// Test images that --test-every measures, of each class its share
    #[arg(long, help_heading = WATCH, value_name = "IMAGES")]
    pub(crate) test_images: Option<usize>,
    /// Save what the run goes on from within epochs too, every so many minutes (2min, 0.5min) or steps (500); 0 saves at
    /// the end of epochs alone
    #[arg(long, help_heading = WATCH, value_name = "HOW OFTEN", default_value = "3min")]
    pub(crate) checkpoint_every: CheckpointEvery,
    /// Seed of everything random
    #[arg(long, help_heading = OPTIMISER)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    /// Folder for the results; must not hold files yet [default: a new one under runs/]
    #[arg(long, help_heading = RUN, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the interrupted run in this folder, to the same bits as if it had not stopped
    #[arg(long, help_heading = RUN, value_name = "FOLDER")]
    pub(crate) resume: Option<PathBuf>,
    /// Steps of the PGD attack on the test images
    #[arg(long, help_heading = TEST, default_value_t = 40, value_name = "STEPS")]
    pub(crate) test_steps: usize,
    /// Step size of the PGD attack on the test images [default: epsilon / 30, or 4/3 epsilon / steps where that is
    /// more]
    #[arg(long, help_heading = TEST, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) test_step_size: Option<String>,
    /// Restarts of the PGD attack on the test images
    #[arg(long, help_heading = TEST, default_value_t = 1, value_name = "RESTARTS")]
    pub(crate) test_restarts: u32,
    /// Also attack the test images of one class so that they are read as one of others: 14:2,5 turns class 14 into 2 or 5
    /// (turned.json, turned.png)
    #[arg(long, help_heading = TEST, value_name = "CLASS:CLASSES")]
    pub(crate) turn: Option<String>,
    /// Also write the logits of the clean test images, to compare with another program's (safetensors, `logits`)
    #[arg(long, help_heading = TEST, value_name = "FILE")]
    pub(crate) logits: Option<PathBuf>,
    /// Also write the network with its best weights as an ONNX file, normalisation included; with --resume of a run that is
    /// over, that alone is done
    #[arg(long, help_heading = RUN, value_name = "FILE")]
    pub(crate) export_onnx: Option<PathBuf>,
    /// Record what host and device do while training, for ui.perfetto.dev or chrome://tracing (JSON)
    #[arg(long, help_heading = INSIDE, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Measure the kernels' variants on this GPU once, for a minute at most, and remember which are fastest. Off by
    /// default: another kernel adds in another order, so that results depend on what was measured
    #[arg(long, help_heading = DEVICE)]
    pub(crate) tune: bool,
    /// The file in which the tuner remembers [default with --tune: one for this GPU in the user's cache folder]; without
    /// --tune nothing is measured, and what the file does not know takes the default kernels. A resumed run goes by the
    /// copy in its own folder
    #[arg(long, help_heading = DEVICE, value_name = "FILE")]
    pub(crate) tune_cache: Option<PathBuf>,
    /// Train with the other processes that mpirun started, each on its share of every batch (needs a build with --features
    /// mpi)
    #[arg(long, help_heading = DEVICE)]
    pub(crate) mpi: bool,
    /// Print the plan of a training step (every launch with shape, bytes and flops; memory) and stop
    #[arg(long, help_heading = INSIDE)]
    pub(crate) dry_run: bool,
    /// Time every launch of one training step on the device, print the table and stop
    #[arg(long, help_heading = INSIDE)]
    pub(crate) profile: bool,
}

/// Calls a macro with the flags that change a recipe, by the recipe's names of them.
macro_rules! recipe_flags {
    ($call:ident) => {
        $call!(data image_size augment model batch_norm_momentum method norm epsilon steps step_size start restarts use_best label_smoothing
               adversarial_ratio keep_clean noise replays beta grad_align_lambda grad_align_form awp_gamma awp_warmup
               dummy_start dummy_clean dummy_adversarial step_size_warmup attack_batch_norm attack_precision
               epsilon_warmup epochs
               batch optimizer learning_rate momentum nesterov beta1 beta2 adam_epsilon weight_decay weight_decay_on
               schedule schedule_at schedule_peak milestones schedule_factors learning_rate_warmup
               clip_gradient micro_batch weight_average_warmup weight_average_buffers swa_start swa_every
               weights weights_names weights_head
               weight_average validation validation_group validation_gap seed
               train_images patience probe on_collapse test_every test_images)
    };
}

impl Flags {
    /// Lays the flags over a recipe. A step size that is not given follows from epsilon, steps and method where one
    /// of those is.
    pub(crate) fn over(&self, mut recipe: Recipe) -> Result<Recipe> {
        macro_rules! take {
            ($($field:ident)*) => {$(if let Some(value) = &self.$field { recipe.$field = value.clone(); })*};
        }
        recipe_flags!(take);
        let follows = self.epsilon.is_some() || self.steps.is_some() || self.method.is_some();
        if self.step_size.is_none() && follows {
            let epsilon = recipe.threat()?.epsilon.value();
            let step = match recipe.method.as_str() {
                "fgsm-rs" => 1.25 * epsilon,
                "n-fgsm" => epsilon,
                _ => 5.0 / 3.0 * epsilon / recipe.steps.max(1) as f64,
            };
            // Six digits: what is meant, not what binary fractions make of it.
            recipe.step_size = ((step * 1e6).round() / 1e6).to_string();
        }
        if self.schedule.as_deref() == Some("one-cycle") && self.schedule_peak.is_none() {
            recipe.schedule_peak = 0.3;
        }
        if self.swa_start.is_some_and(|start| start > 0.0) && self.weight_average.is_none() {
            recipe.weight_average = 0.0;
        }
        recipe.check()?;
        Ok(recipe)
    }

    /// Refuses values that are wrong whatever the recipe and the data are.
    pub(crate) fn check(&self) -> Result<()> {
        let zero = |what: &str| Err(Error::argument(what, 0, "must be at least 1"));
        if self.test_steps == 0 {
            return zero("test steps");
        }
        if self.test_restarts == 0 {
            return zero("test restarts");
        }
        if self.resume.is_some() {
            let mut given = Vec::new();
            macro_rules! name {
                ($($field:ident)*) => {$(if self.$field.is_some() { given.push(stringify!($field)); })*};
            }
            recipe_flags!(name);
            name!(recipe out tune_cache);
            if self.tune {
                given.push("tune");
            }
            if !given.is_empty() {
                let given: Vec<String> =
                    given.iter().map(|name| format!("--{}", name.replace('_', "-"))).collect();
                let why = "a resumed run goes on in its folder with its own recipe and its own choice of kernels: leave \
                           these flags out";
                return Err(Error::argument("resume", format!("with {}", given.join(", ")), why));
            }
        }
        self.export_onnx.as_deref().map_or(Ok(()), onnx::check)?;
        let written =
            [("--logits", &self.logits), ("--trace", &self.trace), ("--export-onnx", &self.export_onnx)];
        for (flag, file) in written {
            if let Some(folder) = file.as_deref().filter(|path| path.is_dir()) {
                return Err(Error::file(
                    folder,
                    format!("is a folder, but {flag} takes the file to write: name it too"),
                ));
            }
            if let Some(folder) = file.as_deref().and_then(Path::parent)
                && !folder.as_os_str().is_empty()
                && !folder.is_dir()
            {
                let why = format!("is no folder, but {flag} is to write a file into it: make it first");
                return Err(Error::file(folder, why));
            }
        }
        Ok(())
    }

    /// The attack on the test images.
    pub(crate) fn test_attack(&self, recipe: &Recipe) -> Result<Pgd> {
        let usual = Pgd::usual(recipe.threat()?, self.test_steps);
        Ok(match &self.test_step_size {
            Some(text) => Pgd { step_size: rational("test step size", text)?, ..usual },
            None => usual,
        })
    }
}
