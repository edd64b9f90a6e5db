//! The L2 attack of Carlini and Wagner (2017, "Towards Evaluating the Robustness of Neural Networks", sections V and VI):
//! Adam on |x' - x|^2 + c f(x') over w, where x' = (tanh(w) + 1) / 2 never leaves the box, and
//! f = max(margin, -kappa).
//!
//! With one round c stays what it is, as in torchattacks; with more it is searched for, for each example: divided between
//! the largest that failed and the smallest that did not, and ten times as large where none did yet. The nearest
//! misclassified image of all is kept. Two differences from torchattacks: its largest other logit is at least 0 (the
//! label's is multiplied by 0 there), and pixels of exactly 0 and 1, where tanh has no inverse, stay for ever; here the
//! inverse is of 0.999999 times the pixel, as in the authors' code. No run ends early.

use super::boundary::norm;
use super::losses::margin;
use super::{Norm, Search, Site, ThreatModel, counted};
use crate::tape::Var;

/// The attack of Carlini and Wagner, under L2.
#[derive(Clone, Debug)]
pub struct Cw {
    /// L2, and the radius that is asked for in the end.
    pub threat: ThreatModel,
    /// Steps a round.
    pub steps: usize,
    /// Rounds of the search for c.
    pub rounds: usize,
    /// The first c.
    pub c: f64,
    /// Margin that misclassification is to have.
    pub kappa: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
}

/// How much of its average Adam keeps, PyTorch's defaults: of the gradients.
const BETA_1: f64 = 0.9;
/// Of the squares.
const BETA_2: f64 = 0.999;
/// What keeps tanh's inverse finite.
const INSIDE: f64 = 0.999999;
/// A bound of c that is none yet, and a distance at which nothing is.
const NONE: f64 = 1e10;

/// The middle of the box and half its width, as the images.
fn middle_and_half<'t>(site: &Site<'_, 't>) -> [Var<'t>; 2] {
    let [least, most] = site.bounds();
    [(least + most).scale(0.5), (most - least).scale(0.5)]
}

impl Search for Cw {
    fn name(&self) -> String {
        "CW".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        let Cw { threat, steps, rounds, c, kappa, learning_rate } = self;
        let search = if *rounds > 1 { format!(", {rounds} rounds") } else { String::new() };
        format!(
            "CW, {threat}, {}{search}, c {c}, kappa {kappa}, learning rate {learning_rate}",
            counted(*steps, "step")
        )
    }

    fn steps(&self) -> usize {
        self.steps * self.rounds
    }

    fn is_random(&self) -> bool {
        false
    }

    fn is_minimum_norm(&self) -> bool {
        true
    }

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        let along = |f: &dyn Fn(usize, usize) -> f64| {
            (0..self.steps()).map(|step| f(step / self.steps, step % self.steps)).collect()
        };
        let correction = |beta: f64| move |_: usize, step: usize| 1.0 / (1.0 - beta.powi(step as i32 + 1));
        vec![
            // Whether a round but the first begins.
            ("anew", along(&|round, step| f64::from(round > 0 && step == 0))),
            ("first", along(&correction(BETA_1))),
            ("second", along(&correction(BETA_2))),
        ]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let (x, one) = (site.x(), site.per_example());
        let [middle, half] = middle_and_half(site);
        let tiny = site.tape.fill(x.shape(), 1e-30);
        let inside = ((x - middle) / half.max(tiny)).scale(INSIDE);
        let w = (inside.affine(1.0, 1.0) / inside.affine(-1.0, 1.0)).log().scale(0.5);
        let zeros = site.tape.fill(x.shape(), 0.0);
        for (name, value) in [("w", w), ("w_0", w), ("first", zeros), ("second", zeros)] {
            site.keep(name, value);
        }
        for (name, value) in
            [("c", self.c), ("failed", 0.0), ("enough", NONE), ("found", 0.0), ("nearest", NONE)]
        {
            site.keep(name, site.tape.fill(one, value));
        }
        site.keep_adversarial(x);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (x, images, one) = (site.x(), site.x().shape(), site.per_example());
        let [w, first, second, w_0] = ["w", "first", "second", "w_0"].map(|name| site.state(name, images));
        let [c, failed, enough, found, nearest] =
            ["c", "failed", "enough", "found", "nearest"].map(|name| site.state(name, one));
        // Between rounds: what c led to, the next one, and everything else from the start.
        let anew = site.number("anew");
        let by_round = |value: Var<'t>, else_: Var<'t>| anew.broadcast_to(one).select(value, else_);
        let none = site.tape.fill(one, NONE);
        let next_failed = found.select(failed, failed.max(c));
        let next_enough = found.select(enough.min(c), enough);
        let between = none.greater(next_enough).select((next_failed + next_enough).scale(0.5), c.scale(10.0));
        let (c, failed, enough) =
            (by_round(between, c), by_round(next_failed, failed), by_round(next_enough, enough));
        let going_on = anew.affine(-1.0, 1.0);
        let w = anew.broadcast_to(images).select(w_0, w);
        let (first, second, found) = (first * going_on, second * going_on, found * going_on);

        let [middle, half] = middle_and_half(site);
        let image = site.into_box(w.tanh() * half + middle);
        let logits = site.logits(image);
        let distance = norm(Norm::L2, image - x);
        let margin = margin(site, logits).reshape(one);
        // The gradient of max(margin, -kappa) is that of the margin, or nothing.
        let short = (margin + site.needed(logits).reshape(one)).greater(site.tape.fill(one, -self.kappa));
        let loss = (image - x).square().sum_per_example() + margin * short * c;
        let gradient = site.tape.grad(loss, &[w])[0];

        let wrong = site.correct(logits).affine(-1.0, 1.0);
        let better = wrong * nearest.greater(distance);
        site.keep("nearest", better.select(distance, nearest));
        site.keep_adversarial(better.broadcast_to(images).select(image, site.adversarial()));

        let first = first.scale(BETA_1).add_scaled(gradient, 1.0 - BETA_1);
        let second = second.scale(BETA_2).add_scaled(gradient.square(), 1.0 - BETA_2);
        let root = (second * site.number("second")).sqrt().affine(1.0, 1e-8);
        let moved = w.add_scaled(first * site.number("first") / root, -self.learning_rate);
        for (name, value) in [("w", moved), ("first", first), ("second", second)] {
            site.keep(name, value);
        }
        let found = found.max(wrong);
        for (name, value) in [("c", c), ("failed", failed), ("enough", enough), ("found", found)] {
            site.keep(name, value);
        }
    }
}
