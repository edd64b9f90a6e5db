//! The order of the launches: as recorded, but what gives memory back goes first.
//!
//! Recorded last of all, the optimiser would keep the gradient of every weight until the end of the backward pass;
//! moved to where each gradient is made, one gradient lives at a time.

use super::group::{Base, Group, values};
use std::collections::BTreeSet;

/// Reorders the groups behind the first `prologue`. Of those whose arguments are ready, the first that takes no
/// memory (its result is a tensor) or gives back more than it takes goes next, else the one that was recorded first.
/// A group that writes a tensor stays behind every group that reads what the tensor held before the run. A group that
/// stands with another ([`Group::with`]) goes right before that one.
pub(super) fn order(groups: Vec<Group>, prologue: usize) -> Vec<Group> {
    let count = groups.len();
    let reads: Vec<BTreeSet<usize>> = groups
        .iter()
        .map(|group| {
            values(group)
                .filter_map(|value| if let Base::Group(read) = value.base { Some(read) } else { None })
        })
        .map(Iterator::collect)
        .collect();
    // What has to wait for each group, how many groups each waits for, and how many have yet to read its result.
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut waits = vec![0usize; count];
    let mut readers = vec![0usize; count];
    for (at, group) in groups.iter().enumerate() {
        for &read in &reads[at] {
            followers[read].push(at);
            waits[at] += 1;
            readers[read] += 1;
        }
        if let Some(tensor) = group.tensor {
            let old = |other: &Group| values(other).any(|value| value.base == Base::Tensor(tensor));
            for (earlier, _) in groups[..at].iter().enumerate().filter(|(_, other)| old(other)) {
                followers[earlier].push(at);
                waits[at] += 1;
            }
        }
    }
    let bytes = |at: usize| {
        if groups[at].tensor.is_some() { 0 } else { groups[at].dtype.buffer_bytes(groups[at].shape.len()) }
    };
    let mut sequence: Vec<usize> = (0..prologue).collect();
    followers[..prologue].iter().flatten().for_each(|&follower| waits[follower] -= 1);
    let mut left: Vec<usize> = (prologue..count).filter(|&at| groups[at].with.is_none()).collect();
    while !left.is_empty() {
        let saves = |&at: &usize| {
            // What the prologue made stays for the next repeat.
            let last = |&&read: &&usize| readers[read] == 1 && read >= prologue;
            let freed: u64 = reads[at].iter().filter(last).map(|&read| bytes(read)).sum();
            waits[at] == 0 && (bytes(at) == 0 || freed > bytes(at))
        };
        let ready = || left.iter().position(|&at| waits[at] == 0);
        let at = left.remove(left.iter().position(saves).or_else(ready).unwrap_or(0));
        let with = (prologue..count).filter(|&other| groups[other].with == Some(at));
        for at in with.chain([at]) {
            reads[at].iter().for_each(|&read| readers[read] -= 1);
            followers[at].iter().for_each(|&follower| waits[follower] -= 1);
            sequence.push(at);
        }
    }
    let mut renumber = vec![0; count];
    sequence.iter().enumerate().for_each(|(to, &from)| renumber[from] = to);
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    let mut ordered: Vec<Group> = sequence.iter().filter_map(|&from| groups[from].take()).collect();
    ordered.iter_mut().for_each(|group| group.renumber(&renumber));
    ordered
}
