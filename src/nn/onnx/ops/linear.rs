//! Matrix products with weights, and batch norm.

use super::super::Why;
use super::super::build::Builder;
use super::super::call::{Call, axis_of};
use super::super::constant::Constant;
use super::super::value::{Activation, Order, under};
use super::Inputs;
use crate::nn::{Layout, Role};
use std::sync::Arc;

/// What a layer is called after its weight.
pub(super) fn layer(weight: &Constant) -> String {
    weight.name.strip_suffix(".weight").unwrap_or(&weight.name).to_string()
}

impl Builder<'_> {
    /// `alpha x w + beta c`, w transposed first where `transB` says so.
    pub fn gemm(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
        if call.int("transA", 0)? != 0 {
            return Err("transposes the activation (transA), which is not supported".into());
        }
        let x = inputs.activation(0)?;
        if x.rank() != 2 {
            return Err(format!("takes a value of {} axes instead of 2", x.rank()));
        }
        let weight = self.matrix(inputs.constant(1)?, call.int("transB", 0)? != 0)?;
        let mut y = self.product(x, &weight)?;
        if alpha != 1.0 {
            y = self.apply(&[&y], y.dims.clone(), y.order, move |_, x| x[0].scale(alpha))?;
        }
        let Some(bias) = inputs.optional(2)? else { return Ok(y) };
        let outputs = y.dims[0];
        let values: Arc<[f32]> = match bias.as_floats()?.as_ref() {
            &[one] => vec![one; outputs].into(),
            all if all.len() == outputs && bias.dims.last() == Some(&outputs) => bias.as_floats()?.clone(),
            _ => return Err(format!("adds {:?} to {outputs} outputs, which is not supported", bias.dims)),
        };
        let base = layer(inputs.constant(1)?);
        let bias = self.weight(&base, ("bias", Role::Bias), [outputs], Layout::Plain, &values)?;
        self.apply(&[&y], y.dims.clone(), y.order, move |net, x| match beta == 1.0 {
            true => x[0] + bias.var(net),
            false => x[0].add_scaled(bias.var(net), beta),
        })
    }

    /// `x w` over the last axis.
    pub fn matmul(&mut self, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = inputs.activation(0)?.clone();
        let weight = self.matrix(inputs.constant(1)?, false)?;
        if x.rank() == 2 {
            return self.product(&x, &weight);
        }
        let x = self.plain(&x)?;
        let [outputs, width] = weight.dims[..] else { return Err("lacks a matrix".into()) };
        if x.dims.last() != Some(&width) {
            return Err(format!("multiplies {:?} by a matrix of {width} rows", x.dims));
        }
        let w = self.weight(
            &layer(&weight),
            ("weight", Role::Weight),
            [width, outputs],
            Layout::Linear { flattened: None },
            weight.as_floats()?,
        )?;
        let mut dims = x.dims.clone();
        *dims.last_mut().ok_or("takes a batch of nothing")? = outputs;
        let to = dims.clone();
        let y = self.apply(&[&x], dims, Order::Plain, move |net, x| {
            let rows = x[0].shape().len() / width;
            let y = x[0].reshape([rows, width]).matmul(w.var(net));
            // The batch is in front again.
            under(y.reshape([x[0].shape()[0], y.shape().len() / x[0].shape()[0]]), &to)
        })?;
        self.products.insert(y.slot);
        Ok(y)
    }

    /// A matrix as PyTorch has it, `[outputs, inputs]`.
    fn matrix(&mut self, weight: &Constant, transposed: bool) -> Result<Constant, Why> {
        match weight.dims[..] {
            [_, _] if transposed => Ok(weight.clone()),
            [_, _] => weight.transposed(&mut self.budget, &[1, 0]),
            _ => Err(format!(
                "multiplies by `{}` of {:?}, but a matrix is supported",
                weight.name, weight.dims
            )),
        }
    }

    fn product(&mut self, x: &Activation, weight: &Constant) -> Result<Activation, Why> {
        let [outputs, width] = weight.dims[..] else { return Err("lacks a matrix".into()) };
        if x.dims != [width] {
            return Err(format!("multiplies {:?} by `{}` of {width} rows", x.dims, weight.name));
        }
        let flattened = match x.order {
            Order::Flat([c, h, w]) => Some([h, w, c]),
            _ => None,
        };
        let layout = Layout::Linear { flattened };
        let kind = ("weight", Role::Weight);
        let w = self.weight(&layer(weight), kind, [width, outputs], layout, weight.as_floats()?)?;
        let y = self.apply(&[x], vec![outputs], Order::Plain, move |net, x| x[0].matmul(w.var(net)))?;
        self.products.insert(y.slot);
        Ok(y)
    }

    /// By the running statistics in evaluation, by the batch's in training, however the file was exported.
    pub fn batch_norm(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        call.ignore(&["momentum", "spatial"]);
        if call.int("training_mode", 0)? != 0 {
            self.training.push(self.scope().to_string());
        }
        let epsilon = call.float("epsilon", 1e-5)?;
        let x = inputs.activation(0)?;
        let x = match x.rank() {
            4 => self.image(x)?,
            2 => self.plain(x)?,
            rank => return Err(format!("takes a value of {rank} axes, but 2 and 4 are supported")),
        };
        let channels = x.dims[0];
        let mut values = Vec::new();
        for i in 1..5 {
            let vector = inputs.constant(i)?;
            if vector.dims != [channels] {
                return Err(format!("has `{}` of {:?} for {channels} channels", vector.name, vector.dims));
            }
            values.push(vector.as_floats()?.clone());
        }
        let Ok(values): Result<[Arc<[f32]>; 4], _> = values.try_into() else {
            return Err("lacks inputs".into());
        };
        if epsilon < 0.0 || values[3].iter().any(|&variance| f64::from(variance) + epsilon <= 0.0) {
            return Err("has a variance that is not positive".into());
        }
        let name = self.norm(&layer(inputs.constant(1)?), &values)?;
        self.apply(&[&x], x.dims.clone(), x.order, move |net, x| {
            net.batch_norm_from(&name, x[0], epsilon, values.clone().map(crate::nn::Init::Given))
        })
    }

    /// Over the last axis.
    pub fn layer_norm(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        // What the mean is computed in is what everything is computed in.
        call.ignore(&["stash_type"]);
        let epsilon = call.float("epsilon", 1e-5)?;
        let x = inputs.activation(0)?.clone();
        let axis = axis_of(call.int("axis", -1)?, x.rank())?;
        let last = x.rank() - 1;
        if axis != last || axis == 0 || epsilon < 0.0 {
            return Err(format!(
                "goes over axis {axis} of {} with epsilon {epsilon}, but the last is supported",
                x.rank()
            ));
        }
        let x = self.plain(&x)?;
        let channels = x.dims[last - 1];
        let (scale, base) = (inputs.constant(1)?, layer(inputs.constant(1)?));
        let kind = ("weight", Role::NormWeight);
        let weight = self.weight(&base, kind, [channels], Layout::Plain, scale.as_floats()?)?;
        let bias = match inputs.optional(2)? {
            None => None,
            Some(bias) => {
                let kind = ("bias", Role::NormBias);
                Some(self.weight(&base, kind, [channels], Layout::Plain, bias.as_floats()?)?)
            }
        };
        self.apply(&[&x], x.dims.clone(), Order::Plain, move |net, x| {
            let centred = x[0] - x[0].mean(&[last]);
            let deviation = centred.square().mean(&[last]).affine(1.0, epsilon).sqrt();
            let scaled = centred / deviation * weight.var(net);
            bias.as_ref().map_or(scaled, |bias| scaled + bias.var(net))
        })
    }
}
