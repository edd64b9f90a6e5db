//! Half precision: which values of a plan are kept as f16, and which products take f16.
//!
//! Halved are the activations and gradients on the way from product to product, and the filters. Everything else stays
//! in f32: named tensors (the image, its bounds, the perturbed image, the weights), sums and what follows from them
//! alone (batch statistics, norms), what softmax and loss read, and what no product reads any more: the gradient by
//! the image, so that a step and its projection are what they are in f32. All arithmetic is in f32, sums of products
//! too.
//!
//! f16 ends at 65504 and has full precision down to 6.1e-5. Where the direction of a gradient is all that counts,
//! [`crate::tape::Var::cross_entropy_direction`] starts it with a largest magnitude near 1, and each layer's weights
//! move it from there.

use super::group::{Base, Group, Value, values, whole};
use super::lower::Lowered;
use crate::cpu;
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::launch::Kernel;
use crate::shape::DType;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// What a plan computes its products in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Half precision: f16 storage on a GPU, bf16 products on a processor that has them; sums in f32.
    F16,
}

impl Precision {
    /// The names precisions go by.
    pub const NAMES: [&str; 2] = ["f32", "f16"];

    /// What it is on a device, as "f16 (bf16 products, sums in f32)".
    pub fn on(self, device: &Device) -> String {
        let means = match (self, &device.kind) {
            (Precision::F32, _) => return "f32".into(),
            (_, Kind::Gpu(_)) => "f16 between products, sums in f32",
            (_, Kind::Cpu) if cpu::multiplies_halves() => "bf16 products, sums in f32",
            (_, Kind::Cpu) => "computed in f32: this processor has no bf16 products",
            (_, Kind::Reference) => "computed in f64",
        };
        format!("{self} ({means})")
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Precision> {
        match text {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            other => Err(Error::unknown("precision", other, &Precision::NAMES)),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        })
    }
}

/// Gives the values that half precision suits the type f16, and the filters of products a half copy each, made in the
/// prologue.
pub(super) fn halve(lowered: &mut Lowered) {
    let half = chosen(lowered);
    for (group, half) in lowered.groups.iter_mut().zip(half) {
        if half {
            group.dtype = DType::F16;
        }
    }
    copy_filters(lowered);
}

/// Whether each group's result is kept in half precision.
fn chosen(lowered: &Lowered) -> Vec<bool> {
    let (groups, prologue) = (&lowered.groups, lowered.prologue);
    // Whether a product comes after a value, and whether softmax or loss read it, or it is more than a filter.
    let (mut flows, mut exact) = (vec![false; groups.len()], vec![false; groups.len()]);
    let mut filter = vec![true; groups.len()];
    for (at, group) in groups.iter().enumerate().rev() {
        let product = group.kernel.flops() > 0;
        for (i, value) in values(group).enumerate() {
            if let Base::Group(read) = value.base {
                flows[read] |= product || flows[at];
                exact[read] |= is_of_rows(&group.kernel);
                filter[read] &= product && i < group.inputs.len();
            }
        }
    }
    let mut half = vec![false; groups.len()];
    for (at, group) in groups.iter().enumerate() {
        let of = |value: &Value| matches!(value.base, Base::Group(read) if half[read]);
        let suits = match &group.kernel {
            _ if at < prologue => filter[at],
            kernel if kernel.flops() > 0 => true,
            Kernel::CrossEntropyGrad { .. } | Kernel::CrossEntropyDirection { .. } => true,
            Kernel::Map { .. } | Kernel::Update => {
                let len = group.shape.len();
                values(group).any(|value| of(&value) && value.stretch == whole(len))
            }
            Kernel::Copy { .. }
            | Kernel::Concat { .. }
            | Kernel::PoolGather(_)
            | Kernel::PoolScatter(_)
            | Kernel::AvgPool(_)
            | Kernel::AvgPoolGrad(_) => {
                group.inputs.iter().filter(|value| !is_integer(groups, value)).all(of)
            }
            _ => false,
        };
        half[at] = suits && flows[at] && !exact[at] && group.dtype == DType::F32 && group.tensor.is_none();
    }
    half
}

/// Kernels over rows of logits.
fn is_of_rows(kernel: &Kernel) -> bool {
    matches!(
        kernel,
        Kernel::Softmax { .. }
            | Kernel::CrossEntropy { .. }
            | Kernel::CrossEntropyGrad { .. }
            | Kernel::CrossEntropyDirection { .. }
            | Kernel::Correct { .. }
            | Kernel::ArgMax { .. }
    )
}

fn is_integer(groups: &[Group], value: &Value) -> bool {
    matches!(value.base, Base::Group(read) if groups[read].dtype == DType::U32)
}

/// Puts a half copy of each tensor that products read and the plan does not write at the beginning of the prologue:
/// products of the prologue read them too.
fn copy_filters(lowered: &mut Lowered) {
    let written: Vec<usize> = lowered.groups.iter().filter_map(|group| group.tensor).collect();
    let mut copies: HashMap<usize, usize> = HashMap::new();
    let mut made: Vec<Group> = Vec::new();
    for group in lowered.groups.iter().filter(|group| group.kernel.flops() > 0) {
        for value in &group.inputs {
            let Base::Tensor(tensor) = value.base else { continue };
            let used = &lowered.tensors[tensor];
            if used.dtype == DType::F32 && !written.contains(&tensor) && !copies.contains_key(&tensor) {
                copies.insert(tensor, made.len());
                made.push(Group::copy(*value, used.shape, DType::F16, group.scope.clone(), None));
            }
        }
    }
    let count = made.len();
    let numbers: Vec<usize> = (0..lowered.groups.len()).map(|group| group + count).collect();
    for group in &mut lowered.groups {
        group.renumber(&numbers);
        for value in group.inputs.iter_mut().filter(|_| group.kernel.flops() > 0) {
            if let Base::Tensor(tensor) = value.base
                && let Some(&copy) = copies.get(&tensor)
            {
                value.base = Base::Group(copy);
            }
        }
    }
    lowered.groups.splice(..0, made);
    lowered.prologue += count;
}
