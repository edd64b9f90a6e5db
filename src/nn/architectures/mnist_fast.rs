//! The MNIST network of Wong, Rice and Kolter, "Fast is better than free" (2020): fast_adversarial/MNIST/mnist_net.py.

use super::{Built, no_options};
use crate::nn::{Architecture, Conv2d, Net, Var};

/// Two 4x4 convolutions of stride 2 with 16 and 32 channels, linear 100, linear to the classes; 166 406 parameters on
/// MNIST. Parameters "0", "2", "5", "7": their places in the reference's `nn.Sequential`.
pub struct MnistFast {
    input: [usize; 3],
    classes: usize,
}

impl MnistFast {
    /// For images of these rows, columns and channels.
    pub fn new(input: [usize; 3], classes: usize) -> MnistFast {
        MnistFast { input, classes }
    }
}

pub(super) fn build(options: &str, input: [usize; 3], classes: usize) -> Built {
    no_options(options)?;
    Ok(Box::new(MnistFast::new(input, classes)))
}

impl Architecture for MnistFast {
    fn name(&self) -> String {
        "mnist-fast".into()
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let halving = Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::default() };
        let x = net.images(x, self.input);
        let x = net.conv("0", x, 16, [4, 4], halving, true).relu();
        let x = net.conv("2", x, 32, [4, 4], halving, true).relu();
        let x = net.linear("5", x.flatten(), 100).relu();
        net.linear("7", x, self.classes)
    }
}
