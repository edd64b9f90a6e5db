//! "Adversarial training for free" (Shafahi et al. 2019; FreeAdversarialTraining, main_free.py; spec 2.3): each batch is
//! learned from m times, and one backward pass gives both the weights' gradient and the perturbation's.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective, only_linf};
use crate::attack::{Attack, Ball, ThreatModel};
use crate::error::{Error, Result};
use crate::shape::{DType, Shape};
use crate::tape::{Draw, Purpose, Var};
use crate::train::Recipe;

/// The perturbation, `[B,H,W,C]` for a whole batch: zero at the start of a run, and carried on over batches and epochs.
const PERTURBATION: &str = "free.perturbation";

/// Cross-entropy on clip(x + d, 0, 1); after each of m passes d is moved by epsilon sign of its gradient and clipped to
/// the ball, and the weights are updated by the gradient at the old d.
struct Free {
    attack: Carried,
    loss: CrossEntropy,
    replays: u32,
}

/// A batch as it is loaded: the perturbation is added, and moved, within the update.
struct Carried {
    threat: ThreatModel,
    replays: u32,
}

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    only_linf(recipe)?;
    let replays = recipe.replays;
    if !(1..=1000).contains(&replays) {
        return Err(Error::argument("replays", replays, "must be from 1 to 1000"));
    }
    let why = "the perturbation's gradient comes of the pass that the weights' does";
    let loss = CrossEntropy::unmixed(recipe, why)?;
    Ok(Box::new(Free { attack: Carried { threat: recipe.threat()?, replays }, loss, replays }))
}

impl Method for Free {
    fn name(&self) -> String {
        self.attack.name()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn replays(&self) -> u32 {
        self.replays
    }

    fn state(&self, images: Shape) -> Vec<(String, Shape)> {
        vec![(PERTURBATION.into(), images)]
    }

    fn takes_features(&self) -> bool {
        false
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let (tape, size) = (batch.tape(), batch.size());
        let all = tape.source(PERTURBATION, batch.x.shape().with(0, batch.whole), DType::F32);
        let delta = if size == batch.whole { all } else { all.slice(0, 0, size) };
        let logits = batch.logits((batch.x + delta).clamp(0.0, 1.0));
        let losses = self.loss.losses(batch, logits);
        // Of the mean, as the weights' gradient is: then both come of the same launches.
        let gradient = tape.grad(losses.scale(1.0 / size as f64), &[delta])[0];
        let ball = &batch.ball;
        let moved = gradient.sign() * ball.step + delta;
        let moved = moved.max(ball.radius.scale(-1.0)).min(ball.radius);
        tape.assign(
            PERTURBATION,
            match batch.whole - size {
                0 => moved,
                rest => moved.concat(&[all.slice(0, size, rest)], 0),
            },
        );
        Objective::new(batch, losses, logits)
    }
}

impl Attack for Carried {
    fn name(&self) -> String {
        format!("free-{}", self.replays)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn steps(&self) -> usize {
        0
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
        format!(
            "{} updates a batch on one perturbation that is carried on, {}, step epsilon",
            self.replays, self.threat
        )
    }
}
