//! The MNIST network of TRADES (Zhang et al., "Theoretically principled trade-off between robustness and accuracy",
//! 2019): TRADES/models/small_cnn.py.

use super::{Built, no_options};
use crate::nn::{Architecture, Conv2d, Net, Pool, Scheme, Var};

/// Probability with which an activation of the first linear layer is dropped.
const DROPOUT: f64 = 0.5;

/// 3x3 convolutions with 32, 32, 64 and 64 channels without padding, a 2x2 maximum pooling behind the second and the
/// fourth, linear 200, dropout, linear 200, linear to the classes. Convolutions are drawn by Kaiming's rule with biases
/// of 0, and the last layer begins at 0. 312 202 parameters on MNIST.
pub struct SmallCnn {
    input: [usize; 3],
    classes: usize,
}

impl SmallCnn {
    /// For images of these rows, columns and channels.
    pub fn new(input: [usize; 3], classes: usize) -> SmallCnn {
        SmallCnn { input, classes }
    }
}

pub(super) fn build(options: &str, input: [usize; 3], classes: usize) -> Built {
    no_options(options)?;
    Ok(Box::new(SmallCnn::new(input, classes)))
}

impl Architecture for SmallCnn {
    fn name(&self) -> String {
        "small-cnn".into()
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let half = Pool::square(2, 2, 0);
        let conv = |name: &str, x: Var<'t>, channels: usize| {
            net.conv(name, x, channels, [3, 3], Conv2d::default(), true).relu()
        };
        let x = net.images(x, self.input);
        let x = net.within("feature_extractor", || {
            net.initialised(Scheme::KaimingNormal, || {
                let x = conv("conv2", conv("conv1", x, 32), 32).max_pool(half);
                conv("conv4", conv("conv3", x, 64), 64).max_pool(half)
            })
        });
        net.within("classifier", || {
            let x = net.dropout(net.linear("fc1", x.flatten(), 200).relu(), DROPOUT);
            let x = net.linear("fc2", x, 200).relu();
            net.initialised(Scheme::Zero, || net.linear("fc3", x, self.classes))
        })
    }
}
