//! torchvision's networks of bottlenecks, at their full size: the same weights give the same logits. Weights and image are a
//! function of their place (tools/make_torchvision.py, which printed the logits, in f64).

use adamant::nn::{Architecture, Mode, Net, Params, Tape, architectures};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::{DType, Device};

const SIDE: usize = 64;
const CLASSES: usize = 5;

/// What PyTorch gives.
const LOGITS: [(&str, [f64; CLASSES]); 7] = [
    ("resnet101", [-0.211104434, -0.243344388, 0.0537484638, 0.0107622025, -0.217434711]),
    ("resnet152", [-0.356046024, -0.11357381, 0.465567787, 0.135821057, -0.413798377]),
    ("wide-resnet50-2", [-0.12150564, -0.169354397, 0.179992155, -0.133799613, -0.211832594]),
    ("wide-resnet101-2", [-0.273150226, -0.440047098, 0.172220254, -0.1408655, -0.202250535]),
    ("resnext50-32x4d", [-0.153896172, -0.173937657, 0.149197246, -0.134458203, -0.188975922]),
    ("resnext101-32x8d", [-0.231316126, -0.381059536, 0.0402340027, -0.172118685, -0.218491964]),
    ("resnext101-64x4d", [-0.209992988, -0.392966608, 0.12969149, -0.119416773, -0.221723442]),
];

/// Largest difference, relative to the largest logit: f32 against f64 through up to 152 layers comes to 1.5e-6.
const TOLERANCE: f64 = 1e-5;

/// A number in [-0.5, 0.5), by a hash (SplitMix64's) of key and index.
fn noise(index: usize, key: u64) -> f64 {
    let x = (index as u64).wrapping_add(key << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x >> 40) as f64 / f64::from(1 << 24) - 0.5
}

/// An element of a tensor of these extents.
fn value(name: &str, dims: &[usize], noise: f64) -> f32 {
    let value = match dims {
        [_, inputs @ ..] if !inputs.is_empty() => {
            noise * (24.0 / inputs.iter().product::<usize>() as f64).sqrt()
        }
        _ if name.ends_with("running_var") => 1.0 + noise,
        _ if name.ends_with("weight") => 0.4 + 0.2 * noise,
        _ => 0.2 * noise,
    };
    value as f32
}

/// The largest difference from PyTorch's logits, over the largest of these.
fn difference(network: &dyn Architecture, want: &[f64]) -> f64 {
    let params = Params::of(network).unwrap();
    let mut names: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
    names.sort_unstable();
    let store = Store::new(&Device::cpu());
    for param in params.iter() {
        let dims = param.torch_shape();
        // By its place among the sorted names: orders of declaration differ.
        let key = 1 + names.binary_search(&param.name.as_str()).unwrap() as u64;
        let count: usize = dims.iter().product();
        let theirs: Vec<f32> = (0..count).map(|at| value(&param.name, &dims, noise(at, key))).collect();
        let ours = param.from_torch(&dims, &theirs).unwrap();
        store.put(&param.name, param.shape, &Host::F32(ours)).unwrap();
    }
    let mut image = vec![0f32; 3 * SIDE * SIDE];
    for at in 0..image.len() {
        let (channel, pixel) = (at / (SIDE * SIDE), at % (SIDE * SIDE));
        image[pixel * 3 + channel] = (noise(at, 0) + 0.5) as f32;
    }
    let shape = [1, SIDE, SIDE, 3];
    store.put("x", shape, &Host::F32(image)).unwrap();
    let tape = Tape::new();
    let x = tape.source("x", shape, DType::F32);
    tape.assign("logits", network.forward(&Net::new(&tape, Mode::Eval), x));
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    let logits = store.read_f64("logits").unwrap();
    let largest = want.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    logits.iter().zip(want).fold(0.0, |far: f64, (a, b)| far.max((a - b).abs())) / largest
}

#[test]
fn networks_of_bottlenecks_give_torchvisions_logits() {
    for (name, want) in LOGITS {
        let network = architectures::by_name(name, [SIDE, SIDE, 3], CLASSES).unwrap();
        let difference = difference(network.as_ref(), &want);
        println!("{name}: {difference:.1e}");
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}
