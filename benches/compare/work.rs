//! The works, as adamant does them.

use crate::tensors::{Tensor, Tensors};
use adamant::data::Dataset;
use adamant::nn::{Architecture, Conv2d, Mode, Net, Params, Var, architectures};
use adamant::plan::{Options, Precision, Schedule};
use adamant::tensor::Host;
use adamant::train::{Recipe, Trainer};
use adamant::{DType, Device, Error, Plan, Program, Result, Shape, Step, Store, Tape};
use serde::Deserialize;

/// A work, as tools/compare describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Logits of a batch, batch norm with running statistics.
    Logits {
        /// The network.
        net: String,
        /// Images in the batch.
        batch: usize,
    },
    /// Logits, and the gradient of the summed cross-entropy by the images.
    Gradient {
        /// The network.
        net: String,
        /// Images in the batch.
        batch: usize,
    },
    /// A training step: PGD from a random start (batch norm with running statistics), then a step of SGD with
    /// momentum 0.9 on the mean cross-entropy of what it found (batch norm in training mode).
    Train {
        /// The network.
        net: String,
        /// Images in the batch.
        batch: usize,
        /// Steps of PGD; 0 for a standard training step.
        steps: usize,
        /// Radius of the attack, Linf.
        epsilon: String,
        /// Length of its steps.
        step_size: String,
        /// Of SGD.
        learning_rate: f64,
    },
    /// A 3x3 convolution with padding 1, or a gradient of one.
    Convolution {
        /// Which.
        what: What,
        /// Images in the batch.
        batch: usize,
        /// Rows and columns.
        size: usize,
        /// Channels in.
        inputs: usize,
        /// Channels out.
        outputs: usize,
    },
    /// A product of two square matrices.
    Product {
        /// Their rows and columns.
        size: usize,
    },
}

impl Work {
    /// Whether it is a training step.
    pub fn is_training(&self) -> bool {
        matches!(self, Work::Train { .. })
    }

    /// Whether it can be done in half precision: a pass of a network, or a training step's attack.
    pub fn can_be_half(&self) -> bool {
        match self {
            Work::Logits { .. } | Work::Gradient { .. } => true,
            Work::Train { steps, .. } => *steps > 0,
            Work::Convolution { .. } | Work::Product { .. } => false,
        }
    }
}

/// What of a convolution is computed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The result.
    Forward,
    /// The gradient by the input.
    InputGradient,
    /// The gradient by the filter.
    WeightGradient,
}

/// W1's network: 3x3 convolutions 1-32, 32-64 and 64-64 (the last two with stride 2), relu, linear 3136-128-10.
struct Cnn;

impl Architecture for Cnn {
    fn name(&self) -> String {
        "cnn".into()
    }

    fn input(&self) -> [usize; 3] {
        [28, 28, 1]
    }

    fn classes(&self) -> usize {
        10
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let conv = |stride| Conv2d { stride: [stride; 2], padding: [1, 1], ..Conv2d::default() };
        let x = net.images(x, self.input());
        let x = net.conv("conv1", x, 32, [3, 3], conv(1), true).relu();
        let x = net.conv("conv2", x, 64, [3, 3], conv(2), true).relu();
        let x = net.conv("conv3", x, 64, [3, 3], conv(2), true).relu();
        let x = net.linear("fc1", x.flatten(), 128).relu();
        net.linear("fc2", x, 10)
    }
}

/// The network of this name.
pub fn network(name: &str) -> Result<Box<dyn Architecture>> {
    match name {
        "cnn" => Ok(Box::new(Cnn)),
        name => architectures::by_name(name, [32, 32, 3], 10),
    }
}

/// A work that is ready to be done again and again.
pub struct Loaded {
    work: Work,
    precision: Precision,
    body: Body,
    // What went in, for the check.
    images: Option<(Tensor, Vec<u32>)>,
}

enum Body {
    Plan(Box<Plan>, Store),
    Trainer(Box<Trainer>),
}

fn take(tensors: &mut Tensors, name: &str) -> Result<Tensor> {
    tensors.remove(name).ok_or_else(|| Error::argument("work", name, "its file lacks this tensor"))
}

/// Images as NHWC, and labels.
fn take_images(tensors: &mut Tensors) -> Result<(Tensor, Vec<u32>)> {
    let labels = take(tensors, "labels")?.values.into_iter().map(|label| label as u32).collect();
    Ok((take(tensors, "images")?.to_nhwc(), labels))
}

fn put(store: &Store, name: &str, tensor: &Tensor) -> Result<()> {
    store.put(name, Shape::new(&tensor.shape), &Host::F32(tensor.values.clone()))
}

/// Puts the weights of the file into the store, in this network's layout.
fn put_weights(store: &Store, params: &Params, tensors: &mut Tensors) -> Result<()> {
    for param in params {
        let tensor = take(tensors, &format!("weights.{}", param.name))?;
        let values = params.from_torch(&param.name, &tensor.shape, &tensor.values)?;
        store.put(&param.name, param.shape, &Host::F32(values))?;
    }
    Ok(())
}

impl Loaded {
    /// Compiles a work for a device, on the weights and inputs of its file. In half precision the passes of a network
    /// are, and the attack of a training step; its update is f32.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for half precision of a work that has none.
    pub fn new(work: Work, precision: Precision, mut tensors: Tensors, device: &Device) -> Result<Loaded> {
        if precision == Precision::F16 && !work.can_be_half() {
            return Err(Error::Unsupported("not done in half precision".into()));
        }
        let options = Options { precision, ..Options::default() };
        let (body, images) = match &work {
            Work::Logits { net, batch } | Work::Gradient { net, batch } => {
                let (network, store) = (network(net)?, Store::new(device));
                put_weights(&store, &Params::of(network.as_ref())?, &mut tensors)?;
                let (images, labels) = take_images(&mut tensors)?;
                put(&store, "images", &images)?;
                store.put("labels", [*batch], &Host::U32(labels.clone()))?;
                let tape = Tape::new();
                let gradient = matches!(work, Work::Gradient { .. });
                record_gradient(&tape, network.as_ref(), *batch, gradient);
                (
                    Body::Plan(Box::new(Plan::of(Schedule::with(&tape, options)?, &store)?), store),
                    Some((images, labels)),
                )
            }
            Work::Train { net, batch, steps, epsilon, step_size, learning_rate } => {
                let (network, (images, labels)) = (network(net)?, take_images(&mut tensors)?);
                let recipe = Recipe {
                    method: if *steps == 0 { "standard" } else { "pgd" }.into(),
                    attack_precision: precision.to_string(),
                    epsilon: epsilon.clone(),
                    steps: (*steps).max(1),
                    step_size: step_size.clone(),
                    epsilon_warmup: 0.0,
                    batch: *batch,
                    optimizer: "sgd".into(),
                    learning_rate: *learning_rate,
                    schedule: "constant".into(),
                    weight_average: 0.0,
                    validation: 0,
                    ..Recipe::default()
                };
                // The data set is this one batch; images are multiples of 1/255.
                let bytes = images.values.iter().map(|x| (x * 255.0).round() as u8).collect();
                let classes = (0..10).map(|class| class.to_string()).collect();
                let data = Dataset::new("compare", "made", network.input(), bytes, labels.clone(), classes)?;
                let trainer = Trainer::new(recipe, network, &data, device)?;
                put_weights(trainer.store(), trainer.params(), &mut tensors)?;
                (Body::Trainer(Box::new(trainer)), Some((images, labels)))
            }
            &Work::Convolution { what, batch, size, inputs, outputs } => {
                let (store, tape) = (Store::new(device), Tape::new());
                let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
                let (x, dy) = ([batch, size, size, inputs], [batch, size, size, outputs]);
                let filter = [3, 3, inputs, outputs];
                let source = |tensors: &mut Tensors, name: &str, shape: [usize; 4]| {
                    let order = if name == "filter" { [2, 3, 1, 0] } else { [0, 2, 3, 1] };
                    put(&store, name, &take(tensors, name)?.permuted(&order))?;
                    Ok::<_, Error>(tape.source(name, shape, DType::F32))
                };
                let tensors = &mut tensors;
                let result = match what {
                    What::Forward => {
                        source(tensors, "x", x)?.conv2d(source(tensors, "filter", filter)?, conv)
                    }
                    What::InputGradient => source(tensors, "dy", dy)?.conv2d_input_grad(
                        source(tensors, "filter", filter)?,
                        Shape::new(&x),
                        conv,
                    ),
                    What::WeightGradient => source(tensors, "x", x)?.conv2d_weight_grad(
                        source(tensors, "dy", dy)?,
                        Shape::new(&filter),
                        conv,
                    ),
                };
                tape.assign("result", result);
                (Body::Plan(Box::new(Plan::compile(&tape, &store)?), store.clone()), None)
            }
            &Work::Product { size } => {
                let (store, tape) = (Store::new(device), Tape::new());
                for name in ["a", "b"] {
                    put(&store, name, &take(&mut tensors, name)?)?;
                }
                let [a, b] = ["a", "b"].map(|name| tape.source(name, [size, size], DType::F32));
                tape.assign("result", a.matmul(b));
                (Body::Plan(Box::new(Plan::compile(&tape, &store)?), store.clone()), None)
            }
        };
        Ok(Loaded { work, precision, body, images })
    }

    /// Does the work so many times in a row and waits for the end.
    pub fn run(&self, times: usize) -> Result<()> {
        match &self.body {
            // A submission of separate runs, not a repeat: a repeat would compute once what does not change.
            Body::Plan(plan, store) => {
                Program::new(vec![Step::Run(plan); times]).run()?;
                store.device().wait()
            }
            Body::Trainer(trainer) => {
                for _ in 0..times {
                    trainer.next_step()?.run()?;
                }
                trainer.store().device().wait()
            }
        }
    }

    /// The trainer of a training work.
    pub fn trainer(&self) -> Option<&Trainer> {
        match &self.body {
            Body::Trainer(trainer) => Some(trainer),
            Body::Plan(..) => None,
        }
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.images.as_ref().map_or(0, |(_, labels)| labels.len())
    }

    /// Bytes planned: named tensors, and temporaries.
    pub fn planned(&self) -> (u64, u64) {
        match &self.body {
            Body::Plan(plan, store) => (store.bytes(), plan.temporary_bytes()),
            Body::Trainer(trainer) => trainer.memory(),
        }
    }

    /// What the work computes, in PyTorch's layout, to be compared. A training work gives logits and input gradient
    /// of the clean images (in the attack's precision), the gradient by every weight in training mode, and then the mean loss of the update in
    /// one training step, which it does.
    pub fn results(&self) -> Result<Tensors> {
        let mut results = Tensors::new();
        match (&self.work, &self.body) {
            (Work::Train { net, batch, .. }, Body::Trainer(trainer)) => {
                let (images, labels) = self.images.as_ref().expect("a training work has images");
                let store = trainer.store();
                put(store, "images", images)?;
                store.put("labels", [*batch], &Host::U32(labels.clone()))?;
                let network = network(net)?;
                let tape = Tape::new();
                record_gradient(&tape, network.as_ref(), *batch, true);
                let options = Options { precision: self.precision, ..Options::default() };
                Plan::of(Schedule::with(&tape, options)?, store)?.run()?;
                self.read(store, &["logits", "input_gradient"], &mut results)?;

                let tape = Tape::new();
                let net = Net::new(&tape, Mode::TrainFrozen);
                let x = tape.source("images", Shape::new(&images.shape), DType::F32);
                let losses =
                    network.forward(&net, x).cross_entropy(tape.source("labels", [*batch], DType::U32));
                let weights = net.weights();
                let by: Vec<Var> = weights.iter().map(|(_, var)| *var).collect();
                for ((name, _), gradient) in weights.iter().zip(tape.grad(losses.mean_all(), &by)) {
                    tape.assign(&format!("gradient.{name}"), gradient);
                }
                Plan::compile(&tape, store)?.run()?;
                for (name, _) in &weights {
                    let gradient = format!("gradient.{name}");
                    let (shape, values) = trainer.params().to_torch(name, &store.read_f32(&gradient)?)?;
                    store.remove(&gradient);
                    results.insert(gradient, Tensor { shape, values });
                }
                for name in ["images", "labels", "logits", "input_gradient"] {
                    store.remove(name);
                }

                let before = store.read_f32("metrics.loss")?[0];
                self.run(1)?;
                let loss = (store.read_f32("metrics.loss")?[0] - before) / *batch as f32;
                results.insert("loss".into(), Tensor { shape: vec![1], values: vec![loss] });
            }
            (Work::Convolution { what, .. }, Body::Plan(_, store)) => {
                self.run(1)?;
                self.read(store, &["result"], &mut results)?;
                let result = results.remove("result").expect("was read");
                let order = if *what == What::WeightGradient { [3, 2, 0, 1] } else { [0, 3, 1, 2] };
                results.insert("result".into(), result.permuted(&order));
            }
            (Work::Logits { .. }, Body::Plan(_, store)) => {
                self.run(1)?;
                self.read(store, &["logits"], &mut results)?;
            }
            (Work::Gradient { .. }, Body::Plan(_, store)) => {
                self.run(1)?;
                self.read(store, &["logits", "input_gradient"], &mut results)?;
            }
            (_, Body::Plan(_, store)) => {
                self.run(1)?;
                self.read(store, &["result"], &mut results)?;
            }
            (_, Body::Trainer(_)) => unreachable!("only training works have a trainer"),
        }
        Ok(results)
    }

    /// Reads tensors of the store; gradients by images as NCHW.
    fn read(&self, store: &Store, names: &[&str], into: &mut Tensors) -> Result<()> {
        for &name in names {
            let shape = store.get(name).map(|tensor| tensor.shape.dims().to_vec()).unwrap_or_default();
            let tensor = Tensor { shape, values: store.read_f32(name)? };
            into.insert(name.into(), if name == "input_gradient" { tensor.to_nchw() } else { tensor });
        }
        Ok(())
    }
}

/// Records logits of `images` and, with `gradient`, the gradient of their summed cross-entropy.
fn record_gradient(tape: &Tape, network: &dyn Architecture, batch: usize, gradient: bool) {
    let [rows, columns, channels] = network.input();
    let x = tape.source("images", [batch, rows, columns, channels], DType::F32);
    let logits = network.forward(&Net::new(tape, Mode::Eval), x);
    tape.assign("logits", logits);
    if gradient {
        let loss = logits.cross_entropy(tape.source("labels", [batch], DType::U32)).sum_all();
        tape.assign("input_gradient", tape.grad(loss, &[x])[0]);
    }
}
