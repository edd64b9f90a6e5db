//! Training methods: which attack finds the images that are learned from.

use super::Recipe;
use crate::attack::{Attack, Fgsm, FgsmRs, Pgd};
use crate::error::{Error, Result};
use crate::tape::Var;

/// Names of the methods.
pub const METHODS: [&str; 4] = ["standard", "fgsm", "fgsm-rs", "pgd"];

/// A training method: an inner attack, and a loss an example.
pub trait Method: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The attack on each batch.
    fn attack(&self) -> &dyn Attack;

    /// Whether the images learned from are attacked ones: the training accuracy is then a robust one.
    fn is_adversarial(&self) -> bool {
        true
    }

    /// The loss of each example `[B]`, of logits `[B,C]` of its adversarial image: the cross-entropy.
    fn loss<'t>(&self, adversarial: Var<'t>, labels: Var<'t>) -> Var<'t> {
        adversarial.cross_entropy(labels)
    }
}

/// The method a recipe names, with the recipe's numbers.
///
/// # Errors
/// [`Error::Argument`] for an unknown method or a number it refuses.
pub fn method(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    let pgd =
        Pgd { threat: threat.clone(), steps: recipe.steps, step_size, random_start: recipe.random_start };
    match recipe.method.as_str() {
        "standard" => Ok(Box::new(Standard(Pgd { steps: 0, random_start: false, ..pgd }))),
        "fgsm" => Ok(Box::new(FgsmTraining(Fgsm { threat }))),
        "fgsm-rs" => {
            let clip_start = recipe.clip_start;
            Ok(Box::new(FastTraining(FgsmRs { threat, step_size: pgd.step_size, clip_start })))
        }
        "pgd" if pgd.steps == 0 => {
            Err(Error::argument("steps", 0, "pgd takes at least 1 step; see method `standard`"))
        }
        "pgd" => Ok(Box::new(PgdTraining(pgd))),
        other => Err(Error::unknown("method", other, &METHODS)),
    }
}

/// Ordinary training: no steps, no perturbation.
struct Standard(Pgd);

impl Method for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }

    fn is_adversarial(&self) -> bool {
        false
    }
}

/// Training on FGSM from the image itself (Goodfellow et al. 2015). Prone to catastrophic overfitting: the network
/// learns to mask its gradient, and PGD breaks it; watch the validation accuracy.
struct FgsmTraining(Fgsm);

impl Method for FgsmTraining {
    fn name(&self) -> &'static str {
        "fgsm"
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }
}

/// "Fast is better than free" (Wong et al. 2020): FGSM from a random start with a step of 1.25 epsilon.
struct FastTraining(FgsmRs);

impl Method for FastTraining {
    fn name(&self) -> &'static str {
        "fgsm-rs"
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }
}

/// PGD adversarial training (Madry et al. 2018).
struct PgdTraining(Pgd);

impl Method for PgdTraining {
    fn name(&self) -> &'static str {
        "pgd"
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }
}
