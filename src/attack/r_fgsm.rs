//! FGSM from a random corner (Tramer et al. 2018, "Ensemble Adversarial Training", section 3.3): half of epsilon is
//! spent on the sign of a normal number a pixel, and the rest on one step along the sign of the gradient there.

use super::{Attack, Ball, ThreatModel};
use crate::tape::{Draw, Purpose, Var};

/// R-FGSM, under Linf.
#[derive(Clone, Debug)]
pub struct RFgsm {
    /// What it may do.
    pub threat: ThreatModel,
}

/// Share of epsilon that is spent at random.
const AT_RANDOM: f64 = 0.5;

impl Attack for RFgsm {
    fn name(&self) -> String {
        "R-FGSM".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn steps(&self) -> usize {
        1
    }

    fn step_size(&self) -> f64 {
        (1.0 - AT_RANDOM) * self.threat.epsilon.value()
    }

    fn is_random(&self) -> bool {
        true
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        let corner = ball.along(draw.normal(purpose, ball.x.shape()).sign());
        ball.project(ball.x + corner * ball.radius.scale(AT_RANDOM))
    }

    fn line(&self) -> String {
        format!("R-FGSM, {}, {AT_RANDOM} of it at random", self.threat)
    }
}
