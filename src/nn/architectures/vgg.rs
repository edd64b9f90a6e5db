//! VGG-11 and VGG-16 with batch norm for 32x32 images (Simonyan and Zisserman, "Very deep convolutional networks for
//! large-scale image recognition", 2015): pytorch-cifar/models/vgg.py (kuangliu), with one linear layer behind the
//! convolutions.

use super::residual::{WIDTH, write_width};
use super::{Built, only_width};
use crate::nn::{Architecture, Conv2d, Net, Pool, Var};

/// Stages of 3x3 convolutions: how many, and how many times the width they have.
type Stages = [(usize, usize); 5];

/// Five stages of 3x3 convolutions with bias, batch norm and relu, each stage with a 2x2 maximum pooling, mean over the
/// pixels (of 32x32 images one is left), linear. Parameters for three channels and ten classes: 9 231 114 (VGG-11),
/// 14 728 266 (VGG-16).
pub struct Vgg {
    depth: usize,
    stages: Stages,
    input: [usize; 3],
    classes: usize,
    width: usize,
}

impl Vgg {
    /// VGG-11 with `width` channels in the first stage (the reference has 64).
    pub fn new11(input: [usize; 3], classes: usize, width: usize) -> Vgg {
        Vgg { depth: 11, stages: [(1, 1), (1, 2), (2, 4), (2, 8), (2, 8)], input, classes, width }
    }

    /// VGG-16 with `width` channels in the first stage (the reference has 64).
    pub fn new16(input: [usize; 3], classes: usize, width: usize) -> Vgg {
        Vgg { depth: 16, stages: [(2, 1), (2, 2), (3, 4), (3, 8), (3, 8)], input, classes, width }
    }
}

pub(super) fn build11(options: &str, input: [usize; 3], classes: usize) -> Built {
    Ok(Box::new(Vgg::new11(input, classes, only_width(options, WIDTH)?)))
}

pub(super) fn build16(options: &str, input: [usize; 3], classes: usize) -> Built {
    Ok(Box::new(Vgg::new16(input, classes, only_width(options, WIDTH)?)))
}

impl Architecture for Vgg {
    fn name(&self) -> String {
        format!("vgg{}-bn{}", self.depth, write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let same = Conv2d { padding: [1, 1], ..Conv2d::default() };
        let mut x = net.images(x, self.input);
        // Places in the reference's `nn.Sequential`: convolution, batch norm, relu, ..., pooling.
        let mut place = 0;
        for (convolutions, times) in self.stages {
            for _ in 0..convolutions {
                let name = |place: usize| format!("features.{place}");
                x = net.conv(&name(place), x, self.width * times, [3, 3], same, true);
                x = net.batch_norm(&name(place + 1), x).relu();
                place += 3;
            }
            x = x.max_pool(Pool::square(2, 2, 0));
            place += 1;
        }
        net.linear("classifier", x.global_avg_pool(), self.classes)
    }
}
