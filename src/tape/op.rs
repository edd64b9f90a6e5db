//! The closed set of ops, with the shape each one gives.
//!
//! Layouts: images and activations NHWC, filters HWIO (`[kh, kw, cin / groups, cout]`), matrices row-major.
//! "Float" is [`DType::F32`]. Comparisons give floats, 1 for true and 0 for false.

use super::{Augment, Distribution, Purpose};
use crate::shape::{DType, Shape};

/// Elementwise functions of one float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `scale * x + shift`; covers negation, scaling and adding a constant.
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
    /// e^x.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// x^2.
    Square,
    /// |x|; derivative 0 at 0.
    Abs,
    /// -1, 0 or 1; no gradient. sign(0) = 0 (spec section 2).
    Sign,
    /// max(x, 0); derivative 0 at 0.
    Relu,
    /// x where x > 0, else `slope * x`.
    LeakyRelu {
        /// Factor for negative values.
        slope: f64,
    },
    /// x * sigmoid(x) (Elfwing et al. 2017; "swish").
    Silu,
    /// x * Phi(x), the exact form with erf (Hendrycks and Gimpel 2016).
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// Error function.
    Erf,
    /// min(max(x, lo), hi); gradient passes where lo <= x <= hi.
    Clamp {
        /// Lower bound.
        lo: f64,
        /// Upper bound.
        hi: f64,
    },
}

/// Elementwise functions of two floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    /// x + y.
    Add,
    /// x - y.
    Sub,
    /// x * y.
    Mul,
    /// x / y.
    Div,
    /// The larger; a tie shares the gradient.
    Max,
    /// The smaller; a tie shares the gradient.
    Min,
    /// x + scale * y.
    AddScaled {
        /// Factor on y.
        scale: f64,
    },
    /// x where y > 0, else `slope * x` (exactly 0 when slope is 0, also for x infinite): the derivative of relu and
    /// leaky relu as an op. No gradient to y.
    Gate {
        /// Factor where y <= 0.
        slope: f64,
    },
    /// 1 where x > y; no gradient.
    Greater,
    /// 1 where x >= y; no gradient.
    GreaterEqual,
    /// 1 where x == y; no gradient.
    Equal,
}

/// How an axis is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Sum, in a fixed order.
    Sum,
    /// Largest; ties share the gradient (`torch.amax`).
    Max,
}

/// A set of axes as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axes(pub u8);

impl Axes {
    /// The set of these axes.
    pub fn new(axes: &[usize]) -> Axes {
        Axes(axes.iter().fold(0, |bits, &axis| bits | 1 << axis))
    }

    /// Every axis of a tensor of this rank.
    pub fn all(rank: usize) -> Axes {
        Axes(((1u16 << rank) - 1) as u8)
    }

    /// Whether `axis` is in the set.
    pub fn has(self, axis: usize) -> bool {
        axis < 8 && self.0 >> axis & 1 == 1
    }
}

/// Attributes of a convolution; the kernel's extents come from the filter's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Zeros before and after rows and columns.
    pub padding: [usize; 2],
    /// Distance between taps in rows and columns.
    pub dilation: [usize; 2],
    /// Groups; equal to the channels for a depthwise convolution.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Conv2d {
        Conv2d { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// Attributes of a pooling window. Padding never wins a maximum and counts as zero in an average
/// (`count_include_pad=True`, as PyTorch's default).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Extents of the window.
    pub kernel: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Padding before and after rows and columns; at most half the kernel.
    pub padding: [usize; 2],
}

/// An op of the tape. Arguments are listed in the variant's first line; `B` is the batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `()`: a named tensor of the store, read as it was before the plan ran.
    Source {
        /// Its name in the store.
        name: String,
    },
    /// `()`: the same float everywhere.
    Fill {
        /// The float.
        value: f64,
    },
    /// `(x)`: elementwise.
    Unary(Unary),
    /// `(x, y)`: elementwise, of equal shapes (recording inserts [`Op::Broadcast`]).
    Binary(Binary),
    /// `(x)`: the same elements in order under another shape.
    Reshape,
    /// `(x)`: axes permuted; axis `i` of the result is axis `perm[i]` of x.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// `(x)`: NumPy broadcast to the node's shape.
    Broadcast,
    /// `(x)`: the box of the node's shape that begins at `start`.
    Slice {
        /// First index per axis.
        start: Vec<usize>,
    },
    /// `(x)`: zeros around x, which begins at `before`.
    Pad {
        /// Zeros before x per axis.
        before: Vec<usize>,
    },
    /// `(x, ...)`: joined along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// `(x)`: axes folded to extent 1.
    Reduce {
        /// How.
        kind: Reduction,
        /// Which.
        axes: Axes,
    },
    /// `(x[.., C])` -> u32 `[..]`: index of the largest in each row, the first of equals; no gradient.
    ArgMax,
    /// `(a, b)`: matrix product, `a` and `b` transposed first where asked.
    MatMul {
        /// Transpose a.
        ta: bool,
        /// Transpose b.
        tb: bool,
    },
    /// `(x[N,H,W,C], w[R,S,C/groups,K])` -> `[N,P,Q,K]`: cross-correlation, as deep learning means convolution.
    Conv2d(Conv2d),
    /// `(dy[N,P,Q,K], w)` -> `[N,H,W,C]`: gradient of [`Op::Conv2d`] by its input (a transposed convolution).
    Conv2dInputGrad(Conv2d),
    /// `(x, dy)` -> `[R,S,C/groups,K]`: gradient of [`Op::Conv2d`] by its filter.
    Conv2dWeightGrad(Conv2d),
    /// `(x[N,H,W,C])` -> u32 `[N,P,Q,C]`: where in its window (row * kernel width + column) the maximum stands,
    /// the first of equals; no gradient.
    MaxPoolIndex(Pool),
    /// `(x, index)` -> `[N,P,Q,C]`: x at the positions of [`Op::MaxPoolIndex`].
    PoolGather(Pool),
    /// `(dy, index)` -> `[N,H,W,C]`: the transpose of [`Op::PoolGather`]; overlaps add.
    PoolScatter(Pool),
    /// `(x)` -> `[N,P,Q,C]`: average over windows.
    AvgPool(Pool),
    /// `(dy)` -> `[N,H,W,C]`: the transpose of [`Op::AvgPool`].
    AvgPoolGrad(Pool),
    /// `(x[.., C], mean[C], inverse[C], weight[C], bias[C])`: `(x - mean) * inverse * weight + bias`, batch norm
    /// (Ioffe and Szegedy 2015) by the statistics of x itself: mean over all axes but the last, and one over the square
    /// root of variance plus epsilon. The gradient by x holds all of what depends on x, so that mean and inverse get
    /// none.
    BatchNorm,
    /// `(x[.., C])`: softmax over the last axis.
    Softmax,
    /// `(x[.., C])`: log-softmax over the last axis.
    LogSoftmax,
    /// `(logits[B,C], labels u32[B])` -> `[B]`: -log softmax(logits)_label per example.
    CrossEntropy,
    /// `(logits[B,C], labels u32[B])` -> `[B,C]`: the gradient of the cross-entropy by the logits, each row multiplied
    /// by the power of two that brings its largest magnitude into [1/2, 1) (a row of zeros stays); no gradient.
    CrossEntropyDirection,
    /// `(logits[B,C], labels u32[B])` -> `[B]`: 1 where the label's logit is the largest (first of equals), else 0;
    /// no gradient.
    Correct,
    /// `(labels u32[B])` -> `[B,C]`; no gradient.
    OneHot,
    /// `(table[N,..], index u32[B])` -> `[B,..]`: rows of a table. A u8 table gives floats divided by 255; a u32
    /// table gives u32; no gradient.
    GatherRows,
    /// `(table u8[N,H,W,C], index u32[B], uniform[B,3])` -> `[B,H,W,C]`: images of a table, each changed at random,
    /// divided by 255; no gradient.
    Augment(Augment),
    /// `(key u32[2], counter u32[2], example u32[B])` -> `[B,..]`: Philox4x32-10 (Salmon et al. 2011) keyed by
    /// (key, purpose), counted by (counter = (epoch, step), example, element); no gradient.
    Random {
        /// What is drawn.
        distribution: Distribution,
        /// The stream.
        purpose: Purpose,
    },
}

impl Op {
    /// The op's name, as launch lists and errors print it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Source { .. } => "source",
            Op::Fill { .. } => "fill",
            Op::Unary(unary) => unary.name(),
            Op::Binary(binary) => binary.name(),
            Op::Reshape => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Broadcast => "broadcast",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::Reduce { kind: Reduction::Sum, .. } => "sum",
            Op::Reduce { kind: Reduction::Max, .. } => "amax",
            Op::ArgMax => "argmax",
            Op::MatMul { .. } => "matmul",
            Op::Conv2d(_) => "conv2d",
            Op::Conv2dInputGrad(_) => "conv2d.input_grad",
            Op::Conv2dWeightGrad(_) => "conv2d.weight_grad",
            Op::MaxPoolIndex(_) => "max_pool.index",
            Op::PoolGather(_) => "max_pool.gather",
            Op::PoolScatter(_) => "max_pool.scatter",
            Op::AvgPool(_) => "avg_pool",
            Op::AvgPoolGrad(_) => "avg_pool.input_grad",
            Op::BatchNorm => "batch_norm",
            Op::Softmax => "softmax",
            Op::LogSoftmax => "log_softmax",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyDirection => "cross_entropy_direction",
            Op::Correct => "correct",
            Op::OneHot => "one_hot",
            Op::GatherRows => "gather_rows",
            Op::Augment(_) => "augment",
            Op::Random { distribution: Distribution::Uniform, .. } => "random.uniform",
            Op::Random { distribution: Distribution::Normal, .. } => "random.normal",
        }
    }
}

impl Unary {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self {
            Unary::Affine { .. } => "affine",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Square => "square",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Relu => "relu",
            Unary::LeakyRelu { .. } => "leaky_relu",
            Unary::Silu => "silu",
            Unary::Gelu => "gelu",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Erf => "erf",
            Unary::Clamp { .. } => "clamp",
        }
    }
}

impl Binary {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::AddScaled { .. } => "add_scaled",
            Binary::Gate { .. } => "gate",
            Binary::Greater => "greater",
            Binary::GreaterEqual => "greater_equal",
            Binary::Equal => "equal",
        }
    }
}

impl Conv2d {
    /// Rows and columns of the result for an input of `input` and a filter of `kernel` rows and columns, or `None`
    /// when the (dilated) filter is larger than the padded input or an attribute is zero.
    pub fn output(&self, input: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let extent = |i: usize| {
            let reach = self.dilation[i].checked_mul(kernel[i].checked_sub(1)?)? + 1;
            Some((input[i] + 2 * self.padding[i]).checked_sub(reach)?.checked_div(self.stride[i])? + 1)
        };
        if self.dilation.contains(&0) || self.groups == 0 {
            return None;
        }
        Some([extent(0)?, extent(1)?])
    }
}

impl Pool {
    /// A square window.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Pool {
        Pool { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] }
    }

    /// Rows and columns of the result, or `None` when the window does not fit or is padded by more than half.
    pub fn output(&self, input: [usize; 2]) -> Option<[usize; 2]> {
        if (0..2).any(|i| self.padding[i] * 2 > self.kernel[i] || self.kernel[i] == 0) {
            return None;
        }
        Conv2d { stride: self.stride, padding: self.padding, ..Conv2d::default() }.output(input, self.kernel)
    }
}

/// Shape and type of `op` applied to arguments of these shapes and types; `wanted` is the shape for the ops whose
/// result is not determined by their arguments (broadcast, reshape, slice, pad, gradients, random, one-hot).
///
/// # Errors
/// A sentence that says which extents do not fit.
pub(super) fn infer(
    op: &Op,
    args: &[(Shape, DType)],
    wanted: Option<Shape>,
) -> std::result::Result<(Shape, DType), String> {
    let arity = match op {
        Op::Source { .. } | Op::Fill { .. } => 0,
        Op::Binary(_)
        | Op::MatMul { .. }
        | Op::Conv2d(_)
        | Op::Conv2dInputGrad(_)
        | Op::Conv2dWeightGrad(_)
        | Op::PoolGather(_)
        | Op::PoolScatter(_)
        | Op::CrossEntropy
        | Op::CrossEntropyDirection
        | Op::Correct
        | Op::GatherRows => 2,
        Op::Random { .. } | Op::Augment(_) => 3,
        Op::BatchNorm => 5,
        Op::Concat { .. } => args.len().max(1),
        _ => 1,
    };
    if args.len() != arity {
        return Err(format!("takes {arity} arguments, got {}", args.len()));
    }
    let shape = |i: usize| args[i].0;
    let float = |i: usize| match args[i].1 {
        DType::F32 => Ok(()),
        other => Err(format!("argument {} is {other}, but floats are needed", i + 1)),
    };
    let index = |i: usize| match args[i].1 {
        DType::U32 => Ok(()),
        other => Err(format!("argument {} is {other}, but u32 is needed", i + 1)),
    };
    let rank = |i: usize, rank: usize| match shape(i).rank() == rank {
        true => Ok(()),
        false => Err(format!("argument {} is {}, but {rank} axes are needed", i + 1, shape(i))),
    };
    let wanted = || wanted.ok_or_else(|| "needs the shape of its result".to_string());
    let ensure = |ok: bool, why: &dyn Fn() -> String| if ok { Ok(()) } else { Err(why()) };
    let f32 = |shape: Shape| Ok((shape, DType::F32));

    // Extents [N, P, Q, K] of a convolution of x by w.
    let conv = |conv: &Conv2d, x: Shape, w: Shape| -> std::result::Result<Shape, String> {
        ensure(x.rank() == 4 && w.rank() == 4, &|| format!("input {x} and filter {w} must have 4 axes"))?;
        ensure(conv.groups > 0 && x[3] == w[2] * conv.groups && w[3].is_multiple_of(conv.groups), &|| {
            let groups = conv.groups;
            format!("filter {w} with {groups} groups does not fit input {x} (NHWC, filters are HWIO)")
        })?;
        let [p, q] = conv.output([x[1], x[2]], [w[0], w[1]]).ok_or_else(|| {
            format!("filter {w} with {conv:?} is larger than the padded input {x}, or an attribute is zero")
        })?;
        Ok(Shape::new(&[x[0], p, q, w[3]]))
    };
    let pool = |pool: &Pool, x: Shape| -> std::result::Result<Shape, String> {
        ensure(x.rank() == 4, &|| format!("input {x} must have 4 axes (NHWC)"))?;
        let [p, q] = pool.output([x[1], x[2]]).ok_or_else(|| {
            format!("window {pool:?} does not fit input {x}, or is padded by more than half")
        })?;
        Ok(Shape::new(&[x[0], p, q, x[3]]))
    };

    match op {
        Op::Source { .. } | Op::Fill { .. } => Ok((wanted()?, DType::F32)),
        Op::Unary(_) => {
            float(0)?;
            f32(shape(0))
        }
        Op::Binary(_) => {
            float(0)?;
            float(1)?;
            ensure(shape(0) == shape(1), &|| format!("{} and {} differ", shape(0), shape(1)))?;
            f32(shape(0))
        }
        Op::Reshape => {
            let want = wanted()?;
            ensure(want.len() == shape(0).len(), &|| {
                format!("{} has {} elements, {want} has {}", shape(0), shape(0).len(), want.len())
            })?;
            Ok((want, args[0].1))
        }
        Op::Transpose { perm } => {
            float(0)?;
            let x = shape(0);
            let mut seen = perm.clone();
            seen.sort_unstable();
            ensure(seen.iter().copied().eq(0..x.rank()), &|| format!("{perm:?} does not permute {x}"))?;
            f32(Shape::new(&perm.iter().map(|&axis| x[axis]).collect::<Vec<_>>()))
        }
        Op::Broadcast => {
            float(0)?;
            let want = wanted()?;
            ensure(Shape::broadcast(&shape(0), &want) == Some(want), &|| {
                format!("{} does not broadcast to {want}", shape(0))
            })?;
            f32(want)
        }
        Op::Slice { start } => {
            float(0)?;
            let (x, want) = (shape(0), wanted()?);
            ensure(
                want.rank() == x.rank()
                    && start.len() == x.rank()
                    && (0..x.rank()).all(|a| start[a] + want[a] <= x[a] && want[a] > 0),
                &|| format!("the box {want} at {start:?} is empty or does not lie in {x}"),
            )?;
            f32(want)
        }
        Op::Pad { before } => {
            float(0)?;
            let (x, want) = (shape(0), wanted()?);
            ensure(
                want.rank() == x.rank()
                    && before.len() == x.rank()
                    && (0..x.rank()).all(|a| before[a] + x[a] <= want[a]),
                &|| format!("{x} at {before:?} does not lie in {want}"),
            )?;
            f32(want)
        }
        Op::Concat { axis } => {
            let first = shape(0);
            ensure(*axis < first.rank(), &|| format!("{first} has no axis {axis}"))?;
            let mut extent = 0;
            for i in 0..args.len() {
                float(i)?;
                let x = shape(i);
                ensure(x.rank() == first.rank() && x.with(*axis, 1) == first.with(*axis, 1), &|| {
                    format!("{x} does not continue {first} along axis {axis}")
                })?;
                extent += x[*axis];
            }
            f32(first.with(*axis, extent))
        }
        Op::Reduce { axes, .. } => {
            float(0)?;
            let mut x = shape(0);
            ensure((x.rank()..8).all(|axis| !axes.has(axis)), &|| format!("{axes:?} are not axes of {x}"))?;
            for axis in 0..x.rank() {
                if axes.has(axis) {
                    ensure(x[axis] > 0, &|| format!("axis {axis} of {x} is empty"))?;
                    x = x.with(axis, 1);
                }
            }
            f32(x)
        }
        Op::ArgMax => {
            float(0)?;
            let x = shape(0);
            ensure(x.rank() >= 1 && x[x.rank() - 1] > 0, &|| format!("{x} has no last axis to search"))?;
            Ok((Shape::new(&x.dims()[..x.rank() - 1]), DType::U32))
        }
        Op::MatMul { ta, tb } => {
            float(0)?;
            float(1)?;
            rank(0, 2)?;
            rank(1, 2)?;
            let (a, b) = (shape(0), shape(1));
            let (m, k) = if *ta { (a[1], a[0]) } else { (a[0], a[1]) };
            let (k2, n) = if *tb { (b[1], b[0]) } else { (b[0], b[1]) };
            ensure(k == k2, &|| {
                let t = |yes: bool| if yes { " transposed" } else { "" };
                format!("{a}{} times {b}{}: inner extents {k} and {k2} differ", t(*ta), t(*tb))
            })?;
            f32(Shape::new(&[m, n]))
        }
        Op::Conv2d(attributes) => {
            float(0)?;
            float(1)?;
            f32(conv(attributes, shape(0), shape(1))?)
        }
        Op::Conv2dInputGrad(attributes) => {
            float(0)?;
            float(1)?;
            let want = wanted()?;
            let dy = conv(attributes, want, shape(1))?;
            ensure(dy == shape(0), &|| format!("gradient {} does not fit the result {dy}", shape(0)))?;
            f32(want)
        }
        Op::Conv2dWeightGrad(attributes) => {
            float(0)?;
            float(1)?;
            let want = wanted()?;
            let dy = conv(attributes, shape(0), want)?;
            ensure(dy == shape(1), &|| format!("gradient {} does not fit the result {dy}", shape(1)))?;
            f32(want)
        }
        Op::MaxPoolIndex(attributes) => {
            float(0)?;
            Ok((pool(attributes, shape(0))?, DType::U32))
        }
        Op::PoolGather(attributes) => {
            float(0)?;
            index(1)?;
            let y = pool(attributes, shape(0))?;
            ensure(y == shape(1), &|| format!("positions {} do not fit the result {y}", shape(1)))?;
            f32(y)
        }
        Op::PoolScatter(attributes) => {
            float(0)?;
            index(1)?;
            let want = wanted()?;
            let y = pool(attributes, want)?;
            ensure(y == shape(0) && y == shape(1), &|| {
                format!("gradient {} and positions {} do not fit the result {y}", shape(0), shape(1))
            })?;
            f32(want)
        }
        Op::AvgPool(attributes) => {
            float(0)?;
            f32(pool(attributes, shape(0))?)
        }
        Op::AvgPoolGrad(attributes) => {
            float(0)?;
            let want = wanted()?;
            let y = pool(attributes, want)?;
            ensure(y == shape(0), &|| format!("gradient {} does not fit the result {y}", shape(0)))?;
            f32(want)
        }
        Op::BatchNorm => {
            (0..5).try_for_each(&float)?;
            let x = shape(0);
            ensure(x.rank() >= 1, &|| format!("{x} has no last axis"))?;
            for i in 1..5 {
                let channels = Shape::new(&[x[x.rank() - 1]]);
                ensure(shape(i) == channels, &|| {
                    format!("{} is not {channels}, a value a channel of {x}", shape(i))
                })?;
            }
            f32(x)
        }
        Op::Softmax | Op::LogSoftmax => {
            float(0)?;
            let x = shape(0);
            ensure(x.rank() >= 1 && x[x.rank() - 1] > 0, &|| format!("{x} has no last axis"))?;
            f32(x)
        }
        Op::CrossEntropy | Op::CrossEntropyDirection | Op::Correct => {
            float(0)?;
            index(1)?;
            rank(0, 2)?;
            rank(1, 1)?;
            ensure(shape(0)[0] == shape(1)[0] && shape(0)[1] > 0, &|| {
                format!("logits {} and labels {} do not fit", shape(0), shape(1))
            })?;
            f32(shape(if *op == Op::CrossEntropyDirection { 0 } else { 1 }))
        }
        Op::OneHot => {
            index(0)?;
            rank(0, 1)?;
            let want = wanted()?;
            ensure(want.rank() == 2 && want[0] == shape(0)[0], &|| {
                format!("labels {} do not fit {want}", shape(0))
            })?;
            f32(want)
        }
        Op::GatherRows => {
            index(1)?;
            rank(1, 1)?;
            let table = shape(0);
            ensure(table.rank() >= 1, &|| "the table has no rows".to_string())?;
            let dtype = if args[0].1 == DType::U32 { DType::U32 } else { DType::F32 };
            Ok((table.with(0, shape(1)[0]), dtype))
        }
        Op::Augment(augment) => {
            index(1)?;
            rank(0, 4)?;
            rank(1, 1)?;
            let (table, batch) = (shape(0), shape(1)[0]);
            ensure(args[0].1 == DType::U8, &|| format!("the images are {}, but u8 is needed", args[0].1))?;
            ensure(shape(2).dims() == [batch, Augment::DRAWS] && args[2].1 == DType::F32, &|| {
                format!("{} is not {} uniform numbers for each of {batch} images", shape(2), Augment::DRAWS)
            })?;
            ensure(augment.padding < table[1].min(table[2]), &|| {
                format!("{} pixels of padding are too many for images {table}", augment.padding)
            })?;
            ensure(augment.cutout <= table[1].min(table[2]), &|| {
                format!("a hole of {} pixels is too large for images {table}", augment.cutout)
            })?;
            ensure(augment.brightness.max(augment.contrast) <= Augment::ONE, &|| {
                "brightness and contrast change by at most 1".to_string()
            })?;
            f32(table.with(0, batch))
        }
        Op::Random { .. } => {
            (0..3).try_for_each(&index)?;
            let want = wanted()?;
            ensure(
                shape(0).dims() == [2]
                    && shape(1).dims() == [2]
                    && want.rank() >= 1
                    && shape(2).dims() == [want[0]],
                &|| {
                    format!(
                        "key {}, counter {} and examples {} do not fit {want}",
                        shape(0),
                        shape(1),
                        shape(2)
                    )
                },
            )?;
            f32(want)
        }
    }
}
