//! Pre-activation ResNet-18 (He et al., "Identity mappings in deep residual networks", 2016) as adversarial training
//! uses it: robust_overfitting/preactresnet.py (Rice, Wong and Kolter 2020), and the copy of
//! understanding-fast-adv-training/models.py (Andriushchenko and Flammarion 2020).

use super::residual::{Stages, WIDTH, conv3x3, layer, preactivated, write_width};
use super::{Built, once, options, width};
use crate::nn::{Architecture, Net, Scheme, Var};

/// 3x3 stem, four stages of two blocks with 1, 2, 4 and 8 times the width, batch norm, relu, mean over the pixels,
/// linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// 11 172 170 parameters for three channels and ten classes.
pub struct PreActResNet18 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    gradalign: bool,
}

impl PreActResNet18 {
    /// With `width` channels in the first stage (the reference has 64).
    pub fn new(input: [usize; 3], classes: usize, width: usize) -> PreActResNet18 {
        PreActResNet18 { input, classes, width, gradalign: false }
    }

    /// As GradAlign's code has it: without the last batch norm and relu, weights drawn by [`Scheme::HeNormal`].
    pub fn gradalign(self) -> PreActResNet18 {
        PreActResNet18 { gradalign: true, ..self }
    }
}

pub(super) fn build(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (mut wide, mut gradalign) = (None, false);
    for option in options(text) {
        match option.strip_prefix('w') {
            Some(text) => once(&mut wide, width(text)?, option)?,
            None if option == "gradalign" => gradalign = true,
            None => {
                let why = format!("`{option}` is neither a width as `w8`, nor `gradalign`, nor `normalized`");
                return Err(why);
            }
        }
    }
    let network = PreActResNet18::new(input, classes, wide.unwrap_or(WIDTH));
    Ok(Box::new(if gradalign { network.gradalign() } else { network }))
}

impl Architecture for PreActResNet18 {
    fn name(&self) -> String {
        let copy = if self.gradalign { "-gradalign" } else { "" };
        format!("preact-resnet18{copy}{}", write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let scheme = if self.gradalign { Scheme::HeNormal } else { Scheme::Torch };
        net.initialised(scheme, || {
            let x = conv3x3(net, "conv1", net.images(x, self.input), self.width, 1);
            let stages = Stages { inputs: self.width, blocks: &[2; 4], width: self.width, expansion: 1 };
            let mut x = stages
                .record(net, x, layer, |net, x, block| preactivated(net, x, block, "shortcut.0", |y| y));
            if !self.gradalign {
                x = net.batch_norm("bn", x).relu();
            }
            net.linear("linear", x.global_avg_pool(), self.classes)
        })
    }
}
