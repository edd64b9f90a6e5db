//! Noise: random points of the ball, the baseline that every attack has to beat (under Linf, uniform noise).

use super::{Search, Site, ThreatModel, counted};
use crate::tape::Purpose;

/// So many random points of the ball, clipped to the box; the first that is misclassified is kept.
#[derive(Clone, Debug)]
pub struct Noise {
    /// What it may do.
    pub threat: ThreatModel,
    /// Points that are tried, each at a forward pass.
    pub draws: usize,
}

impl Search for Noise {
    fn name(&self) -> String {
        format!("noise-{}", self.draws)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("uniform noise, {}, {}", self.threat, counted(self.draws, "draw"))
    }

    fn steps(&self) -> usize {
        self.draws
    }

    fn is_random(&self) -> bool {
        true
    }

    fn uses_gradients(&self) -> bool {
        false
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep("broken", site.tape.fill(site.per_example(), 0.0));
        site.keep_adversarial(site.x());
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let broken = site.state("broken", site.per_example());
        let candidate = site.ball.random_start(site.draw(), Purpose::EVALUATION_START, true);
        let wrong = site.correct(site.logits(candidate)).affine(-1.0, 1.0);
        let first = wrong.greater(broken);
        site.keep("broken", wrong.max(broken));
        site.keep_adversarial(first.broadcast_to(candidate.shape()).select(candidate, site.adversarial()));
    }
}
