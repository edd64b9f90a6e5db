//! Groups: launches while they are put together, before they have an order and places in memory.

use crate::launch::{Kernel, Launch, Operand, PerRow, Place, Stage};
use crate::shape::{DType, Shape, Stretch};
use crate::tape::{Binary, Unary};
use std::rc::Rc;

/// A launch before memory is placed.
pub(super) struct Group {
    pub kernel: Kernel,
    pub inputs: Vec<Value>,
    /// Stages on the way into a reduction.
    pub before: Vec<ProtoStage>,
    pub stages: Vec<ProtoStage>,
    pub shape: Shape,
    pub dtype: DType,
    pub scope: Rc<str>,
    /// The op of its kernel.
    pub first: usize,
    /// The last op it covers, which is where it stands among the others.
    pub last: usize,
    /// It stands before the other groups of its last op: it computes again what they read.
    pub again: bool,
    /// Swallowed by another group.
    pub dead: bool,
    /// The group whose launch makes its result too; it stands right before that group.
    pub with: Option<usize>,
    /// The tensor it writes, when it does not write a temporary.
    pub tensor: Option<usize>,
}

impl Group {
    /// The group that copies a value.
    pub(super) fn copy(
        value: Value,
        shape: Shape,
        dtype: DType,
        scope: Rc<str>,
        tensor: Option<usize>,
    ) -> Group {
        Group {
            kernel: Kernel::Map { start: value.stretch },
            inputs: vec![value],
            before: Vec::new(),
            stages: Vec::new(),
            shape,
            dtype,
            scope,
            first: 0,
            last: 0,
            again: false,
            dead: false,
            with: None,
            tensor,
        }
    }

    /// Gives the groups it names their new numbers.
    pub(super) fn renumber(&mut self, numbers: &[usize]) {
        self.with = self.with.map(|group| numbers[group]);
        self.each_read(|group| numbers[group]);
    }

    /// Makes it read `to` instead of `from`.
    pub(super) fn redirect(&mut self, from: usize, to: usize) {
        self.each_read(|group| if group == from { to } else { group });
    }

    fn each_read(&mut self, number: impl Fn(usize) -> usize) {
        let fix = |value: &mut Value| {
            if let Base::Group(group) = &mut value.base {
                *group = number(*group);
            }
        };
        self.inputs.iter_mut().for_each(fix);
        for stage in self.before.iter_mut().chain(&mut self.stages) {
            if let ProtoStage::Binary { operand, .. } = stage {
                fix(operand);
            }
        }
    }

    /// The distinct values its stages read, and those of `more` stages.
    pub(super) fn operands(&self, more: &[ProtoStage]) -> Vec<Value> {
        let mut operands: Vec<Value> = Vec::new();
        for stage in self.before.iter().chain(&self.stages).chain(more) {
            if let ProtoStage::Binary { operand, .. } = stage
                && !operands.contains(operand)
            {
                operands.push(*operand);
            }
        }
        operands
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum ProtoStage {
    Unary(Unary),
    Binary { op: Binary, swapped: bool, operand: Value },
}

/// Where a value is read from, and how.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Value {
    pub base: Base,
    pub stretch: Stretch,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Base {
    Group(usize),
    Tensor(usize),
}

/// Reading a value as it lies.
pub(super) fn whole(len: usize) -> Stretch {
    Stretch { div: 1, modulo: len }
}

/// Everything a group reads.
pub(super) fn values(group: &Group) -> impl Iterator<Item = Value> + '_ {
    let operands = group.before.iter().chain(&group.stages).filter_map(|stage| match stage {
        ProtoStage::Binary { operand, .. } => Some(*operand),
        ProtoStage::Unary(_) => None,
    });
    group.inputs.iter().copied().chain(operands)
}

/// The launch of a group, once each group has a place for its result, and a type. `also` are the results of groups that
/// stand with it.
pub(super) fn launch(
    group: &Group,
    output: Place,
    also: Vec<(PerRow, Place)>,
    place: impl Fn(Base) -> Place,
    is_half: impl Fn(Base) -> bool,
    is_mask: impl Fn(Base) -> bool,
) -> Launch {
    let stage = |stage: &ProtoStage| match *stage {
        ProtoStage::Unary(unary) => Stage::Unary(unary),
        ProtoStage::Binary { op, swapped, operand } => {
            let operand = match place(operand.base) {
                place if place == output => Operand::Previous,
                place if is_mask(operand.base) => Operand::Bits { place, stretch: operand.stretch },
                place => Operand::Buffer { place, stretch: operand.stretch },
            };
            Stage::Binary { op, swapped, operand }
        }
    };
    let mut kernel = group.kernel.clone();
    if let Kernel::Reduce { before, .. } = &mut kernel {
        *before = group.before.iter().map(stage).collect();
    }
    let stages = group.stages.iter().map(stage).collect();
    let inputs = group.inputs.iter().map(|value| place(value.base)).collect();
    let mut halves = Vec::new();
    for value in values(group).filter(|value| is_half(value.base)) {
        if !halves.contains(&place(value.base)) {
            halves.push(place(value.base));
        }
    }
    Launch { kernel, inputs, stages, output, also, shape: group.shape, dtype: group.dtype, halves }
}
