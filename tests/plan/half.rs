//! Plans in half precision: what is kept as f16, and what is not.

use crate::launches::assert_snapshot;
use crate::memory::lives;
use crate::models::{classifier, pgd};
use adamant::attack::{Classifier, Names, Norm, RecordedAttack};
use adamant::launch::{Kernel, Place};
use adamant::nn::{Mode, architectures};
use adamant::plan::{Options, Precision, Schedule};
use adamant::{DType, Device, Host, Plan, Program, Step, Store, Tape};

/// A step of PGD on a network, in half precision.
fn step(model: &str, norm: Norm, mode: Mode, batch: usize) -> Schedule {
    let architecture = architectures::by_name(model, [28, 28, 1], 10).unwrap();
    let on = Classifier { precision: Precision::F16, ..classifier(architecture.as_ref(), mode) };
    RecordedAttack::schedule_step(&pgd(norm), on, &Names::new("batch", "train"), batch, false).unwrap()
}

/// Type of what a launch reads or writes.
fn dtype(schedule: &Schedule, place: Place) -> DType {
    match place {
        Place::Slot(slot) => schedule.slots[slot].dtype,
        Place::Tensor(tensor) => schedule.tensors[tensor].dtype,
    }
}

#[test]
fn the_launches_of_a_pgd_step_in_half_precision() {
    for (model, batch) in [("mnist-fast", 64), ("preact-resnet18-w8", 16)] {
        let schedule = step(model, Norm::Linf, Mode::Eval, batch);
        assert_snapshot(&format!("half_pgd_step_{model}.txt"), &schedule.to_string());
    }
}

#[test]
fn filters_and_what_flows_between_products_are_halved_and_nothing_else() {
    for (model, products, filters) in [("mnist-fast", 8, 4), ("preact-resnet18-w8", 42, 21)] {
        for norm in [Norm::Linf, Norm::L2] {
            for mode in [Mode::Eval, Mode::Train] {
                let schedule = step(model, norm, mode, 16);
                lives(&schedule);
                let is_half = |place| dtype(&schedule, place) == DType::F16;
                for launch in &schedule.launches {
                    let operands: Vec<Place> = launch.operands().iter().map(|(place, _)| *place).collect();
                    let read = launch.inputs.iter().chain(&operands);
                    for &place in read {
                        assert_eq!(launch.halves.contains(&place), is_half(place), "{launch}\n{schedule}");
                    }
                    assert_eq!(launch.dtype == DType::F16, is_half(launch.output), "{launch}\n{schedule}");
                    let of_rows = matches!(
                        launch.kernel,
                        Kernel::CrossEntropyGrad { .. } | Kernel::CrossEntropyDirection { .. }
                    );
                    assert!(!of_rows || launch.halves.is_empty(), "the loss reads f16: {launch}");
                    let sum = matches!(launch.kernel, Kernel::Reduce { .. });
                    assert!(!sum || launch.dtype == DType::F32, "a sum is kept as f16: {launch}");
                }
                let half = schedule.launches.iter().filter(|launch| launch.is_half_product());
                assert_eq!(half.count(), products, "{model}\n{schedule}");
                let copies = schedule.launches[..schedule.prologue]
                    .iter()
                    .filter(|launch| launch.dtype == DType::F16)
                    .count();
                assert_eq!(copies, filters, "{model}\n{schedule}");
                // Image, bounds and iterate are tensors, and the gradient by the image that a step is made of is f32.
                assert!(schedule.tensors.iter().all(|tensor| tensor.dtype != DType::F16));
                let last = schedule.launches.iter().rev().find(|launch| launch.kernel.flops() > 0).unwrap();
                assert_eq!(last.dtype, DType::F32, "{last}");
            }
        }
    }
}

#[test]
fn the_direction_stands_for_the_loss_where_examples_do_not_mix() {
    for (mode, directions) in [(Mode::Eval, 1), (Mode::Train, 0)] {
        let schedule = step("preact-resnet18-w8", Norm::Linf, mode, 16);
        let found = schedule
            .launches
            .iter()
            .filter(|launch| matches!(launch.kernel, Kernel::CrossEntropyDirection { .. }));
        assert_eq!(found.count(), directions, "{schedule}");
    }
}

/// `y = (x a) b`, a small plan with two products.
fn products(precision: Precision) -> Schedule {
    let tape = Tape::new();
    let source = |name: &str, shape: [usize; 2]| tape.source(name, shape, DType::F32);
    let y = source("x", [3, 5]).matmul(source("a", [5, 70])).relu().matmul(source("b", [70, 2]));
    tape.assign("y", y);
    tape.assign("x", source("x", [3, 5]).scale(0.5));
    Schedule::with(&tape, Options { precision, ..Options::default() }).unwrap()
}

#[test]
fn filters_are_halved_anew_for_every_repeat() {
    for device in [Device::cpu(), Device::reference()] {
        let store = Store::new(&device);
        let [half, single] =
            [Precision::F16, Precision::F32].map(|precision| Plan::of(products(precision), &store).unwrap());
        let run = |plan: &Plan, seed: usize| {
            // Numbers that bf16 holds exactly, so that only sums are rounded.
            let numbers = |len: usize| (0..len).map(|i| ((i * 7 + seed) % 16) as f32 / 8.0 - 1.0).collect();
            for (name, len) in [("x", 15), ("a", 350), ("b", 140)] {
                store.write(name, &Host::F32(numbers(len))).unwrap();
            }
            Program::new(vec![Step::Repeat(2, plan)]).run().unwrap();
            store.read_f64("y").unwrap()
        };
        for seed in [1, 2, 1] {
            let (half, single) = (run(&half, seed), run(&single, seed));
            let size = single.iter().fold(0.0, |size: f64, y| size.max(y.abs()));
            for (half, single) in half.iter().zip(&single) {
                assert!((half - single).abs() <= 0.01 * size, "{half}, not {single}: {}", device.describe());
            }
        }
    }
}
