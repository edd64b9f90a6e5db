//! Ascent with momentum: MI-FGSM (Dong et al. 2018, "Boosting Adversarial Attacks with Momentum", algorithm 1) and, with
//! Nesterov's look ahead, NI-FGSM (Lin et al. 2020, "Nesterov Accelerated Gradient and Scale Invariance for Adversarial
//! Attacks", section 3.1).
//!
//! g <- decay g + gradient / mean |gradient|, and a step along the sign of g (under L2 and L1 along g as
//! [`super::Ball::ascend`] does). The gradient is that of the cross-entropy at the image, or decay times step times g
//! ahead of it.

use super::{Rational, Search, Site, ThreatModel};

/// Ascent with momentum from the image itself.
#[derive(Clone, Debug)]
pub struct Momentum {
    /// What it may do.
    pub threat: ThreatModel,
    /// Steps.
    pub steps: usize,
    /// Length of a step.
    pub step_size: Rational,
    /// Share of the momentum that stays; 1 in both papers.
    pub decay: f64,
    /// Whether the gradient is taken ahead of the image.
    pub nesterov: bool,
}

impl Search for Momentum {
    fn name(&self) -> String {
        format!("{}-{}", if self.nesterov { "NI-FGSM" } else { "MI-FGSM" }, self.steps)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("{}, {}, step {}, decay {}", self.name(), self.threat, self.step_size, self.decay)
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn is_random(&self) -> bool {
        false
    }

    fn step_size(&self) -> f64 {
        self.step_size.value()
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep("momentum", site.tape.fill(site.x().shape(), 0.0));
        site.keep_adversarial(site.x());
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let images = site.x().shape();
        let (current, momentum) = (site.adversarial(), site.state("momentum", images));
        let at = match self.nesterov {
            true => current + momentum * site.ball.step.scale(self.decay),
            false => current,
        };
        let logits = site.logits(at);
        let gradient = site.ascent(logits, at);
        let mean = gradient.norm_l1().affine(images[0] as f64 / images.len() as f64, 1e-30);
        let momentum = (gradient / mean).add_scaled(momentum, self.decay);
        let moved = site.ball.ascend(current, momentum);
        site.keep("momentum", momentum);
        // An example that is broken stays as it is. What NI-FGSM passes through the network is not the image, so that it
        // ends wherever its last step leads.
        site.keep_adversarial(match self.nesterov {
            true => moved,
            false => site.correct(logits).broadcast_to(images).select(moved, current),
        });
    }
}
