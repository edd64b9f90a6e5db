//! The Square attack under L2 (Andriushchenko et al. 2020, algorithm 3): a window takes what is left of the ball's norm
//! and the norm that lies in it and in a second window, which is emptied. What is put into it are two bumps of unlike
//! signs, one beside the other, on top of what is there.
//!
//! A bump falls off by the distance d from its middle (the larger one of rows and columns) as the sum of 1/m^2 for m from
//! d + 1 to its last. Values of a table cannot be looked up by a number that a device has calculated, so that the sum is
//! by its expansion at d + 5/2 (Euler and Maclaurin), to 3e-5.

use super::Site;
use super::square::{places, sign, window};
use crate::shape::Shape;
use crate::tape::{Purpose, Var};

/// What the windows of a query are, `[queries, COLUMNS]`.
pub(super) const COLUMNS: usize = 12;
/// Tiles along rows and columns at the start.
const TILES: usize = 5;

/// Streams of random numbers: rows and columns of the two windows, whether the bumps lie side by side, and the sign a
/// channel. (The start has stream 0.)
const STREAMS: [u32; 6] = [1, 2, 3, 4, 5, 6];
/// Whether the bumps of the start's tiles lie side by side.
const START_TURNS: u32 = 7;

/// Sum of 1/m^2 for m from `first` to `last`.
fn squares(first: usize, last: usize) -> f64 {
    (first..=last).map(|m| 1.0 / (m * m) as f64).sum()
}

/// Two bumps in `rows` by `columns` pixels, the first on the upper half of the rows.
struct Bumps {
    rows: usize,
    columns: usize,
    /// Rows of the upper half; 0 where there is one row.
    upper: usize,
    /// Rings of a bump.
    rings: usize,
    /// What multiplies the sum in the upper and in the lower half, so that all is of norm 1.
    scales: [f64; 2],
}

impl Bumps {
    fn new(rows: usize, columns: usize) -> Bumps {
        let upper = rows / 2;
        let mut bumps = Bumps { rows, columns, upper, rings: 0, scales: [0.0; 2] };
        bumps.rings = (upper / 2).max((rows - upper) / 2).max(columns / 2) + 1;
        let norm = |from: usize, to: usize| {
            let each = (from..to).flat_map(|row| (0..columns).map(move |column| (row, column)));
            each.map(|(row, column)| bumps.sum(row, column).powi(2)).sum::<f64>().sqrt()
        };
        let both = if upper > 0 { 2f64.sqrt() } else { 1.0 };
        let scales =
            [if upper > 0 { 1.0 / (norm(0, upper) * both) } else { 0.0 }, -1.0 / (norm(upper, rows) * both)];
        Bumps { scales, ..bumps }
    }

    /// Middle row of the bump that `row` is in.
    fn middle(&self, row: usize) -> usize {
        match row < self.upper {
            true => self.upper / 2,
            false => self.upper + (self.rows - self.upper) / 2,
        }
    }

    fn sum(&self, row: usize, column: usize) -> f64 {
        let distance = row.abs_diff(self.middle(row)).max(column.abs_diff(self.columns / 2));
        squares(distance + 1, self.rings)
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.scales[usize::from(row >= self.upper)] * self.sum(row, column)
    }
}

/// Rows and columns of a query's windows: odd, and at least 3 where the image is.
fn odd_window(query: usize, h: usize, w: usize) -> [usize; 2] {
    let [rows, columns] = window(query, h, w);
    let odd = |extent: usize, most: usize| (extent.max(3) | 1).min(most);
    [odd(rows, h), odd(columns, w)]
}

/// The row of the table `window` for a query: places, extents, upper rows, middles, rings' tail, scales, whether the
/// bumps may lie either way.
pub(super) fn row_of(query: usize, h: usize, w: usize) -> [f64; COLUMNS] {
    let [rows, columns] = odd_window(query, h, w);
    let [down, across] = places([h, w], [rows, columns]);
    let bumps = Bumps::new(rows, columns);
    // The whole sum is pi^2 / 6.
    let tail = std::f64::consts::PI.powi(2) / 6.0 - squares(1, bumps.rings);
    [
        down,
        rows as f64,
        across,
        columns as f64,
        bumps.upper as f64,
        bumps.middle(0) as f64,
        bumps.middle(rows - 1) as f64,
        (columns / 2) as f64,
        tail,
        bumps.scales[0],
        bumps.scales[1],
        f64::from(rows == columns),
    ]
}

/// Extents of the start's tiles and where the first is: as many as fit.
fn tiles(h: usize, w: usize) -> [[usize; 3]; 2] {
    [h, w].map(|extent| {
        let tile = (extent / TILES).max(1);
        let before = extent.saturating_sub(TILES * tile) / 2;
        [tile, before, ((extent - before) / tile).min(extent / tile)]
    })
}

/// The start's tiles as images of one channel: bumps one above the other, and side by side.
pub(super) fn tiled(h: usize, w: usize) -> [Vec<f64>; 2] {
    let [[rows, top, down], [columns, left, across]] = tiles(h, w);
    let (upright, turned) = (Bumps::new(rows, columns), Bumps::new(columns, rows));
    let mut images = [vec![0.0; h * w], vec![0.0; h * w]];
    for row in 0..down * rows {
        for column in 0..across * columns {
            let at = (top + row) * w + left + column;
            images[0][at] = upright.at(row % rows, column % columns);
            images[1][at] = turned.at(column % columns, row % rows);
        }
    }
    images
}

/// Where the search starts, for images seen as `[B,h,w,c]`: bumps in every tile, of the ball's norm.
pub(super) fn start<'t>(site: &Site<'_, 't>, [h, w, c]: [usize; 3]) -> Var<'t> {
    let b = site.batch;
    let [[rows, top, down], [columns, left, across]] = tiles(h, w);
    // A number a tile becomes one a pixel.
    let spread = |of: Var<'t>, channels: usize| {
        let apart = of.reshape([b, down, 1, across, 1, channels]);
        let all = apart.broadcast_to([b, down, rows, across, columns, channels]);
        all.reshape([b, down * rows, across * columns, channels]).pad(&[0, top, left, 0], [b, h, w, channels])
    };
    let signs = sign(site, Purpose::EVALUATION_START, Shape::new(&[b, down, across, c]));
    let turns = sign(site, Purpose::EVALUATION_START.stream(START_TURNS), Shape::new(&[b, down, across, 1]));
    let [upright, turned] = ["upright", "turned"].map(|name| site.constant(name, [1, h, w, 1]));
    let bumps = spread(turns, 1)
        .greater(site.tape.fill([b, h, w, 1], 0.0))
        .select(turned.broadcast_to([b, h, w, 1]), upright.broadcast_to([b, h, w, 1]));
    let change = spread(signs, c) * bumps;
    of_radius(site, change.reshape(site.x().shape()))
}

/// x and this change, as long as the radius.
fn of_radius<'t>(site: &Site<'_, 't>, change: Var<'t>) -> Var<'t> {
    let change = site.ball.along(change);
    let length = change.norm_l2().affine(1.0, 1e-12);
    site.ball.project(change * (site.ball.radius / length) + site.x())
}

/// The candidate of a query from the best image, for images seen as `[B,h,w,c]`.
pub(super) fn candidate<'t>(
    site: &Site<'_, 't>,
    best: Var<'t>,
    queries: usize,
    [h, w, c]: [usize; 3],
) -> Var<'t> {
    let (b, tape) = (site.batch, site.tape);
    let table = site.row_of_constant("window", queries, COLUMNS);
    let number = |at: usize| table.slice(1, at, 1).reshape(site.one());
    let [
        rows_free,
        rows,
        columns_free,
        columns,
        upper,
        middle_1,
        middle_2,
        side,
        tail,
        scale_1,
        scale_2,
        square,
    ] = std::array::from_fn(number);
    let purpose = |stream: usize| Purpose::EVALUATION_START.stream(STREAMS[stream]);
    let uniform = |stream: usize| site.draw().uniform(purpose(stream), site.per_example());
    let (row, column) = (site.constant("row", [1, h, 1, 1]), site.constant("column", [1, 1, w, 1]));
    // Pixels from the first row or column of a window: that is floor(v), as many as v has passed.
    let from_first = |place: Var<'t>, stream: usize, free: Var<'t>| {
        let axes = [1, 2, 3];
        let passed = (uniform(stream) * free).greater_equal(place.affine(1.0, 1.0)).sum(&axes);
        place - passed
    };
    let zero = tape.fill(site.one(), 0.0);
    let within = |from: Var<'t>, extent: Var<'t>| from.greater_equal(zero) * extent.greater(from);
    let (down, across) = (from_first(row, 0, rows_free), from_first(column, 1, columns_free));
    let (in_rows, in_columns) = (within(down, rows), within(across, columns));
    let other_rows = within(from_first(row, 2, rows_free), rows);
    let other_columns = within(from_first(column, 3, columns_free), columns);

    // One above the other the halves are of rows, turned they are of columns.
    let turned = uniform(4).greater_equal(tape.fill(site.per_example(), 0.5)) * square;
    let in_upper = |from: Var<'t>| upper.greater(from);
    let along_halves = |from: Var<'t>| {
        let half = in_upper(from);
        (from - half * middle_1 - half.affine(-1.0, 1.0) * middle_2).abs()
    };
    let scale = |from: Var<'t>| {
        let half = in_upper(from);
        half * scale_1 + half.affine(-1.0, 1.0) * scale_2
    };
    let either = |turned_one: Var<'t>, upright: Var<'t>| {
        turned.broadcast_to(upright.shape()).select(turned_one, upright)
    };
    let beside = |from: Var<'t>| (from - side).abs();
    let one = |like: Var<'t>| tape.fill(like.shape(), 1.0);
    let pixels = Shape::new(&[b, h, w, 1]);
    let distance = either(beside(down), along_halves(down))
        .broadcast_to(pixels)
        .max(either(along_halves(across), beside(across)).broadcast_to(pixels));
    let by_row = either(one(down), scale(down)) * in_rows;
    let by_column = either(scale(across), one(across)) * in_columns;
    let bumps = (falling(distance) - tail) * by_row.broadcast_to(pixels) * by_column.broadcast_to(pixels);

    let shape = Shape::new(&[b, h, w, c]);
    let change = (best - site.x()).reshape(shape);
    let inside = in_rows.broadcast_to(pixels) * in_columns.broadcast_to(pixels);
    let other = other_rows.broadcast_to(pixels) * other_columns.broadcast_to(pixels);
    let either_window = inside.max(other);
    let per_channel = |of: Var<'t>| of.square().sum(&[1, 2]).sqrt();
    let here = (change * inside) / per_channel(change * inside).affine(1.0, 1e-12);
    let fresh = bumps * sign(site, purpose(5), Shape::new(&[b, 1, 1, c])) + here;
    let both = (change * either_window).square().sum(&[1, 2]);
    let unused = (site.ball.radius * site.ball.radius - change.square().sum_per_example()).relu();
    let budget = (unused.scale(1.0 / c as f64) + both).sqrt();
    let fresh = fresh * (budget / per_channel(fresh).affine(1.0, 1e-12));
    let moved = change * either_window.affine(-1.0, 1.0) + fresh;
    of_radius(site, moved.reshape(site.x().shape()))
}

/// Sum of 1/m^2 over all m above d.
fn falling(d: Var<'_>) -> Var<'_> {
    let one = d.tape().fill(d.shape(), 1.0);
    let y = d.affine(1.0, 2.5);
    let rest = (one / y.square()).affine(-1.0 / 12.0, 1.0) / y;
    one / d.affine(1.0, 1.0).square() + one / d.affine(1.0, 2.0).square() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bumps_are_of_norm_one_and_of_two_signs() {
        for (rows, columns) in [(3, 3), (5, 5), (25, 25), (6, 6), (1, 7), (28, 11)] {
            let bumps = Bumps::new(rows, columns);
            let all: Vec<f64> = (0..rows * columns).map(|at| bumps.at(at / columns, at % columns)).collect();
            let norm = all.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((norm - 1.0).abs() < 1e-12, "{rows} by {columns}: {norm}");
            assert_eq!(all.iter().any(|&x| x > 0.0), rows > 1, "{rows} by {columns}");
            assert!(all.iter().any(|&x| x < 0.0), "{rows} by {columns}");
        }
    }
}
