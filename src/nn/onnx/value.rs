//! Values of a graph while it is translated: constants, and activations with the order that their elements lie in.

use super::Why;
use super::build::Builder;
use super::constant::{Constant, product};
use crate::shape::MAX_RANK;
use crate::tape::Var;
use std::sync::Arc;

/// Most elements of an activation, of one image: half a GiB. The largest of ResNet-50 on 224x224 pixels has 0.8 million.
const MAX_LEN: usize = 1 << 27;

/// Most elements of all activations of one image together, which is what a pass back may keep, and what a pass forward
/// computes: 8 GiB. ResNet-50 on 224x224 pixels has some 30 million.
pub(super) const MAX_ALL: usize = 1 << 31;

/// How the elements of an image's activation lie here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As ONNX says.
    Plain,
    /// `[C,H,W]` there, `[H,W,C]` here.
    Image,
    /// `[C * H * W]` there, `[H * W * C]` here, of an image of these C, H and W that was flattened.
    Flat([usize; 3]),
}

/// A value that depends on the images; its first axis, which is not among its extents, is the batch.
#[derive(Clone, Debug)]
pub(super) struct Activation {
    /// Which step makes it, as in [`super::Step::inputs`].
    pub slot: usize,
    /// Extents as ONNX says, without the batch.
    pub dims: Vec<usize>,
    pub order: Order,
}

/// A value of the graph.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Arc<Constant>),
    Activation(Activation),
}

impl Activation {
    /// Number of axes, the batch among them.
    pub fn rank(&self) -> usize {
        self.dims.len() + 1
    }

    /// Channels, rows and columns.
    pub fn image(&self) -> Result<[usize; 3], Why> {
        self.dims.as_slice().try_into().map_err(|_| {
            format!(
                "takes a value of {} axes, but 4 (batch, channels, rows, columns) are supported",
                self.rank()
            )
        })
    }

    /// Whether transposing it moves nothing: one channel, or one pixel.
    fn is_line(&self) -> bool {
        matches!(self.dims[..], [c, h, w] if c == 1 || h * w == 1)
    }

    /// Axis here of ONNX's axis (0 is the batch).
    pub fn axis(&self, axis: usize) -> usize {
        match self.order {
            Order::Image => [0, 3, 1, 2][axis],
            _ => axis,
        }
    }
}

/// Extents here, without the batch, of a value of these extents in ONNX.
pub(super) fn here(dims: &[usize], order: Order) -> Vec<usize> {
    match (order, dims) {
        (Order::Image, &[c, h, w]) => vec![h, w, c],
        _ => dims.to_vec(),
    }
}

/// That a value of these extents can be: how many elements it has.
pub(super) fn fits(dims: &[usize]) -> Result<usize, Why> {
    let shown = &dims[..dims.len().min(8)];
    if dims.len() + 1 > MAX_RANK {
        return Err(format!("makes a value of {} axes, but {MAX_RANK} are supported", dims.len() + 1));
    }
    match product(dims) {
        Some(len) if len > 0 && len <= MAX_LEN => Ok(len),
        _ => Err(format!("makes a value of {shown:?} an image: empty, or larger than {MAX_LEN} elements")),
    }
}

/// x under these extents behind its batch.
pub(super) fn under<'t>(x: Var<'t>, dims: &[usize]) -> Var<'t> {
    let mut all = [1; MAX_RANK];
    all[0] = x.shape().dims().first().copied().unwrap_or(1);
    all[1..=dims.len()].copy_from_slice(dims);
    x.reshape(crate::shape::Shape::new(&all[..=dims.len()]))
}

impl Builder<'_> {
    /// The value with its elements as ONNX orders them.
    pub fn plain(&mut self, a: &Activation) -> Result<Activation, Why> {
        let dims = a.dims.clone();
        match a.order {
            Order::Plain => Ok(a.clone()),
            Order::Image if a.is_line() => {
                let to = dims.clone();
                self.apply(&[a], dims, Order::Plain, move |_, x| under(x[0], &to))
            }
            Order::Image => self.apply(&[a], dims, Order::Plain, |_, x| x[0].transpose(&[0, 3, 1, 2])),
            Order::Flat([c, h, w]) => self.apply(&[a], dims, Order::Plain, move |_, x| {
                under(under(x[0], &[h, w, c]).transpose(&[0, 3, 1, 2]), &[c * h * w])
            }),
        }
    }

    /// The value, of four axes, with its elements as an image here.
    pub fn image(&mut self, a: &Activation) -> Result<Activation, Why> {
        let [c, h, w] = a.image()?;
        let dims = a.dims.clone();
        match a.order {
            Order::Image => Ok(a.clone()),
            _ if a.is_line() => self.apply(&[a], dims, Order::Image, move |_, x| under(x[0], &[h, w, c])),
            _ => self.apply(&[a], dims, Order::Image, |_, x| x[0].transpose(&[0, 2, 3, 1])),
        }
    }

    /// The same elements under other extents, of which there must be as many; of an image flattened as it lies.
    pub fn reshaped(&mut self, a: &Activation, dims: Vec<usize>) -> Result<Activation, Why> {
        if dims == a.dims {
            return Ok(a.clone());
        }
        match (a.order, a.dims.as_slice()) {
            (Order::Image, &[c, h, w]) if dims.len() == 1 && !a.is_line() => {
                let to = dims.clone();
                self.apply(&[a], dims, Order::Flat([c, h, w]), move |_, x| under(x[0], &to))
            }
            (Order::Flat([c, h, w]), _) if dims == [c, h, w] => {
                self.apply(&[a], dims, Order::Image, move |_, x| under(x[0], &[h, w, c]))
            }
            _ => {
                let a = self.plain(a)?;
                let to = dims.clone();
                self.apply(&[&a], dims, Order::Plain, move |_, x| under(x[0], &to))
            }
        }
    }
}
