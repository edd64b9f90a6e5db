//! ConvNeXt-T (Liu et al., "A ConvNet for the 2020s", 2022): torchvision/models/convnext.py, without its stochastic
//! depth.

use super::residual::write_width;
use super::{Built, once, options, width};
use crate::nn::{Architecture, Conv2d, Init, Layout, Net, Role, Scheme, Var};

/// Channels of the first stage unless a name says otherwise.
const WIDTH: usize = 96;
/// Blocks in each stage.
const BLOCKS: [usize; 4] = [3, 3, 9, 3];
/// Side of the patches that the stem cuts images into, unless a name says otherwise.
const PATCH: usize = 4;
/// What each layer scale begins at.
const SCALE: f32 = 1e-6;
/// Added to a variance before its root is divided by.
const EPSILON: f64 = 1e-6;

/// A convolution over patches without overlap; four stages of blocks with 1, 2, 4 and 8 times the width, a 2x2
/// convolution of stride 2 between them; mean over the pixels, layer norm, linear. 28 589 128 parameters for ImageNet's
/// 1000 classes.
///
/// Its activations have no statistics of a batch: attacks in any batch-norm mode see the same network. Smooth
/// activations and layer norm are what makes it the convolutional network of choice for adversarial training on ImageNet
/// (Singh, Croce and Hein, "Revisiting adversarial training for ImageNet", 2023).
pub struct ConvNext {
    input: [usize; 3],
    classes: usize,
    width: usize,
    patch: usize,
}

impl ConvNext {
    /// With `width` channels in the first stage (the reference has 96) and patches of this side (4); for 32x32 images
    /// a patch of 1 or 2 leaves more of them.
    pub fn new(input: [usize; 3], classes: usize, width: usize, patch: usize) -> ConvNext {
        ConvNext { input, classes, width, patch }
    }
}

pub(super) fn build(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (mut wide, mut patch) = (None, None);
    for option in options(text) {
        match (option.strip_prefix('w'), option.strip_prefix('p')) {
            (Some(text), _) => once(&mut wide, width(text)?, option)?,
            (_, Some(text)) => once(&mut patch, width(text)?, option)?,
            _ => {
                return Err(format!(
                    "`{option}` is neither a width as `w8`, nor a patch as `p2`, nor `normalized`"
                ));
            }
        }
    }
    Ok(Box::new(ConvNext::new(input, classes, wide.unwrap_or(WIDTH), patch.unwrap_or(PATCH))))
}

impl Architecture for ConvNext {
    fn name(&self) -> String {
        let patch = if self.patch == PATCH { String::new() } else { format!("-p{}", self.patch) };
        format!("convnext-tiny{}{patch}", write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = net.images(x, self.input);
        let patches = |name: &str, x: Var<'t>, channels: usize, side: usize| {
            let conv = Conv2d { stride: [side; 2], ..Conv2d::default() };
            net.conv(name, x, channels, [side; 2], conv, true)
        };
        net.initialised(Scheme::SmallNormal, || {
            let mut x = patches("features.0.0", x, self.width, self.patch);
            x = net.layer_norm("features.0.1", x, EPSILON);
            for (stage, blocks) in BLOCKS.into_iter().enumerate() {
                // Places in the reference's `nn.Sequential`: stem, stage, halving, stage, ...
                let place = 2 * stage + 1;
                for index in 0..blocks {
                    x = net.within(&format!("features.{place}.{index}"), || block(net, x));
                }
                if stage + 1 < BLOCKS.len() {
                    let halving = format!("features.{}", place + 1);
                    x = net.layer_norm(&format!("{halving}.0"), x, EPSILON);
                    x = patches(&format!("{halving}.1"), x, self.width << (stage + 1), 2);
                }
            }
            let x = net.layer_norm("classifier.0", x.global_avg_pool(), EPSILON);
            net.linear("classifier.2", x, self.classes)
        })
    }
}

/// 7x7 depthwise convolution, layer norm, linear to four times the channels, gelu, linear back, each channel scaled; and
/// the sum with x.
fn block<'t>(net: &Net<'t>, x: Var<'t>) -> Var<'t> {
    let channels = x.shape().dims().last().copied().unwrap_or(1);
    let depthwise = Conv2d { padding: [3, 3], groups: channels, ..Conv2d::default() };
    let scale =
        net.param("layer_scale", [channels], Layout::Channels, Role::LayerScale, Init::Constant(SCALE));
    let y = net.conv("block.0", x, channels, [7, 7], depthwise, true);
    let y = net.layer_norm("block.2", y, EPSILON);
    let y = net.pointwise("block.3", y, 4 * channels).gelu();
    x + net.pointwise("block.5", y, channels) * scale
}
