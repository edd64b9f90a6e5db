//! Which architecture a state dict is of, told from names and shapes.

use super::{Fit, Names, StateDict, list, pickle};
use crate::error::{Error, Result};
use crate::nn::Params;
use crate::nn::architectures::{self, Form, NORMALIZED};

/// Most tensors of a file that is looked at, and the longest name of an architecture that is believed: the networks here
/// have some hundreds of tensors, and each one is held against several architectures.
const MOST_TENSORS: usize = 2048;
const MOST_NAME: usize = 80;
/// Most residual blocks of a stage that are counted.
const MOST_BLOCKS: usize = 64;

/// The name of the architecture that a state dict is of, for images of `input` (rows, columns, channels) and so many
/// classes: the one its metadata name, or the one whose parameters it holds, all of them and of the right extents, and no
/// others. Widths, depths and factors are read off the tensors.
///
/// # Errors
/// [`Error::File`] when it is none, or could be several, which it then names: networks may differ in what they compute and
/// not in their weights, as blocks whose shortcut takes one place or another.
pub fn told(dict: &StateDict, names: &Names, input: [usize; 3], classes: usize) -> Result<String> {
    let mut found = Vec::new();
    let mut nearest: Option<Differences> = None;
    let candidates = if dict.tensors().count() > MOST_TENSORS { Vec::new() } else { candidates(dict) };
    for candidate in candidates {
        let mut hold = |name: &str| {
            let differences = Differences::of(dict, names, name, input, classes);
            let (fits, more) = (differences.none(), differences.could_be_more(dict));
            let name = differences.name.clone();
            if nearest.as_ref().is_none_or(|nearest| differences.count() < nearest.count()) {
                nearest = Some(differences);
            }
            (fits, more, name)
        };
        match hold(&candidate) {
            // A file of a plain network fits the normalised one too, whose constants may be missing.
            (true, _, name) => found.push(name),
            (false, true, _) => {
                let (fits, _, name) = hold(&format!("{candidate}{NORMALIZED}"));
                found.extend(fits.then_some(name));
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
            let near = match nearest.filter(|nearest| nearest.is_near(dict)) {
                Some(nearest) => format!(". Nearest is {}", nearest.text()),
                None => String::new(),
            };
            let why = format!(
                "is of no architecture here for {classes} classes that could be told from its names and shapes{}{near}. \
                 Say by --model which it is (there are {}) and by --weights-names what its names mean; or give any other \
                 network as ONNX: torch.onnx.export(model, images, \"model.onnx\", dynamo=False)",
                has.unwrap_or_default(),
                architectures::names().join(", ")
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

/// How the tensors of a file differ from the parameters of a network.
struct Differences {
    /// The network's name.
    name: String,
    /// Why there is no such network for these images, where there is none.
    refused: Option<String>,
    /// Parameters that the file lacks, names that mean nothing to the network or the same twice, and of tensors of other
    /// extents what they are and would be.
    missing: Vec<String>,
    foreign: Vec<String>,
    misshapen: Vec<String>,
}

impl Differences {
    fn of(dict: &StateDict, names: &Names, name: &str, input: [usize; 3], classes: usize) -> Differences {
        let mut differences = Differences {
            name: name.to_string(),
            refused: None,
            missing: Vec::new(),
            foreign: Vec::new(),
            misshapen: Vec::new(),
        };
        let network = architectures::by_name(name, input, classes);
        let network = network.and_then(|network| Ok((Params::of(network.as_ref())?, network)));
        let (params, network) = match network {
            Ok(network) => network,
            Err(error) => {
                differences.refused = Some(error.to_string());
                return differences;
            }
        };
        differences.name = network.name();
        let fit = Fit::of(dict, names, network.as_ref(), &params);
        differences.missing = fit.missing(&params).into_iter().map(String::from).collect();
        differences.misshapen = fit.misshapen(dict, &params).map(|(_, text)| text).collect();
        differences.foreign = fit.foreign;
        differences.foreign.extend(fit.twice.map(|[_, _, second]| second));
        differences
    }

    fn none(&self) -> bool {
        self.refused.is_none() && self.count() == 0
    }

    /// Whether what the file has besides could be of a normalisation in front.
    fn could_be_more(&self, dict: &StateDict) -> bool {
        let rest = self.missing.len() + self.misshapen.len();
        self.refused.is_none() && !self.foreign.is_empty() && (rest == 0 || self.is_near(dict))
    }

    /// How many there are; a network that cannot be is further than any other.
    fn count(&self) -> usize {
        match self.refused {
            Some(_) => usize::MAX,
            None => self.missing.len() + self.foreign.len() + self.misshapen.len(),
        }
    }

    /// Whether they are worth telling: a network that takes no such images, or one that most tensors are of.
    fn is_near(&self, dict: &StateDict) -> bool {
        self.refused.is_some() || self.foreign.len() + self.misshapen.len() < dict.tensors().count() / 2
    }

    fn text(&self) -> String {
        if let Some(why) = &self.refused {
            return why.clone();
        }
        let listed = |what: &str, names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| pickle::shown(name)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("{what}{}", list(&names, 4)))
        };
        let misshapen: Vec<&str> = self.misshapen.iter().map(String::as_str).collect();
        let parts = [
            listed("the file lacks ", &self.missing),
            listed("the file has besides ", &self.foreign),
            (!misshapen.is_empty()).then(|| list(&misshapen, 4)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("`{}`: {}", self.name, parts.join("; "))
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
            (true, ..) => {
                // Blocks of a stage, and the 3x3 convolution of the first.
                let blocks = |stage: usize| {
                    let block = |at: &usize| has(&format!("layer{stage}.{at}.conv3."));
                    (0..MOST_BLOCKS).take_while(block).count()
                };
                let mut convs = dict.tensors().filter(|(name, _)| name.ends_with("layer1.0.conv2.weight"));
                let conv = convs.next().and_then(|(_, dims)| <[usize; 4]>::try_from(dims).ok());
                let conv = conv.map(|[outputs, inputs, ..]| [outputs, inputs]);
                let form = conv.and_then(|conv| Form::told([blocks(2), blocks(3)], width, conv));
                // Nearest to those of others is ResNet-50.
                let name = form.map_or("resnet50", |form| form.name);
                add(format!("{name}-w{width}"));
                add(format!("{name}-cifar-w{width}"));
                &[]
            }
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
