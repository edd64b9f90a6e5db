//! Running an evaluation: attack after attack, group after group, each of which is in the log before the next begins.

use super::log::{Attacked, Header, Origin, Part};
use super::transfer::Crossing;
use super::unit::{Found, Unit, Verdict};
use super::writer::Writer;
use super::{Outcomes, Subject, TEST};
use crate::attack::{
    Evaluation, Observer, Pgd, Search, ThreatModel, Transfer, Verdicts, Witness, clean_predictions,
    even_batch, seed_of,
};
use crate::error::{Error, Result};
use crate::report::{Accuracy, table};
use crate::tensor::Store;
use std::collections::BTreeMap;

/// Batches in a unit: what is computed again after a kill is at most that much of one attack. The fewer, the less is
/// gained where broken examples leave and the others close ranks.
const BATCHES: usize = 4;

/// An attack to be run.
pub struct Attempt {
    /// The attack.
    pub search: Box<dyn Search>,
    /// Runs of it from other random starts.
    pub restarts: u32,
    /// The suite it is one of.
    pub suite: Option<String>,
    /// Whether it is run on what stands after the attempt before it alone; else on all that is classified right.
    pub goes_on: bool,
    /// Its place in its suite, from which its random numbers follow ([`seed_of`]); 0 where it is in none.
    pub place: usize,
    /// What it is for.
    pub part: Part,
    /// Whether it attacks [`Assessment::other`]: its images are made there, by one run on each example, and judged here.
    pub transferred: bool,
}

/// Steps of the attack on another network.
const TRANSFERRED: usize = 40;

impl Attempt {
    /// PGD on another network, see [`Attempt::transferred`].
    pub fn by_transfer(threat: &ThreatModel) -> Attempt {
        Attempt {
            search: Box::new(Transfer(Pgd::usual(threat.clone(), TRANSFERRED))),
            restarts: 1,
            suite: None,
            goes_on: false,
            place: 0,
            part: Part::Attack,
            transferred: true,
        }
    }
}

/// An evaluation.
pub struct Assessment<'a> {
    /// What is evaluated.
    pub subject: Subject<'a>,
    /// Another network on the same data, that images of some attempts are made on.
    pub other: Option<Subject<'a>>,
    /// The attacks.
    pub attempts: Vec<Attempt>,
    /// Which of the test data.
    pub examples: Vec<u32>,
    /// Seed of everything random.
    pub seed: u64,
    /// Examples that are attacked at once, at most.
    pub batch: usize,
}

/// Where an evaluation stands.
pub struct Standing<'a> {
    /// The attack under way.
    pub attack: &'a Attacked,
    /// Which it is of how many, from 0: the clean images count as one.
    pub number: (usize, usize),
    /// How many attacks on an example are done of this attack.
    pub done: usize,
    /// How many there may be.
    pub all: usize,
    /// What stands so far.
    pub robust: Accuracy,
}

/// Who hears how an evaluation goes on.
pub trait Listener {
    /// Something was done.
    fn progress(&mut self, _standing: &Standing<'_>) {}

    /// An attack is done.
    fn attacked(&mut self, _row: &table::Row) {}
}

/// Nobody.
pub struct Silent;

impl Listener for Silent {}

impl Assessment<'_> {
    /// What its log begins with.
    ///
    /// # Errors
    /// [`Error::Argument`] without an attack, or without the other network where one is attacked.
    pub fn header(&self) -> Result<Header> {
        let first = self.attempts.first().ok_or_else(|| {
            Error::argument(
                "attack",
                "none",
                "at least one is needed to say what the images are held against",
            )
        })?;
        let threat = first.search.threat();
        let clean = Attacked {
            name: "clean".into(),
            line: "none (clean)".into(),
            norm: threat.norm.to_string(),
            epsilon: threat.epsilon.text().into(),
            steps: 0,
            restarts: 1,
            runs: 1,
            suite: None,
            goes_on: false,
            minimum_norm: false,
            part: Part::Attack,
            from: None,
        };
        let classes = self.subject.architecture.classes();
        let origin =
            self.other.map(|other| Origin { model: other.name.into(), model_sha256: other.sha256() });
        let attacked = |attempt: &Attempt| match (attempt.transferred, &origin) {
            (false, _) => Ok(attempt.attacked(classes, None)),
            (true, Some(origin)) => Ok(attempt.attacked(classes, Some(origin.clone()))),
            (true, None) => {
                Err(Error::argument("transfer", "none", "name the network that images are made on"))
            }
        };
        let attacks = std::iter::once(Ok(clean)).chain(self.attempts.iter().map(attacked));
        let data = self.subject.data;
        Ok(Header {
            program: concat!("adamant ", env!("CARGO_PKG_VERSION")).into(),
            model: self.subject.name.into(),
            model_sha256: self.subject.sha256(),
            data: data.name.clone(),
            data_sha256: data.sha256.clone(),
            image: data.image,
            classes: data.classes,
            examples: self.examples.clone(),
            seed: self.seed,
            group: BATCHES * self.batch.max(1),
            attacks: attacks.collect::<Result<_>>()?,
        })
    }

    /// Up to what distance images of an attack are kept. A minimum-norm attack finds one for nearly every example, most of them
    /// beyond epsilon; in a suite their distances are enough. Kept, on the 10 000 images of CIFAR-10 they were half a GB.
    fn keeps(&self, attack: usize) -> f64 {
        let attempt = attack.checked_sub(1).and_then(|index| self.attempts.get(index));
        match attempt {
            Some(attempt) if attempt.suite.is_some() => attempt.search.threat().epsilon.value(),
            _ => f64::INFINITY,
        }
    }

    /// Runs what is not among `known` yet; the store holds what [`Subject::put`] puts there. Gives all units.
    ///
    /// # Errors
    /// [`Error::File`] where `known` is not what this evaluation would have found; of the device and of the log.
    pub fn run(
        &self,
        store: &Store,
        writer: &mut Writer,
        known: Vec<Unit>,
        listener: &mut dyn Listener,
    ) -> Result<Vec<Unit>> {
        let header = self.header()?;
        let mut known: BTreeMap<(usize, u32, usize), Unit> =
            known.into_iter().map(|unit| (unit.place(), unit)).collect();
        let mut units = Vec::new();
        for (attack, attacked) in header.attacks.iter().enumerate() {
            let mut runner = Runner::of(self, store, attack)?;
            let mut before = None;
            for run in 0..attacked.runs {
                let tried = Outcomes::tried(&header, &units, attack);
                let of_all = *before.get_or_insert(tried.len());
                runner.fit(tried.len());
                let mut robust = Accuracy::new(tried.len() as u64, self.examples.len() as u64);
                for (group, tried_now) in tried.chunks(header.group).enumerate() {
                    let unit = match known.remove(&(attack, run, group)) {
                        Some(unit) => {
                            let theirs = unit.verdicts.iter().map(|verdict| verdict.at);
                            if !theirs.eq(tried_now.iter().copied()) {
                                let what = format!("group {group} of run {run} of attack {attack}");
                                let why = format!("{what} is of other examples: start in a new folder");
                                return Err(Error::file("evaluation.log", why));
                            }
                            unit
                        }
                        None => {
                            let mut heard = Heard {
                                listener,
                                attack: attacked,
                                number: (attack, header.attacks.len()),
                                run,
                                behind: run as usize * of_all + group * header.group,
                                all: attacked.runs as usize * of_all,
                                now: tried_now.len(),
                                robust,
                                keeps: self.keeps(attack),
                                found: BTreeMap::new(),
                            };
                            let unit = Unit { group, ..runner.run(tried_now, run, &mut heard)? };
                            writer.unit(&unit)?;
                            unit
                        }
                    };
                    let broken = unit.verdicts.iter().filter(|verdict| !verdict.robust).count();
                    robust.correct = robust.correct.saturating_sub(broken as u64);
                    units.push(unit);
                }
            }
            let after = Outcomes::of(&header, &units);
            listener.attacked(&super::verify::row(&header, attack, &after, self.subject.data.kind()));
        }
        if let Some((&(attack, run, group), _)) = known.first_key_value() {
            let why =
                format!("holds group {group} of run {run} of attack {attack}, which there is no room for");
            return Err(Error::file("evaluation.log", format!("{why}: start in a new folder")));
        }
        writer.end()?;
        Ok(units)
    }
}

impl Attempt {
    fn attacked(&self, classes: usize, from: Option<Origin>) -> Attacked {
        let search = self.search.as_ref();
        let restarts = if search.is_random() && from.is_none() { self.restarts.max(1) } else { 1 };
        let said = match restarts {
            _ if !search.is_random() => String::new(),
            1 => ", 1 restart".into(),
            restarts => format!(", {restarts} restarts"),
        };
        Attacked {
            name: match from {
                Some(_) => format!("transfer {}", search.name()),
                None => search.name(),
            },
            line: match &from {
                Some(from) => format!("transfer from {}: {}{said}", from.model, search.line()),
                None => format!("{}{said}", search.line()),
            },
            norm: search.threat().norm.to_string(),
            epsilon: search.threat().epsilon.text().into(),
            steps: search.steps(),
            restarts,
            runs: if from.is_some() { 1 } else { restarts * search.runs(classes).max(1) },
            suite: self.suite.clone(),
            goes_on: self.goes_on,
            minimum_norm: search.is_minimum_norm() && from.is_none(),
            part: self.part,
            from,
        }
    }
}

/// Runs the units of one attack; compiled with the first.
struct Runner<'r> {
    assessment: &'r Assessment<'r>,
    store: &'r Store,
    attack: usize,
    /// Examples that are attacked at once.
    batch: usize,
    evaluation: Option<Evaluation>,
    /// Where its images are made on another network.
    crossing: Option<Crossing<'r>>,
}

impl<'r> Runner<'r> {
    fn of(assessment: &'r Assessment<'r>, store: &'r Store, attack: usize) -> Result<Runner<'r>> {
        let batch = assessment.batch.max(1);
        let attempt = attack.checked_sub(1).map(|index| &assessment.attempts[index]);
        let crossing = match &assessment.other {
            Some(other) if attempt.is_some_and(|attempt| attempt.transferred) => {
                Some(Crossing::compile(assessment.subject, other, store, batch)?)
            }
            _ => None,
        };
        Ok(Runner { assessment, store, attack, batch, evaluation: None, crossing })
    }

    /// Takes so large a batch that so many examples fill batches as well as can be; where that is little less than what is
    /// compiled, it stays.
    fn fit(&mut self, tried: usize) {
        let most = self.assessment.batch.max(1);
        let group = tried.clamp(1, BATCHES * most);
        let batch = even_batch(group, most);
        if self.evaluation.is_none() || batch > self.batch || 4 * batch < 3 * self.batch {
            (self.batch, self.evaluation) = (batch, None);
        }
    }

    fn run(&mut self, tried: &[u32], run: u32, heard: &mut Heard<'_>) -> Result<Unit> {
        let subject = &self.assessment.subject;
        let examples: Vec<u32> = tried.iter().map(|&at| self.assessment.examples[at as usize]).collect();
        let labels: Vec<u32> = examples.iter().map(|&i| subject.data.labels[i as usize]).collect();
        let Some(index) = self.attack.checked_sub(1) else {
            return self.clean(tried, &examples, &labels);
        };
        let attempt = &self.assessment.attempts[index];
        let evaluation = match &mut self.evaluation {
            Some(evaluation) => evaluation,
            none => {
                let (store, on) = match &self.crossing {
                    Some(crossing) => crossing.attacked(),
                    None => (self.store, subject.classifier()),
                };
                let search = attempt.search.as_ref();
                none.insert(Evaluation::compile_search(store, search, on, TEST, self.batch)?)
            }
        };
        // What is tried is classified right.
        let mut verdicts = Verdicts {
            clean: labels.clone(),
            adversarial: labels.clone(),
            correct: vec![true; labels.len()],
            robust: vec![true; labels.len()],
            distance: vec![f64::INFINITY; labels.len()],
            ..Verdicts::default()
        };
        let seed = seed_of(self.assessment.seed, attempt.place);
        match &self.crossing {
            Some(crossing) => {
                let threat = attempt.search.threat();
                crossing.run(evaluation, threat, &examples, seed, &mut verdicts, heard)?;
            }
            None => {
                let runs = evaluation.runs(attempt.restarts);
                evaluation.go_on(&examples, &labels, [run, runs], seed, &mut verdicts, &mut *heard)?;
            }
        }
        let verdict = |(row, &at): (usize, &u32)| Verdict {
            at,
            clean: verdicts.clean[row],
            adversarial: verdicts.adversarial[row],
            correct: verdicts.correct[row],
            robust: verdicts.robust[row],
            distance: verdicts.distance[row],
        };
        let found = std::mem::take(&mut heard.found);
        Ok(Unit {
            attack: self.attack,
            run,
            group: 0,
            outside: verdicts.outside as u64,
            verdicts: tried.iter().enumerate().map(verdict).collect(),
            witnesses: found.into_iter().map(|(row, found)| Found { at: tried[row], ..found }).collect(),
        })
    }

    /// What the network says of the clean images; each that is misclassified is its own witness.
    fn clean(&self, tried: &[u32], examples: &[u32], labels: &[u32]) -> Result<Unit> {
        let subject = &self.assessment.subject;
        let on = subject.classifier();
        let seed = seed_of(self.assessment.seed, 0);
        let predictions = clean_predictions(self.store, on, TEST, examples, seed, self.batch)?;
        let (mut verdicts, mut witnesses) = (Vec::new(), Vec::new());
        for (row, (&at, prediction)) in tried.iter().zip(predictions).enumerate() {
            let correct = prediction == labels[row];
            let distance = if correct { f64::INFINITY } else { 0.0 };
            verdicts.push(Verdict {
                at,
                clean: prediction,
                adversarial: prediction,
                correct,
                robust: correct,
                distance,
            });
            if !correct {
                let image = subject.clean(examples[row]);
                witnesses.push(Found { at, prediction, distance, image });
            }
        }
        Ok(Unit { attack: 0, run: 0, group: 0, outside: 0, verdicts, witnesses })
    }
}

/// Hears of a unit under way: keeps the nearest witness of each example.
struct Heard<'l> {
    listener: &'l mut dyn Listener,
    attack: &'l Attacked,
    number: (usize, usize),
    run: u32,
    /// Examples of the runs and groups before.
    behind: usize,
    /// Examples of all runs, had none been broken.
    all: usize,
    /// Examples of this unit.
    now: usize,
    /// What stood when the unit began.
    robust: Accuracy,
    /// How far away images are that are kept.
    keeps: f64,
    found: BTreeMap<usize, Found>,
}

impl Observer for Heard<'_> {
    fn progress(&mut self, done: usize, _: usize) {
        // Of this run alone, in thousandths of an example's run.
        let done = 1000 * self.behind + 1000 * done.saturating_sub(self.run as usize * self.now);
        let epsilon = self.attack.threat().map_or(f64::INFINITY, |threat| threat.epsilon.value());
        let broken = self.found.values().filter(|found| found.distance <= epsilon).count();
        let mut robust = self.robust;
        robust.correct = robust.correct.saturating_sub(broken as u64);
        let (attack, number, all) = (self.attack, self.number, 1000 * self.all);
        self.listener.progress(&Standing { attack, number, done, all, robust });
    }

    fn broken(&mut self, witness: Witness<'_>) -> Result<()> {
        let Witness { at, adversarial, prediction, distance, .. } = witness;
        if distance > self.keeps {
            return Ok(());
        }
        self.found.insert(at, Found { at: at as u32, prediction, distance, image: adversarial.to_vec() });
        Ok(())
    }
}
