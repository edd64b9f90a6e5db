//! Images of a batch mixed with one another, and what they are in the same shares: mixup and CutMix in one.
//!
//! Who is mixed with whom, and by how much, is drawn on the host and lies on the device as tables of the epoch; a step
//! takes its row. So a mixture is a function of seed, epoch and example, and its distribution needs no shader. Boxes and
//! shares of CutMix come out the same to the bit on every device; mixup's sum of two products to 2^-23, for a GPU may
//! round it once or twice.

use super::Names;
use crate::shape::{DType, Shape};
use crate::tape::{Tape, Var};

/// Numbers that say what an image is mixed by: its own share where it is not in the box; first row of the box and the one
/// after the last, the same of columns; how much it is of its own class.
pub const MIX: usize = 6;

/// Records the mixed images `[B,H,W,C]`, the class that each is most of `[B]`, and its distribution over the classes
/// `[B, classes]`.
///
/// Tensors that are read: `partner` (u32 `[B]`: the example that each is mixed with), `major` (u32 `[B]`: of the two that
/// with the larger share), `mix` (f32 `[B, MIX]`), each [`Names::of`] the batch; and the numbers 0, 1, 2, ... of the
/// data set as `rows` f32 `[1,H,1,1]` and `columns` f32 `[1,1,W,1]`.
pub(super) fn record<'t>(
    tape: &'t Tape,
    names: &Names,
    images: Shape,
    classes: usize,
    labels: Var<'t>,
    load: impl Fn(Var<'t>) -> Var<'t>,
) -> (Var<'t>, Var<'t>, Var<'t>) {
    let [batch, h, w] = [images[0], images[1], images[2]];
    let example = |what: &str| names.source(tape, what, [batch], DType::U32);
    let (own, partner, major) = (example("example"), example("partner"), example("major"));
    let mix = names.source(tape, "mix", [batch, MIX], DType::F32);
    let number = |at: usize| mix.slice(1, at, 1).reshape([batch, 1, 1, 1]);

    let keep = number(0);
    let blended = (load(own) * keep + load(partner) * keep.affine(-1.0, 1.0)).clamp(0.0, 1.0);
    // 1 from `first` up to before `end`, else 0: exact, for all are whole numbers.
    let within = |place: Var<'t>, first: usize| {
        let (first, end) = (number(first), number(first + 1));
        (place - first).affine(1.0, 1.0).clamp(0.0, 1.0) * (end - place).clamp(0.0, 1.0)
    };
    let rows = tape.source(&names.of_data("rows"), [1, h, 1, 1], DType::F32);
    let columns = tape.source(&names.of_data("columns"), [1, 1, w, 1], DType::F32);
    let cut = (within(rows, 1) * within(columns, 3)).broadcast_to(images);
    let x = cut.select(load(partner), blended);

    let share = number(5).reshape([batch, 1]);
    let one_hot = |example: Var<'t>| labels.gather_rows(example).one_hot(classes);
    let targets = one_hot(own) * share + one_hot(partner) * share.affine(-1.0, 1.0);
    (x, labels.gather_rows(major), targets)
}
