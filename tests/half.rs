//! Half precision on a trained network: which way its gradients point, and how large they are on the way.

use adamant::nn::{Params, architectures};
use adamant::plan::{Options, Precision, Schedule};
use adamant::tape::Conv2d;
use adamant::train::checkpoint;
use adamant::{DType, Device, Host, Plan, Store, Tape, data};
use std::path::Path;

/// Images of the sample's test set, after random steps as an attack meets them.
const IMAGES: usize = 500;

/// What the network of the main job makes of the images on a device: for each layer's input, the gradient's direction
/// (`image`, `hidden 0` to `hidden 2`), in a precision.
fn directions(device: &Device, precision: Precision) -> Store {
    let sample = data::load("mnist").unwrap().test;
    let architecture = architectures::by_name("mnist-fast", sample.image, sample.classes).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd/weights.safetensors");
    let weights = checkpoint::load_weights(&file, architecture.as_ref(), &params).unwrap();
    let store = Store::new(device);
    checkpoint::put_weights(&store, &params, &weights).unwrap();
    let noise = |i: usize| if i.wrapping_mul(2_654_435_761) >> 7 & 1 == 0 { 0.2 } else { -0.2 };
    let pixels = (0..IMAGES).flat_map(|i| sample.image(i)).enumerate();
    let pixels = pixels.map(|(i, &byte)| (f64::from(byte) / 255.0 + noise(i)).clamp(0.0, 1.0)).collect();
    store.put("x", [IMAGES, 28, 28, 1], &Host::F64(pixels)).unwrap();
    store.put("labels", [IMAGES], &Host::U32(sample.labels[..IMAGES].to_vec())).unwrap();

    let tape = Tape::new();
    let x = tape.source("x", [IMAGES, 28, 28, 1], DType::F32);
    let param = |name: &str| tape.source(name, params.get(name).unwrap().shape, DType::F32);
    let halving = Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::default() };
    let mut layers = vec![x];
    for name in ["0", "2"] {
        let y = layers[layers.len() - 1].conv2d(param(&format!("{name}.weight")), halving);
        layers.push((y + param(&format!("{name}.bias"))).relu());
    }
    let flat = layers[2].reshape([IMAGES, 1568]);
    layers.push((flat.matmul(param("5.weight")) + param("5.bias")).relu());
    let logits = layers[3].matmul(param("7.weight")) + param("7.bias");
    let labels = tape.source("labels", [IMAGES], DType::U32);
    let gradients = tape.weighted_grad(logits, logits.cross_entropy_direction(labels), &layers);
    for (name, gradient) in ["image", "hidden 0", "hidden 1", "hidden 2"].into_iter().zip(gradients) {
        tape.assign(name, gradient);
    }
    let options = Options { precision, ..Options::default() };
    Plan::of(Schedule::with(&tape, options).unwrap(), &store).unwrap().run().unwrap();
    store
}

#[test]
fn a_trained_networks_gradients_point_the_same_way_and_stay_in_range() {
    let exact = directions(&Device::reference(), Precision::F32);
    let truth = exact.read_f64("image").unwrap();
    // f16 has full precision from 2^-14 on, and nothing below 2^-25; sums of hundreds of such terms need less of it. The
    // image's own gradient is never f16.
    for name in ["hidden 2", "hidden 1", "hidden 0"] {
        let mut sizes: Vec<f64> = exact.read_f64(name).unwrap().iter().map(|g| g.abs()).collect();
        sizes.retain(|&g| g > 0.0);
        sizes.sort_by(f64::total_cmp);
        let below = |bound: f64| sizes.partition_point(|&g| g < bound) as f64 / sizes.len() as f64;
        let (subnormal, lost) = (below(2f64.powi(-14)), below(2f64.powi(-25)));
        let (median, largest) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
        println!(
            "{name}: median {median:.1e}, largest {largest:.1e}; {:.3} % below 2^-14, {:.4} % below 2^-25",
            100.0 * subnormal,
            100.0 * lost
        );
        assert!(largest < 1000.0 && subnormal < 0.02 && lost < 1e-3, "{name} leaves the range of f16");
    }
    let mut devices = vec![Device::cpu()];
    devices.extend(
        Device::adapters().iter().filter(|a| a.offers("SHADER_F16")).map(|a| Device::gpu(a).unwrap()),
    );
    for device in devices {
        for (precision, least) in [(Precision::F32, 0.9999), (Precision::F16, 0.98)] {
            let have = directions(&device, precision).read_f64("image").unwrap();
            let signs = have.iter().zip(&truth).filter(|(_, truth)| **truth != 0.0);
            let (same, all) = signs.fold((0u32, 0u32), |(same, all), (have, truth)| {
                (same + u32::from(have.signum() == truth.signum()), all + 1)
            });
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine = dot(&have, &truth) / (dot(&have, &have) * dot(&truth, &truth)).sqrt();
            let share = f64::from(same) / f64::from(all);
            let on = precision.on(&device);
            println!("{}, {on}: {:.3} % of the signs, cosine {cosine:.6}", device.describe(), 100.0 * share);
            assert!(share >= least, "{on} on {}: only {share} of the signs agree", device.describe());
        }
    }
}
