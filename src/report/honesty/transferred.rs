//! What images that were made on another network say of the attacks that see the one that is evaluated.

use super::attacks::{matters, withstanding};
use super::{Flag, Kind, Suspect, of};
use crate::error::Result;
use crate::report::evaluation::{Header, Outcomes, Part};

/// Examples that stood after all attacks on the network itself, and fell to images that were made on another. The attacks on
/// the network itself may but have been weak: with a suspect, whose examples are the first of the evaluation's, only those
/// of its examples count that its stronger attacks do not break either.
///
/// # Errors
/// Of the device.
pub fn transferred(
    header: &Header,
    outcomes: &Outcomes,
    kind: &str,
    suspect: Option<&Suspect<'_>>,
) -> Result<Option<Flag>> {
    let asked = || header.part(Part::Attack).skip(1);
    let (theirs, own): (Vec<usize>, Vec<usize>) = asked().partition(|&at| header.attacks[at].from.is_some());
    let from = theirs.first().and_then(|&at| header.attacks[at].from.as_ref());
    let (Some(from), false) = (from, own.is_empty()) else { return Ok(None) };
    let stands = |attacks: &[usize], at: usize| attacks.iter().all(|&one| outcomes.attacks[one].standing[at]);
    let all = suspect.map_or(header.examples.len(), |suspect| suspect.examples.len());
    let stood: Vec<usize> = (0..all).filter(|&at| stands(&own, at)).collect();
    let places: Vec<usize> = stood.iter().copied().filter(|&at| !stands(&theirs, at)).collect();
    let (fell, nor, advice) = match suspect {
        Some(suspect) => (
            if matters(places.len(), all) { withstanding(suspect, &places)? } else { 0 },
            ", and not to more steps and restarts on itself either",
            "They are counted as broken. An attack that sees the network ought to find what one on another network does: \
             its gradients are masked, and more images from other networks may find more. Find what hides the gradient",
        ),
        None => (
            places.len(),
            "",
            "They are counted as broken. Either the attacks on the network itself were weak, or its gradients are masked: \
             --checks full says which",
        ),
    };
    Ok(matters(fell, all).then(|| Flag {
        kind: Kind::Transfer,
        measured: format!(
            "of {} that stood after the attacks on the network itself, {fell} fell to images that were made on {}{nor}",
            of(stood.len(), all, kind),
            from.model
        ),
        advice,
    }))
}
