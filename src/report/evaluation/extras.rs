//! What is measured besides verdicts: margins and losses, gradients by the image, curves.

use super::log::{Header, Part};
use super::unit::Unit;
use super::{Corrupted, Outcomes, Passes, Subject, TEST};
use crate::attack::{Attack, Evaluation, Pgd, ThreatModel};
use crate::error::Result;
use crate::report::Accuracy;
use crate::report::gallery::{Example, Prediction};
use crate::report::honesty::Flag;
use crate::tensor::Store;

/// Images whose margins are measured under attack.
const MARGINS: usize = 200;
/// Steps of the attack on them.
const STEPS: usize = 20;
/// Images shown with their gradients, and examples in the gallery.
const SHOWN: usize = 10;
/// Points of a curve that is read off distances.
const POINTS: usize = 41;

/// What is measured besides verdicts; what was not asked for is empty.
#[derive(Default)]
pub struct Extras {
    /// Margins and losses, clean and attacked.
    pub margins: Option<Margins>,
    /// Images beside their gradients.
    pub gradients: Vec<Gradient>,
    /// Broken examples with their witnesses.
    pub broken: Vec<Example>,
    /// Accuracy on corrupted images.
    pub corrupted: Vec<Corrupted>,
    /// What speaks against the figures.
    pub flags: Vec<Flag>,
    /// How many images the attacks among the checks looked at; `None` where no checks were made.
    pub checked: Option<usize>,
}

/// How sure the network is of the right class, on some images.
pub struct Margins {
    /// The attack's line.
    pub attack: String,
    /// Indices into the test data.
    pub examples: Vec<u32>,
    /// Of the clean images.
    pub clean: Sure,
    /// Of the attacked ones.
    pub attacked: Sure,
}

/// Of each image: the lead of the right class's logit over the next, and the loss (cross-entropy).
#[derive(Default)]
pub struct Sure {
    /// Below 0 where the image is misclassified.
    pub margins: Vec<f64>,
    /// In nats.
    pub losses: Vec<f64>,
}

/// An image and the gradient of its loss.
pub struct Gradient {
    /// Its class.
    pub label: u32,
    /// Pixels `[H,W,C]`.
    pub image: Vec<f32>,
    /// Gradient of the cross-entropy by them, `[H,W,C]`.
    pub gradient: Vec<f64>,
}

impl Sure {
    fn of(logits: &[f64], columns: usize, labels: &[u32]) -> Sure {
        let mut sure = Sure::default();
        for (row, &label) in logits.chunks(columns).zip(labels) {
            let own = row[label as usize];
            let others =
                || row.iter().enumerate().filter(|(class, _)| *class != label as usize).map(|(_, &x)| x);
            let next = others().fold(f64::NEG_INFINITY, f64::max);
            let most = own.max(next);
            sure.margins.push(own - next);
            sure.losses.push(most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln() - own);
        }
        sure
    }
}

impl Margins {
    /// Of the first of `examples`, clean and after PGD in the ball of `threat`.
    ///
    /// # Errors
    /// Of the device.
    pub fn measure(
        subject: &Subject<'_>,
        store: &Store,
        passes: &Passes,
        threat: &ThreatModel,
        examples: &[u32],
        seed: u64,
    ) -> Result<Margins> {
        let examples = &examples[..MARGINS.min(examples.len())];
        let pgd = Pgd::usual(threat.clone(), STEPS);
        let judge = Evaluation::compile(store, &pgd, subject.classifier(), TEST, MARGINS.min(100))?;
        let images = judge.images(examples, seed)?;
        let labels: Vec<u32> = examples.iter().map(|&i| subject.data.labels[i as usize]).collect();
        let sure = |of: fn(&crate::attack::Adversarial) -> &[f32]| -> Result<Sure> {
            let images: Vec<f32> = images.iter().flat_map(|image| of(image).iter().copied()).collect();
            Ok(Sure::of(&passes.logits(&images)?, passes.classes(), &labels))
        };
        Ok(Margins {
            attack: pgd.line(),
            clean: sure(|image| &image.clean)?,
            attacked: sure(|image| &image.adversarial)?,
            examples: examples.to_vec(),
        })
    }
}

/// Examples of different classes, as far as there are: at most [`SHOWN`].
fn of_all_classes(subject: &Subject<'_>, examples: impl Iterator<Item = (usize, u32)>) -> Vec<(usize, u32)> {
    let all: Vec<(usize, u32)> = examples.collect();
    let label = |example: u32| subject.data.labels[example as usize];
    let mut chosen: Vec<(usize, u32)> = Vec::new();
    for class in 0..subject.data.classes as u32 {
        chosen.extend(all.iter().find(|(_, example)| label(*example) == class));
    }
    let more: Vec<(usize, u32)> = all.into_iter().filter(|one| !chosen.contains(one)).collect();
    chosen.extend(more);
    chosen.truncate(SHOWN);
    chosen.sort_by_key(|(_, example)| label(*example));
    chosen
}

/// The gradients of the losses of some images that are classified right.
///
/// # Errors
/// Of the device.
pub fn gradients(
    subject: &Subject<'_>,
    passes: &Passes,
    header: &Header,
    outcomes: &Outcomes,
) -> Result<Vec<Gradient>> {
    let right =
        header.examples.iter().copied().enumerate().filter(|(at, _)| outcomes.attacks[0].standing[*at]);
    let chosen = of_all_classes(subject, right);
    let images: Vec<f32> = chosen.iter().flat_map(|&(_, example)| subject.clean(example)).collect();
    let labels: Vec<u32> = chosen.iter().map(|&(_, example)| subject.data.labels[example as usize]).collect();
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    let len = subject.data.image_len();
    let (_, gradients) = passes.gradients(&images, &labels)?;
    Ok(labels
        .iter()
        .zip(images.chunks(len).zip(gradients.chunks(len)))
        .map(|(&label, (image, gradient))| Gradient {
            label,
            image: image.to_vec(),
            gradient: gradient.to_vec(),
        })
        .collect())
}

/// Some examples that are classified right and were broken, with what breaks them.
///
/// # Errors
/// Of the device.
pub fn broken(
    subject: &Subject<'_>,
    passes: &Passes,
    header: &Header,
    units: &[Unit],
) -> Result<Vec<Example>> {
    let mut found: Vec<(u32, &[f32])> = Vec::new();
    for unit in
        units.iter().filter(|unit| unit.attack > 0 && header.attacks[unit.attack].part == Part::Attack)
    {
        let epsilon = header.attacks[unit.attack].threat()?.epsilon.value();
        for witness in unit.witnesses.iter().filter(|witness| witness.distance <= epsilon) {
            if found.iter().all(|(at, _)| *at != witness.at) {
                found.push((witness.at, &witness.image));
            }
        }
    }
    let examples = found.iter().enumerate().map(|(place, (at, _))| (place, header.examples[*at as usize]));
    let chosen = of_all_classes(subject, examples);
    let says = |image: &[f32]| -> Result<Prediction> {
        let logits: Vec<f32> = passes.logits(image)?.into_iter().map(|x| x as f32).collect();
        Ok(Prediction::from_logits(&logits))
    };
    chosen
        .into_iter()
        .map(|(place, example)| {
            let (clean, adversarial) = (subject.clean(example), found[place].1.to_vec());
            Ok(Example {
                clean_prediction: says(&clean)?,
                adversarial_prediction: says(&adversarial)?,
                label: subject.data.labels[example as usize],
                clean,
                adversarial,
            })
        })
        .collect()
}

/// A curve of accuracy.
pub struct Curve {
    /// What attacked: its line, or its name where the line changes along the curve.
    pub name: String,
    /// Its points.
    pub points: Vec<Point>,
}

/// A point of a curve.
pub struct Point {
    /// Epsilon, or steps.
    pub at: f64,
    /// The accuracy there.
    pub robust: Accuracy,
    /// The attack that says so, by its place in the header; a minimum-norm attack by the distances that it found.
    pub attack: usize,
}

/// Accuracy against epsilon: of the attacks that were run at several radii (from 0, the clean accuracy), and of each
/// minimum-norm attack by the distances that it found. What was broken within epsilon before it came (by another attack of a
/// suite, or by a run of its own towards another class) it did not look at: its distances say nothing of smaller radii
/// then, and its curve begins at epsilon.
pub fn epsilon_curves(header: &Header, outcomes: &Outcomes) -> Vec<Curve> {
    let mut curves = Vec::new();
    let swept: Vec<usize> = header.part(Part::Epsilon).collect();
    if let Some(&first) = swept.first() {
        let epsilon =
            |at: usize| header.attacks[at].threat().map_or(f64::NAN, |threat| threat.epsilon.value());
        let point =
            |attack: usize, at: f64| Point { at, robust: outcomes.attacks[attack].accuracy(), attack };
        let points = std::iter::once(point(0, 0.0)).chain(swept.iter().map(|&at| point(at, epsilon(at))));
        curves.push(Curve { name: header.attacks[first].name.clone(), points: points.collect() });
    }
    for at in header.part(Part::Attack).filter(|&at| header.attacks[at].minimum_norm) {
        let (outcome, attacked) = (&outcomes.attacks[at], &header.attacks[at]);
        let epsilon = attacked.threat().map_or(0.0, |threat| threat.epsilon.value());
        let least = if attacked.goes_on || attacked.runs > 1 { epsilon } else { 0.0 };
        let points = (0..POINTS).map(|i| {
            let radius = least + (2.0 * epsilon - least) * i as f64 / (POINTS - 1) as f64;
            let standing = outcome.distance.iter().filter(|&&distance| distance > radius).count();
            let robust = Accuracy::new(standing as u64, outcome.distance.len() as u64);
            Point { at: radius, robust, attack: at }
        });
        curves.push(Curve { name: attacked.within_suite(), points: points.collect() });
    }
    curves
}

/// Accuracy against the number of steps.
pub fn steps_curve(header: &Header, outcomes: &Outcomes) -> Option<Curve> {
    let point = |attack: usize| Point {
        at: header.attacks[attack].steps as f64,
        robust: outcomes.attacks[attack].accuracy(),
        attack,
    };
    let points: Vec<Point> = header.part(Part::Steps).map(point).collect();
    let name = |name: &str| name.rsplit_once('-').map_or(name, |(plain, _)| plain).to_string();
    let first = header.part(Part::Steps).next()?;
    Some(Curve { name: name(&header.attacks[first].name), points })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_and_losses() {
        let sure = Sure::of(&[3.0, 1.0, 0.0, 0.0, 2.0, -1.0], 3, &[0, 0]);
        assert_eq!(sure.margins, [2.0, -2.0]);
        let loss = (1.0 + (-2f64).exp() + (-3f64).exp()).ln();
        assert!((sure.losses[0] - loss).abs() < 1e-12);
    }
}
