//! What is measured besides the attacks.

use super::attacks;
use super::request::Request;
use adamant::attack::{Search, ThreatModel};
use adamant::report::Progress;
use adamant::report::evaluation::{
    Attempt, Extras, Header, Outcomes, Passes, Subject, Unit, corrupted, extras, extras::Margins,
};
use adamant::report::honesty::{self, Suspect};
use adamant::{Result, Store};

/// Images that the attacks among the checks look at, where there are so many: fewer tell nothing.
const CHECKED: usize = 100;
/// They look at more for as long as they cost no more than this share of what the evaluation did.
const SHARE: f64 = 0.5;
/// What a query costs of a step, which goes back through the network too.
const QUERY: f64 = 1.0 / 3.0;
/// Steps of the checks' other attacks on an image: FGSM, PGD-20 and PGD-60.
const OTHERS: f64 = 81.0;
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
        let classes = subject.architecture.classes();
        let black_box = attacks::black_box(self.threat, classes)?;
        let stronger = vec![
            (attacks::search("pgd-100", self.threat, classes)?, 2),
            (attacks::search("apgd-ce", self.threat, classes)?, 2),
        ];
        let searches =
            black_box.iter().map(|search| (search, 1)).chain(stronger.iter().map(|(s, n)| (s, *n)));
        let each = searches.map(|(search, restarts)| f64::from(restarts) * cost(search.as_ref())).sum();
        let count = if costly { self.affordable(units, each) } else { CHECKED.min(header.examples.len()) };
        let examples = header.examples[..count].to_vec();
        let suspect = Suspect {
            subject: *subject,
            store: self.store,
            passes: &passes,
            threat: self.threat.clone(),
            standing: self.outcomes.worst.standing[..examples.len()].to_vec(),
            black_box,
            stronger,
            examples,
            seed,
        };
        extras.checked = Some(if costly { count } else { 0 });
        extras.flags = honesty::cheap(&suspect)?;
        let searches = self.attempts.iter().map(|attempt| attempt.search.as_ref());
        let (kind, outcomes) = (subject.data.kind(), self.outcomes);
        let held = costly.then_some(&suspect);
        extras.flags.extend(honesty::counted(header, outcomes, searches, kind, held)?);
        extras.flags.extend(honesty::curves(header, outcomes, kind));
        extras.flags.extend(honesty::transferred(header, outcomes, kind, held)?);
        if costly {
            extras.flags.extend(honesty::costly(&suspect, |what, done, all| {
                bar.working(&format!("checks: {what}"), done as u64, all as u64);
            })?);
        }
        Ok(extras)
    }

    /// How many images the checks look at that attack: as asked for, else as many as can be had for their share. `each` is what
    /// they cost on an image that stands. By steps, not by the clock: an evaluation that is gone on with says the same.
    fn affordable(&self, units: &[Unit], each: f64) -> usize {
        let all = self.header.examples.len();
        let steps = |unit: &Unit| {
            let attempt = unit.attack.checked_sub(1).map(|index| &self.attempts[index]);
            attempt.map_or(0.0, |attempt| unit.verdicts.len() as f64 * cost(attempt.search.as_ref()))
        };
        let spent: f64 = units.iter().map(steps).sum();
        let standing = self.outcomes.worst.accuracy().fraction();
        let count = (SHARE * spent / (standing * each + OTHERS)) as usize;
        self.request.check_images.unwrap_or(count.max(CHECKED)).min(all)
    }
}

/// Steps of a run of an attack, and what amounts to them. (Passes of a step count as one, as no network here draws random
/// numbers.)
fn cost(search: &dyn Search) -> f64 {
    search.steps() as f64 * if search.uses_gradients() { 1.0 } else { QUERY }
}
