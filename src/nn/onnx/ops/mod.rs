//! The operators that work on activations, by what they are.

mod elementwise;
mod linear;
mod movement;
mod reduce;
mod window;

use super::Why;
use super::build::Builder;
use super::call::Call;
use super::constant::Constant;
use super::value::{Activation, Value};
use std::sync::Arc;

/// What is supported, as messages list it.
const SUPPORTED: &str = "Abs, Add, AveragePool, BatchNormalization, Cast, Clip, Concat, Constant, ConstantOfShape, Conv, \
                         Div, Dropout, Erf, Exp, Expand (of constants), Flatten, Gather, Gelu, Gemm, GlobalAveragePool, \
                         GlobalMaxPool, HardSigmoid, HardSwish, Identity, LayerNormalization, LeakyRelu, Log, LogSoftmax, MatMul, Max, \
                         MaxPool, Min, Mul, Neg, Pad, Pow, ReduceMax, ReduceMean, ReduceSum, Relu, Reshape, Shape, Sigmoid, \
                         Slice, Softmax, Sqrt, Squeeze, Sub, Sum, Tanh, Transpose, Unsqueeze";

/// The inputs of a node.
pub(super) struct Inputs<'a>(pub &'a [Option<Value>]);

impl Inputs<'_> {
    pub fn get(&self, i: usize) -> Option<&Value> {
        self.0.get(i).and_then(Option::as_ref)
    }

    /// Input `i`, which must depend on the images.
    pub fn activation(&self, i: usize) -> Result<&Activation, Why> {
        match self.get(i) {
            Some(Value::Activation(activation)) => Ok(activation),
            Some(Value::Constant(_)) => {
                Err(format!("has a constant for input {}, which is not supported", i + 1))
            }
            None => Err(format!("lacks input {}", i + 1)),
        }
    }

    /// Input `i`, which must be a constant if it is there.
    pub fn optional(&self, i: usize) -> Result<Option<&Arc<Constant>>, Why> {
        match self.get(i) {
            Some(Value::Constant(constant)) => Ok(Some(constant)),
            Some(Value::Activation(_)) => {
                Err(format!("has an input {} that depends on the images, but a constant is supported", i + 1))
            }
            None => Ok(None),
        }
    }

    /// Input `i`, which must be a constant.
    pub fn constant(&self, i: usize) -> Result<&Arc<Constant>, Why> {
        self.optional(i)?.ok_or_else(|| format!("lacks input {}", i + 1))
    }
}

/// The value that a node makes of inputs of which at least one depends on the images.
pub(super) fn translate(
    b: &mut Builder<'_>,
    call: &Call<'_>,
    inputs: &[Option<Value>],
) -> Result<Value, Why> {
    let inputs = &Inputs(inputs);
    let made = match call.op() {
        "Conv" => b.conv(call, inputs)?,
        "MaxPool" => b.max_pool(call, inputs)?,
        "AveragePool" => b.average_pool(call, inputs)?,
        "GlobalAveragePool" => b.global_pool(inputs, |x| x.mean(&[1, 2]))?,
        "GlobalMaxPool" => b.global_pool(inputs, |x| x.amax(&[1, 2]))?,
        "Gemm" => b.gemm(call, inputs)?,
        "MatMul" => b.matmul(inputs)?,
        "BatchNormalization" => b.batch_norm(call, inputs)?,
        "LayerNormalization" => b.layer_norm(call, inputs)?,
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" => b.arithmetic(call.op(), inputs)?,
        "Sum" => b.sum(inputs)?,
        "Relu" => b.unary(inputs, |x| x.relu())?,
        "Sigmoid" => b.unary(inputs, |x| x.sigmoid())?,
        "Tanh" => b.unary(inputs, |x| x.tanh())?,
        "Exp" => b.unary(inputs, |x| x.exp())?,
        "Log" => b.unary(inputs, |x| x.log())?,
        "Sqrt" => b.unary(inputs, |x| x.sqrt())?,
        "Abs" => b.unary(inputs, |x| x.abs())?,
        "Neg" => b.unary(inputs, |x| x.scale(-1.0))?,
        "Erf" => b.unary(inputs, |x| x.erf())?,
        "HardSwish" => b.unary(inputs, |x| x * x.affine(1.0 / 6.0, 0.5).clamp(0.0, 1.0))?,
        "LeakyRelu" => {
            let slope = call.float("alpha", 0.01)?;
            b.unary(inputs, move |x| x.leaky_relu(slope))?
        }
        "HardSigmoid" => {
            let (slope, shift) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
            b.unary(inputs, move |x| x.affine(slope, shift).clamp(0.0, 1.0))?
        }
        "Pow" => b.pow(inputs)?,
        "Gelu" => b.gelu(call, inputs)?,
        "Clip" => b.clip(call, inputs)?,
        "Dropout" => b.dropout(call, inputs)?,
        "Cast" => b.cast(call, inputs)?,
        "Identity" => inputs.activation(0)?.clone(),
        "Shape" => return b.shape(call, inputs),
        "Reshape" => b.reshape(call, inputs)?,
        "Flatten" => b.flatten(call, inputs)?,
        "Squeeze" => b.squeeze(call, inputs)?,
        "Unsqueeze" => b.unsqueeze(call, inputs)?,
        "Transpose" => b.transpose(call, inputs)?,
        "Concat" => b.concat(call, inputs)?,
        "Pad" => b.pad(call, inputs)?,
        "Slice" => b.slice(call, inputs)?,
        "Gather" => b.gather(call, inputs)?,
        "ReduceMean" => b.reduce(call, inputs, 18, |x, axes| x.mean(axes))?,
        "ReduceMax" => b.reduce(call, inputs, 18, |x, axes| x.amax(axes))?,
        "ReduceSum" => b.reduce(call, inputs, 13, |x, axes| x.sum(axes))?,
        "Softmax" => b.softmax(call, inputs, |x| x.softmax())?,
        "LogSoftmax" => b.softmax(call, inputs, |x| x.log_softmax())?,
        other => {
            let short: String = other.chars().take(60).collect();
            return Err(format!(
                "is an operator that is not supported: `{short}` (supported are {SUPPORTED})"
            ));
        }
    };
    Ok(Value::Activation(made))
}
