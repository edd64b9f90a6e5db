//! Pre-activation ResNet-18 (He et al., "Identity mappings in deep residual networks", 2016) as adversarial training
//! uses it: robust_overfitting/preactresnet.py (Rice, Wong and Kolter 2020).

use super::width;
use crate::nn::{Architecture, Conv2d, Net, Var};

/// Channels of the first stage unless a name says otherwise.
const WIDTH: usize = 64;
/// Stride of each stage's first block.
pub(super) const STRIDES: [usize; 4] = [1, 2, 2, 2];
/// Blocks in a stage.
pub(super) const BLOCKS: usize = 2;

/// 3x3 stem, four stages of two blocks with 1, 2, 4 and 8 times the width, batch norm, relu, mean over the pixels,
/// linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// 11 172 170 parameters for three channels and ten classes.
pub struct PreActResNet18 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    normalization: Option<Normalization>,
}

/// Constants by which pixels are normalised inside the network, before its first layer: `(x - mean) / std` per
/// channel. An attack on the network then still works on pixels in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of the pixels, one a channel.
    pub mean: Vec<f64>,
    /// Standard deviation of the pixels, one a channel.
    pub std: Vec<f64>,
}

impl Normalization {
    /// The statistics that the literature uses with so many channels: MNIST's with one, CIFAR-10's with three.
    pub fn usual(channels: usize) -> Option<Normalization> {
        let (mean, std) = match channels {
            1 => (vec![0.1307], vec![0.3081]),
            3 => (vec![0.4914, 0.4822, 0.4465], vec![0.2471, 0.2435, 0.2616]),
            _ => return None,
        };
        Some(Normalization { mean, std })
    }
}

impl PreActResNet18 {
    /// With `width` channels in the first stage (the reference has 64), and pixels normalised where constants are
    /// given.
    pub fn new(
        input: [usize; 3],
        classes: usize,
        width: usize,
        normalization: Option<Normalization>,
    ) -> PreActResNet18 {
        PreActResNet18 { input, classes, width, normalization }
    }
}

pub(super) fn build(
    options: &str,
    input: [usize; 3],
    classes: usize,
) -> Result<Box<dyn Architecture>, String> {
    let (width, normalization) = read_options(options, input[2])?;
    Ok(Box::new(PreActResNet18::new(input, classes, width, normalization)))
}

/// Width and normalisation of what follows a ResNet's name, for images with so many channels.
pub(super) fn read_options(options: &str, channels: usize) -> Result<(usize, Option<Normalization>), String> {
    let (mut wide, mut normalization) = (WIDTH, None);
    for option in options.split('-').filter(|_| !options.is_empty()) {
        match option.strip_prefix('w') {
            Some(text) => wide = width(text)?,
            None if option == "normalized" => {
                let known = Normalization::usual(channels);
                normalization = Some(known.ok_or_else(|| {
                    format!("no usual mean and deviation are known for images with {channels} channels")
                })?);
            }
            None => return Err(format!("`{option}` is neither a width as `w8` nor `normalized`")),
        }
    }
    Ok((wide, normalization))
}

/// What follows a ResNet's name for this width and normalisation.
pub(super) fn write_options(width: usize, normalization: Option<&Normalization>) -> String {
    let width = if width == WIDTH { String::new() } else { format!("-w{width}") };
    let normalized = if normalization.is_some() { "-normalized" } else { "" };
    format!("{width}{normalized}")
}

impl Architecture for PreActResNet18 {
    fn name(&self) -> String {
        format!("preact-resnet18{}", write_options(self.width, self.normalization.as_ref()))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let mut x = net.images(x, self.input);
        if let Some(Normalization { mean, std }) = &self.normalization {
            x = net.normalize("normalize", x, mean, std);
        }
        x = conv3x3(net, "conv1", x, self.width, 1);
        for (stage, stride) in STRIDES.into_iter().enumerate() {
            let channels = self.width << stage;
            for index in 0..BLOCKS {
                let (name, stride) =
                    (format!("layer{}.{index}", stage + 1), if index == 0 { stride } else { 1 });
                // The channels of the block before, by the architecture's own arithmetic.
                let before = if index == 0 { self.width << stage.saturating_sub(1) } else { channels };
                let shortcut = stride != 1 || before != channels;
                x = net.within(&name, || block(net, x, channels, stride, shortcut));
            }
        }
        let x = net.batch_norm("bn", x).relu();
        net.linear("linear", x.global_avg_pool(), self.classes)
    }
}

/// Batch norm, relu, convolution, twice. The shortcut's convolution, where there is one, takes the first activation
/// (after batch norm and relu), as in the reference.
fn block<'t>(net: &Net<'t>, x: Var<'t>, channels: usize, stride: usize, shortcut: bool) -> Var<'t> {
    let first = net.batch_norm("bn1", x).relu();
    let y = conv3x3(net, "conv1", first, channels, stride);
    let y = net.batch_norm("bn2", y).relu();
    let y = conv3x3(net, "conv2", y, channels, 1);
    let strided = Conv2d { stride: [stride; 2], ..Conv2d::default() };
    y + if shortcut { net.conv("shortcut.0", first, channels, [1, 1], strided, false) } else { x }
}

pub(super) fn conv3x3<'t>(net: &Net<'t>, name: &str, x: Var<'t>, channels: usize, stride: usize) -> Var<'t> {
    let conv = Conv2d { stride: [stride; 2], padding: [1, 1], ..Conv2d::default() };
    net.conv(name, x, channels, [3, 3], conv, false)
}
