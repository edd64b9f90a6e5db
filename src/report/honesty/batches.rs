//! What must not depend on which images share a batch, nor on how many do.

use super::outputs::normalised_distance;
use super::{Flag, Kind, Suspect, of};
use crate::attack::{Evaluation, Pgd};
use crate::error::Result;
use crate::report::evaluation::{TEST, argmax};

/// Images that are passed among others.
const IMAGES: usize = 64;
/// Distance of normalised outputs from which they differ.
const DIFFERENT: f64 = 1e-3;
/// Steps of the attack whose verdicts are compared, and images it is run on.
const STEPS: usize = 10;
const ATTACKED: usize = 50;

/// Outputs of images in one order and in another: batch norm that was left in training mode mixes a batch.
pub(super) fn check_outputs(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let (columns, kind) = (suspect.passes.classes(), suspect.subject.data.kind());
    let chosen = suspect.first(IMAGES);
    if chosen.len() < 2 {
        return Ok(Vec::new());
    }
    let one = suspect.passes.logits(&suspect.clean(chosen))?;
    // Every image beside copies of itself alone. A network that draws random numbers draws the same for it.
    let mut differ = 0;
    let (mut changed, mut farthest) = (0, 0f64);
    for (at, &example) in chosen.iter().enumerate().take(IMAGES / 4) {
        let alone = suspect.passes.logits_as(&suspect.clean(&[example]), at as u32, 0)?;
        let (row, alone) = (&one[at * columns..(at + 1) * columns], &alone[..columns]);
        let distance = normalised_distance(row, alone);
        farthest = farthest.max(distance);
        differ += usize::from(distance > DIFFERENT);
        changed += usize::from(argmax(row) != argmax(alone));
    }
    if differ == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::Neighbours,
        measured: format!(
            "{} have other outputs beside other images than beside themselves, by up to {farthest:.2e} of their length; \
             {changed} are of another class",
            of(differ, chosen.len().min(IMAGES / 4), kind)
        ),
        advice: "Batch norm (or the like) uses the batch's statistics: put the network into evaluation mode, so that it uses \
                 the running ones",
    }])
}

/// Verdicts of an attack in batches of two sizes.
pub(super) fn check_verdicts(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let chosen = suspect.first(ATTACKED);
    let labels = suspect.labels(chosen);
    let pgd = Pgd::usual(suspect.threat.clone(), STEPS);
    let verdicts = |batch: usize| {
        let on = suspect.subject.classifier();
        let judge = Evaluation::compile(suspect.store, &pgd, on, TEST, batch)?;
        judge.run(chosen, &labels, 1, suspect.seed, |_, _| {})
    };
    let (one, other) = (verdicts(7)?, verdicts(chosen.len())?);
    let differ = one.robust.iter().zip(&other.robust).filter(|(one, other)| one != other).count();
    if differ == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::BatchSize,
        measured: format!(
            "{} are broken by PGD-{STEPS} in batches of 7 and stand in batches of {}, or the other way about",
            of(differ, chosen.len(), suspect.subject.data.kind()),
            chosen.len()
        ),
        advice: "The figures are those of one batch size: look for layers that mix the images of a batch, or that draw \
                 random numbers",
    }])
}
