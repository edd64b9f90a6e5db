//! Convolution, and its input gradient, as correlations in register tiles: see [`super::geometry`] and
//! [`crate::cpu::tile`]. Filters are packed into panels once a launch.

use super::geometry::Geometry;
use crate::cpu::blocks::{Scratch, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::stages::Epilogue;
use crate::cpu::tile::{Row, Walk, multiply_rows, panel_width, run_task};
use crate::launch::ConvShape;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Results that the same taps read.
pub(super) struct Phase {
    /// Row and column of each tap in the filter, in the order the panels hold them.
    pub(super) taps: Vec<(usize, usize)>,
    /// Offsets into the buffer of the runs the taps read, and the runs' length.
    pub(super) segments: Vec<usize>,
    pub(super) run: usize,
    /// Every result of a full task: where it reads the buffer, where it is stored.
    pub(super) pixels: Vec<Row>,
    /// Lines of the panel before this phase's.
    pub(super) line: usize,
    /// Results of the first `i` examples, or rows of an example, of a task.
    pub(super) prefix: Vec<usize>,
}

/// A convolution or its input gradient, ready to run.
pub(super) struct Correlate {
    geometry: Geometry,
    phases: Vec<Phase>,
    /// Lines of a panel: taps times channels read.
    lines: usize,
    /// Panels a group.
    panels: usize,
    shape: ConvShape,
    transposed: bool,
}

impl Correlate {
    pub(super) fn forward<T: Float>(shape: &ConvShape) -> Correlate {
        Correlate::new::<T>(shape, Geometry::forward(shape), false)
    }

    pub(super) fn input_grad<T: Float>(shape: &ConvShape) -> Correlate {
        Correlate::new::<T>(shape, Geometry::input_grad(shape), true)
    }

    fn new<T: Float>(shape: &ConvShape, geometry: Geometry, transposed: bool) -> Correlate {
        let mut line = 0;
        let mut phases = Vec::new();
        for rows in &geometry.rows.phases {
            for columns in &geometry.columns.phases {
                let phase = Phase::new(&geometry, rows, columns, line);
                line += phase.taps.len() * geometry.cin;
                phases.push(phase);
            }
        }
        let panels = geometry.cout.div_ceil(panel_width::<T>());
        Correlate { geometry, phases, lines: line, panels, shape: *shape, transposed }
    }

    /// Floats of scratch memory for the packed filter.
    pub(super) fn scratch<T: Float>(&self) -> usize {
        self.geometry.groups * self.panels * self.lines * panel_width::<T>()
    }

    /// Floats of scratch memory of a task, and of its block of results.
    pub(super) fn own(&self) -> (usize, usize) {
        let g = &self.geometry;
        let buffer = if g.direct { 0 } else { g.examples * g.buffer(g.band) };
        (buffer, g.examples * g.band * g.result_row())
    }

    /// `out = stages(correlation of x with w)`.
    pub(super) fn run<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        out: &mut [T],
        epilogue: &Epilogue<T>,
        packed: &mut [T],
    ) {
        self.pack(w, packed);
        let packed = &*packed;
        let g = &self.geometry;
        let (row, rows) = (g.result_row(), g.rows.results);
        let task = |example: usize, first: usize, block: &mut [T]| {
            let start = (example * rows + first) * row;
            epilogue.finish(start, block, |block| {
                run_task(Task { plan: self, x, packed, example, first, out: block });
            });
        };
        if g.band == rows {
            let block = g.examples * rows * row;
            for_each_block(out, block, |index, block| task(index * g.examples, 0, block));
        } else {
            out.par_chunks_mut(rows * row).enumerate().for_each(|(example, out)| {
                let bands = out.par_chunks_mut(g.band * row).enumerate();
                bands.for_each(|(band, block)| task(example, band * g.band, block));
            });
        }
    }

    /// Copies the filter to panels: for each group and each panel of result channels, lines in the order of the
    /// phases' taps and the channels read, zeros behind the last channel.
    fn pack<T: Float>(&self, w: &[T], packed: &mut [T]) {
        let (width, g, s) = (panel_width::<T>(), &self.geometry, &self.shape);
        for_each_block(&mut packed[..self.scratch::<T>()], self.lines * width, |index, panel| {
            let (group, first) = (index / self.panels, index % self.panels * width);
            let valid = width.min(g.cout - first);
            let taps = self.phases.iter().flat_map(|phase| &phase.taps);
            for (&(r, t), lines) in taps.zip(panel.chunks_exact_mut(g.cin * width)) {
                let tap = (r * s.s + t) * (s.c / s.groups);
                let kg = s.k / s.groups;
                if self.transposed {
                    // Lines are filters, across are the channels of x.
                    if valid < width {
                        lines.fill(T::ZERO);
                    }
                    for i in 0..valid {
                        let from = (tap + first + i) * s.k + group * kg;
                        let values = &w[from..from + g.cin];
                        lines[i..].iter_mut().step_by(width).zip(values).for_each(|(line, w)| *line = *w);
                    }
                } else {
                    for (channel, line) in lines.chunks_exact_mut(width).enumerate() {
                        let from = (tap + channel) * s.k + group * kg + first;
                        line[..valid].copy_from_slice(&w[from..from + valid]);
                        line[valid..].fill(T::ZERO);
                    }
                }
            }
        });
    }
}

impl Phase {
    pub(super) fn new(
        g: &Geometry,
        rows: &super::geometry::Phase,
        columns: &super::geometry::Phase,
        line: usize,
    ) -> Phase {
        let width = g.buffer_columns() * g.cin;
        let taps = rows.taps.iter().flat_map(|&r| columns.taps.iter().map(move |&t| (r, t))).collect();
        // Taps side by side are one run.
        let adjacent = columns.places.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let (starts, run) = if adjacent {
            (&columns.places[..columns.places.len().min(1)], columns.taps.len() * g.cin)
        } else {
            (&columns.places[..], g.cin)
        };
        let segments = rows
            .places
            .iter()
            .flat_map(|&place| starts.iter().map(move |&start| place * width + start * g.cin))
            .collect();
        let mut pixels = Vec::new();
        let mut prefix = vec![0];
        let (image, result) = (if g.direct { g.source_image() } else { g.buffer(g.band) }, g.result_row());
        for example in 0..g.examples {
            for y in 0..g.band.min(g.rows.results) {
                if y % g.rows.period == rows.first {
                    for x in (columns.first..g.columns.results).step_by(g.columns.period) {
                        let above = g.rows.start(y) - g.rows.start(0);
                        let left = g.columns.start(x) - g.columns.start(0);
                        let from = example * image + above * width + left * g.cin;
                        let to = (example * g.rows.results + y) * result + x * g.cout * g.groups;
                        pixels.push(Row { from: from as u32, to: to as u32 });
                    }
                }
                if g.examples == 1 {
                    prefix.push(pixels.len());
                }
            }
            if g.examples > 1 {
                prefix.push(pixels.len());
            }
        }
        Phase { taps, segments, run, pixels, line, prefix }
    }
}

/// Some examples' results, or a band of one example's rows.
struct Task<'a, T> {
    plan: &'a Correlate,
    x: &'a [T],
    packed: &'a [T],
    example: usize,
    /// First row.
    first: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { plan, x, packed, example, first, out } = self;
        let g = &plan.geometry;
        let (row, image) = (g.result_row(), g.source_image());
        // What there is to do: whole examples, or rows of one.
        let rows = out.len() / row;
        let (examples, count) =
            if g.examples > 1 { (rows / g.rows.results, g.rows.results) } else { (1, rows) };
        let units = if g.examples > 1 { examples } else { count };
        let x = &x[example * image..(example + examples) * image];
        let floats = if g.direct { 0 } else { g.buffer(g.band) };
        let mut buffer = Scratch::<T>::take(examples * floats);
        for group in 0..g.groups {
            let source: &[T] = if g.direct {
                // No padding and one group: x is read where it stands.
                &x[(g.rows.start(first) * g.columns.source + g.columns.start(0)) * g.cin..]
            } else {
                for (x, buffer) in x.chunks_exact(image).zip(buffer.chunks_exact_mut(floats)) {
                    g.fill_buffer(x, group, first, count, buffer);
                }
                &buffer
            };
            plan.tiles(simd, source, packed, group, units, out);
        }
    }
}

impl Correlate {
    /// One group's results from its buffer; `units` examples, or rows where a task has one example.
    #[inline(always)]
    fn tiles<T: Float, S: Simd>(
        &self,
        simd: S,
        buffer: &[T],
        packed: &[T],
        group: usize,
        units: usize,
        out: &mut [T],
    ) {
        let (g, width) = (&self.geometry, panel_width::<T>());
        for panel in 0..self.panels {
            let lines = &packed[(group * self.panels + panel) * self.lines * width..][..self.lines * width];
            let column = group * g.cout + panel * width;
            let valid = width.min(g.cout - panel * width);
            for phase in &self.phases {
                let rows = &phase.pixels[..phase.prefix[units]];
                let Some((deepest, last)) = phase.segments.last().zip(rows.last()) else {
                    // Results that no tap reads.
                    rows.iter().for_each(|row| out[row.to as usize + column..][..valid].fill(T::ZERO));
                    continue;
                };
                assert!(
                    last.from as usize + deepest + phase.run <= buffer.len()
                        && last.to as usize + column + valid <= out.len()
                );
                let walk = Walk { segments: &phase.segments, run: phase.run, add: false };
                // SAFETY: rows and segments ascend, so the assertion holds for all of them; the phase's lines lie
                // in its panel.
                unsafe {
                    let panel = lines.as_ptr().add(phase.line * width);
                    let out = out.as_mut_ptr().add(column);
                    multiply_rows(simd, buffer.as_ptr(), rows, walk, panel, out, valid);
                }
            }
        }
    }
}
