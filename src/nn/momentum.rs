//! Batch norm with another momentum than PyTorch's default.

use super::{Architecture, Net, Var};

/// A network whose batch norms move their running statistics by this share of each new batch (PyTorch's `momentum`;
/// Gowal et al. 2020 and those who follow them train with 0.01).
pub struct Momentum {
    inner: Box<dyn Architecture>,
    share: f64,
}

impl Momentum {
    /// `inner` with a share from 0 (the running statistics stay as they are) to 1 (they are the last batch's).
    pub fn new(inner: Box<dyn Architecture>, share: f64) -> Momentum {
        Momentum { inner, share }
    }
}

impl Architecture for Momentum {
    fn name(&self) -> String {
        self.inner.name()
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

    fn verdict<'t>(&self, logits: Var<'t>) -> Var<'t> {
        self.inner.verdict(logits)
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        net.at_momentum(self.share, || self.inner.forward(net, x))
    }
}
