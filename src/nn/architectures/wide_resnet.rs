//! Wide residual networks (Zagoruyko and Komodakis, "Wide residual networks", 2016) as adversarial training uses them:
//! TRADES/models/wideresnet.py (Zhang et al. 2019).

use super::residual::{Shortcut, Stages, conv3x3, preactivated};
use super::{Built, once, options};
use crate::nn::{Architecture, Net, Scheme, Var};

/// Channels of the stem, and of the first stage where the factor is 1.
const STEM: usize = 16;
/// Largest depth and factor taken.
const MOST: usize = 1000;

/// 3x3 stem with 16 channels, three stages of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times the factor
/// channels, batch norm, relu, mean over the pixels, linear. On 32x32 images that mean is the reference's 8x8 average
/// pooling. Convolutions are drawn by He's rule, the last bias is 0. Ten classes of CIFAR-10: 46 160 474 parameters as
/// 34-10, 36 479 194 as 28-10.
///
/// `train --dry-run` puts a PGD-10 step of 34-10 on batches of 128 (SGD with momentum, averaged weights, CIFAR-10 on the
/// device) at 2.4 GiB on the CPU executor, 39.2 TFLOP; with `--micro-batch 32` at 1.5 GiB.
///
/// The reference's file also registers an unused `sub_block1`, which is no part of the network: parameter counts of its
/// checkpoints include it, and loading one leaves it out.
pub struct WideResNet {
    input: [usize; 3],
    classes: usize,
    depth: usize,
    factor: usize,
    dropout: f64,
}

impl WideResNet {
    /// Of this depth (6 n + 4) and factor on the channels; activations between the two convolutions of a block are
    /// dropped with probability `dropout`, in [0, 1).
    ///
    /// # Errors
    /// What is wrong with the numbers.
    pub fn new(
        input: [usize; 3],
        classes: usize,
        [depth, factor]: [usize; 2],
        dropout: f64,
    ) -> Result<WideResNet, String> {
        if depth < 10 || depth % 6 != 4 || depth > MOST {
            return Err(format!("depth {depth} is not 6 n + 4 for n from 1 on, as 10, 16, 28 or 34"));
        }
        if factor == 0 || factor > MOST {
            return Err(format!("factor {factor} is not from 1 to {MOST}"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!("dropout {dropout} is not a probability from 0 to below 1"));
        }
        Ok(WideResNet { input, classes, depth, factor, dropout })
    }
}

pub(super) fn build(text: &str, input: [usize; 3], classes: usize) -> Built {
    let mut rest = options(text);
    let mut number = |what: &str| {
        let text = rest.next().unwrap_or_default();
        text.parse()
            .map_err(|_| format!("`{text}` is no {what}: write depth and factor, as in wide-resnet-28-10"))
    };
    let extents = [number("depth")?, number("factor")?];
    let mut dropout = None;
    for option in rest {
        let rate = option.strip_prefix("dropout").and_then(|rate| rate.parse().ok());
        let rate = rate.ok_or_else(|| {
            format!("`{option}` is neither a dropout rate as `dropout0.3` nor `normalized`")
        })?;
        once(&mut dropout, rate, option)?;
    }
    Ok(Box::new(WideResNet::new(input, classes, extents, dropout.unwrap_or(0.0))?))
}

impl Architecture for WideResNet {
    fn name(&self) -> String {
        let dropout = if self.dropout > 0.0 { format!("-dropout{}", self.dropout) } else { String::new() };
        format!("wide-resnet-{}-{}{dropout}", self.depth, self.factor)
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn unused(&self, name: &str) -> bool {
        name.starts_with("sub_block1.")
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = net.images(x, self.input);
        let x = net.initialised(Scheme::HeNormal, || {
            let x = conv3x3(net, "conv1", x, STEM, 1);
            let blocks = [(self.depth - 4) / 6; 3];
            let stages = Stages { inputs: STEM, blocks: &blocks, width: STEM * self.factor, expansion: 1 };
            let name = |stage: usize, index: usize| format!("block{stage}.layer.{index}");
            stages.record(net, x, name, |net, x, block| {
                preactivated(net, x, block, Shortcut::Activated("convShortcut"), |y| {
                    net.dropout(y, self.dropout)
                })
            })
        });
        let x = net.batch_norm("bn1", x).relu().global_avg_pool();
        net.initialised(Scheme::ZeroBias, || net.linear("fc", x, self.classes))
    }
}
