//! The layers: conv, linear, batch norm, layer norm, dropout, normalisation. Activations, pooling and sums are methods of [`Var`].

use super::init::Fan;
use super::{Init, Layout, Mode, Net, Role, join};
use crate::shape::Shape;
use crate::tape::{Conv2d, Op, Var};
use std::panic::Location;

/// Added to a variance before its root is divided by (PyTorch's default).
pub const BATCH_NORM_EPSILON: f64 = 1e-5;
/// Share of the new batch in the running statistics (PyTorch's default).
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

impl<'t> Net<'t> {
    /// Images on their way in: `x` as it is, held against the rows, columns and channels that the network takes.
    #[track_caller]
    pub fn images(&self, x: Var<'t>, input: [usize; 3]) -> Var<'t> {
        if x.shape().rank() != 4 || x.shape().dims()[1..] != input {
            let [rows, columns, channels] = input;
            let message = format!(
                "images are {}, but this network takes [batch x {rows} x {columns} x {channels}] (NHWC)",
                x.shape()
            );
            return self.tape.fail("images", message, Location::caller());
        }
        x
    }

    /// Convolution of `[B,H,W,C]` by `channels` filters of `kernel` rows and columns: `[B,P,Q,channels]`.
    ///
    /// Parameters `name.weight` `[kernel, C / groups, channels]` and, with `bias`, `name.bias` `[channels]`.
    #[track_caller]
    pub fn conv(
        &self,
        name: &str,
        x: Var<'t>,
        channels: usize,
        kernel: [usize; 2],
        conv: Conv2d,
        bias: bool,
    ) -> Var<'t> {
        let inputs = last(x).checked_div(conv.groups).unwrap_or(0);
        let [rows, columns] = kernel;
        let fan = Fan { inputs: rows * columns * inputs, he: rows * columns * channels };
        let scheme = self.scheme.get();
        self.within(name, || {
            let shape = [rows, columns, inputs, channels];
            let weight = self.param("weight", shape, Layout::Conv, Role::Weight, scheme.weight(fan));
            let y = x.conv2d(weight, conv);
            if bias { y + self.bias(channels, scheme.bias(fan)) } else { y }
        })
    }

    /// `x w + b` of `[B, inputs]`: `[B, outputs]`. Parameters `name.weight` `[inputs, outputs]` and `name.bias`.
    ///
    /// Where x is an image flattened (with nothing but elementwise functions since), the weight's [`Layout`] says how
    /// PyTorch orders the same inputs.
    #[track_caller]
    pub fn linear(&self, name: &str, x: Var<'t>, outputs: usize) -> Var<'t> {
        let inputs = last(x);
        let fan = Fan { inputs, he: inputs };
        let scheme = self.scheme.get();
        let layout = Layout::Linear { flattened: flattened(x) };
        self.within(name, || {
            let weight = self.param("weight", [inputs, outputs], layout, Role::Weight, scheme.weight(fan));
            x.matmul(weight) + self.bias(outputs, scheme.bias(fan))
        })
    }

    /// `x w + b` over the channels of each pixel of `[B,H,W,C]`: `[B,H,W,outputs]`. Parameters as
    /// [`Net::linear`]'s.
    #[track_caller]
    pub fn pointwise(&self, name: &str, x: Var<'t>, outputs: usize) -> Var<'t> {
        let inputs = last(x);
        let fan = Fan { inputs, he: inputs };
        let scheme = self.scheme.get();
        let layout = Layout::Linear { flattened: None };
        self.within(name, || {
            let weight = self.param("weight", [inputs, outputs], layout, Role::Weight, scheme.weight(fan));
            // As a convolution, so that what follows can ride along with it.
            let y = x.conv2d(weight.reshape([1, 1, inputs, outputs]), Conv2d::default());
            y + self.bias(outputs, scheme.bias(fan))
        })
    }

    fn bias(&self, outputs: usize, init: Init) -> Var<'t> {
        self.param("bias", [outputs], Layout::Plain, Role::Bias, init)
    }

    /// Batch norm (Ioffe and Szegedy 2015) over all axes but the last, as PyTorch's: the biased variance normalises,
    /// the unbiased one goes into the running statistics. Every row of the batch counts, padding rows too.
    ///
    /// Parameters `name.weight`, `name.bias`, `name.running_mean` and `name.running_var`, all `[C]`. Statistics of
    /// the batch need at least two values a channel.
    #[track_caller]
    pub fn batch_norm(&self, name: &str, x: Var<'t>) -> Var<'t> {
        self.batch_norm_from(name, x, BATCH_NORM_EPSILON, [1.0, 0.0, 0.0, 1.0].map(Init::Constant))
    }

    /// As [`Net::batch_norm`], with what is added to the variance, and what weight, bias, running mean and running
    /// variance begin from.
    #[track_caller]
    pub(super) fn batch_norm_from(
        &self,
        name: &str,
        x: Var<'t>,
        epsilon: f64,
        [weight, bias, mean, variance]: [Init; 4],
    ) -> Var<'t> {
        let channels = last(x);
        let vector = |name: &str, role, init| self.param(name, [channels], Layout::Plain, role, init);
        self.within(name, || {
            let weight = vector("weight", Role::NormWeight, weight);
            let bias = vector("bias", Role::NormBias, bias);
            let mean = vector("running_mean", Role::RunningMean, mean);
            let variance = vector("running_var", Role::RunningVar, variance);
            if self.mode == Mode::Eval {
                let scale = weight / deviation(variance, epsilon);
                return x * scale + (bias - mean * scale);
            }
            let axes: Vec<usize> = (0..x.shape().rank().saturating_sub(1)).collect();
            let count = x.shape().len() / channels.max(1);
            if count < 2 {
                let message =
                    format!("{} has {count} value a channel, statistics need two or more", x.shape());
                return self.tape.fail("batch_norm", message, Location::caller());
            }
            // Two passes, the second over what is left without the mean: the difference of the mean of squares and
            // the square of the mean, in one, loses the variance of values far from zero.
            let batch_mean = x.mean(&axes).reshape([channels]);
            let batch_variance = (x - batch_mean).square().mean(&axes).reshape([channels]);
            if self.mode == Mode::Train {
                self.update("running_mean", mean, batch_mean, 1.0);
                self.update("running_var", variance, batch_variance, count as f64 / (count as f64 - 1.0));
            }
            let inverse = self.tape.fill([channels], 1.0) / deviation(batch_variance, epsilon);
            x.batch_norm(batch_mean, inverse, weight, bias)
        })
    }

    /// Moves the running statistic `name`, which was `before` when the plan began, towards `factor` times `batch`.
    fn update(&self, name: &str, before: Var<'t>, batch: Var<'t>, factor: f64) {
        let name = join(&self.prefix.borrow(), name);
        let mut running = self.running.borrow_mut();
        let known = running.iter().position(|(have, _)| *have == name);
        let current = known.map_or(before, |i| running[i].1);
        let momentum = self.momentum.get();
        let new = match self.share {
            None => current.scale(1.0 - momentum).add_scaled(batch, momentum * factor),
            Some(share) => (batch.scale(factor) - current) * share + current,
        };
        match known {
            Some(i) => running[i].1 = new,
            None => running.push((name, new)),
        }
    }

    /// Layer norm (Ba, Kiros and Hinton 2016) over the last axis: each row less its mean, over the root of its biased
    /// variance plus `epsilon`, times `name.weight`, plus `name.bias`, both `[C]`. The same in every mode.
    #[track_caller]
    pub fn layer_norm(&self, name: &str, x: Var<'t>, epsilon: f64) -> Var<'t> {
        let channels = last(x);
        let axis = x.shape().rank().saturating_sub(1);
        self.within(name, || {
            let vector =
                |name, role, value| self.param(name, [channels], Layout::Plain, role, Init::Constant(value));
            let (weight, bias) =
                (vector("weight", Role::NormWeight, 1.0), vector("bias", Role::NormBias, 0.0));
            let centred = x - x.mean(&[axis]);
            let deviation = centred.square().mean(&[axis]).affine(1.0, epsilon).sqrt();
            centred / deviation * weight + bias
        })
    }

    /// Dropout (Srivastava et al. 2014): each element zeroed with probability `p` in [0, 1) and the others divided by
    /// `1 - p`; x itself in [`Mode::Eval`]. Needs [`Net::with_draw`] in the other modes.
    #[track_caller]
    pub fn dropout(&self, x: Var<'t>, p: f64) -> Var<'t> {
        if !(0.0..1.0).contains(&p) {
            let message = format!("probability {p} is not in [0, 1)");
            return self.tape.fail("dropout", message, Location::caller());
        }
        if self.mode == Mode::Eval || p == 0.0 {
            return x;
        }
        let Some(draw) = self.draw else {
            let message = "needs random numbers: record this pass through Net::with_draw".to_string();
            return self.tape.fail("dropout", message, Location::caller());
        };
        let stream = self.dropouts.replace(self.dropouts.get() + 1);
        x.dropout(p, draw, stream)
    }

    /// `(x - mean) / std` per channel (the last axis), for pixels in [0, 1]. Constants that are stored with the
    /// weights: `name.mean` and `name.std`, both `[C]`.
    #[track_caller]
    pub fn normalize(&self, name: &str, x: Var<'t>, mean: &[f64], std: &[f64]) -> Var<'t> {
        let constant = |name: &str, values: &[f64]| {
            let init = Init::Given(values.iter().map(|&v| v as f32).collect());
            self.param(name, [values.len()], Layout::Plain, Role::Constant, init)
        };
        self.within(name, || (x - constant("mean", mean)) / constant("std", std))
    }
}

/// Square root of a variance, kept from zero.
fn deviation(variance: Var<'_>, epsilon: f64) -> Var<'_> {
    variance.affine(1.0, epsilon).sqrt()
}

/// Extent of the last axis.
fn last(x: Var<'_>) -> usize {
    x.shape().dims().last().copied().unwrap_or(1)
}

/// Rows, columns and channels of the image that `x` `[B, inputs]` was flattened from, if it was: followed back
/// through elementwise functions, which keep the order. The order matters only where there is more than one pixel
/// and more than one channel.
fn flattened(x: Var<'_>) -> Option<[usize; 3]> {
    let nodes = x.tape().nodes();
    let mut id = x.id();
    loop {
        let node = &nodes[id];
        let from: &Shape = &nodes[*node.args.first()?].shape;
        match node.op {
            Op::Unary(_) => id = node.args[0],
            // A broadcast operand says nothing of the order; the other one does.
            Op::Binary(_) => id = *node.args.iter().find(|&&arg| !matches!(nodes[arg].op, Op::Broadcast))?,
            // Not what is cut into rows in another way, as pixels of all images are for a layer over their channels.
            Op::Reshape if from.rank() == 4 && from[0] == node.shape[0] => {
                let image = [from[1], from[2], from[3]];
                return (image[0] * image[1] > 1 && image[2] > 1).then_some(image);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Param;
    use crate::shape::DType;
    use crate::tape::{Draw, Tape};

    fn draw(tape: &Tape) -> Draw<'_> {
        Draw {
            key: tape.source("key", [2], DType::U32),
            counter: tape.source("counter", [2], DType::U32),
            example: tape.source("example", [4], DType::U32),
        }
    }

    fn layout(net: &Net<'_>, name: &str) -> Layout {
        net.params().into_iter().find(|param: &Param| param.name == name).unwrap().layout
    }

    #[test]
    fn a_linear_layer_knows_the_image_behind_elementwise_functions() {
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Train).with_draw(draw(&tape));
        let x = tape.source("x", [4, 2, 3, 5], DType::F32);
        let seen = Layout::Linear { flattened: Some([2, 3, 5]) };
        net.linear("plain", x.flatten(), 7);
        net.linear("dropped", net.dropout(x.flatten().relu(), 0.5), 7);
        net.linear("shifted", tape.source("v", [30], DType::F32) + x.flatten().scale(2.0), 7);
        for name in ["plain.weight", "dropped.weight", "shifted.weight"] {
            assert_eq!(layout(&net, name), seen, "{name}");
        }
        // One pixel, or one channel: both orders are the same.
        net.linear("pooled", x.global_avg_pool(), 7);
        net.linear("grey", x.slice(3, 0, 1).flatten(), 7);
        let hidden = net.linear("first", x.flatten(), 7).relu();
        net.linear("second", hidden, 7);
        for name in ["pooled.weight", "grey.weight", "second.weight"] {
            assert_eq!(layout(&net, name), Layout::Linear { flattened: None }, "{name}");
        }
        tape.check().unwrap();
    }

    #[test]
    fn passes_through_one_net_share_weights_but_not_dropout() {
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Train).with_draw(draw(&tape));
        let x = tape.source("x", [4, 3], DType::F32);
        let pass = || {
            let y = net.batch_norm("bn", net.linear("fc", x, 3));
            (y.id(), net.dropout(y, 0.5).id())
        };
        let (first, second) = (pass(), pass());
        assert_eq!(first.0, second.0);
        assert_ne!(first.1, second.1);
        assert_eq!(net.params().len(), 6);
        assert_eq!(net.updates().len(), 2);
        tape.check().unwrap();
    }

    #[test]
    fn an_error_names_the_layer_it_is_in() {
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Eval);
        let x = tape.source("x", [1, 2, 2, 3], DType::F32);
        net.within("layer1.0", || net.conv("conv1", x, 8, [5, 5], Conv2d::default(), false));
        let error = tape.check().unwrap_err().to_string();
        assert!(error.contains("in layer1.0.conv1:") && error.contains("larger than"), "{error}");
    }

    #[test]
    fn what_a_layer_cannot_do_is_an_error() {
        let error = |layer: for<'t> fn(&Net<'t>, Var<'t>) -> Var<'t>| {
            let tape = Tape::new();
            layer(&Net::new(&tape, Mode::Train), tape.source("x", [1, 3], DType::F32));
            tape.check().unwrap_err().to_string()
        };
        assert!(error(|net, x| net.dropout(x, 0.5)).contains("with_draw"));
        assert!(error(|net, x| net.dropout(x, 1.0)).contains("[0, 1)"));
        assert!(error(|net, x| net.batch_norm("bn", x)).contains("two or more"));
        assert!(error(|net, x| net.conv("conv", x, 8, [3, 3], Conv2d::default(), true)).contains("4 axes"));
    }
}
