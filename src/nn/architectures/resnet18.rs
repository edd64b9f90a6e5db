//! ResNet-18 for 32x32 images (He et al., "Deep residual learning for image recognition", 2016, with the stem that
//! CIFAR-10 is trained with): pytorch-cifar/models/resnet.py (kuangliu).

use super::residual::{Block, Normalization, conv3x3, read_options, shortcut, stages, stem, write_options};
use crate::nn::{Architecture, Net, Var};

/// 3x3 stem with batch norm and relu, four stages of two blocks with 1, 2, 4 and 8 times the width, mean over the
/// pixels, linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// 11 173 962 parameters for three channels and ten classes.
pub struct ResNet18 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    normalization: Option<Normalization>,
}

impl ResNet18 {
    /// With `width` channels in the first stage (the reference has 64), and pixels normalised where constants are
    /// given.
    pub fn new(
        input: [usize; 3],
        classes: usize,
        width: usize,
        normalization: Option<Normalization>,
    ) -> ResNet18 {
        ResNet18 { input, classes, width, normalization }
    }
}

pub(super) fn build(
    options: &str,
    input: [usize; 3],
    classes: usize,
) -> Result<Box<dyn Architecture>, String> {
    let (width, normalization) = read_options(options, input[2])?;
    Ok(Box::new(ResNet18::new(input, classes, width, normalization)))
}

impl Architecture for ResNet18 {
    fn name(&self) -> String {
        format!("resnet18{}", write_options(self.width, self.normalization.as_ref()))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = stem(net, x, self.input, self.normalization.as_ref(), self.width);
        let x = stages(net, net.batch_norm("bn1", x).relu(), self.width, block);
        net.linear("linear", x.global_avg_pool(), self.classes)
    }
}

/// Convolution, batch norm, relu, convolution, batch norm; relu of the sum with the shortcut, which is a convolution
/// with batch norm where extents change and x itself elsewhere.
fn block<'t>(net: &Net<'t>, x: Var<'t>, block: Block) -> Var<'t> {
    let y = conv3x3(net, "conv1", x, block.channels, block.stride);
    let y = net.batch_norm("bn1", y).relu();
    let y = conv3x3(net, "conv2", y, block.channels, 1);
    let y = net.batch_norm("bn2", y);
    let other = if block.shortcut { net.batch_norm("shortcut.1", shortcut(net, x, block)) } else { x };
    (y + other).relu()
}
