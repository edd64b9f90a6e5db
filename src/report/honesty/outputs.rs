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
/// Classes from which on APGD-T and FAB-T have as many targets as the reference's, nine.
const TARGETED: usize = 10;
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

    flags.extend(few_classes(columns));
    Ok(flags)
}

/// A note where there are fewer classes than the targeted attacks of AutoAttack have targets, and one more.
fn few_classes(classes: usize) -> Option<Flag> {
    let targets = classes.saturating_sub(1);
    let left_out = match classes {
        TARGETED.. => return None,
        4.. => "",
        3 => ", and no targeted DLR, which compares four outputs",
        _ => ", and neither DLR nor targeted DLR, which compare three and four outputs",
    };
    let s = if targets == 1 { "" } else { "s" };
    Some(Flag {
        kind: Kind::FewClasses,
        measured: format!(
            "{classes} classes: APGD-T and FAB-T have {targets} target{s} at most, not nine{left_out}"
        ),
        advice: match classes {
            4.. => {
                "Every other class is gone for, so that nothing is left out; what has fewer targets has fewer runs than on \
                 ten classes: more restarts make up for them (--attack apgd-t:restarts=3)"
            }
            _ => {
                "Where a loss needs more outputs the attacks fall back to one that needs fewer, and their lines say so; look \
                 at Square's row beside them"
            }
        },
    })
}

/// Distance of two rows, each divided by its length.
pub(super) fn normalised_distance(one: &[f64], other: &[f64]) -> f64 {
    let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-30);
    let (a, b) = (length(one), length(other));
    one.iter().zip(other).map(|(x, y)| (x / a - y / b).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Norm, ThreatModel, by_name};

    #[test]
    fn few_classes_are_told_of_with_the_targets_that_attacks_have() {
        let threat = ThreatModel { norm: Norm::Linf, epsilon: "0.1".parse().unwrap() };
        for classes in 2..TARGETED {
            let flag = few_classes(classes).unwrap();
            assert!(flag.text().starts_with(&format!("note: too few classes: {classes} classes: ")));
            let s = if classes == 2 { "" } else { "s" };
            assert!(
                flag.measured.contains(&format!("{} target{s} at most", classes - 1)),
                "{}",
                flag.measured
            );
            let line = |name: &str| by_name(name, &threat, classes).unwrap().attacks[0].line();
            for name in ["apgd-t", "fab-t"] {
                assert!(line(name).contains(&format!(", {} target{s}", classes - 1)), "{}", line(name));
            }
            // What the note says of losses is what the lines say.
            let whole =
                |name: &str| line(name).split(", ").any(|part| part == "DLR" || part == "targeted DLR");
            assert_eq!(flag.measured.contains("no targeted DLR"), classes == 3);
            assert_eq!(flag.measured.contains("neither DLR"), !whole("apgd-dlr"));
            assert_eq!(classes < 4, !whole("apgd-t"), "{}", line("apgd-t"));
        }
        assert_eq!(few_classes(TARGETED), None);
    }
}
