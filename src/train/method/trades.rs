//! TRADES (Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy"; TRADES, trades.py;
//! spec 2.4): cross-entropy on clean images, and beta times how far the prediction on adversarial ones is from it.

use super::loss::{CrossEntropy, refuse_mixing};
use super::pgd::inner;
use super::{Batch, Method, Objective, beta};
use crate::attack::{Ascent, Attack, InnerPgd, Start};
use crate::error::Result;
use crate::train::Recipe;

/// `CE(f(x), y) + beta KL(softmax f(x) || softmax f(x'))`, the gradient flowing through both arguments of KL. The attack
/// climbs the same KL, from 0.001 times normal noise, against a prediction on clean images that is computed once.
struct Trades {
    attack: InnerPgd,
    loss: CrossEntropy,
    beta: f64,
    /// As TRADES-AWP orders its forward passes (trades_AWP, utils_awp.py): adversarial, clean, clean. TRADES itself has
    /// clean, adversarial, clean. Only running statistics can tell.
    adversarial_first: bool,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    refuse_mixing(recipe, "its loss has a clean part of its own, weighted by beta")?;
    Ok(Box::new(Trades {
        attack: inner(recipe, Ascent::Kl, Start::Normal)?,
        loss: CrossEntropy::of(recipe)?,
        beta: beta(recipe)?,
        adversarial_first: recipe.awp_gamma > 0.0,
    }))
}

impl Method for Trades {
    fn name(&self) -> String {
        "trades".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        // Three passes, as the reference has: each updates the running statistics and drops its own activations. What
        // two of them have in common is recorded once.
        let (clean, adversarial, target) = if self.adversarial_first {
            let adversarial = batch.logits(batch.adversarial);
            let target = batch.logits(batch.x);
            (batch.logits(batch.x), adversarial, target)
        } else {
            let clean = batch.logits(batch.x);
            (clean, batch.logits(batch.adversarial), batch.logits(batch.x))
        };
        let divergence = adversarial.kl_divergence(target);
        Objective::new(batch, self.loss.losses(batch, clean).add_scaled(divergence, self.beta), adversarial)
    }
}
