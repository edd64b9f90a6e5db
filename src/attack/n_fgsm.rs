//! N-FGSM (de Jorge et al. 2022, "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training"; N-FGSM,
//! train.py; spec 2.8): noise of k epsilon, one step of alpha, and no projection after it.

use super::{Attack, Ball, Rational, ThreatModel};
use crate::tape::{Draw, Purpose, Var};

/// One step from strong noise, clipped to the box alone: its images lie up to `noise * epsilon + step_size` away, which
/// is outside the ball, and on purpose so. For training in Linf.
#[derive(Clone, Debug)]
pub struct NFgsm {
    /// The ball that noise and step are measured by.
    pub threat: ThreatModel,
    /// Length of the step (epsilon in the paper).
    pub step_size: Rational,
    /// Half width of the noise in epsilons (2 in the paper).
    pub noise: f64,
}

impl Attack for NFgsm {
    fn name(&self) -> String {
        "N-FGSM".into()
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
        let noise = draw.uniform(purpose, ball.x.shape()).affine(2.0, -1.0) * ball.radius;
        ball.x.add_scaled(noise, self.noise).clamp(0.0, 1.0)
    }

    fn step<'t>(&self, ball: &Ball<'t>, current: Var<'t>, gradient: Var<'t>) -> Var<'t> {
        (gradient.sign() * ball.step + current).clamp(0.0, 1.0)
    }

    fn line(&self) -> String {
        format!(
            "N-FGSM, {}, noise {} epsilon, step {}, not projected",
            self.threat, self.noise, self.step_size
        )
    }
}
