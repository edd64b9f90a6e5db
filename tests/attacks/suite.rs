//! Suites of attacks: each on what stands, and what they keep.

use crate::apgd::{IMAGES, few, threats};
use crate::house::House;
use adamant::attack::{Entry, Loss, Standing, Suite, SuiteObserver, Witness};
use adamant::{Device, Error, Result};

/// Notes what it is told, and stops after so many words of where the run stands.
#[derive(Default)]
struct Notes {
    begun: Vec<(usize, usize)>,
    progress: Vec<(usize, usize, usize)>,
    broken: Vec<(usize, usize)>,
    stood: Vec<Standing>,
    stop_after: Option<usize>,
}

impl SuiteObserver for Notes {
    fn begins(&mut self, attack: usize, standing: usize) {
        self.begun.push((attack, standing));
    }

    fn progress(&mut self, attack: usize, done: usize, all: usize) {
        assert!(done <= all);
        self.progress.push((attack, done, all));
    }

    fn broken(&mut self, attack: usize, witness: Witness<'_>) -> Result<()> {
        self.broken.push((witness.at, attack));
        Ok(())
    }

    fn stands(&mut self, standing: &Standing) -> Result<()> {
        self.stood.push(standing.clone());
        match self.stop_after {
            Some(words) if self.stood.len() == words => Err(Error::Unsupported("stopped".into())),
            _ => Ok(()),
        }
    }
}

fn suite() -> Suite {
    let linf = &threats()[0];
    let attacks =
        [(Loss::CrossEntropy, 2), (Loss::TargetedDlr, 1), (Loss::Dlr, 1)].map(|(loss, restarts)| {
            let steps = if loss == Loss::CrossEntropy { 1 } else { 10 };
            Entry::new(few(linf, loss, steps).boxed(), restarts)
        });
    Suite { name: "three".into(), attacks: attacks.into() }
}

#[test]
fn each_attack_of_a_suite_goes_on_what_stands_and_each_example_is_broken_once() {
    let house = House::new(&Device::cpu(), IMAGES);
    let mut notes = Notes::default();
    let end = suite().run(house.subject(40), 3, Standing::default(), &mut notes).unwrap();
    let clean = end.verdicts.clean_count();
    assert_eq!(notes.begun, [(0, clean), (1, end.robust[0]), (2, end.robust[1])]);
    assert!(end.robust[0] < clean && end.robust[1] < end.robust[0], "{clean}, {:?}", end.robust);
    assert!(end.robust[2] <= end.robust[1]);
    assert_eq!(end.robust[2], end.verdicts.robust_count());
    // One witness an example, of the attack that is said to have broken it; a clean mistake is nobody's.
    let mut told = notes.broken.clone();
    told.sort_unstable();
    assert_eq!(told.len(), IMAGES - end.robust[2]);
    for (at, attack) in told {
        assert!(!end.verdicts.robust[at]);
        assert_eq!(end.broken_by[at], end.verdicts.correct[at].then_some(attack));
    }
    let (clean_and_runs, last) = (1 + 2 + 3 + 1, notes.stood.last());
    assert_eq!((notes.stood.len(), last), (clean_and_runs, Some(&end)));
    assert!(notes.progress.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", notes.progress);
}

#[test]
fn a_suite_that_was_stopped_goes_on_as_if_it_had_not_been() {
    let house = House::new(&Device::cpu(), IMAGES);
    let mut whole = Notes::default();
    let end = suite().run(house.subject(40), 3, Standing::default(), &mut whole).unwrap();
    for words in 1..whole.stood.len() {
        let mut first = Notes { stop_after: Some(words), ..Notes::default() };
        suite().run(house.subject(40), 3, Standing::default(), &mut first).unwrap_err();
        let kept = first.stood.pop().unwrap();
        let mut second = Notes::default();
        let resumed = suite().run(house.subject(40), 3, kept, &mut second).unwrap();
        assert_eq!(resumed, end, "stopped after {words}");
        let told: Vec<_> = first.broken.iter().chain(&second.broken).copied().collect();
        assert_eq!(told, whole.broken, "stopped after {words}");
    }
}
