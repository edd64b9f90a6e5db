//! "Fast is better than free" (Wong et al. 2020): FGSM from a random start with a step of 1.25 epsilon.

use super::{Batch, Method, Objective};
use crate::attack::{Attack, FgsmRs};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on FGSM-RS's images.
struct FastTraining(FgsmRs);

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    Ok(Box::new(FastTraining(FgsmRs { threat, step_size, clip_start: recipe.clip_start })))
}

impl Method for FastTraining {
    fn name(&self) -> String {
        "fgsm-rs".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let logits = batch.logits(batch.adversarial);
        Objective::new(batch, batch.targets.cross_entropy(logits), logits)
    }
}
