//! Operators that move elements, and those that only say how they lie.

use super::super::Why;
use super::super::build::Builder;
use super::super::call::{Call, axis_of};
use super::super::constant::{Constant, product, shape_part, target};
use super::super::value::{Activation, Order, Value};
use super::Inputs;
use crate::tape::Pool;
use std::sync::Arc;

/// The batch in a message of what would mix it.
const MIXES: &str = "would mix the images of a batch: the first axis must stay as it is";

impl Builder<'_> {
    /// Extents with the batch in front.
    fn full(&self, x: &Activation) -> Vec<usize> {
        let mut full = vec![self.batch];
        full.extend(&x.dims);
        full
    }

    /// x under extents that begin with the batch.
    fn regrouped(&mut self, x: &Activation, full: &[usize]) -> Result<Activation, Why> {
        match full.split_first() {
            Some((&batch, dims)) if batch == self.batch && product(dims) == product(&x.dims) => {
                self.reshaped(x, dims.to_vec())
            }
            _ => Err(format!("{MIXES}; it is {:?} to {full:?} here", self.full(x))),
        }
    }

    pub fn shape(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Value, Why> {
        let full: Vec<i64> = self.full(inputs.activation(0)?).iter().map(|&dim| dim as i64).collect();
        Ok(Value::Constant(Arc::new(Constant::ints("shape", shape_part(call, &full)?))))
    }

    pub fn reshape(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let allow_zero = call.int("allowzero", 0)? != 0;
        let full = target(&self.full(x), inputs.constant(1)?.as_ints()?, allow_zero)?;
        self.regrouped(x, &full)
    }

    pub fn flatten(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let axis = call.int("axis", 1)?;
        let axis = if axis == x.rank() as i64 { x.rank() } else { axis_of(axis, x.rank())? };
        let full = self.full(x);
        let (before, after) = full.split_at(axis);
        let extent = |dims: &[usize]| product(dims).ok_or("is too large");
        self.regrouped(x, &[extent(before)?, extent(after)?])
    }

    /// Without axes, those of extent 1; the batch stays, whatever the file says it is.
    pub fn squeeze(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let axes = call.axes(inputs.optional(1)?, x.rank())?;
        let axes = axes.unwrap_or_else(|| (1..x.rank()).filter(|&axis| x.dims[axis - 1] == 1).collect());
        if axes.contains(&0) {
            return Err(MIXES.into());
        }
        if let Some(axis) = axes.iter().find(|&&axis| x.dims[axis - 1] != 1) {
            return Err(format!("takes axis {axis} away, which has extent {}", x.dims[axis - 1]));
        }
        let left = (1..x.rank()).filter(|axis| !axes.contains(axis)).map(|axis| x.dims[axis - 1]).collect();
        self.reshaped(x, left)
    }

    pub fn unsqueeze(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let full = call.unsqueezed(inputs.optional(1)?, &self.full(x))?;
        self.regrouped(x, &full)
    }

    pub fn transpose(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?.clone();
        let perm = call.permutation(x.rank())?;
        if perm[0] != 0 {
            return Err(MIXES.into());
        }
        let dims: Vec<usize> = perm[1..].iter().map(|&axis| x.dims[axis - 1]).collect();
        // An image is NHWC as it lies here.
        match (x.order, perm.as_slice()) {
            (Order::Image, [0, 2, 3, 1]) => return Ok(Activation { dims, order: Order::Plain, ..x }),
            (Order::Plain, [0, 3, 1, 2]) => return Ok(Activation { dims, order: Order::Image, ..x }),
            _ => {}
        }
        let x = self.plain(&x)?;
        self.apply(&[&x], dims, Order::Plain, move |_, x| x[0].transpose(&perm))
    }

    pub fn concat(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let mut all = Vec::new();
        for i in 0..inputs.0.len() {
            let x = inputs.activation(i)?;
            all.push(if x.rank() == 4 { self.image(x)? } else { self.plain(x)? });
        }
        let first = all.first().ok_or("has no inputs")?.clone();
        let axis = axis_of(call.some_int("axis")?.ok_or("lacks attribute axis")?, first.rank())?;
        if axis == 0 {
            return Err(MIXES.into());
        }
        let mut dims = first.dims.clone();
        dims[axis - 1] = 0;
        for x in &all {
            let fits =
                x.rank() == first.rank() && (0..dims.len()).all(|i| i == axis - 1 || x.dims[i] == dims[i]);
            if !fits {
                return Err(format!("{:?} does not continue {:?} along axis {axis}", x.dims, first.dims));
            }
            dims[axis - 1] += x.dims[axis - 1];
        }
        let here = first.axis(axis);
        let parts: Vec<&Activation> = all.iter().collect();
        self.apply(&parts, dims, first.order, move |_, x| x[0].concat(&x[1..], here))
    }

    /// With a constant, by attributes before opset 11, by inputs since.
    pub fn pad(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let mode = call.text("mode", "constant")?;
        if mode != "constant" {
            return Err(format!("has mode `{mode}`, but constant is supported"));
        }
        let value = match (call.some_float("value")?, inputs.optional(2)?) {
            (Some(value), None) => f64::from(value),
            (None, Some(value)) => value.single().ok_or("has a value that is not one float")?,
            _ => 0.0,
        };
        let pads = match (call.some_ints("pads")?, inputs.optional(1)?) {
            (Some(pads), None) => pads,
            (None, Some(pads)) => pads.as_ints()?,
            _ => return Err("lacks pads".into()),
        };
        let axes = match inputs.optional(3)? {
            None => (0..x.rank()).collect(),
            axes => call.axes(axes, x.rank())?.unwrap_or_default(),
        };
        if pads.len() != 2 * axes.len() || !value.is_finite() {
            return Err(format!("has {} pads with {value} for {} axes", pads.len(), axes.len()));
        }
        let mut around = vec![[0, 0]; x.rank()];
        for (i, &axis) in axes.iter().enumerate() {
            for side in 0..2 {
                let pad = pads[i + side * axes.len()];
                let pad = usize::try_from(pad).ok().filter(|&pad| pad <= 1 << 14);
                around[axis][side] = pad.ok_or("has a negative or huge pad, which is not supported")?;
            }
        }
        if around[0] != [0, 0] {
            return Err(MIXES.into());
        }
        let x = if x.order == Order::Image { x.clone() } else { self.plain(x)? };
        self.padded(&x, &around[1..], value)
    }

    /// x with so much before and after each of its axes behind the batch, all of this value.
    pub fn padded(&mut self, x: &Activation, around: &[[usize; 2]], value: f64) -> Result<Activation, Why> {
        if around.iter().all(|pad| *pad == [0, 0]) {
            return Ok(x.clone());
        }
        let dims: Vec<usize> =
            x.dims.iter().zip(around).map(|(&dim, [before, after])| dim + before + after).collect();
        let mut before = vec![0; x.rank()];
        for axis in 1..x.rank() {
            before[x.axis(axis)] = around[axis - 1][0];
        }
        let mut here = vec![1];
        here.extend(super::super::value::here(&dims, x.order));
        self.apply(&[x], dims, x.order, move |_, x| {
            let mut to = here.clone();
            to[0] = x[0].shape()[0];
            let shape = crate::shape::Shape::new(&to);
            let padded = x[0].pad(&before, shape);
            if value == 0.0 {
                return padded;
            }
            // 0 where x is, so that x stays as it is to the bit, and the value around.
            let one = x[0].tape().fill(x[0].shape().with(0, 1), 1.0);
            let inside = one.pad(&before, shape.with(0, 1));
            padded + inside.affine(-1.0, 1.0).scale(value)
        })
    }

    /// Steps above 1 along rows and columns alone.
    pub fn slice(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?.clone();
        let parts = [inputs.optional(1)?, inputs.optional(2)?, inputs.optional(3)?, inputs.optional(4)?];
        let full = self.full(&x);
        let spans = call.spans(&parts, &full)?;
        if spans[0] != (0, self.batch, 1) {
            return Err(MIXES.into());
        }
        let x = if x.order == Order::Image { x } else { self.plain(&x)? };
        let steps: Vec<usize> = spans[1..].iter().map(|span| span.2).collect();
        // The box that the steps lie in.
        let mut start = vec![0; x.rank()];
        let mut dims = Vec::new();
        for (axis, &(first, count, step)) in spans.iter().enumerate().skip(1) {
            start[x.axis(axis)] = first;
            dims.push(if count == 0 { 0 } else { (count - 1) * step + 1 });
        }
        let x = self.boxed(&x, start, dims)?;
        match steps.as_slice() {
            steps if steps.iter().all(|&step| step == 1) => Ok(x),
            &[1, down, across] if x.order == Order::Image => {
                // Windows of one pixel.
                let pool = Pool { kernel: [1, 1], stride: [down, across], padding: [0, 0] };
                let dims = spans[1..].iter().map(|span| span.1).collect();
                self.apply(&[&x], dims, Order::Image, move |_, x| x[0].avg_pool(pool))
            }
            _ => Err(format!(
                "has steps {steps:?}, but steps above 1 are supported along rows and columns alone"
            )),
        }
    }

    /// The box of these extents that begins at `start` (of the axes as they lie here, the batch among them).
    fn boxed(&mut self, x: &Activation, start: Vec<usize>, dims: Vec<usize>) -> Result<Activation, Why> {
        if dims == x.dims {
            return Ok(x.clone());
        }
        let mut here = vec![1];
        here.extend(super::super::value::here(&dims, x.order));
        self.apply(&[x], dims, x.order, move |_, x| {
            let mut to = here.clone();
            to[0] = x[0].shape()[0];
            x[0].slice_box(start.clone(), crate::shape::Shape::new(&to))
        })
    }

    /// One index along an axis.
    pub fn gather(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?;
        let axis = axis_of(call.int("axis", 0)?, x.rank())?;
        let index = inputs.constant(1)?;
        let &[at] = index.as_ints()? else {
            return Err(format!("takes {} indices of an activation, but one is supported", index.len()));
        };
        if axis == 0 {
            return Err(MIXES.into());
        }
        let x = if x.order == Order::Image { x.clone() } else { self.plain(x)? };
        let at = axis_of(at, x.dims[axis - 1]).map_err(|_| format!("gathers index {at} of {:?}", x.dims))?;
        let mut start = vec![0; x.rank()];
        start[x.axis(axis)] = at;
        let mut dims = x.dims.clone();
        dims[axis - 1] = 1;
        let one = self.boxed(&x, start, dims.clone())?;
        if index.dims.is_empty() {
            dims.remove(axis - 1);
        }
        self.reshaped(&one, dims)
    }
}
