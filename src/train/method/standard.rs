//! Ordinary training: no steps, no perturbation.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective};
use crate::attack::{Attack, Pgd};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on the clean images.
struct Standard {
    attack: Pgd,
    loss: CrossEntropy,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    let attack = Pgd { threat, steps: 0, step_size, random_start: false };
    let loss = CrossEntropy::unmixed(recipe, "it has no adversarial images")?;
    Ok(Box::new(Standard { attack, loss }))
}

impl Method for Standard {
    fn name(&self) -> String {
        "standard".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn is_adversarial(&self) -> bool {
        false
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let logits = batch.logits(batch.x);
        Objective::new(batch, self.loss.losses(batch, logits), logits)
    }
}
