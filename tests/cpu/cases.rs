//! Launches to test: every kernel over awkward shapes, and larger ones that are cut into several blocks.

use adamant::cpu::Data;
use adamant::launch::{ConvShape, Kernel, Launch, Operand, Place, PoolShape, Stage};
use adamant::tape::{Augment, Binary, Conv2d, Distribution, Pool, Purpose, Reduction, Unary};
use adamant::{DType, Shape, Stretch, philox};

/// A launch with the tensors it reads, `Place::Tensor(i)`, and what its output holds before.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub launch: Launch,
    pub tensors: Vec<Data<f64>>,
    pub previous: Vec<f64>,
}

/// Numbers in [-2, 2) that f32 holds exactly.
fn floats(stream: u32, len: usize) -> Vec<f64> {
    (0..len as u32).map(|i| philox::uniform([1, stream], Purpose::TEST, [0, 0], 0, i) * 4.0 - 2.0).collect()
}

fn data(stream: u32, len: usize) -> Data<f64> {
    Data::Float(floats(stream, len))
}

/// Integers below `bound`.
fn integers(stream: u32, len: usize, bound: usize) -> Data<f64> {
    let word = |i| philox::word([2, stream], Purpose::TEST, [0, 0], 0, i);
    Data::U32((0..len as u32).map(|i| word(i) % bound as u32).collect())
}

fn case(kernel: Kernel, shape: &[usize], tensors: Vec<Data<f64>>) -> Case {
    let integer = matches!(
        kernel,
        Kernel::ArgMax { .. }
            | Kernel::Mask { .. }
            | Kernel::MaxPoolIndex(_)
            | Kernel::GatherRows { from: DType::U32, .. }
    );
    let launch = Launch {
        kernel,
        inputs: (0..tensors.len()).map(Place::Tensor).collect(),
        stages: vec![],
        output: Place::Slot(0),
        also: vec![],
        shape: Shape::new(shape),
        dtype: if integer { DType::U32 } else { DType::F32 },
        halves: vec![],
    };
    Case { name: format!("{:?} to {shape:?}", launch.kernel), launch, tensors, previous: vec![] }
}

/// The same case with stages: bias per last axis, a residual, relu; and a step in place after them.
fn with_stages(mut case: Case) -> Case {
    let len = case.launch.shape.len();
    let last = case.launch.shape.dims().last().copied().unwrap_or(1);
    let first = case.launch.shape.dims().first().copied().unwrap_or(1);
    let tensor = case.tensors.len();
    let operand = |i: usize, div: usize, modulo: usize| Operand::Buffer {
        place: Place::Tensor(tensor + i),
        stretch: Stretch { div, modulo },
    };
    let binary = |op, swapped, operand| Stage::Binary { op, swapped, operand };
    case.tensors.extend([data(91, last), data(92, len), data(93, first), data(94, 1)]);
    case.previous = floats(95, len);
    case.launch.stages = vec![
        binary(Binary::Add, false, operand(0, 1, last)),
        binary(Binary::Sub, true, operand(1, 1, len)),
        Stage::Unary(Unary::LeakyRelu { slope: 0.25 }),
        binary(Binary::Mul, false, operand(2, (len / first).max(1), first)),
        binary(Binary::AddScaled { scale: 0.5 }, false, operand(3, 1, 1)),
        binary(Binary::AddScaled { scale: -0.125 }, true, Operand::Previous),
        Stage::Unary(Unary::Clamp { lo: -1.0, hi: 1.5 }),
    ];
    case.name.push_str(" with stages");
    case
}

/// A convolution case of each kind: forward, input gradient, weight gradient.
fn conv(
    [n, h, w, c]: [usize; 4],
    [r, s, k]: [usize; 3],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
) -> Vec<Case> {
    let attributes = Conv2d { stride, padding, dilation, groups };
    let [p, q] = attributes.output([h, w], [r, s]).expect("the case fits");
    let shape = ConvShape { n, h, w, c, r, s, p, q, k, stride, padding, dilation, groups };
    let cg = c / groups;
    let (x, f, y) = (n * h * w * c, r * s * cg * k, n * p * q * k);
    vec![
        case(Kernel::Conv2d(shape), &[n, p, q, k], vec![data(1, x), data(2, f)]),
        case(Kernel::Conv2dInputGrad(shape), &[n, h, w, c], vec![data(3, y), data(2, f)]),
        case(Kernel::Conv2dWeightGrad(shape), &[r, s, cg, k], vec![data(1, x), data(3, y)]),
    ]
}

fn pool([n, h, w, c]: [usize; 4], kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Vec<Case> {
    let window = Pool { kernel, stride, padding };
    let [p, q] = window.output([h, w]).expect("the case fits");
    let shape = PoolShape { n, h, w, c, p, q, window };
    let (x, y) = (n * h * w * c, n * p * q * c);
    // Repeated values, so that ties are met; positions from the maxima, so that they lie in the image.
    let repeated = Data::Float(floats(1, x).iter().map(|x| x.round()).collect());
    let index = case(Kernel::MaxPoolIndex(shape), &[shape.position_words()], vec![repeated.clone()]);
    let positions: Vec<u32> = crate::reference::run(&index).iter().map(|&i| i as u32).collect();
    vec![
        index,
        case(Kernel::PoolGather(shape), &[n, p, q, c], vec![repeated, Data::U32(positions.clone())]),
        case(Kernel::PoolScatter(shape), &[n, h, w, c], vec![data(2, y), Data::U32(positions)]),
        case(Kernel::AvgPool(shape), &[n, p, q, c], vec![data(1, x)]),
        case(Kernel::AvgPoolGrad(shape), &[n, h, w, c], vec![data(2, y)]),
    ]
}

/// The mask of an activation, and a gate by a mask.
fn mask(len: usize) -> Vec<Case> {
    let words = len.div_ceil(32);
    let start = Stretch { div: 1, modulo: len };
    let mut gate =
        case(Kernel::Map { start }, &[len], vec![data(1, len), integers(2, words, u32::MAX as usize)]);
    gate.launch.inputs.truncate(1);
    let operand = Operand::Bits { place: Place::Tensor(1), stretch: Stretch { div: 32, modulo: words } };
    gate.launch.stages = vec![
        Stage::Binary { op: Binary::Gate { slope: 0.25 }, swapped: false, operand },
        Stage::Binary { op: Binary::Sub, swapped: true, operand },
    ];
    gate.name = format!("gate of {len} by a mask");
    vec![case(Kernel::Mask { len }, &[words], vec![data(1, len)]), gate]
}

fn matmul(m: usize, n: usize, k: usize) -> Vec<Case> {
    let one =
        |(ta, tb)| case(Kernel::MatMul { m, n, k, ta, tb }, &[m, n], vec![data(1, m * k), data(2, k * n)]);
    [(false, false), (true, false), (false, true), (true, true)].map(one).into()
}

fn reduce(outer: usize, extent: usize, inner: usize, before: &[Unary]) -> Vec<Case> {
    let one = |kind| {
        let before = before.iter().copied().map(Stage::Unary).collect();
        let kernel = Kernel::Reduce { kind, outer, extent, inner, before };
        case(kernel, &[outer, 1, inner], vec![data(1, outer * extent * inner)])
    };
    [Reduction::Sum, Reduction::Max].map(one).into()
}

/// A fold of `((x - column) * y)^2`, as of a variance or of a product.
fn reduce_products(outer: usize, extent: usize, inner: usize) -> Vec<Case> {
    let len = outer * extent * inner;
    let operand = |tensor: usize, modulo: usize| Operand::Buffer {
        place: Place::Tensor(tensor),
        stretch: Stretch { div: 1, modulo },
    };
    let before = [
        Stage::Binary { op: Binary::Sub, swapped: false, operand: operand(1, inner) },
        Stage::Binary { op: Binary::Mul, swapped: true, operand: operand(2, len) },
        Stage::Unary(Unary::Square),
    ];
    let one = |kind| {
        let kernel = Kernel::Reduce { kind, outer, extent, inner, before: before.to_vec() };
        let tensors = vec![data(1, len), data(2, inner), data(3, len)];
        let mut case = case(kernel, &[outer, 1, inner], tensors);
        case.launch.inputs.truncate(1);
        case
    };
    [Reduction::Sum, Reduction::Max].map(one).into()
}

fn rows(rows: usize, columns: usize) -> Vec<Case> {
    let logits = || data(1, rows * columns);
    // Ties for the first largest, and a label past the last class.
    let rounded = || Data::Float(floats(1, rows * columns).iter().map(|x| x.round()).collect());
    let labels = || integers(2, rows, columns + 1);
    vec![
        case(Kernel::Softmax { rows, columns, log: false }, &[rows, columns], vec![logits()]),
        case(Kernel::Softmax { rows, columns, log: true }, &[rows, columns], vec![logits()]),
        case(Kernel::CrossEntropy { rows, columns }, &[rows], vec![logits(), labels()]),
        case(Kernel::CrossEntropyGrad { rows, columns }, &[rows, columns], vec![logits(), labels()]),
        case(Kernel::CrossEntropyDirection { rows, columns }, &[rows, columns], vec![logits(), labels()]),
        case(Kernel::Correct { rows, columns }, &[rows], vec![rounded(), labels()]),
        case(Kernel::ArgMax { rows, columns }, &[rows], vec![rounded()]),
        case(Kernel::OneHot { rows, columns }, &[rows, columns], vec![labels()]),
    ]
}

fn gather(rows: usize, row: usize, table: usize) -> Vec<Case> {
    let index = || integers(1, rows, table + 2);
    let bytes = || match integers(2, table * row, 256) {
        Data::U32(x) => Data::U8(x.iter().map(|&x| x as u8).collect()),
        _ => unreachable!(),
    };
    let kernel = |from| Kernel::GatherRows { rows, row, table, from };
    vec![
        case(kernel(DType::F32), &[rows, row], vec![data(3, table * row), index()]),
        case(kernel(DType::U8), &[rows, row], vec![bytes(), index()]),
        case(kernel(DType::U32), &[rows, row], vec![integers(4, table * row, 1000), index()]),
    ]
}

fn augment(rows: usize, [h, w, c]: [usize; 3], table: usize) -> Vec<Case> {
    let bytes = || match integers(1, table * h * w * c, 256) {
        Data::U32(x) => Data::U8(x.iter().map(|&x| x as u8).collect()),
        _ => unreachable!(),
    };
    let draws = (0..(Augment::DRAWS * rows) as u32)
        .map(|i| philox::uniform([3, 0], Purpose::TEST, [0, 0], 0, i))
        .collect();
    let uniform = Data::Float(draws);
    let most = h.min(w) - 1;
    let way = |padding, reflect, flip| Augment { padding, reflect, flip, ..Augment::default() };
    let ways = [
        way(0, false, true),
        way(most, false, false),
        way(most, true, true),
        way(most.min(4), false, true),
        Augment { cutout: most.max(1), brightness: Augment::ONE / 5, ..way(0, false, true) },
        Augment { cutout: most / 2, contrast: Augment::ONE, ..way(most.min(2), false, true) },
        Augment { brightness: Augment::ONE, contrast: Augment::ONE / 3, ..Augment::default() },
    ];
    let one = |augment| {
        let tensors = vec![bytes(), integers(2, rows, table + 2), uniform.clone()];
        case(Kernel::Augment { rows, table, image: [h, w, c], augment }, &[rows, h, w, c], tensors)
    };
    ways.map(one).into()
}

fn random(rows: usize, row: usize) -> Vec<Case> {
    let tensors = || vec![integers(1, 2, 1 << 30), integers(2, 2, 100), integers(3, rows, 10_000)];
    let one = |distribution| {
        case(Kernel::Random { distribution, purpose: Purpose::DROPOUT, rows, row }, &[rows, row], tensors())
    };
    [Distribution::Uniform, Distribution::Normal].map(one).into()
}

/// A view of a tensor of `len` elements.
fn copy(len: usize, shape: &[usize], offset: isize, strides: &[usize], lo: &[usize], hi: &[usize]) -> Case {
    let kernel = Kernel::Copy { offset, strides: strides.to_vec(), lo: lo.to_vec(), hi: hi.to_vec() };
    case(kernel, shape, vec![data(1, len)])
}

fn concat(outer: usize, columns: &[usize]) -> Case {
    let tensors = columns.iter().enumerate().map(|(i, c)| data(i as u32, outer * c)).collect();
    case(Kernel::Concat { outer, columns: columns.to_vec() }, &[outer, columns.iter().sum()], tensors)
}

fn map(div: usize, modulo: usize, len: usize) -> Case {
    case(Kernel::Map { start: Stretch { div, modulo } }, &[len], vec![data(1, modulo)])
}

/// Every function of one and of two arguments, as the only stage of a map.
fn functions() -> Vec<Case> {
    let len = 67;
    let start = Stretch { div: 1, modulo: len };
    let unaries = [
        Unary::Affine { scale: -1.5, shift: 0.25 },
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Square,
        Unary::Abs,
        Unary::Sign,
        Unary::Relu,
        Unary::LeakyRelu { slope: 0.125 },
        Unary::Silu,
        Unary::Gelu,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Erf,
        Unary::Clamp { lo: -0.5, hi: 1.0 },
    ];
    let binaries = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::AddScaled { scale: 0.75 },
        Binary::Gate { slope: 0.0 },
        Binary::Gate { slope: 0.25 },
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::Equal,
    ];
    let mut cases = Vec::new();
    for unary in unaries {
        let mut case = map(1, len, len);
        let positive = matches!(unary, Unary::Log | Unary::Sqrt);
        case.tensors = vec![Data::Float(
            floats(1, len).iter().map(|x| if positive { x.abs() + 0.125 } else { *x }).collect(),
        )];
        case.launch.stages = vec![Stage::Unary(unary)];
        case.name = format!("{unary:?}");
        cases.push(case);
    }
    for op in binaries {
        for swapped in [false, true] {
            let mut case = case(Kernel::Map { start }, &[len], vec![]);
            // Halves away from zero, so that there are ties and no division by nothing.
            let steps = |stream| {
                let step = |x: &f64| (x * 2.0).round() / 2.0;
                Data::Float(
                    floats(stream, len).iter().map(step).map(|x| if x == 0.0 { 0.5 } else { x }).collect(),
                )
            };
            case.tensors = vec![steps(1), steps(2)];
            case.launch.inputs = vec![Place::Tensor(0)];
            let operand = Operand::Buffer { place: Place::Tensor(1), stretch: start };
            case.launch.stages = vec![Stage::Binary { op, swapped, operand }];
            case.name = format!("{op:?}, swapped: {swapped}");
            cases.push(case);
        }
    }
    cases
}

/// Each case, and again with stages where the kernel takes them.
fn twice(cases: Vec<Case>) -> Vec<Case> {
    cases
        .into_iter()
        .flat_map(|case| {
            let stages = case.launch.kernel.takes_stages() && case.launch.stages.is_empty();
            let again = Case {
                name: case.name.clone(),
                launch: case.launch.clone(),
                tensors: case.tensors.clone(),
                previous: vec![],
            };
            std::iter::once(case).chain(stages.then(|| with_stages(again)))
        })
        .collect()
}

/// Small, awkward shapes.
pub fn cases() -> Vec<Case> {
    let one = [1, 1];
    let none = [0, 0];
    let mut cases = functions();
    cases.extend([map(1, 1, 5), map(3, 5, 15), map(1, 7, 21), map(7, 3, 21), map(1, 2011, 4022)]);
    cases.push(case(Kernel::Fill { value: 0.5 }, &[3, 5], vec![]));
    cases.extend([1, 15].map(|len| with_stages(case(Kernel::Update, &[len], vec![]))));
    for (outer, extent, inner) in [(1, 1, 1), (3, 7, 1), (1, 37, 1), (5, 3, 7), (1, 13, 11), (2, 1, 3)] {
        cases.extend(reduce(outer, extent, inner, &[]));
        cases.extend(reduce(
            outer,
            extent,
            inner,
            &[Unary::Square, Unary::Affine { scale: 0.5, shift: 1.0 }],
        ));
    }
    cases.extend([
        // Transpose, slice, pad, broadcast, scalar.
        copy(15, &[3, 5], 0, &[1, 3], &[0, 0], &[3, 5]),
        copy(42, &[3, 2, 7], 0, &[1, 21, 3], &[0, 0, 0], &[3, 2, 7]),
        copy(35, &[3, 2], 8, &[7, 1], &[0, 0], &[3, 2]),
        copy(6, &[5, 6], -7, &[3, 1], &[2, 1], &[4, 4]),
        copy(3, &[2, 3, 4], 0, &[0, 1, 0], &[0, 0, 0], &[2, 3, 4]),
        copy(5, &[], 2, &[], &[], &[]),
        concat(1, &[1]),
        concat(3, &[2, 5, 1]),
    ]);
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 1, 13), (1, 19, 4), (33, 31, 2), (2, 16, 37)] {
        cases.extend(matmul(m, n, k));
    }
    cases.extend(conv([1, 1, 1, 1], [1, 1, 1], one, none, one, 1));
    cases.extend(conv([2, 5, 7, 3], [3, 3, 5], one, [1, 1], one, 1));
    cases.extend(conv([1, 8, 9, 1], [4, 4, 16], [2, 2], [1, 1], one, 1));
    cases.extend(conv([3, 7, 7, 2], [3, 2, 17], [2, 3], [2, 1], one, 1));
    cases.extend(conv([1, 11, 10, 4], [3, 3, 6], one, [2, 2], [2, 3], 2));
    cases.extend(conv([2, 9, 9, 6], [3, 3, 6], [2, 2], [1, 1], one, 6));
    cases.extend(conv([2, 5, 5, 3], [3, 3, 6], one, [1, 1], one, 3));
    cases.extend(conv([1, 13, 13, 2], [3, 3, 2], [3, 3], [0, 2], [2, 2], 2));
    cases.extend(conv([2, 6, 5, 19], [1, 1, 33], one, none, one, 1));
    cases.extend(conv([2, 6, 5, 8], [1, 1, 4], [2, 2], none, one, 1));
    // Gradients to few channels, with constant and odd runs.
    cases.extend(conv([2, 9, 8, 3], [3, 3, 20], one, [1, 1], [2, 2], 1));
    cases.extend(conv([2, 9, 8, 3], [3, 3, 20], [2, 1], [1, 0], one, 1));
    cases.extend(conv([1, 12, 13, 1], [5, 5, 8], one, [2, 2], one, 1));
    cases.extend(conv([2, 11, 9, 2], [3, 4, 9], [3, 2], [1, 1], one, 1));
    // A stride past the filter: some inputs are never read.
    cases.extend(conv([2, 7, 8, 3], [2, 2, 4], [3, 4], none, one, 1));
    // A filter as large as the image, and padding past the filter.
    cases.extend(conv([2, 4, 3, 5], [4, 3, 7], one, none, one, 1));
    cases.extend(conv([1, 3, 3, 2], [2, 2, 3], one, [3, 4], one, 1));
    for shape in [[1, 1, 1, 1], [2, 5, 7, 3], [1, 8, 8, 67]] {
        cases.extend(pool(shape, [1, 1], one, none));
    }
    cases.extend(pool([2, 5, 7, 3], [2, 3], [2, 2], [1, 1]));
    cases.extend(pool([1, 9, 9, 5], [3, 3], [2, 2], [1, 1]));
    cases.extend(pool([3, 8, 8, 16], [2, 2], [2, 2], none));
    cases.extend(pool([2, 7, 7, 4], [7, 7], one, none));
    for len in [1, 31, 32, 33, 64, 200] {
        cases.extend(mask(len));
    }
    for (outer, extent, inner) in [(1, 1, 1), (3, 7, 5), (2, 33, 1), (1, 12, 4)] {
        cases.extend(reduce_products(outer, extent, inner));
    }
    for (r, c) in [(1, 1), (7, 10), (3, 1), (2, 37)] {
        cases.extend(rows(r, c));
    }
    cases.extend(gather(1, 1, 1));
    cases.extend(gather(5, 7, 3));
    cases.extend(augment(1, [1, 1, 1], 1));
    cases.extend(augment(9, [5, 7, 3], 4));
    cases.extend(random(1, 1));
    cases.extend(random(3, 11));
    twice(cases)
}

/// Shapes that several blocks and threads share.
pub fn large_cases() -> Vec<Case> {
    let one = [1, 1];
    let mut cases = vec![
        map(1, 100_003, 100_003),
        map(1, 13, 50_011 * 13),
        case(Kernel::Fill { value: -3.0 }, &[40_009], vec![]),
        copy(60_000, &[200, 300], 0, &[1, 200], &[0, 0], &[200, 300]),
        concat(1009, &[13, 40]),
    ];
    cases.push(with_stages(case(Kernel::Update, &[50_021], vec![])));
    cases.extend(reduce(1, 200_003, 1, &[]));
    cases.extend(reduce(1, 9973, 16, &[Unary::Square]));
    cases.extend(mask(70_001));
    cases.extend(reduce_products(1, 9973, 16));
    cases.extend(reduce_products(2, 11, 3001));
    cases.extend(reduce_products(300, 784, 1));
    cases.extend(reduce(67, 1021, 3, &[]));
    cases.extend(reduce(3, 20_011, 2, &[Unary::Abs]));
    cases.extend(reduce(2, 11, 3001, &[]));
    cases.extend(reduce(300, 1, 784, &[Unary::Square]));
    cases.extend(reduce(300, 784, 1, &[Unary::Square]));
    cases.extend(matmul(130, 101, 257));
    cases.extend(matmul(64, 100, 1568));
    cases.extend(conv([64, 28, 28, 1], [4, 4, 16], [2, 2], one, one, 1));
    cases.extend(conv([13, 14, 14, 16], [4, 4, 32], [2, 2], one, one, 1));
    cases.extend(conv([3, 32, 32, 20], [3, 3, 40], one, one, one, 1));
    cases.extend(conv([1, 61, 67, 3], [3, 3, 33], one, one, one, 1));
    cases.extend(conv([5, 16, 16, 48], [3, 3, 48], one, one, one, 48));
    cases.extend(conv([5, 16, 16, 32], [3, 3, 32], [2, 2], one, one, 4));
    cases.extend(conv([9, 16, 16, 32], [1, 1, 48], one, [0, 0], one, 1));
    // By Winograd's tiles of 4 in bands and in examples, all together, past the edges; of 2.
    cases.extend(conv([2, 41, 38, 32], [3, 3, 16], one, one, one, 1));
    cases.extend(conv([9, 15, 14, 16], [3, 3, 48], one, [0, 2], one, 1));
    cases.extend(conv([13, 8, 7, 80], [3, 3, 32], one, [2, 1], one, 1));
    cases.extend(conv([3, 6, 7, 144], [3, 3, 80], one, one, one, 1));
    cases.extend(conv([15, 4, 4, 16], [3, 3, 16], one, one, one, 1));
    cases.extend(conv([70, 2, 2, 16], [3, 3, 48], one, one, one, 1));
    cases.extend(conv([12, 2, 2, 48], [3, 3, 16], one, one, one, 1));
    // Winograd's tiles at stride 2: of 4 and of 5, several examples a task, bands of one, edges of every kind.
    cases.extend(conv([27, 13, 14, 16], [3, 3, 48], [2, 2], one, one, 1));
    cases.extend(conv([17, 28, 27, 32], [3, 3, 16], [2, 2], one, one, 1));
    cases.extend(conv([2, 66, 61, 16], [3, 3, 48], [2, 2], one, one, 1));
    cases.extend(conv([101, 7, 8, 48], [3, 3, 32], [2, 2], one, one, 1));
    // Gradients to few channels, six rows at a time.
    cases.extend(conv([3, 13, 18, 3], [3, 3, 64], one, one, one, 1));
    cases.extend(conv([2, 8, 9, 4], [3, 3, 16], one, [0, 2], one, 1));
    cases.extend(conv([5, 11, 7, 2], [3, 3, 32], one, [2, 0], one, 1));
    cases.extend(conv([3, 28, 28, 1], [5, 5, 32], one, [2, 2], one, 1));
    cases.extend(conv([2, 9, 21, 3], [5, 5, 16], one, [0, 3], one, 1));
    cases.extend(conv([9, 17, 33, 1], [3, 3, 32], one, one, one, 1));
    cases.extend(pool([17, 16, 16, 40], [2, 2], [2, 2], [0, 0]));
    cases.extend(rows(4001, 10));
    cases.extend(gather(300, 97, 50));
    cases.extend(augment(64, [32, 32, 3], 10));
    cases.extend(random(64, 784));
    twice(cases)
}
