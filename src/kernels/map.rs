//! Host side of shaders/map.wgsl: elementwise chains, in place or not, and fills.

use super::{Call, Calls, Shader, Target, params, stages};
use crate::error::Result;
use crate::launch::{Kernel, Launch};
use crate::shape::{DType, Stretch};

/// shaders/map.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "map.wgsl", text: include_str!("../../shaders/map.wgsl"), fields: Params::FIELDS };

/// Invocations of a workgroup of the elementwise kernels here and elsewhere.
pub(super) const WORKGROUP: usize = 64;

params! {
    /// Elements of the result, or vectors of four.
    len: u32,
    /// Elements of the result that share one of x in a row.
    div: u32,
    /// Elements of x, or vectors of four.
    modulo: u32,
    /// The bits of the float a fill writes.
    value: u32,
}

/// Elements an invocation handles: one on hardware; on software, where starting an invocation costs as much as
/// several elements, as many as still leave work for every core.
pub(super) fn per_invocation(len: usize, target: &Target) -> usize {
    if target.software { (len / 2048).clamp(1, 16) } else { 1 }
}

/// The call of a [`Kernel::Map`], [`Kernel::Update`] or [`Kernel::Fill`].
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let len = launch.shape.len();
    // How x is read where it is, and the value of a fill.
    let (entry, start, value) = match &launch.kernel {
        Kernel::Update => ("update", Stretch { div: 1, modulo: len }, 0.0),
        Kernel::Fill { value } => ("fill", Stretch { div: 1, modulo: len }, *value),
        Kernel::Map { start } => ("forward", *start, 0.0),
        other => unreachable!("{} is not a map", other.name()),
    };
    let fours = launch.dtype != DType::U32
        && start.div == 1
        && start.modulo.is_multiple_of(4)
        && stages::in_fours(launch);
    let (len, modulo) = if fours { (len / 4, start.modulo / 4) } else { (len, start.modulo) };
    let params = Params {
        len: len as u32,
        div: start.div as u32,
        modulo: modulo as u32,
        value: (value as f32).to_bits(),
    };
    // 4 vectors of 16 bytes are as many as pay.
    let per = per_invocation(len, target).min(if fours { 4 } else { 16 });
    let grid = target.grid(len.div_ceil(WORKGROUP * per));
    let plain = start.div == 1 && modulo >= len;
    let mut call = Call::new(&SHADER, entry, &params, launch, grid).in_fours(fours, launch);
    if fours {
        call = call.include("common/x_scalar.wgsl", "common/x_vec4.wgsl");
    }
    Ok(call.constant("PLAIN", plain.into()).constant("PER", per as u32).into())
}
