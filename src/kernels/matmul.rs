//! Host side of shaders/matmul.wgsl and shaders/matmul_register.wgsl.

use super::gemm::{self, Family, Product};
use super::{Call, Calls, Shader, Target, params};
use crate::launch::{Kernel, Launch};

/// shaders/matmul.wgsl.
static TILE: Shader =
    Shader { path: "matmul.wgsl", text: include_str!("../../shaders/matmul.wgsl"), fields: Params::FIELDS };
/// shaders/matmul_register.wgsl.
static REGISTER: Shader = Shader {
    path: "matmul_register.wgsl",
    text: include_str!("../../shaders/matmul_register.wgsl"),
    fields: Params::FIELDS,
};

/// shaders/matmul_cooperative.wgsl.
static COOPERATIVE: Shader = Shader {
    path: "matmul_cooperative.wgsl",
    text: include_str!("../../shaders/matmul_cooperative.wgsl"),
    fields: Params::FIELDS,
};

params! {
    /// Rows of the result.
    m: u32,
    /// Columns of the result.
    n: u32,
    /// Depth.
    k: u32,
    /// Depth of a share.
    chunk: u32,
    /// Shares.
    shares: u32,
}

/// The shader files of this family.
pub(super) fn shaders() -> Vec<&'static Shader> {
    vec![&TILE, &REGISTER, &COOPERATIVE, &gemm::SHARES]
}

/// A product of `shares` shares of depth `chunk` by a family.
fn call(
    family: Family,
    product: &Product,
    (shares, chunk): (usize, usize),
    launch: &Launch,
    target: &Target,
) -> Call {
    let params = Params {
        m: product.rows as u32,
        n: product.columns as u32,
        k: product.depth as u32,
        chunk: chunk as u32,
        shares: shares as u32,
    };
    let planes = shares * product.planes;
    family.call([&TILE, &REGISTER, &COOPERATIVE], &params, product, planes, launch, target)
}

/// `a [m, k]` times `b [n, k]` transposed, unshared and unfinished, into scratch buffer 0: the first half of a
/// convolution's input gradient of few channels.
pub(super) fn unfinished(m: usize, n: usize, k: usize, launch: &Launch, target: &Target) -> Call {
    let product = product(m, n, k, false, true);
    let family = Family::choose(&product, target);
    gemm::into_scratch(call(family, &product, gemm::share(k, 1), launch, target))
}

/// Several products of the same extents, one behind the other in both operands and in the result, unfinished.
pub(super) fn planes(family: Family, product: &Product, launch: &Launch, target: &Target) -> Call {
    let mut call = call(family, product, gemm::share(product.depth, 1), launch, target);
    call.stages = false;
    call
}

fn product(m: usize, n: usize, k: usize, ta: bool, tb: bool) -> Product {
    let fours = |extent: usize| extent.is_multiple_of(4);
    Product {
        rows: m,
        columns: n,
        depth: k,
        planes: 1,
        a_rows: ta,
        b_columns: !tb,
        a_vec4: fours(if ta { m } else { k }),
        b_vec4: fours(if tb { k } else { n }),
        out_vec4: fours(n),
        half: false,
    }
}

/// The product a launch is.
fn product_of(launch: &Launch) -> Product {
    let Kernel::MatMul { m, n, k, ta, tb } = launch.kernel else {
        unreachable!("{} is not a matrix product", launch.kernel.name());
    };
    Product { half: launch.is_half_product(), ..product(m, n, k, ta, tb) }
}

/// The families that fit a [`Kernel::MatMul`], the one to take unmeasured first.
pub(super) fn families(launch: &Launch, target: &Target) -> Vec<Family> {
    Family::fitting(&product_of(launch), target)
}

/// The dispatches of a [`Kernel::MatMul`] by a family: one, or the shares of a deep product with few rows and columns
/// and their sum.
pub(super) fn calls(family: Family, launch: &Launch, target: &Target) -> Calls {
    let product = product_of(launch);
    let (shares, chunk) = family.shares(&product);
    let call = call(family, &product, (shares, chunk), launch, target);
    if shares == 1 {
        return call.into();
    }
    Calls {
        list: vec![gemm::into_scratch(call), gemm::total(shares, launch, target)],
        scratch: vec![4 * (shares * product.rows * product.columns) as u64],
    }
}
