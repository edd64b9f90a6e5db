//! Convolution by 3x3 filters at stride 2 and padding 1, and its input gradient, with fewer products.
//!
//! Along an axis a window reads two numbers at odd places of the source, by the outer taps, and one at an even place,
//! by the middle tap. The odd places make a convolution of their own by 2 taps at stride 1, which Winograd's scheme
//! ([`points`]) does with N products for M = N - 1 results; the middle tap takes M more: N + M "places" a tile for
//! 3 M. In both axes (N + M)^2 products stand for 9 M^2: 81 for 144 with M = 4, 121 for 225 with M = 5. The input
//! gradient is the same the other way round: odd rows of the result are read by two taps of `dy`, even ones by one.
//!
//! A pair of places, one an axis, is a matrix product over the channels. A task takes the odd rows one by one: their
//! inputs, transformed down the columns once, are transformed across, multiplied, and transformed back across, all in
//! the first-level cache; at last what came of all of them is transformed down the columns. (All pairs' inputs and
//! products at once were 5 to 15 % slower: they fill the second-level cache.) Where both places are even the source is
//! read, and the result written, where they stand.

// A column of a small matrix is an index into each of its rows.
#![allow(clippy::needless_range_loop)]

use super::geometry::TASKS;
use super::points;
use super::tiling::{APART, Tiling};
use super::winograd::Taps;
use crate::cpu::blocks::{Scratch, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::{Row, Walk, multiply_rows, panel_width, run_task};
use crate::cpu::vectors::{LANES, Zeros, fetch_part, fetch_part_to_write, load, store};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};

/// Most tiles of a task of several examples or rows: what it holds stays in a second-level cache beside the transformed
/// filter. Twice as many were 5 to 10 % slower.
const TILES: usize = 12;

/// Fewest tiles that are worth transforming the filter for: it is 36 or 49 matrices of the channels, written and read.
const LEAST: usize = 96;

/// Most odd places of a tile along an axis, and the even one.
const MOST: usize = 7;

/// A convolution at stride 2, or its input gradient, ready to run.
pub(super) struct Strided {
    /// M: results along an axis that each of the axis's phases has in a tile.
    tile: usize,
    tiling: Tiling,
    /// What the products of a task read and write, for each band of an example.
    layouts: Vec<Layout>,
}

/// Rows of the matrix products of a task, in the order of its examples.
struct Layout {
    /// Both places odd; odd and even; even and odd: from the first plane of the kind on. Both even: in the source from
    /// the task's first example on, and in its block of results.
    rows: [Vec<Row>; 4],
    /// Of each kind how many belong to one example.
    each: [usize; 4],
}

impl Strided {
    /// The convolution, where this way is the fastest.
    pub(super) fn forward<T: Float>(s: &ConvShape) -> Option<Strided> {
        Strided::suits::<T>(s).then(|| Strided::new(s, false)).flatten()
    }

    /// The input gradient, where this way is the fastest.
    pub(super) fn input_grad<T: Float>(s: &ConvShape) -> Option<Strided> {
        Strided::suits::<T>(s).then(|| Strided::new(s, true)).flatten()
    }

    /// Whether it can be done this way. The reference in f64 never is.
    fn suits<T: Float>(s: &ConvShape) -> bool {
        std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>()
            && [s.r, s.s] == [3, 3]
            && [s.stride, s.dilation, s.padding] == [[2, 2], [1, 1], [1, 1]]
            && s.groups == 1
            && s.c.is_multiple_of(LANES)
            && s.k.is_multiple_of(LANES)
    }

    fn new(s: &ConvShape, transposed: bool) -> Option<Strided> {
        let extents = [s.p, s.q];
        let tiles_of = |tile: usize| extents.map(|extent| extent.div_ceil(tile));
        // Of a tile past the edge the even places are left out.
        let products = |tile: usize| -> usize {
            let places = |axis: usize| tiles_of(tile)[axis] * (tile + 1) + extents[axis];
            places(0) * places(1)
        };
        let tile = if products(4) <= products(5) { 4 } else { 5 };
        let tiles = tiles_of(tile);
        let each = tiles[0] * tiles[1];
        // The transforms are worth a quarter of the products.
        if 4 * products(tile) > 27 * s.p * s.q || s.n * each < LEAST {
            return None;
        }
        let (source, result) = if transposed { ([s.p, s.q], [s.h, s.w]) } else { ([s.h, s.w], [s.p, s.q]) };
        let (cin, cout) = if transposed { (s.k, s.c) } else { (s.c, s.k) };
        let side = if transposed { 2 * tile } else { tile };
        let mut tiling = Tiling { side, source, result, cin, cout, transposed, tiles, examples: 1, band: 1 };
        tiling.cut(TILES, s.n.div_ceil(TASKS));
        let mut plan = Strided { tile, tiling, layouts: Vec::new() };
        plan.layouts = (0..tiles[0]).step_by(plan.tiling.band).map(|top| plan.layout(top)).collect();
        Some(plan)
    }

    /// Rows of the products of a task whose first row of tiles is `top`.
    fn layout(&self, top: usize) -> Layout {
        let (m, width) = (self.tile, panel_width::<f32>());
        let (plane, result_plane) = (self.plane(), self.result_plane());
        // Distance in the source, and in the result, of numbers at even places.
        let (step, apart) = if self.tiling.transposed { (1, 2) } else { (2, 1) };
        let inside = |axis: usize, place: usize| apart * place < self.tiling.result[axis];
        let (image, result) = (self.tiling.source_image(), self.tiling.result_image());
        let mut rows: [Vec<Row>; 4] = std::array::from_fn(|_| Vec::new());
        let row = |from: usize, to: usize| Row { from: from as u32, to: to as u32 };
        let mut tile = 0;
        for example in 0..self.tiling.examples {
            for y in top..(top + self.tiling.band).min(self.tiling.tiles[0]) {
                for x in 0..self.tiling.tiles[1] {
                    let at = (tile * self.tiling.cin, tile * width);
                    tile += 1;
                    rows[0].push(row(at.0, at.1));
                    let (down, across) =
                        ((0..m).filter(|i| inside(0, y * m + i)), (0..m).filter(|j| inside(1, x * m + j)));
                    // Columns of the row that the even places read.
                    let column = |j: usize| step * j + step - 1;
                    let odd_even = |j: usize| row(column(j) * plane + at.0, j * result_plane + at.1);
                    rows[1].extend(across.clone().map(odd_even));
                    let (down_by, result_by) = ((m + 1) * plane, (m + 1) * result_plane);
                    rows[2].extend(down.clone().map(|i| row(i * down_by + at.0, i * result_by + at.1)));
                    for i in down {
                        for j in across.clone() {
                            let (v, u) = (y * m + i, x * m + j);
                            let from = (step * v * self.tiling.source[1] + step * u) * self.tiling.cin;
                            let to = (apart * (v - top * m) * self.tiling.result[1] + apart * u)
                                * self.tiling.cout;
                            rows[3].push(row(example * image + from, example * result + to));
                        }
                    }
                }
            }
        }
        let each = std::array::from_fn(|kind| rows[kind].len() / self.tiling.examples);
        Layout { rows, each }
    }

    /// Places along an axis that hold sums of several numbers.
    fn odd(&self) -> usize {
        self.tile + 1
    }

    /// Columns of the source that a tile reads.
    fn columns(&self) -> usize {
        if self.tiling.transposed { self.odd() } else { self.odd() + self.tile }
    }

    /// Places along an axis that results of the odd rows have.
    fn across(&self) -> usize {
        if self.tiling.transposed { 2 * self.tile } else { self.tile }
    }

    /// Floats of a panel of transformed filters: for each pair of the N odd places and the even one, a line a channel.
    fn panel(&self) -> usize {
        (self.odd() + 1) * (self.odd() + 1) * self.tiling.cin * panel_width::<f32>()
    }

    /// Floats from one plane of inputs to the next.
    fn plane(&self) -> usize {
        self.tiling.plane(self.tiling.count())
    }

    /// The same of products.
    fn result_plane(&self) -> usize {
        self.tiling.result_plane(self.tiling.count())
    }

    /// Floats of a task's memory: of the odd rows' inputs transformed down the columns; of one row of places of inputs,
    /// or all even ones; of the products of these; of the odd rows' results, not yet transformed down the columns.
    fn parts(&self) -> [usize; 4] {
        let (n, m) = (self.odd(), self.tile);
        [
            n * self.columns() * self.plane(),
            m * n * self.plane(),
            (n + m).max(m * n) * self.result_plane(),
            n * self.across() * (self.tiling.count() * self.tiling.cout + APART),
        ]
    }

    /// Floats of scratch memory for the transformed filter.
    pub(super) fn scratch(&self) -> usize {
        self.tiling.panels() * self.panel()
    }

    /// Floats of scratch memory of a task, and of its block of results.
    pub(super) fn own(&self) -> (usize, usize) {
        let turned = 9 * LANES * panel_width::<f32>();
        let task = self.parts().iter().sum::<usize>().max(turned);
        (task + self.tiling.cin + 2 * LANES, self.tiling.block())
    }

    /// `out = stages(the convolution of x by w, or its input gradient where x is dy)`.
    pub(super) fn run<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        scratch: &mut [T],
    ) {
        let (x, w): (&[f32], &[f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice(w));
        let filter: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..self.scratch()];
        for_each_block(filter, self.panel(), |panel, out| run_task(Filter { plan: self, w, panel, out }));
        let filter = &*filter;
        self.tiling.in_blocks(out, |example, band, at, block| {
            epilogue.finish(at, block, |block| {
                let out = bytemuck::cast_slice_mut(block);
                run_task(Task { plan: self, x, filter, example, band, out });
            });
        });
    }
}

/// Calls `$method::<S, N, M>(..)` with N and M as the plan's tile says.
macro_rules! by_tile {
    ($plan:expr, $method:ident ( $($argument:expr),* )) => {
        if $plan.tile == 4 {
            $plan.$method::<S, 5, 4>($($argument),*)
        } else {
            $plan.$method::<S, 6, 5>($($argument),*)
        }
    };
}

/// Some examples' results, or some rows of one's.
struct Task<'a> {
    plan: &'a Strided,
    x: &'a [f32],
    filter: &'a [f32],
    example: usize,
    band: usize,
    out: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { plan, x, filter, example, band, out } = self;
        by_tile!(plan, task(simd, x, filter, example, band, out));
    }
}

impl Strided {
    #[inline(always)]
    fn task<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        x: &[f32],
        filter: &[f32],
        example: usize,
        band: usize,
        out: &mut [f32],
    ) {
        let (width, cin) = (panel_width::<f32>(), self.tiling.cin);
        let (image, result) = (self.tiling.source_image(), self.tiling.result_image());
        let examples = if self.tiling.has_whole_examples() { out.len() / result } else { 1 };
        let (x, next) = x[example * image..].split_at(examples * image);
        let next = &next[..next.len().min(x.len())];
        let layout = &self.layouts[band];
        let rows: [&[Row]; 4] =
            std::array::from_fn(|kind| &layout.rows[kind][..examples * layout.each[kind]]);
        let (plane, result_plane, columns) = (self.plane(), self.result_plane(), self.columns());
        let zeros = Zeros::take(cin);
        let parts = self.parts();
        let mut scratch = Scratch::<f32>::take(parts.iter().sum());
        let (halves, rest) = scratch.split_at_mut(parts[0]);
        let (inputs, rest) = rest.split_at_mut(parts[1]);
        let (products, sums) = rest.split_at_mut(parts[2]);
        let tiles = Tiles {
            plan: self,
            count: rows[0].len(),
            each: rows[0].len() / examples,
            top: band * self.tiling.band,
            source: Source { x, zeros: &zeros, extents: self.tiling.source, cin },
        };
        let walk = Walk { segments: &[0], run: cin, add: false };
        let pairs = (N + 1) * (N + 1);
        tiles.halves::<S, N, M>(simd, halves);
        for i in 0..N {
            let halves = &halves[i * columns * plane..][..columns * plane];
            tiles.odd_inputs::<S, N, M>(simd, halves, inputs);
            for (panel, filter) in filter.chunks_exact(self.panel()).enumerate() {
                let valid = width.min(self.tiling.cout - panel * width);
                for j in 0..=N {
                    // What a thread reads next, most likely, and what this task writes.
                    let part = i * (N + 1) + j;
                    fetch_part(next, part * self.tiling.panels() + panel, N * (N + 1) * self.tiling.panels());
                    fetch_part_to_write(
                        out,
                        part * self.tiling.panels() + panel,
                        N * (N + 1) * self.tiling.panels(),
                    );
                    let lines = &filter[(i * (N + 1) + j) * cin * width..][..cin * width];
                    let (kind, from) = if j < N { (0, &inputs[j * plane..]) } else { (1, halves) };
                    // SAFETY: a row reads cin floats of its plane and writes `valid` of a plane of products.
                    unsafe {
                        let to = products.as_mut_ptr().add(j * result_plane);
                        multiply_rows(simd, from.as_ptr(), rows[kind], walk, lines.as_ptr(), to, valid);
                    }
                }
                tiles.odd_sums::<S, N, M>(simd, products, i, panel, sums);
            }
        }
        tiles.even_inputs::<S, N, M>(simd, inputs);
        for (panel, filter) in filter.chunks_exact(self.panel()).enumerate() {
            let (valid, column) = (width.min(self.tiling.cout - panel * width), panel * width);
            for j in 0..=N {
                let lines = &filter[(pairs - N - 1 + j) * cin * width..][..cin * width];
                if j < N {
                    // SAFETY: as above.
                    unsafe {
                        let from = inputs.as_ptr().add(j * plane);
                        let to = products.as_mut_ptr().add(j * result_plane);
                        multiply_rows(simd, from, rows[2], walk, lines.as_ptr(), to, valid);
                    }
                } else if let Some(last) = rows[3].last() {
                    assert!(last.from as usize + cin <= x.len());
                    assert!(last.to as usize + column + valid <= out.len());
                    // SAFETY: the last row is the furthest in both, so the assertions hold for all.
                    unsafe {
                        let to = out.as_mut_ptr().add(column);
                        multiply_rows(simd, x.as_ptr(), rows[3], walk, lines.as_ptr(), to, valid);
                    }
                }
            }
            tiles.even_outputs::<S, N, M>(simd, products, panel, out);
        }
        tiles.odd_outputs::<S, N, M>(simd, sums, out);
    }
}

/// What tiles read: an image of `extents` and `cin` channels an example, zeros outside it.
struct Source<'a> {
    x: &'a [f32],
    zeros: &'a [f32],
    extents: [usize; 2],
    cin: usize,
}

impl Source<'_> {
    /// A pixel's channels.
    #[inline(always)]
    fn pixel(&self, example: usize, y: isize, x: isize) -> &[f32] {
        let [height, width] = self.extents;
        if (0..height as isize).contains(&y) && (0..width as isize).contains(&x) {
            let at = (example * height + y as usize) * width + x as usize;
            &self.x[at * self.cin..(at + 1) * self.cin]
        } else {
            self.zeros
        }
    }
}

/// The tiles of a task.
struct Tiles<'a> {
    plan: &'a Strided,
    count: usize,
    /// Tiles of an example.
    each: usize,
    /// The first row of tiles.
    top: usize,
    source: Source<'a>,
}

impl Tiles<'_> {
    /// Example, row and column of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let (within, across) = (tile % self.each, self.plan.tiling.tiles[1]);
        [tile / self.each, self.top + within / across, within % across]
    }

    /// The pixel that a tile reads at a row and column of its window.
    #[inline(always)]
    fn pixel<const M: usize>(&self, [example, y, x]: [usize; 3], row: usize, column: usize) -> &[f32] {
        // The convolution begins with the padding; of `dy` nothing before is read.
        let first = |tile: usize| {
            if self.plan.tiling.transposed { (M * tile) as isize } else { (2 * M * tile) as isize - 1 }
        };
        self.source.pixel(example, first(y) + row as isize, first(x) + column as isize)
    }

    /// Distance of the numbers that odd places read.
    fn step(&self) -> usize {
        if self.plan.tiling.transposed { 1 } else { 2 }
    }

    /// Transforms the odd rows of all columns: plane `i * columns + j` of `halves` for row i of the N.
    #[inline(always)]
    fn halves<S: Simd, const N: usize, const M: usize>(&self, simd: S, halves: &mut [f32]) {
        let (plane, columns, cin) = (self.plan.plane(), self.plan.columns(), self.plan.tiling.cin);
        assert!(halves.len() == N * columns * plane && self.count * cin <= plane);
        for tile in 0..self.count {
            let place = self.place(tile);
            for j in 0..columns {
                let from: [&[f32]; N] = std::array::from_fn(|i| self.pixel::<M>(place, i * self.step(), j));
                for channel in (0..cin).step_by(S::F32_LANES) {
                    // SAFETY: a pixel has cin channels, a multiple of the lanes.
                    let d = std::array::from_fn(|i| unsafe { load::<S>(from[i].as_ptr().add(channel)) });
                    for (i, value) in points::pair_input::<S, N>(simd, d).into_iter().enumerate() {
                        let to = (i * columns + j) * plane + tile * cin + channel;
                        // SAFETY: by the assertion.
                        unsafe { store::<S>(halves.as_mut_ptr().add(to), value) };
                    }
                }
            }
        }
    }

    /// Transforms one odd row across: plane j of `inputs` for column j of the N.
    #[inline(always)]
    fn odd_inputs<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        halves: &[f32],
        inputs: &mut [f32],
    ) {
        let (plane, columns, cin, step) =
            (self.plan.plane(), self.plan.columns(), self.plan.tiling.cin, self.step());
        assert!(halves.len() == columns * plane && (N - 1) * step < columns);
        assert!(N * plane <= inputs.len() && self.count * cin <= plane);
        for at in (0..self.count * cin).step_by(S::F32_LANES) {
            // SAFETY: by the assertions; the tiles' channels are a multiple of the lanes.
            unsafe {
                let d = std::array::from_fn(|j| load::<S>(halves.as_ptr().add(j * step * plane + at)));
                for (j, value) in points::pair_input::<S, N>(simd, d).into_iter().enumerate() {
                    store::<S>(inputs.as_mut_ptr().add(j * plane + at), value);
                }
            }
        }
    }

    /// Transforms the even rows across: plane `i * N + j` of `inputs` for row i of the M.
    #[inline(always)]
    fn even_inputs<S: Simd, const N: usize, const M: usize>(&self, simd: S, inputs: &mut [f32]) {
        let (plane, cin, step) = (self.plan.plane(), self.plan.tiling.cin, self.step());
        assert!(M * N * plane <= inputs.len() && self.count * cin <= plane);
        for tile in 0..self.count {
            let place = self.place(tile);
            for i in 0..M {
                let row = i * step + step - 1;
                let from: [&[f32]; N] = std::array::from_fn(|j| self.pixel::<M>(place, row, j * step));
                for channel in (0..cin).step_by(S::F32_LANES) {
                    // SAFETY: a pixel has cin channels, a multiple of the lanes.
                    let d = std::array::from_fn(|j| unsafe { load::<S>(from[j].as_ptr().add(channel)) });
                    for (j, value) in points::pair_input::<S, N>(simd, d).into_iter().enumerate() {
                        let to = (i * N + j) * plane + tile * cin + channel;
                        // SAFETY: by the assertion.
                        unsafe { store::<S>(inputs.as_mut_ptr().add(to), value) };
                    }
                }
            }
        }
    }

    /// Transforms the products of odd row i across, in one panel's channels: plane `i * across + j` of `sums`, each
    /// `[tiles, cout]`, for column j of the results. Of the convolution the even places add to the odd ones; of its
    /// gradient both have columns of their own.
    #[inline(always)]
    fn odd_sums<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        products: &[f32],
        i: usize,
        panel: usize,
        sums: &mut [f32],
    ) {
        let plan = self.plan;
        let (width, plane, cout, across) =
            (panel_width::<f32>(), plan.result_plane(), plan.tiling.cout, plan.across());
        let valid = width.min(cout - panel * width);
        let sum_plane = plan.tiling.count() * cout + APART;
        assert!((N + M) * plane <= products.len() && self.count * width <= plane);
        assert!(N * across * sum_plane <= sums.len() && i < N);
        for tile in 0..self.count {
            for channel in (0..valid).step_by(S::F32_LANES) {
                let to = i * across * sum_plane + tile * cout + panel * width + channel;
                // SAFETY: by the assertions.
                unsafe {
                    let from = products.as_ptr().add(tile * width + channel);
                    let at = |j: usize| load::<S>(from.add(j * plane));
                    let to = sums.as_mut_ptr().add(to);
                    let odd = points::pair_output::<S, N, M>(simd, std::array::from_fn(at));
                    for (j, odd) in odd.into_iter().enumerate() {
                        let even = at(N + j);
                        if plan.tiling.transposed {
                            store::<S>(to.add(2 * j * sum_plane), even);
                            store::<S>(to.add((2 * j + 1) * sum_plane), odd);
                        } else {
                            store::<S>(to.add(j * sum_plane), simd.add_f32s(odd, even));
                        }
                    }
                }
            }
        }
    }

    /// Where a tile's results begin in the task's block, and rows and columns of them, at most `most`.
    #[inline(always)]
    fn results(&self, tile: usize, most: usize, out: &[f32]) -> (usize, [usize; 2]) {
        let plan = self.plan;
        let [example, y, x] = self.place(tile);
        let (top, left) = (y * plan.tiling.side, x * plan.tiling.side);
        let extents = [most.min(plan.tiling.result[0] - top), most.min(plan.tiling.result[1] - left)];
        let row = example * plan.tiling.result[0] + top - self.top * plan.tiling.side;
        let start = (row * plan.tiling.result[1] + left) * plan.tiling.cout;
        assert!(
            start + ((extents[0] - 1) * plan.tiling.result[1] + extents[1]) * plan.tiling.cout <= out.len()
        );
        (start, extents)
    }

    /// Transforms the products of even rows across, in one panel's channels, into `out`, where those of both even
    /// places are.
    #[inline(always)]
    fn even_outputs<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        products: &[f32],
        panel: usize,
        out: &mut [f32],
    ) {
        let plan = self.plan;
        let (width, plane, cout) = (panel_width::<f32>(), plan.result_plane(), plan.tiling.cout);
        let (valid, row) = (width.min(cout - panel * width), plan.tiling.result[1] * cout);
        assert!(M * N * plane <= products.len() && self.count * width <= plane);
        for tile in 0..self.count {
            let (start, [rows, columns]) = self.results(tile, plan.tiling.side, out);
            let (rows, columns) =
                if plan.tiling.transposed { (rows.div_ceil(2), columns / 2) } else { (rows, columns) };
            for i in 0..rows {
                for channel in (0..valid).step_by(S::F32_LANES) {
                    // SAFETY: by the assertions, here and in `results`.
                    unsafe {
                        let from = products.as_ptr().add(i * N * plane + tile * width + channel);
                        let m = std::array::from_fn(|j| load::<S>(from.add(j * plane)));
                        let to = out.as_mut_ptr().add(start + panel * width + channel);
                        let values = points::pair_output::<S, N, M>(simd, m);
                        for (j, value) in values.into_iter().enumerate().take(columns) {
                            if plan.tiling.transposed {
                                store::<S>(to.add(2 * i * row + (2 * j + 1) * cout), value);
                            } else {
                                let to = to.add(i * row + j * cout);
                                store::<S>(to, simd.add_f32s(value, load::<S>(to)));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Transforms what is left of the odd rows down the columns into `out`.
    #[inline(always)]
    fn odd_outputs<S: Simd, const N: usize, const M: usize>(&self, simd: S, sums: &[f32], out: &mut [f32]) {
        let plan = self.plan;
        let (cout, across, row) = (plan.tiling.cout, plan.across(), plan.tiling.result[1] * plan.tiling.cout);
        let plane = plan.tiling.count() * cout + APART;
        assert!(N * across * plane <= sums.len());
        for tile in 0..self.count {
            let (start, [rows, columns]) = self.results(tile, plan.tiling.side, out);
            let rows = if plan.tiling.transposed { rows / 2 } else { rows };
            for j in 0..columns {
                for channel in (0..cout).step_by(S::F32_LANES) {
                    // SAFETY: by the assertions, here and in `results`.
                    unsafe {
                        let from = sums.as_ptr().add(j * plane + tile * cout + channel);
                        let m = std::array::from_fn(|i| load::<S>(from.add(i * across * plane)));
                        let to = out.as_mut_ptr().add(start + j * cout + channel);
                        let values = points::pair_output::<S, N, M>(simd, m);
                        for (i, value) in values.into_iter().enumerate().take(rows) {
                            if plan.tiling.transposed {
                                store::<S>(to.add((2 * i + 1) * row), value);
                            } else {
                                let to = to.add(i * row);
                                store::<S>(to, simd.add_f32s(value, load::<S>(to)));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One panel of the transformed filter.
struct Filter<'a> {
    plan: &'a Strided,
    w: &'a [f32],
    panel: usize,
    out: &'a mut [f32],
}

impl WithSimd for Filter<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plan = self.plan;
        by_tile!(plan, filter(simd, self.w, self.panel, self.out));
    }
}

impl Strided {
    #[inline(always)]
    fn filter<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        w: &[f32],
        panel: usize,
        out: &mut [f32],
    ) {
        let (width, cin, cout) = (panel_width::<f32>(), self.tiling.cin, self.tiling.cout);
        let (first, valid) = (panel * width, width.min(cout - panel * width));
        assert!(w.len() == 9 * cin * cout && out.len() == self.panel());
        let zero = simd.splat_f32s(0.0);
        let mut turned = Scratch::<f32>::take(9 * LANES * width);
        for lines in (0..cin).step_by(LANES) {
            let taps =
                Taps::new(simd, w, [cin, cout], [lines, first, valid], self.tiling.transposed, &mut turned);
            for i in 0..LANES {
                for lane in (0..valid).step_by(S::F32_LANES) {
                    // SAFETY: the line and the lane are below their extents.
                    let at = |r: usize, s: usize| unsafe { taps.load::<S>(r * 3 + s, i, lane) };
                    let mut half = [[zero; 3]; MOST];
                    for s in 0..3 {
                        let odd = points::pair_filter::<S, N>(simd, [at(0, s), at(2, s)]);
                        for r in 0..N {
                            half[r][s] = odd[r];
                        }
                        half[N][s] = at(1, s);
                    }
                    for (r, row) in half.iter().enumerate().take(N + 1) {
                        let odd = points::pair_filter::<S, N>(simd, [row[0], row[2]]);
                        let values = odd.into_iter().chain([row[1]]);
                        for (s, value) in values.enumerate() {
                            let to = ((r * (N + 1) + s) * cin + lines + i) * width + lane;
                            // SAFETY: the place, the line and the lane are below their extents.
                            unsafe { store::<S>(out.as_mut_ptr().add(to), value) };
                        }
                    }
                }
            }
        }
    }
}
