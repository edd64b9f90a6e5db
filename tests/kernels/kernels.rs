//! Reductions, movement, rows, pooling, gathering and random numbers against the f64 executor.

use crate::harness::{Host, Numbers, check, plain, reference, run, run_slots, ways, with_stages};
use adamant::kernels::calls;
use adamant::launch::{Kernel, Launch, Operand, PerRow, Place, PoolShape, Stage};
use adamant::philox;
use adamant::tape::{Augment, Binary, Distribution, Pool, Purpose, Reduction, Unary};
use adamant::{DType, Stretch};

#[test]
fn reductions() {
    let mut numbers = Numbers::new(11);
    let extents = [
        (1, 1, 1),
        (1, 7, 1),
        (3, 64, 1),
        (5, 257, 1),
        (1, 4097, 1),
        (1, 300_007, 1),
        (2, 1, 3),
        (1, 131, 10),
    ];
    let columns = [(1, 1009, 64), (4, 63, 33), (2, 65, 129), (13, 28, 1), (1, 100_003, 3)];
    for (outer, extent, inner) in extents.into_iter().chain(columns) {
        for kind in [Reduction::Sum, Reduction::Max] {
            let len = outer * extent * inner;
            let mut tensors = vec![numbers.floats(len)];
            let unary = [Unary::Square, Unary::Affine { scale: 0.5, shift: -1.0 }].map(Stage::Unary);
            let operand = |tensor: usize, modulo: usize| Operand::Buffer {
                place: Place::Tensor(tensor),
                stretch: Stretch { div: 1, modulo },
            };
            // A variance's (x - mean)^2 and a gradient's x * y.
            let binary = [
                Stage::Binary { op: Binary::Sub, swapped: false, operand: operand(1, inner) },
                Stage::Binary { op: Binary::Mul, swapped: true, operand: operand(2, len) },
                Stage::Unary(Unary::Square),
            ];
            for before in [vec![], unary.to_vec(), binary.to_vec()] {
                if before.len() == 3 {
                    tensors.extend([numbers.floats(inner), numbers.floats(len)]);
                }
                let kernel = Kernel::Reduce { kind, outer, extent, inner, before };
                let launch = plain(kernel, 1, &[outer, inner], DType::F32);
                check(&launch, &tensors, 1e-5);
            }
        }
    }
}

#[test]
fn reductions_of_negatives_only_and_of_many_rows() {
    let x: Vec<f32> = (0..70_000 * 5).map(|i| -1.0 - (i % 97) as f32).collect();
    let kernel =
        Kernel::Reduce { kind: Reduction::Max, outer: 70_000, extent: 5, inner: 1, before: Vec::new() };
    check(&plain(kernel, 1, &[70_000], DType::F32), &[Host::Float(x)], 0.0);
}

#[test]
fn copies() {
    let mut numbers = Numbers::new(12);
    let mut copy = |source: usize, offset, dims: &[usize], strides: &[usize], lo: &[usize], hi: &[usize]| {
        let (strides, lo, hi) = (strides.to_vec(), lo.to_vec(), hi.to_vec());
        let launch = plain(Kernel::Copy { offset, strides, lo, hi }, 1, dims, DType::F32);
        check(&launch, &[numbers.floats(source)], 1e-6);
    };
    // A transposition, NHWC to NCHW, a slice, padding, broadcasts, six axes, a scalar.
    copy(7 * 11, 0, &[11, 7], &[1, 11], &[0, 0], &[11, 7]);
    copy(2 * 5 * 7 * 3, 0, &[2, 3, 5, 7], &[105, 1, 21, 3], &[0; 4], &[2, 3, 5, 7]);
    copy(6 * 9, 9 + 2, &[4, 5], &[9, 1], &[0, 0], &[4, 5]);
    copy(3 * 4, -(2 * 4) - 1, &[6, 6], &[4, 1], &[2, 1], &[5, 5]);
    copy(13, 0, &[65, 13, 3], &[0, 1, 0], &[0; 3], &[65, 13, 3]);
    copy(64, 0, &[2; 6], &[1, 2, 4, 8, 16, 32], &[0; 6], &[2; 6]);
    copy(64, -1, &[2, 3, 2, 2, 2, 2], &[1, 2, 4, 8, 16, 32], &[0, 1, 0, 1, 0, 0], &[2, 2, 2, 2, 2, 1]);
    copy(5, 3, &[], &[], &[], &[]);
    copy(70_001, 70_000, &[70_001], &[0], &[0], &[70_001]);
}

#[test]
fn concatenations() {
    let mut numbers = Numbers::new(13);
    for (outer, columns) in [(1, vec![1, 1]), (7, vec![3, 1, 5]), (2, vec![64, 65, 0, 63]), (1, vec![70_001])]
    {
        let tensors: Vec<Host> = columns.iter().map(|c| numbers.floats(outer * c)).collect();
        let total = columns.iter().sum();
        let inputs = columns.len();
        let launch = plain(Kernel::Concat { outer, columns }, inputs, &[outer, total], DType::F32);
        check(&launch, &tensors, 0.0);
    }
}

#[test]
fn rows_of_logits() {
    let mut numbers = Numbers::new(14);
    for (rows, columns) in [(1, 1), (1, 10), (7, 3), (64, 10), (65, 11), (2, 257), (3, 1009), (1031, 10)] {
        let x = numbers.floats(rows * columns);
        let labels = numbers.below(rows, columns as u32);
        let f = |kernel, inputs, shape: &[usize]| plain(kernel, inputs, shape, DType::F32);
        for log in [false, true] {
            check(
                &f(Kernel::Softmax { rows, columns, log }, 1, &[rows, columns]),
                std::slice::from_ref(&x),
                3e-6,
            );
        }
        let both = [x.clone(), labels.clone()];
        check(&f(Kernel::CrossEntropy { rows, columns }, 2, &[rows]), &both, 3e-6);
        check(&f(Kernel::CrossEntropyGrad { rows, columns }, 2, &[rows, columns]), &both, 3e-6);
        check(&f(Kernel::Correct { rows, columns }, 2, &[rows]), &both, 0.0);
        check(&f(Kernel::OneHot { rows, columns }, 1, &[rows, columns]), &[labels], 0.0);
        check(&plain(Kernel::ArgMax { rows, columns }, 1, &[rows], DType::U32), &[x], 0.0);
    }
}

#[test]
fn what_is_given_beside_the_gradient_is_what_kernels_of_their_own_give() {
    let mut numbers = Numbers::new(15);
    let near = |have: &Host, want: &Host, at: String| {
        let (Host::Float(have), Host::Float(want)) = (have, want) else { panic!("{at}: not floats") };
        for (i, (have, want)) in have.iter().zip(want).enumerate() {
            assert!((have - want).abs() <= 3e-6 * want.abs().max(1.0), "{at}: [{i}] is {have}, not {want}");
        }
    };
    for (rows, columns) in [(1, 1), (7, 3), (65, 11), (3, 1009), (1031, 10)] {
        let mut tensors = vec![numbers.floats(rows * columns), numbers.below(rows, columns as u32 + 1)];
        let alone = [Kernel::CrossEntropy { rows, columns }, Kernel::Correct { rows, columns }]
            .map(|kernel| plain(kernel, 2, &[rows], DType::F32));
        let gradient = |kernel| plain(kernel, 2, &[rows, columns], DType::F32);
        let beside = [vec![PerRow::Loss], vec![PerRow::Correct], PerRow::ALL.to_vec()];
        let bare = [
            gradient(Kernel::CrossEntropyGrad { rows, columns }),
            gradient(Kernel::CrossEntropyDirection { rows, columns }),
        ];
        let staged = with_stages(bare[0].clone(), &mut tensors);
        let before = Numbers::new(77).floats(rows * columns);
        for launch in bare.iter().chain([&staged]) {
            for way in ways() {
                let want = run(way, launch, &tensors, &before);
                for what in &beside {
                    let also: Vec<_> =
                        (1..).map(Place::Slot).zip(what).map(|(at, &what)| (what, at)).collect();
                    let launch = Launch { also, ..launch.clone() };
                    let slots: Vec<Host> = [before.clone()]
                        .into_iter()
                        .chain(what.iter().map(|_| Host::Float(vec![7.0; rows])))
                        .collect();
                    let at = |what: &str| format!("{what} of {launch}, {rows}x{columns} on {}", way.name);
                    let have =
                        run_slots(way, &launch, calls(&launch, &way.target).unwrap(), &tensors, &slots);
                    near(&have[0], &want, at("gradient"));
                    for (have, &what) in have[1..].iter().zip(what) {
                        near(have, &run(way, &alone[what as usize], &tensors, &slots[1]), at(what.name()));
                    }
                }
            }
        }
    }
}

#[test]
fn rows_that_are_hard() {
    let inf = f32::INFINITY;
    // Large and small, all equal, with -inf, with NaN.
    let x = [
        [1e4, 1e4, -1e4, 1e4, 0.0],
        [3.0; 5],
        [-inf, -inf, 1.0, -inf, 1.0],
        [f32::NAN, 1.0, 2.0, f32::NAN, 2.0],
        [-inf; 5],
    ]
    .concat();
    let x = Host::Float(x);
    check(&plain(Kernel::ArgMax { rows: 5, columns: 5 }, 1, &[5], DType::U32), std::slice::from_ref(&x), 0.0);
    let labels = Host::U32(vec![0, 0, 2, 2, 9]);
    check(&plain(Kernel::Correct { rows: 5, columns: 5 }, 2, &[5], DType::F32), &[x, labels], 0.0);
    // Logits far apart neither overflow nor vanish; a label past the last class is the last.
    let x = Host::Float(vec![1e4, 0.0, -1e4, -1e4, 0.0, 1e4]);
    let labels = Host::U32(vec![1, 7]);
    let kernels =
        [Kernel::CrossEntropy { rows: 2, columns: 3 }, Kernel::CrossEntropyGrad { rows: 2, columns: 3 }];
    for (kernel, shape) in kernels.into_iter().zip([&[2usize][..], &[2, 3]]) {
        check(&plain(kernel, 2, shape, DType::F32), &[x.clone(), labels.clone()], 1e-6);
    }
    let kernel = Kernel::OneHot { rows: 2, columns: 3 };
    check(&plain(kernel, 1, &[2, 3], DType::F32), &[labels], 0.0);
}

#[test]
fn pooling() {
    let mut numbers = Numbers::new(15);
    let windows = [
        Pool::square(2, 2, 0),
        Pool::square(3, 2, 1),
        Pool::square(3, 1, 1),
        Pool { kernel: [2, 3], stride: [1, 2], padding: [1, 0] },
        Pool { kernel: [1, 5], stride: [3, 1], padding: [0, 2] },
        Pool { kernel: [5, 5], stride: [1, 3], padding: [1, 2] },
        Pool { kernel: [1, 1], stride: [1, 2], padding: [0, 0] },
    ];
    for (n, h, w, c) in [(1, 5, 5, 1), (2, 7, 8, 3), (1, 13, 11, 65), (5, 8, 8, 4)] {
        for window in windows {
            let [p, q] = window.output([h, w]).unwrap();
            let s = PoolShape { n, h, w, c, p, q, window };
            let (x, dy) = (numbers.floats(n * h * w * c), numbers.floats(n * p * q * c));
            let index = plain(Kernel::MaxPoolIndex(s), 1, &[s.position_words()], DType::U32);
            check(&index, std::slice::from_ref(&x), 0.0);
            let before = Host::U32(vec![0; s.position_words()]);
            let index = run(&ways()[0], &index, std::slice::from_ref(&x), &before);
            let small = |kernel, inputs| plain(kernel, inputs, &[n, p, q, c], DType::F32);
            let large = |kernel, inputs| plain(kernel, inputs, &[n, h, w, c], DType::F32);
            check(&small(Kernel::PoolGather(s), 2), &[x.clone(), index.clone()], 1e-6);
            check(&large(Kernel::PoolScatter(s), 2), &[dy.clone(), index], 1e-6);
            check(&small(Kernel::AvgPool(s), 1), &[x], 1e-6);
            check(&large(Kernel::AvgPoolGrad(s), 1), &[dy], 1e-6);
        }
    }
}

#[test]
fn gathered_rows() {
    let mut numbers = Numbers::new(16);
    for (rows, row, table) in [(1, 1, 1), (3, 7, 5), (64, 784, 100), (5, 63, 2)] {
        // Some indices lie past the table.
        let index = numbers.below(rows, table as u32 + 2);
        let floats = numbers.floats(table * row);
        let words = Host::U32((0..table * row).map(|_| numbers.word()).collect());
        for (from, table_of, dtype) in [
            (DType::F32, floats, DType::F32),
            (DType::U8, numbers.bytes(table * row), DType::F32),
            (DType::U32, words, DType::U32),
        ] {
            let launch = plain(Kernel::GatherRows { rows, row, table, from }, 2, &[rows, row], dtype);
            check(&launch, &[table_of, index.clone()], 1e-6);
        }
    }
}

#[test]
fn bytes_become_exactly_what_the_cpu_makes_of_them() {
    let kernel = Kernel::GatherRows { rows: 1, row: 256, table: 1, from: DType::U8 };
    let launch = plain(kernel, 2, &[1, 256], DType::F32);
    let tensors = [Host::U8((0..=255).collect()), Host::U32(vec![0])];
    let want: Vec<f32> = (0..=255u8).map(|byte| f32::from(byte) / 255.0).collect();
    for way in ways() {
        let got = run(way, &launch, &tensors, &Host::Float(vec![2.0; 256]));
        assert_eq!(got, Host::Float(want.clone()), "{}", way.name);
    }
}

#[test]
fn augmented_images() {
    let mut numbers = Numbers::new(17);
    for (rows, [h, w, c], table) in
        [(1, [1, 1, 1], 1), (7, [5, 9, 3], 4), (64, [28, 28, 1], 10), (33, [8, 6, 2], 3)]
    {
        let (bytes, index) = (numbers.bytes(table * h * w * c), numbers.below(rows, table as u32 + 2));
        // Uniform numbers as they are drawn, the first and the last that there are among them.
        let mut uniform: Vec<f32> =
            (0..Augment::DRAWS * rows).map(|_| (numbers.word() >> 8) as f32 / 16_777_216.0).collect();
        let last = 1.0 - 1.0 / 16_777_216.0;
        uniform[..Augment::DRAWS].copy_from_slice(&[0.0, last, 0.5, last, 0.0, last, last]);
        let most = h.min(w) - 1;
        let way = |padding, reflect, flip| Augment { padding, reflect, flip, ..Augment::default() };
        for augment in [
            way(0, false, true),
            way(most, false, true),
            way(most, true, false),
            way(most / 2, true, true),
            Augment { cutout: h.min(w), ..way(0, false, true) },
            Augment { cutout: h.min(w) / 2, brightness: Augment::ONE, ..way(most / 2, false, true) },
            Augment { contrast: Augment::ONE, ..way(0, false, true) },
            Augment { brightness: Augment::ONE / 5, contrast: Augment::ONE / 2, ..Augment::default() },
        ] {
            let kernel = Kernel::Augment { rows, table, image: [h, w, c], augment };
            let launch = plain(kernel, 3, &[rows, h, w, c], DType::F32);
            let tensors = [bytes.clone(), index.clone(), Host::Float(uniform.clone())];
            // The bits are held against the CPU's in tests/augment.rs.
            check(&launch, &tensors, 1e-7);
        }
    }
}

fn random(distribution: Distribution, rows: usize, row: usize) -> (adamant::launch::Launch, [Host; 3]) {
    let purpose = Purpose::TEST.stream(3);
    let launch = plain(Kernel::Random { distribution, purpose, rows, row }, 3, &[rows, row], DType::F32);
    let example = (0..rows as u32).map(|r| r.wrapping_mul(0x8765_4321)).collect();
    let tensors = [Host::U32(vec![0xdead_beef, 17]), Host::U32(vec![5, 0xffff_ffff]), Host::U32(example)];
    (launch, tensors)
}

#[test]
fn uniform_numbers_are_the_same_bits_everywhere() {
    for (rows, row) in [(1, 1), (3, 5), (64, 784), (7, 1023)] {
        let (launch, tensors) = random(Distribution::Uniform, rows, row);
        check(&launch, &tensors, 1e-6);
        let Host::U32(examples) = &tensors[2] else { panic!() };
        let (key, purpose, counter) = ([0xdead_beef, 17], Purpose::TEST.stream(3), [5, 0xffff_ffff]);
        let uniform = |example, element| philox::uniform(key, purpose, counter, example, element) as f32;
        let of_row = |&example: &u32| (0..row as u32).map(move |element| uniform(example, element));
        let want = Host::Float(examples.iter().flat_map(of_row).collect());
        for way in ways() {
            let got = run(way, &launch, &tensors, &Host::Float(vec![0.0; rows * row]));
            assert!(got == want, "{rows} x {row} on {}", way.name);
        }
    }
}

#[test]
fn normal_numbers_are_those_of_the_cpu() {
    for (rows, row) in [(1, 1), (3, 5), (64, 784)] {
        let (launch, tensors) = random(Distribution::Normal, rows, row);
        check(&launch, &tensors, 2e-6);
    }
}

#[test]
fn the_same_launch_gives_the_same_bits_twice() {
    let kernel = Kernel::Reduce {
        kind: Reduction::Sum,
        outer: 1,
        extent: 200_003,
        inner: 3,
        before: vec![Stage::Unary(Unary::Exp)],
    };
    let launch = plain(kernel, 1, &[3], DType::F32);
    let tensors = [Numbers::new(18).floats(600_009)];
    for way in ways() {
        let before = Host::Float(vec![0.0; 3]);
        assert_eq!(run(way, &launch, &tensors, &before), run(way, &launch, &tensors, &before));
    }
}

#[test]
fn masks_and_gates_by_them() {
    let mut numbers = Numbers::new(21);
    for len in [1usize, 5, 31, 32, 33, 64, 96, 200, 1000, 4100] {
        let words = len.div_ceil(32);
        let mut mask = plain(Kernel::Mask { len }, 1, &[words], DType::U32);
        let x = numbers.floats(len);
        let before = Host::U32(vec![7; words]);
        let want = reference(&mask, std::slice::from_ref(&x), &before);
        for way in ways() {
            let got = run(way, &mask, std::slice::from_ref(&x), &before);
            assert!(got == Host::U32(numbers_of(&want)), "{len} on {}", way.name);
        }
        // The same words as a gate's second argument, behind an elementwise launch and a product.
        let stretch = Stretch { div: 32, modulo: words };
        let gate = |tensor| Stage::Binary {
            op: Binary::Gate { slope: 0.5 },
            swapped: false,
            operand: Operand::Bits { place: Place::Tensor(tensor), stretch },
        };
        mask = plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len], DType::F32);
        mask.stages = vec![gate(1)];
        let bits = Host::U32(numbers_of(&want));
        check(&mask, &[x, bits.clone()], 1e-6);
        let mut product =
            plain(Kernel::MatMul { m: 1, n: len, k: 3, ta: false, tb: false }, 2, &[1, len], DType::F32);
        product.stages = vec![gate(2)];
        check(&product, &[numbers.floats(3), numbers.floats(3 * len), bits], 1e-5);
    }
}

/// A tensor of integers.
fn numbers_of(data: &adamant::cpu::Data<f64>) -> Vec<u32> {
    match data {
        adamant::cpu::Data::U32(words) => words.clone(),
        _ => panic!("not integers"),
    }
}
