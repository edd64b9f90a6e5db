//! Images found on one network and judged by another.

use crate::house::{House, threat};
use adamant::attack::{Evaluation, Norm, Pgd};
use adamant::nn::Params;
use adamant::report::evaluation::Passes;
use adamant::{Device, Host, Store};

/// The column of the largest number.
fn argmax(row: &[f64]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

#[test]
fn images_found_on_one_network_are_judged_by_another() {
    let house = House::new(&Device::cpu(), 50);
    let attack = Pgd {
        threat: threat(Norm::Linf, "0.3"),
        steps: 10,
        step_size: "0.06".parse().unwrap(),
        random_start: true,
    };
    let judge = Evaluation::compile(&house.store, &attack, house.on(), "test", 32).unwrap();
    let found = judge.images(&house.examples, 1).unwrap();
    let all: Vec<f32> = found.iter().flat_map(|image| image.adversarial.clone()).collect();
    let want: Vec<u32> = found.iter().map(|image| image.adversarial_prediction.0).collect();
    let classes = |store: &Store, batch: usize| -> Vec<u32> {
        let passes = Passes::compile(store, house.on(), batch).unwrap();
        let logits = passes.logits(&all).unwrap();
        logits.chunks(passes.classes()).map(|row| argmax(row) as u32).collect()
    };
    for batch in [50, 7, 1000] {
        assert_eq!(classes(&house.store, batch), want);
    }
    // Another network on the same images: the same architecture without weights of its own.
    let other = Store::new(&Device::cpu());
    let params = Params::of(house.architecture.as_ref()).unwrap();
    for (param, values) in params.iter().zip(params.initial(5)) {
        other.put(&param.name, param.shape, &Host::F32(values)).unwrap();
    }
    assert_ne!(classes(&other, 50), want);
    let passes = Passes::compile(&other, house.on(), 50).unwrap();
    let error = passes.logits(&all[1..]).unwrap_err().to_string();
    assert!(error.contains("784"), "{error}");
}
