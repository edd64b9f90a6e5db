//! What residual networks for small images share: their stem, their four stages of two blocks, and what may follow
//! their names.

use super::width;
use crate::nn::{Conv2d, Net, Var};

/// Channels of the first stage unless a name says otherwise.
const WIDTH: usize = 64;
/// Stride of each stage's first block.
const STRIDES: [usize; 4] = [1, 2, 2, 2];
/// Blocks in a stage.
const BLOCKS: usize = 2;

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

/// The pixels, normalised where constants are given, through a 3x3 convolution to the first stage's channels.
pub(super) fn stem<'t>(
    net: &Net<'t>,
    x: Var<'t>,
    input: [usize; 3],
    normalization: Option<&Normalization>,
    width: usize,
) -> Var<'t> {
    let mut x = net.images(x, input);
    if let Some(Normalization { mean, std }) = normalization {
        x = net.normalize("normalize", x, mean, std);
    }
    conv3x3(net, "conv1", x, width, 1)
}

/// The extents of a block.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Channels it gives.
    pub(super) channels: usize,
    /// Stride of its first convolution.
    pub(super) stride: usize,
    /// Whether its shortcut needs a convolution: extents or channels change.
    pub(super) shortcut: bool,
}

/// Four stages of two blocks with 1, 2, 4 and 8 times the width, under the names `layer1.0` to `layer4.1`.
pub(super) fn stages<'t>(
    net: &Net<'t>,
    mut x: Var<'t>,
    width: usize,
    block: impl Fn(&Net<'t>, Var<'t>, Block) -> Var<'t>,
) -> Var<'t> {
    for (stage, stride) in STRIDES.into_iter().enumerate() {
        let channels = width << stage;
        for index in 0..BLOCKS {
            let (name, stride) = (format!("layer{}.{index}", stage + 1), if index == 0 { stride } else { 1 });
            // The channels of the block before, by the architecture's own arithmetic.
            let before = if index == 0 { width << stage.saturating_sub(1) } else { channels };
            let extents = Block { channels, stride, shortcut: stride != 1 || before != channels };
            x = net.within(&name, || block(net, x, extents));
        }
    }
    x
}

/// The convolution of a shortcut.
pub(super) fn shortcut<'t>(net: &Net<'t>, x: Var<'t>, block: Block) -> Var<'t> {
    let strided = Conv2d { stride: [block.stride; 2], ..Conv2d::default() };
    net.conv("shortcut.0", x, block.channels, [1, 1], strided, false)
}

pub(super) fn conv3x3<'t>(net: &Net<'t>, name: &str, x: Var<'t>, channels: usize, stride: usize) -> Var<'t> {
    let conv = Conv2d { stride: [stride; 2], padding: [1, 1], ..Conv2d::default() };
    net.conv(name, x, channels, [3, 3], conv, false)
}
