//! Dummy classes: two outputs for each class (DUCAT: Wang et al. 2024, "New Paradigm of Adversarial Training: Breaking
//! Inherent Trade-Off between Accuracy and Robustness via Dummy Classes"; spec 2.11). Output `c` says class c, output
//! `c + classes` says "c, under attack".

use super::{Architecture, Net, Var};

/// A network of twice as many outputs as there are classes. Its logits are those 2C; an image is of class c where the
/// largest of them is c or c + C.
pub struct Dummies(Box<dyn Architecture>);

impl Dummies {
    /// The network `of` twice as many outputs as there are classes.
    pub fn new(of: Box<dyn Architecture>) -> Dummies {
        Dummies(of)
    }
}

impl Architecture for Dummies {
    fn name(&self) -> String {
        self.0.name()
    }

    fn input(&self) -> [usize; 3] {
        self.0.input()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn unused(&self, name: &str) -> bool {
        self.0.unused(name)
    }

    fn through_softmax(&self) -> bool {
        self.0.through_softmax()
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        self.0.forward(net, x)
    }

    fn verdict<'t>(&self, logits: Var<'t>) -> Var<'t> {
        let [class, dummy] = halves(logits);
        class.max(dummy)
    }
}

/// The classifier with C classes that a network with dummy classes amounts to, `g(x)_c = logsumexp(z_c, z_{c+C})`:
/// softmax of g is the probability that either output of a class has. An attack on the 2C logits spends its effort on
/// moving probability from a class to its own dummy, which changes nothing; one on g does not.
pub struct Collapsed<'a>(pub &'a dyn Architecture);

impl Architecture for Collapsed<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn input(&self) -> [usize; 3] {
        self.0.input()
    }

    fn classes(&self) -> usize {
        self.0.classes() / 2
    }

    fn unused(&self, name: &str) -> bool {
        self.0.unused(name)
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let [class, dummy] = halves(self.0.forward(net, x));
        // max(a, b) + log(1 + e^-|a - b|), which overflows nowhere.
        let less = (class - dummy).abs().scale(-1.0).exp();
        class.max(dummy) + less.affine(1.0, 1.0).log()
    }
}

/// Logits `[B, 2C]` as those of classes and those of dummies.
fn halves(logits: Var<'_>) -> [Var<'_>; 2] {
    let classes = logits.shape().dims().last().copied().unwrap_or(2) / 2;
    let axis = logits.shape().rank() - 1;
    [0, classes].map(|start| logits.slice(axis, start, classes))
}
