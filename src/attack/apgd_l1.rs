//! Auto-PGD in L1 (Croce and Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers"), as
//! `auto-attack/autoattack/autopgd_base.py` runs it with `use_largereps`: first in balls of three times and twice the
//! radius.

use super::apgd::choose;
use super::{Apgd, Ball, Search, Site, ThreatModel};
use crate::shape::Shape;
use crate::tape::{Purpose, Var};

/// Steps along the signs of the largest gradients, as many as the best point so far has changed pixels, less a third; the
/// step size falls until the best point gets sparser, and is then reset.
#[derive(Clone, Debug)]
pub struct ApgdL1 {
    /// Loss, steps and targets. Of its steps 30, 30 and 40 in a hundred are in balls of three times, twice and once the radius.
    pub of: Apgd,
}

/// Radii of the balls, one after another.
const RADII: [f64; 3] = [3.0, 2.0, 1.0];
/// Share of a ball's steps after which the step size is looked at.
const WINDOW: f64 = 0.04;
/// The best point is sparser if it has less than so many times the changed pixels that it had.
const SPARSER: f64 = 0.95;
/// Changed pixels to moved ones.
const FEWER: f64 = 1.5;
/// What the step size is divided by while the best point gets no sparser.
const SHORTER: f64 = 1.5;
/// How many times smaller than the radius it may get.
const SHORTEST: f64 = 10.0;

impl ApgdL1 {
    /// Steps in each ball.
    fn stages(&self) -> [usize; 3] {
        let all = self.of.steps;
        let early = ((0.3 * all as f64).ceil() as usize).min(all / 2);
        [early, early, all - 2 * early]
    }

    /// A number a step. The step that a ball after the first begins with is one more: it goes to the best point.
    fn each_step(&self, of: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let of_stage = |(stage, steps): (usize, &usize)| {
            let first = usize::from(stage == 0);
            (first..=*steps).map(|step| of(stage, step)).collect::<Vec<_>>()
        };
        self.stages().iter().enumerate().flat_map(of_stage).collect()
    }
}

/// How many of each example's changes are not 0, `[B,1,1,1]`.
fn changed<'t>(site: &Site<'_, 't>, images: Var<'t>) -> Var<'t> {
    (images - site.x()).sign().abs().sum_per_example()
}

impl Search for ApgdL1 {
    fn name(&self) -> String {
        self.of.named()
    }

    fn threat(&self) -> &ThreatModel {
        &self.of.threat
    }

    fn line(&self) -> String {
        let [first, second, last] = self.stages();
        self.of.line_with(&format!(" ({first} in the threefold ball, {second} in the double one, {last})"))
    }

    fn steps(&self) -> usize {
        self.of.steps + RADII.len() - 1
    }

    fn is_random(&self) -> bool {
        true
    }

    fn runs(&self, _classes: usize) -> u32 {
        self.of.target_count() as u32
    }

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        let stages = self.stages();
        let window = |stage: usize| ((WINDOW * stages[stage] as f64) as usize).max(1);
        let when = |condition: bool| f64::from(u8::from(condition));
        vec![
            ("radius", self.each_step(|stage, _| RADII[stage])),
            ("begins", self.each_step(|_, step| when(step == 0))),
            ("looks", self.each_step(|stage, step| when(step.is_multiple_of(window(stage))))),
            ("inside", self.each_step(|stage, _| when(stage + 1 == RADII.len()))),
        ]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let ball = Ball { radius: site.ball.radius * site.number("radius"), ..site.ball };
        let start = site.tape.scope("start", || {
            let noise = ball.along(site.draw().normal(Purpose::EVALUATION_START, ball.x.shape()));
            ball.project(ball.x + noise)
        });
        let view = self.of.view(site, start, self.of.choose_target(site));
        let all = |value| site.tape.fill([site.batch], value);
        site.keep("point", start);
        site.keep("gradient", view.gradient);
        site.keep("best", start);
        site.keep("best gradient", view.gradient);
        site.keep("best loss", view.loss);
        site.keep("changed", changed(site, start));
        site.keep("moved", changed(site, start).scale(1.0 / FEWER));
        site.keep("length", ball.radius.broadcast_to(site.per_example()));
        site.keep("standing", all(1.0));
        // Nothing outside the ball is kept.
        site.keep_adversarial(site.x());
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (tape, images, each, one) = (site.tape, site.x().shape(), [site.batch], site.per_example());
        let radius = site.ball.radius * site.number("radius");
        let begins = site.number("begins").broadcast_to(each);
        let length = site.state("length", one);
        let ball = Ball { radius, step: length, ..site.ball };
        let best = site.state("best", images);

        let moved = tape.scope("move", || {
            let step = ball.sparse_step(site.state("gradient", images), site.state("moved", one));
            ball.project(choose(begins, best, site.state("point", images) + step))
        });
        let view = self.of.view(site, moved, self.of.target(site));
        tape.scope("keep", || {
            let best_loss = site.state("best loss", each);
            // A ball's first point is the best there.
            let better = begins.max(view.loss.greater(best_loss));
            let best = choose(better, moved, best);
            let best_gradient = choose(better, view.gradient, site.state("best gradient", images));
            site.keep("best", best);
            site.keep("best gradient", best_gradient);
            site.keep("best loss", choose(better, view.loss, best_loss));

            let looks = site.number("looks").broadcast_to(one);
            let (now, before) = (changed(site, best), site.state("changed", one));
            let sparser = looks * before.scale(SPARSER).greater(now);
            let full = radius.broadcast_to(one);
            let shorter = length.scale(1.0 / SHORTER).max(full.scale(1.0 / SHORTEST));
            let reset = sparser.max(begins.reshape(one));
            site.keep("length", choose(reset, full, choose(looks, shorter, length)));
            site.keep("changed", choose(looks, now, before));
            site.keep("moved", choose(looks, now.scale(1.0 / FEWER), site.state("moved", one)));
            let back = sparser.reshape(Shape::new(&each));
            site.keep("point", choose(back, best, moved));
            site.keep("gradient", choose(back, best_gradient, view.gradient));

            // Of the last ball, the first point that is misclassified.
            let (standing, inside) = (site.state("standing", each), site.number("inside").broadcast_to(each));
            site.keep_adversarial(choose(standing * inside, moved, site.adversarial()));
            site.keep("standing", standing.min(view.correct.max(inside.affine(-1.0, 1.0))));
        });
    }
}
