//! The fast gradient sign method, from the image itself (Goodfellow et al. 2015, "Explaining and Harnessing
//! Adversarial Examples", section 4) and from a random start (Wong et al. 2020, "Fast is better than free",
//! algorithm 3).

use super::{Attack, Ball, Rational, ThreatModel};
use crate::tape::{Draw, Purpose, Var};

/// One step of length epsilon from the image itself.
#[derive(Clone, Debug)]
pub struct Fgsm {
    /// What it may do.
    pub threat: ThreatModel,
}

impl Attack for Fgsm {
    fn name(&self) -> String {
        "FGSM".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn steps(&self) -> usize {
        1
    }

    fn step_size(&self) -> f64 {
        self.threat.epsilon.value()
    }

    fn is_random(&self) -> bool {
        false
    }

    fn start<'t>(&self, ball: &Ball<'t>, _: Draw<'t>, _: Purpose) -> Var<'t> {
        ball.x
    }

    fn line(&self) -> String {
        format!("FGSM, {}", self.threat)
    }
}

/// One step of length `step_size` (1.25 epsilon in the paper) from a random point of the ball.
#[derive(Clone, Debug)]
pub struct FgsmRs {
    /// What it may do.
    pub threat: ThreatModel,
    /// Length of the step.
    pub step_size: Rational,
    /// Clip the start to the box before the gradient is taken: so for CIFAR-10, not for MNIST (spec 2.2).
    pub clip_start: bool,
}

impl Attack for FgsmRs {
    fn name(&self) -> String {
        "FGSM-RS".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn steps(&self) -> usize {
        1
    }

    fn step_size(&self) -> f64 {
        self.step_size.value()
    }

    fn is_random(&self) -> bool {
        true
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        // The ball's Linf start is uniform; the reference's is too (for L2 this is a direction at a distance).
        ball.random_start(draw, purpose, self.clip_start)
    }

    fn line(&self) -> String {
        format!("FGSM-RS, {}, step {}, random start", self.threat, self.step_size)
    }
}
