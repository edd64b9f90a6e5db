//! Gradients of whole models against central differences in f64, and gradients of gradients.

use adamant::device::Device;
use adamant::nn::{Mode, Net, Params, Tape, Var, architectures};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::{DType, philox, tape::Purpose};

const BATCH: usize = 3;
const CLASSES: usize = 4;
/// Half the distance of the two evaluations along a direction of unit length. A relu or a maximum that turns over in
/// between spoils the larger ones, rounding the smaller ones; a wrong gradient agrees with none.
const DISTANCES: [f64; 3] = [1e-5, 1e-6, 1e-7];

/// Uniform in [-1, 1).
fn noise(stream: u32, len: usize) -> Vec<f64> {
    let draw = |i| 2.0 * philox::uniform([5, 0], Purpose::TEST.stream(stream), [0, 0], 0, i) - 1.0;
    (0..len as u32).map(draw).collect()
}

/// Holds `grad` of `objective` by the image and by each parameter against differences along a random direction of
/// each of those tensors.
fn check(name: &str, input: [usize; 3], mode: Mode, objective: impl for<'t> Fn(Var<'t>, Var<'t>) -> Var<'t>) {
    let architecture = architectures::by_name(name, input, CLASSES).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let store = Store::new(&Device::reference());
    for (stream, (param, values)) in (1000..).zip(params.iter().zip(params.initial(11))) {
        // Biases of zero and equal running statistics would hide mistakes.
        let values: Vec<f64> = match param.shape.rank() {
            1 => {
                values.iter().zip(noise(stream, values.len())).map(|(&v, n)| f64::from(v) + 0.3 * n).collect()
            }
            _ => values.iter().map(|&v| f64::from(v)).collect(),
        };
        store.put(&param.name, param.shape, &Host::F64(values)).unwrap();
    }
    let images = [BATCH, input[0], input[1], input[2]];
    let pixels: Vec<f64> = noise(2, images.iter().product()).iter().map(|n| 0.5 + 0.5 * n).collect();
    store.put("images", images, &Host::F64(pixels)).unwrap();
    store.put("labels", [BATCH], &Host::U32(vec![0, 3, 1])).unwrap();

    let tape = Tape::new();
    let net = Net::new(&tape, mode);
    let x = tape.source("images", images, DType::F32);
    let losses = architecture.forward(&net, x).cross_entropy(tape.source("labels", [BATCH], DType::U32));
    let value = objective(losses, x);
    let mut by = vec![("images".to_string(), x)];
    by.extend(net.weights());
    let vars: Vec<Var<'_>> = by.iter().map(|(_, var)| *var).collect();
    let gradients = tape.grad(value, &vars);
    tape.assign("value", value);
    let forward = Plan::compile(&tape, &store).unwrap();
    for ((name, _), gradient) in by.iter().zip(&gradients) {
        tape.assign(&format!("grad.{name}"), *gradient);
    }
    Plan::compile(&tape, &store).unwrap().run().unwrap();

    for (stream, (tensor, _)) in by.iter().enumerate() {
        let before = store.read_f64(tensor).unwrap();
        let mut direction = noise(100 + stream as u32, before.len());
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|d| *d /= length);
        let at = |distance: f64| {
            let moved: Vec<f64> = before.iter().zip(&direction).map(|(x, d)| x + distance * d).collect();
            store.write_f64(tensor, &moved).unwrap();
            forward.run().unwrap();
            store.read_f64("value").unwrap()[0]
        };
        let differences = DISTANCES.map(|h| (at(h) - at(-h)) / (2.0 * h));
        store.write_f64(tensor, &before).unwrap();
        let gradient = store.read_f64(&format!("grad.{tensor}")).unwrap();
        let derivative: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let size = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(
            differences.iter().any(|d| (d - derivative).abs() <= 1e-6 * size + 1e-9),
            "{name}, {mode:?}, {tensor}: {derivative} by the tape, {differences:?} by differences, {size} long"
        );
    }
}

const MODELS: [(&str, [usize; 3]); 10] = [
    ("mlp-7-5", [3, 4, 2]),
    ("mnist-fast", [9, 8, 2]),
    ("mnist-madry", [6, 5, 1]),
    ("preact-resnet18-w2", [9, 8, 3]),
    ("preact-resnet18-w2-normalized", [8, 8, 3]),
    ("resnet18-w2", [9, 8, 3]),
    ("small-cnn", [16, 17, 1]),
    ("wide-resnet-10-1", [9, 8, 3]),
    ("vgg11-bn-w1", [33, 32, 1]),
    ("convnext-tiny-w3-p1", [9, 8, 2]),
];

#[test]
fn gradients_of_whole_models() {
    for (name, input) in MODELS {
        check(name, input, Mode::Eval, |losses, _| losses.sum_all());
    }
    for name in ["preact-resnet18-w2", "resnet18-w2"] {
        check(name, [9, 8, 3], Mode::Train, |losses, _| losses.sum_all());
    }
}

/// The squared length of the image's gradient: what gradient alignment and input-gradient penalties differentiate.
#[test]
fn gradients_of_gradients_of_whole_models() {
    fn penalty<'t>(losses: Var<'t>, x: Var<'t>) -> Var<'t> {
        x.tape().grad(losses.sum_all(), &[x])[0].square().sum_all()
    }
    for (name, input) in MODELS {
        check(name, input, Mode::Eval, penalty);
    }
    for name in ["preact-resnet18-w2", "resnet18-w2"] {
        check(name, [9, 8, 3], Mode::Train, penalty);
    }
}
