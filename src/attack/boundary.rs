//! Where the linearised logits of the label and of another class are equal: what FAB and DeepFool step towards.

use super::losses::in_order;
use super::{Norm, Site};
use crate::tape::Var;

/// A hyperplane an example: where `excess + normal . (z - image)` is 0.
#[derive(Clone, Copy)]
pub(super) struct Boundary<'t> {
    /// Gradient by the image of the other class's logit less the label's, as the images.
    pub normal: Var<'t>,
    /// That difference at the image, less what another class has to be ahead by (lead.rs), `[B,1,1,1]`: negative where the
    /// label's is the larger.
    pub excess: Var<'t>,
}

/// Classes among which the nearest is looked for, where there are more (as the DeepFool paper and Foolbox do).
pub(super) const CANDIDATES: usize = 10;

/// The boundary to the class `target` (one-hot `[B, classes]`) at `images` with these logits.
pub(super) fn towards<'t>(
    site: &Site<'_, 't>,
    images: Var<'t>,
    logits: Var<'t>,
    target: Var<'t>,
) -> Boundary<'t> {
    let difference = target - site.labels.one_hot(site.classes());
    let normal = site.ball.along(site.tape.weighted_grad(logits, difference, &[images])[0]);
    let excess = (logits * difference).sum(&[1]) - site.needed(logits);
    Boundary { normal, excess: excess.reshape(site.per_example()) }
}

/// The nearest boundary at `images` in a norm, of those to the [`CANDIDATES`] classes of the largest logits there: a
/// backward pass for each.
pub(super) fn nearest<'t>(site: &Site<'_, 't>, images: Var<'t>, norm: Norm) -> Boundary<'t> {
    let logits = site.logits(images);
    let label = site.labels.one_hot(site.classes());
    let candidates = match site.classes() {
        // All: then the order is that of the classes.
        classes if classes <= CANDIDATES => (0..classes)
            .map(|class| {
                let one = site.tape.fill([site.batch, 1], 1.0);
                one.pad(&[0, class], [site.batch, classes])
            })
            .collect(),
        _ => in_order(logits, CANDIDATES),
    };
    let mut nearest: Option<(Boundary<'t>, Var<'t>)> = None;
    for target in candidates {
        let found = towards(site, images, logits, target);
        let distance = found.excess.abs() / dual_norm(norm, found.normal).affine(1.0, 1e-12);
        // The label is no other class.
        let is_label = (target * label).sum(&[1]).reshape(site.per_example());
        let distance = distance.add_scaled(is_label, 1e30);
        nearest = Some(match nearest {
            None => (found, distance),
            Some((best, least)) => {
                let nearer = least.greater(distance);
                let normal = nearer.broadcast_to(images.shape()).select(found.normal, best.normal);
                let excess = nearer.select(found.excess, best.excess);
                (Boundary { normal, excess }, least.min(distance))
            }
        });
    }
    nearest.map_or_else(|| towards(site, images, logits, label), |(boundary, _)| boundary)
}

/// Length of each of these, `[B,1,1,1]`.
pub(super) fn norm(norm: Norm, change: Var<'_>) -> Var<'_> {
    match norm {
        Norm::Linf => change.norm_linf(),
        Norm::L2 => change.norm_l2(),
        Norm::L1 => change.norm_l1(),
    }
}

/// Length of each gradient in the norm that is dual to `norm`, `[B,1,1,1]`: how much the value may change a unit of the way.
pub(super) fn dual_norm(of: Norm, gradient: Var<'_>) -> Var<'_> {
    norm(
        match of {
            Norm::Linf => Norm::L1,
            Norm::L2 => Norm::L2,
            Norm::L1 => Norm::Linf,
        },
        gradient,
    )
}
