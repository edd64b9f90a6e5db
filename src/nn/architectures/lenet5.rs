//! LeNet-5 (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998) in its
//! present-day form, as in PyTorch's tutorials: relu and maximum pooling in the place of tanh and subsampling, every map
//! of the second convolution joined to all of the first.

use super::{Built, no_options};
use crate::nn::{Architecture, Conv2d, Net, Pool, Var};

/// Rows and columns that the paper pads its digits to.
const SIDE: usize = 32;

/// 5x5 convolutions with 6 and 16 channels, each with a 2x2 maximum pooling, linear 120, 84, the classes. 28x28 digits
/// are padded to 32x32 by the first convolution, as the paper's are; larger images are not. 61 706 parameters on MNIST.
pub struct LeNet5 {
    input: [usize; 3],
    classes: usize,
}

impl LeNet5 {
    /// For images of these rows, columns and channels.
    pub fn new(input: [usize; 3], classes: usize) -> LeNet5 {
        LeNet5 { input, classes }
    }
}

pub(super) fn build(options: &str, input: [usize; 3], classes: usize) -> Built {
    no_options(options)?;
    Ok(Box::new(LeNet5::new(input, classes)))
}

impl Architecture for LeNet5 {
    fn name(&self) -> String {
        "lenet5".into()
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let [rows, columns, _] = self.input;
        let padding = if rows.min(columns) < SIDE { [2, 2] } else { [0, 0] };
        let half = Pool::square(2, 2, 0);
        let x = net.images(x, self.input);
        let x = net.conv("conv1", x, 6, [5, 5], Conv2d { padding, ..Conv2d::default() }, true);
        let x = net.conv("conv2", x.relu().max_pool(half), 16, [5, 5], Conv2d::default(), true);
        let x = net.linear("fc1", x.relu().max_pool(half).flatten(), 120).relu();
        let x = net.linear("fc2", x, 84).relu();
        net.linear("fc3", x, self.classes)
    }
}
