//! Optimisers, recorded: new weights as a function of old weights, gradients and state, in PyTorch's exact form.
//!
//! Each update reads and writes weight and state at the same element only, so it becomes one launch in place for
//! each state and one for the weight.

use super::Recipe;
use crate::error::{Error, Result};
use crate::nn::Role;
use crate::shape::{DType, Shape};
use crate::tape::{Tape, Var};
use crate::tensor::{Host, Store};

/// Names of the optimisers.
pub const OPTIMIZERS: [&str; 3] = ["sgd", "adam", "adamw"];

/// Names of what weight decay may be on ([`Decayed`]).
pub const DECAYED: [&str; 3] = ["all", "no-norm-bias", "weights"];

/// Which parameters weight decay is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decayed {
    /// All that are trained: PyTorch's optimisers given `model.parameters()`.
    #[default]
    All,
    /// All but biases and what belongs to a norm: robust_overfitting with `--l2` (Rice et al. 2020), the ImageNet
    /// recipe of fast_adversarial.
    NoNormBias,
    /// Weights of convolutions and linear layers alone: the 'DW' variables of cifar10_challenge (Madry et al. 2018).
    Weights,
}

impl Decayed {
    /// Whether a parameter of this role is among them.
    pub fn has(self, role: Role) -> bool {
        match self {
            Decayed::All => true,
            Decayed::NoNormBias => !matches!(role, Role::Bias | Role::NormWeight | Role::NormBias),
            Decayed::Weights => role.is_weight(),
        }
    }
}

impl std::str::FromStr for Decayed {
    type Err = Error;
    fn from_str(text: &str) -> Result<Decayed> {
        match text {
            "all" => Ok(Decayed::All),
            "no-norm-bias" => Ok(Decayed::NoNormBias),
            "weights" => Ok(Decayed::Weights),
            other => Err(Error::unknown("what weight decay is on", other, &DECAYED)),
        }
    }
}

/// An optimiser and its constants; the learning rate is a scalar of the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent (`torch.optim.SGD`, dampening 0).
    Sgd {
        /// Momentum; 0 keeps no state.
        momentum: f64,
        /// Nesterov's form.
        nesterov: bool,
        /// Added to the gradient, times the weight.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015; `torch.optim.Adam`).
    Adam {
        /// Decay rates of the averages of gradients and of their squares; PyTorch's are 0.9 and 0.999.
        betas: [f64; 2],
        /// Added to the root that is divided by; PyTorch's is 1e-8.
        epsilon: f64,
        /// Added to the gradient, times the weight; or to the update, when decoupled.
        weight_decay: f64,
        /// Decoupled weight decay: AdamW (Loshchilov and Hutter 2019).
        decoupled: bool,
    },
}

/// What the next step's direction is multiplied by; a scalar. The learning rate; for Adam divided by 1 - beta1^t.
const RATE: &str = "optimizer.rate";
/// Adam: 1 / sqrt(1 - beta2^t); a scalar.
const CORRECTION: &str = "optimizer.correction";
/// AdamW: 1 - learning rate * weight decay; a scalar.
const KEEP: &str = "optimizer.keep";

impl Optimizer {
    /// The recipe's optimiser.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name.
    pub fn of(recipe: &Recipe) -> Result<Optimizer> {
        let Recipe { momentum, nesterov, weight_decay, beta1, beta2, adam_epsilon, .. } = *recipe;
        let adam = |decoupled| Optimizer::Adam {
            betas: [beta1, beta2],
            epsilon: adam_epsilon,
            weight_decay,
            decoupled,
        };
        match recipe.optimizer.as_str() {
            "sgd" => Ok(Optimizer::Sgd { momentum, nesterov, weight_decay }),
            "adam" => Ok(adam(false)),
            "adamw" => Ok(adam(true)),
            other => Err(Error::unknown("optimizer", other, &OPTIMIZERS)),
        }
    }

    /// The same without weight decay unless `decays`: for the parameters that are left out of it.
    pub fn decaying(self, decays: bool) -> Optimizer {
        let kept = |decay| if decays { decay } else { 0.0 };
        match self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                Optimizer::Sgd { momentum, nesterov, weight_decay: kept(weight_decay) }
            }
            Optimizer::Adam { betas, epsilon, weight_decay, decoupled } => {
                Optimizer::Adam { betas, epsilon, weight_decay: kept(weight_decay), decoupled }
            }
        }
    }

    /// Names of the state tensors of weight `name`.
    pub fn state(&self, name: &str) -> Vec<String> {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => Vec::new(),
            Optimizer::Sgd { .. } => vec![format!("optimizer.momentum/{name}")],
            Optimizer::Adam { .. } => {
                vec![format!("optimizer.first_moment/{name}"), format!("optimizer.second_moment/{name}")]
            }
        }
    }

    /// Records the update of weight `name` by its gradient, and assigns weight and state. Returns the new weight.
    pub fn record<'t>(&self, tape: &'t Tape, name: &str, weight: Var<'t>, gradient: Var<'t>) -> Var<'t> {
        let scalar = |name: &str| tape.source(name, Shape::scalar(), DType::F32);
        let rate = scalar(RATE);
        let names = self.state(name);
        let state = |i: usize| tape.source(&names[i], weight.shape(), DType::F32);
        let updated = match *self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                let gradient = decayed(gradient, weight, weight_decay);
                let direction = if momentum == 0.0 {
                    gradient
                } else {
                    let velocity = gradient.add_scaled(state(0), momentum);
                    tape.assign(&names[0], velocity);
                    if nesterov { gradient.add_scaled(velocity, momentum) } else { velocity }
                };
                weight - direction * rate
            }
            Optimizer::Adam { betas: [beta1, beta2], epsilon, weight_decay, decoupled } => {
                let gradient = if decoupled { gradient } else { decayed(gradient, weight, weight_decay) };
                let first = gradient.scale(1.0 - beta1).add_scaled(state(0), beta1);
                let second = gradient.square().scale(1.0 - beta2).add_scaled(state(1), beta2);
                tape.assign(&names[0], first);
                tape.assign(&names[1], second);
                // m / (sqrt(v / (1 - beta2^t)) + epsilon), from v on so that it is one chain.
                let root = (second.sqrt() * scalar(CORRECTION)).affine(1.0, epsilon);
                let kept = if decoupled && weight_decay > 0.0 { weight * scalar(KEEP) } else { weight };
                kept - first / root * rate
            }
        };
        tape.assign(name, updated);
        updated
    }

    /// The scalars that the recorded updates read in step `t` (counted from 1), by the names of their tensors: what
    /// follows from the learning rate and t.
    pub fn scalars(&self, t: u64, learning_rate: f64) -> Vec<(&'static str, f64)> {
        match *self {
            Optimizer::Sgd { .. } => vec![(RATE, learning_rate)],
            Optimizer::Adam { betas: [beta1, beta2], weight_decay, decoupled, .. } => {
                let t = t as f64;
                let rate = learning_rate / (1.0 - beta1.powf(t));
                let mut scalars = vec![(RATE, rate), (CORRECTION, 1.0 / (1.0 - beta2.powf(t)).sqrt())];
                if decoupled {
                    scalars.push((KEEP, 1.0 - learning_rate * weight_decay));
                }
                scalars
            }
        }
    }

    /// Tells the store the scalars of step `t`.
    ///
    /// # Errors
    /// Of the device.
    pub fn prepare(&self, store: &Store, t: u64, learning_rate: f64) -> Result<()> {
        let scalars = self.scalars(t, learning_rate);
        scalars.into_iter().try_for_each(|(name, x)| store.put(name, Shape::scalar(), &Host::F64(vec![x])))
    }
}

/// Scales gradients down to a norm, of all of them together, of at most `largest`: `torch.nn.utils.clip_grad_norm_`. The
/// norm stays on the device, its sum in a fixed order.
pub(super) fn clipped<'t>(gradients: Vec<Var<'t>>, largest: f64) -> Vec<Var<'t>> {
    let squares = gradients.iter().map(|gradient| gradient.square().sum_all());
    let Some(sum) = squares.reduce(|sum, square| sum + square) else { return gradients };
    let norm = sum.sqrt().affine(1.0, 1e-6);
    let factor = (norm.tape().fill([], largest) / norm).clamp(0.0, 1.0);
    gradients.into_iter().map(|gradient| gradient * factor).collect()
}

/// `gradient + decay * weight`.
fn decayed<'t>(gradient: Var<'t>, weight: Var<'t>, decay: f64) -> Var<'t> {
    if decay == 0.0 { gradient } else { gradient.add_scaled(weight, decay) }
}
