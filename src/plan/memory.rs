//! Placing temporaries: a slot is free again after the last launch that reads it. What the prologue leaves to the
//! launches that are repeated is never overwritten by them.

use super::lower::{Base, Group, values};
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

/// Gives each group a place for its result. Best fit: the smallest free slot that is large enough, else the largest
/// free one, grown; a result never shares with what its launch reads.
pub(super) fn place(groups: &[Group], prologue: usize) -> (Vec<Place>, Vec<Slot>) {
    let mut last_read = vec![0; groups.len()];
    for (at, group) in groups.iter().enumerate() {
        for value in values(group) {
            if let Base::Group(read) = value.base {
                last_read[read] = if read < prologue && at >= prologue { groups.len() } else { at };
            }
        }
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut places = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        let place = match group.tensor {
            Some(tensor) => Place::Tensor(tensor),
            None => {
                let len = group.shape.len();
                let fitting = free.iter().copied().filter(|&slot| slots[slot].dtype == group.dtype);
                let best = fitting.min_by_key(|&slot| match slots[slot].len >= len {
                    true => (0, slots[slot].len, slot),
                    false => (1, usize::MAX - slots[slot].len, slot),
                });
                let slot = match best {
                    Some(slot) => {
                        free.retain(|&other| other != slot);
                        slots[slot].len = slots[slot].len.max(len);
                        slot
                    }
                    None => {
                        slots.push(Slot { dtype: group.dtype, len });
                        slots.len() - 1
                    }
                };
                Place::Slot(slot)
            }
        };
        places.push(place);
        for read in 0..=at {
            if let Place::Slot(slot) = places[read]
                && last_read[read] == at
                && (read != at)
                && !free.contains(&slot)
                && values(group).any(|value| value.base == Base::Group(read))
            {
                free.push(slot);
            }
        }
    }
    (places, slots)
}
