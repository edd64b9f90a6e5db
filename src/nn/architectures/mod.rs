//! The architectures, one a file, and the names that build them.

mod convnext;
mod lenet5;
mod mlp;
mod mnist_fast;
mod mnist_madry;
mod normalized;
mod preact_resnet18;
mod residual;
mod resnet;
mod resnet50;
mod small_cnn;
mod vgg;
mod wide_resnet;

pub use convnext::ConvNext;
pub use lenet5::LeNet5;
pub use mlp::Mlp;
pub use mnist_fast::MnistFast;
pub use mnist_madry::MnistMadry;
pub use normalized::{Normalization, Normalized};
pub use preact_resnet18::PreActResNet18;
pub use residual::Stem;
pub use resnet::ResNet;
pub use resnet50::{Form, ResNet50};
pub use small_cnn::SmallCnn;
pub use vgg::Vgg;
pub use wide_resnet::WideResNet;

use super::{Architecture, Onnx, Params};
use crate::error::{Error, Result};
use strsim::damerau_levenshtein;

/// An architecture, or why there is none.
type Built = std::result::Result<Box<dyn Architecture>, String>;

/// Builds an architecture for images of `input` and so many classes from what follows its name and a dash (empty
/// where nothing does), or says why not.
type Build = fn(&str, [usize; 3], usize) -> Built;

/// An architecture is one file and one line here.
const REGISTRY: [(&str, Build); 20] = [
    ("mlp", mlp::build),
    ("mnist-fast", mnist_fast::build),
    ("mnist-madry", mnist_madry::build),
    ("lenet5", lenet5::build),
    ("small-cnn", small_cnn::build),
    ("preact-resnet18", preact_resnet18::build),
    ("resnet18", resnet::build18),
    ("resnet34", resnet::build34),
    (resnet50::FORMS[0].name, resnet50::build::<0>),
    (resnet50::FORMS[1].name, resnet50::build::<1>),
    (resnet50::FORMS[2].name, resnet50::build::<2>),
    (resnet50::FORMS[3].name, resnet50::build::<3>),
    (resnet50::FORMS[4].name, resnet50::build::<4>),
    (resnet50::FORMS[5].name, resnet50::build::<5>),
    (resnet50::FORMS[6].name, resnet50::build::<6>),
    (resnet50::FORMS[7].name, resnet50::build::<7>),
    ("wide-resnet", wide_resnet::build),
    ("vgg11-bn", vgg::build11),
    ("vgg16-bn", vgg::build16),
    ("convnext-tiny", convnext::build),
];

/// What ends the name of a network behind a normalisation of its pixels.
pub const NORMALIZED: &str = "-normalized";

/// What ends the name of a file that holds a network.
const FILE: &str = ".onnx";

/// Widest layer that a name may ask for.
const MAX_WIDTH: usize = 1 << 16;

/// The names of the architectures; some take options behind a dash, as "mlp-256-128".
pub fn names() -> Vec<&'static str> {
    REGISTRY.iter().map(|(name, _)| *name).collect()
}

/// The architecture `name` for images of `input` (rows, columns, channels) and so many classes:
///
/// * `mlp`, or `mlp-256-128` with these hidden widths;
/// * `mnist-fast`, `mnist-madry`, `lenet5`, `small-cnn`;
/// * `preact-resnet18` (with `-fast`, `-gradalign` or `-nobn` in the forms of other code: `preact_resnet18.rs`), `resnet18`,
///   `resnet34` (with `-imagenet` torchvision's stem), `resnet50`, `resnet101`, `resnet152`, `wide-resnet50-2`,
///   `wide-resnet101-2`, `resnext50-32x4d`, `resnext101-32x8d`, `resnext101-64x4d` (with `-cifar` the stem for small images),
///   `vgg11-bn`, `vgg16-bn`, `convnext-tiny` (with `-p2` patches of that side), each with `-w8` for 8 channels in the first
///   stage;
/// * `wide-resnet-28-10`: depth and factor, with `-dropout0.3` a rate of dropout.
///
/// A name that ends in `.onnx`, whatever the case, is that of a file: the network in it, with the file's weights to begin from ([`Onnx`]).
///
/// `-normalized` at the end of any: pixels are normalised inside, by the constants of [`Normalization::usual`].
///
/// # Errors
/// [`Error::Argument`]: an unknown name (with the nearest known one), an option that is not one, or images that the
/// network cannot take; for a file as [`Onnx::open_for`].
pub fn by_name(name: &str, input: [usize; 3], classes: usize) -> Result<Box<dyn Architecture>> {
    let refuse = |why: String| Error::argument("model", format!("`{name}`"), why);
    let is_file = name.strip_suffix(NORMALIZED).unwrap_or(name).to_ascii_lowercase().ends_with(FILE);
    if let Some(tidy) = tidied(name).filter(|_| !is_file) {
        let rule = "one dash stands before each option, each is given once, and `normalized` is the last";
        return Err(refuse(format!("did you mean `{tidy}`? ({rule})")));
    }
    let (plain, normalized) = match name.strip_suffix(NORMALIZED) {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    if input.contains(&0) || classes == 0 {
        return Err(refuse(format!("images of {input:?} and {classes} classes: none may be 0")));
    }
    let options = |known: &str| match plain.strip_prefix(known)? {
        "" => Some(""),
        rest => rest.strip_prefix('-').filter(|options| !options.is_empty()),
    };
    let mut architecture: Box<dyn Architecture> = if is_file {
        let network = Onnx::open_for(plain, Some(input))?;
        if network.classes() != classes {
            let have = network.classes();
            return Err(refuse(format!("tells {have} classes from each other, but there are {classes}")));
        }
        Box::new(network)
    } else {
        let found = REGISTRY.iter().find_map(|(known, build)| Some((build, options(known)?)));
        let (build, options) = found.ok_or_else(|| unknown(name))?;
        build(options, input, classes).map_err(refuse)?
    };
    if normalized {
        let unknown =
            || format!("no usual mean and deviation are known for images with {} channels", input[2]);
        let constants = Normalization::usual(input).ok_or_else(|| refuse(unknown()))?;
        architecture = Box::new(Normalized::new(architecture, constants));
    }
    // A scratch recording: whatever does not fit the images comes out here, before anything is trained.
    Params::of(architecture.as_ref()).map_err(|e| {
        let [rows, columns, channels] = input;
        refuse(format!("does not take images of {rows}x{columns} with {channels} channels: {e}"))
    })?;
    Ok(architecture)
}

/// What is meant by a name whose options are out of order: dashes that separate nothing, an option twice, `normalized`
/// before others. `None` for names in order, and for those of no architecture.
fn tidied(name: &str) -> Option<String> {
    let (mut tidy, mut normalized): (Vec<&str>, bool) = (Vec::new(), false);
    for option in options(name) {
        match Some(option) == NORMALIZED.strip_prefix('-') {
            true => normalized = true,
            // Widths of an MLP, depth and factor are numbers alone, and may well be the same.
            false if tidy.contains(&option) && !option.starts_with(|first: char| first.is_ascii_digit()) => {}
            false => tidy.push(option),
        }
    }
    let tidy = tidy.join("-") + if normalized { NORMALIZED } else { "" };
    let known = REGISTRY.iter().any(|(known, _)| {
        tidy.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    (tidy != name && known).then_some(tidy)
}

/// The error of a name that is none, with the nearest known one: nearest to all of it, or to what dashes leave of it from
/// the end, which may be options.
fn unknown(name: &str) -> Error {
    let mut ends: Vec<usize> = name.match_indices('-').map(|(at, _)| at).chain([name.len()]).collect();
    ends.reverse();
    // Of equally near ones the longest.
    let far = |end: usize| names().into_iter().map(|known| damerau_levenshtein(&name[..end], known)).min();
    let end = ends.into_iter().min_by_key(|&end| far(end)).unwrap_or(name.len());
    Error::unknown("model", &name[..end], &names())
}

/// Options behind a name, which dashes separate.
fn options(text: &str) -> impl Iterator<Item = &str> {
    text.split('-').filter(|option| !option.is_empty())
}

/// A width given in a name.
fn width(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        // No sign, and no zeros in front.
        Ok(width)
            if text.starts_with(|first| matches!(first, '1'..='9')) && (1..=MAX_WIDTH).contains(&width) =>
        {
            Ok(width)
        }
        _ => Err(format!("`{text}` is not a width from 1 to {MAX_WIDTH}")),
    }
}

/// The width that the options of an architecture give which has no others, or else `usual`.
fn only_width(text: &str, usual: usize) -> std::result::Result<usize, String> {
    let mut given = None;
    for option in options(text) {
        match option.strip_prefix('w') {
            Some(text) => once(&mut given, width(text)?, option)?,
            None => return Err(format!("`{option}` is neither a width as `w8` nor `normalized`")),
        }
    }
    Ok(given.unwrap_or(usual))
}

/// Takes what the option `text` says, unless one of its kind has said something.
fn once<T>(given: &mut Option<T>, value: T, text: &str) -> std::result::Result<(), String> {
    match given.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!(
            "`{text}` says again, and otherwise, what an option before it says: give one of them"
        )),
    }
}

/// That nothing follows the name of an architecture without options.
fn no_options(options: &str) -> std::result::Result<(), String> {
    if options.is_empty() { Ok(()) } else { Err(format!("takes no options, `{options}` is not known")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Draw, Mode, Net, Tape};
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
    fn the_other_networks_have_as_many_parameters_as_their_references() {
        let small =
            9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (32 + 64) + 1024 * 200 + 200 * 200 + 400 + 2010;
        assert_eq!((params("small-cnn", MNIST).count(), small), (312_202, 312_202));
        assert_eq!(params("lenet5", MNIST).count(), 61_706);
        assert_eq!(params("lenet5", CIFAR).count(), 62_006);
        // By PyTorch: sum(p.numel() for p in model.parameters()) of the code each is taken from.
        for (name, count) in [
            ("resnet34", 21_282_122),
            ("resnet50-cifar", 23_520_842),
            ("wide-resnet-28-10", 36_479_194),
            ("wide-resnet-34-10", 46_160_474),
            ("vgg11-bn", 9_231_114),
            ("vgg16-bn", 14_728_266),
        ] {
            assert_eq!(params(name, CIFAR).count(), count, "{name}");
        }
        // torchvision's documentation says these.
        for (name, count) in [
            ("resnet18-imagenet", 11_689_512),
            ("resnet34-imagenet", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
            ("wide-resnet50-2", 68_883_240),
            ("wide-resnet101-2", 126_886_696),
            ("resnext50-32x4d", 25_028_904),
            ("resnext101-32x8d", 88_791_336),
            ("resnext101-64x4d", 83_455_272),
            ("convnext-tiny", 28_589_128),
        ] {
            let network = by_name(name, [224, 224, 3], 1000).unwrap();
            assert_eq!(Params::of(network.as_ref()).unwrap().count(), count, "{name}");
        }
        // The last batch norm is what GradAlign's copy lacks.
        assert_eq!(params("preact-resnet18-gradalign", CIFAR).count(), 11_172_170 - 2 * 512);
        assert_eq!(params("preact-resnet18-nobn", CIFAR).count(), 11_172_170 - 2 * 512);
        assert_eq!(params("preact-resnet18-fast", CIFAR).count(), 11_172_170);
    }

    #[test]
    fn names_come_back() {
        for name in names() {
            let name = if name == "wide-resnet" { "wide-resnet-10-2" } else { name };
            for name in [name.to_string(), format!("{name}-normalized")] {
                assert_eq!(by_name(&name, CIFAR, 10).unwrap().name(), name);
            }
        }
        for name in [
            "preact-resnet18-w8",
            "preact-resnet18-normalized",
            "preact-resnet18-w8-normalized",
            "resnet18-w8-normalized",
            "preact-resnet18-gradalign-w8",
            "preact-resnet18-fast-w8",
            "preact-resnet18-nobn",
            "resnet18-imagenet-w8",
            "resnet34-imagenet-normalized",
            "resnet34-w16",
            "resnet50-cifar-w8",
            "resnet152-cifar-w8",
            "wide-resnet50-2-w8",
            "resnext50-32x4d-cifar-w16-normalized",
            "wide-resnet-16-1-dropout0.3",
            "wide-resnet-10-2-normalized",
            "vgg11-bn-w8",
            "convnext-tiny-w8-p2",
            "mlp-7",
            "mlp-256-128-normalized",
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
        assert!(error("mlp-10-", MNIST, 10).contains("did you mean `mlp-10`?"));
        for (name, meant) in [
            ("resnet18--w8", "resnet18-w8"),
            ("resnet18-w8-", "resnet18-w8"),
            ("-resnet18", "resnet18"),
            ("resnet18--normalized", "resnet18-normalized"),
            ("resnet18-normalized-", "resnet18-normalized"),
            ("resnet18-normalized-w8", "resnet18-w8-normalized"),
            ("resnet18-normalized-normalized", "resnet18-normalized"),
            ("preact-resnet18-gradalign-w8-gradalign", "preact-resnet18-gradalign-w8"),
            ("wide-resnet-28--10", "wide-resnet-28-10"),
            ("mlp-8--8", "mlp-8-8"),
        ] {
            assert!(error(name, CIFAR, 10).contains(&format!("did you mean `{meant}`?")), "{name}");
        }
        assert!(error("resnet18-w8-w16", CIFAR, 10).contains("`w16` says again"));
        assert!(error("convnext-tiny-p2-w8-p4", CIFAR, 10).contains("`p4` says again"));
        assert!(
            error("wide-resnet-28-10-dropout0.1-dropout0.3", CIFAR, 10).contains("`dropout0.3` says again")
        );
        assert!(error("resnet18-w+8", CIFAR, 10).contains("not a width"));
        assert!(error("resnet18-w08", CIFAR, 10).contains("not a width"));
        assert!(error("mnist-fast-2", MNIST, 10).contains("takes no options"));
        assert!(error("mnist-fast", [1, 1, 1], 10).contains("1x1 with 1 channels"));
        assert!(error("mnist-madry", [3, 28, 1], 10).contains("max_pool"));
        assert!(error("resnext50-32x4d-w8", CIFAR, 10).contains("the least width is 16"));
        assert!(error("wide-resnet50-3", CIFAR, 10).contains("did you mean `wide-resnet50-2`?"));
        assert!(error("wide-resnet", CIFAR, 10).contains("wide-resnet-28-10"));
        assert!(error("wide-resnet-28", CIFAR, 10).contains("wide-resnet-28-10"));
        assert!(error("wide-resnet-29-10", CIFAR, 10).contains("6 n + 4"));
        assert!(error("wide-resnet-4-10", CIFAR, 10).contains("6 n + 4"));
        assert!(error("wide-resnet-28-0", CIFAR, 10).contains("factor 0"));
        assert!(error("wide-resnet-28-10-dropout1", CIFAR, 10).contains("probability"));
        assert!(error("wide-resnet-28-10-dropoutnan", CIFAR, 10).contains("probability"));
        assert!(error("wide-resnet-28-10-w4", CIFAR, 10).contains("`w4`"));
        assert!(error("wide-resent-28-10", CIFAR, 10).contains("did you mean `wide-resnet`?"));
        assert!(error("resnet36", CIFAR, 10).contains("did you mean `resnet34`?"));
        assert!(error("vgg16", CIFAR, 10).contains("did you mean `vgg16-bn`?"));
        assert!(error("vgg11-bn", MNIST, 10).contains("28x28 with 1 channels"));
        assert!(error("lenet-5", MNIST, 10).contains("did you mean `lenet5`?"));
        assert!(error("mlp", [28, 0, 1], 10).contains("none may be 0"));
        assert!(error("mlp", MNIST, 0).contains("none may be 0"));
    }

    #[test]
    fn other_images_than_the_network_is_for_are_an_error() {
        for name in names() {
            let name = match name {
                "wide-resnet" => "wide-resnet-10-1",
                // 28 rows are too few for five halvings.
                "vgg11-bn" | "vgg16-bn" => continue,
                "convnext-tiny" => "convnext-tiny-p2",
                name => name,
            };
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
            ("lenet5", MNIST),
            ("small-cnn", CIFAR),
            ("preact-resnet18-gradalign-w4", MNIST),
            ("resnet34-w2", CIFAR),
            ("resnet50-w2", [48, 36, 3]),
            ("resnet50-cifar-w2-normalized", CIFAR),
            ("resnext50-32x4d-w16", CIFAR),
            ("wide-resnet-10-2-dropout0.3", CIFAR),
            ("vgg16-bn-w2", CIFAR),
            ("convnext-tiny-w2", CIFAR),
        ] {
            for mode in [Mode::Eval, Mode::Train, Mode::TrainFrozen] {
                let tape = Tape::new();
                let draw = Draw {
                    key: tape.source("key", [2], DType::U32),
                    counter: tape.source("counter", [2], DType::U32),
                    example: tape.source("example", [5], DType::U32),
                };
                let net = Net::new(&tape, mode).with_draw(draw);
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
