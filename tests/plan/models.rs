//! Whole networks, the attack's step and the training step: fused and unfused plans give the same bits.

use crate::{assert_same_bits, uniform};
use adamant::attack::{Attack, Classifier, Fgsm, Inputs, Names, Norm, Pgd, RecordedAttack, ThreatModel};
use adamant::nn::{Architecture, Mode, Net, Params, architectures};
use adamant::plan::Precision;
use adamant::train::{Optimizer, Recipe};
use adamant::{DType, Device, Host, Plan, Program, Shape, Step, Store, Tape};

const MODELS: [(&str, [usize; 3]); 5] = [
    ("mlp-16-8", [6, 5, 2]),
    ("mnist-fast", [12, 12, 1]),
    ("mnist-madry", [8, 8, 1]),
    ("preact-resnet18-w4-normalized", [16, 16, 3]),
    ("resnet18-w4", [16, 16, 3]),
];
const BATCH: usize = 5;
const CLASSES: usize = 10;

pub fn classifier(architecture: &dyn Architecture, mode: Mode) -> Classifier<'_> {
    Classifier { architecture, mode, examples: 9, inputs: Inputs::Images, precision: Precision::F32 }
}

pub fn pgd(norm: Norm) -> Pgd {
    let threat = ThreatModel { norm, epsilon: "0.3".parse().unwrap() };
    Pgd { threat, steps: 10, step_size: "0.05".parse().unwrap(), random_start: true }
}

/// A store with initial weights, a batch, and what attacks and optimisers read.
fn store(architecture: &dyn Architecture) -> Store {
    let store = Store::new(&Device::cpu());
    let params = Params::of(architecture).unwrap();
    for (param, values) in params.iter().zip(params.initial(5)) {
        store.put(&param.name, param.shape, &Host::F32(values)).unwrap();
    }
    let images = classifier(architecture, Mode::Eval).images(BATCH);
    let pixels = |stream| Host::F64(uniform(stream, images.len()).iter().map(|u| 0.5 + 0.5 * u).collect());
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i * 7 % CLASSES as u32).collect();
    store.put("batch.labels", [BATCH], &Host::U32(labels)).unwrap();
    for (stream, name) in ["x", "adversarial", "upper"].into_iter().enumerate() {
        store.put(&format!("batch.{name}"), images, &pixels(stream as u32)).unwrap();
    }
    for (name, value) in [("radius", 0.3), ("step", 0.05)] {
        store.put(&format!("batch.{name}"), Shape::scalar(), &Host::F64(vec![value])).unwrap();
    }
    store
}

/// Runs the tape fused and unfused, three times each.
fn check(architecture: &dyn Architecture, prepare: impl Fn(&Store), record: impl Fn() -> Tape, what: &str) {
    let [fused, unfused] = [true, false].map(|fuse| {
        let store = store(architecture);
        prepare(&store);
        let compile = if fuse { Plan::compile } else { Plan::compile_unfused };
        let plan = compile(&record(), &store).unwrap();
        Program::new(vec![Step::Repeat(3, &plan)]).run().unwrap();
        (plan.schedule().launches.len(), store)
    });
    let what = format!("{what} of {}", architecture.name());
    assert!(fused.0 < unfused.0, "{what}: {} launches fused, {} unfused", fused.0, unfused.0);
    // Constants that fusion made unnecessary would show up as tensors of one plan alone: there are none.
    assert_same_bits(&fused.1, &unfused.1, &what);
}

#[test]
fn forward_and_gradients() {
    for (model, input) in MODELS {
        let architecture = architectures::by_name(model, input, CLASSES).unwrap();
        for mode in [Mode::Eval, Mode::Train, Mode::TrainFrozen] {
            let record = || {
                let tape = Tape::new();
                let images = classifier(architecture.as_ref(), mode).images(BATCH);
                let (x, labels, _) = Names::new("batch", "train").batch(&tape, images);
                let net = Net::new(&tape, mode);
                let logits = architecture.forward(&net, x);
                tape.assign("logits", logits);
                let weights = net.weights();
                let vars: Vec<_> = weights.iter().map(|(_, var)| *var).chain([x]).collect();
                for (i, gradient) in tape.grad(logits.cross_entropy(labels), &vars).into_iter().enumerate() {
                    tape.assign(&format!("gradient{i}"), gradient);
                }
                for (name, value) in net.updates() {
                    tape.assign(&name, value);
                }
                tape
            };
            check(architecture.as_ref(), |_| {}, record, &format!("gradients in {mode:?}"));
        }
    }
}

#[test]
fn steps_of_attacks() {
    for (model, input) in MODELS {
        let architecture = architectures::by_name(model, input, CLASSES).unwrap();
        let attacks: [Box<dyn Attack>; 3] = [
            Box::new(pgd(Norm::Linf)),
            Box::new(pgd(Norm::L2)),
            Box::new(Fgsm { threat: pgd(Norm::Linf).threat }),
        ];
        for (attack, freeze) in attacks.iter().flat_map(|attack| [(attack, false), (attack, true)]) {
            let (on, names) = (classifier(architecture.as_ref(), Mode::Eval), Names::new("batch", "train"));
            let record = || RecordedAttack::record_step(attack.as_ref(), on, &names, BATCH, freeze);
            check(architecture.as_ref(), |_| {}, record, &attack.line());
        }
    }
}

#[test]
fn training_steps() {
    let plain = Recipe { weight_decay: 1e-3, ..Recipe::default() };
    let recipes = [
        Recipe { optimizer: "sgd".into(), momentum: 0.0, ..plain.clone() },
        Recipe { optimizer: "sgd".into(), ..plain.clone() },
        Recipe { optimizer: "sgd".into(), nesterov: true, ..plain.clone() },
        Recipe { optimizer: "adam".into(), ..plain.clone() },
        Recipe { optimizer: "adamw".into(), ..plain },
    ];
    for (model, input) in MODELS {
        let architecture = architectures::by_name(model, input, CLASSES).unwrap();
        for recipe in &recipes {
            let optimizer = Optimizer::of(recipe).unwrap();
            let record = || {
                let tape = Tape::new();
                let images = classifier(architecture.as_ref(), Mode::Train).images(BATCH);
                let (_, labels, x) = Names::new("batch", "train").batch(&tape, images);
                let net = Net::new(&tape, Mode::Train);
                let losses = architecture.forward(&net, x).cross_entropy(labels);
                let total = tape.source("metrics.loss", [], DType::F32);
                tape.assign("metrics.loss", losses.sum_all() + total);
                let weights = net.weights();
                let vars: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
                let gradients = tape.grad(losses.scale(1.0 / BATCH as f64), &vars);
                for ((name, weight), gradient) in weights.iter().zip(gradients) {
                    optimizer.record(&tape, name, *weight, gradient);
                }
                for (name, value) in net.updates() {
                    tape.assign(&name, value);
                }
                tape
            };
            let prepare = |store: &Store| optimizer.prepare(store, 1, 0.05).unwrap();
            check(architecture.as_ref(), prepare, record, &format!("{optimizer:?}"));
        }
    }
}
