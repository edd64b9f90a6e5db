//! Whole networks: derivatives along random directions through all weights and through the image.

use crate::{assert_close, record, scalars, store};
use adamant::nn::{Mode, Net, architectures};
use adamant::philox;
use adamant::tape::Purpose;
use adamant::{DType, Plan, Tape, Var};

/// Half the distance of a central difference. Small, so that no relu of thousands changes sides on the way.
const STEP: f64 = 1e-6;
/// Largest relative error of a derivative along a direction; rounding alone gives some 1e-9 (first), 1e-8 (second).
const FIRST: f64 = 1e-6;
const SECOND: f64 = 1e-5;

/// Loss of a network on three images, by the image and the trained weights.
fn loss<'t>(tape: &'t Tape, model: &str, input: [usize; 3], mode: Mode) -> (Vec<Var<'t>>, Var<'t>) {
    let architecture = architectures::by_name(model, input, 3).unwrap();
    let x = tape.source("image", [3, input[0], input[1], input[2]], DType::F32);
    let net = Net::new(tape, mode);
    let logits = architecture.forward(&net, x);
    let loss = logits.cross_entropy(tape.source("labels", [3], DType::U32)).mean_all();
    (net.weights().into_iter().map(|(_, var)| var).chain([x]).collect(), loss)
}

fn check(model: &str, input: [usize; 3], mode: Mode) {
    let tape = Tape::new();
    let by = record(&tape, loss(&tape, model, input, mode), true);
    let store = store(&tape);
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    let tape = Tape::new();
    record(&tape, loss(&tape, model, input, mode), false);
    let plan = Plan::compile(&tape, &store).unwrap();
    // Directions: all weights together, the image alone.
    let (image, weights) = (by.len() - 2, 0..by.len() - 2);
    for (what, moving) in [("weights", weights.collect::<Vec<_>>()), ("image", vec![image])] {
        let values: Vec<Vec<f64>> = moving.iter().map(|&i| store.read_f64(&by[i]).unwrap()).collect();
        let draw = |i: usize, j: usize| {
            2.0 * philox::uniform([5, 9], Purpose::TEST, [1, 0], i as u32, j as u32) - 1.0
        };
        let (mut slopes, mut differences) = ([0.0; 2], [0.0; 2]);
        for (order, name) in ["first", "second"].iter().enumerate() {
            for &i in &moving {
                let gradient = store.read_f64(&format!("{name} by {i}")).unwrap();
                slopes[order] += gradient.iter().enumerate().map(|(j, g)| g * draw(i, j)).sum::<f64>();
            }
        }
        for sign in [1.0, -1.0] {
            for (&i, values) in moving.iter().zip(&values) {
                let moved: Vec<f64> =
                    values.iter().enumerate().map(|(j, x)| x + sign * STEP * draw(i, j)).collect();
                store.write_f64(&by[i], &moved).unwrap();
            }
            plan.run().unwrap();
            let values = scalars(&store);
            (0..2).for_each(|order| differences[order] += sign * values[order] / (2.0 * STEP));
        }
        for (&i, values) in moving.iter().zip(&values) {
            store.write_f64(&by[i], values).unwrap();
        }
        let label = |order: &str| format!("{model} in {mode:?}, {order} derivative by the {what}");
        assert_close(&slopes[..1], &differences[..1], FIRST, &label("first"));
        assert_close(&slopes[1..], &differences[1..], SECOND, &label("second"));
    }
}

#[test]
fn a_multilayer_perceptron() {
    check("mlp-20-10", [4, 3, 2], Mode::Eval);
}

#[test]
fn the_small_convolutional_networks() {
    check("mnist-fast", [9, 8, 1], Mode::Eval);
    check("mnist-madry", [8, 8, 1], Mode::Eval);
}

#[test]
fn a_residual_network_in_each_mode_of_batch_norm() {
    for mode in [Mode::Eval, Mode::Train, Mode::TrainFrozen] {
        check("preact-resnet18-w4-normalized", [16, 16, 3], mode);
        check("resnet18-w4", [16, 16, 3], mode);
    }
}
