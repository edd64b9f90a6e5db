//! Every kernel that an attack in half precision can launch, over f16 in memory, against the f64 executor on the same
//! f16 values. Arithmetic is in f32, so results differ by what f32 errs and by the rounding of what is stored.

use crate::conv2d;
use crate::harness::{Host, Numbers, Way, plain, reference, run, ways, with_stages};
use crate::products::noise;
use adamant::DType;
use adamant::Stretch;
use adamant::cpu::Data;
use adamant::kernels::{Target, calls};
use adamant::launch::{ConvShape, Kernel, Launch, Place, PoolShape, Stage};
use adamant::tape::{Conv2d, Pool, Reduction, Unary};
use half::f16;

/// The ways of adapters whose shaders can read and write f16.
fn half_ways() -> impl Iterator<Item = &'static Way> {
    ways().iter().filter(|way| way.target.half)
}

/// Holds `launch` with f16 in all it reads and writes, and, with stages, in what it reads alone or in what it writes
/// alone. (A pipeline takes software Vulkan half a second: not every mixture of everything.)
#[track_caller]
fn check(launch: &Launch, tensors: &[Host], tolerance: f64) {
    check_once(launch, tensors, true, true, tolerance);
    if launch.kernel.takes_stages() && launch.dtype == DType::F32 {
        let mut staged = tensors.to_vec();
        let with = with_stages(launch.clone(), &mut staged);
        let inputs = launch.shape.len().is_multiple_of(2);
        check_once(&with, &staged, inputs, !inputs, 8.0 * tolerance);
    }
}

#[track_caller]
fn check_once(launch: &Launch, tensors: &[Host], inputs: bool, output: bool, tolerance: f64) {
    let mut launch = launch.clone();
    let mut tensors = tensors.to_vec();
    if inputs {
        for (i, tensor) in tensors.iter_mut().enumerate() {
            if matches!(tensor, Host::Float(_)) {
                *tensor = tensor.halved();
                launch.halves.push(Place::Tensor(i));
            }
        }
    }
    let mut before = match launch.dtype {
        DType::U32 => Host::U32(vec![7; launch.shape.len()]),
        _ => Numbers::new(77).floats(launch.shape.len()),
    };
    let stored = output && launch.dtype == DType::F32;
    if stored {
        (launch.dtype, before) = (DType::F16, before.halved());
    }
    let want = reference(&launch, &tensors, &before);
    for way in half_ways() {
        let got = run(way, &launch, &tensors, &before);
        let at = || format!("{launch}: {:?} -> {} on {}", launch.kernel, launch.dtype, way.name);
        let (got, want): (Vec<f64>, _) = match (&got, &want) {
            (Host::Float(got), Data::Float(want)) => (got.iter().map(|&x| f64::from(x)).collect(), want),
            (Host::Half(got), Data::Float(want)) => {
                (got.iter().map(|&x| f64::from(f16::from_bits(x))).collect(), want)
            }
            (Host::U32(got), Data::U32(want)) => {
                assert_eq!(got, want, "{}", at());
                continue;
            }
            _ => panic!("{}: the types differ", at()),
        };
        for (i, (got, &want)) in got.iter().zip(want).enumerate() {
            // Half of the distance of neighbours, of the smallest ones below 2^-14.
            let rounding = if stored { (want.abs() * 2f64.powi(-11)).max(2f64.powi(-25)) } else { 0.0 };
            let bound = 1.001 * rounding + tolerance * want.abs().max(1.0);
            assert!((got - want).abs() <= bound, "{}: [{i}] is {got}, not {want}", at());
        }
    }
}

fn float(kernel: Kernel, inputs: usize, shape: &[usize]) -> Launch {
    plain(kernel, inputs, shape, DType::F32)
}

#[test]
fn maps_updates_reductions_and_movement() {
    let mut numbers = Numbers::new(21);
    for len in [1, 68, 1009] {
        for (div, modulo) in [(1, len), (1, 4)] {
            let launch = float(Kernel::Map { start: Stretch { div, modulo } }, 1, &[len]);
            check(&launch, &[numbers.floats(modulo)], 1e-6);
        }
        check(&float(Kernel::Update, 0, &[len]), &[], 1e-6);
    }
    for (outer, extent, inner) in [(5, 257, 1), (1, 70_007, 1), (4, 63, 33)] {
        let before = [Unary::Square, Unary::Affine { scale: 0.001, shift: 0.0 }].map(Stage::Unary).into();
        let kernel = Kernel::Reduce { kind: Reduction::Sum, outer, extent, inner, before };
        check(&float(kernel, 1, &[outer, inner]), &[numbers.floats(outer * extent * inner)], 1e-5);
    }
    let copy = Kernel::Copy { offset: -9, strides: vec![4, 1], lo: vec![2, 1], hi: vec![5, 5] };
    check(&float(copy, 1, &[6, 6]), &[numbers.floats(12)], 1e-6);
    let columns = vec![3, 1, 65];
    let tensors: Vec<Host> = columns.iter().map(|c| numbers.floats(7 * c)).collect();
    check(&float(Kernel::Concat { outer: 7, columns }, 3, &[7, 69]), &tensors, 0.0);
}

#[test]
fn rows_and_pooling() {
    let mut numbers = Numbers::new(22);
    for (rows, columns) in [(7, 3), (65, 11), (2, 257)] {
        let both = [numbers.floats(rows * columns), numbers.below(rows, columns as u32)];
        let softmax = Kernel::Softmax { rows, columns, log: false };
        check(&float(softmax, 1, &[rows, columns]), &both[..1], 3e-6);
        check(&float(Kernel::CrossEntropy { rows, columns }, 2, &[rows]), &both, 3e-6);
        for kernel in
            [Kernel::CrossEntropyGrad { rows, columns }, Kernel::CrossEntropyDirection { rows, columns }]
        {
            check(&float(kernel, 2, &[rows, columns]), &both, 3e-6);
        }
    }
    let window = Pool { kernel: [3, 2], stride: [2, 2], padding: [1, 0] };
    let [p, q] = window.output([9, 7]).unwrap();
    let z = PoolShape { n: 2, h: 9, w: 7, c: 5, p, q, window };
    let (input, output) = ([z.n, z.h, z.w, z.c], [z.n, z.p, z.q, z.c]);
    let [x, dy] = [numbers.floats(input.iter().product()), numbers.floats(output.iter().product())];
    let index_of = plain(Kernel::MaxPoolIndex(z), 1, &[z.position_words()], DType::U32);
    check(&index_of, std::slice::from_ref(&x), 0.0);
    let Data::U32(index) =
        reference(&index_of, std::slice::from_ref(&x), &Host::U32(vec![0; z.position_words()]))
    else {
        panic!("positions are integers")
    };
    let index = Host::U32(index);
    check(&float(Kernel::PoolGather(z), 2, &output), &[x.clone(), index.clone()], 1e-6);
    check(&float(Kernel::PoolScatter(z), 2, &input), &[dy.clone(), index], 1e-6);
    check(&float(Kernel::AvgPool(z), 1, &output), &[x], 1e-6);
    check(&float(Kernel::AvgPoolGrad(z), 1, &input), &[dy], 1e-6);
}

#[test]
fn the_direction_is_of_unit_size_however_sure_the_network_is() {
    // Right by far, wrong by far, undecided, so right that f32 says 1.
    let logits: Vec<f32> =
        [[12.0, 0.0, -1.0], [-20.0, 3.0, 1.0], [0.0; 3], [80.0, 1.0, 0.0], [1000.0, 0.0, 0.0]].concat();
    let launch = plain(Kernel::CrossEntropyDirection { rows: 5, columns: 3 }, 2, &[5, 3], DType::F32);
    let tensors = [Host::Float(logits), Host::U32(vec![0; 5])];
    for way in ways() {
        let Host::Float(got) = run(way, &launch, &tensors, &Host::Float(vec![9.0; 15])) else { panic!() };
        for (row, values) in got.chunks(3).enumerate() {
            let largest = values.iter().fold(0f32, |best, x| best.max(x.abs()));
            let unit = (0.5..=1.0).contains(&largest);
            // e^-1000 is nothing in f32: there is no direction.
            assert!(if row == 4 { largest == 0.0 } else { unit }, "{}: row {row} is {values:?}", way.name);
        }
    }
}

/// Tolerance of a sum of so many products of numbers below 1.
fn of_depth(depth: usize) -> f64 {
    (4.0 + 2.0 * (depth as f64).sqrt()) * 2f64.powi(-24) * (depth as f64).sqrt().max(4.0)
}

#[test]
fn matrix_products() {
    let extents = [(1, 1, 1), (7, 13, 5), (33, 65, 17), (64, 64, 64), (3, 10, 5000), (37, 100, 30)];
    for (m, n, k) in extents {
        for (ta, tb) in [(false, false), (false, true), (true, false)] {
            let launch = float(Kernel::MatMul { m, n, k, ta, tb }, 2, &[m, n]);
            let tensors = [noise(1, m * k), noise(2, k * n)].map(Host::Float);
            check(&launch, &tensors, of_depth(k));
        }
    }
}

#[test]
fn convolutions_and_gradients() {
    let attributes = |stride: usize, padding: usize, dilation: usize, groups: usize| Conv2d {
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [dilation; 2],
        groups,
    };
    let shapes: [ConvShape; 8] = [
        conv2d::shape([1, 6, 5, 32], [3, 3], 36, attributes(1, 1, 1, 1)),
        conv2d::shape([1, 1, 1, 1], [1, 1], 1, attributes(1, 0, 1, 1)),
        conv2d::shape([2, 7, 5, 9], [3, 3], 11, attributes(1, 1, 1, 1)),
        conv2d::shape([1, 13, 12, 12], [3, 3], 8, attributes(2, 2, 2, 1)),
        conv2d::shape([3, 12, 12, 1], [5, 5], 8, attributes(1, 2, 1, 1)),
        conv2d::shape([2, 6, 5, 33], [3, 3], 65, attributes(1, 1, 1, 1)),
        conv2d::shape([2, 7, 6, 8], [3, 3], 8, attributes(1, 1, 1, 8)),
        conv2d::shape([2, 6, 6, 32], [3, 3], 32, attributes(1, 1, 1, 2)),
    ];
    for z in shapes {
        let [x, w, dy] = conv2d::tensors(z).map(Host::Float);
        let [forward, input_grad, weight_grad] = conv2d::launches(z);
        check(&forward.0, &[x.clone(), w.clone()], of_depth(forward.1));
        check(&input_grad.0, &[dy.clone(), w], of_depth(input_grad.1));
        check(&weight_grad.0, &[x, dy], of_depth(weight_grad.1));
    }
}

#[test]
fn an_adapter_without_f16_says_what_to_do() {
    let mut launch = float(Kernel::MatMul { m: 2, n: 2, k: 2, ta: false, tb: false }, 2, &[2, 2]);
    launch.halves = vec![Place::Tensor(1)];
    for way in ways() {
        let error = calls(&launch, &Target { half: false, ..way.target }).unwrap_err().to_string();
        assert!(error.contains("SHADER_F16") && error.contains("--attack-precision f32"), "{error}");
    }
}
