//! The MNIST network of Madry et al., "Towards deep learning models resistant to adversarial attacks" (2018):
//! mnist_challenge/model.py.

use super::{Built, no_options};
use crate::nn::{Architecture, Conv2d, Net, Pool, Scheme, Var};

/// Two 5x5 convolutions with 32 and 64 channels, each with a 2x2 maximum pooling, linear 1024, linear to the classes.
/// Initial weights are the reference's ([`Scheme::Madry`]).
pub struct MnistMadry {
    input: [usize; 3],
    classes: usize,
}

impl MnistMadry {
    /// For images of these rows, columns and channels.
    pub fn new(input: [usize; 3], classes: usize) -> MnistMadry {
        MnistMadry { input, classes }
    }
}

pub(super) fn build(options: &str, input: [usize; 3], classes: usize) -> Built {
    no_options(options)?;
    Ok(Box::new(MnistMadry::new(input, classes)))
}

impl Architecture for MnistMadry {
    fn name(&self) -> String {
        "mnist-madry".into()
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        // TensorFlow's "SAME" for an odd filter and stride 1.
        let same = Conv2d { padding: [2, 2], ..Conv2d::default() };
        let half = Pool::square(2, 2, 0);
        net.initialised(Scheme::Madry, || {
            let x = net.images(x, self.input);
            let x = net.conv("conv1", x, 32, [5, 5], same, true).relu().max_pool(half);
            let x = net.conv("conv2", x, 64, [5, 5], same, true).relu().max_pool(half);
            let x = net.linear("fc1", x.flatten(), 1024).relu();
            net.linear("fc2", x, self.classes)
        })
    }
}
