//! What a batch is to be classified as.

use crate::shape::Shape;
use crate::tape::Var;

/// What the images of a batch are: labels, or, where images are mixed with one another (mixup, CutMix), a distribution
/// over the classes for each. An attack climbs the loss against it, and an update descends it.
///
/// Which of the two a run has is said in one place, [`super::Names::with_soft_targets`]: whoever loads the batch then
/// also assigns the tensor `targets` of those names, f32 `[B, classes]` with rows that sum to 1, and everything that
/// reads [`super::Names::targets`] goes by it.
#[derive(Clone, Copy)]
pub struct Targets<'t> {
    /// The class that counts as the right one, u32 `[B]`: of a mixed image that with the larger share.
    pub labels: Var<'t>,
    /// Probabilities of the classes, `[B, classes]`, where the labels alone do not say them.
    pub soft: Option<Var<'t>>,
}

impl<'t> Targets<'t> {
    /// These classes.
    pub fn of(labels: Var<'t>) -> Targets<'t> {
        Targets { labels, soft: None }
    }

    /// Cross-entropy of logits `[B, outputs]`: `[B]`, in nats. Against labels it is one launch with its gradient.
    pub fn cross_entropy(self, logits: Var<'t>) -> Var<'t> {
        match self.soft {
            Some(_) => logits.cross_entropy_soft(self.distribution(logits.shape())),
            None => logits.cross_entropy(self.labels),
        }
    }

    /// As [`Targets::cross_entropy`] with label smoothing: a share of the target is spread evenly over all classes
    /// (Szegedy et al. 2016; `torch.nn.functional.cross_entropy`).
    pub fn cross_entropy_smooth(self, logits: Var<'t>, smoothing: f64) -> Var<'t> {
        if smoothing == 0.0 {
            return self.cross_entropy(logits);
        }
        let outputs = logits.shape().dims().last().copied().unwrap_or(1) as f64;
        let even = self.distribution(logits.shape()).affine(1.0 - smoothing, smoothing / outputs);
        logits.cross_entropy_soft(even)
    }

    /// Probabilities for logits of this shape `[B, outputs]`: outputs beyond the classes (dummy classes) get none.
    pub fn distribution(self, logits: Shape) -> Var<'t> {
        let outputs = logits.dims().last().copied().unwrap_or(1);
        match self.soft {
            None => self.labels.one_hot(outputs),
            Some(soft) if soft.shape() == logits => soft,
            Some(soft) => soft.pad(&[0, 0], logits),
        }
    }
}
