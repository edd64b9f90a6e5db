//! Host side of shaders/conv2d.wgsl, shaders/conv2d_register.wgsl and shaders/conv2d_direct.wgsl.
//!
//! Five ways: a product of two operands that are never laid out in memory (the families of gemm.rs); with fewer
//! multiplications, for 3x3 filters, by Winograd's tiles (conv2d_winograd.rs); an invocation an element, for groups so
//! small that a tile would be mostly idle; and, for an input gradient of few channels (the first layer's, which every
//! step of an attack needs), some pixels an invocation (conv2d_image.rs), or, where that does not fit, a matrix product
//! of `dy` with the whole filter and a fold.

use super::conv2d_image::{self, Tile};
use super::conv2d_winograd;
use super::gemm::{self, Family, Product};
use super::{Arg, Call, Calls, Shader, Target, matmul, params};
use crate::error::{Error, Result};
use crate::launch::{ConvShape, Kernel, Launch};

/// shaders/conv2d.wgsl.
static TILE: Shader =
    Shader { path: "conv2d.wgsl", text: include_str!("../../shaders/conv2d.wgsl"), fields: Params::FIELDS };
/// shaders/conv2d_register.wgsl.
static REGISTER: Shader = Shader {
    path: "conv2d_register.wgsl",
    text: include_str!("../../shaders/conv2d_register.wgsl"),
    fields: Params::FIELDS,
};
/// shaders/conv2d_cooperative.wgsl.
static COOPERATIVE: Shader = Shader {
    path: "conv2d_cooperative.wgsl",
    text: include_str!("../../shaders/conv2d_cooperative.wgsl"),
    fields: Params::FIELDS,
};
/// shaders/conv2d_direct.wgsl.
static DIRECT: Shader = Shader {
    path: "conv2d_direct.wgsl",
    text: include_str!("../../shaders/conv2d_direct.wgsl"),
    fields: Params::FIELDS,
};

params! {
    n: u32,
    h: u32,
    w: u32,
    c: u32,
    r: u32,
    s: u32,
    p: u32,
    q: u32,
    k: u32,
    /// Channels of a group of x.
    cg: u32,
    /// Channels of a group of y.
    kg: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    dilation_h: u32,
    dilation_w: u32,
    /// Distance between rows of taps that divide in the same phase.
    step_h: u32,
    /// Distance between columns of taps that divide in the same phase.
    step_w: u32,
    /// Depth of a share.
    chunk: u32,
    /// Shares of the depth.
    shares: u32,
    /// Elements between the results of shares.
    partial: u32,
}

/// Which of the three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Forward,
    InputGrad,
    WeightGrad,
}

/// Columns of a group below which an invocation an element beats a tile, by family: a tile of hardware has 64
/// columns; on software Vulkan a tile's idle lanes are nearly free beside its loads.
const DIRECT_BELOW_TILE: usize = 8;
const DIRECT_BELOW_REGISTER: usize = 3;
/// Channels of x up to which an input gradient is a matrix product and a fold.
const FOLD_CHANNELS: usize = 8;
/// Most bytes of the product that is folded.
const MAX_FOLDED: usize = 64 << 20;

/// The shader files of this family.
pub(super) fn shaders() -> Vec<&'static Shader> {
    vec![&TILE, &REGISTER, &COOPERATIVE, &DIRECT, &conv2d_image::SHADER, &conv2d_winograd::SHADER]
}

impl Params {
    fn new(shape: &ConvShape) -> Params {
        let ConvShape { n, h, w, c, r, s, p, q, k, stride, padding, dilation, groups } = *shape;
        let step = step(shape).map(|step| step as u32);
        Params {
            n: n as u32,
            h: h as u32,
            w: w as u32,
            c: c as u32,
            r: r as u32,
            s: s as u32,
            p: p as u32,
            q: q as u32,
            k: k as u32,
            cg: (c / groups) as u32,
            kg: (k / groups) as u32,
            stride_h: stride[0] as u32,
            stride_w: stride[1] as u32,
            padding_h: padding[0] as u32,
            padding_w: padding[1] as u32,
            dilation_h: dilation[0] as u32,
            dilation_w: dilation[1] as u32,
            step_h: step[0],
            step_w: step[1],
            chunk: 0,
            shares: 1,
            partial: 0,
        }
    }

    /// With the depth in shares of a length, for a result of `len` elements.
    fn shared(mut self, (shares, chunk): (usize, usize), len: usize) -> Params {
        self.chunk = chunk as u32;
        self.shares = shares as u32;
        self.partial = if shares > 1 { len as u32 } else { 0 };
        self
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Distance between taps that divide in the same phase of a strided input gradient, in rows and columns.
fn step(shape: &ConvShape) -> [usize; 2] {
    [0, 1].map(|axis| shape.stride[axis] / gcd(shape.stride[axis], shape.dilation[axis]))
}

/// The product a verb is, a plane for each group and each phase of a strided input gradient.
fn product(verb: Verb, shape: &ConvShape, half: bool) -> Product {
    let ConvShape { n, h, w, c, r, s, p, q, k, stride, groups, .. } = *shape;
    let (cg, kg) = (c / groups, k / groups);
    let fours = |extent: usize| extent.is_multiple_of(4);
    let (rows, columns, depth, planes, a) = match verb {
        Verb::Forward => (n * p * q, kg, r * s * cg, groups, cg),
        // Taps of the phase that has most.
        Verb::InputGrad => {
            let rows = n * h.div_ceil(stride[0]) * w.div_ceil(stride[1]);
            let [step_h, step_w] = step(shape);
            let taps = r.div_ceil(step_h) * s.div_ceil(step_w);
            (rows, cg, taps * kg, groups * stride[0] * stride[1], kg)
        }
        Verb::WeightGrad => (r * s * cg, kg, n * p * q, groups, cg),
    };
    Product {
        rows,
        columns,
        depth,
        planes,
        a_rows: verb == Verb::WeightGrad,
        b_columns: verb != Verb::InputGrad,
        a_vec4: fours(a),
        b_vec4: fours(kg),
        out_vec4: fours(columns),
        half,
    }
}

/// A way to compute a convolution or one of its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An implicit product.
    Product(Family),
    /// Winograd's tiles around products.
    Winograd(Family),
    /// An invocation an element.
    Direct,
    /// An input gradient of few channels, some pixels an invocation.
    Pixels(Tile),
    /// An input gradient as a matrix product and a fold.
    Fold,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Form::Product(family) => family.fmt(f),
            Form::Winograd(family) => write!(f, "Winograd, {family}"),
            Form::Direct => f.write_str("direct"),
            Form::Pixels(tile) => tile.fmt(f),
            Form::Fold => f.write_str("product and fold"),
        }
    }
}

fn verb_of(launch: &Launch) -> (Verb, &ConvShape) {
    match &launch.kernel {
        Kernel::Conv2d(shape) => (Verb::Forward, shape),
        Kernel::Conv2dInputGrad(shape) => (Verb::InputGrad, shape),
        Kernel::Conv2dWeightGrad(shape) => (Verb::WeightGrad, shape),
        other => unreachable!("{} is not a convolution", other.name()),
    }
}

/// Elements of the product that is folded.
fn folded(shape: &ConvShape) -> usize {
    shape.n * shape.p * shape.q * shape.r * shape.s * shape.c
}

/// The ways that fit a launch on a target, the one to take unmeasured first.
pub(super) fn forms(launch: &Launch, target: &Target) -> Vec<Form> {
    let (verb, shape) = verb_of(launch);
    let product = product(verb, shape, launch.is_half_product());
    let families = Family::fitting(&product, target);
    let direct_below = match families[0] {
        Family::Tile(_) | Family::Cooperative(_) => DIRECT_BELOW_TILE,
        Family::Register { .. } => DIRECT_BELOW_REGISTER,
    };
    let mut forms = Vec::new();
    if verb == Verb::InputGrad {
        forms.extend(conv2d_image::tiles(shape, target).into_iter().map(Form::Pixels));
    }
    if verb == Verb::InputGrad
        && shape.groups == 1
        && shape.c <= FOLD_CHANNELS
        && (1..=MAX_FOLDED / 4).contains(&folded(shape))
    {
        forms.push(Form::Fold);
    }
    if shape.groups > 1 && product.columns < direct_below {
        forms.push(Form::Direct);
    }
    let mut tiles: Vec<Form> = Vec::new();
    if verb != Verb::WeightGrad && conv2d_winograd::fits(shape) {
        let families = conv2d_winograd::families(shape, verb == Verb::InputGrad, target);
        tiles.extend(families.into_iter().take(2).map(Form::Winograd));
    }
    if conv2d_winograd::pays(shape, target) {
        forms.append(&mut tiles);
    }
    forms.extend(families.into_iter().map(Form::Product));
    forms.append(&mut tiles);
    forms
}

/// The dispatches of a convolution or of one of its gradients.
///
/// # Errors
/// [`Error::Unsupported`] for more groups times phases than a grid has planes.
pub(super) fn calls(form: Form, launch: &Launch, target: &Target) -> Result<Calls> {
    let (verb, shape) = verb_of(launch);
    let family = match form {
        Form::Product(family) => family,
        Form::Winograd(family) => {
            return Ok(conv2d_winograd::calls(family, shape, verb == Verb::InputGrad, launch, target));
        }
        Form::Direct => return Ok(direct(verb, shape, launch, target)),
        Form::Pixels(tile) => return Ok(conv2d_image::call(tile, shape, launch, target).into()),
        Form::Fold => return Ok(fold(shape, folded(shape), launch, target)),
    };
    let product = product(verb, shape, launch.is_half_product());
    let shares = family.shares(&product);
    let planes = product.planes * shares.0;
    if planes > target.workgroups as usize {
        let why = format!("{launch}: {planes} groups, phases and shares are more than a grid has planes");
        return Err(Error::Unsupported(why));
    }
    let len = launch.shape.len();
    let params = Params::new(shape).shared(shares, len);
    let mut call = family
        .call([&TILE, &REGISTER, &COOPERATIVE], &params, &product, planes, launch, target)
        .constant("VERB", verb as u32);
    if matches!(family, Family::Register { .. }) && verb == Verb::InputGrad && shape.stride != [1, 1] {
        // Phases read the same pixels of dy and write neighbours.
        call = call.constant("INTERLEAVED", 1);
    }
    Ok(finished(call, shares.0, len, launch, target))
}

/// A call with the sum of its shares after it, if there are several.
fn finished(call: Call, shares: usize, len: usize, launch: &Launch, target: &Target) -> Calls {
    if shares == 1 {
        return call.into();
    }
    Calls {
        list: vec![gemm::into_scratch(call), gemm::total(shares, launch, target)],
        scratch: vec![4 * (shares * len) as u64],
    }
}

/// An input gradient as the product of dy with the whole filter, then a fold.
fn fold(shape: &ConvShape, folded: usize, launch: &Launch, target: &Target) -> Calls {
    let ConvShape { n, c, r, s, p, q, k, .. } = *shape;
    let grid = target.grid(launch.shape.len().div_ceil(64));
    let mut fold = Call::new(&DIRECT, "fold", &Params::new(shape), launch, grid);
    fold.inputs = vec![Arg::Scratch(0)];
    Calls {
        list: vec![matmul::unfinished(n * p * q, r * s * c, k, launch, target), fold],
        scratch: vec![4 * folded as u64],
    }
}

/// An invocation an element.
fn direct(verb: Verb, shape: &ConvShape, launch: &Launch, target: &Target) -> Calls {
    let len = launch.shape.len();
    let mut grid = target.grid(len.div_ceil(64));
    let depth = shape.n * shape.p * shape.q;
    let (entry, shares) = match verb {
        Verb::Forward => ("forward", (1, depth)),
        Verb::InputGrad => ("input_grad", (1, depth)),
        Verb::WeightGrad => {
            let invocations = if target.software { 1 << 10 } else { 1 << 16 };
            let wanted = (invocations / len).clamp(1, (depth / 64).max(1)).max(depth.div_ceil(8192));
            ("weight_grad", gemm::share(depth, wanted))
        }
    };
    grid[2] = shares.0 as u32;
    let params = Params::new(shape).shared(shares, len);
    finished(Call::new(&DIRECT, entry, &params, launch, grid), shares.0, len, launch, target)
}
