//! Host side of shaders/rows.wgsl: softmax, cross-entropy, argmax, correctness, one-hot.

use super::map::per_invocation;
use super::{Call, Calls, Shader, Target, params};
use crate::error::Result;
use crate::launch::{Kernel, Launch, PerRow};

/// shaders/rows.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "rows.wgsl", text: include_str!("../../shaders/rows.wgsl"), fields: Params::FIELDS };

/// Invocations of a workgroup.
const WORKGROUP: usize = 64;

params! {
    /// Rows.
    rows: u32,
    /// Columns.
    columns: u32,
}

/// Lanes that share a row: a lane for every four columns on hardware, a row a lane on software, where a barrier
/// costs more than it spreads.
fn width(columns: usize, target: &Target) -> usize {
    if target.software { 1 } else { columns.div_ceil(4).next_power_of_two().min(WORKGROUP) }
}

/// Where a result beside the gradient is bound.
pub(super) fn binding(what: PerRow) -> u32 {
    match what {
        PerRow::Loss => 5,
        PerRow::Correct => 6,
    }
}

/// The entry point of a gradient that gives this too.
fn gradient(launch: &Launch) -> &'static str {
    let [loss, correct] = PerRow::ALL.map(|what| launch.also.iter().any(|(also, _)| *also == what));
    match (loss, correct) {
        (false, false) => "input_grad",
        (true, false) => "input_grad_loss",
        (false, true) => "input_grad_correct",
        (true, true) => "input_grad_loss_correct",
    }
}

/// The call of a kernel over rows.
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let (entry, rows, columns) = match &launch.kernel {
        Kernel::Softmax { rows, columns, .. } => ("softmax", *rows, *columns),
        Kernel::CrossEntropy { rows, columns } => ("forward", *rows, *columns),
        Kernel::CrossEntropyGrad { rows, columns } | Kernel::CrossEntropyDirection { rows, columns } => {
            (gradient(launch), *rows, *columns)
        }
        Kernel::Correct { rows, columns } => ("correct", *rows, *columns),
        Kernel::ArgMax { rows, columns } => ("argmax", *rows, *columns),
        Kernel::OneHot { rows, columns } => ("one_hot", *rows, *columns),
        other => unreachable!("{} is not a kernel over rows", other.name()),
    };
    let params = Params { rows: rows as u32, columns: columns as u32 };
    if entry == "one_hot" {
        let len = rows * columns;
        let per = per_invocation(len, target);
        let grid = target.grid(len.div_ceil(WORKGROUP * per));
        return Ok(Call::new(&SHADER, entry, &params, launch, grid).constant("PER", per as u32).into());
    }
    let width = width(columns, target);
    let grid = target.grid(rows.div_ceil(WORKGROUP / width));
    let log = matches!(launch.kernel, Kernel::Softmax { log: true, .. });
    let unit = matches!(launch.kernel, Kernel::CrossEntropyDirection { .. });
    let call = Call::new(&SHADER, entry, &params, launch, grid).constant("UNIT", unit.into());
    Ok(call.constant("WIDTH", width as u32).constant("LOG", log.into()).into())
}
