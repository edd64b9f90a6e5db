//! Host side of shaders/random.wgsl: counter-based random numbers.

use super::map::WORKGROUP;
use super::{Call, Calls, Shader, Target, params};
use crate::error::Result;
use crate::launch::{Kernel, Launch};
use crate::tape::Distribution;

/// shaders/random.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "random.wgsl", text: include_str!("../../shaders/random.wgsl"), fields: Params::FIELDS };

params! {
    /// The stream.
    purpose: u32,
    /// Examples.
    rows: u32,
    /// Elements an example.
    row: u32,
    /// Groups of four elements an example.
    groups: u32,
}

/// The call of a [`Kernel::Random`].
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let Kernel::Random { distribution, purpose, rows, row } = &launch.kernel else {
        unreachable!("{} draws nothing", launch.kernel.name())
    };
    let groups = row.div_ceil(4);
    let params = Params { purpose: purpose.0, rows: *rows as u32, row: *row as u32, groups: groups as u32 };
    let entry = match distribution {
        Distribution::Uniform => "uniform_numbers",
        Distribution::Normal => "normal_numbers",
    };
    let grid = target.grid((rows * groups).div_ceil(WORKGROUP));
    Ok(Call::new(&SHADER, entry, &params, launch, grid).into())
}
