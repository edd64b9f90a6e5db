//! Augmentation: what an example gets is a function of seed, epoch and example, and of nothing else.

use adamant::attack::{Classifier, Inputs, Names, Norm, Pgd, Rational, RecordedAttack, ThreatModel};
use adamant::data::Dataset;
use adamant::nn::{Mode, architectures};
use adamant::plan::Precision;
use adamant::tape::{Augment, Draw, Purpose};
use adamant::train::{Mixing, Recipe, Silent, Trainer, examples};
use adamant::{DType, Device, Error, Host, Plan, Result, Store, Tape};
use std::sync::atomic::AtomicBool;

const IMAGES: usize = 200;
const IMAGE: [usize; 3] = [12, 10, 3];
const NONE: Augment =
    Augment { padding: 0, reflect: false, flip: false, cutout: 0, brightness: 0, contrast: 0 };
const BOTH: Augment = Augment { padding: 2, flip: true, ..NONE };

fn devices() -> Vec<Device> {
    let adapter = Device::adapters().into_iter().next().expect("a GPU adapter, a software one will do");
    vec![Device::reference(), Device::cpu(), Device::gpu(&adapter).unwrap()]
}

fn bytes(image: [usize; 3]) -> Vec<u8> {
    (0..IMAGES * image.iter().product::<usize>()).map(|i| (i * i % 251) as u8).collect()
}

/// These examples, augmented in batches of so many.
fn augmented(device: &Device, augment: Augment, epoch: u32, examples: &[u32], batch: usize) -> Vec<f64> {
    let [h, w, c] = IMAGE;
    let (store, tape) = (Store::new(device), Tape::new());
    let all = tape.source("images", [IMAGES, h, w, c], DType::U8);
    let source = |name: &str, len: usize| tape.source(name, [len], DType::U32);
    let draw =
        Draw { key: source("key", 2), counter: source("counter", 2), example: source("example", batch) };
    tape.assign("out", all.augmented(augment, draw));
    let plan = Plan::compile(&tape, &store).unwrap();
    store.write("images", &Host::U8(bytes(IMAGE))).unwrap();
    store.write_u32("key", &[5, 6]).unwrap();
    store.write_u32("counter", &[epoch, 0]).unwrap();
    let mut out = Vec::new();
    for chunk in examples.chunks_exact(batch) {
        store.write_u32("example", chunk).unwrap();
        plan.run().unwrap();
        out.extend(store.read_f64("out").unwrap());
    }
    out
}

#[test]
fn batches_and_executors_change_nothing() {
    let order: Vec<u32> = (0..IMAGES as u32).map(|i| i * 77 % IMAGES as u32).collect();
    let reflected = Augment { reflect: true, ..BOTH };
    let all = Augment { cutout: 5, brightness: Augment::ONE / 5, contrast: Augment::ONE / 3, ..BOTH };
    let strong = Augment { brightness: Augment::ONE, contrast: Augment::ONE, ..NONE };
    for augment in [
        BOTH,
        reflected,
        Augment { flip: false, ..BOTH },
        Augment { padding: 0, ..BOTH },
        Augment { cutout: 10, ..NONE },
        all,
        strong,
    ] {
        let exact = augmented(&Device::reference(), augment, 3, &order, IMAGES);
        // The reference divides in f64.
        let want: Vec<f64> = exact.iter().map(|&x| f64::from((x * 255.0).round() as f32 / 255.0)).collect();
        for device in devices().iter().skip(1) {
            for batch in [IMAGES, 40, 1] {
                let got = augmented(device, augment, 3, &order, batch);
                assert!(got == want, "{augment:?} in batches of {batch} on {}", device.describe());
            }
        }
    }
}

#[test]
fn every_place_and_both_sides_come_up_and_epochs_differ() {
    let examples: Vec<u32> = (0..IMAGES as u32).collect();
    let [h, w, c] = IMAGE;
    let images = bytes(IMAGE);
    let mut found = std::collections::BTreeMap::new();
    let epochs: Vec<Vec<f64>> =
        (0..4).map(|epoch| augmented(&Device::cpu(), BOTH, epoch, &examples, IMAGES)).collect();
    assert!(epochs[0] != epochs[1]);
    for out in &epochs {
        for (example, out) in out.chunks(h * w * c).enumerate() {
            let image = &images[example * h * w * c..][..h * w * c];
            // Which of the 50 changes it was.
            let same = |top: isize, left: isize, flip: bool| {
                (0..h * w * c).all(|i| {
                    let (y, x) = ((i / c / w) as isize + top, i / c % w);
                    let x = if flip { w - 1 - x } else { x } as isize + left;
                    let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                    let at = || image[(y as usize * w + x as usize) * c + i % c];
                    out[i] == if inside { f64::from(f32::from(at()) / 255.0) } else { 0.0 }
                })
            };
            let places = (-2..=2).flat_map(|top| (-2..=2).map(move |left| (top, left)));
            let mut ways = places.flat_map(|(top, left)| [(top, left, false), (top, left, true)]);
            let way = ways.find(|&(top, left, flip)| same(top, left, flip)).expect("a crop of the image");
            *found.entry(way).or_insert(0) += 1;
        }
    }
    // 800 draws over 50 changes: 16 each, with a standard deviation of 4.
    assert_eq!(found.len(), 50, "{found:?}");
    assert!(found.values().all(|&count| (2..=34).contains(&count)), "{found:?}");
}

/// What loading a batch of mixed images gives: images, labels and targets.
fn mixed(device: &Device, mix: &[f32], partner: &[u32], major: &[u32]) -> [Vec<f64>; 3] {
    let batch = partner.len();
    let architecture = architectures::by_name("mlp-8", IMAGE, 5).unwrap();
    let names = Names::new("batch", "data").with_soft_targets(5);
    let on = Classifier {
        architecture: architecture.as_ref(),
        mode: Mode::Eval,
        examples: IMAGES,
        inputs: Inputs::Images,
        precision: Precision::F32,
    };
    let threat = ThreatModel { norm: Norm::Linf, epsilon: Rational::from(0.1) };
    let attack = Pgd { threat, steps: 1, step_size: Rational::from(0.1), random_start: false };
    let tape = RecordedAttack::record_load(&attack, on, &names, batch, Purpose::ATTACK_START, NONE);
    let store = Store::new(device);
    let labels = (0..IMAGES as u32).map(|i| i % 5).collect();
    let classes = (0..5).map(|class| class.to_string()).collect();
    let data = Dataset::new("test", "made here", IMAGE, bytes(IMAGE), labels, classes).unwrap();
    examples::put(&store, "data", &data).unwrap();
    examples::put_places(&store, "data", &data).unwrap();
    let plan = Plan::compile(&tape, &store).unwrap();
    let put = |name: &str, words: &[u32]| store.write_u32(&names.of(name), words).unwrap();
    put("example", &(0..batch as u32).collect::<Vec<_>>());
    put("partner", partner);
    put("major", major);
    store.write_f32(&names.of("mix"), mix).unwrap();
    for scalar in ["radius", "step"] {
        if store.get(&names.of(scalar)).is_some() {
            store.write_f32(&names.of(scalar), &[0.1]).unwrap();
        }
    }
    plan.run().unwrap();
    ["x", "labels", "targets"].map(|name| {
        let read = store.read(&[&names.of(name)]).unwrap();
        read[0].to_f64().into_iter().collect()
    })
}

#[test]
fn mixed_images_are_what_the_papers_say() {
    let [h, w, c] = IMAGE;
    let mixing = Mixing { mixup: 1.0, cutmix: 1.0 };
    let drawn: Vec<_> = (0..40).map(|example| mixing.draw([1, 2], 0, example, [h, w])).collect();
    assert!(drawn.iter().any(|mix| mix.rows[1] > mix.rows[0]) && drawn.iter().any(|mix| mix.keep < 1.0));
    let partner: Vec<u32> = (0..40).map(|i| (i * 7 + 3) % IMAGES as u32).collect();
    let major: Vec<u32> =
        (0..40).map(|i| if drawn[i as usize].share >= 0.5 { i } else { partner[i as usize] }).collect();
    let numbers: Vec<f32> = drawn
        .iter()
        .flat_map(|mix| {
            let [a, b] = mix.rows.map(|place| place as f64);
            let [c, d] = mix.columns.map(|place| place as f64);
            [mix.keep, a, b, c, d, mix.share].map(|x| x as f32)
        })
        .collect();
    let images = bytes(IMAGE);
    let pixel = |example: usize, i: usize| f64::from(images[example * h * w * c + i]) / 255.0;
    for device in devices() {
        let [x, labels, targets] = mixed(&device, &numbers, &partner, &major);
        for (example, mix) in drawn.iter().enumerate() {
            let other = partner[example] as usize;
            for i in 0..h * w * c {
                let (row, column) = (i / c / w, i / c % w);
                let cut = (mix.rows[0]..mix.rows[1]).contains(&row)
                    && (mix.columns[0]..mix.columns[1]).contains(&column);
                let keep = if cut { 0.0 } else { mix.keep };
                let want = keep * pixel(example, i) + (1.0 - keep) * pixel(other, i);
                let got = x[example * h * w * c + i];
                assert!((got - want).abs() <= 2f64.powi(-23), "{got}, not {want} on {}", device.describe());
            }
            assert_eq!(labels[example] as u32, major[example] % 5);
            for class in 0..5 {
                let is = |example: usize| f64::from(u8::from(example % 5 == class));
                let share = f64::from(mix.share as f32);
                let want = share * is(example) + (1.0 - share) * is(other);
                assert!((targets[example * 5 + class] - want).abs() < 1e-6);
            }
        }
    }
}

fn trainer(device: &Device, augment: &[&str]) -> Result<Trainer> {
    let image = [12, 12, 1];
    let classes = (0..10).map(|class| class.to_string()).collect();
    let labels = (0..IMAGES as u32).map(|i| i % 10).collect();
    let data = Dataset::new("test", "made here", image, bytes(image), labels, classes)?;
    let augment = augment.iter().map(|change| change.to_string()).collect();
    let recipe = Recipe { augment, batch: 48, epochs: 2, steps: 2, validation: 20, ..Recipe::default() };
    Trainer::new(recipe, architectures::by_name("mlp-16", image, 10)?, &data, device)
}

#[test]
fn training_augments_and_validation_does_not() {
    let mut weights = Vec::new();
    for changes in [
        &["none"][..],
        &[],
        &["flip"],
        &["crop:3:reflect", "flip"],
        &["cutout:4", "brightness:0.2", "contrast:0.3"],
        &["mixup:1.4"],
        &["cutmix:1", "flip"],
        &["mixup:0.2", "cutmix:1.0"],
    ] {
        let mut trainer = trainer(&Device::cpu(), changes).unwrap();
        let names: Vec<String> = trainer.store().names();
        assert_eq!(
            names.iter().any(|name| name.ends_with(".epoch")),
            changes
                .iter()
                .any(|change| !["none", "mixup", "cutmix"].contains(&change.split(':').next().unwrap()))
        );
        trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
        weights.push(trainer.weights().unwrap());
    }
    assert!(weights[0] == weights[1]);
    for (i, one) in weights.iter().enumerate().skip(1) {
        assert!(weights[i + 1..].iter().all(|other| one != other), "number {i} trains as another does");
    }
}

#[test]
fn changes_that_are_refused() {
    for (changes, words) in [
        (&["crop:12"][..], "smaller than the images, which are 12 by 12"),
        (&["crop"], "known are crop:4"),
        (&["crop:0"], "from 1 up"),
        (&["crop:-1"], "from 1 up"),
        (&["crop:4:wrap"], "known are"),
        (&["flip", "flip"], "each once"),
        (&["crop:1", "crop:2"], "each once"),
        (&["none", "flip"], "or none alone"),
        (&["cutout:13"], "not be larger than the images, which are 12 by 12"),
        (&["cutout:0"], "from 1 up"),
        (&["cutout:2", "cutout:2"], "each once"),
        (&["brightness:1.5"], "above 0 and up to 1"),
        (&["brightness:-0.5"], "above 0 and up to 1"),
        (&["contrast:nan"], "above 0 and up to 1"),
        (&["contrast:0.1", "contrast:0.1"], "each once"),
        (&["mixup:0"], "from 0.001 to 1000"),
        (&["mixup:inf"], "from 0.001 to 1000"),
        (&["cutmix"], "known are"),
        (&["cutmix:1", "cutmix:1"], "each once"),
    ] {
        let Err(error) = trainer(&Device::cpu(), changes) else { panic!("{changes:?}") };
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert!(error.to_string().contains(words), "{changes:?}: {error}");
    }
}
