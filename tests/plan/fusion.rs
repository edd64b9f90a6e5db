//! Random tapes: the fused plan against the unfused one and against a plan that keeps every value.

use crate::random_tapes::{self, Instruction};
use crate::{assert_same_bits, host_bits};
use adamant::{DType, Device, Plan, Program, Step, Store, Tape};
use proptest::prelude::*;

/// A random tape, compiled.
fn compile(store: &Store, code: &[Instruction], choices: &[[u8; 2]], fuse: bool) -> Plan {
    let tape = Tape::new();
    let values = random_tapes::record(&tape, code);
    for (name, value) in random_tapes::assignments(&values, choices) {
        tape.assign(&name, value);
    }
    let compile = if fuse { Plan::compile } else { Plan::compile_unfused };
    compile(&tape, store).unwrap()
}

/// What a run must leave in each assigned tensor, by a plan in which nothing is updated in place and no memory is
/// shared: every value the code makes has a tensor of its own.
fn kept(device: &Device, code: &[Instruction], choices: &[[u8; 2]]) -> Vec<(String, Vec<u64>)> {
    let store = random_tapes::store(device);
    let tape = Tape::new();
    let values = random_tapes::record(&tape, code);
    let chosen = random_tapes::assignments(&values, choices);
    for (i, value) in values.iter().chain(chosen.iter().map(|(_, value)| value)).enumerate() {
        tape.assign(&format!("kept{i}"), *value);
    }
    Plan::compile_unfused(&tape, &store).unwrap().run().unwrap();
    let read = |at: usize| host_bits(&store.read(&[&format!("kept{}", values.len() + at)]).unwrap()[0]);
    chosen.iter().enumerate().map(|(at, (name, _))| (name.clone(), read(at))).collect()
}

fn check(device: &Device, code: &[Instruction], choices: &[[u8; 2]]) {
    let [fused, unfused, single] = [(); 3].map(|()| random_tapes::store(device));
    let plan = compile(&fused, code, choices, true);
    plan.run().unwrap();
    for (name, want) in kept(device, code, choices) {
        let have = host_bits(&fused.read(&[&name]).unwrap()[0]);
        assert_eq!(have, want, "`{name}` after one run of\n{}", plan.schedule());
    }
    // Two more runs, as one submission: they start from what the first left.
    Program::new(vec![Step::Repeat(2, &plan)]).run().unwrap();
    let plain = compile(&unfused, code, choices, false);
    Program::new(vec![Step::Repeat(3, &plain)]).run().unwrap();
    assert_same_bits(&fused, &unfused, "fused and unfused");
    let again = compile(&single, code, choices, true);
    (0..3).for_each(|_| again.run().unwrap());
    assert_same_bits(&fused, &single, "repeat(2) and two runs");
    assert!(plan.schedule().launches.len() <= plain.schedule().launches.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_fused_plan_gives_the_bits_of_the_unfused_one_and_of_one_that_keeps_every_value(
        code in prop::collection::vec(any::<Instruction>(), 1..24),
        choices in prop::collection::vec(any::<[u8; 2]>(), 1..7),
        reference in any::<bool>(),
    ) {
        let device = if reference { Device::reference() } else { Device::cpu() };
        check(&device, &code, &choices);
    }
}

#[test]
fn one_launch_over_logits_gives_the_bits_of_launches_of_their_own() {
    let record = |tape: &Tape| {
        let w = tape.source("w", [6, 10], DType::F32);
        let labels = tape.source("labels", [6], DType::U32);
        let x = tape.source("x", [10, 10], DType::F32);
        let logits = x.matmul(w.transpose(&[1, 0])).transpose(&[1, 0]);
        let (losses, right) = (logits.cross_entropy(labels), logits.correct(labels));
        let total = tape.source("total", [], DType::F32);
        tape.assign("total", losses.sum_all() + total);
        // The old total is an operand of the gradient's launch; the weight is written when all have read it.
        let gradient = tape.weighted_grad(losses, total.broadcast_to(losses.shape()), &[logits])[0];
        tape.assign("x", x - gradient.matmul_t(true, w, false) * right.sum_all());
        tape.assign("w", w - gradient.scale(0.25) * right.reshape([6, 1]));
    };
    for device in [Device::cpu(), Device::reference()] {
        let stores = [true, false].map(|fuse| {
            let (store, tape) = (Store::new(&device), Tape::new());
            record(&tape);
            let plan = if fuse { Plan::compile(&tape, &store) } else { Plan::compile_unfused(&tape, &store) };
            let plan = plan.unwrap();
            let joined = plan.schedule().launches.iter().map(|launch| launch.also.len()).sum::<usize>();
            assert_eq!(joined, if fuse { 2 } else { 0 }, "{}", plan.schedule());
            store.write_f64("w", &crate::uniform(1, 60)).unwrap();
            store.write_f64("x", &crate::uniform(2, 100)).unwrap();
            store.write_f64("total", &[1.5]).unwrap();
            store.put("labels", [6], &adamant::Host::U32(vec![3, 0, 9, 12, 5, 5])).unwrap();
            Program::new(vec![Step::Repeat(3, &plan)]).run().unwrap();
            store
        });
        assert_same_bits(&stores[0], &stores[1], "fused and unfused");
    }
}

/// Two sources, and what is assigned to them and to others.
fn assigned(
    record: impl for<'t> Fn(adamant::Var<'t>, adamant::Var<'t>) -> Vec<(&'static str, adamant::Var<'t>)>,
) -> Store {
    let store = Store::new(&Device::cpu());
    let tape = Tape::new();
    let [a, b] = ["a", "b"].map(|name| tape.source(name, [3], DType::F32));
    for (name, value) in record(a, b) {
        tape.assign(name, value);
    }
    let plan = Plan::compile(&tape, &store).unwrap();
    store.put("a", [3], &adamant::Host::F32(vec![1.0, 2.0, 3.0])).unwrap();
    store.put("b", [3], &adamant::Host::F32(vec![10.0, 20.0, 30.0])).unwrap();
    plan.run().unwrap();
    store
}

fn assert_holds(store: &Store, name: &str, want: [f32; 3]) {
    assert_eq!(store.read_f32(name).unwrap(), want, "`{name}`");
}

#[test]
fn two_tensors_swap() {
    let store = assigned(|a, b| vec![("a", b), ("b", a)]);
    assert_holds(&store, "a", [10.0, 20.0, 30.0]);
    assert_holds(&store, "b", [1.0, 2.0, 3.0]);
}

#[test]
fn a_tensor_read_after_it_was_assigned_is_as_it_was_before_the_run() {
    let store = assigned(|a, b| vec![("a", a + b), ("b", (a + b).square() - a), ("c", a), ("d", b)]);
    assert_holds(&store, "a", [11.0, 22.0, 33.0]);
    assert_holds(&store, "b", [120.0, 482.0, 1086.0]);
    assert_holds(&store, "c", [1.0, 2.0, 3.0]);
    assert_holds(&store, "d", [10.0, 20.0, 30.0]);
}

#[test]
fn one_value_goes_to_several_tensors_and_the_last_assignment_of_a_name_counts() {
    let store = assigned(|a, b| {
        let sum = (a + b).scale(2.0);
        vec![("a", b), ("a", sum), ("b", sum), ("c", sum), ("d", sum.scale(0.5))]
    });
    for name in ["a", "b", "c"] {
        assert_holds(&store, name, [22.0, 44.0, 66.0]);
    }
    assert_holds(&store, "d", [11.0, 22.0, 33.0]);
}

#[test]
fn an_update_in_place_reads_itself_at_other_elements_first() {
    // The element a slice or a sum reads is not the one that is written.
    let store = assigned(|a, b| vec![("a", a.slice(0, 1, 2).pad(&[0], [3]) + a), ("b", b * b.sum_all())]);
    assert_holds(&store, "a", [3.0, 5.0, 3.0]);
    assert_holds(&store, "b", [600.0, 1200.0, 1800.0]);
}
