//! Operators on each element: functions of one value, arithmetic of two.

use super::super::Why;
use super::super::build::Builder;
use super::super::call::Call;
use super::super::constant::{Constant, Data, broadcast};
use super::super::proto::types;
use super::super::value::{Activation, Order, Value};
use super::Inputs;
use crate::nn::{Layout, Role};
use crate::tape::Var;
use std::sync::Arc;

/// How two values become one.
type Combine = for<'t> fn(Var<'t>, Var<'t>) -> Var<'t>;

impl Builder<'_> {
    /// A function of each element of input 1.
    pub fn unary(
        &mut self,
        inputs: &Inputs<'_>,
        of: impl for<'t> Fn(Var<'t>) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        self.mapped(inputs.activation(0)?, of)
    }

    fn mapped(
        &mut self,
        a: &Activation,
        of: impl for<'t> Fn(Var<'t>) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        self.apply(&[a], a.dims.clone(), a.order, move |_, x| of(x[0]))
    }

    /// Whole powers up to three, and the root.
    pub fn pow(&mut self, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let exponent = inputs.constant(1)?.single().ok_or("has an exponent that is not one float")?;
        match exponent {
            0.5 => self.unary(inputs, |x| x.sqrt()),
            1.0 => Ok(inputs.activation(0)?.clone()),
            2.0 => self.unary(inputs, |x| x.square()),
            3.0 => self.unary(inputs, |x| x.square() * x),
            other => Err(format!("has exponent {other}, but 0.5, 1, 2 and 3 are supported")),
        }
    }

    pub fn gelu(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        match call.text("approximate", "none")? {
            "none" => self.unary(inputs, |x| x.gelu()),
            "tanh" => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                self.unary(inputs, move |x| {
                    let inner = (x + (x.square() * x).scale(0.044715)).scale(root).tanh();
                    (x * inner.affine(1.0, 1.0)).scale(0.5)
                })
            }
            other => Err(format!("has approximate = `{other}`, but none and tanh are supported")),
        }
    }

    /// Bounds are attributes before opset 11, inputs since.
    pub fn clip(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let mut bounds = [f64::NEG_INFINITY, f64::INFINITY];
        for (i, (name, bound)) in ["min", "max"].into_iter().zip(&mut bounds).enumerate() {
            let given = call.some_float(name)?.map(f64::from);
            let input = match inputs.optional(i + 1)? {
                None => None,
                Some(x) => Some(x.single().ok_or_else(|| format!("has a {name} that is not one float"))?),
            };
            *bound = given.or(input).unwrap_or(*bound);
        }
        let [lo, hi] = bounds;
        if lo.is_nan() || hi.is_nan() || lo > hi {
            return Err(format!("clips to [{lo}, {hi}], which is no range"));
        }
        match (lo == 0.0, hi == f64::INFINITY) {
            (true, true) => self.unary(inputs, |x| x.relu()),
            _ => self.unary(inputs, move |x| x.clamp(lo, hi)),
        }
    }

    /// Drops in training, does nothing else. The rate is an attribute before opset 12, an input since.
    pub fn dropout(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        call.ignore(&["seed", "is_test"]);
        let rate = match (call.some_float("ratio")?, inputs.optional(1)?) {
            (Some(rate), _) => f64::from(rate),
            (None, Some(x)) => x.single().ok_or("has a rate that is not one float")?,
            (None, None) => 0.5,
        };
        if !(0.0..1.0).contains(&rate) {
            return Err(format!("has a rate of {rate}, but from 0 to below 1 is supported"));
        }
        let drops = inputs
            .optional(2)?
            .is_some_and(|flag| matches!(&flag.data, Data::Int(flag) if flag.contains(&1)));
        if drops && rate > 0.0 {
            self.training.push(self.scope().to_string());
        }
        let a = inputs.activation(0)?;
        self.apply(&[a], a.dims.clone(), a.order, move |net, x| net.dropout(x[0], rate))
    }

    /// To another floating type: everything here is computed in one.
    pub fn cast(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        call.ignore(&["saturate"]);
        match call.int("to", 0)? as i32 {
            types::FLOAT | types::DOUBLE => Ok(inputs.activation(0)?.clone()),
            other => Err(format!("casts to type {other}, but to floats of 32 or 64 bits is supported")),
        }
    }

    /// `Add`, `Sub`, `Mul`, `Div`, `Max` and `Min`.
    pub fn arithmetic(&mut self, op: &str, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let combine: Combine = match op {
            "Add" => |x, y| x + y,
            "Sub" => |x, y| x - y,
            "Mul" => |x, y| x * y,
            "Div" => |x, y| x / y,
            "Max" => |x, y| x.max(y),
            _ => |x, y| x.min(y),
        };
        match (inputs.get(0), inputs.get(1)) {
            _ if inputs.0.len() != 2 => Err(format!("has {} inputs, but two are supported", inputs.0.len())),
            (Some(Value::Activation(x)), Some(Value::Activation(y))) => self.both(x, y, combine),
            (Some(Value::Activation(x)), Some(Value::Constant(y))) => {
                self.with_constant(op, x, y, combine, false)
            }
            (Some(Value::Constant(x)), Some(Value::Activation(y))) => {
                self.with_constant(op, y, x, combine, true)
            }
            _ => Err("lacks an input".into()),
        }
    }

    /// Of as many activations as there are.
    pub fn sum(&mut self, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let mut sum = inputs.activation(0)?.clone();
        for i in 1..inputs.0.len() {
            sum = self.both(&sum, inputs.activation(i)?, |x, y| x + y)?;
        }
        Ok(sum)
    }

    /// Of two activations; the batches align, and so do the orders then.
    fn both(&mut self, x: &Activation, y: &Activation, combine: Combine) -> Result<Activation, Why> {
        if x.rank() != y.rank() {
            return Err(format!(
                "takes values of {} and {} axes that both depend on the images: equally many are supported",
                x.rank(),
                y.rank()
            ));
        }
        let dims = broadcast(&x.dims, &y.dims)?;
        if x.order == y.order {
            return self.apply(&[x, y], dims, x.order, move |_, x| combine(x[0], x[1]));
        }
        let (x, y) = match [x.order, y.order].contains(&Order::Image) {
            true => (self.image(x)?, self.image(y)?),
            false => (self.plain(x)?, self.plain(y)?),
        };
        self.apply(&[&x, &y], dims, x.order, move |_, x| combine(x[0], x[1]))
    }

    /// Of an activation and a constant, the other way round where `turned`.
    fn with_constant(
        &mut self,
        op: &str,
        a: &Activation,
        constant: &Arc<Constant>,
        combine: Combine,
        turned: bool,
    ) -> Result<Activation, Why> {
        if let Some(value) = constant.single().filter(|_| constant.dims.len() <= a.rank()) {
            if !value.is_finite() || (value == 0.0 && op == "Div" && !turned) {
                return Err(format!("computes with `{}` = {value}", constant.name));
            }
            return match op {
                "Add" => self.mapped(a, move |x| x.affine(1.0, value)),
                "Sub" if turned => self.mapped(a, move |x| x.affine(-1.0, value)),
                "Sub" => self.mapped(a, move |x| x.affine(1.0, -value)),
                "Mul" => self.mapped(a, move |x| x.scale(value)),
                "Div" if !turned => self.mapped(a, move |x| x.scale(1.0 / value)),
                "Max" => self.mapped(a, move |x| x.clamp(value, f64::INFINITY)),
                "Min" => self.mapped(a, move |x| x.clamp(f64::NEG_INFINITY, value)),
                _ => self.mapped(a, move |x| x.tape().fill(x.shape(), value) / x),
            };
        }
        // With as many axes as the activation, the first one is the batch.
        let own = match constant.dims.split_first() {
            Some((1, rest)) if constant.dims.len() == a.rank() => rest,
            Some(_) if constant.dims.len() >= a.rank() => {
                return Err(format!(
                    "takes the constant `{}` of {:?}, which does not fit a batch of {:?}",
                    constant.name, constant.dims, a.dims
                ));
            }
            _ => constant.dims.as_slice(),
        };
        let is_bias = op == "Add" && self.products.contains(&a.slot);
        let a = if a.order == Order::Image { a.clone() } else { self.plain(a)? };
        let dims = broadcast(&a.dims, own)?;
        let mut full = vec![1; a.dims.len() - own.len()];
        full.extend(own);
        let (values, mut shape) = match a.order {
            Order::Image => {
                let four = constant.reshaped(full)?;
                let turned = four.transposed(&mut self.budget, &[1, 2, 0])?;
                (turned.as_floats()?.clone(), turned.dims.clone())
            }
            _ => (constant.as_floats()?.clone(), full),
        };
        // As a network's own layers have it: a value a channel, without axes of one element before it.
        let ones = shape.iter().take_while(|&&dim| dim == 1).count();
        shape.drain(..ones.min(shape.len() - 1));
        let kind = if is_bias { ("bias", Role::Bias) } else { ("constant", Role::Constant) };
        let base = constant.name.trim_end_matches(".bias").to_string();
        let shape = crate::shape::Shape::new(&shape);
        let weight = self.weight(&base, kind, shape, Layout::Plain, &values)?;
        self.apply(&[&a], dims, a.order, move |net, x| {
            let constant = weight.var(net);
            if turned { combine(constant, x[0]) } else { combine(x[0], constant) }
        })
    }
}
