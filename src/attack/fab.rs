//! The fast adaptive boundary attack (Croce and Hein 2020, "Minimally distorted Adversarial Attacks with a fast Adaptive
//! Boundary Attack", algorithm 1), under Linf, L2 and L1: a minimum-norm attack.
//!
//! An iterate steps over the hyperplane on which the linearised logits of the label and of another class are equal, from
//! where it is and, by a share, from the clean image; what is found beyond the boundary is remembered where it is nearer
//! than before, and drawn back towards the clean image. Constants are those of AutoAttack: eta 1.05, alpha at most 0.1,
//! beta 0.9. Targeted (FAB-T) the other class is one of the nine of the largest logits of the clean image behind the
//! first (of fewer, where there are fewer classes), a run for each; else it is the nearest at every step, for which every
//! class takes a backward pass: where there are more than ten, those of the ten largest logits do.

use super::boundary::{self, CANDIDATES};
use super::hyperplane::towards_hyperplane;
use super::losses::target_of_run;
use super::{Norm, Search, Site, ThreatModel, counted};
use crate::shape::Shape;
use crate::tape::{Purpose, Var};

/// FAB and FAB-T. From the second restart on it starts at a random point up to epsilon / 2 away.
#[derive(Clone, Debug)]
pub struct Fab {
    /// The norm, and the radius that is asked for in the end.
    pub threat: ThreatModel,
    /// Steps a run.
    pub steps: usize,
    /// Whether each run goes for a class of its own (FAB-T).
    pub targeted: bool,
    /// Steps after which what is within epsilon is dropped: fewer than `steps` where only survivors matter, as in
    /// AutoAttack, and `steps` where the nearest image is looked for.
    pub looks: usize,
    /// Classes of the network.
    pub classes: usize,
}

/// Classes that FAB-T goes for, at most.
const TARGETS: u32 = 9;
/// How far a step goes over the hyperplane.
const ETA: f64 = 1.05;
/// Most that a step takes from the clean image.
const ALPHA_MAX: f64 = 0.1;
/// What is left of a perturbation that is beyond the boundary.
const BETA: f64 = 0.9;
/// Nothing found yet.
const NEVER: f64 = 1e10;

impl Search for Fab {
    fn name(&self) -> String {
        if self.targeted { "FAB-T".into() } else { "FAB".into() }
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        let which = match (self.targeted, self.runs(self.classes)) {
            (true, targets) => format!(", {}", counted(targets as usize, "target")),
            (false, _) if self.classes > CANDIDATES => format!(", nearest of {CANDIDATES} classes"),
            (false, _) => String::new(),
        };
        format!("{}, {}, {}{which}", self.name(), self.threat, counted(self.steps, "step"))
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn steps_between_looks(&self) -> usize {
        self.looks
    }

    fn is_random(&self) -> bool {
        true
    }

    fn runs(&self, classes: usize) -> u32 {
        if self.targeted { TARGETS.min(classes.saturating_sub(1) as u32) } else { 1 }
    }

    fn is_minimum_norm(&self) -> bool {
        true
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let x = site.x();
        if self.targeted {
            let runs = self.runs(site.classes()) as usize;
            site.keep("target", target_of_run(site, site.logits(x), 1, runs));
        }
        let draw = site.draw();
        let direction = site.ball.along(match self.threat.norm {
            Norm::Linf => draw.uniform(Purpose::EVALUATION_START, x.shape()).affine(2.0, -1.0),
            Norm::L2 | Norm::L1 => draw.normal(Purpose::EVALUATION_START, x.shape()),
        });
        let again = site.restart().min(site.tape.fill(Shape::scalar(), 1.0));
        let length = boundary::norm(self.threat.norm, direction).affine(1.0, 1e-12);
        let start = x + direction * (site.ball.radius.scale(0.5) * again / length);
        site.keep("current", site.into_box(start));
        site.keep("nearest", site.tape.fill(site.per_example(), NEVER));
        site.keep_adversarial(x);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (norm, x, one) = (self.threat.norm, site.x(), site.per_example());
        let images = x.shape();
        let (current, nearest) = (site.state("current", images), site.state("nearest", one));
        let boundary = match self.targeted {
            true => {
                let target = site.state("target", [site.batch, site.classes()]);
                boundary::towards(site, current, site.logits(current), target)
            }
            false => boundary::nearest(site, current, norm),
        };
        let [change, from_clean] = changes(site, norm, current, boundary.normal, boundary.excess);
        let lengths =
            [change, from_clean].map(|change| boundary::norm(norm, change).max(site.tape.fill(one, 1e-8)));
        let alpha = (lengths[0] / (lengths[0] + lengths[1])).min(site.tape.fill(one, ALPHA_MAX));
        let moved = (change.scale(ETA) + current) * alpha.affine(-1.0, 1.0);
        let moved = site.into_box(moved + (from_clean.scale(ETA) + x) * alpha);

        let wrong = site.correct(site.logits(moved)).affine(-1.0, 1.0);
        let distance = boundary::norm(norm, moved - x);
        let better = wrong * nearest.greater(distance);
        site.keep("nearest", better.select(distance, nearest));
        site.keep_adversarial(better.broadcast_to(images).select(moved, site.adversarial()));
        site.keep("current", (x - moved) * wrong.scale(1.0 - BETA) + moved);
    }
}

/// What brings `current`, and what the clean images, to the hyperplane on which `excess + normal . (z - current)` is 0.
fn changes<'t>(
    site: &Site<'_, 't>,
    norm: Norm,
    current: Var<'t>,
    normal: Var<'t>,
    excess: Var<'t>,
) -> [Var<'t>; 2] {
    let (x, images) = (site.x(), site.x().shape());
    let of = |points: usize, shape: Shape| {
        let [b, h, w, c] = [0, 1, 2, 3].map(|axis| shape[axis]);
        Shape::new(&[points, b, h, w, c])
    };
    // Both in one: half the launches.
    let both = |a: Var<'t>, b: Var<'t>| {
        let shape = of(1, a.shape());
        a.reshape(shape).concat(&[b.reshape(shape)], 0)
    };
    let of_clean = (normal * (x - current)).sum_per_example() + excess;
    let points = both(current, x);
    let [least, most] = site.bounds();
    let bound = |bound: Var<'t>| bound.reshape(of(1, images)).broadcast_to(points.shape());
    let room = [points - bound(least), bound(most) - points];
    let changes = towards_hyperplane(norm, normal.reshape(of(1, images)), both(excess, of_clean), room);
    [0, 1].map(|point| changes.slice(0, point, 1).reshape(images))
}
