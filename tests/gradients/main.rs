//! Gradients against central differences in f64: every op and every argument that has a gradient, first and second
//! derivatives, and whole networks.

mod cases;
mod networks;

use adamant::philox;
use adamant::tape::{Op, Purpose};
use adamant::{DType, Device, Host, Shape, Store, Tape, Var};

/// A function on a tape: what it is differentiated by (float sources), and its value.
pub type Function = for<'t> fn(&'t Tape) -> (Vec<Var<'t>>, Var<'t>);

/// A float source. Its values are uniform in [-1, 1), or in [0.3, 1.3) where the name says "positive" or "var".
pub fn float<'t>(tape: &'t Tape, name: &str, shape: impl Into<Shape>) -> Var<'t> {
    tape.source(name, shape, DType::F32)
}

/// A store of f64 in which every source of the tape has its values.
pub fn store(tape: &Tape) -> Store {
    let store = Store::new(&Device::reference());
    for (stream, node) in tape.nodes().iter().enumerate() {
        let Op::Source { name } = &node.op else { continue };
        let draw = |i: u32| philox::uniform([3, 1], Purpose::TEST, [0, 0], stream as u32, i);
        let positive = name.contains("positive") || name.contains("var");
        let float = |u: f64| if positive { 0.3 + u } else { 2.0 * u - 1.0 };
        let elements = 0..node.shape.len() as u32;
        let values = match node.dtype {
            DType::U32 => Host::U32(elements.map(|i| i * 7 % 3).collect()),
            _ => Host::F64(elements.map(|i| float(draw(i))).collect()),
        };
        store.put(name, node.shape, &values).unwrap();
    }
    store
}

/// Records `first = sum(probe * y)` and `second`, the sum of directions times the gradients of `first`, for a function
/// y(x...); with `derivatives` also the gradients of `first` by each x and of `second` by each x and the probe. Gives
/// the names of the x and the probe.
pub fn record<'t>(tape: &'t Tape, (xs, y): (Vec<Var<'t>>, Var<'t>), derivatives: bool) -> Vec<String> {
    let probe = float(tape, "probe", y.shape());
    let first = (y * probe).sum_all();
    let gradients = tape.grad(first, &xs);
    let along =
        |(i, g): (usize, &Var<'t>)| (*g * float(tape, &format!("direction {i}"), g.shape())).sum_all();
    let second = gradients.iter().enumerate().map(along).reduce(|sum, slope| sum + slope).unwrap();
    tape.assign("first", first);
    tape.assign("second", second);
    let by: Vec<Var> = xs.into_iter().chain([probe]).collect();
    if derivatives {
        for (i, gradient) in gradients.into_iter().enumerate() {
            tape.assign(&format!("first by {i}"), gradient);
        }
        for (i, gradient) in tape.grad(second, &by).into_iter().enumerate() {
            tape.assign(&format!("second by {i}"), gradient);
        }
    }
    let nodes = tape.nodes();
    let name = |var: &Var| match &nodes[var.id()].op {
        Op::Source { name } => name.clone(),
        op => panic!("{} is no source", op.name()),
    };
    by.iter().map(name).collect()
}

/// Both scalars as they stand in the store.
pub fn scalars(store: &Store) -> [f64; 2] {
    let read = store.read(&["first", "second"]).unwrap();
    [read[0].to_f64()[0], read[1].to_f64()[0]]
}

/// Fails where a derivative is further than `bound` from the difference quotient, relative to the largest entry.
pub fn assert_close(have: &[f64], want: &[f64], bound: f64, what: &str) {
    assert_eq!(have.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.1f64, |most, w| most.max(w.abs()));
    for (i, (have, want)) in have.iter().zip(want).enumerate() {
        let error = (have - want).abs() / scale;
        // A NaN is an error too.
        assert!(
            error <= bound,
            "{what}: element {i} is {have:e}, differences say {want:e} (error {error:.1e})"
        );
    }
}
