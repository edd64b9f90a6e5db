//! How the results of a convolution, or of its input gradient, read their source along each axis, and how the work
//! is cut.
//!
//! The input gradient of a convolution with stride s falls into s phases an axis: the inputs at distance s from each
//! other are read by the same taps, and within a phase the gradient is a plain correlation of `dy` with these taps.
//! So both directions are the same computation over different [`Axis`] values.

use crate::cpu::float::Float;
use crate::launch::ConvShape;

/// Floats a task may copy from its source: with the panel it meets it stays in a second-level cache.
pub(super) const BUFFER: usize = 48 * 1024;
/// Floating-point operations that make a task worth handing to a thread.
const TASK: usize = 1 << 20;
/// Tasks wanted, for machines with many cores.
pub(super) const TASKS: usize = 16;

/// Results along one axis that are read by the same taps.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// The first of them; the others follow at distance [`Axis::period`].
    pub(super) first: usize,
    /// The taps, in the order of the places they read.
    pub(super) taps: Vec<usize>,
    /// Where each tap reads, from the start of its result's window.
    pub(super) places: Vec<usize>,
}

/// One axis of a correlation: result `o` reads the source from `start(o) - before` on.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Number of results.
    pub(super) results: usize,
    /// Extent of the source.
    pub(super) source: usize,
    /// Source positions before `start(0)` that are read: padding, or reach of the taps.
    pub(super) before: usize,
    /// Last place of any tap.
    pub(super) reach: usize,
    /// Distance of results of one phase.
    pub(super) period: usize,
    pub(super) phases: Vec<Phase>,
    multiply: usize,
    add: usize,
    divide: usize,
}

impl Axis {
    /// The forward direction: result `o` reads `o * stride + tap * dilation - padding`.
    fn forward(s: &ConvShape, axis: usize) -> Axis {
        let taps = [s.r, s.s][axis];
        let places: Vec<usize> = (0..taps).map(|tap| tap * s.dilation[axis]).collect();
        Axis {
            results: [s.p, s.q][axis],
            source: [s.h, s.w][axis],
            before: s.padding[axis],
            reach: places[taps - 1],
            period: 1,
            phases: vec![Phase { first: 0, taps: (0..taps).collect(), places }],
            multiply: s.stride[axis],
            add: 0,
            divide: 1,
        }
    }

    /// The input gradient: input `h` is read by tap r of output `(h + padding - r * dilation) / stride`, where that
    /// is whole.
    fn input_grad(s: &ConvShape, axis: usize) -> Axis {
        let (stride, padding, dilation) = (s.stride[axis], s.padding[axis], s.dilation[axis]);
        let taps = [s.r, s.s][axis];
        let before = (taps - 1) * dilation / stride;
        let results = [s.h, s.w][axis];
        let phase = |first: usize| {
            let remainder = (first + padding) % stride;
            let taps: Vec<usize> =
                (0..taps).rev().filter(|tap| tap * dilation % stride == remainder).collect();
            let places = taps.iter().map(|tap| before - tap * dilation / stride).collect();
            Phase { first, taps, places }
        };
        Axis {
            results,
            source: [s.p, s.q][axis],
            before,
            reach: before,
            period: stride,
            phases: (0..stride.min(results)).map(phase).collect(),
            multiply: 1,
            add: padding,
            divide: stride,
        }
    }

    /// Where the window of result `o` starts.
    pub(super) fn start(&self, o: usize) -> usize {
        (o * self.multiply + self.add) / self.divide
    }

    /// Source positions that `count` results from `first` on read; `first` is a multiple of the period.
    pub(super) fn window(&self, first: usize, count: usize) -> usize {
        self.start(first + count - 1) - self.start(first) + self.reach + 1
    }
}

/// A convolution or its input gradient as a correlation in phases.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) n: usize,
    pub(super) groups: usize,
    /// Channels a group of the source and of the result.
    pub(super) cin: usize,
    pub(super) cout: usize,
    pub(super) rows: Axis,
    pub(super) columns: Axis,
    /// Whether the source is read where it stands: nothing lies outside it and its channels are all read.
    pub(super) direct: bool,
    /// Examples of a task.
    pub(super) examples: usize,
    /// Result rows of a task, all of them unless a task has one example; a multiple of the rows' period.
    pub(super) band: usize,
}

impl Geometry {
    pub(super) fn forward(s: &ConvShape) -> Geometry {
        let axes = [Axis::forward(s, 0), Axis::forward(s, 1)];
        Geometry::new(s, axes, s.c / s.groups, s.k / s.groups)
    }

    pub(super) fn input_grad(s: &ConvShape) -> Geometry {
        let axes = [Axis::input_grad(s, 0), Axis::input_grad(s, 1)];
        Geometry::new(s, axes, s.k / s.groups, s.c / s.groups)
    }

    fn new(s: &ConvShape, [rows, columns]: [Axis; 2], cin: usize, cout: usize) -> Geometry {
        let inside = |axis: &Axis| axis.before == 0 && axis.window(0, axis.results) <= axis.source;
        let direct = s.groups == 1 && inside(&rows) && inside(&columns);
        let mut geometry =
            Geometry { n: s.n, groups: s.groups, cin, cout, rows, columns, direct, examples: 1, band: 0 };
        geometry.cut(s.flops() as usize / s.n.max(1));
        geometry
    }

    /// Chooses what a task is, from the shapes alone.
    fn cut(&mut self, flops: usize) {
        let all = self.rows.results;
        self.band = all;
        let floats = self.buffer(all);
        if self.n * flops <= TASK && self.n * floats <= BUFFER {
            self.examples = self.n.max(1);
            return;
        }
        if self.n >= TASKS && floats <= BUFFER {
            let wanted = TASK.div_ceil(flops.max(1));
            self.examples = wanted.min(BUFFER / floats.max(1)).clamp(1, self.n / TASKS);
            return;
        }
        // Rows that fit, and that leave enough tasks, but at least two tiles' worth of pixels.
        let wanted = all.div_ceil(TASKS.div_ceil(self.n.max(1)));
        let least = 24usize.div_ceil(self.columns.results.max(1));
        let mut band = wanted.max(least).min(all);
        while band > 1 && self.buffer(band) > BUFFER {
            band = band.div_ceil(2);
        }
        self.band = band.next_multiple_of(self.rows.period);
    }

    /// Floats of the source that one example's `band` rows read, a group at a time.
    pub(super) fn buffer(&self, band: usize) -> usize {
        let band = band.min(self.rows.results);
        self.rows.window(0, band) * self.buffer_columns() * self.cin
    }

    /// Columns of the buffer a task reads.
    pub(super) fn buffer_columns(&self) -> usize {
        if self.direct { self.columns.source } else { self.columns.window(0, self.columns.results) }
    }

    /// Elements of a result row, all groups.
    pub(super) fn result_row(&self) -> usize {
        self.columns.results * self.cout * self.groups
    }

    /// Elements of an example's source.
    pub(super) fn source_image(&self) -> usize {
        self.rows.source * self.columns.source * self.cin * self.groups
    }

    /// Copies what `count` result rows from `first` on of the source image `x` read to `buffer`, one group's
    /// channels, zeros outside the image.
    pub(super) fn fill_buffer<T: Float>(
        &self,
        x: &[T],
        group: usize,
        first: usize,
        count: usize,
        buffer: &mut [T],
    ) {
        let (cin, channels) = (self.cin, self.cin * self.groups);
        let width = self.buffer_columns();
        let (left, top) = (self.columns.before as isize - self.columns.start(0) as isize, self.rows.before);
        // Buffer columns that lie inside the image.
        let inside = left.clamp(0, width as isize) as usize;
        let end = (left + self.columns.source as isize).clamp(inside as isize, width as isize) as usize;
        for (row, out) in
            buffer.chunks_exact_mut(width * cin).enumerate().take(self.rows.window(first, count))
        {
            let source = (self.rows.start(first) + row).checked_sub(top).filter(|&y| y < self.rows.source);
            let Some(y) = source.filter(|_| inside < end) else {
                out.fill(T::ZERO);
                continue;
            };
            out[..inside * cin].fill(T::ZERO);
            out[end * cin..].fill(T::ZERO);
            let out = &mut out[inside * cin..end * cin];
            let from = (y * self.columns.source + (inside as isize - left) as usize) * channels + group * cin;
            if self.groups == 1 {
                out.copy_from_slice(&x[from..from + out.len()]);
            } else {
                for (out, x) in out.chunks_exact_mut(cin).zip(x[from..].chunks(channels)) {
                    out.copy_from_slice(&x[..cin]);
                }
            }
        }
    }
}
