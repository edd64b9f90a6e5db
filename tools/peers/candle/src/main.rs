//! candle's CPU backend as a contestant of tools/compare.

use candle_core::{DType, Device, Result, Tensor, Var};
use protocol::{Engine, Peer, Tensors, What, Work, forward, number, serve};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

type Parameters = BTreeMap<String, Tensor>;

fn out(tensor: &Tensor) -> Result<protocol::Tensor> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(protocol::Tensor { shape: tensor.dims().to_vec(), values })
}

fn tensor(tensor: protocol::Tensor) -> Result<Tensor> {
    Tensor::from_vec(tensor.values, tensor.shape, &Device::Cpu)
}

/// A forward pass; its first error sticks.
struct Pass<'a> {
    parameters: &'a Parameters,
    training: bool,
    updates: RefCell<Vec<(String, Tensor)>>,
}

impl<'a> Pass<'a> {
    fn new(parameters: &'a Parameters, training: bool) -> Pass<'a> {
        Pass { parameters, training, updates: RefCell::default() }
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let part = |part: &str| self.parameters[&format!("{name}.{part}")].reshape((1, (), 1, 1));
        let (weight, bias) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        if !self.training {
            let scale = (weight / (variance + 1e-5)?.sqrt()?)?;
            let shift = (bias - (mean * &scale)?)?;
            return x.broadcast_mul(&scale)?.broadcast_add(&shift);
        }
        let (n, _, h, w) = x.dims4()?;
        let count = (n * h * w) as f64;
        let batch_mean = x.mean_keepdim((0, 2, 3))?;
        let centred = x.broadcast_sub(&batch_mean)?;
        let batch_variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
        let moved = |old: &Tensor, new: Tensor| ((old * 0.9)? + (new.detach() * 0.1)?)?.flatten_all();
        let unbiased = (&batch_variance * (count / (count - 1.0)))?;
        self.updates.borrow_mut().extend([
            (format!("{name}.running_mean"), moved(&mean, batch_mean)?),
            (format!("{name}.running_var"), moved(&variance, unbiased)?),
        ]);
        let scale = (weight / (batch_variance + 1e-5)?.sqrt()?)?;
        centred.broadcast_mul(&scale)?.broadcast_add(&bias)
    }
}

/// An operation's result; its error is the panic that the worker answers with.
fn must(result: Result<Tensor>) -> Tensor {
    result.unwrap_or_else(|error| panic!("{error}"))
}

impl Engine for Pass<'_> {
    type Tensor = Tensor;

    fn parameter(&self, name: &str) -> Tensor {
        self.parameters[name].clone()
    }

    fn conv(&self, x: Tensor, weight: &str, bias: Option<&str>, stride: usize, padding: usize) -> Tensor {
        let y = must(x.conv2d(&self.parameter(weight), padding, stride, 1, 1));
        match bias {
            Some(bias) => must(self.parameter(bias).reshape((1, (), 1, 1)).and_then(|b| y.broadcast_add(&b))),
            None => y,
        }
    }

    fn batch_norm(&self, name: &str, x: Tensor) -> Tensor {
        must(self.norm(name, &x))
    }

    fn relu(&self, x: Tensor) -> Tensor {
        must(x.relu())
    }

    fn add(&self, a: Tensor, b: Tensor) -> Tensor {
        must(a + b)
    }

    fn flatten(&self, x: Tensor) -> Tensor {
        must(x.flatten_from(1))
    }

    fn mean(&self, x: Tensor) -> Tensor {
        must(x.mean((2, 3)))
    }

    fn linear(&self, name: &str, x: Tensor) -> Tensor {
        let weight = must(self.parameter(&format!("{name}.weight")).t());
        must(x.matmul(&weight).and_then(|y| y.broadcast_add(&self.parameter(&format!("{name}.bias")))))
    }
}

/// The summed cross-entropy.
fn loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    shifted.broadcast_sub(&log_sum)?.gather(labels, 1)?.sum_all()?.neg()
}

struct Network {
    net: String,
    parameters: Parameters,
    momentum: Parameters,
    images: Tensor,
    labels: Tensor,
}

impl Network {
    /// Logits, and the gradient of the summed loss by x.
    fn gradient(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = Var::from_tensor(x)?;
        let logits = forward(&Pass::new(&self.parameters, false), &self.net, x.as_tensor().clone());
        let gradients = loss(&logits, &self.labels)?.backward()?;
        let gradient = gradients.get(&x).expect("x is on the path to the loss").clone();
        Ok((logits, gradient))
    }

    /// Mean loss at x in training mode, its gradient by every trained parameter, and new running statistics.
    fn weight_gradients(&self, x: &Tensor) -> Result<(Tensor, Parameters, Vec<(String, Tensor)>)> {
        let mut tracked = Parameters::new();
        for (name, value) in &self.parameters {
            let trained = !name.contains("running");
            let value = if trained { Var::from_tensor(value)?.into_inner() } else { value.clone() };
            tracked.insert(name.clone(), value);
        }
        let pass = Pass::new(&tracked, true);
        let mean = (loss(&forward(&pass, &self.net, x.clone()), &self.labels)? / x.dim(0)? as f64)?;
        let gradients = mean.backward()?;
        let found =
            tracked.iter().filter_map(|(name, value)| Some((name.clone(), gradients.get(value)?.clone())));
        let found = found.collect();
        Ok((mean, found, pass.updates.take()))
    }

    /// A training step; the mean loss of its update.
    fn step(&mut self, steps: usize, epsilon: f64, size: f64, rate: f64) -> Result<Tensor> {
        let x = self.images.clone();
        let mut found = x.clone();
        if steps > 0 {
            let (low, high) = ((&x - epsilon)?.clamp(0f32, 1f32)?, (&x + epsilon)?.clamp(0f32, 1f32)?);
            let noise = Tensor::rand(-epsilon as f32, epsilon as f32, x.shape(), x.device())?;
            found = (x + noise)?.clamp(0f32, 1f32)?;
            for _ in 0..steps {
                let (_, gradient) = self.gradient(&found)?;
                found = (found + (gradient.sign()? * size)?)?.maximum(&low)?.minimum(&high)?.detach();
            }
        }
        let (mean, gradients, updates) = self.weight_gradients(&found)?;
        for (name, gradient) in gradients {
            let velocity = match self.momentum.get(&name) {
                Some(old) => ((old * 0.9)? + gradient)?,
                None => gradient,
            };
            let new = (&self.parameters[&name] - (&velocity * rate)?)?.detach();
            self.momentum.insert(name.clone(), velocity.detach());
            self.parameters.insert(name, new);
        }
        self.parameters.extend(updates.into_iter().map(|(name, value)| (name, value.detach())));
        Ok(mean)
    }
}

enum Loaded {
    Nothing,
    Network(Box<Network>, Work),
    Convolution(What, Tensor, Tensor, Tensor),
    Product(Tensor, Tensor),
}

struct Candle {
    loaded: Loaded,
}

impl Candle {
    /// The work once, and what it gives.
    fn once(&mut self) -> Result<Tensor> {
        match &mut self.loaded {
            Loaded::Nothing => candle_core::bail!("no work is loaded"),
            Loaded::Product(a, b) => a.matmul(b),
            Loaded::Convolution(What::Forward, x, _, filter) => x.conv2d(filter, 1, 1, 1, 1),
            // As candle's own backward pass has them.
            Loaded::Convolution(What::InputGradient, _, dy, filter) => {
                dy.conv_transpose2d(filter, 1, 0, 1, 1)
            }
            Loaded::Convolution(What::WeightGradient, x, dy, _) => {
                x.transpose(0, 1)?.conv2d(&dy.transpose(0, 1)?, 1, 1, 1, 1)?.transpose(0, 1)
            }
            Loaded::Network(network, work) => match work {
                Work::Gradient { .. } => Ok(network.gradient(&network.images)?.1),
                Work::Train { steps, epsilon, step_size, learning_rate, .. } => {
                    let number = |text: &str| number(text).map_err(candle_core::Error::msg);
                    let (epsilon, size) = (number(epsilon)?, number(step_size)?);
                    network.step(*steps, epsilon, size, *learning_rate)
                }
                _ => {
                    Ok(forward(&Pass::new(&network.parameters, false), &network.net, network.images.clone()))
                }
            },
        }
    }

    fn get_ready(&mut self, work: Work, mut tensors: Tensors) -> Result<()> {
        self.loaded = Loaded::Nothing;
        let mut take = |name: &str, shape: &[usize]| match tensors.remove(name) {
            Some(found) => tensor(found),
            None => Tensor::zeros(shape, DType::F32, &Device::Cpu),
        };
        self.loaded = match &work {
            Work::Product => Loaded::Product(take("a", &[])?, take("b", &[])?),
            &Work::Convolution { what, batch, size, inputs, outputs } => {
                let x = take("x", &[batch, inputs, size, size])?;
                let dy = take("dy", &[batch, outputs, size, size])?;
                Loaded::Convolution(what, x, dy, take("filter", &[outputs, inputs, 3, 3])?)
            }
            Work::Logits { net } | Work::Gradient { net } | Work::Train { net, .. } => {
                let (images, labels) = (take("images", &[])?, take("labels", &[])?);
                let labels = labels.to_dtype(DType::U32)?.unsqueeze(1)?;
                let mut parameters = Parameters::new();
                for (name, found) in tensors {
                    parameters.insert(name.trim_start_matches("weights.").into(), tensor(found)?);
                }
                let (net, momentum) = (net.clone(), Parameters::new());
                Loaded::Network(Box::new(Network { net, parameters, momentum, images, labels }), work)
            }
        };
        Ok(())
    }

    fn check(&mut self) -> Result<Tensors> {
        let mut results = Tensors::new();
        let mut name = "result";
        if let Loaded::Network(network, work) = &self.loaded {
            name = "logits";
            if !matches!(work, Work::Logits { .. }) {
                let (logits, gradient) = network.gradient(&network.images)?;
                results.insert("logits".into(), out(&logits)?);
                results.insert("input_gradient".into(), out(&gradient)?);
                name = "loss";
            }
            if matches!(work, Work::Gradient { .. }) {
                return Ok(results);
            }
            if matches!(work, Work::Train { .. }) {
                for (name, gradient) in network.weight_gradients(&network.images)?.1 {
                    results.insert(format!("gradient.{name}"), out(&gradient)?);
                }
            }
        }
        let mut result = out(&self.once()?)?;
        if name == "loss" {
            result.shape = vec![1];
        }
        results.insert(name.into(), result);
        Ok(results)
    }
}

impl Peer for Candle {
    fn hello(&mut self) -> std::result::Result<(String, Value), String> {
        Ok(("CPU".into(), json!({ "candle": "0.11.1" })))
    }

    fn load(&mut self, work: Work, tensors: Tensors) -> std::result::Result<(), String> {
        self.get_ready(work, tensors).map_err(|e| e.to_string())
    }

    fn results(&mut self) -> std::result::Result<Tensors, String> {
        self.check().map_err(|e| e.to_string())
    }

    fn run(&mut self, runs: usize) -> std::result::Result<(), String> {
        (0..runs).try_for_each(|_| self.once().map(drop)).map_err(|e| e.to_string())
    }
}

fn main() {
    serve(&mut Candle { loaded: Loaded::Nothing });
}
