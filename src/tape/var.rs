//! Variables, and the methods that record ops.
//!
//! Operands of arithmetic broadcast by NumPy's rule. A mistake of shapes does not panic: it sticks to the tape, with
//! the place in the caller's code, and compiling the tape returns it.

use super::{Augment, Axes, Binary, Conv2d, Distribution, Op, Pool, Purpose, Reduction, Tape, Unary};
use crate::shape::{DType, Shape};

/// A value on a tape: an index, free to copy.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    pub(super) tape: &'t Tape,
    pub(super) id: usize,
}

/// What random numbers are a function of, besides their purpose and the element: nothing else is, so that they depend
/// neither on the batch an example is in nor on what was drawn before.
#[derive(Clone, Copy)]
pub struct Draw<'t> {
    /// u32 `[2]`: the run's seed, low and high word.
    pub key: Var<'t>,
    /// u32 `[2]`: epoch and step.
    pub counter: Var<'t>,
    /// u32 `[B]`: which example of the data set each row is.
    pub example: Var<'t>,
}

impl std::fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{} {}", self.id, self.shape())
    }
}

impl<'t> Var<'t> {
    /// The tape it is on.
    pub fn tape(self) -> &'t Tape {
        self.tape
    }

    /// Its place on the tape.
    pub fn id(self) -> usize {
        self.id
    }

    /// Its shape.
    pub fn shape(self) -> Shape {
        self.tape.nodes.borrow()[self.id].shape
    }

    /// Its element type.
    pub fn dtype(self) -> DType {
        self.tape.nodes.borrow()[self.id].dtype
    }

    /// The constant it is everywhere, if it is one.
    pub(super) fn constant(self) -> Option<f64> {
        match self.tape.nodes.borrow()[self.id].op {
            Op::Fill { value } => Some(value),
            _ => None,
        }
    }

    #[track_caller]
    fn unary(self, unary: Unary) -> Var<'t> {
        self.tape.record(Op::Unary(unary), &[self], None)
    }

    /// `scale * x + shift`.
    #[track_caller]
    pub fn affine(self, scale: f64, shift: f64) -> Var<'t> {
        match self.constant() {
            _ if scale == 1.0 && shift == 0.0 => self,
            Some(value) => self.tape.fill(self.shape(), scale * value + shift),
            None => self.unary(Unary::Affine { scale, shift }),
        }
    }

    /// `scale * x`.
    #[track_caller]
    pub fn scale(self, scale: f64) -> Var<'t> {
        self.affine(scale, 0.0)
    }

    /// e^x.
    #[track_caller]
    pub fn exp(self) -> Var<'t> {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    #[track_caller]
    pub fn log(self) -> Var<'t> {
        self.unary(Unary::Log)
    }

    /// Square root.
    #[track_caller]
    pub fn sqrt(self) -> Var<'t> {
        self.unary(Unary::Sqrt)
    }

    /// x^2.
    #[track_caller]
    pub fn square(self) -> Var<'t> {
        self.unary(Unary::Square)
    }

    /// |x|.
    #[track_caller]
    pub fn abs(self) -> Var<'t> {
        self.unary(Unary::Abs)
    }

    /// -1, 0 or 1; no gradient.
    #[track_caller]
    pub fn sign(self) -> Var<'t> {
        self.unary(Unary::Sign)
    }

    /// max(x, 0).
    #[track_caller]
    pub fn relu(self) -> Var<'t> {
        self.unary(Unary::Relu)
    }

    /// x where x > 0, else `slope * x`.
    #[track_caller]
    pub fn leaky_relu(self, slope: f64) -> Var<'t> {
        self.unary(Unary::LeakyRelu { slope })
    }

    /// x * sigmoid(x).
    #[track_caller]
    pub fn silu(self) -> Var<'t> {
        self.unary(Unary::Silu)
    }

    /// x * Phi(x), with erf.
    #[track_caller]
    pub fn gelu(self) -> Var<'t> {
        self.unary(Unary::Gelu)
    }

    /// Hyperbolic tangent.
    #[track_caller]
    pub fn tanh(self) -> Var<'t> {
        self.unary(Unary::Tanh)
    }

    /// 1 / (1 + e^-x).
    #[track_caller]
    pub fn sigmoid(self) -> Var<'t> {
        self.unary(Unary::Sigmoid)
    }

    /// Error function.
    #[track_caller]
    pub fn erf(self) -> Var<'t> {
        self.unary(Unary::Erf)
    }

    /// min(max(x, lo), hi).
    #[track_caller]
    pub fn clamp(self, lo: f64, hi: f64) -> Var<'t> {
        self.unary(Unary::Clamp { lo, hi })
    }

    #[track_caller]
    fn binary(self, op: Binary, other: Var<'t>) -> Var<'t> {
        let Some(shape) = Shape::broadcast(&self.shape(), &other.shape()) else {
            // Inference says what does not fit.
            return self.tape.record(Op::Binary(op), &[self, other], None);
        };
        let (x, y) = (self.broadcast_to(shape), other.broadcast_to(shape));
        // Constants fold into the other operand, so that gradients of scaled losses cost nothing.
        match (op, x.constant(), y.constant()) {
            (Binary::Add, _, Some(c)) => return x.affine(1.0, c),
            (Binary::Add, Some(c), _) => return y.affine(1.0, c),
            (Binary::Sub, _, Some(c)) => return x.affine(1.0, -c),
            (Binary::Sub, Some(c), _) => return y.affine(-1.0, c),
            (Binary::Mul, _, Some(c)) => return x.affine(c, 0.0),
            (Binary::Mul, Some(c), _) => return y.affine(c, 0.0),
            (Binary::AddScaled { scale }, _, Some(c)) => return x.affine(1.0, scale * c),
            (Binary::AddScaled { scale }, Some(c), _) => return y.affine(scale, c),
            _ => {}
        }
        self.tape.record(Op::Binary(op), &[x, y], None)
    }

    /// The larger of x and y.
    #[track_caller]
    pub fn max(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Max, other)
    }

    /// The smaller of x and y.
    #[track_caller]
    pub fn min(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Min, other)
    }

    /// `x + scale * y`.
    #[track_caller]
    pub fn add_scaled(self, other: Var<'t>, scale: f64) -> Var<'t> {
        self.binary(Binary::AddScaled { scale }, other)
    }

    /// x where y > 0, else `slope * x`; no gradient to y.
    #[track_caller]
    pub fn gate(self, other: Var<'t>, slope: f64) -> Var<'t> {
        self.binary(Binary::Gate { slope }, other)
    }

    /// 1 where x > y, else 0; no gradient.
    #[track_caller]
    pub fn greater(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Greater, other)
    }

    /// 1 where x >= y, else 0; no gradient.
    #[track_caller]
    pub fn greater_equal(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::GreaterEqual, other)
    }

    /// 1 where x == y, else 0; no gradient.
    #[track_caller]
    pub fn equal(self, other: Var<'t>) -> Var<'t> {
        self.binary(Binary::Equal, other)
    }

    /// `yes` where this condition (of zeros and ones) is 1, `no` where it is 0. What is not chosen has no part in the
    /// result even where it is infinite or NaN, nor in the gradient.
    #[track_caller]
    pub fn select(self, yes: Var<'t>, no: Var<'t>) -> Var<'t> {
        yes.gate(self, 0.0) + no.gate(self.affine(-1.0, 1.0), 0.0)
    }

    /// The same elements in order under another shape.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        match self.constant() {
            _ if shape == self.shape() => self,
            Some(value) if shape.len() == self.shape().len() => self.tape.fill(shape, value),
            _ => self.tape.record(Op::Reshape, &[self], Some(shape)),
        }
    }

    /// `[B, ..]` to `[B, elements an example]`.
    #[track_caller]
    pub fn flatten(self) -> Var<'t> {
        let shape = self.shape();
        let batch = shape.dims().first().copied().unwrap_or(1);
        self.reshape([batch, shape.len() / batch.max(1)])
    }

    /// Axes permuted: axis `i` of the result is axis `perm[i]`.
    #[track_caller]
    pub fn transpose(self, perm: &[usize]) -> Var<'t> {
        if perm.iter().copied().eq(0..self.shape().rank()) {
            return self;
        }
        self.tape.record(Op::Transpose { perm: perm.to_vec() }, &[self], None)
    }

    /// Stretched to `shape` by NumPy's rule.
    #[track_caller]
    pub fn broadcast_to(self, shape: impl Into<Shape>) -> Var<'t> {
        let shape = shape.into();
        match self.constant() {
            _ if shape == self.shape() => self,
            Some(value) if Shape::broadcast(&self.shape(), &shape) == Some(shape) => {
                self.tape.fill(shape, value)
            }
            _ => self.tape.record(Op::Broadcast, &[self], Some(shape)),
        }
    }

    /// `len` indices from `start` on along an axis.
    #[track_caller]
    pub fn slice(self, axis: usize, start: usize, len: usize) -> Var<'t> {
        let shape = self.shape();
        if axis >= shape.rank() {
            return self.tape.fail(
                "slice",
                format!("{shape} has no axis {axis}"),
                std::panic::Location::caller(),
            );
        }
        let mut first = vec![0; shape.rank()];
        first[axis] = start;
        self.slice_box(first, shape.with(axis, len))
    }

    /// The box of this shape that begins at `start`.
    #[track_caller]
    pub fn slice_box(self, start: Vec<usize>, shape: Shape) -> Var<'t> {
        self.tape.record(Op::Slice { start }, &[self], Some(shape))
    }

    /// Zeros around x: the result has `shape`, x begins at `before`.
    #[track_caller]
    pub fn pad(self, before: &[usize], shape: impl Into<Shape>) -> Var<'t> {
        self.tape.record(Op::Pad { before: before.to_vec() }, &[self], Some(shape.into()))
    }

    /// This and others joined along an axis.
    #[track_caller]
    pub fn concat(self, others: &[Var<'t>], axis: usize) -> Var<'t> {
        let mut all = vec![self];
        all.extend_from_slice(others);
        self.tape.record(Op::Concat { axis }, &all, None)
    }

    /// Sum over axes, which stay with extent 1.
    #[track_caller]
    pub fn sum(self, axes: &[usize]) -> Var<'t> {
        self.reduce(Reduction::Sum, Axes::new(axes))
    }

    /// Sum of everything, a scalar.
    #[track_caller]
    pub fn sum_all(self) -> Var<'t> {
        self.reduce(Reduction::Sum, Axes::all(self.shape().rank())).reshape([])
    }

    /// Mean over axes, which stay with extent 1.
    #[track_caller]
    pub fn mean(self, axes: &[usize]) -> Var<'t> {
        let sum = self.sum(axes);
        sum.scale(sum.shape().len() as f64 / self.shape().len() as f64)
    }

    /// Mean of everything, a scalar.
    #[track_caller]
    pub fn mean_all(self) -> Var<'t> {
        self.sum_all().scale(1.0 / self.shape().len() as f64)
    }

    /// Largest over axes, which stay with extent 1.
    #[track_caller]
    pub fn amax(self, axes: &[usize]) -> Var<'t> {
        self.reduce(Reduction::Max, Axes::new(axes))
    }

    #[track_caller]
    pub(super) fn reduce(self, kind: Reduction, axes: Axes) -> Var<'t> {
        let shape = self.shape();
        if (0..shape.rank()).all(|axis| !axes.has(axis) || shape[axis] == 1) && axes.0 >> shape.rank() == 0 {
            return self;
        }
        self.tape.record(Op::Reduce { kind, axes }, &[self], None)
    }

    /// Sum over all axes but the first, which stay with extent 1: one number an example.
    #[track_caller]
    pub fn sum_per_example(self) -> Var<'t> {
        self.sum(&(1..self.shape().rank()).collect::<Vec<_>>())
    }

    /// L1 norm of each example, `[B, 1, ..]`.
    #[track_caller]
    pub fn norm_l1(self) -> Var<'t> {
        self.abs().sum_per_example()
    }

    /// L2 norm of each example, `[B, 1, ..]`.
    #[track_caller]
    pub fn norm_l2(self) -> Var<'t> {
        self.square().sum_per_example().sqrt()
    }

    /// Linf norm of each example, `[B, 1, ..]`.
    #[track_caller]
    pub fn norm_linf(self) -> Var<'t> {
        self.abs().amax(&(1..self.shape().rank()).collect::<Vec<_>>())
    }

    /// Index of the largest along the last axis (the first of equals), u32; no gradient.
    #[track_caller]
    pub fn argmax(self) -> Var<'t> {
        self.tape.record(Op::ArgMax, &[self], None)
    }

    /// Matrix product `[M,K] [K,N]`.
    #[track_caller]
    pub fn matmul(self, other: Var<'t>) -> Var<'t> {
        self.matmul_t(false, other, false)
    }

    /// Matrix product with either factor transposed first.
    #[track_caller]
    pub fn matmul_t(self, ta: bool, other: Var<'t>, tb: bool) -> Var<'t> {
        self.tape.record(Op::MatMul { ta, tb }, &[self, other], None)
    }

    /// Convolution of NHWC by an HWIO filter.
    #[track_caller]
    pub fn conv2d(self, filter: Var<'t>, conv: Conv2d) -> Var<'t> {
        self.tape.record(Op::Conv2d(conv), &[self, filter], None)
    }

    /// Gradient of a convolution by its input of shape `input`, from the gradient by its result: a transposed
    /// convolution.
    #[track_caller]
    pub fn conv2d_input_grad(self, filter: Var<'t>, input: Shape, conv: Conv2d) -> Var<'t> {
        self.tape.record(Op::Conv2dInputGrad(conv), &[self, filter], Some(input))
    }

    /// Gradient of a convolution of this input by its filter of shape `filter`, from the gradient by its result.
    #[track_caller]
    pub fn conv2d_weight_grad(self, dy: Var<'t>, filter: Shape, conv: Conv2d) -> Var<'t> {
        self.tape.record(Op::Conv2dWeightGrad(conv), &[self, dy], Some(filter))
    }

    /// Maximum over windows of NHWC.
    #[track_caller]
    pub fn max_pool(self, pool: Pool) -> Var<'t> {
        let index = self.tape.record(Op::MaxPoolIndex(pool), &[self], None);
        self.tape.record(Op::PoolGather(pool), &[self, index], None)
    }

    /// Average over windows of NHWC, padding counted as zeros.
    #[track_caller]
    pub fn avg_pool(self, pool: Pool) -> Var<'t> {
        self.tape.record(Op::AvgPool(pool), &[self], None)
    }

    /// Mean over rows and columns: `[N,H,W,C]` to `[N,C]`.
    #[track_caller]
    pub fn global_avg_pool(self) -> Var<'t> {
        let shape = self.shape();
        if shape.rank() != 4 {
            let message = format!("{shape} must have 4 axes (NHWC)");
            return self.tape.fail("global_avg_pool", message, std::panic::Location::caller());
        }
        self.mean(&[1, 2]).reshape([shape[0], shape[3]])
    }

    /// Batch norm by the variable's own statistics, `[C]` each: its mean over all axes but the last, and the inverse
    /// of its standard deviation (with epsilon). See [`Op::BatchNorm`].
    #[track_caller]
    pub fn batch_norm(self, mean: Var<'t>, inverse: Var<'t>, weight: Var<'t>, bias: Var<'t>) -> Var<'t> {
        self.tape.record(Op::BatchNorm, &[self, mean, inverse, weight, bias], None)
    }

    /// Softmax over the last axis.
    #[track_caller]
    pub fn softmax(self) -> Var<'t> {
        self.tape.record(Op::Softmax, &[self], None)
    }

    /// Log-softmax over the last axis.
    #[track_caller]
    pub fn log_softmax(self) -> Var<'t> {
        self.tape.record(Op::LogSoftmax, &[self], None)
    }

    /// Cross-entropy of logits `[B,C]` against u32 labels `[B]`: `[B]`, in nats.
    #[track_caller]
    pub fn cross_entropy(self, labels: Var<'t>) -> Var<'t> {
        self.tape.record(Op::CrossEntropy, &[self, labels], None)
    }

    /// Where [`Var::cross_entropy`] rises fastest, as `[B,C]`: its gradient by these logits, each example's multiplied
    /// by the power of two that brings its largest magnitude into [1/2, 1) (zeros stay zeros); no gradient. An attack
    /// that goes by the gradient's direction alone needs no more, and what follows is in range for half precision
    /// however sure the network is.
    #[track_caller]
    pub fn cross_entropy_direction(self, labels: Var<'t>) -> Var<'t> {
        self.tape.record(Op::CrossEntropyDirection, &[self, labels], None)
    }

    /// Cross-entropy of logits `[B,C]` against probabilities `[B,C]`: `[B]`, in nats.
    #[track_caller]
    pub fn cross_entropy_soft(self, targets: Var<'t>) -> Var<'t> {
        let loss = (targets * self.log_softmax()).sum_per_example().scale(-1.0);
        loss.reshape([self.shape().dims().first().copied().unwrap_or(1)])
    }

    /// KL(softmax(target) || softmax(self)) of logits `[B,C]`: `[B]`, in nats. Log-softmax on both sides, so that no
    /// probability is ever 0 inside a logarithm; the gradient flows through both.
    #[track_caller]
    pub fn kl_divergence(self, target: Var<'t>) -> Var<'t> {
        let (log_q, log_p) = (self.log_softmax(), target.log_softmax());
        let kl = (log_p.exp() * (log_p - log_q)).sum_per_example();
        kl.reshape([self.shape().dims().first().copied().unwrap_or(1)])
    }

    /// 1 where the label's logit is the largest of its row (the first of equals), else 0: `[B]`; no gradient.
    #[track_caller]
    pub fn correct(self, labels: Var<'t>) -> Var<'t> {
        self.tape.record(Op::Correct, &[self, labels], None)
    }

    /// u32 labels `[B]` as floats `[B, classes]`; no gradient.
    #[track_caller]
    pub fn one_hot(self, classes: usize) -> Var<'t> {
        let batch = self.shape().dims().first().copied().unwrap_or(1);
        self.tape.record(Op::OneHot, &[self], Some(Shape::new(&[batch, classes])))
    }

    /// Rows `index` (u32 `[B]`) of this table; u8 becomes floats in [0, 1]; no gradient.
    #[track_caller]
    pub fn gather_rows(self, index: Var<'t>) -> Var<'t> {
        self.tape.record(Op::GatherRows, &[self, index], None)
    }

    /// Images `draw.example` of this table u8 `[N,H,W,C]`, changed at random and divided by 255: `[B,H,W,C]`; no
    /// gradient.
    #[track_caller]
    pub fn augmented(self, augment: Augment, draw: Draw<'t>) -> Var<'t> {
        let batch = draw.example.shape().dims().first().copied().unwrap_or(1);
        let uniform = draw.uniform(Purpose::AUGMENT, Shape::new(&[batch, Augment::DRAWS]));
        self.tape.record(Op::Augment(augment), &[self, draw.example, uniform], None)
    }

    /// x with each element zeroed with probability `p` and the others divided by `1 - p`.
    #[track_caller]
    pub fn dropout(self, p: f64, draw: Draw<'t>, stream: u32) -> Var<'t> {
        let uniform = draw.uniform(Purpose::DROPOUT.stream(stream), self.shape());
        // u >= p keeps: with p = 0 everything, as u is never negative.
        let keep = uniform.greater_equal(self.tape.fill(self.shape(), p));
        self.scale(1.0 / (1.0 - p)).gate(keep, 0.0)
    }
}

impl<'t> Draw<'t> {
    #[track_caller]
    fn random(self, distribution: Distribution, purpose: Purpose, shape: Shape) -> Var<'t> {
        let op = Op::Random { distribution, purpose };
        self.key.tape.record(op, &[self.key, self.counter, self.example], Some(shape))
    }

    /// Uniform in [0, 1), of shape `[B, ..]`.
    #[track_caller]
    pub fn uniform(self, purpose: Purpose, shape: Shape) -> Var<'t> {
        self.random(Distribution::Uniform, purpose, shape)
    }

    /// Standard normal, of shape `[B, ..]`.
    #[track_caller]
    pub fn normal(self, purpose: Purpose, shape: Shape) -> Var<'t> {
        self.random(Distribution::Normal, purpose, shape)
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident $op:expr),*) => {$(
        impl<'t> std::ops::$trait for Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, other: Var<'t>) -> Var<'t> {
                self.binary($op, other)
            }
        }
    )*};
}
arithmetic!(Add add Binary::Add, Sub sub Binary::Sub, Mul mul Binary::Mul, Div div Binary::Div);

impl<'t> std::ops::Neg for Var<'t> {
    type Output = Var<'t>;
    #[track_caller]
    fn neg(self) -> Var<'t> {
        self.scale(-1.0)
    }
}
