//! ResNet-50 (He et al., "Deep residual learning for image recognition", 2016; the stride on the 3x3 convolution, as in
//! PyTorch): torchvision/models/resnet.py for ImageNet, pytorch-cifar/models/resnet.py (kuangliu) for small images.

use super::residual::{Block, Stages, Stem, WIDTH, conv1x1, conv3x3, layer, write_width};
use super::{Built, once, options, width};
use crate::nn::{Architecture, Net, Var};

/// Blocks in each stage.
const BLOCKS: [usize; 4] = [3, 4, 6, 3];
/// A bottleneck gives so many times the channels of its 3x3 convolution.
const EXPANSION: usize = 4;

/// Stem, four stages of bottlenecks, mean over the pixels, linear. 25 557 032 parameters for ImageNet's 1000 classes,
/// 23 520 842 with the stem for small images and ten classes.
pub struct ResNet50 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    stem: Stem,
}

impl ResNet50 {
    /// With `width` channels in the 3x3 convolutions of the first stage (the reference has 64).
    pub fn new(input: [usize; 3], classes: usize, width: usize, stem: Stem) -> ResNet50 {
        ResNet50 { input, classes, width, stem }
    }
}

pub(super) fn build(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (mut wide, mut stem) = (None, Stem::ImageNet);
    for option in options(text) {
        match option.strip_prefix('w') {
            Some(text) => once(&mut wide, width(text)?, option)?,
            None if option == "cifar" => stem = Stem::Cifar,
            None => {
                return Err(format!("`{option}` is neither a width as `w8`, nor `cifar`, nor `normalized`"));
            }
        }
    }
    Ok(Box::new(ResNet50::new(input, classes, wide.unwrap_or(WIDTH), stem)))
}

impl Architecture for ResNet50 {
    fn name(&self) -> String {
        let stem = if self.stem == Stem::Cifar { "-cifar" } else { "" };
        format!("resnet50{stem}{}", write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = net.images(x, self.input);
        let [shortcut, last] = self.stem.names();
        let x = net.initialised(self.stem.scheme(), || {
            self.stages(net, self.stem.record(net, x, self.width), shortcut)
        });
        net.linear(last, x.global_avg_pool(), self.classes)
    }
}

impl ResNet50 {
    fn stages<'t>(&self, net: &Net<'t>, x: Var<'t>, shortcut: &str) -> Var<'t> {
        let stages = Stages { inputs: self.width, blocks: &BLOCKS, width: self.width, expansion: EXPANSION };
        stages.record(net, x, layer, |net, x, block| bottleneck(net, x, block, shortcut))
    }
}

/// 1x1, 3x3 and 1x1 convolution, each with batch norm, relu behind the first two; relu of the sum with the shortcut.
fn bottleneck<'t>(net: &Net<'t>, x: Var<'t>, block: Block, shortcut: &str) -> Var<'t> {
    let y = net.batch_norm("bn1", conv1x1(net, "conv1", x, block.channels, 1)).relu();
    let y = net.batch_norm("bn2", conv3x3(net, "conv2", y, block.channels, block.stride)).relu();
    let y = net.batch_norm("bn3", conv1x1(net, "conv3", y, block.outputs, 1));
    let other = match block.shortcut {
        true => {
            net.within(shortcut, || net.batch_norm("1", conv1x1(net, "0", x, block.outputs, block.stride)))
        }
        false => x,
    };
    (y + other).relu()
}
