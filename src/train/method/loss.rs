//! What an update descends.

use super::Batch;
use crate::tape::Var;

/// A recorded objective.
#[derive(Clone, Copy)]
pub struct Objective<'t> {
    /// Losses whose sum, divided by the images of the batch, is descended; of any shape.
    pub losses: Var<'t>,
    /// What is reported in their place, where that is something else: the sum likewise.
    pub reported: Option<Var<'t>>,
    /// 1 where an image was classified right, `[B]`; a sum of it counts as right answers of the batch.
    pub correct: Var<'t>,
}

impl<'t> Objective<'t> {
    /// These losses, and right answers by these logits `[B, outputs]`.
    pub fn new(batch: &Batch<'_, 't>, losses: Var<'t>, logits: Var<'t>) -> Objective<'t> {
        Objective { losses, reported: None, correct: batch.correct(logits) }
    }
}
