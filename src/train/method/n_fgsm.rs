//! N-FGSM (de Jorge et al. 2022; N-FGSM, train.py; spec 2.8): FGSM from strong noise, not projected onto the ball.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective, only_linf};
use crate::attack::{Attack, NFgsm};
use crate::error::{Error, Result};
use crate::train::Recipe;

/// Cross-entropy on N-FGSM's images.
struct NFgsmTraining {
    attack: NFgsm,
    loss: CrossEntropy,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    only_linf(recipe)?;
    let noise = recipe.noise;
    if !(0.0..=100.0).contains(&noise) {
        return Err(Error::argument("noise", noise, "must be a number of epsilons from 0 to 100"));
    }
    let attack = NFgsm { threat: recipe.threat()?, step_size: recipe.step()?, noise };
    Ok(Box::new(NFgsmTraining { attack, loss: CrossEntropy::of(recipe)? }))
}

impl Method for NFgsmTraining {
    fn name(&self) -> String {
        "n-fgsm".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn takes_features(&self) -> bool {
        false
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        self.loss.objective(batch)
    }
}
