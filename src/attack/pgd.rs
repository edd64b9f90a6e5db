//! Projected gradient descent on the negative loss (Madry et al. 2018, "Towards Deep Learning Models Resistant to
//! Adversarial Attacks", section 2.1).

use super::{Attack, Ball, Rational, ThreatModel};
use crate::tape::{Draw, Purpose, Var};

/// K steps of ascent, each projected into ball and box; with steps 1 and step size epsilon from the image itself
/// exactly [`super::Fgsm`].
#[derive(Clone, Debug)]
pub struct Pgd {
    /// What it may do.
    pub threat: ThreatModel,
    /// Number of steps.
    pub steps: usize,
    /// Length of a step.
    pub step_size: Rational,
    /// Start at a random point of the ball, clipped to the box.
    pub random_start: bool,
}

impl Pgd {
    /// So many steps from a random start, each of epsilon / 30, or 4/3 epsilon / steps where that is more: few steps have
    /// to be long to cross the ball.
    pub fn usual(threat: ThreatModel, steps: usize) -> Pgd {
        let within = (0.75 * steps as f64).min(30.0);
        // Six digits: what is meant, not what binary fractions make of it.
        let step_size = Rational::from((threat.epsilon.value() / within * 1e6).round() / 1e6);
        Pgd { threat, steps, step_size, random_start: true }
    }
}

impl Attack for Pgd {
    fn name(&self) -> String {
        format!("PGD-{}", self.steps)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn step_size(&self) -> f64 {
        self.step_size.value()
    }

    fn is_random(&self) -> bool {
        self.random_start
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        match self.random_start {
            true => ball.random_start(draw, purpose, true),
            false => ball.x,
        }
    }

    fn line(&self) -> String {
        let start = if self.random_start { "random start" } else { "no random start" };
        format!("{}, {}, step {}, {start}", self.name(), self.threat, self.step_size)
    }
}
