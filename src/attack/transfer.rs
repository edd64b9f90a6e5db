//! PGD for images that another network is to judge.

use super::{Attack, Pgd, Search, Site, ThreatModel};
use crate::tape::Purpose;

/// PGD that climbs through all of its steps, whatever the network says on the way. Other attacks stop where an image is
/// misclassified, just across the border of the network they are made on, and another network's border lies elsewhere.
///
/// Each of the two hardened MNIST networks of this house has 198 of 200 images right; images by the other's gradient break 4
/// and 6 of them so, 1 and 1 by PGD that stops, 5 and 6 by NI-FGSM-40, which goes on too.
#[derive(Clone, Debug)]
pub struct Transfer(pub Pgd);

impl Search for Transfer {
    fn name(&self) -> String {
        self.0.name()
    }

    fn threat(&self) -> &ThreatModel {
        &self.0.threat
    }

    fn line(&self) -> String {
        self.0.line()
    }

    fn steps(&self) -> usize {
        self.0.steps
    }

    fn is_random(&self) -> bool {
        self.0.random_start
    }

    fn step_size(&self) -> f64 {
        self.0.step_size.value()
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep_adversarial(self.0.start(&site.ball, site.draw(), Purpose::EVALUATION_START));
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let current = site.adversarial();
        let gradient = site.ascent(site.logits(current), current);
        site.keep_adversarial(self.0.step(&site.ball, current, gradient));
    }
}
