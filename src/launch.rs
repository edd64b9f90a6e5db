//! A launch: one kernel call of a plan, in terms that both executors understand and neither owns.
//!
//! The plan lowers a tape to launches; the CPU executor interprets them, the kernels on the GPU are chosen for them.
//! Everything elementwise is a chain of [`Stage`]s. A chain alone is a [`Kernel::Map`]; behind another kernel it is
//! that kernel's epilogue, applied to each element before it is stored.

use crate::shape::{DType, Shape, Stretch};
use crate::tape::{Augment, Binary, Distribution, Pool, Purpose, Reduction, Unary};

/// Most stages a launch may carry.
pub const MAX_STAGES: usize = 12;
/// Most tensors the stages of a launch with one input may read besides it: with the output no launch binds more than
/// the 8 storage buffers WebGPU promises. See [`Kernel::max_operands`].
pub const MAX_OPERANDS: usize = 6;

/// A buffer of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Temporary memory, shared between values that never live at once.
    Slot(usize),
    /// A tensor of the store, by its position in the plan's list of tensors.
    Tensor(usize),
}

/// Whether a buffer stays as it is while the launches behind the first `prologue` run again and again: none of them
/// writes it. What executors derive from such an input (packed, transformed or half-precision filters) holds for a
/// whole repeat.
pub fn is_frozen(launches: &[Launch], prologue: usize, place: Place) -> bool {
    launches[prologue..].iter().all(|launch| launch.outputs().all(|output| output != place))
}

/// One elementwise step on the running value `v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// `v = f(v)`.
    Unary(Unary),
    /// `v = f(v, operand)`, or `f(operand, v)` when swapped.
    Binary {
        /// The function.
        op: Binary,
        /// Whether the operand is the first argument.
        swapped: bool,
        /// The other argument.
        operand: Operand,
    },
}

/// The tensor a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Element `stretch.index(i)` of a buffer that is not the launch's output.
    Buffer {
        /// The buffer.
        place: Place,
        /// How it is indexed.
        stretch: Stretch,
    },
    /// 1 where bit `i % 32` of word `stretch.index(i)` of what [`Kernel::Mask`] wrote is set, else 0; the stretch is
    /// i / 32.
    Bits {
        /// The buffer.
        place: Place,
        /// Which word.
        stretch: Stretch,
    },
    /// What the output buffer held at the same element before the launch: an update in place.
    Previous,
}

/// What a kernel of the gradient of cross-entropy can give beside it, f32 `[rows]`, of the same pass over the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PerRow {
    /// The cross-entropy, as [`Kernel::CrossEntropy`].
    Loss,
    /// Whether the label is right, as [`Kernel::Correct`].
    Correct,
}

impl PerRow {
    /// Both.
    pub const ALL: [PerRow; 2] = [PerRow::Loss, PerRow::Correct];

    /// Its name, as launch lists print it.
    pub fn name(self) -> &'static str {
        match self {
            PerRow::Loss => "loss",
            PerRow::Correct => "correct",
        }
    }

    /// What of a gradient's launch the kernel alone would give.
    pub fn of(kernel: &Kernel) -> Option<PerRow> {
        match kernel {
            Kernel::CrossEntropy { .. } => Some(PerRow::Loss),
            Kernel::Correct { .. } => Some(PerRow::Correct),
            _ => None,
        }
    }
}

/// Extents of a convolution `[N,H,W,C] * [R,S,C/groups,K] -> [N,P,Q,K]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ConvShape {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub r: usize,
    pub s: usize,
    pub p: usize,
    pub q: usize,
    pub k: usize,
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl ConvShape {
    /// Floating-point operations of the forward pass, as of either gradient: two a multiply-add, padding included.
    pub fn flops(&self) -> u64 {
        2 * (self.n * self.p * self.q * self.k * self.r * self.s * (self.c / self.groups)) as u64
    }
}

/// Extents of a pooling `[N,H,W,C] -> [N,P,Q,C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct PoolShape {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub p: usize,
    pub q: usize,
    pub window: Pool,
}

impl PoolShape {
    /// Bits of a position in a window, a power of two: 2 for a window of 2x2, 4 for one of 3x3.
    pub fn position_bits(&self) -> usize {
        let last = self.window.kernel[0] * self.window.kernel[1] - 1;
        ((usize::BITS - last.leading_zeros()) as usize).next_power_of_two()
    }

    /// Words that hold the position of each maximum, [`PoolShape::position_bits`] each, the first lowest.
    pub fn position_words(&self) -> usize {
        (self.n * self.p * self.q * self.c).div_ceil(32 / self.position_bits())
    }
}

/// What a launch computes before its stages; its inputs in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// `(x)`: element `start.index(i)` of x; the stages do the rest.
    Map {
        /// How x is indexed.
        start: Stretch,
    },
    /// `()`: what the output held before; the stages update it in place.
    Update,
    /// `()`: the same float everywhere.
    Fill {
        /// The float.
        value: f64,
    },
    /// `(x)`: x seen as `[outer, extent, inner]`, folded over `extent` to `[outer, inner]`. `before` are applied to
    /// each element of x before it is folded; their operands are indexed by its place in x and are never the output.
    Reduce {
        /// How.
        kind: Reduction,
        /// Elements before the folded axes.
        outer: usize,
        /// Elements folded into one.
        extent: usize,
        /// Elements after the folded axes.
        inner: usize,
        /// Stages on the way in.
        before: Vec<Stage>,
    },
    /// `(x)` -> u32: index of the largest of each row.
    ArgMax {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// `(x)`: element `o` (an index vector of the output shape) is x at `offset + o . strides` when
    /// `lo <= o < hi` on every axis, else 0: transposition, slicing, padding, broadcast.
    Copy {
        /// Offset into x of the element o = 0 (may be negative with padding).
        offset: isize,
        /// Stride in x per output axis.
        strides: Vec<usize>,
        /// First index inside x per output axis.
        lo: Vec<usize>,
        /// First index behind x per output axis.
        hi: Vec<usize>,
    },
    /// `(x, ...)`: `[outer, columns_i]` joined to `[outer, sum of columns]`. No stages.
    Concat {
        /// Rows.
        outer: usize,
        /// Columns of each input.
        columns: Vec<usize>,
    },
    /// `(a, b)` -> `[m, n]`; `a` is `[k, m]` when `ta`, `b` is `[n, k]` when `tb`.
    MatMul {
        /// Rows of the result.
        m: usize,
        /// Columns of the result.
        n: usize,
        /// Extent summed over.
        k: usize,
        /// a is transposed.
        ta: bool,
        /// b is transposed.
        tb: bool,
    },
    /// `(x, w)` -> `[N,P,Q,K]`.
    Conv2d(ConvShape),
    /// `(dy, w)` -> `[N,H,W,C]`.
    Conv2dInputGrad(ConvShape),
    /// `(x, dy)` -> `[R,S,C/groups,K]`.
    Conv2dWeightGrad(ConvShape),
    /// `(x)` -> u32 `[ceil(len / 32)]`: which elements of x are positive, bit `i % 32` of word `i / 32`. No stages.
    Mask {
        /// Elements of x.
        len: usize,
    },
    /// `(x)` -> u32 `[words]`: where in its window (row * kernel width + column) each maximum stands, packed as
    /// [`PoolShape::position_words`] says. No stages.
    MaxPoolIndex(PoolShape),
    /// `(x, index)` -> `[N,P,Q,C]`.
    PoolGather(PoolShape),
    /// `(dy, index)` -> `[N,H,W,C]`.
    PoolScatter(PoolShape),
    /// `(x)` -> `[N,P,Q,C]`.
    AvgPool(PoolShape),
    /// `(dy)` -> `[N,H,W,C]`.
    AvgPoolGrad(PoolShape),
    /// `(x)`: softmax of each row, or its logarithm.
    Softmax {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
        /// Give the logarithm.
        log: bool,
    },
    /// `(logits, labels)` -> `[rows]`.
    CrossEntropy {
        /// Examples.
        rows: usize,
        /// Classes.
        columns: usize,
    },
    /// `(logits, labels)` -> `[rows, columns]`: `softmax(logits) - onehot(labels)`; what multiplies the loss follows
    /// as a stage.
    CrossEntropyGrad {
        /// Examples.
        rows: usize,
        /// Classes.
        columns: usize,
    },
    /// `(logits, labels)` -> `[rows, columns]`: [`Kernel::CrossEntropyGrad`] with each row multiplied by the power of
    /// two (at most 2^126) that brings its largest magnitude into [1/2, 1); a row of zeros stays.
    CrossEntropyDirection {
        /// Examples.
        rows: usize,
        /// Classes.
        columns: usize,
    },
    /// `(logits, labels)` -> `[rows]`: 1 where the label's logit is the first largest.
    Correct {
        /// Examples.
        rows: usize,
        /// Classes.
        columns: usize,
    },
    /// `(labels)` -> `[rows, columns]`.
    OneHot {
        /// Examples.
        rows: usize,
        /// Classes.
        columns: usize,
    },
    /// `(table, index)` -> `[rows, row]`; `from` is the table's type: u8 is divided by 255, u32 stays u32 (then no
    /// stages). An index past the table reads its last row.
    GatherRows {
        /// Rows gathered.
        rows: usize,
        /// Elements of a row.
        row: usize,
        /// Rows of the table.
        table: usize,
        /// Type of the table.
        from: DType,
    },
    /// `(table u8, index, uniform)` -> `[rows, h, w, c]`: rows of a table of images `[h, w, c]`, each changed by its
    /// three uniform numbers as [`Augment::choose`] says, and divided by 255.
    Augment {
        /// Images gathered.
        rows: usize,
        /// Images of the table.
        table: usize,
        /// Extents of an image.
        image: [usize; 3],
        /// What may change.
        augment: Augment,
    },
    /// `(key, counter, example)` -> `[rows, row]`: see `philox.rs` for the exact bits.
    Random {
        /// What is drawn.
        distribution: Distribution,
        /// The stream.
        purpose: Purpose,
        /// Examples.
        rows: usize,
        /// Elements an example.
        row: usize,
    },
}

impl Kernel {
    /// The kernel's name, as launch lists print it.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Map { .. } => "map",
            Kernel::Update => "update",
            Kernel::Fill { .. } => "fill",
            Kernel::Reduce { kind: Reduction::Sum, .. } => "sum",
            Kernel::Reduce { kind: Reduction::Max, .. } => "amax",
            Kernel::ArgMax { .. } => "argmax",
            Kernel::Copy { .. } => "copy",
            Kernel::Concat { .. } => "concat",
            Kernel::MatMul { .. } => "matmul",
            Kernel::Conv2d(_) => "conv2d.forward",
            Kernel::Conv2dInputGrad(_) => "conv2d.input_grad",
            Kernel::Conv2dWeightGrad(_) => "conv2d.weight_grad",
            Kernel::Mask { .. } => "mask",
            Kernel::MaxPoolIndex(_) => "max_pool.index",
            Kernel::PoolGather(_) => "max_pool.gather",
            Kernel::PoolScatter(_) => "max_pool.scatter",
            Kernel::AvgPool(_) => "avg_pool.forward",
            Kernel::AvgPoolGrad(_) => "avg_pool.input_grad",
            Kernel::Softmax { log: false, .. } => "softmax",
            Kernel::Softmax { log: true, .. } => "log_softmax",
            Kernel::CrossEntropy { .. } => "cross_entropy.forward",
            Kernel::CrossEntropyGrad { .. } => "cross_entropy.input_grad",
            Kernel::CrossEntropyDirection { .. } => "cross_entropy.direction",
            Kernel::Correct { .. } => "correct",
            Kernel::OneHot { .. } => "one_hot",
            Kernel::GatherRows { .. } => "gather_rows",
            Kernel::Augment { .. } => "augment",
            Kernel::Random { distribution: Distribution::Uniform, .. } => "random.uniform",
            Kernel::Random { distribution: Distribution::Normal, .. } => "random.normal",
        }
    }

    /// Whether stages may follow: every kernel whose result is floats, except concatenation, which writes in parts.
    pub fn takes_stages(&self) -> bool {
        !matches!(
            self,
            Kernel::ArgMax { .. }
                | Kernel::Concat { .. }
                | Kernel::Mask { .. }
                | Kernel::MaxPoolIndex(_)
                | Kernel::GatherRows { from: DType::U32, .. }
        )
    }

    /// Most distinct (buffer, stretch) pairs that a launch's stages may read: 8 storage buffers less the output and
    /// the inputs, or what takes their place in a kernel of several dispatches.
    pub fn max_operands(&self) -> usize {
        match self {
            Kernel::Map { .. } | Kernel::Update | Kernel::Fill { .. } | Kernel::Reduce { .. } => MAX_OPERANDS,
            _ => MAX_OPERANDS - 2,
        }
    }

    /// Rows, where the launch may give [`PerRow`] results too.
    pub fn gives_per_row(&self) -> Option<usize> {
        match self {
            Kernel::CrossEntropyGrad { rows, .. } | Kernel::CrossEntropyDirection { rows, .. } => Some(*rows),
            _ => None,
        }
    }

    /// Floating-point operations of the products, two a multiply-add; 0 for kernels bound by memory.
    pub fn flops(&self) -> u64 {
        match self {
            Kernel::MatMul { m, n, k, .. } => 2 * (m * n * k) as u64,
            Kernel::Conv2d(s) | Kernel::Conv2dInputGrad(s) | Kernel::Conv2dWeightGrad(s) => s.flops(),
            _ => 0,
        }
    }
}

/// One kernel call of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What it computes.
    pub kernel: Kernel,
    /// The kernel's inputs, in its order. Never the output (see [`Kernel::Update`] and [`Operand::Previous`]).
    pub inputs: Vec<Place>,
    /// Elementwise steps applied to each element before it is stored; at most [`MAX_STAGES`], reading at most
    /// [`Launch::max_operands`] distinct (buffer, stretch) pairs.
    pub stages: Vec<Stage>,
    /// Where the result goes.
    pub output: Place,
    /// What else it gives, and where to: each at most once, only of kernels that [`Kernel::gives_per_row`], and to
    /// places that the launch neither reads nor writes otherwise. Stages do not touch it.
    pub also: Vec<(PerRow, Place)>,
    /// Shape of the result.
    pub shape: Shape,
    /// Type of the result: f16 where the plan keeps it in half precision.
    pub dtype: DType,
    /// The places it reads that hold f16. A product that reads one multiplies in half precision: both operands are
    /// rounded to what the executor has (f16 storage on a GPU, bf16 or nothing on the CPU), sums are in f32.
    pub halves: Vec<Place>,
}

impl Launch {
    /// All places it writes.
    pub fn outputs(&self) -> impl Iterator<Item = Place> + '_ {
        std::iter::once(self.output).chain(self.also.iter().map(|(_, place)| *place))
    }

    /// Most distinct (buffer, stretch) pairs that its stages may read: what it gives besides takes bindings too. Its
    /// kernels have two inputs, so that one more is free than [`Kernel::max_operands`] says.
    pub fn max_operands(&self) -> usize {
        self.kernel.max_operands() - self.also.len().saturating_sub(1)
    }

    /// Whether it is a product in half precision.
    pub fn is_half_product(&self) -> bool {
        self.kernel.flops() > 0 && self.inputs.iter().any(|place| self.halves.contains(place))
    }

    /// The stages on the way in, of a reduction.
    pub fn before(&self) -> &[Stage] {
        if let Kernel::Reduce { before, .. } = &self.kernel { before } else { &[] }
    }

    /// The distinct buffers the stages read, those on the way in too, in order of first use.
    pub fn operands(&self) -> Vec<(Place, Stretch)> {
        let mut operands = Vec::new();
        for stage in self.before().iter().chain(&self.stages) {
            if let Stage::Binary { operand, .. } = stage
                && let Operand::Buffer { place, stretch } | Operand::Bits { place, stretch } = operand
                && !operands.contains(&(*place, *stretch))
            {
                operands.push((*place, *stretch));
            }
        }
        operands
    }

    /// Whether an operand is read as bits.
    pub fn reads_bits(&self, operand: (Place, Stretch)) -> bool {
        let bits = |stage: &Stage| {
            matches!(*stage, Stage::Binary { operand: Operand::Bits { place, stretch }, .. }
                if (place, stretch) == operand)
        };
        self.before().iter().chain(&self.stages).any(bits)
    }

    /// Whether a stage reads what the output held before.
    pub fn updates_in_place(&self) -> bool {
        self.kernel == Kernel::Update
            || self
                .stages
                .iter()
                .any(|stage| matches!(stage, Stage::Binary { operand: Operand::Previous, .. }))
    }
}

impl std::fmt::Display for Launch {
    /// `conv2d.forward + add + relu`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |stage: &Stage| match stage {
            Stage::Unary(unary) => unary.name(),
            Stage::Binary { op, .. } => op.name(),
        };
        let mut names: Vec<&str> = self.before().iter().map(name).collect();
        if !matches!(self.kernel, Kernel::Map { .. }) || self.stages.is_empty() {
            names.push(self.kernel.name());
        }
        names.extend(self.stages.iter().map(name));
        f.write_str(&names.join(" + "))?;
        Ok(())
    }
}
