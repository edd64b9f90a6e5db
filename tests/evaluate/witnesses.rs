//! Logs that lie, in records whose SHA-256 is right: the re-check finds each lie.

use crate::program::{runs, trained};
use crate::tiny::Tiny;
use adamant::Result;
use adamant::data::{self, Dataset};
use adamant::nn::{Architecture, Mode, Params, architectures};
use adamant::report::evaluation::{Header, Log, Subject, Unit, Writer, verify};
use adamant::train::checkpoint;
use adamant::weights::Weights;
use std::path::Path;

/// What was evaluated, loaded again.
struct Loaded {
    architecture: Box<dyn Architecture>,
    params: Params,
    weights: Weights,
    data: Dataset,
}

impl Loaded {
    fn subject(&self) -> Subject<'_> {
        Subject {
            name: "mlp-16",
            identity: "mlp-16",
            architecture: self.architecture.as_ref(),
            params: &self.params,
            weights: &self.weights,
            data: &self.data,
            mode: Mode::Eval,
        }
    }
}

/// Writes the log to another file with what `change` makes of its header and units, reads it and verifies it: what fails, in
/// words.
fn failures(
    folder: &Path,
    loaded: &Loaded,
    log: &Log,
    change: impl Fn(&mut Header, &mut Vec<Unit>),
) -> Result<Vec<String>> {
    let path = folder.join("changed.log");
    let _ = std::fs::remove_file(&path);
    let (mut header, mut units) = (log.header.clone(), log.units.clone());
    change(&mut header, &mut units);
    let mut writer = Writer::create(&path, &header)?;
    units.iter().try_for_each(|unit| writer.unit(unit))?;
    if log.complete {
        writer.end()?;
    }
    let verified = verify(&loaded.subject(), &Log::read(&path)?, |_, _| {})?;
    Ok(verified.failures.iter().map(ToString::to_string).collect())
}

/// An evaluation of a network, and all that it was made with.
fn evaluated() -> (Tiny, Loaded, Log) {
    let tiny = trained();
    runs(&tiny, &["net", "--attack", "pgd-10", "--batch", "5", "--checks", "none", "--out", "found"]);
    let data = data::load(tiny.path("tiny").to_str().unwrap()).unwrap().test;
    let architecture = architectures::by_name("mlp-16", data.image, data.classes).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let weights =
        checkpoint::load_weights(&tiny.path("net/best.safetensors"), architecture.as_ref(), &params).unwrap();
    let log = Log::read(&tiny.path("found/evaluation.log")).unwrap();
    assert!(log.complete);
    (tiny, Loaded { architecture, params, weights, data }, log)
}

#[test]
fn what_a_log_claims_is_held_against_the_data_and_itself() {
    let (tiny, loaded, log) = evaluated();
    let folder = tiny.path("found");
    let check =
        |log: &Log, change: &dyn Fn(&mut Header, &mut Vec<Unit>)| failures(&folder, &loaded, log, change);
    assert_eq!(check(&log, &|_, _| {}).unwrap(), [""; 0]);
    let refuses = |why: &str, change: &dyn Fn(&mut Header, &mut Vec<Unit>)| {
        let error = check(&log, change).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    };
    // Images of half the length: a clean image that is misclassified, and the like, would be two witnesses.
    refuses("[8, 8, 1]", &|header, units| {
        header.image = [4, 8, 1];
        units.iter_mut().flat_map(|unit| &mut unit.witnesses).for_each(|found| found.image.truncate(32));
    });
    refuses("have 4 classes", &|header, _| header.classes = 5);
    refuses("twice", &|header, _| header.examples[1] = header.examples[0]);
    refuses("there are 60", &|header, _| header.examples[1] = 60);

    let finds = |why: &str, change: &dyn Fn(&mut Header, &mut Vec<Unit>)| {
        let found = check(&log, change).unwrap();
        assert!(found.iter().any(|line| line.contains(why)), "{why}: {found:?}");
    };
    finds("lacks group", &|_, units| drop(units.pop()));
    let last = log.units.len() - 1;
    assert!(log.units[last].verdicts.iter().any(|verdict| verdict.robust), "nothing stands in the last unit");
    finds("stood before it", &|_, units| {
        let at = units[last].verdicts.iter().position(|verdict| verdict.robust).unwrap();
        units[last].verdicts.remove(at);
    });
    finds("stood before it", &|_, units| units.swap(last, last - 1));
    finds("is of nothing that stood", &|_, units| {
        let more = Unit { group: units[last].group + 1, ..units[last].clone() };
        units.push(more);
    });
    // An attack that was not run at all.
    finds("lacks group", &|header, _| header.attacks.push(header.attacks[1].clone()));
    finds("does not say Linf 0.05", &|header, _| header.attacks[1].epsilon = "0.05".into());
    finds("does not say 3 restarts", &|header, _| header.attacks[1].restarts = 3);
    finds("another ball", &|header, _| header.attacks[0].epsilon = "0.2".into());
    finds("what is said of its clean image", &|_, units| units[last].verdicts[0].correct = false);

    finds("by an image beyond epsilon", &|header, units| {
        header.attacks[1].minimum_norm = true;
        let unit = units.iter_mut().find(|unit| unit.attack == 1 && !unit.witnesses.is_empty()).unwrap();
        let found = &mut unit.witnesses[0];
        found.distance = 0.2;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == found.at).unwrap().distance = 0.2;
    });

    // What was interrupted may lack what comes last, and nothing before.
    let mut cut = log.clone();
    (cut.units, cut.complete) = (log.units[..last].to_vec(), false);
    assert_eq!(check(&cut, &|_, _| {}).unwrap(), [""; 0]);
    assert_eq!(check(&cut, &|_, units| drop(units.remove(0))).unwrap().len(), 1);
}

#[test]
fn every_lie_about_a_witness_is_found() {
    let (tiny, loaded, log) = evaluated();
    let attacked = |unit: &Unit| unit.attack == 1 && !unit.witnesses.is_empty();
    let broken: usize = log.units.iter().filter(|unit| attacked(unit)).map(|unit| unit.witnesses.len()).sum();
    assert!(broken > 3, "{broken} images broken are too few to tell anything by");

    let folder = tiny.path("found");
    let check = |change: &dyn Fn(&mut Unit)| {
        let changed = failures(&folder, &loaded, &log, |_, units| {
            units.iter_mut().filter(|unit| attacked(unit)).for_each(change);
        });
        changed.unwrap()
    };
    assert_eq!(check(&|_| {}), [""; 0]);
    let finds = |why: &str, change: &dyn Fn(&mut Unit)| {
        let found = check(change);
        assert!(!found.is_empty() && found.iter().all(|line| line.contains(why)), "{why}: {found:?}");
    };
    // A pixel that was moved by one step of f32 is another distance or, where it was not the farthest, the same one.
    finds("outside of its bounds", &|unit| unit.witnesses[0].image[0] = 1.5);
    finds("outside of its bounds", &|unit| unit.witnesses[0].image[0] = f32::NAN);
    finds("further than", &|unit| {
        let found = &mut unit.witnesses[0];
        let clean = loaded.subject().clean(log.header.examples[found.at as usize]);
        found.image[0] = if clean[0] > 0.5 { clean[0] - 0.2 } else { clean[0] + 0.2 };
        found.distance = (f64::from(found.image[0]) - f64::from(clean[0])).abs();
        let at = unit.verdicts.iter_mut().find(|verdict| verdict.at == found.at).unwrap();
        at.distance = found.distance;
        // The rest of the list is left alone.
    });
    finds("not", &|unit| {
        let at = unit.witnesses[0].at;
        unit.witnesses[0].distance /= 2.0;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == at).unwrap().distance /= 2.0;
    });
    finds("differ in the distance", &|unit| {
        let at = unit.witnesses[0].at;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == at).unwrap().distance /= 2.0;
    });
    finds("classified right in f64", &|unit| {
        let found = &mut unit.witnesses[0];
        found.image = loaded.subject().clean(log.header.examples[found.at as usize]);
        found.distance = 0.0;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == found.at).unwrap().distance = 0.0;
    });
    finds("is read as", &|unit| {
        let found = &mut unit.witnesses[0];
        let label = loaded.data.labels[log.header.examples[found.at as usize] as usize];
        found.prediction = (0..4).find(|&class| class != label && class != found.prediction).unwrap();
    });
    finds("without a witness", &|unit| drop(unit.witnesses.remove(0)));
    finds("is said to stand", &|unit| {
        let at = unit.witnesses[0].at;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == at).unwrap().robust = true;
    });
}
