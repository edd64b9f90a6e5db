//! Logs that lie, in records whose SHA-256 is right: the re-check finds each lie.

use crate::program::{runs, trained};
use adamant::data::{self, Dataset};
use adamant::nn::{Architecture, Mode, Params, architectures};
use adamant::report::evaluation::{Log, Subject, Unit, Writer, verify};
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

/// Writes the log with changed units to another file, reads it and verifies it: what fails, in words.
fn failures(folder: &Path, loaded: &Loaded, log: &Log, change: impl Fn(&mut Unit)) -> Vec<String> {
    let path = folder.join("changed.log");
    let _ = std::fs::remove_file(&path);
    let mut writer = Writer::create(&path, &log.header).unwrap();
    for unit in &log.units {
        let mut unit = unit.clone();
        change(&mut unit);
        writer.unit(&unit).unwrap();
    }
    writer.end().unwrap();
    let changed = Log::read(&path).unwrap();
    let verified = verify(&loaded.subject(), &changed, |_, _| {}).unwrap();
    verified.failures.iter().map(ToString::to_string).collect()
}

#[test]
fn every_lie_about_a_witness_is_found() {
    let tiny = trained();
    runs(&tiny, &["net", "--attack", "pgd-10", "--out", "found"]);
    let data = data::load(tiny.path("tiny").to_str().unwrap()).unwrap().test;
    let architecture = architectures::by_name("mlp-16", data.image, data.classes).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let weights =
        checkpoint::load_weights(&tiny.path("net/best.safetensors"), architecture.as_ref(), &params).unwrap();
    let loaded = Loaded { architecture, params, weights, data };
    let log = Log::read(&tiny.path("found/evaluation.log")).unwrap();
    assert!(log.complete);
    let attacked = |unit: &Unit| unit.attack == 1 && !unit.witnesses.is_empty();
    let broken: usize = log.units.iter().filter(|unit| attacked(unit)).map(|unit| unit.witnesses.len()).sum();
    assert!(broken > 3, "{broken} images broken are too few to tell anything by");

    let folder = tiny.path("found");
    let check = |change: &dyn Fn(&mut Unit)| {
        failures(&folder, &loaded, &log, |unit| {
            if attacked(unit) {
                change(unit);
            }
        })
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
    finds("without a witness", &|unit| drop(unit.witnesses.remove(0)));
    finds("is said to stand", &|unit| {
        let at = unit.witnesses[0].at;
        unit.verdicts.iter_mut().find(|verdict| verdict.at == at).unwrap().robust = true;
    });
}
