//! Placing temporaries: a slot is free again after the last launch that reads it. What the prologue leaves to the
//! launches that are repeated is never overwritten by them.

use super::group::{Base, Group, values};
use crate::launch::Place;
use crate::shape::DType;

/// A piece of temporary memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Type of the elements it holds over the run (one type: the CPU executor's memory is typed).
    pub dtype: DType,
    /// Elements of the largest value it holds.
    pub len: usize,
}

/// Gives each group a place for its result. The largest values choose first, each the smallest slot that is large
/// enough and free from its launch to its last reader, else a new one: "greedy by size for shared objects" (Pisarchyk
/// and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", section 4.2). A result never shares with
/// what its launch reads.
///
/// Slots are whole buffers and not ranges of one: a GPU does not bind one buffer for reading and for writing in the
/// same dispatch.
pub(super) fn place(groups: &[Group], prologue: usize) -> (Vec<Place>, Vec<Slot>) {
    let mut last_read = vec![0; groups.len()];
    for (at, group) in groups.iter().enumerate() {
        for value in values(group) {
            if let Base::Group(read) = value.base {
                last_read[read] = if read < prologue && at >= prologue { groups.len() } else { at };
            }
        }
    }
    let mut values: Vec<usize> = (0..groups.len()).filter(|&at| groups[at].tensor.is_none()).collect();
    values.sort_by_key(|&at| (std::cmp::Reverse(groups[at].shape.len()), at));
    let mut slots: Vec<(Slot, Vec<usize>)> = Vec::new();
    let mut places: Vec<Place> =
        groups.iter().map(|group| Place::Tensor(group.tensor.unwrap_or(0))).collect();
    for at in values {
        let Group { dtype, shape, .. } = groups[at];
        let apart = |&other: &usize| last_read[other] < at || last_read[at] < other;
        // Sizes fall, so that the last slot that is free is the smallest.
        let free = slots.iter().rposition(|(slot, held)| slot.dtype == dtype && held.iter().all(apart));
        let slot = free.unwrap_or_else(|| {
            slots.push((Slot { dtype, len: shape.len() }, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push(at);
        places[at] = Place::Slot(slot);
    }
    (places, slots.into_iter().map(|(slot, _)| slot).collect())
}
