//! What images that were made on another network say of the attacks that see the one that is evaluated.

use super::attacks::matters;
use super::{Flag, Kind, of};
use crate::report::evaluation::{Header, Outcomes, Part};

/// Examples that stood after all attacks on the network itself, and fell to images that were made on another.
pub fn transferred(header: &Header, outcomes: &Outcomes, kind: &str) -> Option<Flag> {
    let asked = || header.part(Part::Attack).skip(1);
    let (theirs, own): (Vec<usize>, Vec<usize>) = asked().partition(|&at| header.attacks[at].from.is_some());
    let from = header.attacks[*theirs.first()?].from.as_ref()?;
    if own.is_empty() {
        return None;
    }
    let stands = |attacks: &[usize], at: usize| attacks.iter().all(|&one| outcomes.attacks[one].standing[at]);
    let stood: Vec<usize> = (0..header.examples.len()).filter(|&at| stands(&own, at)).collect();
    let fell = stood.iter().filter(|&&at| !stands(&theirs, at)).count();
    matters(fell, header.examples.len()).then(|| Flag {
        kind: Kind::Transfer,
        measured: format!(
            "of {} that stood after the attacks on the network itself, {fell} fell to images that were made on {}",
            of(stood.len(), header.examples.len(), kind),
            from.model
        ),
        advice: "They are counted as broken. An attack that sees the network ought to find what one on another network does: \
                 its gradients are masked, and more images from other networks may find more. Find what hides the gradient",
    })
}
