//! Tapes made from random bytes: chains of elementwise functions, broadcasts, reductions, views, products, gradients.

use crate::uniform;
use adamant::tape::{Conv2d, Pool};
use adamant::{DType, Host, Shape, Store, Tape, Var};

/// An op with the values it takes and an attribute, all taken modulo what there is.
pub type Instruction = [u8; 4];

/// The float tensors a random tape reads.
const SOURCES: [(&str, &[usize]); 8] = [
    ("a", &[2, 3, 4]),
    ("b", &[2, 3, 4]),
    ("row", &[4]),
    ("column", &[2, 1, 1]),
    ("middle", &[3, 1]),
    ("scalar", &[]),
    ("image", &[2, 5, 4, 3]),
    ("filter", &[3, 3, 3, 3]),
];

/// Most elements of a value.
const MOST: usize = 2048;
/// Most nodes of a tape: gradients of gradients grow fast.
const LONGEST: usize = 400;

/// A store with the sources' values.
pub fn store(device: &adamant::Device) -> Store {
    let store = Store::new(device);
    for (i, (name, shape)) in SOURCES.iter().enumerate() {
        let values = uniform(i as u32, shape.iter().product());
        store.put(name, Shape::new(shape), &Host::F64(values)).unwrap();
    }
    store.put("labels", [2], &Host::U32(vec![1, 0])).unwrap();
    store
}

/// Records the code; every value it makes, sources first.
pub fn record<'t>(tape: &'t Tape, code: &[Instruction]) -> Vec<Var<'t>> {
    let mut values: Vec<Var> =
        SOURCES.iter().map(|(name, shape)| tape.source(name, Shape::new(shape), DType::F32)).collect();
    for &[op, x, y, attribute] in code {
        // The later a value was made the likelier it is read, so that chains grow.
        let pick = |at: u8| values[values.len() - 1 - usize::from(at).pow(2) * values.len() / 65536];
        let value = apply(tape, op, pick(x), pick(y), attribute.into(), &values);
        if value.shape().len() <= MOST && tape.nodes().len() <= LONGEST {
            values.push(value);
        }
    }
    values
}

fn apply<'t>(tape: &'t Tape, op: u8, x: Var<'t>, y: Var<'t>, attribute: usize, all: &[Var<'t>]) -> Var<'t> {
    let (shape, rank) = (x.shape(), x.shape().rank());
    let axis = attribute % rank.max(1);
    // Bits of the attribute choose axes.
    let axes: Vec<usize> = (0..rank).filter(|axis| attribute >> axis & 1 == 1).collect();
    let vector = |x: Var<'t>| if x.shape().rank() == 0 { x.reshape([1]) } else { x };
    match op % 24 {
        0..=3 => unary(x, attribute),
        4..=8 => {
            let fits = Shape::broadcast(&shape, &y.shape()).is_some_and(|shape| shape.len() <= MOST);
            let y = if fits { y } else { y.mean_all() };
            binary(x, y, attribute)
        }
        9 => x.sum(&axes),
        10 => x.amax(&axes),
        11 => x.mean(&axes),
        12 => match attribute % 4 {
            0 => x.reshape([shape.len()]),
            1 => x.reshape([1, shape.len(), 1]),
            _ => {
                let rows = (2..5).find(|rows| shape.len().is_multiple_of(*rows)).unwrap_or(1);
                x.reshape([rows, shape.len() / rows])
            }
        },
        13 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.rotate_left(axis);
            if attribute > 128 {
                perm.reverse();
            }
            x.transpose(&perm)
        }
        14 => {
            let x = vector(x);
            let axis = attribute % x.shape().rank();
            let others = if y.shape() == x.shape() { vec![y, x] } else { vec![x] };
            x.concat(&others, axis)
        }
        15 if rank > 0 => {
            let start = attribute / 8 % shape[axis];
            x.slice(axis, start, 1 + attribute / 64 % (shape[axis] - start))
        }
        16 if rank > 0 => {
            let mut before = vec![0; rank];
            let zeros = attribute / 8 % 5;
            before[axis] = zeros.min(attribute / 64);
            x.pad(&before, shape.with(axis, shape[axis] + zeros))
        }
        17 if rank < 4 => {
            let mut wide = vec![2 + attribute % 2];
            wide.extend(shape.dims());
            x.broadcast_to(Shape::new(&wide))
        }
        18 => match attribute % 2 {
            0 => vector(x).softmax(),
            _ => vector(x).log_softmax(),
        },
        19 => {
            let columns = shape.dims().last().copied().unwrap_or(1);
            let matrix = x.reshape([shape.len() / columns, columns]);
            matrix.matmul_t(attribute & 1 == 1, matrix, attribute & 1 == 0)
        }
        20 if shape.len().is_multiple_of(2) && shape.len() > 2 => {
            let (logits, labels) = (x.reshape([2, shape.len() / 2]), tape.source("labels", [2], DType::U32));
            let gradient = || logits.softmax() - labels.one_hot(shape.len() / 2);
            match attribute % 6 {
                0 => logits.cross_entropy(labels),
                1 => gradient(),
                2 => logits.correct(labels),
                3 => gradient().sum(&[1]) * logits.cross_entropy(labels) + logits.correct(labels),
                4 => logits.correct(labels).sum_all() * gradient().square(),
                _ => gradient() * logits.cross_entropy(labels).reshape([2, 1]),
            }
        }
        21 if rank == 4 && shape[1] > 1 && shape[2] > 1 => match attribute % 3 {
            0 => x.max_pool(Pool { kernel: [2, 2], stride: [1, 2], padding: [1, 0] }),
            1 => x.avg_pool(Pool::square(2, 1, 1)),
            _ if shape[3] == 3 => {
                let filter = tape.source("filter", [3, 3, 3, 3], DType::F32);
                x.conv2d(
                    filter,
                    Conv2d { stride: [1 + attribute / 3 % 2, 1], padding: [1, 1], ..Conv2d::default() },
                )
            }
            _ => x.global_avg_pool(),
        },
        22 if tape.nodes().len() < LONGEST / 4 => tape.grad(x, &[all[attribute % SOURCES.len()]])[0],
        _ => unary(x, attribute),
    }
}

fn unary(x: Var<'_>, attribute: usize) -> Var<'_> {
    match attribute % 14 {
        0 => x.affine(0.75, -0.25),
        1 => x.tanh(),
        2 => x.square(),
        3 => x.abs(),
        4 => x.relu(),
        5 => x.leaky_relu(0.1),
        6 => x.silu(),
        7 => x.gelu(),
        8 => x.sigmoid(),
        9 => x.clamp(-0.5, 0.5),
        10 => x.exp(),
        11 => x.abs().sqrt(),
        12 => x.abs().affine(1.0, 0.5).log(),
        _ => x.sign(),
    }
}

fn binary<'t>(x: Var<'t>, y: Var<'t>, attribute: usize) -> Var<'t> {
    match attribute % 13 {
        0 | 1 => x + y,
        2 => y - x,
        3 | 4 => x * y,
        5 => x / y,
        6 => x.max(y),
        7 => x.min(y),
        8 => x.add_scaled(y, 0.3),
        9 => y.gate(x, 0.2),
        10 => x.greater(y),
        11 => x.greater_equal(y),
        _ => x.equal(y),
    }
}

/// What is assigned: name and value. Most names are sources', so that updates in place, swaps and reads after an
/// assignment occur; a value whose shape fits no source goes to a tensor of its own.
pub fn assignments<'t>(values: &[Var<'t>], choices: &[[u8; 2]]) -> Vec<(String, Var<'t>)> {
    let mut chosen: Vec<(String, Var)> = Vec::new();
    for (i, &[target, value]) in choices.iter().enumerate() {
        let value = values[values.len() - 1 - usize::from(value).pow(2) * values.len() / 65536];
        let (name, shape) = SOURCES[usize::from(target) % SOURCES.len()];
        let shape = Shape::new(shape);
        let (name, value) = if value.shape().len() == shape.len() {
            (name.to_string(), value.reshape(shape))
        } else if Shape::broadcast(&value.shape(), &shape) == Some(shape) {
            (name.to_string(), value.broadcast_to(shape))
        } else {
            (format!("out{i}"), value)
        };
        chosen.retain(|(have, _)| *have != name);
        chosen.push((name, value));
    }
    chosen
}
