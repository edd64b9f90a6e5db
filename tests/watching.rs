//! What a run looks out for, from the library's side: gradient alignment against plain gradients, and going back to the
//! weights from before a collapse, also when the run was interrupted in the middle of that epoch.

use adamant::attack::{Alignment, Classifier, Inputs, Norm, ThreatModel};
use adamant::data;
use adamant::nn::{Mode, Net, Params, architectures};
use adamant::philox;
use adamant::plan::Precision;
use adamant::tape::Purpose;
use adamant::train::{
    CheckpointEvery, EpochRecord, Observer, Outcome, Recipe, StepReport, Stopped, Trainer, Weights,
    checkpoint, examples,
};
use adamant::{DType, Device, Host, Plan, Result, Store, Tape};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn alignment_is_the_mean_cosine_of_two_plain_gradients() {
    let all = data::load("mnist").unwrap().test;
    let data = all.subset(&(0..40).collect::<Vec<u32>>()).unwrap();
    let architecture = architectures::by_name("mlp-32", data.image, data.classes).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let names = params.iter().map(|param| param.name.clone());
    let weights: Weights = names.zip(params.initial(5)).collect();
    let threat = |epsilon: &str| ThreatModel { norm: Norm::Linf, epsilon: epsilon.parse().unwrap() };
    let chosen: Vec<u32> = (0..40).step_by(3).collect();
    let on = Classifier {
        architecture: architecture.as_ref(),
        mode: Mode::Eval,
        examples: data.len(),
        inputs: Inputs::Images,
        precision: Precision::F32,
    };
    // In batches of 5: the last one is filled up.
    let measured = |device: &Device, epsilon: &str| {
        let store = Store::new(device);
        checkpoint::put_weights(&store, &params, &weights).unwrap();
        examples::put(&store, "test", &data).unwrap();
        let alignment = Alignment::compile(&store, &threat(epsilon), on, "test", 5).unwrap();
        alignment.measure(&chosen, 9).unwrap()
    };

    // Gradients of the cross-entropy in f64 at the images and at points beside them, drawn here.
    let gradients = |points: Vec<f64>| -> Vec<f64> {
        let (tape, store) = (Tape::new(), Store::new(&Device::reference()));
        let shape = on.images(chosen.len());
        let x = tape.source("x", shape, DType::F32);
        let labels = tape.source("labels", [chosen.len()], DType::U32);
        let logits = architecture.forward(&Net::new(&tape, Mode::Eval), x);
        tape.assign("gradient", tape.grad(logits.cross_entropy(labels), &[x])[0]);
        let plan = Plan::compile(&tape, &store).unwrap();
        checkpoint::put_weights(&store, &params, &weights).unwrap();
        store.put("x", shape, &Host::F64(points)).unwrap();
        let labels = chosen.iter().map(|&i| data.labels[i as usize]).collect();
        store.put("labels", [chosen.len()], &Host::U32(labels)).unwrap();
        plan.run().unwrap();
        store.read_f64("gradient").unwrap()
    };
    let len = data.image_len();
    let points = |epsilon: f64| -> Vec<f64> {
        let pixel = |&i: &u32| {
            let pixels = data.image(i as usize).iter().enumerate();
            pixels.map(move |(at, &byte)| {
                let purpose = Purpose::EVALUATION_START.stream(2);
                let drawn = philox::uniform([9, 0], purpose, [0, 0], i, at as u32);
                f64::from(byte) / 255.0 + epsilon * (2.0 * drawn - 1.0)
            })
        };
        chosen.iter().flat_map(pixel).collect()
    };
    let (at, near) = (gradients(points(0.0)), gradients(points(0.3)));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |(a, b): (&[f64], &[f64])| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let expected = at.chunks(len).zip(near.chunks(len)).map(cosine).sum::<f64>() / chosen.len() as f64;
    assert!((0.1..0.99).contains(&expected), "{expected}: says little");

    let mut devices = vec![Device::cpu()];
    devices.extend(Device::adapters().first().map(|adapter| Device::gpu(adapter).unwrap()));
    for device in &devices {
        let found = measured(device, "0.3");
        assert!((found - expected).abs() < 1e-4, "{found}, not {expected}, on {}", device.describe());
        let none = measured(device, "0");
        assert!((none - 1.0).abs() < 1e-5, "{none} without noise on {}", device.describe());
    }
}

/// Asks for a stop after a step of an epoch, both counted from 1; step 0 is the epoch's end.
struct StopAt<'a> {
    epoch: u32,
    step: u32,
    seen: u32,
    stop: &'a AtomicBool,
    records: Vec<EpochRecord>,
}

impl StopAt<'_> {
    fn new(epoch: u32, step: u32, stop: &AtomicBool) -> StopAt<'_> {
        StopAt { epoch, step, seen: 0, stop, records: Vec::new() }
    }
}

impl Observer for StopAt<'_> {
    fn step(&mut self, report: &StepReport) {
        if report.epoch == self.epoch {
            self.seen += 1;
            if self.seen == self.step {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        if record.epoch == self.epoch && self.step == 0 {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.records.push(record.clone());
        Ok(())
    }
}

/// A run whose rate becomes a thousandfold after the third epoch, which wrecks it in one.
fn wrecked(folder: Option<&Path>) -> Trainer {
    let recipe = Recipe {
        model: "mlp-32".into(),
        epsilon: "0.02".into(),
        step_size: "0.01".into(),
        steps: 3,
        epsilon_warmup: 0.0,
        epochs: 8,
        batch: 50,
        train_images: 1000,
        validation: 200,
        optimizer: "sgd".into(),
        momentum: 0.5,
        learning_rate: 0.05,
        schedule: "multistep".into(),
        milestones: vec![3.0],
        schedule_factors: vec![1000.0],
        weight_average: 0.9,
        on_collapse: "back".into(),
        ..Recipe::default()
    };
    let data = data::load("mnist").unwrap().train;
    let network = recipe.network(data.image, data.classes).unwrap();
    let mut trainer = Trainer::new(recipe, network, &data, &Device::cpu()).unwrap();
    trainer.checkpoint_every(CheckpointEvery::Steps(4));
    if let Some(folder) = folder {
        trainer.save_into(folder);
    }
    trainer
}

#[test]
fn a_run_that_collapses_goes_back_to_the_weights_from_before() {
    let (never, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut third = wrecked(None);
    let mut observer = StopAt::new(3, 0, &stop);
    assert_eq!(third.run(&mut observer, &stop).unwrap(), Outcome::Interrupted);
    assert_eq!(observer.records.len(), 3);

    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.safetensors");
    let mut whole = wrecked(Some(folder.path()));
    let mut observer = StopAt::new(0, 1, &never);
    assert_eq!(whole.run(&mut observer, &never).unwrap(), Outcome::Finished);
    let seen: Vec<bool> = observer.records.iter().map(|record| record.collapse.is_some()).collect();
    assert_eq!(seen, [false, false, false, true], "{:?}", observer.records);
    assert_eq!(whole.position().stopped, Some(Stopped::WentBack));
    assert!(whole.weights().unwrap() == third.weights().unwrap(), "not the weights after the third epoch");
    assert!(!before.exists(), "what was kept of the epoch's beginning is left");

    // Interrupted in the middle of the epoch that collapses, and gone on with by another process.
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.safetensors");
    let stop = AtomicBool::new(false);
    let outcome = wrecked(Some(folder.path())).run(&mut StopAt::new(4, 7, &stop), &stop).unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    let saved = || checkpoint::load_resume(&folder.path().join("resume.safetensors")).unwrap();
    // What is asked for after a step is heard after the next.
    assert_eq!((saved().position.epoch, saved().position.step), (3, 8));
    let mut resumed = wrecked(None);
    resumed.resume(folder.path(), saved()).unwrap();
    resumed.save_into(folder.path());
    assert_eq!(resumed.run(&mut StopAt::new(0, 1, &never), &never).unwrap(), Outcome::Finished);
    assert_eq!(resumed.position().stopped, Some(Stopped::WentBack));
    assert!(resumed.weights().unwrap() == third.weights().unwrap());
    assert!(!before.exists());
}
