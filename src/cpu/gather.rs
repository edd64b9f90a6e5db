//! Rows by index: a batch out of a data set, labels as one-hot rows.

use super::blocks::{BLOCK, for_each_block, write_blocks};
use super::float::Float;
use super::stages::Epilogue;
use crate::tape::Augment;

/// Calls `part(row, column, run)` for the runs of whole or partial rows that make up elements `start..start + len`.
fn for_each_row(start: usize, len: usize, width: usize, mut part: impl FnMut(usize, usize, usize)) {
    let mut at = start;
    while at < start + len {
        let (row, column) = (at / width, at % width);
        let run = (width - column).min(start + len - at);
        part(row, column, run);
        at += run;
    }
}

/// Elements `start..` of the gathered rows, each element through `convert`.
fn gather_block<U: Copy, V>(
    row: usize,
    table: &[U],
    index: &[u32],
    start: usize,
    block: &mut [V],
    convert: impl Fn(U) -> V,
) {
    let last = table.len() / row - 1;
    let mut done = 0;
    for_each_row(start, block.len(), row, |r, column, run| {
        let from = (index[r] as usize).min(last) * row + column;
        let out = &mut block[done..done + run];
        out.iter_mut().zip(&table[from..from + run]).for_each(|(o, x)| *o = convert(*x));
        done += run;
    });
}

/// `out[r] = stages(table[index[r]])`; `table` holds exactly the table's rows, an index past it reads the last.
pub(super) fn gather_floats<T: Float>(
    row: usize,
    table: &[T],
    index: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    write_blocks(out, BLOCK, epilogue, |start, block| gather_block(row, table, index, start, block, |x| x));
}

/// The same from a table of bytes, each divided by 255.
pub(super) fn gather_bytes<T: Float>(
    row: usize,
    table: &[u8],
    index: &[u32],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    let values: [T; 256] = std::array::from_fn(|byte| T::from_u8(byte as u8));
    write_blocks(out, BLOCK, epilogue, |start, block| {
        gather_block(row, table, index, start, block, |byte| values[usize::from(byte)]);
    });
}

/// The same from a table of integers, as integers.
pub(super) fn gather_integers(row: usize, table: &[u32], index: &[u32], out: &mut [u32]) {
    for_each_block(out, BLOCK, |block_index, block| {
        gather_block(row, table, index, block_index * BLOCK, block, |x| x);
    });
}

/// `out[r] = stages(table[index[r]] / 255)` for images of these extents, each changed by its uniform numbers
/// `[rows, DRAWS]`; an index past the table reads the last image.
pub(super) fn augmented<T: Float>(
    augment: Augment,
    [h, w, c]: [usize; 3],
    table: &[u8],
    index: &[u32],
    uniform: &[T],
    out: &mut [T],
    epilogue: &Epilogue<T>,
) {
    let values: [T; 256] = std::array::from_fn(|byte| T::from_u8(byte as u8));
    let last = table.len() / (h * w * c) - 1;
    write_blocks(out, BLOCK, epilogue, |start, block| {
        let mut done = 0;
        let len = block.len();
        // Lines of the images.
        for_each_row(start, len, w * c, |line, column, run| {
            let (row, y) = (line / h, line % h);
            let draws: [f64; Augment::DRAWS] =
                std::array::from_fn(|i| uniform[Augment::DRAWS * row + i].to_f64());
            let choice = augment.choose([h, w], draws);
            let ([top, left], image) = (choice.corner, (index[row] as usize).min(last) * h * w * c);
            let from = augment.inside(y + top, h).map(|y| image + y * w * c);
            for (i, out) in block[done..done + run].iter_mut().enumerate() {
                let (x, channel) = ((column + i) / c, (column + i) % c);
                let source = if choice.mirrored { w - 1 - x } else { x };
                *out = match (from, augment.inside(source + left, w)) {
                    (Some(from), Some(source)) if !augment.is_cut([y, x], choice.hole) => {
                        values[usize::from(choice.byte(table[from + source * c + channel]))]
                    }
                    _ => T::ZERO,
                };
            }
            done += run;
        });
    });
}

/// `out[r, c] = stages(1 if c == labels[r] else 0)`.
pub(super) fn one_hot<T: Float>(columns: usize, labels: &[u32], out: &mut [T], epilogue: &Epilogue<T>) {
    write_blocks(out, BLOCK, epilogue, |start, block| {
        block.fill(T::ZERO);
        let mut done = 0;
        let len = block.len();
        for_each_row(start, len, columns, |row, column, run| {
            let label = labels[row] as usize;
            if (column..column + run).contains(&label) {
                block[done + label - column] = T::ONE;
            }
            done += run;
        });
    });
}
