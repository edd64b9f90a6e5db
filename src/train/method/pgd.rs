//! PGD adversarial training (Madry et al. 2018). With restarts it keeps the worst end for each example (Rice et al. 2020),
//! with `use_best` the worst iterate (MadryLab's robustness); spec 2.1.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective};
use crate::attack::{Ascent, Attack, InnerPgd, Start};
use crate::error::{Error, Result};
use crate::train::Recipe;

/// Cross-entropy on PGD's images.
struct PgdTraining {
    attack: InnerPgd,
    loss: CrossEntropy,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let attack = inner(recipe, Ascent::CrossEntropy, Start::Uniform)?;
    Ok(Box::new(PgdTraining { attack, loss: CrossEntropy::of(recipe)? }))
}

/// The recipe's PGD, climbing this, from `usual` where the recipe names no start.
///
/// # Errors
/// [`Error::Argument`] for numbers it refuses.
pub(super) fn inner(recipe: &Recipe, ascends: Ascent, usual: Start) -> Result<InnerPgd> {
    let (threat, step_size) = (recipe.threat()?, recipe.step()?);
    let Recipe { steps, restarts, use_best: keeps_best, .. } = *recipe;
    if steps == 0 {
        let why = format!("{} takes at least 1 step; see method `standard`", recipe.method);
        return Err(Error::argument("steps", 0, why));
    }
    let start = recipe.start()?.unwrap_or(usual);
    match (restarts, start) {
        (0, _) => return Err(Error::argument("restarts", 0, "must be at least 1")),
        (2.., Start::None) => {
            let why = "from the image itself every run ends at the same place: use one, or a random start";
            return Err(Error::argument("restarts", restarts, why));
        }
        _ => {}
    }
    Ok(InnerPgd { threat, steps, step_size, start, ascends, restarts, keeps_best })
}

impl Method for PgdTraining {
    fn name(&self) -> String {
        "pgd".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        self.loss.objective(batch)
    }
}
