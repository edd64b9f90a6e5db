//! "Fast is better than free" (Wong et al. 2020; fast_adversarial, train_fgsm.py and train_mnist.py; spec 2.2): FGSM from
//! a random start with a step of 1.25 epsilon.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective};
use crate::attack::{Attack, FgsmRs};
use crate::error::Result;
use crate::train::Recipe;

/// Cross-entropy on FGSM-RS's images.
struct FastTraining {
    attack: FgsmRs,
    loss: CrossEntropy,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let (threat, step_size, clip_start) = (recipe.threat()?, recipe.step()?, recipe.clip_start);
    let attack = FgsmRs { threat, step_size, clip_start };
    Ok(Box::new(FastTraining { attack, loss: CrossEntropy::of(recipe)? }))
}

impl Method for FastTraining {
    fn name(&self) -> String {
        "fgsm-rs".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        self.loss.objective(batch)
    }
}
