//! Which architecture a state dict is of, told from names and shapes.

use super::{Fit, Names, StateDict, fits, pickle};
use crate::error::{Error, Result};
use crate::nn::architectures::{self, NORMALIZED};
use crate::nn::{Architecture, Params};

/// Most tensors of a file that is looked at, and the longest name of an architecture that is believed: the networks here
/// have some hundreds of tensors, and each one is held against several architectures.
const MOST_TENSORS: usize = 2048;
const MOST_NAME: usize = 80;

/// The name of the architecture that a state dict is of, for images of `input` (rows, columns, channels) and so many
/// classes: the one its metadata name, or the one whose parameters it holds, all of them and of the right extents, and no
/// others. Widths, depths and factors are read off the tensors.
///
/// # Errors
/// [`Error::File`] when it is none, or could be several, which it then names: networks may differ in what they compute and
/// not in their weights, as blocks whose shortcut takes one place or another.
pub fn told(dict: &StateDict, names: &Names, input: [usize; 3], classes: usize) -> Result<String> {
    let mut found = Vec::new();
    let candidates = if dict.tensors().count() > MOST_TENSORS { Vec::new() } else { candidates(dict) };
    for candidate in candidates {
        let held = |name: &str| {
            let network = architectures::by_name(name, input, classes).ok()?;
            Some((holds(dict, names, network.as_ref()), network.name()))
        };
        match held(&candidate) {
            // A file of a plain network fits the normalised one too, whose constants may be missing.
            Some((Held::All, name)) => found.push(name),
            Some((Held::AndMore, _)) => {
                let normalized = held(&format!("{candidate}{NORMALIZED}"));
                found.extend(normalized.filter(|(held, _)| *held == Held::All).map(|(_, name)| name));
            }
            _ => {}
        }
    }
    found.dedup();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => {
            let classes_of = dict.tensors().filter(|(_, dims)| dims.len() == 2).last();
            let has = classes_of.map(|(name, dims)| format!(" (`{}` is {dims:?})", pickle::shown(name)));
            let why = format!(
                "is of no architecture here for {classes} classes that could be told from its names and shapes{}: say \
                 which it is by --model, and what its names mean by a table of names",
                has.unwrap_or_default()
            );
            Err(Error::file(dict.path(), why))
        }
        several => {
            let why = format!(
                "could be of {}, which have the same weights and compute different things: say which by --model",
                several.join(" or of ")
            );
            Err(Error::file(dict.path(), why))
        }
    }
}

/// What a file holds of the parameters of a network.
#[derive(PartialEq)]
enum Held {
    /// Not all, or of other extents.
    NotAll,
    /// All, and what means nothing to it.
    AndMore,
    /// All and nothing else.
    All,
}

fn holds(dict: &StateDict, names: &Names, network: &dyn Architecture) -> Held {
    let Ok(params) = Params::of(network) else { return Held::NotAll };
    let fit = Fit::of(dict, names, network, &params);
    let shapes = params.iter().zip(&fit.tensors).all(|(param, tensor)| match tensor {
        Some(tensor) => dict.get(tensor).is_some_and(|(dims, _)| fits(param, dims)),
        None => true,
    });
    match (shapes && fit.twice.is_none() && fit.missing(&params).is_empty(), fit.foreign.is_empty()) {
        (true, true) => Held::All,
        (true, false) => Held::AndMore,
        (false, _) => Held::NotAll,
    }
}

/// Names of networks that the file may be of, with the widths that its tensors have.
fn candidates(dict: &StateDict) -> Vec<String> {
    let mut candidates: Vec<String> = Vec::new();
    let mut add = |name: String| {
        if !candidates.contains(&name) {
            candidates.push(name);
        }
    };
    if let Some(model) = dict.model().filter(|model| model.len() <= MOST_NAME) {
        add(model.trim_end_matches(NORMALIZED).to_string());
    }
    // The first convolution: the tensor of that end with the shortest name.
    let outputs = |end: &str| {
        let of_stem = dict.tensors().filter(|(name, dims)| {
            dims.len() == 4
                && name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        of_stem.min_by_key(|(name, _)| name.len()).map(|(_, dims)| dims[0])
    };
    if let Some(width) = outputs("conv1.weight") {
        // Which of the residual ones it could be is seen by a few names, and recording each of them would take long.
        let has = |part: &str| dict.tensors().any(|(name, _)| name.contains(part));
        let bottlenecks = has("layer1.0.conv3.");
        let norms = ["shortcut.1.", "downsample.1."].into_iter().any(&has);
        let residual: &[&str] = match (bottlenecks, norms, has("layer1.2.")) {
            _ if !has("layer1.0.conv2.") => &[],
            (true, ..) => &["resnet50", "resnet50-cifar"],
            (false, true, true) => &["resnet34", "resnet34-imagenet"],
            (false, true, false) => &["resnet18", "resnet18-imagenet"],
            (false, false, _) => &[
                "preact-resnet18",
                "preact-resnet18-fast",
                "preact-resnet18-gradalign",
                "preact-resnet18-nobn",
            ],
        };
        residual.iter().for_each(|name| add(format!("{name}-w{width}")));
    }
    for (name, end) in [
        ("vgg11-bn", "features.0.weight"),
        ("vgg16-bn", "features.0.weight"),
        ("convnext-tiny", "features.0.0.weight"),
    ] {
        if let Some(width) = outputs(end) {
            add(format!("{name}-w{width}"));
        }
    }
    // Blocks of a stage of a wide network; its first convolution has 16 times the factor outputs.
    let block = |name: &str| {
        let rest = name.split("block1.layer.").nth(1).filter(|_| !name.contains("sub_block1"))?;
        rest.split('.').next()?.parse::<usize>().ok()
    };
    let last = dict.tensors().filter_map(|(name, _)| block(name)).max().filter(|&last| last < 200);
    let first = dict
        .tensors()
        .find(|(name, _)| name.ends_with("block1.layer.0.conv1.weight") && !name.contains("sub_block1"));
    if let (Some(last), Some((_, dims))) = (last, first)
        && dims.first().is_some_and(|outputs| outputs % 16 == 0)
    {
        add(format!("wide-resnet-{}-{}", 6 * (last + 1) + 4, dims[0] / 16));
    }
    for (name, end) in [
        ("small-cnn", "feature_extractor.conv1.weight"),
        ("lenet5", "conv1.weight"),
        ("mnist-madry", "conv1.weight"),
        ("mnist-fast", "0.weight"),
    ] {
        if outputs(end).is_some() && dict.tensors().count() < 40 {
            add(name.to_string());
        }
    }
    // A perceptron: matrices alone, each of which gives what the next one takes.
    let matrices: Vec<&[usize]> =
        dict.tensors().map(|(_, dims)| dims).filter(|dims| dims.len() > 1).collect();
    let chain = matrices.iter().all(|dims| dims.len() == 2)
        && matrices.windows(2).all(|pair| pair[0][0] == pair[1][1])
        && matrices.len() < 20;
    if let (true, [hidden @ .., _]) = (chain, &matrices[..])
        && !hidden.is_empty()
    {
        let widths: Vec<String> = hidden.iter().map(|dims| dims[0].to_string()).collect();
        add(format!("mlp-{}", widths.join("-")));
    }
    candidates
}
