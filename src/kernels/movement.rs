//! Host side of shaders/movement.wgsl: copies through strides, concatenation.

use super::map::{WORKGROUP, per_invocation};
use super::{Arg, Call, Calls, Shader, Target, params};
use crate::error::{Error, Result};
use crate::launch::{Kernel, Launch};
use crate::shape::{StridedAxes, StridedAxis};

/// shaders/movement.wgsl.
pub(super) static SHADER: Shader = Shader {
    path: "movement.wgsl",
    text: include_str!("../../shaders/movement.wgsl"),
    fields: Params::FIELDS,
};

params! {
    /// (extent, stride, lo, hi) of the innermost axis.
    axis0: [u32; 4],
    axis1: [u32; 4],
    axis2: [u32; 4],
    axis3: [u32; 4],
    axis4: [u32; 4],
    axis5: [u32; 4],
    /// Elements the call writes.
    len: u32,
    /// Element of x that the index 0 reads.
    offset: i32,
    /// Columns of a concatenation's input.
    columns: u32,
    /// Columns of its result.
    total: u32,
    /// Columns of the inputs before.
    before: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

/// The calls of a [`Kernel::Copy`] (one) or [`Kernel::Concat`] (one an input).
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    // What a call does not use still divides in the other entry point, so it must not be 0 when baked.
    const ONE: [u32; 4] = [1, 0, 0, 1];
    let unused = Params {
        axis0: ONE,
        axis1: ONE,
        axis2: ONE,
        axis3: ONE,
        axis4: ONE,
        axis5: ONE,
        len: 0,
        offset: 0,
        columns: 1,
        total: 1,
        before: 0,
        pad0: 0,
        pad1: 0,
        pad2: 0,
    };
    let grid = |len: usize, per: usize| target.grid(len.div_ceil(WORKGROUP * per));
    match &launch.kernel {
        Kernel::Copy { offset, strides, lo, hi } => {
            let dims = launch.shape.dims();
            if [strides, lo, hi].iter().any(|list| list.len() != dims.len()) {
                return Err(Error::Unsupported(format!("{launch} has other axes than its result")));
            }
            let axes = StridedAxes::joined(dims, strides, lo, hi);
            let axes = axes.list();
            let axis = |i: usize| {
                let words =
                    |axis: &StridedAxis| [axis.extent, axis.stride, axis.lo, axis.hi].map(|x| x as u32);
                axes.get(i).map_or(ONE, words)
            };
            let len = launch.shape.len();
            let params = Params {
                axis0: axis(0),
                axis1: axis(1),
                axis2: axis(2),
                axis3: axis(3),
                axis4: axis(4),
                axis5: axis(5),
                len: len as u32,
                offset: *offset as i32,
                ..unused
            };
            let per = per_invocation(len, target);
            let call = Call::new(&SHADER, "copy", &params, launch, grid(len, per));
            Ok(call.constant("PER", per as u32).constant("RANK", axes.len() as u32).into())
        }
        Kernel::Concat { outer, columns } => {
            let total: usize = columns.iter().sum();
            let mut before = 0;
            let mut calls = Calls::default();
            for (i, &columns) in columns.iter().enumerate() {
                let len = outer * columns;
                let params = Params {
                    len: len as u32,
                    columns: columns as u32,
                    total: total as u32,
                    before: before as u32,
                    ..unused
                };
                before += columns;
                if len == 0 {
                    continue;
                }
                let per = per_invocation(len, target);
                let call = Call::new(&SHADER, "concat", &params, launch, grid(len, per));
                let call = Call { inputs: vec![Arg::Input(i)], ..call };
                calls.list.push(call.constant("PER", per as u32));
            }
            Ok(calls)
        }
        other => unreachable!("{} moves nothing", other.name()),
    }
}
