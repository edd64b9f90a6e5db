//! Attacks that ought to be weaker than the evaluation's, or no stronger, and are not.

use super::{Flag, Kind, Suspect, of};
use crate::attack::{Ascending, Evaluation, Fgsm, Norm, Pgd, Rational, Search, ThreatModel, Verdicts};
use crate::data::{Change, Examples, Limits};
use crate::error::Result;
use crate::report::evaluation::{TEST, argmax};
use std::collections::{BTreeMap, BTreeSet};

/// Images at once.
const BATCH: usize = 100;
/// Share of the images from which a difference is told of (AutoAttack's: 0.2 points); never less than two images.
const DIFFERENCE: f64 = 0.002;
/// Steps of PGD beside a single one.
const STEPS: usize = 20;
/// Their length, as a share of epsilon.
const STEP: f64 = 0.25;
/// Steps with a large epsilon.
const LARGE_STEPS: usize = 60;

/// Whether so many images of so many are worth telling of.
pub(super) fn matters(count: usize, all: usize) -> bool {
    count >= 2 && count as f64 > DIFFERENCE * all as f64
}

/// The smallest difference that attacks on so many images are told of by, in points.
pub fn told(images: usize) -> f64 {
    let count = (DIFFERENCE * images as f64).floor() + 1.0;
    100.0 * count.max(2.0) / images.max(2) as f64
}

fn run(suspect: &Suspect<'_>, search: &dyn Search, restarts: u32, examples: &[u32]) -> Result<Verdicts> {
    let on = suspect.subject.classifier();
    let judge =
        Evaluation::compile_search(suspect.store, search, on, TEST, BATCH.min(examples.len().max(1)))?;
    // Another start than the evaluation's.
    let seed = suspect.seed.wrapping_add(0x5eed);
    judge.run(examples, &suspect.labels(examples), restarts, seed, |_, _| {})
}

/// The examples that stand.
fn standing(suspect: &Suspect<'_>) -> Vec<u32> {
    let pairs = suspect.examples.iter().zip(&suspect.standing);
    pairs.filter(|(_, stands)| **stands).map(|(example, _)| *example).collect()
}

/// FGSM against PGD, each on all images.
pub(super) fn single_step(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let threat = suspect.threat.clone();
    // Steps that cross the ball several times, as PGD-20 has them everywhere. With those of [`Pgd::usual`], four thirds of a
    // radius together, it does not come from its random start to where FGSM goes: a healthy ResNet was flagged (FGSM left 45 of
    // 100 images of CIFAR-10, PGD-20 by such steps 48, by these 44).
    let step_size = Rational::from(threat.epsilon.value() * STEP);
    let fgsm = Fgsm { threat: threat.clone() };
    let pgd = Pgd { threat, steps: STEPS, step_size, random_start: true };
    let one = run(suspect, &Ascending(&fgsm), 1, &suspect.examples)?;
    let many = run(suspect, &Ascending(&pgd), 1, &suspect.examples)?;
    let all = suspect.examples.len();
    if !matters(many.robust_count().saturating_sub(one.robust_count()), all) {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::SingleStep,
        measured: format!(
            "FGSM leaves {}, PGD-{STEPS} in the same ball {}",
            of(one.robust_count(), all, suspect.subject.data.kind()),
            many.robust_count()
        ),
        advice: "Many steps can do all that one can: gradients are good only where the attack starts. Use more restarts, \
                 larger steps, and attacks without gradients (--attack square)",
    }])
}

/// Attacks with more steps and restarts on what stands, and then those without gradients on what stands after them: where
/// the evaluation was but weak, that they find more says nothing of gradients.
pub(super) fn on_what_stands(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let (mut standing, mut flags) = (standing(suspect), Vec::new());
    let mut left = standing.clone();
    for (search, restarts) in &suspect.stronger {
        let robust = robust(suspect, search.as_ref(), *restarts, &standing)?;
        left.retain(|example| robust.contains(example));
        flags.extend(fell(
            suspect,
            search.as_ref(),
            *restarts,
            [standing.len(), robust.len()],
            Kind::MoreSteps,
        ));
    }
    std::mem::swap(&mut standing, &mut left);
    for search in &suspect.black_box {
        let robust = robust(suspect, search.as_ref(), 1, &standing)?;
        flags.extend(fell(suspect, search.as_ref(), 1, [standing.len(), robust.len()], Kind::BlackBox));
    }
    Ok(flags)
}

/// How many of these examples, by their places among the suspect's, withstand stronger attacks by gradients.
pub(super) fn withstanding(suspect: &Suspect<'_>, places: &[usize]) -> Result<usize> {
    let mut left: Vec<u32> = places.iter().map(|&at| suspect.examples[at]).collect();
    for (search, restarts) in &suspect.stronger {
        let robust = robust(suspect, search.as_ref(), *restarts, &left)?;
        left.retain(|example| robust.contains(example));
    }
    Ok(left.len())
}

/// Those of these examples that withstand the attack.
fn robust(
    suspect: &Suspect<'_>,
    search: &dyn Search,
    restarts: u32,
    examples: &[u32],
) -> Result<BTreeSet<u32>> {
    if examples.is_empty() {
        return Ok(BTreeSet::new());
    }
    let verdicts = run(suspect, search, restarts, examples)?;
    Ok(examples
        .iter()
        .zip(verdicts.robust)
        .filter(|(_, robust)| *robust)
        .map(|(example, _)| *example)
        .collect())
}

/// What is told of an attack that left so few of so many.
fn fell(
    suspect: &Suspect<'_>,
    search: &dyn Search,
    restarts: u32,
    [stood, left]: [usize; 2],
    kind: Kind,
) -> Option<Flag> {
    let (broken, all) = (stood - left, suspect.examples.len());
    let times = if restarts > 1 { format!(", {restarts} restarts") } else { String::new() };
    let (after, advice) = match kind {
        Kind::BlackBox => (
            "the evaluation and stronger attacks by gradients",
            "Gradients mislead here (they are masked): trust the attack without them, give it more queries, and find what in \
             the network hides its gradient",
        ),
        _ => (
            "the evaluation",
            "The evaluation has not converged: its figure is too high. Name stronger attacks (--attack \
             autoattack,apgd-ce:restarts=5), until more of them change nothing",
        ),
    };
    matters(broken, all).then(|| Flag {
        kind,
        measured: format!(
            "of {} that stood after {after}, {broken} fall to {}{times}",
            of(stood, all, suspect.subject.data.kind()),
            search.line()
        ),
        advice,
    })
}

/// A ball that holds whatever an attacker may make of an example, and what is surely to be found there.
struct Large {
    threat: ThreatModel,
    /// Examples that may be classified right all the same.
    chance: f64,
    /// What the ball allows.
    allows: &'static str,
}

impl Large {
    fn of(suspect: &Suspect<'_>) -> Large {
        let (data, norm) = (suspect.subject.data, suspect.threat.norm);
        let (norm, far, chance, allows) = match &data.examples {
            Examples::Images(_) => {
                // Every image and middle grey are no further apart than this.
                let pixels = data.image_len() as f64;
                let far = match norm {
                    Norm::Linf => 0.5,
                    Norm::L2 => 0.5 * pixels.sqrt(),
                    Norm::L1 => 0.5 * pixels,
                };
                let chance = suspect.examples.len() as f64 / data.classes as f64;
                (norm, far, chance, "allows to paint every image grey")
            }
            Examples::Features(values, limits) => {
                let widths = limits.least.iter().zip(&limits.most).map(|(least, most)| most - least);
                let far = f64::from(widths.fold(0.0, f32::max));
                let labels = suspect.labels(&suspect.examples);
                let rows = suspect.examples.iter().map(|&example| {
                    let start = example as usize * limits.len();
                    &values[start..start + limits.len()]
                });
                let chance = indistinct(limits, rows.zip(labels)) as f64;
                // With everything within the bounds in reach a norm limits nothing, and steps of every feature are the
                // fastest.
                (Norm::Linf, far, chance, "allows whatever the bounds and the mask of the features do")
            }
        };
        let epsilon = Rational::from(far.max(suspect.threat.epsilon.value()));
        Large { threat: ThreatModel { norm, epsilon }, chance, allows }
    }

    /// Examples of so many that may be classified right without saying anything: three deviations above chance.
    fn limit(&self, all: usize) -> f64 {
        let share = (self.chance / all as f64).min(1.0);
        self.chance + 3.0 * (all as f64 * share * (1.0 - share)).sqrt()
    }
}

/// Of vectors of features with their classes, how many can be classified right at the most where an attacker may do all
/// that bounds and mask allow. What may be changed can be brought to one value in all of them (to the greatest, where it may
/// but grow), so that vectors with the same values in what may not be changed can be made equal, and then all but those of
/// one class are wrong.
fn indistinct<'v>(limits: &Limits, examples: impl Iterator<Item = (&'v [f32], u32)>) -> usize {
    let mut groups: BTreeMap<Vec<u32>, BTreeMap<u32, usize>> = BTreeMap::new();
    for (values, label) in examples {
        let fixed = values.iter().zip(&limits.changes).filter(|(_, change)| **change == Change::Fixed);
        // Zeros of either sign are one.
        let fixed = fixed.map(|(value, _)| (value + 0.0).to_bits()).collect();
        *groups.entry(fixed).or_default().entry(label).or_default() += 1;
    }
    groups.values().filter_map(|classes| classes.values().max()).sum()
}

/// PGD in a ball that holds an image in which nothing is to be seen, and images of every class; of features, in one that
/// holds all that they may be changed into.
pub(super) fn large_epsilon(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let (large, all) = (Large::of(suspect), suspect.examples.len());
    let Large { threat, chance, allows } = &large;
    let (kind, epsilon) = (suspect.subject.data.kind(), threat.epsilon.value());
    let logits = suspect.passes.logits(&suspect.clean(&suspect.examples))?;
    let rows = logits.chunks(suspect.passes.classes()).zip(suspect.labels(&suspect.examples));
    let right = rows.filter(|(row, label)| argmax(row) == *label).count();
    if right as f64 <= large.limit(all) {
        return Ok(vec![Flag {
            kind: Kind::LargeEpsilonUntried,
            measured: format!(
                "{} are classified right without an attack, and {chance:.0} may be under any ({:.0} by chance and three \
                 deviations)",
                of(right, all, kind),
                large.limit(all).min(all as f64)
            ),
            advice: "So this check, which looks for masked gradients, says nothing here: it takes a network that is right \
                     more often, more examples, or features of which more may be changed. Hold the figures against attacks \
                     without gradients (--attack square)",
        }]);
    }
    // Of features a random point of this ball is one of all there are, which no network can be right of: what is to be seen
    // is whether gradients lead away from the vector itself.
    let random_start = matches!(suspect.subject.data.examples, Examples::Images(_));
    let pgd = Pgd { random_start, ..Pgd::usual(threat.clone(), LARGE_STEPS) };
    let left = run(suspect, &Ascending(&pgd), 1, &suspect.examples)?.robust_count();
    if left as f64 <= large.limit(all) {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::LargeEpsilon,
        measured: format!(
            "{} are still classified right under PGD-{LARGE_STEPS} with epsilon {epsilon:.3}, which {allows} ({chance:.0} \
             would be chance)",
            of(left, all, kind)
        ),
        advice: "The attack does not find what is surely there, so it says nothing of smaller radii either: gradients are \
                 masked. Use attacks without gradients (--attack square) and images from other networks (--transfer)",
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_changed_decides_how_many_examples_can_be_told_apart() {
        // The last of them says the class; the first is one of two values.
        let rows: [(&[f32], u32); 6] = [
            (&[0.0, 0.1, 1.0], 0),
            (&[-0.0, 0.2, 1.0], 0),
            (&[0.0, 0.3, 2.0], 1),
            (&[5.0, 0.4, 2.0], 1),
            (&[5.0, 0.5, 3.0], 2),
            (&[5.0, 0.6, 2.0], 1),
        ];
        let most_right = |changes: [Change; 3]| {
            let limits = Limits {
                names: vec![String::new(); 3],
                least: vec![0.0; 3],
                most: vec![9.0; 3],
                changes: changes.to_vec(),
            };
            indistinct(&limits, rows.into_iter())
        };
        use Change::{Down, Fixed, Free, Up};
        // All can be made equal: the largest class stands.
        assert_eq!(most_right([Free, Free, Free]), 3);
        assert_eq!(most_right([Up, Free, Down]), 3);
        // Two of class 0 with 0, two of class 1 with 5.
        assert_eq!(most_right([Fixed, Free, Free]), 4);
        // What says the class, or the example, cannot be changed.
        assert_eq!(most_right([Free, Free, Fixed]), 6);
        assert_eq!(most_right([Free, Fixed, Free]), 6);
    }

    #[test]
    fn what_is_told_of_is_the_least_that_matters() {
        for images in [2, 100, 999, 1000, 1001, 10_000] {
            let count = (told(images) * images as f64 / 100.0).round() as usize;
            assert!(matters(count, images) && !matters(count - 1, images), "{count} of {images}");
        }
        assert_eq!((told(100), told(1000)), (2.0, 0.3));
    }
}
