//! APGD against the official one on a small network in f64: run by run, what the best loss of each example is and whether
//! it was broken (tools/make_apgd_reference.py), and the losses of AutoAttack with their gradients against PyTorch.

use crate::drawn::{CLASSES, Drawn, Numbers, SEED, tensor};
use adamant::attack::{Apgd, Evaluation, Loss, Norm, Search as _, ThreatModel};
use adamant::{DType, Device, Plan, Store, Tape};

// As in tools/make_apgd_reference.py.
const BATCH: usize = 24;
const TARGETS: usize = 4;
const LENGTHS: [usize; 9] = [1, 2, 3, 5, 8, 13, 21, 34, 100];

#[test]
fn every_run_is_the_references() {
    let numbers = Numbers::load("apgd");
    let labels = numbers.u32("labels");
    let examples: Vec<u32> = (0..BATCH as u32).collect();
    let drawn = Drawn::new([6, 6, 1], 0.6, &labels);
    let (store, on) = (&drawn.store, drawn.on());
    let (mut compared, mut parted, mut broken) = (0, 0, 0);
    for (norm, epsilon) in [(Norm::Linf, "0.025"), (Norm::L2, "0.15")] {
        for (loss, name) in
            [(Loss::CrossEntropy, "ce"), (Loss::Dlr, "dlr"), (Loss::TargetedDlr, "dlr-targeted")]
        {
            for steps in LENGTHS {
                let threat = ThreatModel { norm, epsilon: epsilon.parse().unwrap() };
                let attack =
                    Apgd { steps, targets: TARGETS, looks: steps, ..Apgd::new(threat, loss, CLASSES) };
                let judge = Evaluation::compile_search(store, &attack, on, "data", BATCH).unwrap();
                let clean = judge.clean(&examples, &labels, SEED, &mut |_: usize, _: usize| {}).unwrap();
                assert_eq!(clean.clean, labels);
                let best = format!("evaluate {} {BATCH} data.state/best loss", attack.line());
                for run in 0..judge.runs(1) {
                    // Each run on all examples, as the reference's were.
                    let mut verdicts = clean.clone();
                    let runs = [run, judge.runs(1)];
                    let quiet = &mut |_: usize, _: usize| {};
                    judge.go_on(&examples, &labels, runs, SEED, &mut verdicts, quiet).unwrap();
                    let case = match loss.is_targeted() {
                        true => format!("{norm}.{name}.{steps}.{run}"),
                        false => format!("{norm}.{name}.{steps}"),
                    };
                    let (have, want) = (store.read_f64(&best).unwrap(), numbers.f64(&format!("{case}.loss")));
                    let stands = numbers.bytes(&format!("{case}.stands"));
                    for i in 0..BATCH {
                        assert_eq!(verdicts.robust[i], stands[i] == 1, "{case}, example {i}");
                        // An example that is broken stays as it is here, and goes on there.
                        if verdicts.robust[i] {
                            let error = (have[i] - want[i]).abs() / want[i].abs().max(1.0);
                            assert!(error < 0.01, "{case}, example {i}: {} for {}", have[i], want[i]);
                            compared += 1;
                            parted += usize::from(error > 1e-9);
                        }
                    }
                    broken += verdicts.clean_count() - verdicts.robust_count();
                }
            }
        }
    }
    println!("{compared} losses compared, {parted} parted, {broken} examples broken");
    assert!(compared > 500 && broken > 100, "{compared} losses compared, {broken} examples broken");
    // In a corner of the ball the loss stands still, and by its last bit it rises or does not. From there on windows end
    // differently, which changes little, as what is left to gain is little.
    assert!(parted * 20 < compared, "{parted} of {compared} losses are not the reference's");
}

/// Losses and their gradients by the logits, at logits of so many classes.
fn losses(loss: Loss, classes: usize, logits: &[f32], labels: &[u32], targets: &[u32]) -> [Vec<f64>; 2] {
    let batch = labels.len();
    let (tape, store) = (Tape::new(), Store::new(&Device::reference()));
    let z = tape.source("logits", [batch, classes], DType::F32);
    let words = |name| tape.source(name, [batch], DType::U32);
    let target = loss.is_targeted().then(|| words("targets").one_hot(classes));
    let value = loss.of(z, words("labels"), target);
    tape.assign("loss", value);
    tape.assign("gradient", tape.grad(value, &[z])[0]);
    let plan = Plan::compile(&tape, &store).unwrap();
    store.write_f32("logits", logits).unwrap();
    store.write_u32("labels", labels).unwrap();
    if loss.is_targeted() {
        store.write_u32("targets", targets).unwrap();
    }
    plan.run().unwrap();
    ["loss", "gradient"].map(|name| store.read_f64(name).unwrap())
}

#[test]
fn ratios_of_logits_and_their_gradients_are_the_references() {
    let numbers = Numbers::load("apgd");
    for classes in [3usize, 4, 10] {
        let logits = tensor(100 + classes as u32, BATCH * classes, 4.0);
        let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % classes as u32).collect();
        let targets: Vec<u32> = labels.iter().map(|label| (label + 1) % classes as u32).collect();
        for (loss, name) in [(Loss::Dlr, "dlr"), (Loss::TargetedDlr, "dlr-targeted")] {
            if loss.is_targeted() && classes < 4 {
                continue;
            }
            let have = losses(loss, classes, &logits, &labels, &targets);
            for (have, what) in have.iter().zip(["loss", "gradient"]) {
                let want = numbers.f64(&format!("{name} {classes}.{what}"));
                assert_eq!(have.len(), want.len());
                for (have, want) in have.iter().zip(&want) {
                    let error = (have - want).abs() / want.abs().max(1.0);
                    assert!(error < 1e-12, "{what} of {name}, {classes} classes: {have} for {want}");
                }
            }
        }
    }
}

#[test]
fn with_fewer_classes_the_missing_terms_are_left_out() {
    let close = |have: f64, want: f64| assert!((have - want).abs() < 1e-6, "{have} for {want}");
    // Two classes: the difference of logits, whose gradient does not vanish.
    for loss in [Loss::Dlr, Loss::TargetedDlr] {
        let [value, gradient] = losses(loss, 2, &[3.0, 1.0], &[0], &[1]);
        close(value[0], -2.0);
        assert_eq!(gradient, [-1.0, 1.0]);
    }
    // Three: z_1 - z_3 below.
    let [value, _] = losses(Loss::TargetedDlr, 3, &[3.0, 1.0, -1.0], &[0], &[1]);
    close(value[0], -0.5);
    let [value, _] = losses(Loss::Dlr, 3, &[3.0, 1.0, -1.0], &[0], &[0]);
    close(value[0], -0.5);
    // Misclassified: above 0.
    let [value, _] = losses(Loss::Dlr, 3, &[1.0, 3.0, -1.0], &[0], &[0]);
    close(value[0], 0.5);
}
