//! Outputs that are not what attacks take them for.

use super::{Flag, Kind, Suspect, of};
use crate::error::Result;
use crate::report::evaluation::argmax;

/// Forward passes over the same images.
const FORWARDS: u32 = 5;
/// Images that are passed.
const IMAGES: usize = 100;
/// Distance of normalised outputs from which two passes differ (AutoAttack's).
const DIFFERENT: f64 = 1e-4;
/// How far probabilities may be from adding up to 1 (AutoAttack's).
const SUMS: f64 = 1e-5;

/// Randomised outputs, probabilities, what is no number, and too few classes.
pub(super) fn check(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let images = suspect.clean(suspect.first(IMAGES));
    let (columns, count) = (suspect.passes.classes(), suspect.first(IMAGES).len());
    let kind = suspect.subject.data.kind();
    let first = suspect.passes.logits(&images)?;
    let mut flags = Vec::new();
    let rows = |logits: &'_ [f64]| logits.chunks(columns).map(<[f64]>::to_vec).collect::<Vec<_>>();

    let broken = rows(&first).iter().filter(|row| row.iter().any(|x| !x.is_finite())).count();
    if broken > 0 {
        flags.push(Flag {
            kind: Kind::NotFinite,
            measured: format!("{} have an output that is infinite or NaN", of(broken, count, kind)),
            advice: "Attacks and verdicts mean nothing there: look for a division or a logarithm of 0 in the network, or \
                     for damaged weights",
        });
    }

    let (mut differ, mut changed, mut farthest) = (vec![false; count], vec![false; count], 0f64);
    for forward in 1..FORWARDS {
        let again = suspect.passes.logits_as(&images, 0, forward)?;
        for (at, (one, other)) in rows(&first).iter().zip(&rows(&again)).enumerate() {
            let distance = normalised_distance(one, other);
            farthest = farthest.max(distance);
            differ[at] |= distance > DIFFERENT;
            changed[at] |= argmax(one) != argmax(other);
        }
    }
    let count_of = |marks: &[bool]| marks.iter().filter(|&&mark| mark).count();
    if count_of(&differ) > 0 {
        flags.push(Flag {
            kind: Kind::Randomised,
            measured: format!(
                "in {FORWARDS} passes over the same {count} {kind}, outputs of {} differ by up to {farthest:.2e} of their \
                 length, and the class of {}",
                count_of(&differ),
                count_of(&changed)
            ),
            advice: "One lucky draw counts as robust, one unlucky as broken: attack the mean over many draws (--attack \
                     autoattack-rand) and report over several seeds",
        });
    }

    let probabilities = rows(&first).iter().all(|row| {
        let within = row.iter().all(|&x| (-SUMS..=1.0 + SUMS).contains(&x));
        within && (row.iter().sum::<f64>() - 1.0).abs() <= SUMS
    });
    if probabilities && columns > 1 {
        flags.push(Flag {
            kind: Kind::Softmax,
            measured: format!("the outputs of all {count} {kind} lie in 0 to 1 and add up to 1"),
            advice: "Softmax of a softmax has hardly any gradient: evaluate the network without its last layer",
        });
    }

    if columns < 4 {
        let left_out = if columns < 3 { "neither DLR nor targeted DLR" } else { "no targeted DLR" };
        flags.push(Flag {
            kind: Kind::FewClasses,
            measured: format!("{columns} classes: {left_out}, which compare more outputs"),
            advice: "The attacks fall back to losses that two outputs are enough for; look at Square's row beside them",
        });
    }
    Ok(flags)
}

/// Distance of two rows, each divided by its length.
pub(super) fn normalised_distance(one: &[f64], other: &[f64]) -> f64 {
    let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-30);
    let (a, b) = (length(one), length(other));
    one.iter().zip(other).map(|(x, y)| (x / a - y / b).powi(2)).sum::<f64>().sqrt()
}
