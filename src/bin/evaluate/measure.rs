//! What is measured besides the attacks.

use super::attacks;
use super::request::Request;
use adamant::attack::ThreatModel;
use adamant::report::Progress;
use adamant::report::evaluation::{
    Attempt, Extras, Header, Outcomes, Passes, Subject, Unit, corrupted, extras, extras::Margins,
};
use adamant::report::honesty::{self, Suspect};
use adamant::{Result, Store};

/// Images that costly checks look at.
const CHECKED: usize = 100;
/// Corrupted images of each kind and strength.
const CORRUPTED: usize = 1000;
/// Images at once.
const BATCH: usize = 100;

/// What is measured on.
pub(crate) struct Measure<'a> {
    pub(crate) request: &'a Request,
    pub(crate) subject: Subject<'a>,
    pub(crate) store: &'a Store,
    pub(crate) header: &'a Header,
    pub(crate) attempts: &'a [Attempt],
    pub(crate) outcomes: &'a Outcomes,
    pub(crate) threat: &'a ThreatModel,
}

impl Measure<'_> {
    /// All that a request asks for besides the attacks, whose units these are; `cheap` and `costly` checks of the
    /// evaluation itself.
    pub(crate) fn extras(&self, units: &[Unit], cheap: bool, costly: bool) -> Result<Extras> {
        let (subject, header, seed) = (&self.subject, self.header, self.request.seed);
        let bar = Progress::new(0, 1);
        let passes = Passes::compile(self.store, subject.classifier(), BATCH)?;
        let mut extras = Extras {
            margins: Some(Margins::measure(
                subject,
                self.store,
                &passes,
                self.threat,
                &header.examples,
                seed,
            )?),
            gradients: extras::gradients(subject, &passes, header, self.outcomes)?,
            broken: extras::broken(subject, &passes, header, units)?,
            ..Extras::default()
        };
        if self.request.corruptions {
            let examples = &header.examples[..CORRUPTED.min(header.examples.len())];
            extras.corrupted = corrupted(subject, &passes, examples, seed, |done, all| {
                bar.working("corrupted images", done as u64, all as u64);
            })?;
        }
        if !cheap {
            return Ok(extras);
        }
        let examples = header.examples[..CHECKED.min(header.examples.len())].to_vec();
        let classes = subject.architecture.classes();
        let suspect = Suspect {
            subject: *subject,
            store: self.store,
            passes: &passes,
            threat: self.threat.clone(),
            standing: self.outcomes.worst.standing[..examples.len()].to_vec(),
            black_box: attacks::black_box(self.threat, classes)?,
            stronger: vec![
                (attacks::search("pgd-100", self.threat, classes)?, 2),
                (attacks::search("apgd-ce", self.threat, classes)?, 2),
            ],
            examples,
            seed,
        };
        extras.flags = honesty::cheap(&suspect)?;
        let searches = self.attempts.iter().map(|attempt| attempt.search.as_ref());
        extras.flags.extend(honesty::counted(header, self.outcomes, searches, subject.data.kind()));
        extras.flags.extend(honesty::transferred(header, self.outcomes, subject.data.kind()));
        if costly {
            extras.flags.extend(honesty::costly(&suspect, |what, done, all| {
                bar.working(&format!("checks: {what}"), done as u64, all as u64);
            })?);
        }
        Ok(extras)
    }
}
