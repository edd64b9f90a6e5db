//! Ordinary training: no steps, no perturbation.

use super::{Batch, Method, Objective};
use crate::attack::{Attack, Pgd};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on the clean images.
struct Standard(Pgd);

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    Ok(Box::new(Standard(Pgd { threat, steps: 0, step_size, random_start: false })))
}

impl Method for Standard {
    fn name(&self) -> String {
        "standard".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }

    fn is_adversarial(&self) -> bool {
        false
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let logits = batch.logits(batch.x);
        Objective::new(batch, batch.targets.cross_entropy(logits), logits)
    }
}
