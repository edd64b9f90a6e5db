//! From tape to launches: prune, fold views, fuse elementwise chains, order.
//!
//! 1. Only what an assignment depends on is kept.
//! 2. Views cost nothing: a reshape is its argument, a broadcast becomes index arithmetic of whoever reads it
//!    ([`Stretch`]), a constant becomes a one-element tensor.
//! 3. An elementwise op joins the launch that made its argument, when nothing else reads that argument: bias,
//!    normalisation, residual and activation end up in the convolution's epilogue, the activation's gate in the
//!    input gradient's, and sign, step and projection of an attack in the first layer's input gradient.
//! 4. `softmax(z) - onehot(y)` is one launch, which gives the loss and whether y is right too ([`with`]).
//! 5. What is read again long after it was made is computed again or kept as bits where that is cheaper ([`keep`]).
//! 6. What depends on nothing that the plan writes is frozen and comes first: in a repeat it is computed once. Any
//!    other launch stands where its last op stood, so everything it reads is ready.

mod keep;
mod with;

use super::group::{Base, Group, ProtoStage, Value, values, whole};
use super::order;
use crate::launch::{ConvShape, Kernel, MAX_STAGES, PoolShape};
use crate::shape::{DType, Shape, Stretch};
use crate::tape::{Binary, Conv2d, Node, Op, Pool, Reduction, Tape};
use std::collections::HashMap;
use std::rc::Rc;

/// A named tensor of the store that a plan reads or writes.
#[derive(Clone, Debug)]
pub struct TensorUse {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Its element type.
    pub dtype: DType,
    /// For a constant of the tape, its value.
    pub constant: Option<f64>,
}

pub(super) struct Lowered {
    pub groups: Vec<Group>,
    /// How many of them, at the front, depend on nothing that the plan writes.
    pub prologue: usize,
    pub tensors: Vec<TensorUse>,
}

/// Index arithmetic of reading through `inner`, an operand of which is read through `outer`.
fn compose(outer: Stretch, inner: Stretch) -> Option<Stretch> {
    if !outer.modulo.is_multiple_of(inner.div) || !(outer.modulo / inner.div).is_multiple_of(inner.modulo) {
        return None;
    }
    Some(Stretch { div: outer.div * inner.div, modulo: inner.modulo })
}

struct Lowering<'a> {
    nodes: &'a [Node],
    uses: Vec<usize>,
    values: Vec<Option<Value>>,
    /// Values no launch makes: their readers begin with this stage on that value.
    inlined: HashMap<usize, (Value, ProtoStage)>,
    groups: Vec<Group>,
    tensors: Vec<TensorUse>,
    tensor_index: HashMap<String, usize>,
    fuse: bool,
}

/// Lowers the tape; without `fuse` each op is a launch of its own.
pub(super) fn lower(tape: &Tape, fuse: bool) -> Lowered {
    let (nodes, assignments) = (tape.nodes(), tape.assignments());
    let mut uses = vec![0usize; nodes.len()];
    for (_, id) in &assignments {
        uses[*id] += 1;
    }
    for id in (0..nodes.len()).rev() {
        if uses[id] > 0 {
            nodes[id].args.iter().for_each(|&arg| uses[arg] += 1);
        }
    }
    let mut lowering = Lowering {
        nodes: &nodes,
        values: vec![None; nodes.len()],
        inlined: HashMap::new(),
        groups: Vec::new(),
        tensors: Vec::new(),
        tensor_index: HashMap::new(),
        uses,
        fuse,
    };
    for id in 0..nodes.len() {
        let assigned = || assignments.iter().any(|(_, value)| *value == id);
        if let Some(inlined) = lowering.inline(id)
            && !assigned()
        {
            lowering.inlined.insert(id, inlined);
        } else if lowering.uses[id] > 0 && !lowering.deferred(id) {
            lowering.values[id] = Some(lowering.visit(id));
        }
    }
    lowering.finish(&assignments)
}

impl Lowering<'_> {
    fn tensor(&mut self, name: &str, shape: Shape, dtype: DType, constant: Option<f64>) -> usize {
        let next = self.tensors.len();
        let index = *self.tensor_index.entry(name.to_string()).or_insert(next);
        if index == next {
            self.tensors.push(TensorUse { name: name.to_string(), shape, dtype, constant });
        }
        index
    }

    /// Softmax and one-hot whose only reader is their difference wait for it.
    fn deferred(&self, id: usize) -> bool {
        matches!(self.nodes[id].op, Op::Softmax | Op::OneHot)
            && self.uses[id] == 1
            && self.nodes[id + 1..]
                .iter()
                .enumerate()
                .any(|(i, reader)| reader.args.contains(&id) && self.difference(id + 1 + i).is_some())
    }

    /// Logits and labels, when node `id` is `softmax(logits) - onehot(labels)` and reads both alone.
    fn difference(&self, id: usize) -> Option<(usize, usize)> {
        let node = &self.nodes[id];
        if !self.fuse || self.uses[id] == 0 || node.op != Op::Binary(Binary::Sub) || node.shape.rank() != 2 {
            return None;
        }
        let [softmax, one_hot] = [node.args[0], node.args[1]];
        let alone = self.uses[softmax] == 1 && self.uses[one_hot] == 1;
        let ops = self.nodes[softmax].op == Op::Softmax && self.nodes[one_hot].op == Op::OneHot;
        (alone && ops).then(|| (self.nodes[softmax].args[0], self.nodes[one_hot].args[0]))
    }

    fn value(&self, id: usize) -> Value {
        self.values[id].expect("arguments are lowered before their readers")
    }

    /// The value of an argument as a whole tensor in memory, for kernels that do not read through a stretch.
    fn dense(&mut self, id: usize) -> Value {
        let (value, shape) = (self.value(id), self.nodes[id].shape);
        if value.stretch == whole(shape.len()) {
            return value;
        }
        let dtype = self.nodes[id].dtype;
        let group = self.group(id, Kernel::Map { start: value.stretch }, vec![value], shape, dtype);
        // Later readers find the copy.
        self.values[id] = Some(group);
        group
    }

    fn group(&mut self, id: usize, kernel: Kernel, inputs: Vec<Value>, shape: Shape, dtype: DType) -> Value {
        let scope = self.nodes[id].scope.clone();
        self.groups.push(Group {
            kernel,
            inputs,
            before: Vec::new(),
            stages: Vec::new(),
            shape,
            dtype,
            scope,
            first: id,
            last: id,
            again: false,
            dead: false,
            with: None,
            tensor: None,
        });
        Value { base: Base::Group(self.groups.len() - 1), stretch: whole(shape.len()) }
    }

    /// The group that ends in `id`, when only one op reads `id` and the group may go on.
    fn open(&self, id: usize) -> Option<usize> {
        let mut at = id;
        while self.nodes[at].op == Op::Reshape && self.uses[at] == 1 {
            at = self.nodes[at].args[0];
        }
        let Value { base: Base::Group(group), stretch } = self.values[at]? else { return None };
        let g = &self.groups[group];
        (self.fuse && self.uses[at] == 1 && g.last == at && stretch == whole(g.shape.len())).then_some(group)
    }

    /// Adds a stage to an open group, if there is room.
    fn extend(&mut self, group: usize, id: usize, stage: ProtoStage) -> Option<Value> {
        let g = &mut self.groups[group];
        let operands = g.operands(&[stage]);
        let most = g.kernel.max_operands();
        if !g.kernel.takes_stages() || g.stages.len() == MAX_STAGES || operands.len() > most {
            return None;
        }
        // A launch's output is never its input: a stage that reads what the launch itself makes cannot join it.
        if operands.iter().any(|operand| operand.base == Base::Group(group)) {
            return None;
        }
        g.stages.push(stage);
        g.last = id;
        // A copy's strides are by the axes of its own result; elsewhere stages may see it reshaped.
        if !matches!(g.kernel, Kernel::Copy { .. }) {
            g.shape = self.nodes[id].shape;
        }
        Some(Value { base: Base::Group(group), stretch: whole(g.shape.len()) })
    }

    /// The value and the stage that node `id` is, when each of its readers had better begin with that stage than read
    /// its result: a sum, difference or product with what is small beside it (a mean, a scale a channel), read by
    /// several elementwise ops and reductions. A launch and its memory are saved; what it reads stays in its place.
    fn inline(&self, id: usize) -> Option<(Value, ProtoStage)> {
        let node = &self.nodes[id];
        let Op::Binary(op @ (Binary::Add | Binary::Sub | Binary::Mul)) = node.op else { return None };
        if !self.fuse || self.uses[id] < 2 || node.args.iter().any(|&arg| self.open(arg).is_some()) {
            return None;
        }
        let readers = self.nodes[id + 1..].iter().enumerate().filter(|(_, reader)| reader.args.contains(&id));
        let mut alive = readers.filter(|(i, _)| self.uses[id + 1 + i] > 0);
        if !alive.all(|(_, reader)| matches!(reader.op, Op::Unary(_) | Op::Binary(_) | Op::Reduce { .. })) {
            return None;
        }
        let [a, b] = [0, 1].map(|i| self.values[node.args[i]]);
        let (a, b, len) = (a?, b?, node.shape.len());
        let small = |value: Value| value.stretch.modulo * 16 <= len;
        let stage = |swapped, operand| ProtoStage::Binary { op, swapped, operand };
        match () {
            () if a.stretch == whole(len) && small(b) => Some((a, stage(false, b))),
            () if b.stretch == whole(len) && small(a) => Some((b, stage(true, a))),
            () => None,
        }
    }

    /// A new elementwise launch of node `id` that begins with inlined node `arg`, `stages` on top.
    fn begin_inlined(&mut self, arg: usize, id: usize, stages: &[ProtoStage]) -> Value {
        let (x, stage) = self.inlined[&arg];
        let shape = self.nodes[id].shape;
        let value = self.group(id, Kernel::Map { start: x.stretch }, vec![x], shape, DType::F32);
        self.stage_of_new(value, stage);
        stages.iter().for_each(|&stage| self.stage_of_new(value, stage));
        value
    }

    /// The value of an elementwise op's argument; an inlined one is computed after all.
    fn operand(&mut self, arg: usize) -> Value {
        if self.values[arg].is_none() && self.inlined.contains_key(&arg) {
            self.values[arg] = Some(self.begin_inlined(arg, arg, &[]));
        }
        self.value(arg)
    }

    fn elementwise(&mut self, id: usize) -> Value {
        let node = &self.nodes[id];
        let (shape, args) = (node.shape, node.args.clone());
        let inlined = |this: &Self, arg: usize| this.values[arg].is_none() && this.inlined.contains_key(&arg);
        match node.op {
            Op::Unary(unary) if inlined(self, args[0]) => {
                return self.begin_inlined(args[0], id, &[ProtoStage::Unary(unary)]);
            }
            Op::Binary(op) => {
                if let Some(i) = (0..2).find(|&i| inlined(self, args[i])) {
                    // Two inlined arguments, or one twice: the other is computed, and the first read again or begun with.
                    let operand = self.operand(args[1 - i]);
                    let stage = ProtoStage::Binary { op, swapped: i == 1, operand };
                    if inlined(self, args[i]) {
                        return self.begin_inlined(args[i], id, &[stage]);
                    }
                }
            }
            _ => {}
        }
        match node.op {
            Op::Unary(unary) => {
                let stage = ProtoStage::Unary(unary);
                if let Some(value) = self.open(args[0]).and_then(|group| self.extend(group, id, stage)) {
                    return value;
                }
                let x = self.value(args[0]);
                let value = self.group(id, Kernel::Map { start: x.stretch }, vec![x], shape, DType::F32);
                self.stage_of_new(value, stage);
                value
            }
            Op::Binary(op) => {
                let stage = |this: &Self, operand: usize| ProtoStage::Binary {
                    op,
                    swapped: operand == 0,
                    operand: this.value(args[operand]),
                };
                // Join the heavier of the two producers: what multiplies and adds should not read memory twice.
                let mut candidates: Vec<(bool, usize, usize)> = (0..2)
                    .filter(|_| args[0] != args[1])
                    .filter_map(|i| self.open(args[i]).map(|g| (self.groups[g].kernel.flops() > 0, g, i)))
                    .collect();
                candidates.sort_by_key(|&(heavy, group, i)| {
                    (!heavy, std::cmp::Reverse(self.groups[group].last), i)
                });
                for (_, group, i) in candidates {
                    let stage = stage(self, 1 - i);
                    if let Some(value) = self.extend(group, id, stage) {
                        return value;
                    }
                }
                // Begin with the operand that is whole, when one is.
                let first = usize::from(self.value(args[0]).stretch != whole(shape.len()));
                let first = if self.value(args[first]).stretch == whole(shape.len()) { first } else { 0 };
                let x = self.value(args[first]);
                let stage = stage(self, 1 - first);
                let value = self.group(id, Kernel::Map { start: x.stretch }, vec![x], shape, DType::F32);
                self.stage_of_new(value, stage);
                value
            }
            _ => unreachable!("only elementwise ops come here"),
        }
    }

    fn stage_of_new(&mut self, value: Value, stage: ProtoStage) {
        if let Base::Group(group) = value.base {
            self.groups[group].stages.push(stage);
        }
    }

    fn visit(&mut self, id: usize) -> Value {
        let node = &self.nodes[id];
        let (shape, dtype, args) = (node.shape, node.dtype, node.args.clone());
        if let Some((logits, labels)) = self.difference(id) {
            let inputs = vec![self.dense(logits), self.dense(labels)];
            let kernel = Kernel::CrossEntropyGrad { rows: shape[0], columns: shape[1] };
            return self.group(id, kernel, inputs, shape, dtype);
        }
        let arg_shape = |i: usize| self.nodes[args[i]].shape;
        let kernel = match &node.op {
            Op::Source { name } => {
                let index = self.tensor(name, shape, dtype, None);
                return Value { base: Base::Tensor(index), stretch: whole(shape.len()) };
            }
            Op::Fill { value } => {
                let index = self.tensor(&format!("constant {value:?}"), Shape::scalar(), dtype, Some(*value));
                return Value { base: Base::Tensor(index), stretch: whole(1) };
            }
            Op::Unary(_) | Op::Binary(_) => return self.elementwise(id),
            Op::Reshape => return self.value(args[0]),
            Op::Broadcast => {
                let x = self.value(args[0]);
                let stretch = Stretch::between(&arg_shape(0), &shape);
                if let Some(stretch) = stretch.and_then(|outer| compose(outer, x.stretch)) {
                    return Value { base: x.base, stretch };
                }
                let (from, lead) = (arg_shape(0), shape.rank() - arg_shape(0).rank());
                let strides = (0..shape.rank())
                    .map(|a| if a < lead || from[a - lead] == 1 { 0 } else { from.strides()[a - lead] })
                    .collect();
                Kernel::Copy { offset: 0, strides, lo: vec![0; shape.rank()], hi: shape.dims().to_vec() }
            }
            Op::Transpose { perm } => {
                let strides = arg_shape(0).strides();
                let strides = perm.iter().map(|&axis| strides[axis]).collect();
                Kernel::Copy { offset: 0, strides, lo: vec![0; shape.rank()], hi: shape.dims().to_vec() }
            }
            Op::Slice { start } => {
                let strides = arg_shape(0).strides();
                let offset = start.iter().zip(&strides).map(|(a, b)| (a * b) as isize).sum();
                Kernel::Copy { offset, strides, lo: vec![0; shape.rank()], hi: shape.dims().to_vec() }
            }
            Op::Pad { before } => {
                let strides = arg_shape(0).strides();
                let offset = -before.iter().zip(&strides).map(|(a, b)| (a * b) as isize).sum::<isize>();
                let hi = before.iter().zip(arg_shape(0).dims()).map(|(a, b)| a + b).collect();
                Kernel::Copy { offset, strides, lo: before.clone(), hi }
            }
            Op::Concat { axis } => {
                let outer = shape.dims()[..*axis].iter().product();
                let columns =
                    (0..args.len()).map(|i| arg_shape(i).dims()[*axis..].iter().product()).collect();
                Kernel::Concat { outer, columns }
            }
            Op::Reduce { kind, axes } => {
                let reduced: Vec<bool> = (0..arg_shape(0).rank()).map(|axis| axes.has(axis)).collect();
                return self.reduction(id, *kind, &reduced);
            }
            Op::ArgMax => {
                let columns = arg_shape(0).dims()[shape.rank()];
                Kernel::ArgMax { rows: shape.len(), columns }
            }
            Op::MatMul { ta, tb } => {
                let k = arg_shape(0)[usize::from(!ta)];
                Kernel::MatMul { m: shape[0], n: shape[1], k, ta: *ta, tb: *tb }
            }
            Op::Conv2d(conv) => Kernel::Conv2d(conv_shape(conv, arg_shape(0), arg_shape(1), shape)),
            Op::Conv2dInputGrad(conv) => {
                Kernel::Conv2dInputGrad(conv_shape(conv, shape, arg_shape(1), arg_shape(0)))
            }
            Op::Conv2dWeightGrad(conv) => {
                Kernel::Conv2dWeightGrad(conv_shape(conv, arg_shape(0), shape, arg_shape(1)))
            }
            Op::MaxPoolIndex(pool) => {
                let x = self.dense(args[0]);
                let shape = pool_shape(pool, arg_shape(0), shape);
                let words = Shape::new(&[shape.position_words()]);
                return self.group(id, Kernel::MaxPoolIndex(shape), vec![x], words, dtype);
            }
            // Positions are packed: only these read them, as they lie.
            Op::PoolGather(pool) => {
                let inputs = vec![self.dense(args[0]), self.value(args[1])];
                let kernel = Kernel::PoolGather(pool_shape(pool, arg_shape(0), shape));
                return self.group(id, kernel, inputs, shape, dtype);
            }
            Op::PoolScatter(pool) => {
                let inputs = vec![self.dense(args[0]), self.value(args[1])];
                let kernel = Kernel::PoolScatter(pool_shape(pool, shape, arg_shape(0)));
                return self.group(id, kernel, inputs, shape, dtype);
            }
            Op::AvgPool(pool) => Kernel::AvgPool(pool_shape(pool, arg_shape(0), shape)),
            Op::AvgPoolGrad(pool) => Kernel::AvgPoolGrad(pool_shape(pool, shape, arg_shape(0))),
            Op::BatchNorm => {
                let x = self.dense(args[0]);
                let [mean, inverse, weight, bias] = [1, 2, 3, 4].map(|i| {
                    let value = self.dense(args[i]);
                    Value { stretch: Stretch { div: 1, modulo: value.stretch.modulo }, ..value }
                });
                let value = self.group(id, Kernel::Map { start: x.stretch }, vec![x], shape, dtype);
                for (op, operand) in
                    [(Binary::Sub, mean), (Binary::Mul, inverse), (Binary::Mul, weight), (Binary::Add, bias)]
                {
                    self.stage_of_new(value, ProtoStage::Binary { op, swapped: false, operand });
                }
                return value;
            }
            Op::Softmax | Op::LogSoftmax => {
                let columns = shape[shape.rank() - 1];
                Kernel::Softmax { rows: shape.len() / columns, columns, log: node.op == Op::LogSoftmax }
            }
            Op::CrossEntropy => Kernel::CrossEntropy { rows: arg_shape(0)[0], columns: arg_shape(0)[1] },
            Op::CrossEntropyDirection => Kernel::CrossEntropyDirection { rows: shape[0], columns: shape[1] },
            Op::Correct => Kernel::Correct { rows: arg_shape(0)[0], columns: arg_shape(0)[1] },
            Op::OneHot => Kernel::OneHot { rows: shape[0], columns: shape[1] },
            Op::GatherRows => {
                let table = arg_shape(0)[0];
                let row = arg_shape(0).len().checked_div(table).unwrap_or(0);
                Kernel::GatherRows { rows: shape[0], row, table, from: self.nodes[args[0]].dtype }
            }
            &Op::Augment(augment) => {
                let table = arg_shape(0);
                let image = [table[1], table[2], table[3]];
                Kernel::Augment { rows: shape[0], table: table[0], image, augment }
            }
            Op::Random { distribution, purpose } => Kernel::Random {
                distribution: *distribution,
                purpose: *purpose,
                rows: shape[0],
                row: shape.len().checked_div(shape[0]).unwrap_or(0),
            },
        };
        let inputs = args.iter().map(|&arg| self.dense(arg)).collect();
        self.group(id, kernel, inputs, shape, dtype)
    }

    /// A reduction as folds over one run of axes each, the last run first. An elementwise chain that only it reads is
    /// taken on the way in.
    fn reduction(&mut self, id: usize, kind: Reduction, reduced: &[bool]) -> Value {
        let arg = self.nodes[id].args[0];
        let shape = self.nodes[arg].shape;
        // Runs of axes that are folded or kept together; axes of extent 1 join either.
        let mut runs: Vec<(bool, usize)> = Vec::new();
        for axis in (0..shape.rank()).filter(|&axis| shape[axis] != 1) {
            match runs.last_mut() {
                Some((fold, extent)) if *fold == reduced[axis] => *extent *= shape[axis],
                _ => runs.push((reduced[axis], shape[axis])),
            }
        }
        let mut before = Vec::new();
        let mut input = None;
        if self.values[arg].is_none()
            && let Some(&(x, stage)) = self.inlined.get(&arg)
        {
            (before, input) = (vec![stage], Some(x));
        } else if let Some(group) = self.open(arg) {
            let g = &mut self.groups[group];
            if let Kernel::Map { start } = g.kernel
                && start == whole(g.shape.len())
            {
                g.dead = true;
                before = std::mem::take(&mut g.stages);
                input = Some(g.inputs[0]);
            }
        }
        let mut input = input.unwrap_or_else(|| self.dense(arg));
        while let Some(at) = runs.iter().rposition(|(fold, _)| *fold) {
            let outer: usize = runs[..at].iter().map(|run| run.1).product();
            let inner: usize = runs[at + 1..].iter().map(|run| run.1).product();
            let kernel = Kernel::Reduce { kind, outer, extent: runs[at].1, inner, before: Vec::new() };
            runs.remove(at);
            let last = !runs.iter().any(|(fold, _)| *fold);
            let result = if last { self.nodes[id].shape } else { Shape::new(&[outer * inner]) };
            input = self.group(id, kernel, vec![input], result, DType::F32);
            if let Base::Group(group) = input.base {
                self.groups[group].before = std::mem::take(&mut before);
            }
        }
        input
    }

    /// Orders the groups and gives assignments their tensors, in place where no one reads the old value later.
    fn finish(mut self, assignments: &[(String, usize)]) -> Lowered {
        let targets: Vec<usize> = assignments
            .iter()
            .map(|(name, id)| self.tensor(name, self.nodes[*id].shape, self.nodes[*id].dtype, None))
            .collect();
        if self.fuse {
            let frozen = self.frozen(assignments, &targets);
            self.recompute(assignments, frozen);
            let frozen = self.frozen(assignments, &targets);
            self.keep_masks(assignments, &frozen);
        }
        let frozen = self.frozen(assignments, &targets);
        let mut order = self.sequence();
        order.sort_by_key(|&group| !frozen[group]);
        let prologue = order.iter().filter(|&&group| frozen[group]).count();
        let mut position = vec![usize::MAX; self.groups.len()];
        for (at, &group) in order.iter().enumerate() {
            position[group] = at;
        }

        let mut before: Vec<Group> = Vec::new();
        let mut after: Vec<(Value, usize, Shape, DType, Rc<str>)> = Vec::new();
        for ((_, id), &target) in assignments.iter().zip(&targets) {
            let node = &self.nodes[*id];
            let value = self.value(*id);
            let direct = match value.base {
                Base::Group(group) if value.stretch == whole(node.shape.len()) => {
                    self.writes_in_place(group, target, &position).then_some(group)
                }
                _ => None,
            };
            match direct {
                Some(group) => self.write_tensor(group, target),
                None => after.push((value, target, node.shape, node.dtype, node.scope.clone())),
            }
        }

        // What is copied out of a tensor that this plan also writes is saved first.
        let saved = self.groups.len();
        let mut copies = Vec::new();
        for (mut value, target, shape, dtype, scope) in after {
            if let Base::Tensor(source) = value.base
                && targets.contains(&source)
            {
                before.push(Group::copy(value, shape, dtype, scope.clone(), None));
                value = Value { base: Base::Group(saved + before.len() - 1), stretch: whole(shape.len()) };
            }
            copies.push(Group::copy(value, shape, dtype, scope, Some(target)));
        }

        // Renumber by order.
        let count = before.len();
        order.splice(prologue..prologue, saved..saved + count);
        let mut renumber = vec![usize::MAX; saved + count];
        for (at, &group) in order.iter().enumerate() {
            renumber[group] = at;
        }
        let mut all: Vec<Option<Group>> = self.groups.into_iter().chain(before).map(Some).collect();
        let mut groups: Vec<Group> = order.iter().filter_map(|&group| all[group].take()).collect();
        groups.extend(copies);
        groups.iter_mut().for_each(|group| group.renumber(&renumber));
        if self.fuse {
            with::join(&mut groups, prologue);
        }
        Lowered { groups: order::order(groups, prologue), prologue, tensors: self.tensors }
    }

    /// The groups that are alive, each behind what it reads: a group stands where its last op stood. (By their numbers
    /// they do not, a group's stages may read groups made after it.)
    fn sequence(&self) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..self.groups.len()).filter(|&group| !self.groups[group].dead).collect();
        order.sort_by_key(|&group| (self.groups[group].last, !self.groups[group].again, group));
        order
    }

    /// Which groups depend on nothing that the plan writes, neither on an assigned tensor nor on what may be written
    /// to one in place.
    fn frozen(&self, assignments: &[(String, usize)], targets: &[usize]) -> Vec<bool> {
        let mut frozen = vec![true; self.groups.len()];
        for (_, id) in assignments {
            if let Base::Group(group) = self.value(*id).base {
                frozen[group] = false;
            }
        }
        for group in self.sequence() {
            frozen[group] &= values(&self.groups[group]).all(|value| match value.base {
                Base::Group(read) => frozen[read],
                Base::Tensor(tensor) => !targets.contains(&tensor),
            });
        }
        frozen
    }

    /// Whether group `writer` may write tensor `target` itself: nobody reads the old value after it, and it reads
    /// the old value, if at all, only at the element it is about to write.
    fn writes_in_place(&self, writer: usize, target: usize, position: &[usize]) -> bool {
        let g = &self.groups[writer];
        let old = Value { base: Base::Tensor(target), stretch: whole(g.shape.len()) };
        let of_target = |value: &Value| value.base == Base::Tensor(target);
        let later = self.groups.iter().enumerate().any(|(i, other)| {
            !other.dead
                && i != writer
                && position[i] > position[writer]
                && values(other).any(|value| of_target(&value))
        });
        let map = matches!(g.kernel, Kernel::Map { .. });
        let inputs_fit = g.inputs.iter().all(|value| !of_target(value) || (map && *value == old));
        let before_fits = g.operands(&[]).iter().all(|value| g.before.is_empty() || !of_target(value));
        let stages_fit = g.stages.iter().all(|stage| match stage {
            ProtoStage::Binary { operand, .. } => !of_target(operand) || *operand == old,
            ProtoStage::Unary(_) => true,
        });
        !later && g.tensor.is_none() && inputs_fit && before_fits && stages_fit
    }

    fn write_tensor(&mut self, group: usize, target: usize) {
        let g = &mut self.groups[group];
        if g.inputs.iter().any(|value| value.base == Base::Tensor(target)) {
            g.kernel = Kernel::Update;
            g.inputs.clear();
        }
        g.tensor = Some(target);
    }
}

fn conv_shape(conv: &Conv2d, x: Shape, w: Shape, y: Shape) -> ConvShape {
    ConvShape {
        n: x[0],
        h: x[1],
        w: x[2],
        c: x[3],
        r: w[0],
        s: w[1],
        p: y[1],
        q: y[2],
        k: w[3],
        stride: conv.stride,
        padding: conv.padding,
        dilation: conv.dilation,
        groups: conv.groups,
    }
}

fn pool_shape(pool: &Pool, x: Shape, y: Shape) -> PoolShape {
    PoolShape { n: x[0], h: x[1], w: x[2], c: x[3], p: y[1], q: y[2], window: *pool }
}
