//! PGD towards a class of the attacker's choice (Kurakin et al. 2017, "Adversarial Examples in the Physical World",
//! section 2.3, with the projection and the random start of Madry et al. 2018): a stop sign to be read as a speed limit.

use super::{Ascent, Attack, Ball, Pgd, ThreatModel};
use crate::tape::{Draw, Purpose, Var};

/// [`Pgd`] on the log-probability of one class. An example is broken once that class is predicted for it.
#[derive(Clone, Debug)]
pub struct Targeted {
    /// Steps, step size, start and what it may do.
    pub pgd: Pgd,
    /// The class that is to be predicted.
    pub class: u32,
}

impl Attack for Targeted {
    fn name(&self) -> String {
        format!("targeted {}", self.pgd.name())
    }

    fn threat(&self) -> &ThreatModel {
        self.pgd.threat()
    }

    fn ascends(&self) -> Ascent {
        Ascent::Towards(self.class)
    }

    fn steps(&self) -> usize {
        self.pgd.steps()
    }

    fn step_size(&self) -> f64 {
        self.pgd.step_size()
    }

    fn is_random(&self) -> bool {
        self.pgd.is_random()
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        self.pgd.start(ball, draw, purpose)
    }

    fn line(&self) -> String {
        format!("targeted {}, towards class {}", self.pgd.line(), self.class)
    }
}
