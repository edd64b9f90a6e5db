//! The architectures, one a file, and the names that build them.

mod mlp;
mod mnist_fast;
mod mnist_madry;
mod preact_resnet18;
mod residual;
mod resnet18;

pub use mlp::Mlp;
pub use mnist_fast::MnistFast;
pub use mnist_madry::MnistMadry;
pub use preact_resnet18::PreActResNet18;
pub use residual::Normalization;
pub use resnet18::ResNet18;

use super::{Architecture, Params};
use crate::error::{Error, Result};

/// Builds an architecture for images of `input` and so many classes from what follows its name and a dash (empty
/// where nothing does), or says why not.
type Build = fn(&str, [usize; 3], usize) -> std::result::Result<Box<dyn Architecture>, String>;

/// An architecture is one file and one line here.
const REGISTRY: [(&str, Build); 5] = [
    ("mlp", mlp::build),
    ("mnist-fast", mnist_fast::build),
    ("mnist-madry", mnist_madry::build),
    ("preact-resnet18", preact_resnet18::build),
    ("resnet18", resnet18::build),
];

/// Widest layer that a name may ask for.
const MAX_WIDTH: usize = 1 << 16;

/// The names of the architectures; some take options behind a dash, as "mlp-256-128".
pub fn names() -> Vec<&'static str> {
    REGISTRY.iter().map(|(name, _)| *name).collect()
}

/// The architecture `name` for images of `input` (rows, columns, channels) and so many classes:
///
/// * `mlp`, or `mlp-256-128` with these hidden widths;
/// * `mnist-fast`, `mnist-madry`;
/// * `preact-resnet18`, `resnet18`, with `-w8` for 8 channels in the first stage in place of 64 and `-normalized` for an input
///   that is normalised inside.
///
/// # Errors
/// [`Error::Argument`]: an unknown name (with the nearest known one), an option that is not one, or images that the
/// network cannot take.
pub fn by_name(name: &str, input: [usize; 3], classes: usize) -> Result<Box<dyn Architecture>> {
    let options = |known: &str| match name.strip_prefix(known)? {
        "" => Some(""),
        rest => rest.strip_prefix('-').filter(|options| !options.is_empty()),
    };
    let found = REGISTRY.iter().find_map(|(known, build)| Some((build, options(known)?)));
    let (build, options) = found.ok_or_else(|| Error::unknown("model", name, &names()))?;
    let refuse = |why: String| Error::argument("model", format!("`{name}`"), why);
    if input.contains(&0) || classes == 0 {
        return Err(refuse(format!("images of {input:?} and {classes} classes: none may be 0")));
    }
    let architecture = build(options, input, classes).map_err(refuse)?;
    // A scratch recording: whatever does not fit the images comes out here, before anything is trained.
    Params::of(architecture.as_ref()).map_err(|e| {
        let [rows, columns, channels] = input;
        refuse(format!("does not take images of {rows}x{columns} with {channels} channels: {e}"))
    })?;
    Ok(architecture)
}

/// A width given in a name.
fn width(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(width) if (1..=MAX_WIDTH).contains(&width) => Ok(width),
        _ => Err(format!("`{text}` is not a width from 1 to {MAX_WIDTH}")),
    }
}

/// That nothing follows the name of an architecture without options.
fn no_options(options: &str) -> std::result::Result<(), String> {
    if options.is_empty() { Ok(()) } else { Err(format!("takes no options, `{options}` is not known")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Net, Tape};
    use crate::shape::DType;

    const MNIST: [usize; 3] = [28, 28, 1];
    const CIFAR: [usize; 3] = [32, 32, 3];

    fn params(name: &str, input: [usize; 3]) -> Params {
        Params::of(by_name(name, input, 10).unwrap().as_ref()).unwrap()
    }

    #[test]
    fn numbers_of_parameters() {
        assert_eq!(params("mlp", MNIST).count(), 784 * 100 + 100 + 100 * 10 + 10);
        let fast = 16 * 16 + 16 + 16 * 16 * 32 + 32 + 1568 * 100 + 100 + 100 * 10 + 10;
        assert_eq!((params("mnist-fast", MNIST).count(), fast), (166_406, 166_406));
        let madry = 25 * 32 + 32 + 25 * 32 * 64 + 64 + 3136 * 1024 + 1024 + 1024 * 10 + 10;
        assert_eq!(params("mnist-madry", MNIST).count(), madry);
    }

    #[test]
    fn preact_resnet18_has_as_many_parameters_as_its_formula() {
        // Stem; per block two 3x3 convolutions, two batch norms (weight and bias of each), and a 1x1 shortcut where
        // a stage begins; final batch norm; linear.
        let formula = |w: usize, channels: usize| {
            let block = |i: usize, o: usize, shortcut: bool| {
                9 * i * o + 9 * o * o + 2 * i + 2 * o + if shortcut { i * o } else { 0 }
            };
            let stage = |i: usize, o: usize| block(i, o, i != o) + block(o, o, false);
            let stages = stage(w, w) + stage(w, 2 * w) + stage(2 * w, 4 * w) + stage(4 * w, 8 * w);
            9 * channels * w + stages + 2 * 8 * w + 8 * w * 10 + 10
        };
        assert_eq!(formula(64, 3), 11_172_170);
        assert_eq!(params("preact-resnet18", CIFAR).count(), 11_172_170);
        assert_eq!(params("preact-resnet18-w8", MNIST).count(), formula(8, 1));
    }

    #[test]
    fn resnet18_has_as_many_parameters_as_its_formula() {
        // As the pre-activation one, but a block's second batch norm is as wide as its result, a shortcut has one
        // too, and the first one follows the stem.
        let formula = |w: usize, channels: usize| {
            let block =
                |i: usize, o: usize| 9 * i * o + 9 * o * o + 4 * o + if i == o { 0 } else { i * o + 2 * o };
            let stage = |i: usize, o: usize| block(i, o) + block(o, o);
            let stages = stage(w, w) + stage(w, 2 * w) + stage(2 * w, 4 * w) + stage(4 * w, 8 * w);
            9 * channels * w + 2 * w + stages + 8 * w * 10 + 10
        };
        assert_eq!(formula(64, 3), 11_173_962);
        assert_eq!(params("resnet18", CIFAR).count(), 11_173_962);
        assert_eq!(params("resnet18-w8", MNIST).count(), formula(8, 1));
    }

    #[test]
    fn names_come_back() {
        for name in
            ["mlp", "mlp-7", "mlp-256-128", "mnist-fast", "mnist-madry", "preact-resnet18", "resnet18"]
        {
            assert_eq!(by_name(name, CIFAR, 10).unwrap().name(), name);
        }
        for name in [
            "preact-resnet18-w8",
            "preact-resnet18-normalized",
            "preact-resnet18-w8-normalized",
            "resnet18-w8-normalized",
        ] {
            let architecture = by_name(name, CIFAR, 7).unwrap();
            assert_eq!((architecture.name(), architecture.input()), (name.to_string(), CIFAR));
            assert_eq!(architecture.classes(), 7);
        }
        // The default options are not spelt out.
        assert_eq!(by_name("mlp-100", MNIST, 10).unwrap().name(), "mlp");
        assert_eq!(by_name("preact-resnet18-w64", CIFAR, 10).unwrap().name(), "preact-resnet18");
    }

    #[test]
    fn what_cannot_be_built_is_an_error_that_says_why() {
        let error = |name: &str, input, classes| by_name(name, input, classes).err().unwrap().to_string();
        assert!(error("mnist-fats", MNIST, 10).contains("did you mean `mnist-fast`?"));
        assert!(error("preact-resnet18-x8", CIFAR, 10).contains("`x8`"));
        assert!(error("preact-resnet18-w0", CIFAR, 10).contains("not a width"));
        assert!(error("preact-resnet18-w99999999999999999999", CIFAR, 10).contains("not a width"));
        assert!(error("preact-resnet18-normalized", [8, 8, 5], 10).contains("5 channels"));
        assert!(error("mlp-", MNIST, 10).contains("did you mean `mlp`?"));
        assert!(error("mlp-10-", MNIST, 10).contains("not a width"));
        assert!(error("mnist-fast-2", MNIST, 10).contains("takes no options"));
        assert!(error("mnist-fast", [1, 1, 1], 10).contains("1x1 with 1 channels"));
        assert!(error("mnist-madry", [3, 28, 1], 10).contains("max_pool"));
        assert!(error("mlp", [28, 0, 1], 10).contains("none may be 0"));
        assert!(error("mlp", MNIST, 0).contains("none may be 0"));
    }

    #[test]
    fn other_images_than_the_network_is_for_are_an_error() {
        for name in names() {
            let tape = Tape::new();
            let x = tape.source("x", [2, 30, 28, 1], DType::F32);
            by_name(name, MNIST, 10).unwrap().forward(&Net::new(&tape, Mode::Eval), x);
            let error = tape.check().unwrap_err().to_string();
            assert!(error.contains("[2x30x28x1]") && error.contains("28 x 28 x 1"), "{name}: {error}");
        }
    }

    #[test]
    fn every_architecture_records_in_every_mode() {
        for (name, input) in [
            ("mlp", CIFAR),
            ("mnist-fast", CIFAR),
            ("mnist-madry", CIFAR),
            ("preact-resnet18-w4", MNIST),
            ("resnet18-w4", MNIST),
        ] {
            for mode in [Mode::Eval, Mode::Train, Mode::TrainFrozen] {
                let tape = Tape::new();
                let net = Net::new(&tape, mode);
                let x = tape.source("x", [5, input[0], input[1], input[2]], DType::F32);
                let logits = by_name(name, input, 10).unwrap().forward(&net, x);
                tape.check().unwrap();
                assert_eq!(logits.shape().dims(), [5, 10]);
                let running = net.params().iter().filter(|p| p.name.contains("running")).count();
                assert_eq!(net.updates().len(), if mode == Mode::Train { running } else { 0 });
                assert_eq!(net.weights().len(), params(name, input).trained().count());
            }
        }
    }
}
