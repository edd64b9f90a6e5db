//! Networks as they are used, which are not in the repository: `tools/check_onnx.py` makes a folder of them, runs this test
//! with `ADAMANT_ONNX=FOLDER`, and compares what it writes. Without the variable there is nothing to do.

use super::export::{images, weights};
use super::import::{difference, floats, here, run, run_with};
use adamant::device::Device;
use adamant::nn::{Onnx, architectures, to_onnx};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use std::fs;
use std::path::Path;

const SAME: f64 = 1e-5;

/// As `by_name` knows them, with images and classes.
const NETWORKS: [(&str, [usize; 3], usize); 24] = [
    ("mlp", [28, 28, 1], 10),
    ("mlp-256-128-normalized", [32, 32, 3], 10),
    ("mnist-fast", [28, 28, 1], 10),
    ("mnist-madry", [28, 28, 1], 10),
    ("lenet5", [28, 28, 1], 10),
    ("lenet5-normalized", [32, 32, 3], 10),
    ("small-cnn", [28, 28, 1], 10),
    ("small-cnn-normalized", [32, 32, 3], 43),
    ("preact-resnet18", [32, 32, 3], 10),
    ("preact-resnet18-normalized", [32, 32, 3], 10),
    ("preact-resnet18-gradalign", [32, 32, 3], 10),
    ("preact-resnet18-fast-normalized", [32, 32, 3], 10),
    ("preact-resnet18-nobn", [32, 32, 3], 10),
    ("resnet18", [32, 32, 3], 10),
    ("resnet18-imagenet-normalized", [96, 96, 3], 100),
    ("resnet18-normalized", [32, 32, 3], 100),
    ("resnet34", [32, 32, 3], 10),
    ("resnet50", [96, 96, 3], 100),
    ("resnet50-normalized", [96, 96, 3], 100),
    ("resnet50-cifar", [32, 32, 3], 10),
    ("wide-resnet-28-4-normalized", [32, 32, 3], 10),
    ("vgg11-bn", [32, 32, 3], 10),
    ("vgg16-bn-normalized", [32, 32, 3], 10),
    ("convnext-tiny-normalized", [96, 96, 3], 10),
];

/// NHWC as NCHW.
fn there(values: &[f64], [rows, columns, channels]: [usize; 3]) -> Vec<f32> {
    let image = |image: &[f64]| -> Vec<f32> {
        (0..channels).flat_map(|c| (0..rows * columns).map(move |i| image[i * channels + c] as f32)).collect()
    };
    values.chunks(rows * columns * channels).flat_map(image).collect()
}

#[test]
fn real_networks() {
    let Some(folder) = std::env::var_os("ADAMANT_ONNX") else { return };
    let folder = Path::new(&folder);
    let (device, exact) = (Device::cpu(), Device::reference());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    files.sort();
    let mut wrong = Vec::new();
    let mut hold = |name: &str, what: &str, off: f64| {
        println!("{name:40} {what:10} {off:.1e}");
        if off > SAME || off.is_nan() {
            wrong.push(format!("{name}: {what} differ by {off:.1e}"));
        }
    };
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let bytes = fs::read(path.with_extension("safetensors")).unwrap();
        let answers = SafeTensors::deserialize(&bytes).unwrap();
        let (shape, x) = floats(&answers, "x");
        let image = match shape[1..] {
            [channels, rows, columns] => Some([rows, columns, channels]),
            _ => None,
        };
        let network = match Onnx::open_for(&path, image) {
            Ok(network) => network,
            Err(error) => {
                println!("{error}");
                hold(&name, "refused", f64::NAN);
                continue;
            }
        };
        let v = answers.tensor("v").is_ok().then(|| floats(&answers, "v").1);
        let y = run(&network, &device, &here(&shape, &x), None).0;
        hold(&name, "logits", difference(&y, &floats(&answers, "y").1));
        // In f64, as PyTorch's: in f32 a unit that is nearly 0 may open or close, and with it what lies behind.
        if let Some(v) = v
            && let Some(dx) = run(&network, &exact, &here(&shape, &x), Some(&v)).1
        {
            let off = difference(&dx, &here(&shape, &floats(&answers, "dx").1));
            // How far PyTorch's own turns where the image moves by a rounding: there a unit is as good as 0, and the file's weights,
            // into which a batch norm may have been rounded, open or close it.
            match answers.tensor("turned").is_ok().then(|| floats(&answers, "turned").1[0]) {
                Some(turned) if off > SAME && off <= 2.0 * turned => {
                    println!(
                        "{name:40} gradient   {off:.1e}, where PyTorch's turns by {turned:.1e} for a rounding"
                    );
                }
                _ => hold(&name, "gradient", off),
            }
        }
    }
    let out = folder.join("exported");
    fs::create_dir_all(&out).unwrap();
    for (name, input, classes) in NETWORKS {
        let network = architectures::by_name(name, input, classes).unwrap();
        let weights = weights(network.as_ref());
        fs::write(out.join(format!("{name}.onnx")), to_onnx(network.as_ref(), &weights).unwrap()).unwrap();
        let x = images(network.as_ref(), 4);
        let y = run_with(network.as_ref(), &weights, &device, &x, None).0;
        let x = there(&x, input);
        let y: Vec<f32> = y.into_iter().map(|y| y as f32).collect();
        let view = |shape: Vec<usize>, values: &[f32]| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            (shape, bytes)
        };
        let [rows, columns, channels] = input;
        let tensors = [("x", view(vec![4, channels, rows, columns], &x)), ("y", view(vec![4, classes], &y))];
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &out.join(format!("{name}.safetensors"))).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
