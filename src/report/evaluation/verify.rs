//! Holding a log against exact arithmetic: every witness inside of its ball and box, and misclassified in f64.

use super::log::{Attacked, Header, Log, Part};
use super::unit::Found;
use super::{Outcomes, Passes, Subject, argmax, claims};
use crate::attack::Norm;
use crate::data::{Dataset, Examples};
use crate::device::Device;
use crate::error::Result;
use crate::report::{grouped, table};
use crate::tensor::Store;
use std::fmt;

/// Images that are looked at at once.
const BATCH: usize = 64;
/// Lead of another wrong class over the one that a witness is said to be read as, in shares of the largest logit, up to which
/// f32 may have said so.
const TIE: f64 = 1e-4;

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The attack's line.
    pub attack: String,
    /// The example's index in the test data, where it is of one.
    pub example: Option<u32>,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.example {
            Some(example) => write!(f, "example {example} under {}: {}", self.attack, self.why),
            None => write!(f, "{}: {}", self.attack, self.why),
        }
    }
}

/// What came of holding a log against exact arithmetic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// Witnesses that were looked at.
    pub witnesses: usize,
    /// Of those, clean images that are misclassified.
    pub clean: usize,
    /// Broken examples: of each attack those that it broke.
    pub broken: usize,
    /// Witnesses of minimum-norm attacks that are further than epsilon: they break nothing, and are kept for the curve.
    pub beyond: usize,
    /// Distances beyond epsilon, of minimum-norm attacks, of which no image was kept: nothing says that they are so.
    pub unkept: usize,
    /// What is wrong.
    pub failures: Vec<Failure>,
    /// The largest distance of a witness that counts, over its epsilon.
    pub farthest: f64,
    /// The smallest lead, in logits, of the class predicted over the right one, in f64.
    pub smallest_lead: f64,
}

/// The row of the table for an attack of a log.
pub(super) fn row(header: &Header, attack: usize, outcomes: &Outcomes, kind: &str) -> table::Row {
    let images = format!("{} {kind}", grouped(header.examples.len() as u64));
    let attacked = &header.attacks[attack];
    let line = match &attacked.suite {
        Some(suite) => format!("{suite}: {}", attacked.line),
        None => attacked.line.clone(),
    };
    table::Row { attack: format!("{line}, {images}"), accuracy: outcomes.attacks[attack].accuracy() }
}

/// Re-checks every witness of a log on the CPU, by its bits: that it lies in the box (exactly), in the ball (in f64), and
/// that the network, in f64, does not predict its class but the one that it says; that every example that the log calls broken has
/// one; that images, classes and examples are those of the test data, attack lines those of the attacks; and that every run
/// was on what stood before it. That what stands cannot be broken nobody can check. `progress` hears how many witnesses are done, and of how many.
///
/// # Errors
/// [`crate::Error::Argument`] where weights or test data are not those of the log; of the CPU executor.
pub fn verify(subject: &Subject<'_>, log: &Log, mut progress: impl FnMut(usize, usize)) -> Result<Verified> {
    let header = &log.header;
    let store = Store::new(&Device::reference());
    subject.put(&store)?;
    let passes = Passes::compile(&store, subject.classifier(), BATCH)?;
    claims::header(subject, header, passes.classes())?;
    let all: usize = log.units.iter().map(|unit| unit.witnesses.len()).sum();
    let failures = claims::lines(header)?.into_iter().chain(claims::order(log)).collect();
    let mut verified = Verified { smallest_lead: f64::INFINITY, failures, ..Verified::default() };
    for unit in &log.units {
        let attacked = &header.attacks[unit.attack];
        let epsilon = attacked.threat()?.epsilon.value();
        for verdict in &unit.verdicts {
            let example = header.examples[verdict.at as usize];
            let label = subject.data.labels[example as usize];
            match claims::verdict(unit, attacked, epsilon, label, verdict) {
                Some(why) => verified.failures.push(Failure {
                    attack: attacked.line.clone(),
                    example: Some(example),
                    why: why.into(),
                }),
                None => {
                    let found = unit.witnesses.binary_search_by_key(&verdict.at, |found| found.at);
                    verified.unkept += usize::from(verdict.distance.is_finite() && found.is_err());
                }
            }
            verified.broken += usize::from(!verdict.robust);
        }
        for batch in unit.witnesses.chunks(BATCH) {
            let images: Vec<f32> = batch.iter().flat_map(|found| found.image.iter().copied()).collect();
            let logits = passes.logits(&images)?;
            for (found, logits) in batch.iter().zip(logits.chunks(passes.classes())) {
                let checked = check(subject, header, attacked, found, logits);
                match checked {
                    Ok((reach, lead)) => {
                        verified.smallest_lead = verified.smallest_lead.min(lead);
                        match found.distance <= epsilon {
                            true => verified.farthest = verified.farthest.max(reach),
                            false => verified.beyond += 1,
                        }
                    }
                    Err(why) => verified.failures.push(Failure {
                        attack: attacked.line.clone(),
                        example: Some(header.examples[found.at as usize]),
                        why,
                    }),
                }
            }
            verified.witnesses += batch.len();
            verified.clean += if unit.attack == 0 { batch.len() } else { 0 };
            progress(verified.witnesses, all);
        }
    }
    Ok(verified)
}

/// Distance over epsilon and lead of a witness that is one; else why it is none.
fn check(
    subject: &Subject<'_>,
    header: &Header,
    attacked: &Attacked,
    found: &Found,
    logits: &[f64],
) -> std::result::Result<(f64, f64), String> {
    let threat = attacked.threat().map_err(|e| e.to_string())?;
    let example = header.examples[found.at as usize];
    let clean = subject.clean(example);
    in_box(subject.data, &clean, &found.image)?;
    let distance = threat.norm.distance(&clean, &found.image);
    let epsilon = threat.epsilon.value();
    if distance.to_bits() != found.distance.to_bits() {
        return Err(format!("is {distance} away ({}), not {} as it says", threat.norm, found.distance));
    }
    if distance > epsilon && !attacked.minimum_norm {
        return Err(format!("is {distance} away, further than {}", threat));
    }
    let label = subject.data.labels[example as usize];
    let prediction = argmax(logits);
    // NaN leads nobody.
    let lead = logits[prediction as usize] - logits[label as usize];
    let largest = logits.iter().fold(0f64, |most, logit| most.max(logit.abs()));
    if prediction != label && logits[prediction as usize] - logits[found.prediction as usize] > TIE * largest
    {
        return Err(format!("is read as {prediction} in f64, not as {}", found.prediction));
    }
    match prediction != label && found.prediction != label && lead > 0.0 {
        true => Ok((if epsilon > 0.0 { distance / epsilon } else { 0.0 }, lead)),
        false => Err(format!("is classified right in f64, as {label}")),
    }
}

/// Whether an image lies in its box, exactly, and features that are fixed are as they were.
pub(super) fn in_box(data: &Dataset, clean: &[f32], image: &[f32]) -> std::result::Result<(), String> {
    let outside = |at: usize| format!("number {at} is {}, outside of its bounds", image[at]);
    match &data.examples {
        Examples::Images(_) => match image.iter().position(|x| !(0.0..=1.0).contains(x)) {
            Some(at) => Err(outside(at)),
            None => Ok(()),
        },
        Examples::Features(_, limits) => {
            for (at, (&x, &before)) in image.iter().zip(clean).enumerate() {
                let change = limits.changes[at];
                let may = x == before
                    || (x > before && change.may_grow() && x <= limits.most[at])
                    || (x < before && change.may_shrink() && x >= limits.least[at]);
                if !may {
                    return Err(outside(at));
                }
            }
            Ok(())
        }
    }
}

impl Verified {
    /// What was found, in words: a line for what was looked at and one for each failure.
    pub fn lines(&self, header: &Header) -> Vec<String> {
        let mut lines = vec![format!(
            "{} witnesses of {} broken examples ({} of them clean images that are misclassified){}: {}",
            grouped((self.witnesses - self.beyond) as u64),
            grouped(self.broken as u64),
            grouped(self.clean as u64),
            match self.beyond {
                0 => String::new(),
                beyond => format!(", and {} images beyond epsilon", grouped(beyond as u64)),
            },
            match self.failures.len() {
                0 => "every one lies in ball and box and is misclassified in f64".to_string(),
                1 => "1 failure".into(),
                n => format!("{} failures", grouped(n as u64)),
            }
        )];
        if self.failures.is_empty() && self.witnesses > self.clean {
            let exact = match header.attacks.iter().all(|attack| attack.norm == Norm::Linf.to_string()) {
                true => "",
                false => ", computed in f64",
            };
            lines.push(format!(
                "the farthest is {:.9} of its epsilon away{exact}; the smallest lead over the right class is {:.3e}",
                self.farthest, self.smallest_lead
            ));
        }
        if self.unkept > 0 {
            let unkept = grouped(self.unkept as u64);
            lines.push(format!("{unkept} distances beyond epsilon have no image kept, and were not checked"));
        }
        if self.failures.is_empty() {
            lines.push(
                "every run was on what stood before it; that what stands cannot be broken, no check can say"
                    .into(),
            );
        }
        lines.extend(self.failures.iter().map(|failure| format!("  FAILED {failure}")));
        lines
    }
}

impl Header {
    /// Places of the attacks of one part.
    pub fn part(&self, part: Part) -> impl Iterator<Item = usize> {
        self.attacks.iter().enumerate().filter(move |(_, attack)| attack.part == part).map(|(at, _)| at)
    }
}
