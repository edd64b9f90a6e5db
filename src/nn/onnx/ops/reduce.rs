//! Reductions and softmax over axes.

use super::super::Why;
use super::super::build::Builder;
use super::super::call::{Call, axis_of};
use super::super::value::{Activation, Order};
use super::Inputs;
use crate::tape::Var;

impl Builder<'_> {
    /// Over pixels, which stay with extent 1.
    pub fn global_pool(
        &mut self,
        inputs: &Inputs<'_>,
        fold: impl for<'t> Fn(Var<'t>) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        let x = self.image(inputs.activation(0)?)?;
        self.apply(&[&x], vec![x.dims[0], 1, 1], Order::Image, move |_, x| fold(x[0]))
    }

    /// Over axes, which are an input since opset `since`.
    pub fn reduce(
        &mut self,
        call: &Call<'_>,
        inputs: &Inputs<'_>,
        since: i64,
        fold: impl for<'t> Fn(Var<'t>, &[usize]) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        let x = inputs.activation(0)?.clone();
        if call.opset < since && inputs.get(1).is_some() {
            return Err(format!("has axes as an input before opset {since}"));
        }
        let mut axes = call.axes(inputs.optional(1)?, x.rank())?.unwrap_or_default();
        let keep = call.int("keepdims", 1)? != 0;
        if axes.is_empty() {
            if call.int("noop_with_empty_axes", 0)? != 0 {
                return Ok(x);
            }
            axes = (0..x.rank()).collect();
        } else {
            call.ignore(&["noop_with_empty_axes"]);
        }
        if axes.contains(&0) {
            return Err("reduces over the batch, which would mix its images".into());
        }
        let x = if x.order == Order::Image { x } else { self.plain(&x)? };
        let mut dims = x.dims.clone();
        axes.iter().for_each(|&axis| dims[axis - 1] = 1);
        let here: Vec<usize> = axes.iter().map(|&axis| x.axis(axis)).collect();
        let y = self.apply(&[&x], dims, x.order, move |_, x| fold(x[0], &here))?;
        if keep {
            return Ok(y);
        }
        let left = (1..x.rank()).filter(|axis| !axes.contains(axis)).map(|axis| y.dims[axis - 1]).collect();
        self.reshaped(&y, left)
    }

    /// Over an axis; before opset 13 over everything from the axis on.
    pub fn softmax(
        &mut self,
        call: &Call<'_>,
        inputs: &Inputs<'_>,
        of: impl for<'t> Fn(Var<'t>) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        let x = inputs.activation(0)?.clone();
        let early = call.opset < 13;
        let axis = axis_of(call.int("axis", if early { 1 } else { -1 })?, x.rank())?;
        if axis == 0 {
            return Err("goes over the batch, which would mix its images".into());
        }
        if early {
            // What lies before the axis is a batch too: rows of everything behind it.
            let (rows, row) = x.dims.split_at(axis - 1);
            let mut flat = rows.to_vec();
            flat.push(row.iter().product());
            let y = self.reshaped(&x, flat)?;
            let y = self.plain(&y)?;
            let y = self.apply(&[&y], y.dims.clone(), Order::Plain, move |_, x| of(x[0]))?;
            return self.reshaped(&y, x.dims);
        }
        let x = if x.order == Order::Image { x } else { self.plain(&x)? };
        let (here, last) = (x.axis(axis), x.rank() - 1);
        let mut perm: Vec<usize> = (0..=last).collect();
        perm.swap(here, last);
        self.apply(&[&x], x.dims.clone(), x.order, move |_, x| of(x[0].transpose(&perm)).transpose(&perm))
    }
}
