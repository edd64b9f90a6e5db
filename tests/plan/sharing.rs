//! Plans that work on the same tensors.

use adamant::{DType, Device, Error, Host, Plan, Program, Step, Store, Tape};

/// Adds `from` to `to`.
fn adds(store: &Store, to: &str, from: &str) -> Plan {
    let tape = Tape::new();
    let [x, y] = [to, from].map(|name| tape.source(name, [2], DType::F32));
    tape.assign(to, x + y);
    Plan::compile(&tape, store).unwrap()
}

#[test]
fn plans_see_what_the_others_wrote_in_the_order_of_the_program() {
    let store = Store::new(&Device::cpu());
    store.put("a", [2], &Host::F32(vec![1.0, 2.0])).unwrap();
    store.put("b", [2], &Host::F32(vec![1.0, 1.0])).unwrap();
    let (to_a, to_b) = (adds(&store, "a", "b"), adds(&store, "b", "a"));
    let program = Program::new(vec![Step::Run(&to_a), Step::Repeat(2, &to_b), Step::Run(&to_a)]);
    assert_eq!(program.len(), 4);
    program.run().unwrap();
    // a = [2, 3]; b = [1, 1] + 2 a = [5, 7]; a = [7, 10].
    assert_eq!(store.read_f32("a").unwrap(), [7.0, 10.0]);
    assert_eq!(store.read_f32("b").unwrap(), [5.0, 7.0]);
    // A plan runs again from what stands in the store, and keeps its tensors when the store forgets them.
    store.write_f32("b", &[0.5, 0.25]).unwrap();
    to_a.run().unwrap();
    assert_eq!(store.read_f32("a").unwrap(), [7.5, 10.25]);
    store.remove("b");
    to_a.run().unwrap();
    assert_eq!(store.read_f32("a").unwrap(), [8.0, 10.5]);
}

#[test]
fn the_values_of_one_run_do_not_leak_into_the_next() {
    // The same slots serve every run: a sum that started from what they held would grow.
    let store = Store::new(&Device::cpu());
    let tape = Tape::new();
    let x = tape.source("x", [4, 5], DType::F32);
    tape.assign("y", x.matmul_t(false, x, true).tanh().sum(&[0]) * x.square().sum_all());
    let plan = Plan::compile(&tape, &store).unwrap();
    store.write_f64("x", &crate::uniform(3, 20)).unwrap();
    plan.run().unwrap();
    let first = store.read_f32("y").unwrap();
    Program::new(vec![Step::Repeat(3, &plan)]).run().unwrap();
    assert_eq!(store.read_f32("y").unwrap(), first);
}

#[test]
fn a_name_in_use_with_another_shape_or_type_is_an_error_that_says_both() {
    let store = Store::new(&Device::cpu());
    store.put("x", [2, 3], &Host::F32(vec![0.0; 6])).unwrap();
    for (shape, dtype, want) in [(vec![3, 2], DType::F32, "f32 [3x2]"), (vec![2, 3], DType::U32, "u32 [2x3]")]
    {
        let tape = Tape::new();
        let x = tape.source("x", adamant::Shape::new(&shape), dtype);
        tape.assign("y", if dtype == DType::F32 { x } else { tape.fill([1], 1.0) });
        // An integer cannot be copied, so something else has to read it.
        if dtype == DType::U32 {
            tape.assign("y", tape.source("table", [4], DType::F32).gather_rows(x.reshape([6])));
        }
        let error = Plan::compile(&tape, &store).err().unwrap();
        assert!(matches!(error, Error::Tensor { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("`x`") && text.contains("f32 [2x3]") && text.contains(want), "{text}");
    }
}

#[test]
fn a_value_assigned_to_a_tensor_that_is_read_in_another_shape_is_an_error() {
    for source_first in [true, false] {
        let tape = Tape::new();
        let value = tape.source("y", [3], DType::F32).scale(2.0);
        if source_first {
            tape.assign("out", tape.source("x", [2], DType::F32).scale(3.0));
            tape.assign("x", value);
        } else {
            tape.assign("x", value);
            tape.assign("out", tape.source("x", [2], DType::F32).scale(3.0));
        }
        let error = Plan::compile(&tape, &Store::new(&Device::cpu())).err().unwrap();
        assert!(matches!(error, Error::Tensor { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("`x`") && text.contains("[2]") && text.contains("[3]"), "{text}");
    }
}

#[test]
fn what_a_plan_does_not_change_is_computed_once_a_repeat() {
    for store in [Store::new(&Device::cpu()), Store::new(&Device::reference()), crate::memory::gpu_store()] {
        let tape = Tape::new();
        let [x, y, w] = ["x", "y", "w"].map(|name| tape.source(name, [2], DType::F32));
        // exp(w) is read by two, so it is a launch of its own.
        let scale = w.exp();
        tape.assign("x", x * scale + scale);
        tape.assign("y", y.add_scaled(w.square().sum_all(), 2.0));
        let plan = Plan::compile(&tape, &store).unwrap();
        assert_eq!((plan.schedule().prologue, plan.schedule().launches.len()), (2, 4), "{}", plan.schedule());
        let run = |w: [f32; 2], step| {
            store.write_f32("w", &w).unwrap();
            store.write_f32("x", &[1.0, 2.0]).unwrap();
            store.write_f32("y", &[1.0, 2.0]).unwrap();
            let program = Program::new(vec![step]);
            program.run().unwrap();
            (program.len(), store.read_f32("x").unwrap(), store.read_f32("y").unwrap())
        };
        // With exp(w) = 1: x + 1 each time. Other weights count from the next repeat on.
        assert_eq!(run([0.0; 2], Step::Repeat(3, &plan)), (2 + 3 * 2, vec![4.0, 5.0], vec![1.0, 2.0]));
        let (len, _, y) = run([0.0, 1.0], Step::Run(&plan));
        assert_eq!((len, y), (4, vec![3.0, 4.0]));
        assert_eq!(run([0.0; 2], Step::Repeat(0, &plan)), (0, vec![1.0, 2.0], vec![1.0, 2.0]));
        let timings = Program::new(vec![Step::Repeat(4, &plan)]).profile().unwrap();
        assert_eq!(timings.iter().map(|timing| timing.runs).collect::<Vec<_>>(), [1, 1, 4, 4]);
    }
}
