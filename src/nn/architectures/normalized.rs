//! A network behind the normalisation of its pixels.

use crate::nn::{Architecture, Net, Var};

/// Constants by which pixels are normalised inside the network, before its first layer: `(x - mean) / std` per
/// channel. An attack on the network then still works on pixels in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of the pixels, one a channel.
    pub mean: Vec<f64>,
    /// Standard deviation of the pixels, one a channel.
    pub std: Vec<f64>,
}

/// Rows from which on images count as ImageNet's.
const LARGE: usize = 64;

impl Normalization {
    /// The statistics that the literature uses for such images: MNIST's with one channel; with three CIFAR-10's, or from
    /// 64 rows on ImageNet's.
    pub fn usual(input: [usize; 3]) -> Option<Normalization> {
        let (mean, std) = match input {
            [_, _, 1] => (vec![0.1307], vec![0.3081]),
            [rows, _, 3] if rows >= LARGE => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            [_, _, 3] => (vec![0.4914, 0.4822, 0.4465], vec![0.2471, 0.2435, 0.2616]),
            _ => return None,
        };
        Some(Normalization { mean, std })
    }
}

/// A network whose pixels are normalised before its first layer; the constants are stored with its weights, as
/// `normalize.mean` and `normalize.std`.
pub struct Normalized {
    inner: Box<dyn Architecture>,
    constants: Normalization,
}

impl Normalized {
    /// `inner` behind these constants.
    pub fn new(inner: Box<dyn Architecture>, constants: Normalization) -> Normalized {
        Normalized { inner, constants }
    }
}

impl Architecture for Normalized {
    fn name(&self) -> String {
        format!("{}{}", self.inner.name(), super::NORMALIZED)
    }

    fn input(&self) -> [usize; 3] {
        self.inner.input()
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }

    fn unused(&self, name: &str) -> bool {
        self.inner.unused(name)
    }

    fn through_softmax(&self) -> bool {
        self.inner.through_softmax()
    }

    fn verdict<'t>(&self, logits: Var<'t>) -> Var<'t> {
        self.inner.verdict(logits)
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = net.images(x, self.input());
        let x = net.normalize("normalize", x, &self.constants.mean, &self.constants.std);
        self.inner.forward(net, x)
    }
}
