//! ResNet-18 and ResNet-34 (He et al., "Deep residual learning for image recognition", 2016): with the stem that CIFAR-10
//! is trained with pytorch-cifar/models/resnet.py (kuangliu), with ImageNet's torchvision/models/resnet.py.

use super::residual::{Block, Stages, Stem, WIDTH, conv1x1, conv3x3, layer, write_width};
use super::{Built, once, options, width};
use crate::nn::{Architecture, Net, Var};

/// Stem with batch norm and relu, four stages of basic blocks with 1, 2, 4 and 8 times the width, mean over the
/// pixels, linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// With the stem for small images ResNet-18 has 11 173 962 parameters for three channels and ten classes, ResNet-34
/// 21 282 122; with ImageNet's and 1000 classes 11 689 512 and 21 797 672.
pub struct ResNet {
    depth: usize,
    blocks: [usize; 4],
    input: [usize; 3],
    classes: usize,
    width: usize,
    stem: Stem,
}

impl ResNet {
    /// ResNet-18 with `width` channels in the first stage (the reference has 64).
    pub fn new18(input: [usize; 3], classes: usize, width: usize, stem: Stem) -> ResNet {
        ResNet { depth: 18, blocks: [2, 2, 2, 2], input, classes, width, stem }
    }

    /// ResNet-34 with `width` channels in the first stage (the reference has 64).
    pub fn new34(input: [usize; 3], classes: usize, width: usize, stem: Stem) -> ResNet {
        ResNet { depth: 34, blocks: [3, 4, 6, 3], input, classes, width, stem }
    }
}

pub(super) fn build18(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (width, stem) = read(text)?;
    Ok(Box::new(ResNet::new18(input, classes, width, stem)))
}

pub(super) fn build34(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (width, stem) = read(text)?;
    Ok(Box::new(ResNet::new34(input, classes, width, stem)))
}

/// Width and stem that the options of a name say.
fn read(text: &str) -> Result<(usize, Stem), String> {
    let (mut wide, mut stem) = (None, Stem::Cifar);
    for option in options(text) {
        match option.strip_prefix('w') {
            Some(text) => once(&mut wide, width(text)?, option)?,
            None if option == "imagenet" => stem = Stem::ImageNet,
            None => {
                return Err(format!(
                    "`{option}` is neither a width as `w8`, nor `imagenet`, nor `normalized`"
                ));
            }
        }
    }
    Ok((wide.unwrap_or(WIDTH), stem))
}

impl Architecture for ResNet {
    fn name(&self) -> String {
        let stem = if self.stem == Stem::ImageNet { "-imagenet" } else { "" };
        format!("resnet{}{stem}{}", self.depth, write_width(self.width, WIDTH))
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
            let x = self.stem.record(net, x, self.width);
            let stages = Stages { inputs: self.width, blocks: &self.blocks, width: self.width, expansion: 1 };
            stages.record(net, x, layer, |net, x, block| basic(net, x, block, shortcut))
        });
        net.linear(last, x.global_avg_pool(), self.classes)
    }
}

/// Convolution, batch norm, relu, convolution, batch norm; relu of the sum with the shortcut, which is a convolution
/// with batch norm where extents change and x itself elsewhere.
fn basic<'t>(net: &Net<'t>, x: Var<'t>, block: Block, shortcut: &str) -> Var<'t> {
    let y = conv3x3(net, "conv1", x, block.channels, block.stride);
    let y = net.batch_norm("bn1", y).relu();
    let y = net.batch_norm("bn2", conv3x3(net, "conv2", y, block.channels, 1));
    let other = match block.shortcut {
        true => {
            net.within(shortcut, || net.batch_norm("1", conv1x1(net, "0", x, block.outputs, block.stride)))
        }
        false => x,
    };
    (y + other).relu()
}
