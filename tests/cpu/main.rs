//! The CPU executor: in f64 against loops so plain that they are obviously right, in f32 against f64, and the same
//! bits for every number of threads.

mod cases;
mod half;
mod reference;

use adamant::cpu::{Buffer, Data, Executor, Float, Workspace, allocate};
use adamant::launch::{Kernel, Launch, Operand, PerRow, Place, Stage};
use adamant::tape::{Binary, Distribution, Purpose, Reduction, Unary};
use adamant::{DType, Shape, Stretch};
use cases::{Case, cases, large_cases};
use std::sync::{Arc, RwLock};

/// The data in another float.
fn convert<T: Float>(data: &Data<f64>) -> Data<T> {
    match data {
        Data::Float(x) => Data::Float(x.iter().map(|&x| T::from_f64(x)).collect()),
        Data::U32(x) => Data::U32(x.clone()),
        Data::U8(x) => Data::U8(x.clone()),
    }
}

fn numbers<T: Float>(data: &Data<T>) -> Vec<f64> {
    match data {
        Data::Float(x) => x.iter().map(|x| x.to_f64()).collect(),
        Data::U32(x) => x.iter().map(|&x| f64::from(x)).collect(),
        Data::U8(x) => x.iter().map(|&x| f64::from(x)).collect(),
    }
}

/// Runs the case: its tensors are `Place::Tensor(i)`, its output is slot 0, longer than needed and holding `previous`.
fn run<T: Float>(case: &Case) -> Data<T> {
    let len = case.launch.shape.len();
    let slot = allocate::<T>(case.launch.dtype, len + 3);
    if let Data::Float(x) = &mut *slot.write().unwrap() {
        x.iter_mut().zip(&case.previous).for_each(|(x, &p)| *x = T::from_f64(p));
    }
    let tensors = case
        .tensors
        .iter()
        .map(|data| {
            let dtype = match data {
                Data::Float(_) => DType::F32,
                Data::U32(_) => DType::U32,
                Data::U8(_) => DType::U8,
            };
            let buffer = allocate::<T>(dtype, data.len());
            *buffer.write().unwrap() = convert(data);
            buffer
        })
        .collect();
    let mut executor =
        Executor::new(vec![case.launch.clone()], 0, vec![slot.clone()], tensors, Workspace::default());
    executor.run();
    if !case.launch.updates_in_place() {
        // Nothing of the first run may leak into the second.
        executor.run_launch(0);
    }
    let mut data = slot.read().unwrap().clone();
    match &mut data {
        Data::Float(x) => {
            assert!(x[len..].iter().all(|&x| x == T::ZERO), "{}: wrote past its result", case.name);
            x.truncate(len);
        }
        Data::U32(x) => {
            assert!(x[len..].iter().all(|&x| x == 0), "{}: wrote past its result", case.name);
            x.truncate(len);
        }
        Data::U8(_) => unreachable!(),
    }
    data
}

/// Largest difference, relative to the larger of 1 and the values' own size.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1.0, |size: f64, x| size.max(if x.is_finite() { x.abs() } else { 0.0 }));
    let one = |(&a, &b): (&f64, &f64)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
    a.iter().zip(b).map(one).fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) })
        / size
}

#[test]
fn f64_equals_plain_loops() {
    for case in cases() {
        let (have, want) = (numbers(&run::<f64>(&case)), reference::run(&case));
        let error = difference(&have, &want);
        assert!(error < 1e-12, "{}: {error:e}\nhave {have:?}\nwant {want:?}", case.name);
    }
}

#[test]
fn f32_is_near_f64() {
    for case in cases().into_iter().chain(large_cases()) {
        let (have, want) = (numbers(&run::<f32>(&case)), numbers(&run::<f64>(&case)));
        let error = difference(&have, &want);
        // Stages may take away most of a long sum and leave its rounding error.
        let bound = if case.launch.stages.is_empty() { 2e-5 } else { 2e-4 };
        assert!(error < bound, "{}: {error:e}", case.name);
    }
}

#[test]
fn large_f64_equals_plain_loops() {
    for case in large_cases() {
        let error = difference(&numbers(&run::<f64>(&case)), &reference::run(&case));
        assert!(error < 1e-11, "{}: {error:e}", case.name);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let cases = large_cases();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = |case: &Case| -> Vec<u64> {
            numbers(&pool.install(|| run::<f32>(case))).into_iter().map(f64::to_bits).collect()
        };
        cases.iter().map(run).collect::<Vec<_>>()
    };
    let one = with(1);
    for threads in [2, 3, 5] {
        for ((case, one), other) in cases.iter().zip(&one).zip(with(threads)) {
            assert!(*one == other, "{}: other bits with {threads} threads", case.name);
        }
    }
}

/// One launch over explicit tensors.
fn launch(kernel: Kernel, inputs: usize, shape: &[usize], stages: Vec<Stage>) -> Launch {
    Launch {
        kernel,
        inputs: (0..inputs).map(Place::Tensor).collect(),
        stages,
        output: Place::Slot(0),
        also: Vec::new(),
        shape: Shape::new(shape),
        dtype: DType::F32,
        halves: Vec::new(),
    }
}

#[test]
fn what_is_given_beside_a_gradient_has_the_bits_of_kernels_of_their_own() {
    // Some rows, and more than a block of them.
    for (rows, columns) in [(5, 3), (2001, 17)] {
        let mut numbers = (0..rows * columns).map(|i| ((i * 2_654_435_761) % 1009) as f32 / 100.0 - 5.0);
        let logits: Vec<f32> = numbers.by_ref().collect();
        let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % (columns + 1)) as u32).collect();
        let run = |launch: &Launch, threads: usize| -> Vec<Vec<f32>> {
            let buffer = |data| Arc::new(RwLock::new(data));
            let tensors = vec![buffer(Data::Float(logits.clone())), buffer(Data::U32(labels.clone()))];
            let slots: Vec<_> = (0..3).map(|_| buffer(Data::Float(vec![7.0; rows * columns]))).collect();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let workspace = Workspace::default();
                Executor::<f32>::new(vec![launch.clone()], 0, slots.clone(), tensors, workspace).run();
            });
            let floats = |slot: &Buffer<f32>| match &*slot.read().unwrap() {
                Data::Float(x) => x.clone(),
                _ => unreachable!(),
            };
            slots.iter().map(floats).collect()
        };
        let alone = |kernel| run(&launch(kernel, 2, &[rows], vec![]), 1)[0][..rows].to_vec();
        let want = [alone(Kernel::CrossEntropy { rows, columns }), alone(Kernel::Correct { rows, columns })];
        for kernel in
            [Kernel::CrossEntropyGrad { rows, columns }, Kernel::CrossEntropyDirection { rows, columns }]
        {
            let bare = launch(kernel, 2, &[rows, columns], vec![Stage::Unary(Unary::Tanh)]);
            let gradient = run(&bare, 1).remove(0);
            for also in [vec![PerRow::Loss], vec![PerRow::Correct], PerRow::ALL.to_vec()] {
                let places = also.iter().enumerate().map(|(at, &what)| (what, Place::Slot(1 + at))).collect();
                let launch = Launch { also: places, ..bare.clone() };
                for threads in [1, 3] {
                    let have = run(&launch, threads);
                    assert_eq!(have[0], gradient, "{launch}");
                    for (have, &what) in have[1..].iter().zip(&also) {
                        assert_eq!(have[..rows], want[what as usize], "{} of {launch}", what.name());
                        assert!(have[rows..].iter().all(|&x| x == 7.0), "{launch} wrote past its rows");
                    }
                }
            }
        }
    }
}

#[test]
fn nan_passes_through() {
    // A loss that turned NaN must be seen, not clamped away.
    for unary in [Unary::Relu, Unary::Clamp { lo: 0.0, hi: 1.0 }, Unary::Exp, Unary::Tanh, Unary::Sigmoid] {
        let case = Case {
            name: format!("{unary:?} of NaN"),
            launch: launch(
                Kernel::Map { start: Stretch { div: 1, modulo: 3 } },
                1,
                &[3],
                vec![Stage::Unary(unary)],
            ),
            tensors: vec![Data::Float(vec![f64::NAN, 0.5, f64::NAN])],
            previous: vec![],
        };
        let have = numbers(&run::<f32>(&case));
        assert!(have[0].is_nan() && have[1].is_finite() && have[2].is_nan(), "{unary:?}: {have:?}");
    }
    let sum = |kind| Case {
        name: "fold of NaN".into(),
        launch: launch(
            Kernel::Reduce { kind, outer: 1, extent: 3, inner: 1, before: vec![] },
            1,
            &[1],
            vec![],
        ),
        tensors: vec![Data::Float(vec![1.0, f64::NAN, 2.0])],
        previous: vec![],
    };
    assert!(numbers(&run::<f32>(&sum(Reduction::Sum)))[0].is_nan());
    assert!(numbers(&run::<f32>(&sum(Reduction::Max)))[0].is_nan());
}

#[test]
fn gate_with_slope_zero_is_exactly_zero() {
    let gate = Stage::Binary {
        op: Binary::Gate { slope: 0.0 },
        swapped: false,
        operand: Operand::Buffer { place: Place::Tensor(1), stretch: Stretch { div: 1, modulo: 4 } },
    };
    let case = Case {
        name: "gate".into(),
        launch: launch(Kernel::Map { start: Stretch { div: 1, modulo: 4 } }, 1, &[4], vec![gate]),
        tensors: vec![
            Data::Float(vec![f64::INFINITY, f64::NEG_INFINITY, 3.0, 4.0]),
            Data::Float(vec![-1.0, 0.0, 1.0, -0.0]),
        ],
        previous: vec![],
    };
    assert_eq!(numbers(&run::<f32>(&case)), [0.0, 0.0, 3.0, 0.0]);
}

#[test]
fn a_random_number_depends_on_its_example_alone() {
    let draw = |examples: &[u32], distribution| {
        let kernel =
            Kernel::Random { distribution, purpose: Purpose::ATTACK_START, rows: examples.len(), row: 7 };
        let case = Case {
            name: "random".into(),
            launch: launch(kernel, 3, &[examples.len(), 7], vec![]),
            tensors: vec![Data::U32(vec![11, 12]), Data::U32(vec![2, 9]), Data::U32(examples.to_vec())],
            previous: vec![],
        };
        numbers(&run::<f32>(&case))
    };
    for distribution in [Distribution::Uniform, Distribution::Normal] {
        let (ab, ba) = (draw(&[5, 900], distribution), draw(&[900, 5], distribution));
        assert_eq!(ab[..7], ba[7..]);
        assert_eq!(ab[7..], ba[..7]);
        assert_ne!(ab[..7], ab[7..]);
    }
    let uniform = draw(&[5], Distribution::Uniform);
    for (element, &have) in uniform.iter().enumerate() {
        let want = adamant::philox::uniform([11, 12], Purpose::ATTACK_START, [2, 9], 5, element as u32);
        assert_eq!(have, want);
    }
}
