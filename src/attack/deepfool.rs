//! DeepFool (Moosavi-Dezfooli et al. 2016, "DeepFool: a simple and accurate method to fool deep neural networks",
//! algorithm 2), under L2 and Linf: steps to the nearest linearised boundary until the image is misclassified.
//!
//! As in torchattacks each step goes over by the overshoot and is clipped to the box, and an image that is misclassified
//! stays. Of more than ten classes those of the ten largest logits are looked at.

use super::boundary::{self, dual_norm};
use super::{Norm, Search, Site, ThreatModel, counted};

/// Steps over the nearest boundary.
#[derive(Clone, Debug)]
pub struct DeepFool {
    /// The norm (L2 or Linf), and the radius that is asked for in the end.
    pub threat: ThreatModel,
    /// Steps; 50 in the paper.
    pub steps: usize,
    /// How much further than the boundary a step goes, as a share of it; 0.02 in the paper.
    pub overshoot: f64,
}

impl Search for DeepFool {
    fn name(&self) -> String {
        "DeepFool".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("DeepFool, {}, {}, overshoot {}", self.threat, counted(self.steps, "step"), self.overshoot)
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn is_random(&self) -> bool {
        false
    }

    fn is_minimum_norm(&self) -> bool {
        true
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep_adversarial(site.x());
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (current, norm) = (site.adversarial(), self.threat.norm);
        let standing = site.correct(site.logits(current));
        let found = boundary::nearest(site, current, norm);
        let dual = dual_norm(norm, found.normal).affine(1.0, 1e-12);
        let direction = match norm {
            Norm::Linf => found.normal.sign() / dual,
            Norm::L2 | Norm::L1 => found.normal / dual.square(),
        };
        let length = found.excess.abs().scale(1.0 + self.overshoot) * standing;
        site.keep_adversarial(site.into_box(direction * length + current));
    }
}
