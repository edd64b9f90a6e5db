//! Pre-activation ResNet-18 (He et al., "Identity mappings in deep residual networks", 2016) as adversarial training
//! uses it: robust_overfitting/preactresnet.py (Rice, Wong and Kolter 2020).

use super::residual::{Block, Normalization, conv3x3, read_options, shortcut, stages, stem, write_options};
use crate::nn::{Architecture, Net, Var};

/// 3x3 stem, four stages of two blocks with 1, 2, 4 and 8 times the width, batch norm, relu, mean over the pixels,
/// linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// 11 172 170 parameters for three channels and ten classes.
pub struct PreActResNet18 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    normalization: Option<Normalization>,
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
        let x = stem(net, x, self.input, self.normalization.as_ref(), self.width);
        let x = net.batch_norm("bn", stages(net, x, self.width, block)).relu();
        net.linear("linear", x.global_avg_pool(), self.classes)
    }
}

/// Batch norm, relu, convolution, twice. The shortcut's convolution, where there is one, takes the first activation
/// (after batch norm and relu), as in the reference.
fn block<'t>(net: &Net<'t>, x: Var<'t>, block: Block) -> Var<'t> {
    let first = net.batch_norm("bn1", x).relu();
    let y = conv3x3(net, "conv1", first, block.channels, block.stride);
    let y = net.batch_norm("bn2", y).relu();
    let y = conv3x3(net, "conv2", y, block.channels, 1);
    y + if block.shortcut { shortcut(net, first, block) } else { x }
}
