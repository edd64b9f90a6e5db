//! THE derivative table: for each op, its vector-Jacobian product in terms of ops that are on the table again.
//!
//! Because every product is made of ordinary ops, a gradient is part of the tape like anything else: it can be
//! differentiated (GradAlign), pruned and fused.

use super::{Axes, Binary, Conv2d, Op, Pool, Reduction, Tape, Unary, Var};
use crate::shape::Shape;

/// Gradients of the sum of `loss` (times `weight`, which is not differentiated) by each of `wrt`.
pub(super) fn grad<'t>(
    tape: &'t Tape,
    loss: Var<'t>,
    weight: Option<Var<'t>>,
    wrt: &[Var<'t>],
) -> Vec<Var<'t>> {
    // What depends on a variable asked for: products for anything else are never recorded.
    let end = loss.id + 1;
    let mut active = vec![false; end];
    for var in wrt.iter().filter(|var| var.id < end) {
        active[var.id] = true;
    }
    let first = wrt.iter().map(|var| var.id).min().unwrap_or(end);
    for id in first..end {
        let depends = tape.nodes.borrow()[id].args.iter().any(|&arg| active[arg]);
        active[id] |= depends;
    }

    let mut gradients: Vec<Option<Var<'t>>> = vec![None; end];
    if active[loss.id] {
        gradients[loss.id] = Some(weight.unwrap_or_else(|| tape.fill(loss.shape(), 1.0)));
    }
    for id in (first..end).rev() {
        let Some(g) = gradients[id] else { continue };
        let node = tape.nodes.borrow()[id].clone();
        if wrt.iter().any(|var| var.id == id) && node.args.is_empty() {
            continue;
        }
        tape.scope.replace(node.scope.clone());
        let args: Vec<Var<'t>> = node.args.iter().map(|&arg| Var { tape, id: arg }).collect();
        for (position, arg) in args.iter().enumerate() {
            if !active[arg.id] {
                continue;
            }
            if let Some(product) = product(tape, &node.op, &args, Var { tape, id }, g, position) {
                gradients[arg.id] = Some(match gradients[arg.id] {
                    Some(sum) => sum + product,
                    None => product,
                });
            }
        }
    }
    let of = |var: &Var<'t>| gradients.get(var.id).copied().flatten();
    wrt.iter().map(|var| of(var).unwrap_or_else(|| tape.fill(var.shape(), 0.0))).collect()
}

/// The vector-Jacobian product of `y = op(args)` for argument `position` and gradient `g` by y; `None` where the op
/// has no derivative by that argument.
fn product<'t>(
    tape: &'t Tape,
    op: &Op,
    args: &[Var<'t>],
    y: Var<'t>,
    g: Var<'t>,
    position: usize,
) -> Option<Var<'t>> {
    let x = *args.first()?;
    Some(match op {
        Op::Source { .. } | Op::Fill { .. } => return None,
        Op::Unary(unary) => return by_unary(tape, *unary, x, y, g),
        Op::Binary(binary) => return by_binary(*binary, x, args[1], y, g, position),

        Op::Reshape => g.reshape(x.shape()),
        Op::Transpose { perm } => {
            let mut inverse = vec![0; perm.len()];
            for (to, &from) in perm.iter().enumerate() {
                inverse[from] = to;
            }
            g.transpose(&inverse)
        }
        Op::Broadcast => {
            let (from, to) = (x.shape(), y.shape());
            let lead = to.rank() - from.rank();
            let stretched = |axis: &usize| *axis < lead || from[*axis - lead] != to[*axis];
            let axes: Vec<usize> = (0..to.rank()).filter(stretched).collect();
            g.reduce(Reduction::Sum, Axes::new(&axes)).reshape(from)
        }
        Op::Slice { start } => g.pad(start, x.shape()),
        Op::Pad { before } => g.slice_box(before.clone(), x.shape()),
        Op::Concat { axis } => {
            let start = args[..position].iter().map(|arg| arg.shape()[*axis]).sum();
            g.slice(*axis, start, args[position].shape()[*axis])
        }
        Op::Reduce { kind: Reduction::Sum, .. } => g.broadcast_to(x.shape()),
        Op::Reduce { kind: Reduction::Max, axes } => {
            let largest = x.equal(y);
            (g / largest.reduce(Reduction::Sum, *axes)).broadcast_to(x.shape()).gate(largest, 0.0)
        }

        // C = A B with A = a or its transpose: dA = g B^T, dB = A^T g, transposed back where a or b was.
        Op::MatMul { ta, tb } => match (position, ta, tb) {
            (0, false, _) => g.matmul_t(false, args[1], !tb),
            (0, true, _) => args[1].matmul_t(*tb, g, true),
            (_, _, false) => x.matmul_t(!ta, g, false),
            (_, _, true) => g.matmul_t(true, x, *ta),
        },
        // The three convolution ops are the three partial maps of one trilinear form sum(dy * conv(x, w)): each is
        // differentiated by the other two.
        Op::Conv2d(conv) => match position {
            0 => g.conv2d_input_grad(args[1], x.shape(), *conv),
            _ => x.conv2d_weight_grad(g, args[1].shape(), *conv),
        },
        Op::Conv2dInputGrad(conv) => match position {
            0 => g.conv2d(args[1], *conv),
            _ => g.conv2d_weight_grad(x, args[1].shape(), *conv),
        },
        Op::Conv2dWeightGrad(conv) => by_weight_grad(args, g, *conv, position),

        Op::MaxPoolIndex(_) => return None,
        Op::PoolGather(pool) if position == 0 => scatter(g, args[1], x.shape(), *pool),
        Op::PoolScatter(pool) if position == 0 => tape.record(Op::PoolGather(*pool), &[g, args[1]], None),
        Op::PoolGather(_) | Op::PoolScatter(_) => return None,
        Op::AvgPool(pool) => tape.record(Op::AvgPoolGrad(*pool), &[g], Some(x.shape())),
        Op::AvgPoolGrad(pool) => g.avg_pool(*pool),

        Op::BatchNorm => return by_batch_norm(args, g, position),
        Op::Softmax => y * (g - (g * y).sum(&[y.shape().rank() - 1])),
        Op::LogSoftmax => g - y.exp() * g.sum(&[y.shape().rank() - 1]),
        Op::CrossEntropy if position == 0 => {
            let [batch, classes] = [x.shape()[0], x.shape()[1]];
            (x.softmax() - args[1].one_hot(classes)) * g.reshape([batch, 1])
        }
        Op::CrossEntropy
        | Op::CrossEntropyDirection
        | Op::ArgMax
        | Op::Correct
        | Op::OneHot
        | Op::GatherRows
        | Op::Augment(_)
        | Op::Random { .. } => return None,
    })
}

fn by_unary<'t>(tape: &'t Tape, unary: Unary, x: Var<'t>, y: Var<'t>, g: Var<'t>) -> Option<Var<'t>> {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
    Some(match unary {
        Unary::Affine { scale, .. } => g.scale(scale),
        Unary::Exp => g * y,
        Unary::Log => g / x,
        Unary::Sqrt => (g / y).scale(0.5),
        Unary::Square => (g * x).scale(2.0),
        Unary::Abs => g * x.sign(),
        Unary::Sign => return None,
        // By y and not x: y is kept for the next layer anyway.
        Unary::Relu => g.gate(y, 0.0),
        Unary::LeakyRelu { slope } => g.gate(if slope >= 0.0 { y } else { x }, slope),
        Unary::Silu => {
            let s = x.sigmoid();
            g * s * (x * s.affine(-1.0, 1.0)).affine(1.0, 1.0)
        }
        Unary::Gelu => {
            let cdf = x.scale(FRAC_1_SQRT_2).erf().affine(0.5, 0.5);
            let density = x.square().scale(-0.5).exp().scale(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            g * (cdf + x * density)
        }
        Unary::Tanh => g * y.square().affine(-1.0, 1.0),
        Unary::Sigmoid => g * (y - y.square()),
        Unary::Erf => g * x.square().scale(-1.0).exp().scale(FRAC_2_SQRT_PI),
        Unary::Clamp { lo, hi } => {
            let inside = |bound: f64| tape.fill(x.shape(), bound);
            g.gate(x.greater_equal(inside(lo)) * inside(hi).greater_equal(x), 0.0)
        }
    })
}

fn by_binary<'t>(
    binary: Binary,
    x: Var<'t>,
    other: Var<'t>,
    y: Var<'t>,
    g: Var<'t>,
    position: usize,
) -> Option<Var<'t>> {
    // Half of the gradient to each where the two are equal.
    let winner = |a: Var<'t>, b: Var<'t>| g * a.greater(b).add_scaled(a.equal(b), 0.5);
    Some(match (binary, position) {
        (Binary::Add, _) | (Binary::Sub, 0) | (Binary::AddScaled { .. }, 0) => g,
        (Binary::Sub, _) => -g,
        (Binary::AddScaled { scale }, _) => g.scale(scale),
        (Binary::Mul, 0) => g * other,
        (Binary::Mul, _) => g * x,
        (Binary::Div, 0) => g / other,
        (Binary::Div, _) => -(g * y / other),
        (Binary::Max, 0) | (Binary::Min, 1) => winner(x, other),
        (Binary::Max, _) | (Binary::Min, _) => winner(other, x),
        (Binary::Gate { slope }, 0) => g.gate(other, slope),
        (Binary::Gate { .. } | Binary::Greater | Binary::GreaterEqual | Binary::Equal, _) => return None,
    })
}

/// With x' = (x - mean) inverse, n values a channel and sums over them: the bias gets sum(g), the weight sum(g x'), and
/// x gets weight inverse (g - (sum(g) + x' sum(g x')) / n), which is what reaches it through its statistics too. Sums are
/// of the centred values: those of x itself would lose what a large mean takes of their digits.
fn by_batch_norm<'t>(args: &[Var<'t>], g: Var<'t>, position: usize) -> Option<Var<'t>> {
    let [x, mean, inverse, weight, _] = args.try_into().ok()?;
    let axes: Vec<usize> = (0..x.shape().rank() - 1).collect();
    let share = -(mean.shape().len() as f64) / x.shape().len() as f64;
    let sum = |v: Var<'t>| v.sum(&axes).reshape(mean.shape());
    let centred = x - mean;
    Some(match position {
        0 => {
            let slope = sum(g * centred) * inverse * inverse;
            (centred * slope.scale(share) + g).add_scaled(sum(g), share) * (weight * inverse)
        }
        3 => sum(g * centred) * inverse,
        4 => sum(g),
        _ => return None,
    })
}

fn by_weight_grad<'t>(args: &[Var<'t>], g: Var<'t>, conv: Conv2d, position: usize) -> Var<'t> {
    match position {
        0 => args[1].conv2d_input_grad(g, args[0].shape(), conv),
        _ => args[0].conv2d(g, conv),
    }
}

fn scatter<'t>(g: Var<'t>, index: Var<'t>, input: Shape, pool: Pool) -> Var<'t> {
    g.tape.record(Op::PoolScatter(pool), &[g, index], Some(input))
}
