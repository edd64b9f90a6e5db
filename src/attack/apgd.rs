//! Auto-PGD (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
//! parameter-free attacks", algorithm 1) in Linf and L2, as `auto-attack/autoattack/autopgd_base.py` runs it.

use super::losses::{View, target_of_run};
use super::{ApgdL1, Loss, Norm, Search, Site, ThreatModel, counted};
use crate::shape::Shape;
use crate::tape::{Purpose, Var};

/// Gradient ascent with momentum whose step size, an example's own, is halved where the loss has stopped rising; each
/// halving goes back to the best point so far.
///
/// An example that is broken stays as it is from there on (the reference goes on and keeps the last misclassified
/// iterate, which breaks the same examples).
#[derive(Clone, Debug)]
pub struct Apgd {
    /// What it may do; Linf or L2.
    pub threat: ThreatModel,
    /// What it climbs.
    pub loss: Loss,
    /// Classes of the network.
    pub classes: usize,
    /// Steps a run; the reference's 100.
    pub steps: usize,
    /// Classes that a targeted loss goes for, one a run: those that the network thinks likeliest of the clean image
    /// besides the first.
    pub targets: usize,
    /// Steps between looks at which examples are broken.
    pub looks: usize,
}

/// Steps of the reference.
pub(super) const STEPS: usize = 100;
/// Targets of the reference.
pub(super) const TARGETS: usize = 9;
/// Share of a window's steps that must raise the loss for the step size to stay (rho).
const RISING: f64 = 0.75;
/// A step is so much of the gradient's step, and the rest of the last move again.
const FRESH: f64 = 0.75;

impl Apgd {
    /// With the constants of the reference, on a network of so many classes.
    pub fn new(threat: ThreatModel, loss: Loss, classes: usize) -> Apgd {
        // Untargeted runs break most of what is ever broken, early; targeted ones come after and break a few in a
        // hundred, less than a look costs.
        let looks = if loss.is_targeted() { STEPS } else { STEPS / 4 };
        Apgd { threat, loss, classes, steps: STEPS, targets: TARGETS, looks }
    }

    /// This attack, or that of the same name in L1 where the threat is of that norm.
    pub fn boxed(self) -> Box<dyn Search> {
        match self.threat.norm {
            Norm::Linf | Norm::L2 => Box::new(self),
            Norm::L1 => Box::new(ApgdL1 { of: self }),
        }
    }

    /// Its name in any norm.
    pub(super) fn named(&self) -> String {
        match self.loss {
            Loss::CrossEntropy => "APGD-CE".into(),
            Loss::Dlr => "APGD-DLR".into(),
            Loss::TargetedDlr => "APGD-T".into(),
        }
    }

    /// Its line in any norm, with what is particular of one.
    pub(super) fn line_with(&self, more: &str) -> String {
        let mut line = format!("{}, {}, {}{more}", self.named(), self.threat, counted(self.steps, "step"));
        if self.loss != Loss::CrossEntropy {
            line += &format!(", {}", self.loss.describe(self.classes));
        }
        if self.loss.is_targeted() {
            line += &format!(", {}", counted(self.target_count(), "target"));
        }
        line
    }

    /// Targets there are to go for.
    pub(super) fn target_count(&self) -> usize {
        match self.loss.is_targeted() {
            true => self.targets.min(self.classes.saturating_sub(1)).max(1),
            false => 1,
        }
    }

    /// What is seen of `images`, for the target that the run has.
    pub(super) fn view<'t>(&self, site: &Site<'_, 't>, images: Var<'t>, target: Option<Var<'t>>) -> View<'t> {
        View::of(site, images, self.loss, target)
    }

    /// Chooses the target of a run, `[B,C]`, by the logits of the clean images.
    pub(super) fn choose_target<'t>(&self, site: &Site<'_, 't>) -> Option<Var<'t>> {
        self.loss.is_targeted().then(|| {
            let target = target_of_run(site, site.logits(site.x()), 1, self.target_count());
            site.keep("target", target);
            target
        })
    }

    /// The target that was chosen.
    pub(super) fn target<'t>(&self, site: &Site<'_, 't>) -> Option<Var<'t>> {
        let shape = [site.batch, site.classes()];
        self.loss.is_targeted().then(|| site.state("target", shape))
    }

    /// What a step of length 1 adds, for this gradient of the loss: its sign in Linf, itself by its length in L2 (the
    /// reference's 1e-12 keeps from dividing by 0).
    fn direction<'t>(&self, site: &Site<'_, 't>, gradient: Var<'t>) -> Var<'t> {
        let along = site.ball.along(gradient);
        match self.threat.norm {
            Norm::L2 => along / along.norm_l2().affine(1.0, 1e-12),
            _ => along.sign(),
        }
    }

    /// How many steps of each window must not raise the loss too often, as a number a step: rho times the window's
    /// length where one ends, else -1. Windows get shorter from 0.22 to 0.06 of all steps, by 0.03 each time.
    fn windows(&self) -> Vec<f64> {
        let of = |share: f64| ((share * self.steps as f64) as usize).max(1);
        let (mut window, mut since) = (of(0.22), 0);
        let step = |_| {
            since += 1;
            match since == window {
                true => {
                    let most = RISING * window as f64;
                    (window, since) = (window.saturating_sub(of(0.03)).max(of(0.06)), 0);
                    most
                }
                false => -1.0,
            }
        };
        (0..self.steps).map(step).collect()
    }
}

/// `yes` for the examples where `condition` `[B]` is 1, `no` for those where it is 0.
pub(super) fn choose<'t>(condition: Var<'t>, yes: Var<'t>, no: Var<'t>) -> Var<'t> {
    let shape = yes.shape();
    let mut one = vec![1; shape.rank()];
    one[0] = shape[0];
    condition.reshape(Shape::new(&one)).broadcast_to(shape).select(yes, no)
}

impl Search for Apgd {
    fn name(&self) -> String {
        self.named()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        self.line_with("")
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

    fn runs(&self, _classes: usize) -> u32 {
        self.target_count() as u32
    }

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("window", self.windows())]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let (tape, ball, images) = (site.tape, &site.ball, site.x().shape());
        let start = tape.scope("start", || {
            // The farthest coordinate (Linf), or all of the perturbation (L2), is on the sphere.
            let (noise, length) = match self.threat.norm {
                Norm::L2 => {
                    let noise = ball.along(site.draw().normal(Purpose::EVALUATION_START, images));
                    (noise, noise.norm_l2())
                }
                _ => {
                    let uniform = site.draw().uniform(Purpose::EVALUATION_START, images);
                    let noise = ball.along(uniform.affine(2.0, -1.0));
                    (noise, noise.norm_linf())
                }
            };
            ball.project(noise * (ball.radius / length.affine(1.0, 1e-12)) + ball.x)
        });
        let view = self.view(site, start, self.choose_target(site));
        let all = |value| tape.fill([site.batch], value);
        let direction = self.direction(site, view.gradient);
        let length = ball.radius.scale(2.0).broadcast_to(site.per_example());
        // The first step has no momentum. Reflecting where it leads to gives one that comes to nothing: with f =
        // FRESH and m the point before, x + f (z - x) + (1 - f) (x - m) is z where m = 2 x - z.
        let first = ball.project(direction * length + start);
        site.keep("previous", start.scale(2.0) - first);
        site.keep("length", length);
        site.keep("direction", direction);
        site.keep("best", start);
        site.keep("best direction", direction);
        site.keep("best loss", view.loss);
        site.keep("best at window", view.loss);
        // The reference compares the first step's loss with a slot that nothing was written to.
        site.keep("loss", all(0.0));
        site.keep("rises", all(0.0));
        // As if the step size had been halved before: without a better loss it is kept at the first window's end.
        site.keep("halved", all(1.0));
        site.keep("goes back", all(0.0));
        site.keep("standing", view.correct);
        site.keep_adversarial(start);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (tape, ball, images, each) = (site.tape, &site.ball, site.x().shape(), [site.batch]);
        let (best, best_direction) = (site.state("best", images), site.state("best direction", images));
        // The choice between the last point and the best is made here and not when it is known, so that the last point is
        // written to a tensor as it is: else it would be computed twice (plan/lower/keep.rs).
        let x = choose(site.state("goes back", each), best, site.adversarial());
        let before = site.state("previous", images);
        let (direction, length) = (site.state("direction", images), site.state("length", site.per_example()));
        let standing = site.state("standing", each);

        let moved = tape.scope("move", || {
            let stepped = ball.project(direction * length + x);
            // f (z - x) + (1 - f) (x - m), where m is the point before: 0 for what is broken, and exactly 0 where the three
            // are one point. (A sum that rounds there makes a loss that stands still seem to rise.)
            let change =
                (stepped - x).scale(FRESH).add_scaled(x, 1.0 - FRESH).add_scaled(before, FRESH - 1.0);
            match self.threat.norm {
                Norm::L2 => choose(standing, ball.project(change + x), x),
                _ => {
                    let standing = standing.reshape(site.per_example()).broadcast_to(images);
                    ball.project(change.gate(standing, 0.0) + x)
                }
            }
        });
        let view = self.view(site, moved, self.target(site));
        tape.scope("keep", || {
            let gradient = self.direction(site, view.gradient);
            let best_loss = site.state("best loss", each);
            let better = view.loss.greater(best_loss);
            let best = choose(better, moved, best);
            let best_direction = choose(better, gradient, best_direction);
            let best_loss = view.loss.max(best_loss);
            let standing = standing.min(view.correct);

            // At the end of a window: the step size is halved where the loss rose too seldom, or where it was not halved
            // the last time and no better point was found since.
            let window = site.number("window");
            let ends = window.greater_equal(tape.fill(Shape::scalar(), 0.0)).broadcast_to(each);
            let goes_on = ends.affine(-1.0, 1.0);
            let rises = site.state("rises", each) + view.loss.greater(site.state("loss", each));
            let (at_window, was_halved) = (site.state("best at window", each), site.state("halved", each));
            let seldom = window.broadcast_to(each).greater_equal(rises);
            let no_better = at_window.greater_equal(best_loss) * was_halved.affine(-1.0, 1.0);
            let halve = seldom.max(no_better * ends);

            site.keep("best", best);
            site.keep("best direction", best_direction);
            site.keep("best loss", best_loss);
            site.keep("best at window", choose(ends, best_loss, at_window));
            site.keep("loss", view.loss);
            site.keep("rises", rises * goes_on);
            site.keep("halved", choose(ends, halve, was_halved));
            site.keep("standing", standing);
            site.keep("length", length * halve.affine(-0.5, 1.0).reshape(site.per_example()));
            // The momentum of the next step is from the point before this one, also where it starts from the best
            // point again (as in the reference).
            site.keep("previous", x);
            site.keep("direction", choose(halve, best_direction, gradient));
            site.keep("goes back", halve * standing);
            site.keep_adversarial(moved);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_where_the_reference_checks() {
        let threat = ThreatModel { norm: Norm::Linf, epsilon: 0.3.into() };
        let windows = Apgd::new(threat, Loss::CrossEntropy, 10).windows();
        let ends: Vec<usize> = (0..100).filter(|&step| windows[step] >= 0.0).map(|step| step + 1).collect();
        assert_eq!(ends, [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(windows[21], 16.5);
        assert_eq!(windows[98], 4.5);
    }
}
