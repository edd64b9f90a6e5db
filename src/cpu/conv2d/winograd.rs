//! Convolution by 3x3 filters, and its input gradient, with fewer products: each tile of M x M results is
//! `A^T ((G w G^T) * (B^T d B)) A` for the N x N inputs d it reads, N = M + 2, so that N^2 products stand for 9 M^2
//! (Winograd 1980; Lavin and Gray, CVPR 2016). The transforms are in [`super::points`]; they run along the channels.
//!
//! For each of the N^2 positions the products over the channels are one matrix product, `[tiles, channels read] x
//! [channels read, channels of the result]`, by the same register tile as direct convolution.

// A column of a small matrix is an index into each of its rows.
#![allow(clippy::needless_range_loop)]

use super::points;
use super::tiling::Tiling;
use crate::cpu::blocks::{Scratch, for_each, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::{Row, Walk, multiply_rows, panel_width, run_task};
use crate::cpu::vectors::{LANES, Zeros, fetch, load, store, transpose};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};

/// Channels whose filters are transformed at once where each task does so: with the inputs and the products they meet
/// they stay in a second-level cache.
const DEPTH: usize = 64;

/// Tiles of a task. More of them share a reading of the transformed filter, fewer keep more of their inputs in the
/// second-level cache: 32 were 10 % slower at 64 to 256 channels, 16 were 20 % slower.
const TILES: usize = 64;

/// Fewest tiles that are worth transforming the filter for.
const LEAST: usize = 12;

/// Tiles of a task that transforms inputs all threads share.
const FEW: usize = 4;

/// A convolution or its input gradient, ready to run.
pub(super) struct Winograd {
    tiling: Tiling,
    /// Rows and columns of zeros before the source.
    before: [usize; 2],
    /// Where the tiles of a task lie among a position's inputs and products.
    rows: Vec<Row>,
    /// Whether all tiles are done together: their inputs are transformed first, then each task has one panel's
    /// channels and transforms its filter as it goes. Without this the filter is transformed first, and each task has
    /// some tiles.
    together: bool,
}

impl Winograd {
    /// The convolution, where this way is the fastest.
    pub(super) fn forward<T: Float>(s: &ConvShape) -> Option<Winograd> {
        Winograd::suits::<T>(s)
            .then(|| Winograd::new(s.n, [s.h, s.w], [s.p, s.q], s.padding, [s.c, s.k], false))
            .flatten()
    }

    /// The input gradient, where this way is the fastest: the correlation of `dy` with the filter turned by half a
    /// turn.
    pub(super) fn input_grad<T: Float>(s: &ConvShape) -> Option<Winograd> {
        Winograd::suits::<T>(s)
            .then(|| {
                let before = s.padding.map(|padding| 2 - padding);
                Winograd::new(s.n, [s.p, s.q], [s.h, s.w], before, [s.k, s.c], true)
            })
            .flatten()
    }

    /// Whether it can be done this way. The reference in f64 never is.
    pub(super) fn suits<T: Float>(s: &ConvShape) -> bool {
        std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>()
            && [s.r, s.s] == [3, 3]
            && s.stride == [1, 1]
            && s.dilation == [1, 1]
            && s.groups == 1
            && s.padding[0].max(s.padding[1]) <= 2
            && s.c.is_multiple_of(LANES)
            && s.k.is_multiple_of(LANES)
    }

    fn new(
        n: usize,
        source: [usize; 2],
        result: [usize; 2],
        before: [usize; 2],
        [cin, cout]: [usize; 2],
        transposed: bool,
    ) -> Option<Winograd> {
        let tiles_of = |tile: usize| result.map(|extent| extent.div_ceil(tile));
        let products = |tile: usize| (tile + 2) * (tile + 2) * tiles_of(tile)[0] * tiles_of(tile)[1];
        // Tiles of 4 results take fewer products than tiles of 2 unless most of them is past the edge.
        let tile = if products(2) <= products(4) { 2 } else { 4 };
        let tiles = tiles_of(tile);
        let each = tiles[0] * tiles[1];
        // The transforms are worth half of the products, those of the filter twelve tiles.
        if 2 * products(tile) > 9 * result[0] * result[1] || n * each < LEAST {
            return None;
        }
        let together = n * each <= TILES;
        let mut tiling =
            Tiling { side: tile, source, result, cin, cout, transposed, tiles, examples: 1, band: tiles[0] };
        if !together {
            tiling.cut(TILES, n);
        }
        let count = if together { n * each } else { tiling.count() };
        let width = panel_width::<f32>();
        let rows = (0..count).map(|t| Row { from: (t * cin) as u32, to: (t * width) as u32 }).collect();
        Some(Winograd { tiling, before, rows, together })
    }

    fn positions(&self) -> usize {
        (self.tiling.side + 2) * (self.tiling.side + 2)
    }

    /// Floats of a panel: for each position lines of as many channels as a panel is wide.
    fn panel(&self) -> usize {
        self.positions() * self.tiling.cin * panel_width::<f32>()
    }

    /// Floats of scratch memory: for the transformed filter, or for the inputs and products that threads share.
    pub(super) fn scratch(&self) -> usize {
        if self.together {
            self.positions() * (self.plane() + self.result_plane())
        } else {
            self.tiling.panels() * self.panel()
        }
    }

    /// Floats from one position's inputs to the next's, where threads share them.
    fn plane(&self) -> usize {
        self.tiling.plane(self.rows.len())
    }

    /// The same of products, in all channels.
    fn result_plane(&self) -> usize {
        self.tiling.result_plane(self.rows.len() * self.tiling.panels())
    }

    /// Floats of scratch memory of a task, and of its block of results. Of a block's tiles there are as many as of all
    /// where they are done together.
    pub(super) fn own(&self) -> (usize, usize) {
        let (width, count) = (panel_width::<f32>(), self.rows.len());
        let turned = 9 * LANES * width;
        let task = if self.together {
            self.positions() * DEPTH * width + turned
        } else {
            (self.positions() * (self.tiling.plane(count) + self.tiling.result_plane(count))).max(turned)
        };
        (task + self.tiling.cin + 2 * LANES, self.tiling.block())
    }

    /// `out = stages(correlation of x with w)`.
    pub(super) fn run<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        scratch: &mut [T],
    ) {
        let (x, w): (&[f32], &[f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice(w));
        let scratch: &mut [f32] = &mut bytemuck::cast_slice_mut(scratch)[..self.scratch()];
        if self.together {
            return self.run_together(x, w, out, epilogue, scratch);
        }
        for_each_block(scratch, self.panel(), |panel, out| run_task(Filter { plan: self, w, panel, out }));
        let filter = &*scratch;
        self.tiling.in_blocks(out, |_, _, at, block| {
            epilogue.finish(at, block, |block| {
                let out = bytemuck::cast_slice_mut(block);
                run_task(Block { plan: self, x, filter, at, out });
            });
        });
    }

    /// As [`Winograd::run`], where one task has no more than a few tiles of all, or the channels of one panel.
    fn run_together<T: Float>(
        &self,
        x: &[f32],
        w: &[f32],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        scratch: &mut [f32],
    ) {
        let (inputs, products) = scratch.split_at_mut(self.positions() * self.plane());
        let tiles = self.rows.len();
        let shared = Shared(inputs.as_mut_ptr());
        for_each(tiles.div_ceil(FEW), |index| {
            let tiles = index * FEW..((index + 1) * FEW).min(tiles);
            run_task(Inputs { plan: self, x, tiles, to: shared.get() });
        });
        let (inputs, shared) = (&*inputs, Shared(products.as_mut_ptr()));
        for_each(self.tiling.panels(), |panel| {
            run_task(Products { plan: self, inputs, w, panel, to: shared.get() });
        });
        let products = &*products;
        self.tiling.in_blocks(out, |_, _, at, block| {
            epilogue.finish(at, block, |block| {
                let out = bytemuck::cast_slice_mut(block);
                run_task(Outputs { plan: self, products, at, out });
            });
        });
    }

    /// The tiles of the block of results from element `at` on.
    fn tiles_of(&self, at: usize, len: usize) -> std::ops::Range<usize> {
        let (row, image) = (self.tiling.result_row(), self.tiling.result_image());
        let number = |at: usize| {
            (at / image * self.tiling.tiles[0] + (at % image / row).div_ceil(self.tiling.side))
                * self.tiling.tiles[1]
        };
        number(at)..number(at + len)
    }
}

/// Memory that several threads write, each its own part.
struct Shared(*mut f32);

impl Shared {
    /// A method, so that a closure holds the whole of it.
    fn get(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: threads write disjoint parts.
unsafe impl Sync for Shared {}

/// Calls `$method::<S, N, M>(..)` with N and M as the plan's tile says.
macro_rules! by_tile {
    ($plan:expr, $method:ident ( $($argument:expr),* )) => {
        if $plan.tiling.side == 2 {
            $plan.$method::<S, 4, 2>($($argument),*)
        } else {
            $plan.$method::<S, 6, 4>($($argument),*)
        }
    };
}

/// Some tiles from their inputs to their results.
struct Block<'a> {
    plan: &'a Winograd,
    x: &'a [f32],
    filter: &'a [f32],
    /// Where the results begin.
    at: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { plan, x, filter, at, out } = self;
        by_tile!(plan, block(simd, x, filter, at, out));
    }
}

struct Inputs<'a> {
    plan: &'a Winograd,
    x: &'a [f32],
    tiles: std::ops::Range<usize>,
    to: *mut f32,
}

impl WithSimd for Inputs<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Inputs { plan, x, tiles, to } = self;
        let zeros = Zeros::take(plan.tiling.cin);
        for tile in tiles {
            // SAFETY: the tile's inputs of every position lie in the shared memory, and no other task writes them.
            unsafe {
                let to = to.add(tile * plan.tiling.cin);
                by_tile!(plan, input_tile(simd, x, &zeros, tile, to, plan.plane()));
            }
        }
    }
}

/// The products of some tiles, all positions, in one panel's channels. The filter is transformed on the way, some
/// channels at a time: it is larger than the caches, and its transform N^2 / 9 times that.
struct Products<'a> {
    plan: &'a Winograd,
    inputs: &'a [f32],
    w: &'a [f32],
    panel: usize,
    to: *mut f32,
}

impl WithSimd for Products<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Products { plan, inputs, w, panel, to } = self;
        let width = panel_width::<f32>();
        let valid = width.min(plan.tiling.cout - panel * width);
        let rows = &plan.rows;
        assert!(inputs.len() == plan.positions() * plan.plane());
        let mut lines = Scratch::<f32>::take(plan.positions() * DEPTH * width);
        for channel in (0..plan.tiling.cin).step_by(DEPTH) {
            let depth = DEPTH.min(plan.tiling.cin - channel);
            let lines = &mut lines[..plan.positions() * depth * width];
            by_tile!(plan, filter(simd, w, panel, channel, lines));
            for (position, lines) in lines.chunks_exact(depth * width).enumerate() {
                plan.fetch(w, panel, channel + DEPTH, position);
                // SAFETY: a row reads `depth` floats from `channel` on of its position's inputs and writes `valid`
                // of its panel's products, which no other task writes.
                unsafe {
                    let from = inputs.as_ptr().add(position * plan.plane() + channel);
                    let to = to.add(position * plan.result_plane() + panel * plan.rows.len() * width);
                    let walk = Walk { segments: &[0], run: depth, add: channel > 0 };
                    multiply_rows(simd, from, rows, walk, lines.as_ptr(), to, valid);
                }
            }
        }
    }
}

struct Outputs<'a> {
    plan: &'a Winograd,
    products: &'a [f32],
    at: usize,
    out: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Outputs { plan, products, at, out } = self;
        let width = panel_width::<f32>();
        let tiles = plan.tiles_of(at, out.len());
        for (index, tile) in tiles.enumerate() {
            for panel in 0..plan.tiling.panels() {
                let from = (panel * plan.rows.len() + tile) * width;
                by_tile!(
                    plan,
                    output_tile(simd, &products[from..], plan.result_plane(), panel, tile, index, out)
                );
            }
        }
    }
}

impl Winograd {
    #[inline(always)]
    fn block<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        x: &[f32],
        filter: &[f32],
        at: usize,
        out: &mut [f32],
    ) {
        let width = panel_width::<f32>();
        let tiles = self.tiles_of(at, out.len());
        let count = tiles.len();
        let rows = &self.rows[..count];
        let (plane, result_plane) = (self.tiling.plane(count), self.tiling.result_plane(count));
        let zeros = Zeros::take(self.tiling.cin);
        let mut scratch = Scratch::<f32>::take(N * N * (plane + result_plane));
        let (inputs, products) = scratch.split_at_mut(N * N * plane);
        for (index, tile) in tiles.clone().enumerate() {
            // SAFETY: the last position's last tile ends before the last plane does.
            unsafe {
                let to = inputs.as_mut_ptr().add(index * self.tiling.cin);
                self.input_tile::<S, N, M>(simd, x, &zeros, tile, to, plane);
            }
        }
        for (panel, lines) in filter.chunks_exact(self.panel()).enumerate() {
            let valid = width.min(self.tiling.cout - panel * width);
            for (position, lines) in lines.chunks_exact(self.tiling.cin * width).enumerate() {
                // SAFETY: a row reads cin floats of its position's inputs and writes `valid` of its products.
                unsafe {
                    let from = inputs.as_ptr().add(position * plane);
                    let to = products.as_mut_ptr().add(position * result_plane);
                    let walk = Walk { segments: &[0], run: self.tiling.cin, add: false };
                    multiply_rows(simd, from, rows, walk, lines.as_ptr(), to, valid);
                }
            }
            for (index, tile) in tiles.clone().enumerate() {
                let products = &products[index * width..];
                self.output_tile::<S, N, M>(simd, products, result_plane, panel, tile, index, out);
            }
        }
    }

    /// Transforms the inputs of a tile, each position's channels to `to + position * plane`.
    ///
    /// # Safety
    /// These must be writable.
    #[inline(always)]
    unsafe fn input_tile<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        x: &[f32],
        zeros: &Zeros,
        tile: usize,
        to: *mut f32,
        plane: usize,
    ) {
        let [height, across] = self.tiling.source;
        let each = self.tiling.each();
        let (example, tile) = (tile / each, tile % each);
        let top = (tile / self.tiling.tiles[1] * M) as isize - self.before[0] as isize;
        let left = (tile % self.tiling.tiles[1] * M) as isize - self.before[1] as isize;
        let image = self.tiling.source_image();
        let x = &x[example * image..(example + 1) * image];
        let mut from = [[zeros.as_ptr(); N]; N];
        for (i, from) in from.iter_mut().enumerate() {
            let y = top + i as isize;
            if (0..height as isize).contains(&y) {
                for (j, from) in from.iter_mut().enumerate() {
                    let column = left + j as isize;
                    if (0..across as isize).contains(&column) {
                        *from = x[(y as usize * across + column as usize) * self.tiling.cin..].as_ptr();
                    }
                }
            }
        }
        let zero = simd.splat_f32s(0.0);
        for channel in (0..self.tiling.cin).step_by(S::F32_LANES) {
            let mut half = [[zero; N]; N];
            for j in 0..N {
                // SAFETY: every pointer is followed by cin floats, of the source or of zeros.
                let d = std::array::from_fn(|i| unsafe { load::<S>(from[i][j].add(channel)) });
                let d = points::input::<S, N>(simd, d);
                for i in 0..N {
                    half[i][j] = d[i];
                }
            }
            for (i, row) in half.into_iter().enumerate() {
                for (j, value) in points::input::<S, N>(simd, row).into_iter().enumerate() {
                    // SAFETY: the caller's.
                    unsafe { store::<S>(to.add((i * N + j) * plane + channel), value) };
                }
            }
        }
    }

    /// The results of the `index`-th tile of `out` in one panel's channels, from its products on.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "one inner loop's operands")]
    fn output_tile<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        products: &[f32],
        plane: usize,
        panel: usize,
        tile: usize,
        index: usize,
        out: &mut [f32],
    ) {
        let width = panel_width::<f32>();
        let each = self.tiling.each();
        // The block begins with the first of its tiles, in whose example rows may come before.
        let first = tile - index;
        let skipped = first % each / self.tiling.tiles[1] * M;
        let (example, tile) = (tile / each - first / each, tile % each);
        let (top, left) = (tile / self.tiling.tiles[1] * M, tile % self.tiling.tiles[1] * M);
        let (rows, columns) = (M.min(self.tiling.result[0] - top), M.min(self.tiling.result[1] - left));
        let valid = width.min(self.tiling.cout - panel * width);
        let across = self.tiling.result_row();
        let start = (example * self.tiling.result[0] + top - skipped) * across
            + left * self.tiling.cout
            + panel * width;
        assert!((N * N - 1) * plane + valid <= products.len());
        assert!(start + (rows - 1) * across + (columns - 1) * self.tiling.cout + valid <= out.len());
        let zero = simd.splat_f32s(0.0);
        for channel in (0..valid).step_by(S::F32_LANES) {
            let mut half = [[zero; N]; M];
            for j in 0..N {
                // SAFETY: by the first assertion.
                let m = std::array::from_fn(|i| unsafe {
                    load::<S>(products.as_ptr().add((i * N + j) * plane + channel))
                });
                let m = points::output::<S, N, M>(simd, m);
                for i in 0..M {
                    half[i][j] = m[i];
                }
            }
            for (i, row) in half.into_iter().enumerate().take(rows) {
                let values = points::output::<S, N, M>(simd, row);
                for (j, value) in values.into_iter().enumerate() {
                    if j < columns {
                        // SAFETY: by the second assertion.
                        unsafe {
                            let to = start + i * across + j * self.tiling.cout + channel;
                            store::<S>(out.as_mut_ptr().add(to), value);
                        }
                    }
                }
            }
        }
    }
}

impl Winograd {
    /// Asks for a part of the filter that the panel's channels from `channel` on are transformed from: parts
    /// `0..positions` are all of it.
    #[inline(always)]
    fn fetch(&self, w: &[f32], panel: usize, channel: usize, part: usize) {
        let (parts, width) = (self.positions(), panel_width::<f32>());
        let depth = DEPTH.min(self.tiling.cin.saturating_sub(channel));
        let (first, valid) = (panel * width, width.min(self.tiling.cout - panel * width));
        // Runs of contiguous numbers, their length and their distance within a tap.
        let (runs, run, apart, from) = if self.tiling.transposed {
            (valid, depth, self.tiling.cin, first * self.tiling.cin + channel)
        } else {
            (depth, valid, self.tiling.cout, channel * self.tiling.cout + first)
        };
        for index in part * 9 * runs / parts..(part + 1) * 9 * runs / parts {
            let (tap, index) = (index / runs, index % runs);
            for at in (0..run).step_by(16) {
                fetch(&w[tap * self.tiling.cin * self.tiling.cout + from + index * apart + at]);
            }
        }
    }
}

/// Where [`LANES`] lines of a panel are read from a 3x3 filter: for an input gradient the filter turned by half a turn,
/// its matrices transposed.
pub(super) struct Taps<'a> {
    from: &'a [f32],
    tap: usize,
    line: usize,
}

impl<'a> Taps<'a> {
    /// The lines from channel `lines` on of a panel that has `valid` of the result's channels from `first` on; `turned`
    /// holds 9 times as many lines of a panel's width.
    #[inline(always)]
    pub(super) fn new<S: Simd>(
        simd: S,
        w: &'a [f32],
        [cin, cout]: [usize; 2],
        [lines, first, valid]: [usize; 3],
        transposed: bool,
        turned: &'a mut [f32],
    ) -> Taps<'a> {
        let width = panel_width::<f32>();
        let taps = if transposed {
            for tap in 0..9 {
                // A panel is narrower than a block where vectors are short.
                let block = LANES.min(valid);
                for i in (0..valid).step_by(block) {
                    let from = &w[((8 - tap) * cout + first + i) * cin + lines..];
                    let to = &mut turned[tap * LANES * width + i..];
                    assert!((block - 1) * cin + LANES <= from.len());
                    assert!((LANES - 1) * width + block <= to.len());
                    // SAFETY: by the assertions.
                    unsafe { transpose(simd, from.as_ptr(), cin, block, to.as_mut_ptr(), width) };
                }
            }
            Taps { from: turned, tap: LANES * width, line: width }
        } else {
            Taps { from: &w[lines * cout + first..], tap: cin * cout, line: cout }
        };
        assert!(8 * taps.tap + (LANES - 1) * taps.line + valid <= taps.from.len());
        taps
    }

    /// A vector of the panel from `lane` on.
    ///
    /// # Safety
    /// There are 9 taps and [`LANES`] lines, and the vector must end within the panel's valid channels.
    #[inline(always)]
    pub(super) unsafe fn load<S: Simd>(&self, tap: usize, line: usize, lane: usize) -> S::f32s {
        // SAFETY: by the caller and the last assertion above.
        unsafe { load::<S>(self.from.as_ptr().add(tap * self.tap + line * self.line + lane)) }
    }
}

/// One panel of the transformed filter.
struct Filter<'a> {
    plan: &'a Winograd,
    w: &'a [f32],
    panel: usize,
    out: &'a mut [f32],
}

impl WithSimd for Filter<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let plan = self.plan;
        by_tile!(plan, filter(simd, self.w, self.panel, 0, self.out));
    }
}

impl Winograd {
    #[inline(always)]
    fn filter<S: Simd, const N: usize, const M: usize>(
        &self,
        simd: S,
        w: &[f32],
        panel: usize,
        channel: usize,
        out: &mut [f32],
    ) {
        let (width, cin, cout) = (panel_width::<f32>(), self.tiling.cin, self.tiling.cout);
        let (first, valid) = (panel * width, width.min(cout - panel * width));
        let depth = out.len() / (N * N * width);
        assert!(w.len() == 9 * cin * cout && depth.is_multiple_of(LANES) && channel + depth <= cin);
        let zero = simd.splat_f32s(0.0);
        let mut turned = Scratch::<f32>::take(9 * LANES * width);
        for lines in (channel..channel + depth).step_by(LANES) {
            let taps =
                Taps::new(simd, w, [cin, cout], [lines, first, valid], self.tiling.transposed, &mut turned);
            for i in 0..LANES {
                for lane in (0..valid).step_by(S::F32_LANES) {
                    let mut half = [[zero; 3]; N];
                    for s in 0..3 {
                        // SAFETY: the line and the lane are below their extents.
                        let g = std::array::from_fn(|r| unsafe { taps.load::<S>(r * 3 + s, i, lane) });
                        let g = points::filter::<S, N>(simd, g);
                        for r in 0..N {
                            half[r][s] = g[r];
                        }
                    }
                    for (r, row) in half.into_iter().enumerate() {
                        for (s, value) in points::filter::<S, N>(simd, row).into_iter().enumerate() {
                            let to = ((r * N + s) * depth + lines - channel + i) * width + lane;
                            // SAFETY: the position, the line and the lane are below their extents.
                            unsafe { store::<S>(out.as_mut_ptr().add(to), value) };
                        }
                    }
                }
            }
        }
    }
}
