//! Files that torch.save and safetensors wrote under the names and in the nesting of other programs
//! (tools/make_weights.py): the network is told, its logits are PyTorch's.

use super::reference::{Reference, permute};
use adamant::nn::{Mode, Net, Params, Tape, architectures};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::weights::{self, Names, StateDict, Taking};
use adamant::{DType, Device};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Largest difference of a logit, relative to the largest: sums in another order, all in f64.
const TOLERANCE: f64 = 1e-11;

pub(super) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference/weights").join(file)
}

/// Logits of the images kept for a file, by its weights in a network of this name.
fn holds(file: &str, model: &str, taking: &Taking) {
    let name = file.split('.').next().unwrap();
    // The same weights, in another form.
    let name = if name == "legacy-resnet18" { "robustbench-resnet18" } else { name };
    let expected = Reference::open("weights/expected");
    let (shape, images) = expected.get(&format!("{name}.images"));
    let classes = expected.get(&format!("{name}.logits")).0[1];
    let [batch, channels, rows, columns] = shape[..] else { panic!("{shape:?}") };
    let input = [rows, columns, channels];
    let network = architectures::by_name(model, input, classes).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let weights = weights::load(&path(file), network.as_ref(), &params, taking).unwrap();

    let store = Store::new(&Device::reference());
    adamant::train::checkpoint::put_weights(&store, &params, &weights).unwrap();
    let nhwc = permute(&images, &shape, &[0, 2, 3, 1]);
    store.put("x", [batch, rows, columns, channels], &Host::F64(nhwc)).unwrap();
    let tape = Tape::new();
    let net = Net::new(&tape, Mode::Eval);
    let x = tape.source("x", [batch, rows, columns, channels], DType::F32);
    tape.assign("logits", network.forward(&net, x));
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    let logits = store.read_f64("logits").unwrap();
    expected
        .check(&format!("{name}.logits"), &logits, TOLERANCE)
        .unwrap_or_else(|why| panic!("{file}: {why}"));
}

/// What the weights of a file are told to be of.
fn told(file: &str, input: [usize; 3], classes: usize) -> Result<String, String> {
    let names = Names::default();
    let dict = weights::open(&path(file), &names).unwrap();
    weights::told(&dict, &names, input, classes).map_err(|error| error.to_string())
}

const SMALL: [usize; 3] = [16, 16, 3];
const LARGE: [usize; 3] = [40, 40, 3];

#[test]
fn networks_of_other_programs_are_told_and_give_pytorchs_logits() {
    for (file, model, input, classes) in [
        ("torchvision-resnet18.pth", "resnet18-imagenet-w2", LARGE, 7),
        ("robustbench-resnet18.pt", "resnet18-w2-normalized", SMALL, 10),
        ("legacy-resnet18.pt", "resnet18-w2-normalized", SMALL, 10),
        ("trades-wide-resnet.pt", "wide-resnet-10-1", SMALL, 10),
        ("robustness-resnet18.pt", "resnet18-w1-normalized", SMALL, 10),
        ("views-mnist-fast.pt", "mnist-fast", [10, 10, 1], 3),
    ] {
        assert_eq!(told(file, input, classes).as_deref(), Ok(model), "{file}");
        holds(file, model, &Taking::default());
    }
}

#[test]
fn what_has_the_same_weights_and_computes_something_else_is_asked_for() {
    let names = |error: Result<String, String>, models: &[&str]| {
        let error = error.unwrap_err();
        assert!(models.iter().all(|model| error.contains(model)) && error.contains("--model"), "{error}");
    };
    // Without the last batch norm: the shortcut's convolution may take one thing or another.
    let wong = told("checkpoint-preact-resnet18.pt", SMALL, 10);
    names(wong, &["preact-resnet18-gradalign-w2", "preact-resnet18-nobn-w2"]);
    holds("checkpoint-preact-resnet18.pt", "preact-resnet18-gradalign-w2", &Taking::default());
    let compiled = told("compiled-preact-resnet18.safetensors", SMALL, 10);
    names(compiled, &["preact-resnet18-w1", "preact-resnet18-fast-w1"]);
    holds("compiled-preact-resnet18.safetensors", "preact-resnet18-w1", &Taking::default());
}

#[test]
fn a_normalisation_in_front_is_found_by_any_of_its_names() {
    assert_eq!(told("sequential-resnet50.pt", LARGE, 5).as_deref(), Ok("resnet50-w1-normalized"));
    holds("sequential-resnet50.pt", "resnet50-w1-normalized", &Taking::default());
    // A network without one would see other pixels: its constants are not dropped in silence.
    let network = architectures::by_name("resnet50-w1", LARGE, 5).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let taking = Taking::default();
    let error = weights::load(&path("sequential-resnet50.pt"), network.as_ref(), &params, &taking);
    let error = error.unwrap_err().to_string();
    for words in ["normalize.mean", "normalize.std besides", "that is `resnet50-w1-normalized`"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn names_that_no_one_knows_are_listed_and_can_be_said() {
    let input = [4, 4, 1];
    let network = architectures::by_name("mlp-6", input, 3).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("names.toml");
    let load = |text: &str| {
        std::fs::write(&table, text).unwrap();
        let taking = Taking { names: Names::read(&table).unwrap(), redraw_last: None };
        weights::load(&path("names-mlp.pt"), network.as_ref(), &params, &taking).map(|_| taking)
    };
    let error = |text: &str| load(text).err().unwrap().to_string();
    // Where the state dict is.
    let lost = error("");
    assert!(lost.contains("keys there are ema, last") || lost.contains("in `last`"), "{lost}");
    // What the names mean: all that is unknown is listed, all that is missing too.
    let unknown = error("open = 'ema.weights'");
    for words in [
        "lacks 1.weight, 1.bias, 3.weight, 3.bias",
        "_orig_mod.encoder.hidden.weight",
        "_orig_mod.top.b",
        "_orig_mod.aux.weight",
    ] {
        assert!(unknown.contains(words), "{unknown}");
    }
    let most = "open = 'ema.weights'\n[names]\n'*aux.*' = ''\n'_orig_mod.encoder.hidden.*' = '1.*'";
    let rest = error(most);
    assert!(rest.contains("lacks 3.weight, 3.bias and has _orig_mod.top.w, _orig_mod.top.b"), "{rest}");
    let twice = error(&format!("{most}\n'*.top.*' = '3.bias'"));
    assert!(twice.contains("has both") && twice.contains("for `3.bias`"), "{twice}");
    let shape = error(&format!("{most}\n'*.top.w' = '3.bias'\n'*.top.b' = '3.weight'"));
    assert!(shape.contains("`3.weight` (`_orig_mod.top.b`) is [3]") && shape.contains("[3, 6]"), "{shape}");
    let all = format!("{most}\n'*.top.w' = '3.weight'\n'*.top.b' = '3.bias'");
    holds("names-mlp.pt", "mlp-6", &load(&all).unwrap());
}

#[test]
fn weights_of_another_network_say_whose_they_are() {
    let network = architectures::by_name("resnet34", SMALL, 10).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let error =
        weights::load(&path("robustbench-resnet18.pt"), network.as_ref(), &params, &Taking::default());
    let error = error.unwrap_err().to_string();
    for words in ["not of `resnet34`", "it lacks layer1.2.conv1.weight", "that is `resnet18-w2-normalized`"] {
        assert!(error.contains(words), "{error}");
    }
    let none = told("robustbench-resnet18.pt", SMALL, 11).unwrap_err();
    assert!(none.contains("no architecture here for 11 classes") && none.contains("[10, 16]"), "{none}");
    // What is nearest, what differs, what there is, and what to do with all others.
    for words in [
        "Nearest is `resnet18-w2-normalized`: `linear.weight` (`module.linear.weight`) is [10, 16] instead of [11, 16]",
        "`linear.bias` (`module.linear.bias`) is [10] instead of [11]",
        "there are mlp, mnist-fast,",
        "wide-resnet50-2",
        "torch.onnx.export(model, images",
    ] {
        assert!(none.contains(words), "{words}: {none}");
    }
    let grey = told("robustbench-resnet18.pt", [16, 16, 1], 10).unwrap_err();
    assert!(grey.contains("is [2, 3, 3, 3] instead of [2, 1, 3, 3]"), "{grey}");
    // Too small an image for the network that it is of.
    let tiny = told("torchvision-resnet18.pth", [0, 40, 3], 7).unwrap_err();
    assert!(tiny.contains("none may be 0"), "{tiny}");
}

/// A safetensors file of tensors without a number in them other than 0.
fn zeros(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut end) = (Vec::new(), 0);
    for (name, dims) in tensors {
        let start = end;
        end += 4 * dims.iter().product::<usize>();
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":{dims:?},"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat()
}

/// What these weights are told to be of.
fn told_of(tensors: &[(String, Vec<usize>)], input: [usize; 3], classes: usize) -> Result<String, String> {
    let dict = StateDict::of(Box::new(Cursor::new(zeros(tensors))), Path::new("FILE"), "").unwrap();
    weights::told(&dict, &Names::default(), input, classes).map_err(|error| error.to_string())
}

/// Names and extents of a network's tensors, as PyTorch has them.
fn tensors(model: &str, input: [usize; 3], classes: usize) -> Vec<(String, Vec<usize>)> {
    let params = Params::of(architectures::by_name(model, input, classes).unwrap().as_ref()).unwrap();
    params.iter().map(|param| (param.name.clone(), param.torch_shape())).collect()
}

#[test]
fn torchvisions_networks_of_bottlenecks_are_told_by_depth_width_and_groups() {
    for model in [
        "resnet50-w16",
        "resnet101-w16",
        "resnet152-w16",
        "wide-resnet50-2-w16",
        "wide-resnet101-2-w16",
        "resnext50-32x4d-w16",
        "resnext101-32x8d-w16",
        "resnext101-64x4d-w16",
        "resnet101-cifar-w16",
    ] {
        assert_eq!(told_of(&tensors(model, LARGE, 5), LARGE, 5).as_deref(), Ok(model));
    }
}

#[test]
fn what_differs_from_the_nearest_architecture_is_cut_to_a_few() {
    // A deeper one than there is, under the names of ResNet-50.
    let mut deeper = tensors("resnet50-w2", LARGE, 5);
    for block in 6..12 {
        deeper.push((format!("layer3.{block}.conv1.weight"), vec![8, 32, 1, 1]));
    }
    let error = told_of(&deeper, LARGE, 5).unwrap_err();
    for words in [
        "Nearest is `resnet50-w2`: the file has besides layer3.6.conv1.weight, layer3.7.conv1.weight",
        "layer3.9.conv1.weight and 2 more",
    ] {
        assert!(error.contains(words), "{error}");
    }
    let fewer: Vec<_> = tensors("resnet50-w2", LARGE, 5)
        .into_iter()
        .filter(|(name, _)| !name.starts_with("layer4.2.bn"))
        .collect();
    let error = told_of(&fewer, LARGE, 5).unwrap_err();
    assert!(error.contains("the file lacks layer4.2.bn1.weight") && error.contains(" more"), "{error}");
    // Of nothing here: no nearest is made up.
    let none = told_of(&[("encoder.weight".into(), vec![3, 4]), ("decoder.bias".into(), vec![3])], LARGE, 5);
    let none = none.unwrap_err();
    assert!(!none.contains("Nearest") && none.contains("torch.onnx.export"), "{none}");
}

/// What a file of these bytes is taken for; `w` is `[1, 2]` in it.
fn format(bytes: Vec<u8>) -> Result<&'static str, String> {
    let mut dict = StateDict::of(Box::new(Cursor::new(bytes)), Path::new("FILE"), "")
        .map_err(|error| error.to_string())?;
    assert_eq!(dict.read("w").unwrap(), [1.0, 2.0]);
    Ok(dict.format())
}

#[test]
fn a_header_of_any_length_is_safetensors_and_a_pickle_of_any_protocol_is_none() {
    let tensor = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let numbers = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    let mut begin_as_a_pickle = 0;
    // Lengths of 128, 384, 640 (as protocol 2), 896 (3), 1152 (4) and so on begin with the byte of a pickle.
    for length in (tensor.len().next_multiple_of(8)..1500).step_by(8) {
        let mut header = tensor.to_vec();
        header.resize(length, b' ');
        let file = [&(length as u64).to_le_bytes()[..], &header, &numbers].concat();
        begin_as_a_pickle += usize::from(file[0] == 0x80);
        assert_eq!(format(file).as_deref(), Ok("safetensors"), "a header of {length} bytes");
    }
    assert_eq!(begin_as_a_pickle, 6);
    // The older form of torch.save begins with a pickle; what follows the first two bytes is the same in each protocol.
    let pickle = std::fs::read(path("legacy-resnet18.pt")).unwrap();
    assert_eq!(pickle[..2], [0x80, 2]);
    for protocol in 2..=5 {
        let file = [&[0x80, protocol], &pickle[2..]].concat();
        let dict = StateDict::of(Box::new(Cursor::new(file)), Path::new("FILE"), "").unwrap();
        assert_eq!(dict.format(), "PyTorch", "protocol {protocol}");
    }
    for other in [0, 1, 6, 255] {
        let file = [&[0x80, other], &pickle[2..]].concat();
        let refused = StateDict::of(Box::new(Cursor::new(file)), Path::new("FILE"), "").err().unwrap();
        assert!(refused.to_string().contains("neither safetensors nor"), "protocol {other}: {refused}");
    }
}
