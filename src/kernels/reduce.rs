//! Host side of shaders/reduce.wgsl: folds over an axis.

use super::{Arg, Call, Calls, Shader, Target, params, stages};
use crate::error::Result;
use crate::launch::{Kernel, Launch};
use crate::tape::Reduction;

/// shaders/reduce.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "reduce.wgsl", text: include_str!("../../shaders/reduce.wgsl"), fields: Params::FIELDS };

/// Invocations of a workgroup of `serial`.
const WORKGROUP: usize = 64;
/// Invocations of a workgroup of `tree`, which folds one chunk.
const TREE: usize = 256;
/// Most elements one invocation folds: it bounds the error of a running sum.
const LONGEST: usize = 4096;
/// Fewest elements of a chunk: below, a second stage costs more than it spreads.
const SHORTEST: usize = 64;
/// Neighbours along `inner` from which on reads by neighbouring invocations are as good as contiguous.
const WIDE: usize = 32;

params! {
    /// Elements before the folded axis.
    outer: u32,
    /// Elements folded into one.
    extent: u32,
    /// Elements after the folded axis, or vectors of four.
    inner: u32,
    /// Results an `extent` is folded into.
    chunks: u32,
    /// Elements of a chunk; the last may have fewer.
    piece: u32,
}

/// How one stage folds its extent.
struct Cut {
    tree: bool,
    piece: usize,
    chunks: usize,
}

/// Cuts `extent` so that `rows` folds of elements or vectors keep the device busy; `inner` counts elements.
fn cut(rows: usize, extent: usize, inner: usize, target: &Target) -> Cut {
    let tree = !target.software && inner < WIDE && extent >= TREE;
    // Chunks the device wants to work on at once, and the fewest that keep a chunk short enough.
    let (busy, longest, shortest) = match (target.software, tree) {
        (true, _) => (2048, LONGEST, SHORTEST),
        (false, false) => (32768, LONGEST, SHORTEST),
        (false, true) => (1024, LONGEST * TREE, SHORTEST * TREE),
    };
    let wanted = (busy / rows.max(1)).min(extent / shortest);
    let chunks = wanted.max(extent.div_ceil(longest)).max(1);
    let piece = extent.div_ceil(chunks).max(1);
    Cut { tree, piece, chunks: extent.div_ceil(piece).max(1) }
}

/// The calls of a [`Kernel::Reduce`]: one for each stage, the last of which writes the output.
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let Kernel::Reduce { kind, outer, extent, inner, .. } = &launch.kernel else {
        unreachable!("{} is not a reduction", launch.kernel.name())
    };
    let (outer, mut extent, inner) = (*outer, *extent, *inner);
    // Four neighbours along `inner` at a time, a vector each.
    let fours = inner.is_multiple_of(4) && stages::in_fours(launch);
    let width = if fours { 4 } else { 1 };
    let mut calls = Calls::default();
    loop {
        let Cut { tree, piece, chunks } = cut(outer * inner / width, extent, inner, target);
        let inner = inner / width;
        let results = outer * chunks * inner;
        let params = Params {
            outer: outer as u32,
            extent: extent as u32,
            inner: inner as u32,
            chunks: chunks as u32,
            piece: piece as u32,
        };
        let (entry, groups) = if tree { ("tree", results) } else { ("serial", results.div_ceil(WORKGROUP)) };
        let mut call = Call::new(&SHADER, entry, &params, launch, target.grid(groups))
            .constant("MAXIMUM", (*kind == Reduction::Max).into());
        if fours {
            call = call.include("common/x_scalar.wgsl", "common/x_vec4.wgsl").in_fours(true, launch);
        }
        // Partial results alternate between two scratch buffers.
        let stage = calls.list.len();
        if stage > 0 {
            call.inputs = vec![Arg::Scratch((stage - 1) % 2)];
        }
        if chunks > 1 {
            call.stages = false;
            call.output = Arg::Scratch(stage % 2);
            let bytes = (4 * width * results) as u64;
            match calls.scratch.get_mut(stage % 2) {
                Some(size) => *size = bytes.max(*size),
                None => calls.scratch.push(bytes),
            }
        }
        calls.list.push(call);
        if chunks == 1 {
            return Ok(calls);
        }
        extent = chunks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_covers_its_extent_and_ends() {
        let hardware = Target {
            software: false,
            subgroup: None,
            workgroup_memory: 16384,
            workgroup_invocations: 256,
            workgroups: 65535,
            half: false,
            cooperative: None,
        };
        for target in [hardware, Target { software: true, ..hardware }] {
            for (outer, inner) in [(1, 1), (7, 1), (1, 64), (3, 5), (1, 100_000)] {
                for extent in [1, 2, 63, 64, 65, 255, 256, 257, 4097, 100_003, 30_000_000] {
                    let (mut left, mut stages) = (extent, 0);
                    while left > 1 || stages == 0 {
                        let Cut { piece, chunks, .. } = cut(outer * inner, left, inner, &target);
                        assert!(piece * chunks >= left && piece * (chunks - 1) < left);
                        assert!(chunks == 1 || chunks < left);
                        left = chunks;
                        stages += 1;
                    }
                    assert!(stages <= 4, "{extent} in {stages} stages");
                }
            }
        }
    }
}
