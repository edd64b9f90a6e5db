//! Multilayer perceptron on flattened pixels.

use super::{Built, width};
use crate::nn::{Architecture, Net, Var};

/// Hidden widths unless a name says otherwise.
const HIDDEN: [usize; 1] = [100];

/// `nn.Sequential(Flatten, Linear, ReLU, ..., Linear)`: parameters "1", "3", "5", ... as PyTorch numbers them.
pub struct Mlp {
    input: [usize; 3],
    hidden: Vec<usize>,
    classes: usize,
}

impl Mlp {
    /// Of these hidden widths; with none it is a linear classifier.
    pub fn new(input: [usize; 3], hidden: &[usize], classes: usize) -> Mlp {
        Mlp { input, hidden: hidden.to_vec(), classes }
    }
}

pub(super) fn build(options: &str, input: [usize; 3], classes: usize) -> Built {
    let hidden = match options {
        "" => HIDDEN.to_vec(),
        widths => widths.split('-').map(width).collect::<Result<_, _>>()?,
    };
    Ok(Box::new(Mlp::new(input, &hidden, classes)))
}

impl Architecture for Mlp {
    fn name(&self) -> String {
        if self.hidden == HIDDEN {
            return "mlp".into();
        }
        let widths: String = self.hidden.iter().map(|width| format!("-{width}")).collect();
        format!("mlp{widths}")
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let mut x = net.images(x, self.input).flatten();
        let mut place = 1;
        for &width in &self.hidden {
            x = net.linear(&place.to_string(), x, width).relu();
            place += 2;
        }
        net.linear(&place.to_string(), x, self.classes)
    }
}
