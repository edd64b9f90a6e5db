//! Square under L2 on RGB images against the official one in f64, with the same random numbers: after so many queries each
//! example's image and margin (tools/make_square_reference.py).

use crate::apgd_reference::{Numbers, draw, tensor};
use adamant::attack::{Classifier, Evaluation, Inputs, Norm, Search as _, Square, ThreatModel};
use adamant::nn::architectures::Mlp;
use adamant::nn::{Mode, Params};
use adamant::plan::Precision;
use adamant::{Device, Host, Store};

// As in tools/make_square_reference.py.
const BATCH: usize = 16;
const IMAGE: [usize; 3] = [10, 10, 3];
const NUMBERS: usize = 300;
const HIDDEN: usize = 20;
const CLASSES: usize = 5;
const QUERIES: [usize; 5] = [1, 2, 12, 60, 300];
const SEED: u64 = 11;

#[test]
fn windows_under_l2_are_the_references_in_every_channel() {
    let numbers = Numbers::load("square");
    let labels = numbers.u32("labels");
    let examples: Vec<u32> = (0..BATCH as u32).collect();
    let architecture = Mlp::new(IMAGE, &[HIDDEN], CLASSES);
    let store = Store::new(&Device::reference());
    let values = [(NUMBERS * HIDDEN, 0.3), (HIDDEN, 0.3), (HIDDEN * CLASSES, 0.6), (CLASSES, 0.3)];
    for (number, (param, (count, bound))) in Params::of(&architecture).unwrap().iter().zip(values).enumerate()
    {
        store.put(&param.name, param.shape, &Host::F32(tensor(number as u32, count, bound))).unwrap();
    }
    let images: Vec<u8> =
        (0..BATCH as u32).flat_map(|i| draw([1, 0], i, NUMBERS).map(|u| (u * 256.0) as u8)).collect();
    store.put("data.images", [BATCH, IMAGE[0], IMAGE[1], IMAGE[2]], &Host::U8(images)).unwrap();
    store.put("data.labels", [BATCH], &Host::U32(labels.clone())).unwrap();
    let on = Classifier {
        architecture: &architecture,
        mode: Mode::Eval,
        examples: BATCH,
        inputs: Inputs::Images,
        precision: Precision::F32,
    };
    let (mut compared, mut worst) = (0, 0f64);
    for queries in QUERIES {
        let threat = ThreatModel { norm: Norm::L2, epsilon: "0.6".parse().unwrap() };
        let attack = Square { threat, queries };
        let judge = Evaluation::compile_search(&store, &attack, on, "data", BATCH).unwrap();
        let quiet = &mut |_: usize, _: usize| {};
        let mut verdicts = judge.clean(&examples, &labels, SEED, quiet).unwrap();
        assert_eq!(verdicts.clean, labels);
        judge.go_on(&examples, &labels, [0, 1], SEED, &mut verdicts, quiet).unwrap();
        let margins = numbers.f64(&format!("{queries}.margin"));
        let stands: Vec<bool> = margins.iter().map(|&margin| margin > 0.0).collect();
        assert_eq!(verdicts.robust, stands, "{queries} queries");
        // Of all of them at once, in the order they were given: nothing is looked at, and moved, before 250 queries.
        if queries > 250 {
            continue;
        }
        let of =
            |name: &str| store.read_f64(&format!("evaluate {} {BATCH} data.{name}", attack.line())).unwrap();
        let (margin, image) = (of("state/margin"), of("adversarial"));
        let expected = numbers.bytes(&format!("{queries}.image"));
        let expected = expected.chunks(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap())));
        let expected: Vec<f64> = expected.collect();
        for i in (0..BATCH).filter(|&i| stands[i]) {
            let pixels = i * NUMBERS..(i + 1) * NUMBERS;
            let apart = image[pixels.clone()].iter().zip(&expected[pixels]);
            let apart = apart.map(|(have, want)| (have - want).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-4, "{queries} queries, example {i}: {apart}");
            assert!((margin[i] - margins[i]).abs() < 1e-4, "{queries} queries, example {i}");
            (compared, worst) = (compared + 1, worst.max(apart));
        }
    }
    println!("{compared} images compared, pixels at most {worst:.1e} apart");
    assert!(compared > 50, "{compared}");
}
