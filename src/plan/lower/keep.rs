//! What is kept of a value that is read again long after it was made: itself, what it can be computed from again, or a
//! bit an element.

use super::Lowering;
use crate::launch::Kernel;
use crate::plan::group::{Base, Group, ProtoStage, Value, values, whole};
use crate::shape::{DType, Shape, Stretch};
use crate::tape::Binary;

/// Launches between two readers of a result from which on it may be computed again for the second.
const LONG: usize = 8;
/// Fewest elements of what is computed again.
const FEWEST_RECOMPUTED: usize = 1024;
/// Fewest elements of an activation that is kept as bits: below, a launch costs more than the memory is worth.
const FEWEST_MASKED: usize = 1 << 16;

/// A reader of a result: where it stands, and its number.
type Reader = (usize, usize);

/// The first of a result's readers behind its longest time unread, where that is long.
fn after_long(readers: &[Reader]) -> Option<usize> {
    let gap = |i: usize| readers[i].0 - readers[i - 1].0;
    (1..readers.len()).max_by_key(|&i| gap(i)).filter(|&i| gap(i) >= LONG)
}

impl Lowering<'_> {
    /// For each group, where those that read it stand in `order`.
    fn readers(&self, order: &[usize]) -> Vec<Vec<Reader>> {
        let mut readers = vec![Vec::new(); self.groups.len()];
        for (at, &group) in order.iter().enumerate() {
            for value in values(&self.groups[group]) {
                if let Base::Group(read) = value.base {
                    readers[read].push((at, group));
                }
            }
        }
        readers
    }

    /// Computes elementwise results again where they are read long after, instead of keeping them, when all they are
    /// made of is kept for longer anyway (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 3,
    /// for the cheapest of ops): of batch norm and activation the backward pass keeps what went in, not what came out.
    pub(super) fn recompute(&mut self, assignments: &[(String, usize)], mut frozen: Vec<bool>) {
        // Where each could stand at the earliest: a weight's gradient that goes on into the optimiser ends late.
        let mut early: Vec<usize> = self.groups.iter().map(|group| group.first).collect();
        let mut order = self.sequence();
        for &group in &order {
            for value in values(&self.groups[group]) {
                if let Base::Group(read) = value.base {
                    early[group] = early[group].max(early[read]);
                }
            }
        }
        order.sort_by_key(|&group| early[group]);
        let mut readers = self.readers(&order);
        let assigned: Vec<Base> = assignments.iter().map(|(_, id)| self.value(*id).base).collect();
        // What is computed again from something needs that in memory: else a chain of residual blocks would be computed
        // again all at once.
        let mut needed = vec![false; self.groups.len()];
        for &group in order.iter().rev() {
            let g = &self.groups[group];
            let len = g.shape.len();
            let plain =
                matches!(g.kernel, Kernel::Map { start } if start == whole(len)) && !g.stages.is_empty();
            if needed[group] || !plain || len < FEWEST_RECOMPUTED || assigned.contains(&Base::Group(group)) {
                continue;
            }
            let Some(late) = after_long(&readers[group]) else { continue };
            let (first, last) = (readers[group][late].0, readers[group][readers[group].len() - 1].0);
            let is_kept = |value: Value| match value.base {
                Base::Group(read) => {
                    let stays = readers[read].iter().any(|&(at, reader)| at >= last && reader != group);
                    stays || 16 * self.groups[read].shape.len() <= len
                }
                Base::Tensor(_) => true,
            };
            // What is computed once a repeat stays there.
            let together = readers[group][late..].iter().all(|&(_, reader)| frozen[reader] == frozen[group]);
            if !together || !values(g).all(is_kept) {
                continue;
            }
            let copy = self.groups.len();
            let moved = readers[group].split_off(late);
            for value in values(&self.groups[group]).collect::<Vec<_>>() {
                if let Base::Group(read) = value.base {
                    readers[read].push((first, copy));
                    readers[read].sort_unstable();
                    needed[read] = true;
                }
            }
            for &(_, reader) in &moved {
                self.groups[reader].redirect(group, copy);
            }
            let g = &self.groups[group];
            let Some(before) =
                moved.iter().map(|&(_, reader)| reader).min_by_key(|&reader| self.groups[reader].last)
            else {
                continue;
            };
            let (last, scope) = (self.groups[before].last, self.groups[before].scope.clone());
            let again = Group {
                kernel: g.kernel.clone(),
                inputs: g.inputs.clone(),
                before: Vec::new(),
                stages: g.stages.clone(),
                scope,
                last,
                again: true,
                ..*g
            };
            self.groups.push(again);
            readers.push(moved);
            frozen.push(frozen[group]);
        }
    }

    /// Keeps of an activation only which elements are positive, a bit each, where that is all that is read of it long
    /// after: the gates of an attack's backward pass.
    pub(super) fn keep_masks(&mut self, assignments: &[(String, usize)], frozen: &[bool]) {
        let order = self.sequence();
        let readers = self.readers(&order);
        let assigned: Vec<Base> = assignments.iter().map(|(_, id)| self.value(*id).base).collect();
        for &group in &order {
            let (readers, len) = (&readers[group], self.groups[group].shape.len());
            let Some(late) = after_long(readers) else { continue };
            let value = Value { base: Base::Group(group), stretch: whole(len) };
            let gates = readers[late..].iter().all(|&(_, reader)| {
                let g = &self.groups[reader];
                // Every use by this reader is as the gate's second argument.
                let is_gate = |stage: &&ProtoStage| {
                    matches!(stage, ProtoStage::Binary { op: Binary::Gate { .. }, swapped: false, operand }
                        if *operand == value)
                };
                let uses = values(g).filter(|used| used.base == value.base).count();
                uses == g.stages.iter().filter(is_gate).count() && frozen[reader] == frozen[group]
            });
            if len < FEWEST_MASKED || !gates || assigned.contains(&value.base) {
                continue;
            }
            let words = len.div_ceil(32);
            let late: Vec<usize> = readers[late..].iter().map(|&(_, reader)| reader).collect();
            let (last, scope) = (self.groups[group].last, self.groups[group].scope.clone());
            let mask = Group {
                kernel: Kernel::Mask { len },
                first: last,
                last,
                ..Group::copy(value, Shape::new(&[words]), DType::U32, scope, None)
            };
            let bits =
                Value { base: Base::Group(self.groups.len()), stretch: Stretch { div: 32, modulo: words } };
            self.groups.push(mask);
            for reader in late {
                for stage in &mut self.groups[reader].stages {
                    if let ProtoStage::Binary { operand, .. } = stage
                        && *operand == value
                    {
                        *operand = bits;
                    }
                }
            }
        }
    }
}
