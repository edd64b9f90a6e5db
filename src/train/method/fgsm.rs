//! Training on FGSM from the image itself (Goodfellow et al. 2015). Prone to catastrophic overfitting: the network
//! learns to mask its gradient, and PGD breaks it; watch the validation accuracy.

use super::{Batch, Method, Objective};
use crate::attack::{Attack, Fgsm};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on FGSM's images.
struct FgsmTraining(Fgsm);

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    Ok(Box::new(FgsmTraining(Fgsm { threat: recipe.threat()? })))
}

impl Method for FgsmTraining {
    fn name(&self) -> String {
        "fgsm".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let logits = batch.logits(batch.adversarial);
        Objective::new(batch, batch.targets.cross_entropy(logits), logits)
    }
}
