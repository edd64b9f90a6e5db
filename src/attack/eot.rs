//! Expectation over transformation (Athalye et al. 2018, "Synthesizing Robust Adversarial Examples", section 2.1; as an attack
//! on randomised defences, Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security", section 4.2).

use super::{Search, Site, ThreatModel};
use crate::shape::Shape;

/// An attack that takes the network for the mean of several passes, each with random numbers of its own: what one pass says
/// of a network that draws them, gradient or verdict, is half chance.
///
/// FGSM, PGD and what else is an [`super::Attack`] climb the mean of the passes' losses. What goes by logits goes by their
/// mean: boundaries, margins, whether an image is misclassified, and the gradients of MI-FGSM, NI-FGSM and DDN. APGD goes by
/// the mean of the gradients and the last pass's loss and class, as `auto-attack/autoattack/autopgd_base.py` does with
/// `eot_iter`. (In half precision each pass's gradient is brought into range on its own, so that all count the same.) A network
/// that draws no random numbers is attacked as without it, to the bit and at no cost: passes that are the same are one.
pub struct Eot {
    /// The attack.
    pub search: Box<dyn Search>,
    /// Passes; at least 1.
    pub passes: usize,
}

impl Search for Eot {
    fn name(&self) -> String {
        format!("{} ({} passes)", self.search.name(), self.passes)
    }

    fn threat(&self) -> &ThreatModel {
        self.search.threat()
    }

    fn line(&self) -> String {
        format!("{}, mean of {} passes", self.search.line(), self.passes)
    }

    fn passes(&self) -> usize {
        self.passes.max(1)
    }

    fn steps(&self) -> usize {
        self.search.steps()
    }

    fn steps_between_looks(&self) -> usize {
        self.search.steps_between_looks()
    }

    fn is_random(&self) -> bool {
        self.search.is_random()
    }

    fn uses_gradients(&self) -> bool {
        self.search.uses_gradients()
    }

    fn runs(&self, classes: usize) -> u32 {
        self.search.runs(classes)
    }

    fn is_minimum_norm(&self) -> bool {
        self.search.is_minimum_norm()
    }

    fn wants(&self) -> Option<u32> {
        self.search.wants()
    }

    fn step_size(&self) -> f64 {
        self.search.step_size()
    }

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        self.search.tables()
    }

    fn constants(&self, image: [usize; 3]) -> Vec<(&'static str, Shape, Vec<f64>)> {
        self.search.constants(image)
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        self.search.start(site);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        self.search.step(site);
    }
}
