//! Dummy classes (DUCAT: Wang et al. 2024; DUCAT, adv_train_dummy.py; spec 2.11): each class has a second output, which
//! takes the adversarial images. See [`crate::nn::Dummies`] for the network and for how it is to be judged.

use super::loss::{CrossEntropy, refuse_mixing, refuse_smoothing};
use super::pgd::inner;
use super::{Batch, Method, Objective};
use crate::attack::{Ascent, Attack, InnerPgd, Start};
use crate::error::{Error, Result};
use crate::train::Recipe;

/// PGD against the right class among 2C outputs. Until epoch `start` it is PGD training. From there on clean and
/// adversarial images are one batch of 2B, and the target of each gives part of itself to the class's dummy: `clean` of a
/// clean image's (0.25), `adversarial` of an adversarial one's (1: all of it).
struct Ducat {
    attack: InnerPgd,
    before: CrossEntropy,
    clean: f64,
    adversarial: f64,
    start: u32,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    refuse_mixing(recipe, "it learns from clean and adversarial images as it is")?;
    refuse_smoothing(recipe, "its targets are shared between a class and its dummy")?;
    let share = |what: &str, value: f64| match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(Error::argument(what, value, "must be a number from 0 to 1")),
    };
    if recipe.dummy_start >= recipe.epochs {
        let why = format!("the run has {} epochs: none would learn dummy classes", recipe.epochs);
        return Err(Error::argument("dummy start", recipe.dummy_start, why));
    }
    Ok(Box::new(Ducat {
        attack: inner(recipe, Ascent::CrossEntropy, Start::Uniform)?,
        before: CrossEntropy::of(recipe)?,
        clean: share("dummy clean", recipe.dummy_clean)?,
        adversarial: share("dummy adversarial", recipe.dummy_adversarial)?,
        start: recipe.dummy_start,
    }))
}

impl Method for Ducat {
    fn name(&self) -> String {
        "ducat".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn has_dummies(&self) -> bool {
        true
    }

    fn stages(&self) -> Vec<u32> {
        vec![self.start]
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        if batch.stage == 0 {
            return self.before.objective(batch);
        }
        let size = batch.size();
        let both = batch.logits(batch.x.concat(&[batch.adversarial], 0));
        let [clean, adversarial] = [0, size].map(|start| both.slice(0, start, size));
        let outputs = clean.shape()[1];
        let class = batch.targets.distribution(clean.shape());
        let dummy = class.slice(1, 0, outputs / 2).pad(&[0, outputs / 2], clean.shape());
        let target = |share: f64| class.scale(1.0 - share).add_scaled(dummy, share);
        let losses = clean.cross_entropy_soft(target(self.clean))
            + adversarial.cross_entropy_soft(target(self.adversarial));
        Objective::new(batch, losses.scale(0.5), adversarial)
    }
}
