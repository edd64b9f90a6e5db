//! What a log says of itself, held against the data and against what else it says.

use super::log::{Attacked, Header, Log, Part};
use super::unit::{Unit, Verdict};
use super::{Failure, Outcomes, Subject};
use crate::error::{Error, Result};

/// Refuses a log of other weights, data or shapes than the subject's. `outputs` are the numbers that decide.
///
/// # Errors
/// [`Error::Argument`].
pub(super) fn header(subject: &Subject<'_>, header: &Header, outputs: usize) -> Result<()> {
    let data = subject.data;
    let same = |what: &str, theirs: &str, ours: &str| match theirs == ours {
        true => Ok(()),
        false => {
            let why = format!("the log was written with the {what} of SHA-256 {theirs}: give those");
            Err(Error::argument(what, format!("SHA-256 {ours}"), why))
        }
    };
    same("weights", &header.model_sha256, &subject.sha256())?;
    same("test data", &header.data_sha256, &data.sha256)?;
    // A log of images of another shape would have its witnesses cut out of each other.
    if header.image != data.image {
        let why = format!("the test data are {:?} {}", data.image, data.kind());
        return Err(Error::argument("log", format!("{:?} {}", header.image, data.kind()), why));
    }
    if header.classes != data.classes || header.classes != outputs {
        let why = format!("the test data have {} classes, the network {outputs}", data.classes);
        return Err(Error::argument("log", format!("{} classes", header.classes), why));
    }
    match header.examples.iter().find(|&&example| example as usize >= data.len()) {
        None => Ok(()),
        Some(example) => {
            let why = format!("there are {} test {}", data.len(), data.kind());
            Err(Error::argument("example", example, why))
        }
    }
}

/// Attack lines that are not of the attacks that they head, and parts of the worst case that are not of one ball.
pub(super) fn lines(header: &Header) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for (index, attacked) in header.attacks.iter().enumerate() {
        let mut fail =
            |why: String| failures.push(Failure { attack: attacked.line.clone(), example: None, why });
        let threat = attacked.threat()?.to_string();
        match index {
            0 if attacked.line != "none (clean)" || attacked.runs != 1 || attacked.part != Part::Attack => {
                fail("the first is to be the clean images".into());
            }
            0 => {}
            _ if !says(&attacked.line, &threat) => fail(format!("its line does not say {threat}")),
            _ if attacked.restarts > 1
                && !says(&attacked.line, &format!("{} restarts", attacked.restarts)) =>
            {
                fail(format!("its line does not say {} restarts", attacked.restarts));
            }
            _ if attacked.runs == 0 => fail("it has no runs".into()),
            _ => {}
        }
        let ball = |attacked: &Attacked| (attacked.norm.clone(), attacked.epsilon.clone());
        if attacked.part == Part::Attack && ball(attacked) != ball(&header.attacks[0]) {
            fail(
                "it is of another ball than the clean images' row, and one worst case cannot be of both"
                    .into(),
            );
        }
    }
    Ok(failures)
}

/// Whether a line holds these words, and no longer number in their place: 0.3 is not in 0.35, nor 2 restarts in 12.
fn says(line: &str, words: &str) -> bool {
    let on = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/';
    line.match_indices(words)
        .any(|(at, _)| !line[..at].ends_with(on) && !line[at + words.len()..].starts_with(on))
}

/// The first unit that is not the one that comes next: each run of each attack is on what stood before it, group by group. A log
/// that says it is complete has all of them.
pub(super) fn order(log: &Log) -> Option<Failure> {
    let header = &log.header;
    let mut units = log.units.iter().enumerate();
    for (attack, attacked) in header.attacks.iter().enumerate() {
        let fail = |why: String| Some(Failure { attack: attacked.line.clone(), example: None, why });
        for run in 0..attacked.runs {
            let done = log.units.len() - units.len();
            let tried = Outcomes::tried(header, &log.units[..done], attack);
            for (group, expected) in tried.chunks(header.group).enumerate() {
                let Some((_, unit)) = units.next() else {
                    return match log.complete {
                        true => {
                            fail(format!("the log says it is complete, and lacks group {group} of run {run}"))
                        }
                        false => None,
                    };
                };
                let ats = unit.verdicts.iter().map(|verdict| verdict.at);
                if unit.place() != (attack, run, group) || !ats.eq(expected.iter().copied()) {
                    return fail(format!(
                        "group {group} of run {run} is to be of the examples that stood before it"
                    ));
                }
            }
            if tried.is_empty() {
                break;
            }
        }
    }
    let (_, more) = units.next()?;
    let why = format!("group {} of run {} is of nothing that stood", more.group, more.run);
    Some(Failure { attack: header.attacks[more.attack].line.clone(), example: None, why })
}

/// What is wrong with a verdict, given the class of its example and the radius of its attack.
pub(super) fn verdict(
    unit: &Unit,
    attacked: &Attacked,
    epsilon: f64,
    label: u32,
    verdict: &Verdict,
) -> Option<&'static str> {
    if verdict.correct != (verdict.clean == label) || (unit.attack > 0 && !verdict.correct) {
        return Some("what is said of its clean image is not so");
    }
    if verdict.robust && !verdict.correct {
        return Some("it is said to be misclassified, and to stand");
    }
    let found = unit.witnesses.binary_search_by_key(&verdict.at, |found| found.at);
    match found.map(|row| &unit.witnesses[row]) {
        Ok(found) if found.distance.to_bits() != verdict.distance.to_bits() => {
            Some("verdict and witness differ in the distance")
        }
        Ok(found) if verdict.robust && found.distance <= epsilon => {
            Some("it is said to stand, and has a witness in reach")
        }
        Ok(found) if attacked.minimum_norm && !verdict.robust && found.distance > epsilon => {
            Some("it is said to be broken, by an image beyond epsilon")
        }
        Ok(found) if unit.attack == 0 && found.prediction != verdict.clean => {
            Some("verdict and witness differ in the class")
        }
        Err(_) if !verdict.robust => Some("it is said to be broken, without a witness"),
        Err(_) if verdict.distance <= epsilon => Some("it is said to stand, at a distance in reach"),
        Err(_) if verdict.distance.is_finite() && !attacked.minimum_norm => {
            Some("it has a distance, without an image at it")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn a_longer_number_is_another() {
        assert!(says("PGD-40, Linf 0.3, step 0.01", "Linf 0.3"));
        assert!(says("Linf 0.35, Linf 0.3", "Linf 0.3"));
        assert!(!says("PGD-40, Linf 0.35, step 0.01", "Linf 0.3"));
        assert!(!says("12 restarts", "2 restarts"));
        assert!(!says("PGD-40, Linf 8/2550 = 0.00314", "Linf 8/255"));
    }
}
