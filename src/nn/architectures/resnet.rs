//! ResNet-18 and ResNet-34 for 32x32 images (He et al., "Deep residual learning for image recognition", 2016, with the
//! stem that CIFAR-10 is trained with): pytorch-cifar/models/resnet.py (kuangliu).

use super::residual::{Block, Stages, WIDTH, conv1x1, conv3x3, layer, write_width};
use super::{Built, only_width};
use crate::nn::{Architecture, Net, Var};

/// 3x3 stem with batch norm and relu, four stages of basic blocks with 1, 2, 4 and 8 times the width, mean over the
/// pixels, linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// ResNet-18 has 11 173 962 parameters for three channels and ten classes, ResNet-34 has 21 282 122.
pub struct ResNet {
    depth: usize,
    blocks: [usize; 4],
    input: [usize; 3],
    classes: usize,
    width: usize,
}

impl ResNet {
    /// ResNet-18 with `width` channels in the first stage (the reference has 64).
    pub fn new18(input: [usize; 3], classes: usize, width: usize) -> ResNet {
        ResNet { depth: 18, blocks: [2, 2, 2, 2], input, classes, width }
    }

    /// ResNet-34 with `width` channels in the first stage (the reference has 64).
    pub fn new34(input: [usize; 3], classes: usize, width: usize) -> ResNet {
        ResNet { depth: 34, blocks: [3, 4, 6, 3], input, classes, width }
    }
}

pub(super) fn build18(options: &str, input: [usize; 3], classes: usize) -> Built {
    Ok(Box::new(ResNet::new18(input, classes, only_width(options, WIDTH)?)))
}

pub(super) fn build34(options: &str, input: [usize; 3], classes: usize) -> Built {
    Ok(Box::new(ResNet::new34(input, classes, only_width(options, WIDTH)?)))
}

impl Architecture for ResNet {
    fn name(&self) -> String {
        format!("resnet{}{}", self.depth, write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = conv3x3(net, "conv1", net.images(x, self.input), self.width, 1);
        let stages = Stages { inputs: self.width, blocks: &self.blocks, width: self.width, expansion: 1 };
        let x = stages.record(net, net.batch_norm("bn1", x).relu(), layer, basic);
        net.linear("linear", x.global_avg_pool(), self.classes)
    }
}

/// Convolution, batch norm, relu, convolution, batch norm; relu of the sum with the shortcut, which is a convolution
/// with batch norm where extents change and x itself elsewhere.
fn basic<'t>(net: &Net<'t>, x: Var<'t>, block: Block) -> Var<'t> {
    let y = conv3x3(net, "conv1", x, block.channels, block.stride);
    let y = net.batch_norm("bn1", y).relu();
    let y = net.batch_norm("bn2", conv3x3(net, "conv2", y, block.channels, 1));
    let other = match block.shortcut {
        true => net.batch_norm("shortcut.1", conv1x1(net, "shortcut.0", x, block.outputs, block.stride)),
        false => x,
    };
    (y + other).relu()
}
