//! What an update descends, and the cross-entropy that most methods do.

use super::Batch;
use crate::error::{Error, Result};
use crate::tape::Var;
use crate::train::Recipe;

/// A recorded objective.
#[derive(Clone, Copy)]
pub struct Objective<'t> {
    /// Losses whose sum, divided by the images of the batch, is descended; of any shape.
    pub losses: Var<'t>,
    /// What is reported in their place, where that is something else: the sum likewise.
    pub reported: Option<Var<'t>>,
    /// 1 where an adversarial image was classified right (or what such an image counts for); the sum is the right answers
    /// of the batch.
    pub correct: Var<'t>,
}

impl<'t> Objective<'t> {
    /// These losses, and right answers by these logits `[B, outputs]`.
    pub fn new(batch: &Batch<'_, 't>, losses: Var<'t>, logits: Var<'t>) -> Objective<'t> {
        Objective { losses, reported: None, correct: batch.correct(logits) }
    }
}

/// Which images of a batch are learned from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mix {
    /// The adversarial ones.
    Adversarial,
    /// A share of the batch is adversarial, the others clean (ART's `ratio`): the first `ceil(share * B)` examples.
    Share(f64),
    /// Each image both clean and adversarial, as one batch of 2B that is normalised together, the loss being the mean
    /// over all (HAT's `keep_clean`, DUCAT).
    Both,
}

impl Mix {
    /// What the recipe says.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub(super) fn of(recipe: &Recipe) -> Result<Mix> {
        match (recipe.adversarial_ratio, recipe.keep_clean) {
            (1.0, false) => Ok(Mix::Adversarial),
            (1.0, true) => Ok(Mix::Both),
            (share, true) => {
                let why = "with keep-clean each image is learned from both clean and adversarial: use one of the two";
                Err(Error::argument("adversarial ratio", share, why))
            }
            (share, false) if share > 0.0 && share < 1.0 => Ok(Mix::Share(share)),
            (share, _) => {
                let why =
                    "must be a number above 0, up to 1; see method `standard` for no adversarial images";
                Err(Error::argument("adversarial ratio", share, why))
            }
        }
    }
}

/// Cross-entropy, smoothed or not, on clean images, adversarial ones, or both.
pub(super) struct CrossEntropy {
    mix: Mix,
    smoothing: f64,
}

impl CrossEntropy {
    /// With the recipe's smoothing and mixing.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub(super) fn of(recipe: &Recipe) -> Result<CrossEntropy> {
        Ok(CrossEntropy { mix: Mix::of(recipe)?, smoothing: smoothing(recipe)? })
    }

    /// For a method that does not mix.
    ///
    /// # Errors
    /// [`Error::Argument`] where the recipe asks for it: `why` not.
    pub(super) fn unmixed(recipe: &Recipe, why: &str) -> Result<CrossEntropy> {
        refuse_mixing(recipe, why)?;
        CrossEntropy::of(recipe)
    }

    /// Records it.
    pub(super) fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let size = batch.size();
        let first = |v: Var<'t>, count: usize| v.slice(0, 0, count);
        match self.mix {
            Mix::Adversarial => {
                let logits = batch.logits(batch.adversarial);
                Objective::new(batch, self.losses(batch, logits), logits)
            }
            Mix::Share(share) => {
                let attacked = (share * size as f64).ceil() as usize;
                let (some, rest) = (first(batch.adversarial, attacked), size - attacked);
                let images = match rest {
                    0 => some,
                    _ => some.concat(&[batch.x.slice(0, attacked, rest)], 0),
                };
                let logits = batch.logits(images);
                let losses = self.losses(batch, logits);
                // Right answers are reported as if all of the batch were attacked.
                let correct = first(batch.correct(logits), attacked).scale(size as f64 / attacked as f64);
                Objective { losses, reported: None, correct }
            }
            Mix::Both => {
                let logits = batch.logits(batch.x.concat(&[batch.adversarial], 0));
                let [clean, adversarial] = [0, size].map(|start| logits.slice(0, start, size));
                let losses = (self.losses(batch, clean) + self.losses(batch, adversarial)).scale(0.5);
                Objective::new(batch, losses, adversarial)
            }
        }
    }

    /// The loss of each image by its logits, `[B]`.
    pub(super) fn losses<'t>(&self, batch: &Batch<'_, 't>, logits: Var<'t>) -> Var<'t> {
        batch.targets.cross_entropy_smooth(logits, self.smoothing)
    }
}

/// The recipe's label smoothing.
///
/// # Errors
/// [`Error::Argument`].
fn smoothing(recipe: &Recipe) -> Result<f64> {
    match recipe.label_smoothing {
        s if (0.0..1.0).contains(&s) => Ok(s),
        s => Err(Error::argument("label smoothing", s, "must be a number from 0 to below 1")),
    }
}

/// # Errors
/// [`Error::Argument`] where the recipe mixes clean and adversarial images: `why` its method does not.
pub(super) fn refuse_mixing(recipe: &Recipe, why: &str) -> Result<()> {
    let why = format!("is not combined with `{}`: {why}", recipe.method);
    match Mix::of(recipe)? {
        Mix::Adversarial => Ok(()),
        Mix::Share(share) => Err(Error::argument("adversarial ratio", share, why)),
        Mix::Both => Err(Error::argument("keep-clean", "true", why)),
    }
}

/// # Errors
/// [`Error::Argument`] where the recipe smooths labels: `why` its method does not.
pub(super) fn refuse_smoothing(recipe: &Recipe, why: &str) -> Result<()> {
    match smoothing(recipe)? {
        0.0 => Ok(()),
        s => {
            let why = format!("is not combined with `{}`: {why}", recipe.method);
            Err(Error::argument("label smoothing", s, why))
        }
    }
}
