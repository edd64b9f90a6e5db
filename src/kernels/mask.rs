//! Host side of shaders/mask.wgsl: which elements are positive, as bits.

use super::{Call, Calls, Shader, Target, params};
use crate::launch::{Kernel, Launch};

/// shaders/mask.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "mask.wgsl", text: include_str!("../../shaders/mask.wgsl"), fields: Params::FIELDS };

/// Invocations of a workgroup.
const WORKGROUP: usize = 64;

params! {
    /// Elements of x.
    len: u32,
}

/// The call of a [`Kernel::Mask`].
pub(super) fn calls(launch: &Launch, target: &Target) -> Calls {
    let Kernel::Mask { len } = launch.kernel else { unreachable!("{} makes no mask", launch.kernel.name()) };
    let entry = if len.is_multiple_of(4) { "fours" } else { "singles" };
    let grid = target.grid(launch.shape.len().div_ceil(WORKGROUP));
    Call::new(&SHADER, entry, &Params { len: len as u32 }, launch, grid).into()
}
