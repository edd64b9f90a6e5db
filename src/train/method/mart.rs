//! MART (Wang et al. 2020, "Improving Adversarial Robustness Requires Revisiting Misclassified Examples"; MART, mart.py;
//! spec 2.5).

use super::loss::{refuse_mixing, refuse_smoothing};
use super::pgd::inner;
use super::{Batch, Method, Objective, beta};
use crate::attack::{Ascent, Attack, InnerPgd, Start};
use crate::error::Result;
use crate::train::Recipe;

/// With p = softmax f(x) and q = softmax f(x'): cross-entropy of q and the margin to its nearest other class, and beta
/// times KL(p || q) weighted by how unsure f is of the clean image, 1 - p_y. Gradients flow through p, q and the weight.
/// The attack climbs the cross-entropy from 0.001 times normal noise.
struct Mart {
    attack: InnerPgd,
    beta: f64,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    refuse_mixing(recipe, "its loss has clean images in a part of its own, weighted by beta")?;
    refuse_smoothing(recipe, "its margin and its weights are by the one right class")?;
    let attack = inner(recipe, Ascent::CrossEntropy, Start::Normal)?;
    Ok(Box::new(Mart { attack, beta: beta(recipe)? }))
}

impl Method for Mart {
    fn name(&self) -> String {
        "mart".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn takes_soft_targets(&self) -> bool {
        false
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let (clean, adversarial) = (batch.logits(batch.x), batch.logits(batch.adversarial));
        let [size, outputs] = [adversarial.shape()[0], adversarial.shape()[1]];
        let right = batch.targets.labels.one_hot(outputs);
        let (log_p, q) = (clean.log_softmax(), adversarial.softmax());
        let p = log_p.exp();
        // Probabilities less 2 for the right class: the largest is that of another.
        let other = q.add_scaled(right, -2.0).amax(&[1]).reshape([size]);
        let margin = other.affine(-1.0, 1.0001 + 1e-12).log();
        let divergence = (p * (log_p - q.affine(1.0, 1e-12).log())).sum(&[1]).reshape([size]);
        let unsure = (p * right).sum(&[1]).reshape([size]).affine(-1.0, 1.0000001);
        let losses = adversarial.cross_entropy(batch.targets.labels) - margin;
        Objective::new(batch, losses.add_scaled(unsure * divergence, self.beta), adversarial)
    }
}
