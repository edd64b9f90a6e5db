//! Networks of files against onnxruntime and PyTorch.

use super::reference::permute;
use adamant::data::Dataset;
use adamant::device::Device;
use adamant::nn::{Architecture, Mode, Net, Onnx, Params, Role, Tape, architectures};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::train::{Recipe, Trainer, checkpoint};
use adamant::weights::Weights;
use adamant::{DType, Shape};
use safetensors::SafeTensors;

/// Largest difference from onnxruntime's f32, relative to the largest element.
const SAME: f64 = 1e-5;

/// The file of networks and answers.
pub fn cases() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/onnx.safetensors")).unwrap()
}

/// The networks' names.
pub fn names(file: &SafeTensors<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        file.names().iter().filter_map(|name| Some(name.strip_suffix(".model")?.to_string())).collect();
    names.sort();
    names
}

/// Extents and elements of a tensor.
pub fn floats(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let tensor = file.tensor(name).unwrap();
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.data());
    (tensor.shape().to_vec(), values.into_iter().map(f64::from).collect())
}

/// Images as they lie here, NCHW or vectors of features.
pub fn here(shape: &[usize], values: &[f64]) -> Vec<f64> {
    if shape.len() == 4 { permute(values, shape, &[0, 2, 3, 1]) } else { values.to_vec() }
}

/// Logits of images, and the gradient by the images of the sum of logits times `v`.
pub fn run(
    network: &dyn Architecture,
    device: &Device,
    images: &[f64],
    v: Option<&[f64]>,
) -> (Vec<f64>, Option<Vec<f64>>) {
    let params = Params::of(network).unwrap();
    let weights = params.iter().map(|param| param.name.clone()).zip(params.initial(0)).collect();
    run_with(network, &weights, device, images, v)
}

/// The same with other weights than the network begins from.
pub fn run_with(
    network: &dyn Architecture,
    weights: &Weights,
    device: &Device,
    images: &[f64],
    v: Option<&[f64]>,
) -> (Vec<f64>, Option<Vec<f64>>) {
    let [rows, columns, channels] = network.input();
    let batch = images.len() / (rows * columns * channels);
    let store = Store::new(device);
    checkpoint::put_weights(&store, &Params::of(network).unwrap(), weights).unwrap();
    let shape = Shape::new(&[batch, rows, columns, channels]);
    store.put("images", shape, &Host::F64(images.to_vec())).unwrap();
    let tape = Tape::new();
    let x = tape.source("images", shape, DType::F32);
    let y = network.forward(&Net::new(&tape, Mode::Eval), x);
    tape.assign("logits", y);
    if let Some(v) = v {
        store.put("v", y.shape(), &Host::F64(v.to_vec())).unwrap();
        let by = tape.source("v", y.shape(), DType::F32);
        tape.assign("gradient", tape.weighted_grad(y, by, &[x])[0]);
    }
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    (store.read_f64("logits").unwrap(), v.map(|_| store.read_f64("gradient").unwrap()))
}

/// Largest difference relative to the largest element.
pub fn difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    // Written so that NaN is the largest of all.
    got.iter().zip(want).fold(0.0, |m: f64, (a, b)| {
        let d = (a - b).abs();
        if d <= m { m } else { d }
    }) / largest
}

#[test]
fn networks_say_what_onnxruntime_says_with_pytorchs_gradients() {
    let bytes = cases();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(names(&file).len() > 100);
    let mut wrong = Vec::new();
    for device in [Device::reference(), Device::cpu()] {
        for name in names(&file) {
            let network = match Onnx::from_bytes(file.tensor(&format!("{name}.model")).unwrap().data()) {
                Ok(network) => network,
                Err(error) => {
                    wrong.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let (shape, x) = floats(&file, &format!("{name}.x"));
            let v = file.tensor(&format!("{name}.v")).is_ok().then(|| floats(&file, &format!("{name}.v")).1);
            let (y, dx) = run(&network, &device, &here(&shape, &x), v.as_deref());
            let off = difference(&y, &floats(&file, &format!("{name}.y")).1);
            if off > SAME || off.is_nan() {
                wrong.push(format!("{name} on {}: logits differ by {off:.1e}", device.describe()));
            }
            if let Some(dx) = dx {
                let want = here(&shape, &floats(&file, &format!("{name}.dx")).1);
                let off = difference(&dx, &want);
                if off > SAME || off.is_nan() {
                    wrong.push(format!("{name} on {}: the gradient differs by {off:.1e}", device.describe()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The bytes of a network of the file.
pub fn model(name: &str) -> Vec<u8> {
    let bytes = cases();
    SafeTensors::deserialize(&bytes).unwrap().tensor(&format!("{name}.model")).unwrap().data().to_vec()
}

#[test]
fn weights_bear_pytorchs_names_and_shapes() {
    let network = Onnx::from_bytes(&model("viewed.traced")).unwrap();
    assert_eq!((network.input(), network.classes()), ([12, 12, 1], 4));
    assert!(!network.through_softmax());
    let params = Params::of(&network).unwrap();
    let shapes: Vec<(&str, Vec<usize>)> =
        params.iter().map(|param| (param.name.as_str(), param.torch_shape())).collect();
    let want: [(&str, &[usize]); 8] = [
        ("conv1.weight", &[3, 1, 5, 5]),
        ("conv1.bias", &[3]),
        ("conv2.weight", &[4, 3, 4, 4]),
        ("conv2.bias", &[4]),
        ("fc1.weight", &[7, 36]),
        ("fc1.bias", &[7]),
        ("fc2.weight", &[4, 7]),
        ("fc2.bias", &[4]),
    ];
    assert_eq!(shapes, want.map(|(name, dims)| (name, dims.to_vec())));
    let softmax = Onnx::from_bytes(&model("plain.traced")).unwrap();
    assert!(softmax.through_softmax());
    // Twice the same weight is one parameter.
    let twice = Params::of(&Onnx::from_bytes(&model("op.same-weight-twice")).unwrap()).unwrap();
    assert_eq!(twice.len(), 1);
}

#[test]
fn a_network_of_a_file_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mobile.onnx");
    std::fs::write(&path, model("mobile.training")).unwrap();
    let name = path.to_str().unwrap();
    let images: Vec<u8> = (0..40 * 9 * 11 * 3).map(|i| (i * 37 % 251) as u8).collect();
    let labels = (0..40).map(|i| i % 5).collect();
    let classes = (0..5).map(|class| class.to_string()).collect();
    let data = Dataset::new("test", "made here", [9, 11, 3], images, labels, classes).unwrap();
    let network = architectures::by_name(name, data.image, 5).unwrap();
    assert_eq!(network.name(), name);
    let begin = Params::of(network.as_ref()).unwrap();
    let recipe =
        Recipe { model: name.into(), steps: 2, batch: 20, validation: 0, probe: 0, ..Recipe::default() };
    let trainer = Trainer::new(recipe, network, &data, &Device::cpu()).unwrap();
    let before = trainer.weights().unwrap();
    for ((name, values), (param, given)) in before.iter().zip(begin.iter().zip(begin.initial(1))) {
        assert_eq!((name, values), (&param.name, &given), "training begins from the file's weights");
    }
    trainer.next_step().unwrap().run().unwrap();
    // A gate of two units may be dead, and learns nothing then.
    let after = trainer.weights().unwrap();
    for ((name, old), (_, new)) in
        before.iter().zip(&after).filter(|((name, _), _)| !name.starts_with("gate"))
    {
        let role = begin.get(name).unwrap().role;
        assert_eq!(old == new, role == Role::Constant, "{name} ({role:?})");
    }
    let statistics = before.iter().filter(|(name, _)| name.contains("running")).count();
    assert_eq!(statistics, 4, "batch norms were exported as they are");
}

#[test]
fn images_that_the_network_does_not_take_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("viewed.onnx");
    std::fs::write(&path, model("viewed.traced")).unwrap();
    let name = path.to_str().unwrap();
    let error = |name: &str, image, classes| {
        architectures::by_name(name, image, classes).err().expect("refused").to_string()
    };
    assert!(error(name, [12, 12, 3], 4).contains("takes images of 12x12 with 1 channels"));
    assert!(error(name, [12, 12, 1], 10).contains("4 classes"));
    assert!(error(&format!("{name}.onnx"), [12, 12, 1], 4).contains("could not read"));
    // Behind a normalisation of the house, and vectors of features for what takes flattened images.
    let normalized = format!("{name}-normalized");
    assert_eq!(architectures::by_name(&normalized, [12, 12, 1], 4).unwrap().name(), normalized);
}
