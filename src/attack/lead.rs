//! What counts as misclassified: another class is ahead by more than rounding.
//!
//! A verdict is to hold for whoever looks again, in f64 or on another device. Attacks for the nearest image end where two
//! classes are next to equal, and there the largest logit is as rounding has it: of 341 images that FAB, DeepFool, FMN, CW
//! and DDN found on the hardened MNIST network (L2, 100 images), 23 were classified right in f64. So a class is left only
//! where another is ahead by [`needed`], in the attacks, which go on else, and in the verdict alike.

use super::Names;
use crate::device::Device;
use crate::shape::{DType, Shape};
use crate::tape::Var;

/// How far ahead another class has to be, as a share of the largest logit without its sign: a scalar among an attack's
/// [`Names`]. (Where nobody wrote it, 0.)
pub(super) const LEAD: &str = "lead";

/// That share on a device. In f32 the difference of two logits is off by up to 1.6e-6 of the largest (the hardened MNIST
/// CNN and a PreActResNet-18, on the CPU executor and on software Vulkan, against f64).
pub(crate) fn on(device: &Device) -> f64 {
    if device.is_f64() { 1e-12 } else { 1e-5 }
}

/// How far ahead another class has to be of each row of logits `[B,C]`: `[B,1]`.
pub(super) fn needed<'t>(names: &Names, logits: Var<'t>) -> Var<'t> {
    logits.abs().amax(&[1]) * names.source(logits.tape(), LEAD, Shape::scalar(), DType::F32)
}

/// Logits `[B,C]` whose largest says what counts as predicted, where any class but the one `marked` (one-hot) is what an
/// attack looks for.
pub(super) fn raised<'t>(names: &Names, logits: Var<'t>, marked: Var<'t>) -> Var<'t> {
    marked.select(logits + needed(names, logits), logits)
}

/// The same, where the one marked is looked for.
pub(super) fn lowered<'t>(names: &Names, logits: Var<'t>, marked: Var<'t>) -> Var<'t> {
    marked.select(logits - needed(names, logits), logits)
}

/// 1 where no class is so far ahead of the label's, `[B]`.
pub(super) fn correct<'t>(names: &Names, logits: Var<'t>, labels: Var<'t>) -> Var<'t> {
    raised(names, logits, labels.one_hot(logits.shape()[1])).correct(labels)
}

/// Class `class` of each row, one-hot as `logits`.
pub(super) fn marked(logits: Var<'_>, class: u32) -> Var<'_> {
    let one = logits.tape().fill([logits.shape()[0], 1], 1.0);
    one.pad(&[0, class as usize], logits.shape())
}
