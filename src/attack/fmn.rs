//! Fast minimum-norm attack (Pintor et al. 2021, "Fast Minimum-norm Adversarial Attacks through Adaptive Norm
//! Constraints", algorithm 1), under Linf, L2 and L1.
//!
//! Steps of shrinking length down the margin, projected into a ball whose radius is of the example: before anything is
//! found, the distance so far and what the linearised margin says is left; then it shrinks where the image is misclassified
//! and grows where it is not. Constants are Foolbox's. (Foolbox 3.3.4 projects into no ball under L2: its factor is
//! norm / norm. Here the radius holds under every norm, and under L1 ball and box are projected into together.)

use super::boundary::{dual_norm, norm};
use super::ddn::cosine;
use super::losses::margin;
use super::{Search, Site, ThreatModel, counted};

/// FMN.
#[derive(Clone, Debug)]
pub struct Fmn {
    /// The norm, and the radius that is asked for in the end.
    pub threat: ThreatModel,
    /// Steps.
    pub steps: usize,
    /// By how much a radius changes at first; 0.001 in the end.
    pub gamma: f64,
    /// Length of the first step; the last is a hundredth of it.
    pub step_size: f64,
}

/// How far over the boundary the radius goes that the linearised margin asks for. With 0, as in Foolbox, an image may come
/// up to the boundary of a linear model for ever, as f32 rounds, and not be over it.
const OVER: f64 = 1e-5;
/// Radius before anything limits it.
const UNBOUNDED: f64 = 1e30;

impl Search for Fmn {
    fn name(&self) -> String {
        "FMN".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        let Fmn { threat, steps, gamma, step_size } = self;
        format!("FMN, {threat}, {}, gamma {gamma}, step {step_size}", counted(*steps, "step"))
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
        let along = |first, last| (0..self.steps).map(|step| cosine(first, last, step, self.steps)).collect();
        vec![("length", along(self.step_size, self.step_size / 100.0)), ("gamma", along(self.gamma, 0.001))]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let (x, one) = (site.x(), site.per_example());
        let [least, most] = site.bounds();
        let worst = norm(self.threat.norm, (x - least).max(most - x));
        site.keep("current", x);
        site.keep("radius", site.tape.fill(one, UNBOUNDED));
        site.keep("worst", worst);
        site.keep("nearest", worst);
        site.keep("found", site.tape.fill(one, 0.0));
        site.keep_adversarial(x);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (x, images, one, in_norm) = (site.x(), site.x().shape(), site.per_example(), self.threat.norm);
        let current = site.state("current", images);
        let [radius, worst, nearest, found] =
            ["radius", "worst", "nearest", "found"].map(|name| site.state(name, one));
        let logits = site.logits(current);
        let margin = margin(site, logits).reshape(one);
        let gradient = site.ball.along(site.tape.grad(margin.scale(-1.0), &[current])[0]);
        let margin = margin + site.needed(logits).reshape(one);
        let wrong = site.correct(logits).affine(-1.0, 1.0);
        let distance = norm(in_norm, current - x);
        let better = wrong * nearest.greater_equal(distance);
        let nearest = better.select(distance, nearest);
        let found = found.max(wrong);
        site.keep("nearest", nearest);
        site.keep("found", found);
        site.keep_adversarial(better.broadcast_to(images).select(current, site.adversarial()));

        let gamma = site.number("gamma");
        let smaller = (radius * gamma.affine(-1.0, 1.0)).min(nearest);
        let larger = radius * gamma.affine(1.0, 1.0);
        let linear = margin.abs() / dual_norm(in_norm, gradient).affine(1.0, 1e-12) + distance;
        let linear = linear.scale(1.0 + OVER);
        let radius = wrong.select(smaller, found.select(larger, linear)).min(worst);
        site.keep("radius", radius);
        let length = gradient.norm_l2().affine(1.0, 1e-12);
        let candidate = gradient * (site.number("length") / length) + current;
        site.keep("current", site.ball_of_radius(radius).project(candidate));
    }
}
