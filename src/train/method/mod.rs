//! Training methods: how a batch is attacked, and what is learned from it. A method a file, each to be held against its
//! paper.
//!
//! A method records; the trainer compiles. Of a step, the batch is loaded, the method's [`Attack`] moves its images, what
//! the method wants done before the update runs as a plan of its own ([`Method::prepare`]), and the update follows the
//! gradient of its [`Objective`].

mod awp;
mod ducat;
mod fgsm;
mod fgsm_rs;
mod free;
mod grad_align;
mod loss;
mod mart;
mod n_fgsm;
mod pgd;
mod standard;
mod trades;

pub use loss::Objective;

use super::Recipe;
use crate::attack::{Attack, Ball, Names, Norm, Targets};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Mode, Net};
use crate::shape::{DType, Shape};
use crate::tape::{Draw, Tape, Var};

/// Names of the methods.
pub const METHODS: [&str; 10] =
    ["standard", "fgsm", "fgsm-rs", "n-fgsm", "pgd", "free", "trades", "mart", "grad-align", "ducat"];

/// A training method.
pub trait Method: Send + Sync {
    /// Its name, as tables print it.
    fn name(&self) -> String;

    /// The attack on each batch.
    fn attack(&self) -> &dyn Attack;

    /// Whether the images learned from are attacked ones: the training accuracy is then a robust one.
    fn is_adversarial(&self) -> bool {
        true
    }

    /// Records what an update descends.
    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t>;

    /// Epochs, counted from 0 and rising, at which what is recorded changes: the first stage is before them all, and
    /// [`Batch::stage`] says which is recorded.
    fn stages(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Whether something runs between the attack and the update in this stage, as a plan of its own: what it assigns is
    /// constant to the update.
    fn prepares(&self, _stage: usize) -> bool {
        false
    }

    /// Records that. The batch's network leaves running statistics alone.
    fn prepare(&self, _batch: &Batch<'_, '_>) {}

    /// What becomes of weight `name` after the optimiser gave it `updated`.
    fn updated<'t>(&self, _batch: &Batch<'_, 't>, _name: &str, updated: Var<'t>) -> Var<'t> {
        updated
    }

    /// Updates in a row on each batch.
    fn replays(&self) -> u32 {
        1
    }

    /// Tensors that it carries from step to step, all zero at the start of a run, for whole batches of images of this
    /// shape `[B,H,W,C]`: saved in checkpoints.
    fn state(&self, _images: Shape) -> Vec<(String, Shape)> {
        Vec::new()
    }

    /// Whether vectors of features can be learned from, with their own bounds and what of them may be changed.
    fn takes_features(&self) -> bool {
        true
    }

    /// Whether its network has a second, dummy output for each class: see [`crate::nn::Dummies`].
    fn has_dummies(&self) -> bool {
        false
    }

    /// Whether images that are mixtures of classes ([`Targets::soft`]) can be learned from.
    fn takes_soft_targets(&self) -> bool {
        true
    }
}

/// A batch on a tape, as a method sees it: images, what the attack made of them, what they are, and the network.
pub struct Batch<'a, 't> {
    /// The network's architecture.
    pub architecture: &'a dyn Architecture,
    /// The forward passes recorded through it share weights, and each updates the running statistics in order.
    pub net: &'a Net<'t>,
    /// Clean images, `[B,H,W,C]`.
    pub x: Var<'t>,
    /// Adversarial images, `[B,H,W,C]`.
    pub adversarial: Var<'t>,
    /// What they are.
    pub targets: Targets<'t>,
    /// What random numbers are a function of.
    pub draw: Draw<'t>,
    /// The ball round the clean images.
    pub ball: Ball<'t>,
    /// Which stage is recorded, see [`Method::stages`].
    pub stage: usize,
    /// Images of a whole batch; this one may be an epoch's short last one.
    pub whole: usize,
    names: &'a Names,
}

impl<'a, 't> Batch<'a, 't> {
    /// The batch of these names as it stands in the store, for `net` to be recorded on.
    pub fn new(
        architecture: &'a dyn Architecture,
        net: &'a Net<'t>,
        attack: &dyn Attack,
        names: &'a Names,
        [batch, whole]: [usize; 2],
        stage: usize,
    ) -> Batch<'a, 't> {
        let tape = net.tape();
        let [h, w, c] = architecture.input();
        let images = Shape::new(&[batch, h, w, c]);
        let (x, _, adversarial) = names.batch(tape, images);
        let (targets, draw) = (names.targets(tape, batch), names.draw(tape, batch));
        let ball = names.ball(tape, attack.threat().norm, images);
        Batch { architecture, net, x, adversarial, targets, draw, ball, stage, whole, names }
    }

    /// The tape.
    pub fn tape(&self) -> &'t Tape {
        self.net.tape()
    }

    /// Number of images.
    pub fn size(&self) -> usize {
        self.x.shape()[0]
    }

    /// Records a forward pass: logits `[B, outputs]`.
    pub fn logits(&self, images: Var<'t>) -> Var<'t> {
        self.architecture.forward(self.net, images)
    }

    /// 1 where logits say the right class, `[B]`.
    pub fn correct(&self, logits: Var<'t>) -> Var<'t> {
        self.architecture.verdict(logits).correct(self.targets.labels)
    }

    /// A tensor of this batch's names, that the method assigns in one plan and reads in the next.
    pub fn tensor(&self, what: &str, shape: Shape) -> Var<'t> {
        self.names.source(self.tape(), what, shape, DType::F32)
    }

    /// Assigns such a tensor.
    pub fn assign(&self, what: &str, value: Var<'t>) {
        self.tape().assign(&self.names.of(what), value);
    }

    /// The same batch through a network that normalises by the batch and leaves running statistics alone; it shares the
    /// weights.
    pub fn frozen(&self) -> Net<'t> {
        Net::new(self.tape(), Mode::TrainFrozen).with_draw(self.draw)
    }
}

/// The method a recipe names, with the recipe's numbers.
///
/// # Errors
/// [`Error::Argument`] for an unknown method or a number it refuses.
pub fn method(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let method = match recipe.method.as_str() {
        "standard" => standard::of(recipe),
        "fgsm" => fgsm::of(recipe),
        "fgsm-rs" => fgsm_rs::of(recipe),
        "n-fgsm" => n_fgsm::of(recipe),
        "pgd" => pgd::of(recipe),
        "free" => free::of(recipe),
        "trades" => trades::of(recipe),
        "mart" => mart::of(recipe),
        "grad-align" => grad_align::of(recipe),
        "ducat" => ducat::of(recipe),
        other => Err(Error::unknown("method", other, &METHODS)),
    }?;
    // What these keys ask for would not happen, and the run would be taken for one in which it did.
    if !matches!(recipe.method.as_str(), "pgd" | "trades" | "mart" | "ducat") {
        let refuse = |what: &str, value: String| {
            let why = format!("is of pgd, trades, mart and ducat; `{}` does without", recipe.method);
            Err(Error::argument(what, value, why))
        };
        if recipe.restarts != 1 {
            return refuse("restarts", recipe.restarts.to_string());
        }
        if recipe.use_best {
            return refuse("use-best", "true".into());
        }
        if recipe.start()?.is_some() {
            return refuse("start", format!("`{}`", recipe.start));
        }
    }
    awp::wrap(recipe, method)
}

/// # Errors
/// [`Error::Argument`] for another norm than Linf.
fn only_linf(recipe: &Recipe) -> Result<()> {
    match recipe.threat()?.norm {
        Norm::Linf => Ok(()),
        norm => {
            let why = format!(
                "`{}` is defined by signs of gradients in Linf; pgd, trades and mart take any norm",
                recipe.method
            );
            Err(Error::argument("norm", norm, why))
        }
    }
}

/// The recipe's beta.
///
/// # Errors
/// [`Error::Argument`].
fn beta(recipe: &Recipe) -> Result<f64> {
    match recipe.beta {
        beta if (0.0..=1e6).contains(&beta) => Ok(beta),
        beta => Err(Error::argument("beta", beta, "must be a number from 0 to 1000000")),
    }
}
