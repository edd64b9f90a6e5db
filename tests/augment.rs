//! Augmentation: what an example gets is a function of seed, epoch and example, and of nothing else.

use adamant::data::Dataset;
use adamant::nn::architectures;
use adamant::tape::{Augment, Draw};
use adamant::train::{Recipe, Silent, Trainer};
use adamant::{DType, Device, Error, Host, Plan, Result, Store, Tape};
use std::sync::atomic::AtomicBool;

const IMAGES: usize = 200;
const IMAGE: [usize; 3] = [12, 10, 3];
const BOTH: Augment = Augment { padding: 2, reflect: false, flip: true };

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
    for augment in [BOTH, reflected, Augment { flip: false, ..BOTH }, Augment { padding: 0, ..BOTH }] {
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
    for changes in [&["none"][..], &[], &["flip"], &["crop:3:reflect", "flip"]] {
        let mut trainer = trainer(&Device::cpu(), changes).unwrap();
        let names: Vec<String> = trainer.store().names();
        assert_eq!(
            names.iter().any(|name| name.ends_with(".epoch")),
            !changes.is_empty() && changes[0] != "none"
        );
        trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
        weights.push(trainer.weights().unwrap());
    }
    assert!(weights[0] == weights[1] && weights[1] != weights[2] && weights[2] != weights[3]);
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
    ] {
        let Err(error) = trainer(&Device::cpu(), changes) else { panic!("{changes:?}") };
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert!(error.to_string().contains(words), "{changes:?}: {error}");
    }
}
