//! Training on FGSM from the image itself (Goodfellow et al. 2015). Prone to catastrophic overfitting: the network
//! learns to mask its gradient, and PGD breaks it; watch the validation accuracy.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective};
use crate::attack::{Attack, Fgsm};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on FGSM's images.
struct FgsmTraining {
    attack: Fgsm,
    loss: CrossEntropy,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let attack = Fgsm { threat: recipe.threat()? };
    Ok(Box::new(FgsmTraining { attack, loss: CrossEntropy::of(recipe)? }))
}

impl Method for FgsmTraining {
    fn name(&self) -> String {
        "fgsm".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        self.loss.objective(batch)
    }
}
