//! Adversarial weight perturbation (Wu et al. 2020, "Adversarial Weight Perturbation Helps Robust Generalization"; AWP,
//! utils_awp.py; spec 2.6), round another method.

use super::{Batch, Method, Objective};
use crate::attack::Attack;
use crate::error::{Error, Result};
use crate::nn::Net;
use crate::shape::DType;
use crate::tape::Var;
use crate::train::Recipe;

/// Before the update, weights w of convolutions and linear layers are moved up the loss, each tensor by
/// `v = gamma |w| g / (|g| + 1e-20)`, g being its gradient. The update then follows the gradient there (momentum and
/// weight decay see the perturbed weights, as in the reference), and v is taken off again. The first gradient is taken
/// with the batch's statistics, as the reference's throw-away copy takes it: running statistics see the update alone.
pub(super) struct Awp {
    inner: Box<dyn Method>,
    gamma: f64,
    /// Epochs without perturbation at the start of a run.
    warmup: u32,
}

/// The methods it goes round.
const ROUND: [&str; 3] = ["pgd", "trades", "mart"];

/// `inner`, with AWP round it if the recipe's `awp_gamma` is above 0.
///
/// # Errors
/// [`Error::Argument`] for a method that it does not go round.
pub(super) fn wrap(recipe: &Recipe, inner: Box<dyn Method>) -> Result<Box<dyn Method>> {
    let (gamma, warmup) = (recipe.awp_gamma, recipe.awp_warmup);
    match gamma {
        0.0 if warmup == 0 => return Ok(inner),
        0.0 => {
            let why = "there is nothing to warm up to: awp-gamma is 0, which does without";
            return Err(Error::argument("awp warm-up", warmup, why));
        }
        gamma if gamma > 0.0 && gamma <= 1.0 => {}
        gamma => return Err(Error::argument("awp gamma", gamma, "must be a number from 0 to 1")),
    }
    if !ROUND.contains(&recipe.method.as_str()) {
        let why = match recipe.method.as_str() {
            "free" => {
                "its weights and its perturbation share one pass, with nothing between to perturb weights by"
            }
            "standard" => "it perturbs weights on adversarial images",
            _ => "it is not known how, or whether, that works",
        };
        let why =
            format!("is not combined with `{}`: {why}; it goes round {}", recipe.method, ROUND.join(", "));
        return Err(Error::argument("awp gamma", gamma, why));
    }
    Ok(Box::new(Awp { inner, gamma, warmup }))
}

/// The tensor of a weight's perturbation.
fn perturbation(name: &str) -> String {
    format!("awp/{name}")
}

/// Names of the weights that are perturbed: of two axes or more, so not biases nor batch norm.
fn perturbed(net: &Net<'_>) -> Vec<String> {
    let params = net.params().into_iter();
    params.filter(|param| param.role.is_weight() && param.shape.rank() > 1).map(|param| param.name).collect()
}

/// Euclidean length of a tensor, a scalar.
fn norm(v: Var<'_>) -> Var<'_> {
    v.square().sum_all().sqrt()
}

impl Awp {
    fn perturbs(&self, stage: usize) -> bool {
        self.warmup == 0 || stage > 0
    }
}

impl Method for Awp {
    fn name(&self) -> String {
        format!("{} with AWP", self.inner.name())
    }

    fn attack(&self) -> &dyn Attack {
        self.inner.attack()
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        self.inner.objective(batch)
    }

    fn stages(&self) -> Vec<u32> {
        if self.warmup == 0 { Vec::new() } else { vec![self.warmup] }
    }

    fn prepares(&self, stage: usize) -> bool {
        self.perturbs(stage)
    }

    fn prepare(&self, batch: &Batch<'_, '_>) {
        let tape = batch.tape();
        let losses = self.inner.objective(batch).losses.scale(1.0 / batch.size() as f64);
        let perturbed = perturbed(batch.net);
        let weights: Vec<_> =
            batch.net.weights().into_iter().filter(|(name, _)| perturbed.contains(name)).collect();
        let vars: Vec<Var<'_>> = weights.iter().map(|(_, var)| *var).collect();
        tape.scope("perturb", || {
            for ((name, weight), gradient) in weights.iter().zip(tape.grad(losses, &vars)) {
                let size = norm(*weight).scale(self.gamma) / norm(gradient).affine(1.0, 1e-20);
                let v = gradient * size;
                tape.assign(&perturbation(name), v);
                tape.assign(name, *weight + v);
            }
        });
    }

    fn updated<'t>(&self, batch: &Batch<'_, 't>, name: &str, updated: Var<'t>) -> Var<'t> {
        if !self.perturbs(batch.stage) || !perturbed(batch.net).iter().any(|have| have == name) {
            return updated;
        }
        updated - batch.tape().source(&perturbation(name), updated.shape(), DType::F32)
    }

    fn takes_soft_targets(&self) -> bool {
        self.inner.takes_soft_targets()
    }
}
