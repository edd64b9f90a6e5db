//! Pre-activation ResNet-18 (He et al., "Identity mappings in deep residual networks", 2016) as adversarial training
//! uses it, in the four forms that its code has. Their weights have the same names and extents, but for the last batch
//! norm, and the networks compute different things:
//!
//! | name | shortcut's convolution takes | last batch norm and relu | code |
//! |---|---|---|---|
//! | `preact-resnet18` | the activation | yes | robust_overfitting/preactresnet.py (Rice, Wong and Kolter 2020), RobustBench's `PreActBlockV2` |
//! | `-fast` | the block's input | yes | fast_adversarial/CIFAR10/preact_resnet.py (Wong, Rice and Kolter 2020) |
//! | `-gradalign` | the block's input | no | understanding-fast-adv-training/models.py (Andriushchenko and Flammarion 2020), RobustBench's `PreActBlock` |
//! | `-nobn` | the activation | no | pytorch-cifar/models/preact_resnet.py (kuangliu) |

use super::residual::{Shortcut, Stages, WIDTH, conv3x3, layer, preactivated, write_width};
use super::{Built, once, options, width};
use crate::nn::{Architecture, Net, Scheme, Var};

/// The forms: what a name says, what the shortcut takes, whether a batch norm and relu are last, how weights are drawn.
const FORMS: [(&str, Shortcut, bool, Scheme); 4] = [
    ("", Shortcut::Activated(SHORTCUT), true, Scheme::Torch),
    ("fast", Shortcut::Raw(SHORTCUT), true, Scheme::Torch),
    ("gradalign", Shortcut::Raw(SHORTCUT), false, Scheme::HeNormal),
    ("nobn", Shortcut::Activated(SHORTCUT), false, Scheme::Torch),
];
const SHORTCUT: &str = "shortcut.0";

/// 3x3 stem, four stages of two blocks with 1, 2, 4 and 8 times the width, batch norm, relu, mean over the pixels,
/// linear. On 32x32 images that mean is the reference's 4x4 average pooling; any other size works as well.
/// 11 172 170 parameters for three channels and ten classes.
pub struct PreActResNet18 {
    input: [usize; 3],
    classes: usize,
    width: usize,
    form: usize,
}

impl PreActResNet18 {
    /// With `width` channels in the first stage (the reference has 64), as robust_overfitting has it.
    pub fn new(input: [usize; 3], classes: usize, width: usize) -> PreActResNet18 {
        PreActResNet18 { input, classes, width, form: 0 }
    }
}

pub(super) fn build(text: &str, input: [usize; 3], classes: usize) -> Built {
    let (mut wide, mut form) = (None, None);
    for option in options(text) {
        let known = FORMS.iter().position(|(name, ..)| *name == option);
        match (option.strip_prefix('w'), known) {
            (_, Some(known)) => once(&mut form, known, option)?,
            (Some(text), None) => once(&mut wide, width(text)?, option)?,
            (None, None) => {
                let forms: Vec<&str> = FORMS[1..].iter().map(|(name, ..)| *name).collect();
                return Err(format!(
                    "`{option}` is neither a width as `w8`, nor {}, nor `normalized`",
                    forms.join(", nor ")
                ));
            }
        }
    }
    let network = PreActResNet18::new(input, classes, wide.unwrap_or(WIDTH));
    Ok(Box::new(PreActResNet18 { form: form.unwrap_or(0), ..network }))
}

impl Architecture for PreActResNet18 {
    fn name(&self) -> String {
        let form = match FORMS[self.form].0 {
            "" => String::new(),
            form => format!("-{form}"),
        };
        format!("preact-resnet18{form}{}", write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let (_, shortcut, last_norm, scheme) = FORMS[self.form];
        net.initialised(scheme, || {
            let x = conv3x3(net, "conv1", net.images(x, self.input), self.width, 1);
            let stages = Stages { inputs: self.width, blocks: &[2; 4], width: self.width, expansion: 1 };
            let mut x =
                stages.record(net, x, layer, |net, x, block| preactivated(net, x, block, shortcut, |y| y));
            if last_norm {
                x = net.batch_norm("bn", x).relu();
            }
            net.linear("linear", x.global_avg_pool(), self.classes)
        })
    }
}
