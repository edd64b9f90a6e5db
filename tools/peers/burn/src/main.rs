//! burn as a contestant of tools/compare: `burn-worker flex`, `burn-worker wgpu` (with the feature `spirv` by
//! its own compiler to SPIR-V) or, built with the feature, `burn-worker cuda`.

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::module::{conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use protocol::{Engine, Peer, Tensors, What, Work, forward, number, serve};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A tensor of one of the ranks there are.
#[derive(Clone)]
enum Any {
    One(Tensor<1>),
    Two(Tensor<2>),
    Four(Tensor<4>),
}

impl Any {
    fn new(tensor: protocol::Tensor, device: &Device) -> Any {
        let (rank, data) = (tensor.shape.len(), TensorData::new(tensor.values, tensor.shape));
        match rank {
            1 => Any::One(Tensor::from_data(data, device)),
            2 => Any::Two(Tensor::from_data(data, device)),
            _ => Any::Four(Tensor::from_data(data, device)),
        }
    }

    fn one(self) -> Tensor<1> {
        let Any::One(tensor) = self else { panic!("rank 1 is wanted") };
        tensor
    }

    fn two(self) -> Tensor<2> {
        let Any::Two(tensor) = self else { panic!("rank 2 is wanted") };
        tensor
    }

    fn four(self) -> Tensor<4> {
        let Any::Four(tensor) = self else { panic!("rank 4 is wanted") };
        tensor
    }
}

/// Calls for each rank alike.
macro_rules! each {
    ($any:expr, $x:ident => $body:expr) => {
        match $any {
            Any::One($x) => Any::One($body),
            Any::Two($x) => Any::Two($body),
            Any::Four($x) => Any::Four($body),
        }
    };
}

fn out<const D: usize>(tensor: Tensor<D>) -> protocol::Tensor {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().try_to_vec::<f32>().expect("f32 throughout");
    protocol::Tensor { shape, values }
}

/// Whether parameter `name` is trained.
fn is_trained(name: &str) -> bool {
    !name.contains("running")
}

/// A forward pass.
struct Pass<'a> {
    parameters: &'a BTreeMap<String, Any>,
    training: bool,
    // New running statistics.
    updates: RefCell<Vec<(String, Any)>>,
}

impl<'a> Pass<'a> {
    fn new(parameters: &'a BTreeMap<String, Any>, training: bool) -> Pass<'a> {
        Pass { parameters, training, updates: RefCell::default() }
    }
}

impl Engine for Pass<'_> {
    type Tensor = Any;

    fn parameter(&self, name: &str) -> Any {
        self.parameters[name].clone()
    }

    fn conv(&self, x: Any, weight: &str, bias: Option<&str>, stride: usize, padding: usize) -> Any {
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        let bias = bias.map(|name| self.parameter(name).one());
        Any::Four(conv2d(x.four(), self.parameter(weight).four(), bias, options))
    }

    fn batch_norm(&self, name: &str, x: Any) -> Any {
        let part = |part: &str| {
            let value = self.parameter(&format!("{name}.{part}")).one();
            let channels = value.dims()[0];
            value.reshape([1, channels, 1, 1])
        };
        let (x, weight, bias) = (x.four(), part("weight"), part("bias"));
        let (mean, variance) = (part("running_mean"), part("running_var"));
        if !self.training {
            let scale = weight / (variance + 1e-5).sqrt();
            let shift = bias - mean * scale.clone();
            return Any::Four(x * scale + shift);
        }
        let [n, channels, h, w] = x.dims();
        let count = (n * h * w) as f64;
        let batch_mean = x.clone().mean_dims(&[0, 2, 3]);
        let centred = x - batch_mean.clone();
        let batch_variance = (centred.clone() * centred.clone()).mean_dims(&[0, 2, 3]);
        let moved = |old: Tensor<4>, new: Tensor<4>| {
            Any::One((old * 0.9 + new.detach() * 0.1).inner().reshape([channels]))
        };
        let unbiased = batch_variance.clone() * (count / (count - 1.0));
        self.updates.borrow_mut().extend([
            (format!("{name}.running_mean"), moved(mean, batch_mean)),
            (format!("{name}.running_var"), moved(variance, unbiased)),
        ]);
        Any::Four(centred * (weight / (batch_variance + 1e-5).sqrt()) + bias)
    }

    fn relu(&self, x: Any) -> Any {
        each!(x, x => relu(x))
    }

    fn add(&self, a: Any, b: Any) -> Any {
        Any::Four(a.four() + b.four())
    }

    fn flatten(&self, x: Any) -> Any {
        Any::Two(x.four().flatten(1, 3))
    }

    fn mean(&self, x: Any) -> Any {
        let x = x.four();
        let [n, channels, ..] = x.dims();
        Any::Two(x.mean_dims(&[2, 3]).reshape([n, channels]))
    }

    fn linear(&self, name: &str, x: Any) -> Any {
        // burn's weights are [inputs, outputs].
        let weight = self.parameter(&format!("{name}.weight")).two().transpose();
        Any::Two(linear(x.two(), weight, Some(self.parameter(&format!("{name}.bias")).one())))
    }
}

/// The summed cross-entropy.
fn loss(logits: Tensor<2>, labels: &Tensor<2, Int>) -> Tensor<1> {
    -log_softmax(logits, 1).gather(1, labels.clone()).sum()
}

struct Network {
    net: String,
    parameters: BTreeMap<String, Any>,
    momentum: BTreeMap<String, Any>,
    images: Tensor<4>,
    labels: Tensor<2, Int>,
}

impl Network {
    /// Logits, and the gradient of the summed loss by x.
    fn gradient(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<4>) {
        let x = x.autodiff().require_grad();
        let logits = forward(&Pass::new(&self.parameters, false), &self.net, Any::Four(x.clone())).two();
        let mut gradients = loss(logits.clone(), &self.labels).backward();
        (logits.inner(), x.grad_remove(&mut gradients).expect("x is on the path to the loss"))
    }

    /// Mean loss at x in training mode, its gradient by every trained parameter, and new running statistics.
    fn weight_gradients(&self, x: Tensor<4>) -> (Tensor<1>, BTreeMap<String, Any>, Vec<(String, Any)>) {
        let tracked = |(name, value): (&String, &Any)| {
            let value = value.clone();
            (
                name.clone(),
                if is_trained(name) { each!(value, x => x.autodiff().require_grad()) } else { value },
            )
        };
        let parameters: BTreeMap<String, Any> = self.parameters.iter().map(tracked).collect();
        let pass = Pass::new(&parameters, true);
        let batch = x.dims()[0] as f64;
        let logits = forward(&pass, &self.net, Any::Four(x.autodiff())).two();
        let mean = loss(logits, &self.labels) / batch;
        let mut gradients = mean.backward();
        let trained = parameters.iter().filter(|(name, _)| is_trained(name)).map(|(name, value)| {
            let gradient = each!(value, x => x.grad_remove(&mut gradients).expect("every parameter is used"));
            (name.clone(), gradient)
        });
        let trained = trained.collect();
        (mean.inner(), trained, pass.updates.take())
    }

    /// A training step; the mean loss of its update.
    fn step(&mut self, steps: usize, epsilon: f64, size: f64, rate: f64) -> Tensor<1> {
        let x = self.images.clone();
        let mut found = x.clone();
        if steps > 0 {
            let (low, high) = ((x.clone() - epsilon).clamp(0.0, 1.0), (x.clone() + epsilon).clamp(0.0, 1.0));
            let noise = Tensor::random(x.dims(), Distribution::Uniform(-epsilon, epsilon), &x.device());
            found = (x + noise).clamp(0.0, 1.0);
            for _ in 0..steps {
                let (_, gradient) = self.gradient(found.clone());
                found = (found + gradient.sign() * size).max_pair(low.clone()).min_pair(high.clone());
            }
        }
        let (mean, gradients, updates) = self.weight_gradients(found);
        for (name, gradient) in gradients {
            macro_rules! update {
                ($rank:ident, $g:expr) => {{
                    let velocity = match self.momentum.remove(&name) {
                        Some(Any::$rank(old)) => old * 0.9 + $g,
                        _ => $g,
                    };
                    self.momentum.insert(name.clone(), Any::$rank(velocity.clone()));
                    let Some(Any::$rank(old)) = self.parameters.remove(&name) else {
                        panic!("{name} is there")
                    };
                    self.parameters.insert(name, Any::$rank(old - velocity * rate));
                }};
            }
            match gradient {
                Any::One(g) => update!(One, g),
                Any::Two(g) => update!(Two, g),
                Any::Four(g) => update!(Four, g),
            }
        }
        self.parameters.extend(updates);
        mean
    }
}

enum Loaded {
    Nothing,
    Network(Box<Network>, Work),
    Convolution(What, Tensor<4>, Tensor<4>, Tensor<4>),
    Product(Tensor<2>, Tensor<2>),
}

struct Burn {
    device: Device,
    loaded: Loaded,
}

impl Burn {
    /// The work once, and what it gives.
    fn once(&mut self) -> Option<Any> {
        match &mut self.loaded {
            Loaded::Nothing => None,
            Loaded::Product(a, b) => Some(Any::Two(a.clone().matmul(b.clone()))),
            Loaded::Convolution(what, x, dy, filter) => {
                let options = || ConvOptions::new([1; 2], [1; 2], [1; 2], 1);
                let (x, filter) = (x.clone(), filter.clone());
                Some(Any::Four(match what {
                    What::Forward => conv2d(x, filter, None, options()),
                    What::InputGradient => burn::tensor::module::conv_transpose2d(
                        dy.clone(),
                        filter,
                        None,
                        burn::tensor::ops::ConvTransposeOptions::new([1; 2], [1; 2], [0; 2], [1; 2], 1),
                    ),
                    What::WeightGradient => {
                        let filter = filter.autodiff().require_grad();
                        let y = conv2d(x.autodiff(), filter.clone(), None, options());
                        let mut gradients = (y * dy.clone().autodiff()).sum().backward();
                        filter.grad_remove(&mut gradients).expect("the filter is on the path")
                    }
                }))
            }
            Loaded::Network(network, work) => match work {
                Work::Logits { net } => {
                    let pass = Pass::new(&network.parameters, false);
                    Some(forward(&pass, net, Any::Four(network.images.clone())))
                }
                Work::Gradient { .. } => Some(Any::Four(network.gradient(network.images.clone()).1)),
                Work::Train { steps, epsilon, step_size, learning_rate, .. } => {
                    let number = |text: &str| number(text).expect("tools/compare writes numbers");
                    let (epsilon, size) = (number(epsilon), number(step_size));
                    Some(Any::One(network.step(*steps, epsilon, size, *learning_rate)))
                }
                _ => None,
            },
        }
    }
}

impl Peer for Burn {
    fn hello(&mut self) -> Result<(String, Value), String> {
        Ok((format!("{:?}", self.device), json!({ "burn": "0.22.1" })))
    }

    fn load(&mut self, work: Work, mut tensors: Tensors) -> Result<(), String> {
        self.loaded = Loaded::Nothing;
        let device = &self.device;
        self.loaded = match &work {
            Work::Product => {
                let mut take =
                    |name: &str| Any::new(tensors.remove(name).expect("the file has it"), device).two();
                Loaded::Product(take("a"), take("b"))
            }
            &Work::Convolution { what, batch, size, inputs, outputs } => {
                let mut take = |name: &str, shape: [usize; 4]| match tensors.remove(name) {
                    Some(tensor) => Any::new(tensor, device).four(),
                    None => Tensor::zeros(shape, device),
                };
                let x = take("x", [batch, inputs, size, size]);
                let dy = take("dy", [batch, outputs, size, size]);
                Loaded::Convolution(what, x, dy, take("filter", [outputs, inputs, 3, 3]))
            }
            Work::Logits { net } | Work::Gradient { net } | Work::Train { net, .. } => {
                let images = Any::new(tensors.remove("images").ok_or("no images")?, device).four();
                let labels = tensors.remove("labels").ok_or("no labels")?.values;
                let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
                let rows = [labels.len(), 1];
                let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, rows), device);
                let parameters = tensors.into_iter().filter_map(|(name, tensor)| {
                    Some((name.strip_prefix("weights.")?.to_string(), Any::new(tensor, device)))
                });
                let (parameters, net) = (parameters.collect(), net.clone());
                let momentum = BTreeMap::new();
                Loaded::Network(Box::new(Network { net, parameters, momentum, images, labels }), work)
            }
        };
        Ok(())
    }

    fn results(&mut self) -> Result<Tensors, String> {
        let mut results = Tensors::new();
        if let Loaded::Network(network, work) = &self.loaded {
            if !matches!(work, Work::Logits { .. }) {
                let (logits, gradient) = network.gradient(network.images.clone());
                results.insert("logits".into(), out(logits));
                results.insert("input_gradient".into(), out(gradient));
            }
            if matches!(work, Work::Train { .. }) {
                for (name, gradient) in network.weight_gradients(network.images.clone()).1 {
                    let gradient = match gradient {
                        Any::One(x) => out(x),
                        Any::Two(x) => out(x),
                        Any::Four(x) => out(x),
                    };
                    results.insert(format!("gradient.{name}"), gradient);
                }
            }
        }
        let name = match &self.loaded {
            Loaded::Network(_, Work::Logits { .. }) => "logits",
            Loaded::Network(_, Work::Train { .. }) => "loss",
            Loaded::Network(..) => return Ok(results),
            _ => "result",
        };
        if let Some(result) = self.once() {
            let result = match result {
                Any::One(x) => out(x),
                Any::Two(x) => out(x),
                Any::Four(x) => out(x),
            };
            results.insert(name.into(), result);
        }
        Ok(results)
    }

    fn run(&mut self, runs: usize) -> Result<(), String> {
        for _ in 0..runs {
            self.once();
        }
        self.device.sync().map_err(|e| format!("{e:?}"))
    }
}

fn main() {
    let device = match std::env::args().nth(1).as_deref() {
        #[cfg(feature = "cuda")]
        Some("cuda") => Device::cuda(0),
        Some("wgpu") => Device::wgpu(Default::default()),
        _ => Device::flex(),
    };
    serve(&mut Burn { device, loaded: Loaded::Nothing });
}
