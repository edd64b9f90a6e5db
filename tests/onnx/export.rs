//! Networks written as ONNX files: what is written is read back as the same network.

use super::import::{difference, run, run_with};
use adamant::device::Device;
use adamant::nn::{Architecture, Collapsed, Dummies, Onnx, Params, Role, architectures, to_onnx};
use adamant::weights::Weights;

/// A number in [-1, 1) for element `i` of tensor `t`.
fn number(t: usize, i: usize) -> f64 {
    let hash = ((t as u64) << 32 | i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (hash >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

/// Weights as a trained network may have them: statistics that are not those of a fresh one.
pub fn weights(architecture: &dyn Architecture) -> Weights {
    let params = Params::of(architecture).unwrap();
    let initial = params.initial(5);
    let each = params.iter().zip(initial).enumerate().map(|(t, (param, values))| {
        let value = |(i, initial): (usize, f32)| match param.role {
            Role::RunningVar | Role::NormWeight => (1.0 + 0.5 * number(t, i)) as f32,
            Role::NormBias | Role::RunningMean | Role::Bias => (0.1 * number(t, i)) as f32,
            // A last layer may begin from zero.
            Role::Weight if initial == 0.0 => (0.1 * number(t, i)) as f32,
            _ => initial,
        };
        (param.name.clone(), values.into_iter().enumerate().map(value).collect())
    });
    each.collect()
}

/// Images in [0, 1].
pub fn images(architecture: &dyn Architecture, batch: usize) -> Vec<f64> {
    let len = batch * architecture.input().iter().product::<usize>();
    (0..len).map(|i| f64::from((0.5 + 0.5 * number(1000, i)) as f32)).collect()
}

/// Narrow ones of every family, on images whose rows are not their columns.
const NARROW: [(&str, [usize; 3]); 21] = [
    ("mlp-20-10", [6, 5, 3]),
    ("mlp-normalized", [6, 5, 1]),
    ("mlp-7", [1, 1, 9]),
    ("mnist-fast", [28, 24, 1]),
    ("mnist-madry", [28, 28, 1]),
    ("lenet5", [28, 28, 1]),
    ("small-cnn", [28, 28, 1]),
    ("preact-resnet18-w2", [16, 24, 3]),
    ("preact-resnet18-w2-normalized", [32, 32, 3]),
    ("preact-resnet18-gradalign-w2", [32, 32, 3]),
    ("preact-resnet18-fast-w2", [32, 32, 3]),
    ("preact-resnet18-nobn-w2", [32, 32, 3]),
    ("resnet18-w2", [32, 32, 3]),
    ("resnet18-imagenet-w2", [48, 36, 3]),
    ("resnet34-w2-normalized", [32, 32, 3]),
    ("resnet50-w2", [48, 36, 3]),
    ("resnet50-cifar-w2", [32, 32, 3]),
    ("wide-resnet-10-2-dropout0.3", [32, 32, 3]),
    ("vgg11-bn-w2", [32, 32, 3]),
    ("vgg16-bn-w2-normalized", [32, 64, 3]),
    ("convnext-tiny-w4-p2", [32, 32, 3]),
];

#[test]
fn what_is_written_is_read_back_as_the_same_network() {
    let device = Device::reference();
    for (name, input) in NARROW {
        let network = architectures::by_name(name, input, 4).unwrap();
        let weights = weights(network.as_ref());
        let bytes = to_onnx(network.as_ref(), &weights).unwrap();
        let back = Onnx::from_bytes(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((back.input(), back.classes()), (input, 4), "{name}");
        // What is trained has the same names and the same values.
        let (ours, theirs) = (Params::of(network.as_ref()).unwrap(), Params::of(&back).unwrap());
        let begin = theirs.initial(0);
        for (name, values) in &weights {
            let role = ours.get(name).unwrap().role;
            if let Some(at) = theirs.iter().position(|param| param.name == *name) {
                assert_eq!(begin[at], *values, "{name}");
            } else {
                let layer_norm = role == Role::NormWeight || role == Role::NormBias;
                assert!(role == Role::Constant || role == Role::LayerScale || layer_norm, "{name} is gone");
            }
        }
        let x = images(network.as_ref(), 3);
        let v: Vec<f64> = (0..12).map(|i| number(2000, i)).collect();
        let (y, dx) = run_with(network.as_ref(), &weights, &device, &x, Some(&v));
        let (y2, dx2) = run(&back, &device, &x, Some(&v));
        // Numbers of nodes are f32 there.
        assert!(difference(&y2, &y) < 1e-6, "{name}: {}", difference(&y2, &y));
        let off = difference(&dx2.unwrap(), &dx.unwrap());
        assert!(off < 1e-6, "{name}: the gradient differs by {off}");
    }
}

#[test]
fn what_is_read_can_be_written() {
    let network = Onnx::from_bytes(&super::import::model("mobile.training")).unwrap();
    let params = Params::of(&network).unwrap();
    let weights: Weights = params.iter().map(|param| param.name.clone()).zip(params.initial(0)).collect();
    let again = Onnx::from_bytes(&to_onnx(&network, &weights).unwrap()).unwrap();
    let x = images(&network, 2);
    let device = Device::reference();
    let (y, again) = (run(&network, &device, &x, None).0, run(&again, &device, &x, None).0);
    assert!(difference(&again, &y) < 1e-6);
}

#[test]
fn dummy_classes_are_written_as_the_classifier_they_amount_to() {
    let inner = architectures::by_name("mlp-9", [4, 4, 3], 10).unwrap();
    let network = Dummies::new(inner);
    let weights = weights(&network);
    let collapsed = Collapsed(&network);
    let back = Onnx::from_bytes(&to_onnx(&collapsed, &weights).unwrap()).unwrap();
    assert_eq!(back.classes(), 5);
    let x = images(&network, 3);
    let device = Device::reference();
    let want = run_with(&collapsed, &weights, &device, &x, None).0;
    assert!(difference(&run(&back, &device, &x, None).0, &want) < 1e-6);
}

#[test]
fn weights_that_are_missing_are_named() {
    let network = architectures::by_name("mlp-9", [4, 4, 3], 10).unwrap();
    let mut weights = weights(network.as_ref());
    weights[0].1.pop();
    let error = to_onnx(network.as_ref(), &weights).unwrap_err().to_string();
    assert!(error.contains("1.weight") && error.contains("mlp-9"), "{error}");
    weights.remove(0);
    let error = to_onnx(network.as_ref(), &weights).unwrap_err().to_string();
    assert!(error.contains("lacks the weights `1.weight`"), "{error}");
}
