//! Decoupling direction and norm (Rony et al. 2019, "Decoupling Direction and Norm for Efficient Gradient-Based L2
//! Adversarial Attacks and Defenses", algorithm 1), under L2: a minimum-norm attack.
//!
//! Steps along the gradient of the cross-entropy, drawn to a sphere whose radius grows by gamma where the image is
//! classified right and shrinks by gamma where it is not; the nearest misclassified image is kept. Constants are
//! Foolbox's. Where there is no gradient nothing moves (Foolbox goes a random way).

use super::boundary::norm;
use super::{Norm, Search, Site, ThreatModel, counted};
use std::f64::consts::PI;

/// DDN.
#[derive(Clone, Debug)]
pub struct Ddn {
    /// L2, and the radius that is asked for in the end.
    pub threat: ThreatModel,
    /// Steps.
    pub steps: usize,
    /// Radius of the first sphere.
    pub first_radius: f64,
    /// By how much a radius changes.
    pub gamma: f64,
}

/// Number `step` of `steps` on half a cosine from `first` to `last`.
pub(super) fn cosine(first: f64, last: f64, step: usize, steps: usize) -> f64 {
    last + (first - last) * (1.0 + (PI * step as f64 / steps as f64).cos()) / 2.0
}

impl Search for Ddn {
    fn name(&self) -> String {
        "DDN".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        let Ddn { threat, steps, gamma, first_radius } = self;
        format!("DDN, {threat}, {}, gamma {gamma}, first radius {first_radius}", counted(*steps, "step"))
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

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("length", (0..self.steps).map(|step| cosine(1.0, 0.01, step, self.steps)).collect())]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let x = site.x();
        let [least, most] = site.bounds();
        site.keep("current", x);
        site.keep("radius", site.tape.fill(site.per_example(), self.first_radius));
        // As far as the box reaches: nothing is found yet.
        let worst = norm(Norm::L2, (x - least).max(most - x));
        site.keep("worst", worst);
        site.keep("nearest", worst);
        site.keep_adversarial(x);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (x, images, one) = (site.x(), site.x().shape(), site.per_example());
        let current = site.state("current", images);
        let [radius, worst, nearest] = ["radius", "worst", "nearest"].map(|name| site.state(name, one));
        let logits = site.logits(current);
        let wrong = site.correct(logits).affine(-1.0, 1.0);
        let distance = norm(Norm::L2, current - x);
        let better = wrong * nearest.greater_equal(distance);
        site.keep("nearest", better.select(distance, nearest));
        site.keep_adversarial(better.broadcast_to(images).select(current, site.adversarial()));

        let gradient = site.ascent(logits, current);
        let length = norm(Norm::L2, gradient).affine(1.0, 1e-12);
        let change = current - x + gradient * (site.number("length") / length);
        let radius = (radius * wrong.affine(-2.0 * self.gamma, 1.0 + self.gamma)).min(worst);
        site.keep("radius", radius);
        let scale = radius / norm(Norm::L2, change).affine(1.0, 1e-12);
        site.keep("current", site.into_box(change * scale + x));
    }
}
