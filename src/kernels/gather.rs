//! Host side of shaders/gather.wgsl: rows of a table by index.

use super::map::{WORKGROUP, per_invocation};
use super::{Call, Calls, Shader, Target, params};
use crate::error::{Error, Result};
use crate::launch::{Kernel, Launch};
use crate::shape::DType;

/// shaders/gather.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "gather.wgsl", text: include_str!("../../shaders/gather.wgsl"), fields: Params::FIELDS };

params! {
    /// Elements of a row.
    row: u32,
    /// Rows of the table.
    table: u32,
    /// Elements of the result.
    len: u32,
}

/// The call of a [`Kernel::GatherRows`].
///
/// # Errors
/// [`Error::Unsupported`] for a table of another type, an empty one, or one of 2^32 elements and more.
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let Kernel::GatherRows { row, table, from, .. } = &launch.kernel else {
        unreachable!("{} gathers no rows", launch.kernel.name())
    };
    let entry = match from {
        DType::U8 => "bytes",
        DType::F32 | DType::U32 => "forward",
        DType::F16 => return Err(Error::Unsupported("rows are not gathered from a table of f16".into())),
    };
    if *table == 0 || table.saturating_mul(*row) >= 1 << 32 {
        return Err(Error::Unsupported(format!("rows are not gathered from a table of {table} by {row}")));
    }
    let len = launch.shape.len();
    let params = Params { row: *row as u32, table: *table as u32, len: len as u32 };
    let per = per_invocation(len, target);
    let grid = target.grid(len.div_ceil(WORKGROUP * per));
    Ok(Call::new(&SHADER, entry, &params, launch, grid).constant("PER", per as u32).into())
}
