//! The tuner: the same file gives the same kernels, no file is ever the end of a run, results stay within bounds.

use adamant::data::Dataset;
use adamant::kernels::tuner::Tuned;
use adamant::nn::architectures;
use adamant::tape::Conv2d;
use adamant::train::{Recipe, Trainer};
use adamant::{DType, Device, Host, Plan, Shape, Store, Tape, philox, tape};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn gpu() -> Device {
    let adapter = Device::adapters().into_iter().next().expect("a GPU adapter, a software one will do");
    Device::gpu(&adapter).unwrap()
}

/// Two convolutions and a product with their gradients, on this device: every launch has several variants.
fn results(device: &Device) -> Vec<Vec<f64>> {
    let (store, tape) = (Store::new(device), Tape::new());
    let shapes: [(&str, &[usize]); 4] =
        [("x", &[3, 12, 10, 4]), ("w1", &[3, 3, 4, 16]), ("w2", &[3, 3, 16, 24]), ("w3", &[24, 10])];
    let [x, w1, w2, w3] = shapes.map(|(name, shape)| tape.source(name, Shape::new(shape), DType::F32));
    let padded = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let strided = Conv2d { stride: [2, 2], ..padded };
    let y = x.conv2d(w1, padded).relu().conv2d(w2, strided);
    let y = y.sum(&[1, 2]).reshape([3, 24]).matmul(w3);
    tape.assign("y", y);
    for (gradient, name) in
        tape.grad(y.square().sum_all(), &[x, w1, w2, w3]).into_iter().zip(["dx", "d1", "d2", "d3"])
    {
        tape.assign(name, gradient);
    }
    let plan = Plan::compile(&tape, &store).unwrap();
    for (stream, (name, shape)) in shapes.into_iter().enumerate() {
        let number = |i| philox::uniform([1, stream as u32], tape::Purpose::TEST, [0, 0], 0, i) - 0.5;
        let values = (0..shape.iter().product::<usize>() as u32).map(number).collect();
        store.write(name, &Host::F64(values)).unwrap();
    }
    plan.run().unwrap();
    ["y", "dx", "d1", "d2", "d3"].map(|name| store.read_f64(name).unwrap()).into()
}

/// Results with a tuner of this file, what it did, and its warnings.
fn tuned(file: &Path, budget: Option<Duration>) -> (Vec<Vec<f64>>, Tuned, Vec<String>) {
    let device = gpu();
    let tuner = device.tune(file, budget).unwrap();
    let results = results(&device);
    (results, tuner.tuned(), tuner.warnings())
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Variants that were measured of a launch.
fn measured(choice: &Value) -> Vec<String> {
    choice["microseconds"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn what_was_measured_is_remembered_and_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache/of/tuner.json");
    let (first, did, warnings) = tuned(&file, MINUTE);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(did.launches > 4 && did.measured == did.launches && did.unknown == 0, "{did:?}");
    let kept = fs::read(&file).unwrap();

    // The same choices, hence the same bits, measuring allowed or not; nothing is measured again.
    for budget in [MINUTE, None] {
        let (again, did_again, warnings) = tuned(&file, budget);
        assert!(again == first && warnings.is_empty(), "{warnings:?}");
        assert_eq!((did_again.measured, did_again.changed, did_again.unknown), (0, did.changed, 0));
        assert_eq!(fs::read(&file).unwrap(), kept);
    }

    // It is the file that says what is taken: every launch by each variant that it knows.
    let exact = results(&Device::reference());
    for turn in 0..4 {
        let mut cache = json(&file);
        let mut other = 0;
        for (_, choice) in cache["choices"].as_object_mut().unwrap() {
            let names = measured(choice);
            let name = &names[turn % names.len()];
            other += usize::from(choice["variant"] != name.as_str());
            choice["variant"] = name.as_str().into();
        }
        let changed = folder.path().join("changed.json");
        fs::write(&changed, cache.to_string()).unwrap();
        let (got, did, warnings) = tuned(&changed, None);
        assert!(warnings.is_empty() && did.unknown == 0 && did.measured == 0, "{did:?} {warnings:?}");
        assert!(turn == 0 || other > 0 || cache == json(&file));
        for (got, want) in got.iter().zip(&exact) {
            let scale = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            let error = got.iter().zip(want).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
            assert!(error <= 1e-5 * scale, "off by {error} of {scale}");
        }
    }
}

#[test]
fn without_a_tuner_or_with_an_empty_one_that_may_not_measure_the_rule_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.json");
    let plain = results(&gpu());
    for budget in [None, Some(Duration::ZERO)] {
        let (same, did, warnings) = tuned(&file, budget);
        assert!(same == plain && warnings.is_empty(), "{warnings:?}");
        assert_eq!((did.measured, did.changed, did.unknown), (0, 0, did.launches));
        assert!(!file.exists(), "nothing was measured, but something was written");
    }
    assert!(Device::cpu().tune(&file, MINUTE).is_none(), "the CPU executor has nothing to tune");
}

#[test]
fn a_file_that_cannot_be_used_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.json");
    let (plain, did, _) = tuned(&good, MINUTE);
    assert!(did.measured > 0);
    let whole = json(&good);
    let with = |key: &str, value: &str| {
        let mut cache = whole.clone();
        cache[key] = value.into();
        cache.to_string().into_bytes()
    };
    let text = fs::read(&good).unwrap();
    let file = folder.path().join("bad.json");
    for (bytes, words) in [
        (b"".to_vec(), "no cache of a tuner"),
        (vec![0, 159, 146, 150], "no cache of a tuner"),
        (text[..text.len() / 2].to_vec(), "no cache of a tuner"),
        (b"[1, 2, 3]".to_vec(), "no cache of a tuner"),
        (with("device", "another card"), "of another device, another card"),
        (with("kernels", "0123"), "another version of the kernels"),
    ] {
        // Without leave to measure: the fixed choices, and the file stays.
        fs::write(&file, &bytes).unwrap();
        let (_, did, warnings) = tuned(&file, None);
        assert_eq!((warnings.len(), did.unknown), (1, did.launches), "{warnings:?}");
        assert!(warnings[0].contains(words) && warnings[0].contains("bad.json"), "{}", warnings[0]);
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    // With it: a good file in its place. (One is enough: measuring takes a while.)
    let (_, did, warnings) = tuned(&file, MINUTE);
    assert_eq!((warnings.len(), did.measured), (1, did.launches), "{warnings:?}");
    assert_eq!(json(&file)["device"], whole["device"]);

    // A variant that is no longer there is as good as unknown.
    let mut cache = whole.clone();
    cache["choices"]
        .as_object_mut()
        .unwrap()
        .values_mut()
        .for_each(|choice| choice["variant"] = "gone".into());
    fs::write(&file, cache.to_string()).unwrap();
    let (same, did, warnings) = tuned(&file, None);
    assert_eq!((did.unknown, warnings.len()), (did.launches, 0));
    assert_eq!(same.len(), plain.len());

    // What cannot be written is used all the same.
    let blocked = folder.path().join("good.json/tuner.json");
    let (_, did, warnings) = tuned(&blocked, MINUTE);
    assert!(did.measured == did.launches && !warnings.is_empty(), "{did:?} {warnings:?}");
    assert!(warnings.last().unwrap().contains("in this run alone"), "{warnings:?}");
}

#[test]
fn launches_that_differ_in_places_alone_are_one() {
    // An attack in half precision: gates are bits, filters and what flows are f16, and places are numbered by the plan.
    let image = [12, 12, 1];
    let bytes = (0..32 * 144).map(|i| (i * 31 % 256) as u8).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    let data =
        Dataset::new("made", "here", image, bytes, (0..32).map(|i| i % 10).collect(), classes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tuner.json");
    let device = gpu();
    let tuner = device.tune(&file, MINUTE).unwrap();
    let trainer = || {
        let recipe = Recipe {
            attack_precision: "f16".into(),
            steps: 2,
            batch: 16,
            epochs: 1,
            validation: 0,
            weight_average: 0.0,
            ..Recipe::default()
        };
        Trainer::new(recipe, architectures::by_name("mnist-fast", image, 10).unwrap(), &data, &device)
            .unwrap()
    };
    let first = trainer();
    first.next_step().unwrap().run().unwrap();
    device.wait().unwrap();
    let did = tuner.tuned();
    assert!(did.measured > 8 && did.unknown == 0 && tuner.warnings().is_empty(), "{did:?}");
    for key in json(&file)["choices"].as_object().unwrap().keys() {
        // The output is slot 0 and everything that is read a tensor.
        assert_eq!(key.matches("Slot(").count(), 1, "{key}");
        assert!(key.contains("output: Slot(0)"), "{key}");
    }
    trainer().next_step().unwrap().run().unwrap();
    device.wait().unwrap();
    assert_eq!(tuner.tuned().measured, did.measured, "the same launches were measured again");
}
