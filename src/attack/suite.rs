//! Attacks one after another, each on the examples that all before it have left standing.

use super::{Ascending, Attack, Classifier, Evaluation, Observer, Search, Verdicts, Witness};
use crate::error::Result;
use crate::tensor::Store;

/// A search, and how many times it is run from other random numbers.
pub struct Entry {
    /// The attack.
    pub search: Box<dyn Search>,
    /// Runs of it (once where it draws no random numbers); at least 1.
    pub restarts: u32,
}

impl Entry {
    /// A search that is run so many times.
    pub fn new(search: Box<dyn Search>, restarts: u32) -> Entry {
        Entry { search, restarts }
    }

    /// All that a robust accuracy must be printed with.
    pub fn line(&self) -> String {
        let line = self.search.line();
        match self.restarts {
            0 | 1 => line,
            restarts => format!("{line}, {restarts} restarts"),
        }
    }
}

/// Attacks in the order they are run in.
pub struct Suite {
    /// Its name, as "AutoAttack standard".
    pub name: String,
    /// The attacks, at least one.
    pub attacks: Vec<Entry>,
}

/// Examples of a data set on a device, and the network to attack on them.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Where weights and data set are.
    pub store: &'a Store,
    /// The network.
    pub on: Classifier<'a>,
    /// What the names of the data set's tensors begin with.
    pub data: &'a str,
    /// Examples at once, at most.
    pub batch: usize,
    /// Indices into the data set.
    pub examples: &'a [u32],
    /// Their classes.
    pub labels: &'a [u32],
}

/// How far a suite has come, and what it found: all that it needs to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// What became of each example; empty before the clean images are judged. A distance is in the norm of the attack
    /// that found it.
    pub verdicts: Verdicts,
    /// Which attack (by its place in the suite) broke each example; `None` for clean mistakes and what stands.
    pub broken_by: Vec<Option<usize>>,
    /// Examples that stood after each attack that is done.
    pub robust: Vec<usize>,
    /// Runs that are done of the attack under way.
    pub runs: u32,
}

/// Who listens to a suite. Attacks are told by their place in it.
pub trait SuiteObserver {
    /// An attack begins on so many examples that stand.
    fn begins(&mut self, _attack: usize, _standing: usize) {}

    /// As [`Observer::progress`], of one attack.
    fn progress(&mut self, _attack: usize, _done: usize, _all: usize) {}

    /// As [`Observer::broken`]. Clean mistakes are told of as the first attack's, at a distance of 0.
    ///
    /// # Errors
    /// What is given here ends the run.
    fn broken(&mut self, _attack: usize, _witness: Witness<'_>) -> Result<()> {
        Ok(())
    }

    /// A point that the run can go on from: the clean images are judged, or a run of an attack is done.
    ///
    /// # Errors
    /// What is given here ends the run.
    fn stands(&mut self, _standing: &Standing) -> Result<()> {
        Ok(())
    }
}

/// Nobody listens.
impl SuiteObserver for () {}

/// One attack's observer.
struct Of<'a, O>(usize, &'a mut O);

impl<O: SuiteObserver> Observer for Of<'_, O> {
    fn progress(&mut self, done: usize, all: usize) {
        self.1.progress(self.0, done, all);
    }

    fn broken(&mut self, witness: Witness<'_>) -> Result<()> {
        self.1.broken(self.0, witness)
    }
}

impl Suite {
    /// The suite of one search.
    pub fn of(search: Box<dyn Search>, restarts: u32) -> Suite {
        Suite { name: search.name(), attacks: vec![Entry::new(search, restarts)] }
    }

    /// The suite of one attack by steps of ascent.
    pub fn of_attack(attack: impl Attack + 'static, restarts: u32) -> Suite {
        Suite::of(Box::new(Ascending(Box::new(attack))), restarts)
    }

    /// Runs it from `standing` on (from the beginning: [`Standing::default`]). A run that is stopped anywhere and goes on
    /// from what [`SuiteObserver::stands`] was told last, with the same seed, ends as one that was not.
    ///
    /// # Errors
    /// As [`Evaluation::compile_search`], of the device, and of the observer.
    pub fn run(
        &self,
        subject: Subject<'_>,
        seed: u64,
        mut standing: Standing,
        observer: &mut impl SuiteObserver,
    ) -> Result<Standing> {
        let Subject { examples, labels, .. } = subject;
        for (place, attack) in self.attacks.iter().enumerate().skip(standing.robust.len()) {
            let fresh = standing.verdicts.robust.is_empty();
            let left = if fresh { examples.len() } else { standing.verdicts.robust_count() };
            if left > 0 {
                let seed = seed_of(seed, place);
                let judge = Evaluation::compile_search(
                    subject.store,
                    attack.search.as_ref(),
                    subject.on,
                    subject.data,
                    even_batch(left, subject.batch),
                )?;
                if fresh {
                    standing.verdicts = judge.clean(examples, labels, seed, &mut Of(place, observer))?;
                    standing.broken_by = vec![None; examples.len()];
                    observer.stands(&standing)?;
                }
                observer.begins(place, standing.verdicts.robust_count());
                let runs = judge.runs(attack.restarts);
                for run in standing.runs..runs {
                    let before = standing.verdicts.robust.clone();
                    let listens = &mut Of(place, observer);
                    judge.go_on(examples, labels, [run, runs], seed, &mut standing.verdicts, listens)?;
                    let after = before.iter().zip(&standing.verdicts.robust);
                    for (by, (before, after)) in standing.broken_by.iter_mut().zip(after) {
                        if *before && !*after {
                            *by = Some(place);
                        }
                    }
                    standing.runs = run + 1;
                    if standing.runs < runs {
                        observer.stands(&standing)?;
                    }
                }
            }
            standing.runs = 0;
            standing.robust.push(standing.verdicts.robust_count());
            observer.stands(&standing)?;
        }
        Ok(standing)
    }
}

/// The seed of the attack at a place of a suite: another for each, as two that start from the same noise would find the
/// same. The first has the suite's.
pub fn seed_of(seed: u64, place: usize) -> u64 {
    seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(place as u64))
}

/// The batch, of at most `most`, that `count` examples fill evenly.
pub fn even_batch(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most.max(1)).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_filled() {
        assert_eq!(even_batch(1000, 250), 250);
        assert_eq!(even_batch(840, 250), 210);
        assert_eq!(even_batch(251, 250), 126);
        assert_eq!(even_batch(3, 250), 3);
        assert_eq!(even_batch(0, 250), 1);
    }
}
