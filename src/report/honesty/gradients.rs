//! Gradients that say nothing of the loss.

use super::{Flag, Kind, Suspect, of};
use crate::device::Device;
use crate::error::Result;
use crate::philox;
use crate::report::evaluation::{Passes, argmax};
use crate::tape::Purpose;
use crate::tensor::Store;

/// Images whose gradient is looked at.
const IMAGES: usize = 100;
/// Share of them that may have none: a network that is very sure of an image has a gradient all the same, if a small one.
const WITHOUT: f64 = 0.01;
/// Images whose gradient is held against differences, and directions for each.
const COMPARED: usize = 8;
const DIRECTIONS: u32 = 4;
/// Half the distance of the two points of a difference, for pixels of 0 to 1: in f64 the loss is exact to some 1e-15.
const STEP: f64 = 1e-6;
/// Length of a gradient below which differences are no longer exact enough.
const FLAT: f64 = 1e-5;
/// How far numbers are moved before slopes are compared.
const MOVED: f32 = 0.02;
/// How far the two may be apart, relative to the gradient's length: what f32 errs in a deep network, and no more.
const APART: f64 = 0.05;
/// Share of the comparisons that may fail: where a ReLU turns over between the two points.
const TURNED: f64 = 0.2;

/// No gradient, or another than the loss's.
pub(super) fn check(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let kind = suspect.subject.data.kind();
    let chosen = suspect.first(IMAGES);
    let (images, labels) = (suspect.clean(chosen), suspect.labels(chosen));
    let len = suspect.subject.data.image_len();
    let (_, gradients) = suspect.passes.gradients(&images, &labels)?;
    let mut flags = Vec::new();
    let zero = gradients.chunks(len).filter(|gradient| gradient.iter().all(|&g| g == 0.0)).count();
    if zero as f64 > WITHOUT * chosen.len() as f64 {
        flags.push(Flag {
            kind: Kind::ZeroGradient,
            measured: format!(
                "the cross-entropy of {} has no gradient by the image, not in a single number",
                of(zero, chosen.len(), kind)
            ),
            advice: "An attack by gradients stays where it is: take steps without a gradient (rounding, thresholds, \
                     saturated sigmoids) or large factors on the logits out, attack through a smooth stand-in (BPDA), and \
                     run --attack square",
        });
    }
    let moved = inwards(&images);
    let (_, gradients) = suspect.passes.gradients(&moved, &labels)?;
    let lengths: Vec<f64> = gradients.chunks(len).map(norm).collect();
    let compared: Vec<usize> = (0..chosen.len()).filter(|&at| lengths[at] > FLAT).take(COMPARED).collect();
    if compared.is_empty() {
        return Ok(flags);
    }
    // In f64 from the network's own formulas, on the CPU.
    let store = Store::new(&Device::reference());
    suspect.subject.put(&store)?;
    let passes = Passes::compile(&store, suspect.subject.classifier(), 2)?;
    let (mut failed, mut worst) = (0, 0f64);
    let all = compared.len() * DIRECTIONS as usize;
    for &at in &compared {
        let (image, gradient) = (&moved[at * len..(at + 1) * len], &gradients[at * len..(at + 1) * len]);
        for direction in 0..DIRECTIONS {
            let signs: Vec<f64> = (0..len)
                .map(|i| {
                    let drawn = philox::uniform([0, 0], Purpose::TEST, [direction, 0], at as u32, i as u32);
                    if drawn < 0.5 { -1.0 } else { 1.0 }
                })
                .collect();
            let point =
                |step: f64| image.iter().zip(&signs).map(move |(&x, sign)| f64::from(x) + step * sign);
            let logits = passes.logits_f64(&point(STEP).chain(point(-STEP)).collect::<Vec<_>>())?;
            let (ahead, behind) = logits.split_at(passes.classes());
            let numeric = (loss(ahead, labels[at]) - loss(behind, labels[at])) / (2.0 * STEP);
            let analytic: f64 = gradient.iter().zip(&signs).map(|(g, sign)| g * sign).sum();
            let apart = apart(analytic, numeric, lengths[at]);
            worst = worst.max(apart);
            failed += usize::from(apart > APART);
        }
    }
    if failed as f64 > TURNED * all as f64 {
        flags.push(Flag {
            kind: Kind::WrongGradient,
            measured: format!(
                "of {all} slopes of the loss on {} {kind}, {failed} are not what the gradient says by more than {:.0} % of \
                 its length (at worst {:.0} %)",
                compared.len(),
                100.0 * APART,
                100.0 * worst
            ),
            advice: "Something in the network has a gradient that is not its own: an attack follows a wrong one. Look for \
                     an operation that is replaced in the backward pass",
        });
    }
    Ok(flags)
}

/// Numbers a little further inside of [0, 1], each by another amount: where many are exactly 0, ReLUs stand exactly where
/// they turn over, and have no slope to compare.
fn inwards(images: &[f32]) -> Vec<f32> {
    let amount =
        |i: usize| MOVED * (0.5 + 0.5 * philox::uniform([1, 0], Purpose::TEST, [0, 0], 0, i as u32) as f32);
    images.iter().enumerate().map(|(i, &x)| if x < 0.5 { x + amount(i) } else { x - amount(i) }).collect()
}

fn norm(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}

/// How far two slopes are apart, in lengths of the gradient (or of the numeric slope, where that is more).
fn apart(analytic: f64, numeric: f64, length: f64) -> f64 {
    (analytic - numeric).abs() / length.max(numeric.abs())
}

/// Loss (cross-entropy) by logits.
pub(super) fn loss(logits: &[f64], label: u32) -> f64 {
    let most = logits[argmax(logits) as usize];
    most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln() - logits[label as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_that_differ_are_far_apart() {
        assert!(apart(1.0, 1.001, 2.0) < APART);
        assert!(apart(0.0, 1.0, 1e-9) > APART);
        assert!(apart(1.0, -1.0, 2.0) > APART);
        assert!((loss(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
        assert!((loss(&[0.0, 0.0], 0) - 2f64.ln()).abs() < 1e-12);
    }
}
