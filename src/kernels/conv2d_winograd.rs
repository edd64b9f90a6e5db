//! Host side of shaders/conv2d_winograd.wgsl: convolutions by 3x3 filters with stride 1, and their input gradients, by
//! Winograd's tiles of 4 x 4 results. Filters and images are transformed into 36 planes of scratch memory, 36 matrix
//! products of matmul.rs stand between, and a last transform brings the results back and finishes them.
//!
//! The transformed filter is made anew by every launch; what keeping it over a repeat would save and cost is told in
//! docs/decisions/gpu-products.md.

use super::gemm::{Family, Product};
use super::{Arg, Call, Calls, Shader, Target, matmul, params};
use crate::launch::{ConvShape, Launch};

/// shaders/conv2d_winograd.wgsl.
pub(super) static SHADER: Shader = Shader {
    path: "conv2d_winograd.wgsl",
    text: include_str!("../../shaders/conv2d_winograd.wgsl"),
    fields: Params::FIELDS,
};

params! {
    /// Channels of x in the filter.
    filter_c: u32,
    /// Vectors of channels of y in the filter.
    filter_k: u32,
    /// Rows of what is read.
    h: u32,
    /// Columns of what is read.
    w: u32,
    /// Vectors of channels of what is read.
    c: u32,
    /// Rows of the result.
    p: u32,
    /// Columns of the result.
    q: u32,
    /// Vectors of channels of the result.
    k: u32,
    /// Zeros above what is read.
    top: u32,
    /// Zeros left of what is read.
    left: u32,
    /// Tiles of an image, down.
    tiles_h: u32,
    /// Tiles of an image, across.
    tiles_w: u32,
    /// Tiles of the dispatch.
    tiles: u32,
    /// The first image of the dispatch.
    first: u32,
}

/// Products for a tile and pair of channels.
const PLANES: usize = 36;
/// Results of a tile along an axis.
const TILE: usize = 4;
/// Invocations of a workgroup.
const WORKGROUP: usize = 32;
/// Most bytes of the transformed images, and of the products: where a batch takes more, it is done in parts.
const MAX_PART: usize = 32 << 20;
/// Least channels for which it is the default on software Vulkan.
const CHANNELS: usize = 64;

/// A convolution, or its input gradient, as a convolution of stride 1.
struct Plan {
    n: usize,
    source: [usize; 2],
    result: [usize; 2],
    before: [usize; 2],
    cin: usize,
    cout: usize,
    transposed: bool,
}

impl Plan {
    fn new(shape: &ConvShape, transposed: bool) -> Plan {
        let ConvShape { n, h, w, c, p, q, k, padding, .. } = *shape;
        if transposed {
            let before = padding.map(|padding| 2 - padding);
            Plan { n, source: [p, q], result: [h, w], before, cin: k, cout: c, transposed }
        } else {
            Plan { n, source: [h, w], result: [p, q], before: padding, cin: c, cout: k, transposed }
        }
    }

    /// Tiles of an image, down and across.
    fn tiles(&self) -> [usize; 2] {
        self.result.map(|extent| extent.div_ceil(TILE))
    }

    /// Images of a part.
    fn images(&self) -> usize {
        let [down, across] = self.tiles();
        let bytes = 4 * PLANES * down * across * self.cin.max(self.cout);
        let parts = self.n.div_ceil((MAX_PART / bytes).max(1));
        self.n.div_ceil(parts)
    }

    /// One of the 36 products, for some images.
    fn product(&self, images: usize) -> Product {
        let [down, across] = self.tiles();
        Product {
            rows: images * down * across,
            columns: self.cout,
            depth: self.cin,
            planes: PLANES,
            a_rows: false,
            b_columns: !self.transposed,
            a_vec4: true,
            b_vec4: true,
            out_vec4: true,
            half: false,
        }
    }
}

/// Whether a convolution can be done so, as its input gradient.
pub(super) fn fits(s: &ConvShape) -> bool {
    [s.r, s.s] == [3, 3]
        && s.stride == [1, 1]
        && s.dilation == [1, 1]
        && s.groups == 1
        && s.padding.iter().all(|&padding| padding <= 2)
        && s.c.is_multiple_of(4)
        && s.k.is_multiple_of(4)
        && s.n * s.c * s.k * s.p * s.q > 0
        // The transformed image of one example, and the filter, are within what a binding holds.
        && 4 * PLANES * s.p.max(s.h).div_ceil(TILE) * s.q.max(s.w).div_ceil(TILE) * s.c.max(s.k) <= MAX_PART
        && 4 * PLANES * s.c * s.k <= 3 * MAX_PART
}

/// Whether it is what to do unmeasured: on software Vulkan with channels enough. On hardware it was never measured.
pub(super) fn pays(s: &ConvShape, target: &Target) -> bool {
    target.software && target.subgroup.is_some() && s.c.min(s.k) >= CHANNELS
}

/// The families that its products can be done by, the one to take unmeasured first.
pub(super) fn families(shape: &ConvShape, transposed: bool, target: &Target) -> Vec<Family> {
    let plan = Plan::new(shape, transposed);
    Family::fitting(&plan.product(plan.images()), target)
}

/// The dispatches of a convolution, or (`transposed`) of its input gradient.
pub(super) fn calls(
    family: Family,
    shape: &ConvShape,
    transposed: bool,
    launch: &Launch,
    target: &Target,
) -> Calls {
    let plan = Plan::new(shape, transposed);
    let [down, across] = plan.tiles();
    let params = |first: usize, images: usize| Params {
        filter_c: shape.c as u32,
        filter_k: shape.k as u32 / 4,
        h: plan.source[0] as u32,
        w: plan.source[1] as u32,
        c: plan.cin as u32 / 4,
        p: plan.result[0] as u32,
        q: plan.result[1] as u32,
        k: plan.cout as u32 / 4,
        top: plan.before[0] as u32,
        left: plan.before[1] as u32,
        tiles_h: down as u32,
        tiles_w: across as u32,
        tiles: (images * down * across) as u32,
        first: first as u32,
    };
    let transform = |entry, params: &Params, invocations: usize, input: Arg, output: Arg| {
        let grid = target.grid(invocations.div_ceil(WORKGROUP));
        let mut call = Call::new(&SHADER, entry, params, launch, grid);
        call.inputs = vec![input];
        call.output = output;
        call.stages = output == Arg::Output;
        call.constant("WORKGROUP", WORKGROUP as u32).in_fours(true, launch)
    };
    let images = plan.images();
    let (inputs, filters, products) = (Arg::Scratch(0), Arg::Scratch(1), Arg::Scratch(2));
    let pairs = shape.c * shape.k;
    let filter = transform("filters", &params(0, images), pairs / 4, Arg::Input(1), filters);
    let mut list = vec![filter.constant("TURNED", transposed.into())];
    for first in (0..plan.n).step_by(images) {
        let some = images.min(plan.n - first);
        let (params, product) = (params(first, some), plan.product(some));
        let rows = product.rows;
        list.push(transform("inputs", &params, rows * plan.cin / 4, Arg::Input(0), inputs));
        let mut call = matmul::planes(family, &product, launch, target);
        (call.inputs, call.output) = (vec![inputs, filters], products);
        list.push(call);
        list.push(transform("results", &params, rows * plan.cout / 4, products, Arg::Output));
    }
    let bytes = |channels: usize| (4 * PLANES * images * down * across * channels) as u64;
    Calls { list, scratch: vec![bytes(plan.cin), (4 * PLANES * pairs) as u64, bytes(plan.cout)] }
}
