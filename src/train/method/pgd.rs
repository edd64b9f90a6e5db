//! PGD adversarial training (Madry et al. 2018).

use super::{Batch, Method, Objective};
use crate::attack::{Attack, Pgd};
use crate::error::{Error, Result};
use crate::train::Recipe;

/// Cross-entropy on PGD's images.
struct PgdTraining(Pgd);

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    if recipe.steps == 0 {
        return Err(Error::argument("steps", 0, "pgd takes at least 1 step; see method `standard`"));
    }
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    let Recipe { steps, random_start, .. } = *recipe;
    Ok(Box::new(PgdTraining(Pgd { threat, steps, step_size, random_start })))
}

impl Method for PgdTraining {
    fn name(&self) -> String {
        "pgd".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.0
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let logits = batch.logits(batch.adversarial);
        Objective::new(batch, batch.targets.cross_entropy(logits), logits)
    }
}
