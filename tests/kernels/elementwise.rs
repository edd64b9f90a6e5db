//! Maps, fills, updates and every stage.

use crate::harness::{Host, Numbers, check, plain, reference, run, ways};
use adamant::cpu::Data;
use adamant::launch::{Kernel, Launch, Operand, Place, Stage};
use adamant::tape::{Binary, Unary};
use adamant::{DType, Stretch};

const LENGTHS: [usize; 9] = [1, 2, 31, 63, 64, 65, 1009, 4096, 70_003];

#[test]
fn maps_fills_and_updates() {
    let mut numbers = Numbers::new(1);
    for len in LENGTHS {
        for (div, modulo) in [(1, len), (1, 1), (1, 7), (3, 5), (len, 2)] {
            let launch = plain(Kernel::Map { start: Stretch { div, modulo } }, 1, &[len], DType::F32);
            check(&launch, &[numbers.floats(modulo)], 1e-6);
        }
        check(&plain(Kernel::Fill { value: -0.3 }, 0, &[len], DType::F32), &[], 1e-6);
        check(&plain(Kernel::Update, 0, &[len], DType::F32), &[], 1e-6);
    }
}

#[test]
fn integers_are_moved_bit_for_bit() {
    // The bits of denormals and NaNs, which a copy through floats might lose.
    let x = vec![1, 0x7fc0_1234, 0x8000_0001, u32::MAX, 0, 0x7f80_0000];
    let launch = plain(Kernel::Map { start: Stretch { div: 1, modulo: 6 } }, 1, &[2, 6], DType::U32);
    for way in ways() {
        let got = run(way, &launch, &[Host::U32(x.clone())], &Host::U32(vec![9; 12]));
        assert_eq!(got, Host::U32([x.clone(), x.clone()].concat()), "{}", way.name);
    }
}

/// The launch of one stage on x[0] with the operand x[1].
fn one_stage(stage: Stage, len: usize) -> Launch {
    let mut launch = plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len], DType::F32);
    launch.stages = vec![stage];
    launch
}

#[test]
fn every_unary_stage() {
    let steps: Vec<f32> = (-400..=400).map(|i| i as f32 / 64.0).collect();
    let wide = vec![-1e30, -1e4, -100.0, -30.0, -1e-3, -1e-20, 0.0, 1e-20, 1e-3, 30.0, 100.0, 1e4, 1e30];
    let everywhere = [steps.clone(), wide.clone()].concat();
    let positive: Vec<f32> = everywhere.iter().copied().filter(|&x| x > 0.0).collect();
    let small: Vec<f32> = everywhere.iter().copied().filter(|x| x.abs() <= 30.0).collect();
    let ops: [(Unary, &[f32], f64); 20] = [
        (Unary::Affine { scale: 0.1, shift: -3.0 }, &steps, 1e-6),
        (Unary::Affine { scale: -1.0, shift: 0.0 }, &everywhere, 0.0),
        (Unary::Affine { scale: 1.0, shift: 1e-7 }, &steps, 1e-6),
        (Unary::Exp, &small, 4e-6),
        (Unary::Log, &positive, 1e-6),
        (Unary::Sqrt, &positive, 1e-6),
        (Unary::Square, &steps, 1e-6),
        (Unary::Abs, &everywhere, 0.0),
        (Unary::Sign, &everywhere, 0.0),
        (Unary::Relu, &everywhere, 0.0),
        (Unary::LeakyRelu { slope: 0.01 }, &everywhere, 1e-6),
        (Unary::LeakyRelu { slope: 2.0 }, &steps, 1e-6),
        (Unary::Silu, &everywhere, 1e-6),
        (Unary::Gelu, &everywhere, 1e-6),
        (Unary::Tanh, &everywhere, 5e-7),
        (Unary::Sigmoid, &everywhere, 5e-7),
        (Unary::Erf, &everywhere, 5e-7),
        (Unary::Clamp { lo: -0.5, hi: 1.5 }, &everywhere, 0.0),
        (Unary::Clamp { lo: f64::NEG_INFINITY, hi: 1.5 }, &everywhere, 0.0),
        (Unary::Clamp { lo: 0.0, hi: f64::INFINITY }, &everywhere, 0.0),
    ];
    for (op, x, tolerance) in ops {
        check(&one_stage(Stage::Unary(op), x.len()), &[Host::Float(x.to_vec())], tolerance);
    }
    // Small arguments keep their relative accuracy, which an absolute bound would not see.
    let tiny: Vec<f32> = (1..200).map(|i| i as f32 * 1e-3).collect();
    for op in [Unary::Tanh, Unary::Erf] {
        let launch = one_stage(Stage::Unary(op), tiny.len());
        let (x, before) = (Host::Float(tiny.clone()), Host::Float(vec![0.0; tiny.len()]));
        let Data::Float(want) = reference(&launch, std::slice::from_ref(&x), &before) else { panic!() };
        for way in ways() {
            let Host::Float(got) = run(way, &launch, std::slice::from_ref(&x), &before) else { panic!() };
            for (got, want) in got.iter().zip(&want) {
                assert!((f64::from(*got) / want - 1.0).abs() < 1e-6, "{}: {got}, not {want}", op.name());
            }
        }
    }
}

#[test]
fn every_binary_stage_both_ways_round() {
    let mut numbers = Numbers::new(3);
    let len = 257;
    for op in [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::AddScaled { scale: 0.3 },
        Binary::Gate { slope: 0.0 },
        Binary::Gate { slope: 0.25 },
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::Equal,
    ] {
        for swapped in [false, true] {
            for stretch in [
                Stretch { div: 1, modulo: len },
                Stretch { div: 1, modulo: 1 },
                Stretch { div: 2, modulo: 9 },
            ] {
                let operand = Operand::Buffer { place: Place::Tensor(1), stretch };
                let launch = one_stage(Stage::Binary { op, swapped, operand }, len);
                // Divisors are not 0; the rest may be equal or 0.
                let div = op == Binary::Div;
                let mut of = |len| if div { numbers.positive(len) } else { numbers.floats(len) };
                let tensors = [of(len), of(stretch.modulo)];
                check(&launch, &tensors, 1e-6);
            }
            let previous = Stage::Binary { op, swapped, operand: Operand::Previous };
            if op != Binary::Div {
                check(&one_stage(previous, len), &[numbers.floats(len)], 1e-6);
            }
        }
    }
}

#[test]
fn values_without_literals_pass() {
    for way in ways() {
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let mut launch = plain(Kernel::Fill { value }, 0, &[3], DType::F32);
            for stages in [vec![], vec![Stage::Unary(Unary::Affine { scale: 1.0, shift: value })]] {
                launch.stages = stages;
                let got = run(way, &launch, &[], &Host::Float(vec![1.0; 3]));
                let Host::Float(got) = got else { panic!() };
                let want = value as f32;
                assert!(got.iter().all(|x| *x == want || (x.is_nan() && want.is_nan())), "{got:?}");
            }
        }
        // NaN is not swallowed on its way to where it is noticed.
        for op in [Unary::Relu, Unary::Clamp { lo: 0.0, hi: 1.0 }, Unary::Tanh, Unary::Sigmoid] {
            let launch = one_stage(Stage::Unary(op), 1);
            let Host::Float(got) = run(way, &launch, &[Host::Float(vec![f32::NAN])], &Host::Float(vec![0.0]))
            else {
                panic!()
            };
            assert!(got[0].is_nan(), "{} of NaN is {} on {}", op.name(), got[0], way.name);
        }
    }
}

#[test]
fn the_same_pair_of_buffer_and_stretch_is_bound_once() {
    let operand = Operand::Buffer { place: Place::Tensor(0), stretch: Stretch { div: 1, modulo: 5 } };
    let add = Stage::Binary { op: Binary::Add, swapped: false, operand };
    let mut launch = one_stage(add, 5);
    launch.stages = vec![add; 12];
    check(&launch, &[Numbers::new(5).floats(5)], 1e-5);
}
