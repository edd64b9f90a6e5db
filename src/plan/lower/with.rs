//! Softmax, loss, right answers and gradient in one launch: what else is asked of logits whose gradient is computed is
//! made in the same pass over their rows.

use crate::launch::{MAX_OPERANDS, PerRow};
use crate::plan::group::{Base, Group, values};

/// Has the launches behind the first `prologue` that compute the gradient of a cross-entropy give the loss and the right
/// answers of the same logits and labels too, where those are launches of their own. `groups` stand in an order in which
/// they can run.
pub(super) fn join(groups: &mut [Group], prologue: usize) {
    for leader in prologue..groups.len() {
        if groups[leader].kernel.gives_per_row().is_none() || groups[leader].tensor.is_some() {
            continue;
        }
        for what in PerRow::ALL {
            let found = (prologue..groups.len()).find(|&other| joins(groups, other, leader, what));
            let operands = groups[leader].operands(&[]).len();
            let have = groups.iter().filter(|group| group.with == Some(leader)).count();
            if let Some(other) = found
                && operands + have < MAX_OPERANDS - 1
            {
                groups[other].with = Some(leader);
            }
        }
    }
}

/// Whether `group` is what `leader` can give as `what`. It has no stages and both are temporaries, so that all the group
/// waits for are logits and labels; and what the leader's stages read is there before the group, so that none of it is
/// made of the group's result.
fn joins(groups: &[Group], group: usize, leader: usize, what: PerRow) -> bool {
    let (g, by) = (&groups[group], &groups[leader]);
    PerRow::of(&g.kernel) == Some(what)
        && g.inputs == by.inputs
        && g.stages.is_empty()
        && g.tensor.is_none()
        && g.with.is_none()
        && values(by).skip(by.inputs.len()).all(|value| match value.base {
            Base::Group(read) => read < group,
            Base::Tensor(_) => true,
        })
}
