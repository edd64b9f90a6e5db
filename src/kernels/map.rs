//! Host side of shaders/map.wgsl: elementwise chains, in place or not, and fills.

use super::{Call, Calls, Shader, Target, params};
use crate::error::Result;
use crate::launch::{Kernel, Launch};

/// shaders/map.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "map.wgsl", text: include_str!("../../shaders/map.wgsl"), fields: Params::FIELDS };

/// Invocations of a workgroup of the elementwise kernels here and elsewhere.
pub(super) const WORKGROUP: usize = 64;

params! {
    /// Elements of the result.
    len: u32,
    /// Elements of the result that share one of x in a row.
    div: u32,
    /// Elements of x.
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
    let per = per_invocation(len, target);
    let grid = target.grid(len.div_ceil(WORKGROUP * per));
    let mut params = Params { len: len as u32, div: 1, modulo: len as u32, value: 0 };
    let call = match &launch.kernel {
        Kernel::Update => Call::new(&SHADER, "update", &params, launch, grid),
        Kernel::Fill { value } => {
            params.value = (*value as f32).to_bits();
            Call::new(&SHADER, "fill", &params, launch, grid)
        }
        Kernel::Map { start } => {
            params.div = start.div as u32;
            params.modulo = start.modulo as u32;
            let plain = start.div == 1 && start.modulo >= len;
            Call::new(&SHADER, "forward", &params, launch, grid).constant("PLAIN", plain.into())
        }
        other => unreachable!("{} is not a map", other.name()),
    };
    Ok(call.constant("PER", per as u32).into())
}
