//! Networks: layers that record on a tape, their parameters, and the architectures built from them.
//!
//! A [`Net`] is a forward pass being recorded. Its layers declare the parameters they need as they go (each a named
//! tensor, by PyTorch's state-dict name), so an architecture is one function and its list of parameters
//! ([`Params::of`]) is read off a scratch recording. Layouts are NHWC and HWIO throughout; [`Params`] turns weights
//! into PyTorch's layout and back at the border. [`Onnx`] is a network from a file.

mod dummies;
mod init;
mod layers;
mod momentum;
mod onnx;
mod params;

pub mod architectures;

pub use crate::tape::{Conv2d, Draw, Pool, Tape, Var};
pub use dummies::{Collapsed, Dummies};
pub use init::{Init, Scheme};
pub use layers::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM};
pub use momentum::Momentum;
pub use onnx::{Onnx, to_onnx};
pub use params::{Layout, Param, Params, Role};

use crate::shape::{DType, Shape};
use std::cell::{Cell, RefCell};

/// What batch norm and dropout do in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Running statistics; no dropout. An affine per channel.
    Eval,
    /// Statistics of the batch, and updates of the running ones ([`Net::updates`]); dropout.
    Train,
    /// Statistics of the batch, the running ones left alone; dropout.
    TrainFrozen,
}

/// A network: a forward pass over images, built from the layers of [`Net`] alone.
pub trait Architecture: Send + Sync {
    /// The name that [`architectures::by_name`] builds the same network from.
    fn name(&self) -> String;

    /// Rows, columns and channels of the images it takes.
    fn input(&self) -> [usize; 3];

    /// Number of classes: columns of its logits.
    fn classes(&self) -> usize;

    /// Whether weight files may hold a tensor of this name that the network has no use for: it is then left out.
    fn unused(&self, _name: &str) -> bool {
        false
    }

    /// Whether what it calls logits is known to have gone through a softmax ([`Onnx`]).
    fn through_softmax(&self) -> bool {
        false
    }

    /// Records logits `[B, classes]` of images `[B, rows, columns, channels]` with pixels in [0, 1].
    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t>;

    /// Of logits `[B, classes]`, those `[B, ..]` whose largest says the class of an image: the same ones, unless
    /// several outputs stand for one class ([`Dummies`]).
    fn verdict<'t>(&self, logits: Var<'t>) -> Var<'t> {
        logits
    }
}

/// A forward pass being recorded.
///
/// Several passes may go through one `Net` (clean and adversarial images, as TRADES needs): they share parameters,
/// each pass's update of the running statistics goes on from the one before, as in PyTorch, and each drops other
/// activations.
pub struct Net<'t> {
    tape: &'t Tape,
    mode: Mode,
    draw: Option<Draw<'t>>,
    scheme: Cell<Scheme>,
    prefix: RefCell<String>,
    params: RefCell<Vec<Param>>,
    // Running statistics by name, as they are after the passes recorded so far.
    running: RefCell<Vec<(String, Var<'t>)>>,
    // Share of a new batch in the running statistics: of the batch norms being recorded, and of all in this pass, where
    // it has one of its own.
    momentum: Cell<f64>,
    share: Option<Var<'t>>,
    // Dropout layers recorded so far: the next one's stream.
    dropouts: Cell<u32>,
}

impl<'t> Net<'t> {
    /// A forward pass on `tape`, without random numbers.
    pub fn new(tape: &'t Tape, mode: Mode) -> Net<'t> {
        Net {
            tape,
            mode,
            draw: None,
            scheme: Cell::new(Scheme::Torch),
            prefix: RefCell::default(),
            params: RefCell::default(),
            running: RefCell::default(),
            momentum: Cell::new(BATCH_NORM_MOMENTUM),
            share: None,
            dropouts: Cell::new(0),
        }
    }

    /// This forward pass with random numbers to drop activations by.
    pub fn with_draw(self, draw: Draw<'t>) -> Net<'t> {
        Net { draw: Some(draw), ..self }
    }

    /// What random numbers of this pass are a function of; `None` where it draws none.
    pub fn draw(&self) -> Option<Draw<'t>> {
        self.draw
    }

    /// This forward pass with a share (a scalar) of the batch in the running statistics of batch norms, whatever their
    /// momentum is.
    pub fn with_share(self, share: Var<'t>) -> Net<'t> {
        Net { share: Some(share), ..self }
    }

    /// The tape it records on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// What batch norm and dropout do.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Records what `body` does with parameter names that begin with `name` and a dot, within the present name.
    pub fn within<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        let outer = self.prefix.borrow().clone();
        self.prefix.replace(join(&outer, name));
        let result = self.tape.scope(name, body);
        self.prefix.replace(outer);
        result
    }

    /// Records what `body` does with the weights of its layers drawn by `scheme`; outside any it is
    /// [`Scheme::Torch`].
    pub fn initialised<R>(&self, scheme: Scheme, body: impl FnOnce() -> R) -> R {
        let outer = self.scheme.replace(scheme);
        let result = body();
        self.scheme.set(outer);
        result
    }

    /// Records what `body` does with a momentum of batch norms: the share of a new batch in their running statistics, 0 to
    /// 1; outside any it is [`BATCH_NORM_MOMENTUM`].
    pub fn at_momentum<R>(&self, momentum: f64, body: impl FnOnce() -> R) -> R {
        let outer = self.momentum.replace(momentum);
        let result = body();
        self.momentum.set(outer);
        result
    }

    /// The parameters declared so far, each once, in order of first use.
    pub fn params(&self) -> Vec<Param> {
        self.params.borrow().clone()
    }

    /// The trained parameters as variables: what a gradient is asked for. In the order of [`Net::params`].
    pub fn weights(&self) -> Vec<(String, Var<'t>)> {
        let params = self.params.borrow();
        let trained = params.iter().filter(|param| param.role.is_trained());
        trained.map(|p| (p.name.clone(), self.tape.source(&p.name, p.shape, DType::F32))).collect()
    }

    /// New values of the running statistics, to be assigned to the tensors of these names; none unless the mode is
    /// [`Mode::Train`].
    pub fn updates(&self) -> Vec<(String, Var<'t>)> {
        self.running.borrow().clone()
    }

    /// The parameter `name` within the present name, declared if it is new. Scheme and prefix are the present ones.
    #[track_caller]
    pub fn param(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        layout: Layout,
        role: Role,
        init: Init,
    ) -> Var<'t> {
        let (name, shape) = (join(&self.prefix.borrow(), name), shape.into());
        let var = self.tape.source(&name, shape, DType::F32);
        let mut params = self.params.borrow_mut();
        if !params.iter().any(|param| param.name == name) {
            params.push(Param { name, shape, layout, role, init });
        }
        var
    }
}

/// `outer.name`, or `name` alone.
fn join(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_string() } else { format!("{outer}.{name}") }
}
