//! Every op: all entries of all first and second derivatives, and that no op is missing.

use crate::{Function, assert_close, float, record, scalars, store};
use adamant::nn::{Mode, Net};
use adamant::tape::{Binary, Conv2d, Distribution, Draw, Op, Pool, Reduction, Unary};
use adamant::{DType, Host, Plan, Shape, Tape, Var};

/// Half the distance of a central difference: its error is some 1e-10 by the third derivative, and as much by rounding.
const STEP: f64 = 1e-5;
/// Largest error of an entry, relative to the largest entry of the gradient.
const FIRST: f64 = 1e-7;
const SECOND: f64 = 1e-6;

fn one<'t>(tape: &'t Tape, shape: &[usize], f: impl Fn(Var<'t>) -> Var<'t>) -> (Vec<Var<'t>>, Var<'t>) {
    let x = float(tape, "x", Shape::new(shape));
    (vec![x], f(x))
}

fn positive<'t>(tape: &'t Tape, f: impl Fn(Var<'t>) -> Var<'t>) -> (Vec<Var<'t>>, Var<'t>) {
    let x = float(tape, "positive", [2, 5]);
    (vec![x], f(x))
}

fn two<'t>(
    tape: &'t Tape,
    shapes: [&[usize]; 2],
    f: impl Fn(Var<'t>, Var<'t>) -> Var<'t>,
) -> (Vec<Var<'t>>, Var<'t>) {
    let [x, y] = [float(tape, "x", Shape::new(shapes[0])), float(tape, "y", Shape::new(shapes[1]))];
    (vec![x, y], f(x, y))
}

fn labels(tape: &Tape, batch: usize) -> Var<'_> {
    tape.source("labels", [batch], DType::U32)
}

/// Batch norm of `[B,H,W,C]` by its input, weight and bias (and by the running statistics where it reads them).
fn batch_norm(tape: &Tape, mode: Mode) -> (Vec<Var<'_>>, Var<'_>) {
    let x = float(tape, "x", [3, 2, 2, 2]);
    let net = Net::new(tape, mode);
    let y = net.batch_norm("bn", x);
    let mut by = vec![x];
    by.extend(net.weights().into_iter().map(|(_, var)| var));
    if mode == Mode::Eval {
        by.extend(["running_mean", "running_var"].map(|name| float(tape, &format!("bn.{name}"), [2])));
    }
    (by, y)
}

/// A small smooth network: convolution, batch norm, silu, pooling, linear, cross-entropy; by everything.
fn network(tape: &Tape) -> (Vec<Var<'_>>, Var<'_>) {
    let x = float(tape, "x", [2, 5, 5, 2]);
    let net = Net::new(tape, Mode::Train);
    let conv = Conv2d { stride: [2, 1], padding: [1, 1], ..Conv2d::default() };
    let y = net.batch_norm("bn", net.conv("conv", x, 3, [3, 3], conv, true)).silu();
    let y = net.conv("conv2", y.tanh(), 2, [2, 2], Conv2d::default(), false).avg_pool(Pool::square(2, 1, 0));
    let loss = net.linear("linear", y.flatten(), 3).cross_entropy(labels(tape, 2));
    let mut by = vec![x];
    by.extend(net.weights().into_iter().map(|(_, var)| var));
    (by, loss.mean_all())
}

const IMAGE: [usize; 4] = [2, 5, 4, 4];
const STRIDED: Conv2d = Conv2d { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 1 };
const GROUPED: Conv2d = Conv2d { stride: [1, 2], padding: [1, 0], dilation: [1, 1], groups: 2 };
const DEPTHWISE: Conv2d = Conv2d { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 4 };
const OVERLAP: Pool = Pool { kernel: [3, 2], stride: [2, 1], padding: [1, 1] };

/// What is checked, one a row. Values lie away from kinks.
const CASES: &[(&str, Function)] = &[
    ("affine", |t| one(t, &[2, 5], |x| x.affine(-1.5, 0.5))),
    ("exp", |t| one(t, &[2, 5], |x| x.exp())),
    ("log", |t| positive(t, |x| x.log())),
    ("sqrt", |t| positive(t, |x| x.sqrt())),
    ("square", |t| one(t, &[2, 5], |x| x.square())),
    ("abs", |t| one(t, &[2, 5], |x| x.abs())),
    ("relu", |t| one(t, &[2, 5], |x| x.relu())),
    ("relu of a curve", |t| one(t, &[2, 5], |x| x.tanh().relu().exp())),
    ("leaky_relu", |t| one(t, &[2, 5], |x| x.leaky_relu(0.1))),
    ("leaky_relu, slope 0", |t| one(t, &[2, 5], |x| x.leaky_relu(0.0).exp())),
    ("leaky_relu, slope -0.5", |t| one(t, &[2, 5], |x| x.leaky_relu(-0.5).square())),
    ("silu", |t| one(t, &[2, 5], |x| x.silu())),
    ("gelu", |t| one(t, &[2, 5], |x| x.gelu())),
    ("tanh", |t| one(t, &[2, 5], |x| x.tanh())),
    ("sigmoid", |t| one(t, &[2, 5], |x| x.sigmoid())),
    ("erf", |t| one(t, &[2, 5], |x| x.erf())),
    ("clamp", |t| one(t, &[4, 5], |x| x.clamp(-0.5, 0.4).exp())),
    ("add", |t| two(t, [&[2, 5], &[2, 5]], |x, y| x + y)),
    ("add, a row", |t| two(t, [&[3, 2, 5], &[5]], |x, y| (x + y).exp())),
    ("sub, a column", |t| two(t, [&[2, 1], &[2, 5]], |x, y| (x - y).tanh())),
    ("sub of a scalar", |t| two(t, [&[2, 5], &[]], |x, y| (x - y).square())),
    ("mul", |t| two(t, [&[2, 5], &[2, 5]], |x, y| x * y)),
    ("mul, both stretched", |t| two(t, [&[2, 1, 3], &[4, 1]], |x, y| x * y)),
    ("mul, a middle axis", |t| two(t, [&[2, 3, 4], &[3, 1]], |x, y| x * y * x)),
    ("div", |t| two(t, [&[2, 5], &[2, 5]], |x, y| x / y.square().affine(1.0, 0.5))),
    ("div by a row", |t| two(t, [&[2, 5], &[5]], |x, y| x / y.exp())),
    ("max", |t| two(t, [&[4, 5], &[4, 5]], |x, y| x.exp().max(y.exp()))),
    ("min", |t| two(t, [&[4, 5], &[4, 5]], |x, y| x.square().min(y.square()))),
    ("add_scaled", |t| two(t, [&[2, 5], &[2, 5]], |x, y| x.add_scaled(y, -0.3).exp())),
    ("gate", |t| one(t, &[4, 5], |x| x.exp().gate(x, 0.2))),
    ("select", |t| two(t, [&[4, 5], &[4, 5]], |x, y| x.greater(y).select(x.exp(), y * y))),
    ("x twice", |t| one(t, &[2, 5], |x| x * x + x)),
    ("reshape", |t| one(t, &[2, 6], |x| x.exp().reshape([3, 4]).square())),
    ("transpose", |t| one(t, &[2, 3, 4], |x| x.transpose(&[2, 0, 1]).exp())),
    ("broadcast", |t| one(t, &[3, 1], |x| x.broadcast_to([2, 3, 4]).exp())),
    ("slice", |t| one(t, &[3, 5], |x| x.slice(1, 1, 3).exp())),
    ("pad", |t| one(t, &[2, 3], |x| x.pad(&[1, 0], [4, 5]).exp())),
    ("concat", |t| two(t, [&[2, 3], &[2, 1]], |x, y| x.concat(&[y, x], 1).exp())),
    ("sum", |t| one(t, &[2, 3, 4], |x| x.exp().sum(&[0, 2]).square())),
    ("mean", |t| one(t, &[2, 3, 4], |x| x.exp().mean(&[1]).square())),
    ("amax", |t| one(t, &[3, 4, 2], |x| x.exp().amax(&[0, 2]))),
    ("amax of all", |t| one(t, &[3, 4], |x| x.square().amax(&[0, 1]))),
    ("norm_l1", |t| one(t, &[3, 4], |x| x.square().norm_l1())),
    ("norm_l2", |t| one(t, &[3, 2, 2], |x| x.norm_l2())),
    ("norm_linf", |t| one(t, &[3, 4], |x| x.norm_linf().exp())),
    ("global_avg_pool", |t| one(t, &[2, 3, 2, 2], |x| x.exp().global_avg_pool())),
    ("matmul", |t| two(t, [&[2, 3], &[3, 4]], |x, y| x.matmul(y))),
    ("matmul, left transposed", |t| two(t, [&[3, 2], &[3, 4]], |x, y| x.matmul_t(true, y, false))),
    ("matmul, right transposed", |t| two(t, [&[2, 3], &[4, 3]], |x, y| x.matmul_t(false, y, true))),
    ("matmul, both transposed", |t| two(t, [&[3, 2], &[4, 3]], |x, y| x.matmul_t(true, y, true))),
    ("matmul with itself", |t| one(t, &[3, 2], |x| x.matmul_t(false, x, true).exp())),
    ("conv2d", |t| two(t, [&IMAGE, &[3, 3, 4, 3]], |x, w| x.conv2d(w, Conv2d::default()))),
    ("conv2d, strided, padded, dilated", |t| two(t, [&IMAGE, &[3, 2, 4, 3]], |x, w| x.conv2d(w, STRIDED))),
    ("conv2d, groups", |t| two(t, [&IMAGE, &[3, 2, 2, 6]], |x, w| x.conv2d(w, GROUPED))),
    ("conv2d, depthwise", |t| two(t, [&IMAGE, &[3, 3, 1, 4]], |x, w| x.conv2d(w, DEPTHWISE))),
    ("conv2d, depthwise twice as wide", |t| {
        two(t, [&IMAGE, &[3, 3, 1, 8]], |x, w| x.conv2d(w, DEPTHWISE).tanh())
    }),
    ("conv2d, 1x1", |t| two(t, [&IMAGE, &[1, 1, 4, 2]], |x, w| x.conv2d(w, Conv2d::default()).exp())),
    ("conv2d.input_grad", |t| {
        two(t, [&[2, 3, 6, 3], &[3, 2, 4, 3]], |dy, w| dy.conv2d_input_grad(w, Shape::new(&IMAGE), STRIDED))
    }),
    ("conv2d.weight_grad", |t| {
        two(t, [&IMAGE, &[2, 5, 2, 6]], |x, dy| x.conv2d_weight_grad(dy, Shape::new(&[3, 2, 2, 6]), GROUPED))
    }),
    ("max_pool", |t| one(t, &[2, 4, 4, 2], |x| x.exp().max_pool(Pool::square(2, 2, 0)))),
    ("max_pool, overlapping, padded", |t| one(t, &[2, 5, 4, 2], |x| x.exp().max_pool(OVERLAP))),
    ("avg_pool", |t| one(t, &[2, 4, 4, 2], |x| x.avg_pool(Pool::square(2, 2, 0)))),
    ("avg_pool, overlapping, padded", |t| one(t, &[2, 5, 4, 2], |x| x.exp().avg_pool(OVERLAP).square())),
    ("softmax", |t| one(t, &[2, 2, 4], |x| x.softmax())),
    ("log_softmax", |t| one(t, &[2, 2, 4], |x| x.log_softmax())),
    ("cross_entropy", |t| one(t, &[3, 4], |x| x.scale(2.0).cross_entropy(labels(t, 3)))),
    ("cross_entropy_soft", |t| two(t, [&[3, 4], &[3, 4]], |x, p| x.cross_entropy_soft(p.softmax()))),
    ("kl_divergence", |t| two(t, [&[3, 4], &[3, 4]], |q, p| q.kl_divergence(p))),
    ("softmax - one_hot", |t| one(t, &[3, 4], |x| x.softmax() - labels(t, 3).one_hot(4))),
    ("dropout", |t| {
        let [key, counter] = ["key", "counter"].map(|name| t.source(name, [2], DType::U32));
        let draw = Draw { key, counter, example: t.source("example", [4], DType::U32) };
        one(t, &[4, 5], |x| x.exp().dropout(0.4, draw, 0))
    }),
    ("batch norm, batch statistics", |t| batch_norm(t, Mode::Train)),
    ("batch norm, frozen", |t| batch_norm(t, Mode::TrainFrozen)),
    ("batch norm, running statistics", |t| batch_norm(t, Mode::Eval)),
    ("a network", network),
];

fn check(name: &str, function: Function) {
    let tape = Tape::new();
    let by = record(&tape, function(&tape), true);
    let store = store(&tape);
    Plan::compile(&tape, &store).unwrap_or_else(|error| panic!("{name}: {error}")).run().unwrap();
    // The scalars alone, run twice an entry.
    let tape = Tape::new();
    record(&tape, function(&tape), false);
    let plan = Plan::compile(&tape, &store).unwrap();
    for (i, source) in by.iter().enumerate() {
        let values = store.read_f64(source).unwrap();
        let mut differences = [vec![0.0; values.len()], vec![0.0; values.len()]];
        for j in 0..values.len() {
            for sign in [1.0, -1.0] {
                let mut moved = values.clone();
                moved[j] += sign * STEP;
                store.write_f64(source, &moved).unwrap();
                plan.run().unwrap();
                let values = scalars(&store);
                (0..2).for_each(|order| differences[order][j] += sign * values[order] / (2.0 * STEP));
            }
        }
        store.write(source, &Host::F64(values)).unwrap();
        // The probe takes part in the second derivatives alone: by it the first is the function itself.
        if i + 1 < by.len() {
            let first = store.read_f64(&format!("first by {i}")).unwrap();
            assert_close(&first, &differences[0], FIRST, &format!("{name}, by {source}"));
        }
        let second = store.read_f64(&format!("second by {i}")).unwrap();
        assert_close(&second, &differences[1], SECOND, &format!("{name}, second, by {source}"));
    }
}

#[test]
fn first_and_second_derivatives_of_every_op() {
    CASES.iter().for_each(|(name, function)| check(name, *function));
}

/// Ops with a gradient, numbered; `None` for those without. Whoever adds an op comes through here: give it the next
/// number, count it in [`OPS`], and add a row to [`CASES`].
fn number(op: &Op) -> Option<usize> {
    Some(match op {
        Op::Source { .. } | Op::Fill { .. } => return None,
        Op::ArgMax | Op::MaxPoolIndex(_) | Op::Correct | Op::OneHot | Op::GatherRows => return None,
        Op::Augment(_) => return None,
        Op::CrossEntropyDirection => return None,
        Op::Random { distribution: Distribution::Uniform | Distribution::Normal, .. } => return None,
        Op::Unary(unary) => match unary {
            Unary::Sign => return None,
            Unary::Affine { .. } => 0,
            Unary::Exp => 1,
            Unary::Log => 2,
            Unary::Sqrt => 3,
            Unary::Square => 4,
            Unary::Abs => 5,
            Unary::Relu => 6,
            Unary::LeakyRelu { .. } => 7,
            Unary::Silu => 8,
            Unary::Gelu => 9,
            Unary::Tanh => 10,
            Unary::Sigmoid => 11,
            Unary::Erf => 12,
            Unary::Clamp { .. } => 13,
        },
        Op::Binary(binary) => match binary {
            Binary::Greater | Binary::GreaterEqual | Binary::Equal => return None,
            Binary::Add => 14,
            Binary::Sub => 15,
            Binary::Mul => 16,
            Binary::Div => 17,
            Binary::Max => 18,
            Binary::Min => 19,
            Binary::AddScaled { .. } => 20,
            Binary::Gate { .. } => 21,
        },
        Op::Reshape => 22,
        Op::Transpose { .. } => 23,
        Op::Broadcast => 24,
        Op::Slice { .. } => 25,
        Op::Pad { .. } => 26,
        Op::Concat { .. } => 27,
        Op::Reduce { kind: Reduction::Sum, .. } => 28,
        Op::Reduce { kind: Reduction::Max, .. } => 29,
        Op::MatMul { ta: false, tb: false } => 30,
        Op::MatMul { ta: true, tb: false } => 31,
        Op::MatMul { ta: false, tb: true } => 32,
        Op::MatMul { ta: true, tb: true } => 33,
        Op::Conv2d(_) => 34,
        Op::Conv2dInputGrad(_) => 35,
        Op::Conv2dWeightGrad(_) => 36,
        Op::PoolGather(_) => 37,
        Op::PoolScatter(_) => 38,
        Op::AvgPool(_) => 39,
        Op::AvgPoolGrad(_) => 40,
        Op::Softmax => 41,
        Op::LogSoftmax => 42,
        Op::CrossEntropy => 43,
        Op::BatchNorm => 44,
    })
}

/// Ops with a gradient.
const OPS: usize = 45;

#[test]
fn every_op_with_a_gradient_is_in_the_table() {
    let mut seen = [false; OPS];
    for (_, function) in CASES {
        let tape = Tape::new();
        // With the gradients: scatters and the transpose of average pooling are differentiated in second order.
        record(&tape, function(&tape), false);
        tape.nodes().iter().filter_map(|node| number(&node.op)).for_each(|op| seen[op] = true);
    }
    let missing: Vec<usize> = (0..OPS).filter(|&op| !seen[op]).collect();
    assert!(missing.is_empty(), "no case has the ops numbered {missing:?}");
}

#[test]
fn ops_without_a_gradient_give_zeros() {
    let tape = Tape::new();
    let [x, y] = ["x", "y"].map(|name| float(&tape, name, [2, 3]));
    let row = labels(&tape, 2);
    for (name, value) in [
        ("sign", x.sign()),
        ("greater", x.greater(y)),
        ("greater_equal", x.greater_equal(y)),
        ("equal", x.equal(y)),
        ("gate by its condition", y.gate(x, 0.5)),
        ("correct", x.correct(row)),
        ("cross_entropy_direction", x.cross_entropy_direction(row)),
        ("argmax", x.argmax().one_hot(3)),
        ("gather_rows", x.gather_rows(row)),
    ] {
        let gradient = tape.grad(value, &[x])[0];
        let node = &tape.nodes()[gradient.id()];
        assert_eq!((&node.op, node.shape), (&Op::Fill { value: 0.0 }, x.shape()), "{name}");
    }
}

#[test]
fn ties_share_the_gradient_and_kinks_have_a_fixed_side() {
    let by = |values: &[f64], f: Function| {
        let tape = Tape::new();
        let (xs, y) = f(&tape);
        tape.assign("gradient", tape.grad(y, &xs)[0]);
        let store = store(&tape);
        store.write_f64("x", values).unwrap();
        Plan::compile(&tape, &store).unwrap().run().unwrap();
        store.read_f64("gradient").unwrap()
    };
    let third = 1.0 / 3.0;
    assert_eq!(by(&[1.0, 1.0, 0.0, 1.0], |t| one(t, &[4], |x| x.amax(&[0]))), [third, third, 0.0, third]);
    assert_eq!(by(&[2.0, 2.0], |t| one(t, &[2], |x| x.max(t.fill([2], 2.0)))), [0.5, 0.5]);
    assert_eq!(by(&[2.0, 1.0], |t| one(t, &[2], |x| x.min(t.fill([2], 2.0)))), [0.5, 1.0]);
    assert_eq!(by(&[0.0, -0.0, 1.0], |t| one(t, &[3], |x| x.relu())), [0.0, 0.0, 1.0]);
    assert_eq!(by(&[0.0, -2.0, 1.0], |t| one(t, &[3], |x| x.abs())), [0.0, -1.0, 1.0]);
    assert_eq!(by(&[0.0, 1.0, 1.5, -0.1], |t| one(t, &[4], |x| x.clamp(0.0, 1.0))), [1.0, 1.0, 0.0, 0.0]);
    // What is not chosen has no part, infinite or not.
    let chosen: Function = |t| one(t, &[2], |x| x.greater(t.fill([2], 0.0)).select(x.scale(2.0), x.log()));
    assert_eq!(by(&[0.5, -1.0], chosen)[0], 2.0);
}
