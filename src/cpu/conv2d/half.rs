//! Correlations in half precision: as [`super::correlate`], over a copy of the windows in bf16.

use super::correlate::Phase;
use super::geometry::Geometry;
use super::winograd::Winograd;
use crate::cpu::blocks::{Scratch, for_each_block};
use crate::cpu::float::Float;
use crate::cpu::half::{LINE, Pairs, WIDTH, convert, multiply_rows, round};
use crate::cpu::stages::Epilogue;
use crate::launch::ConvShape;
use rayon::prelude::*;

/// A convolution or its input gradient in half precision, ready to run.
pub(in crate::cpu) struct HalfCorrelate {
    geometry: Geometry,
    phases: Vec<Phase>,
    /// Lines of a panel: pairs of numbers read.
    lines: usize,
    /// Panels a group.
    panels: usize,
    shape: ConvShape,
    transposed: bool,
}

impl HalfCorrelate {
    pub(in crate::cpu) fn forward(shape: &ConvShape) -> Option<HalfCorrelate> {
        suits(shape).then(|| HalfCorrelate::new(shape, Geometry::forward(shape), false))
    }

    pub(in crate::cpu) fn input_grad(shape: &ConvShape) -> Option<HalfCorrelate> {
        // Narrower gradients are products added where they belong, as in `scatter`.
        let wide = shape.c / shape.groups >= 8;
        (suits(shape) && wide).then(|| HalfCorrelate::new(shape, Geometry::input_grad(shape), true))
    }

    fn new(shape: &ConvShape, mut geometry: Geometry, transposed: bool) -> HalfCorrelate {
        // Windows are always read from a copy.
        geometry.direct = false;
        let mut line = 0;
        let mut phases = Vec::new();
        for rows in &geometry.rows.phases {
            for columns in &geometry.columns.phases {
                let phase = Phase::new(&geometry, rows, columns, line);
                line += phase.segments.len() * phase.run.div_ceil(2);
                phases.push(phase);
            }
        }
        let panels = geometry.cout.div_ceil(WIDTH);
        HalfCorrelate { geometry, phases, lines: line, panels, shape: *shape, transposed }
    }

    /// Numbers of the packed filter.
    pub(in crate::cpu) fn packed(&self) -> usize {
        self.geometry.groups * self.panels * self.lines * LINE
    }

    /// Floats of a thread's own memory that a task takes, and elements of a task's result.
    pub(in crate::cpu) fn own(&self) -> (usize, usize) {
        let g = &self.geometry;
        let floats = g.examples * g.buffer(g.band);
        // Two pieces, each beginning with a cache line.
        (floats + 16 + (floats + 1).div_ceil(2), g.examples * g.band.min(g.rows.results) * g.result_row())
    }

    /// Elements of its two operands.
    pub(in crate::cpu) fn operands(&self) -> (usize, usize) {
        let s = &self.shape;
        (if self.transposed { s.output() } else { s.input() }, s.filter())
    }

    /// Copies the filter to panels: for each group and each panel of result channels, lines in the order of the
    /// phases' segments, zeros behind the last channel and at the end of an odd run.
    pub(in crate::cpu) fn pack(&self, w: &[f32], packed: &mut [u16]) {
        let (g, s) = (&self.geometry, &self.shape);
        let (cg, kg) = (s.c / s.groups, s.k / s.groups);
        for_each_block(&mut packed[..self.packed()], self.lines * LINE, |index, panel| {
            let (group, first) = (index / self.panels, index % self.panels * WIDTH);
            for phase in &self.phases {
                let pairs = phase.run.div_ceil(2);
                let lines = panel[phase.line * LINE..].chunks_exact_mut(LINE);
                for (at, line) in lines.take(phase.segments.len() * pairs).enumerate() {
                    for (i, half) in line.iter_mut().enumerate() {
                        let (step, result) = (2 * (at % pairs) + i % 2, first + i / 2);
                        if step >= phase.run || result >= g.cout {
                            *half = 0;
                            continue;
                        }
                        // Segments and their runs are the taps and channels in order.
                        let depth = at / pairs * phase.run + step;
                        let ((r, t), channel) = (phase.taps[depth / g.cin], depth % g.cin);
                        let (c, k) = if self.transposed { (result, channel) } else { (channel, result) };
                        *half = round(w[((r * s.s + t) * cg + c) * s.k + group * kg + k]);
                    }
                }
            }
        });
    }

    /// `out = stages(correlation of x with the packed filter)`.
    pub(in crate::cpu) fn run<T: Float>(
        &self,
        x: &[f32],
        packed: &[u16],
        out: &mut [T],
        epilogue: &Epilogue<T>,
    ) {
        let g = &self.geometry;
        let (row, rows) = (g.result_row(), g.rows.results);
        let task = |example: usize, first: usize, block: &mut [T]| {
            let start = (example * rows + first) * row;
            epilogue.finish(start, block, |block| {
                self.task(x, packed, example, first, bytemuck::cast_slice_mut(block));
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

    /// Some examples' results, or a band of one example's rows.
    fn task(&self, x: &[f32], packed: &[u16], example: usize, first: usize, out: &mut [f32]) {
        let g = &self.geometry;
        let (row, image) = (g.result_row(), g.source_image());
        let rows = out.len() / row;
        let (examples, count) =
            if g.examples > 1 { (rows / g.rows.results, g.rows.results) } else { (1, rows) };
        let units = if g.examples > 1 { examples } else { count };
        let x = &x[example * image..(example + examples) * image];
        let floats = g.buffer(g.band);
        let mut buffer = Scratch::<f32>::take(examples * floats);
        // The end of an odd run reads one number more.
        let mut halves = Scratch::<f32>::take((examples * floats + 1).div_ceil(2));
        for group in 0..g.groups {
            for (x, buffer) in x.chunks_exact(image).zip(buffer.chunks_exact_mut(floats)) {
                g.fill_buffer(x, group, first, count, buffer);
            }
            let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut halves);
            convert(&buffer, halves);
            self.tiles(halves, packed, group, units, out);
        }
    }

    /// One group's results from its windows; `units` examples, or rows where a task has one example.
    fn tiles(&self, halves: &[u16], packed: &[u16], group: usize, units: usize, out: &mut [f32]) {
        let g = &self.geometry;
        for panel in 0..self.panels {
            let lines = &packed[(group * self.panels + panel) * self.lines * LINE..][..self.lines * LINE];
            let column = group * g.cout + panel * WIDTH;
            let valid = WIDTH.min(g.cout - panel * WIDTH);
            for phase in &self.phases {
                let rows = &phase.pixels[..phase.prefix[units]];
                let Some((deepest, last)) = phase.segments.last().zip(rows.last()) else {
                    // Results that no tap reads.
                    rows.iter().for_each(|row| out[row.to as usize + column..][..valid].fill(0.0));
                    continue;
                };
                let walk = Pairs { segments: &phase.segments, run: phase.run.div_ceil(2) };
                assert!(
                    last.from as usize + deepest + 2 * walk.run <= halves.len()
                        && last.to as usize + column + valid <= out.len()
                );
                // SAFETY: rows and segments ascend, so the assertion holds for all of them; the phase's lines lie in
                // its panel; a product in half precision is planned only where the processor has the instructions.
                unsafe {
                    let panel = lines.as_ptr().add(phase.line * LINE);
                    let out = out.as_mut_ptr().add(column);
                    multiply_rows(halves.as_ptr(), rows, walk, panel, out, valid);
                }
            }
        }
    }
}

/// Least terms of a sum for which rounding the windows pays: 3 to 64 channels by 3x3 take 1.3 times as long as in f32.
const DEPTH: usize = 32;

/// Whether a convolution is faster in half precision than in f32. Not where Winograd's tiles do with less than half of
/// the multiplications: 3x3 128 to 128 at 16x16 reaches 460 GFLOP/s here, 690 there.
fn suits(s: &ConvShape) -> bool {
    s.input() * s.filter() * s.output() > 0
        && (s.groups == 1 || s.k / s.groups >= 8)
        && s.filter() / s.k >= DEPTH
        && !Winograd::suits::<f32>(s)
}
