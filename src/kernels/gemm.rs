//! What the matrix product and the convolutions share: two families of product kernels, and the choice between them.
//!
//! * shaders/common/gemm_tile.wgsl: blocks of both operands go through workgroup memory. For hardware GPUs; runs
//!   everywhere.
//! * shaders/common/gemm_register.wgsl: a subgroup holds its tile in registers and hands one operand round by
//!   shuffles. For software Vulkan, where a load from workgroup memory costs what any other load costs (20
//!   multiply-adds) and a shuffle one multiply-add; only for subgroups of a known size.

use super::{Arg, Call, Shader, Target, params, stages};
use crate::launch::Launch;

/// shaders/matmul_shares.wgsl.
pub(super) static SHARES: Shader = Shader {
    path: "matmul_shares.wgsl",
    text: include_str!("../../shaders/matmul_shares.wgsl"),
    fields: Params::FIELDS,
};

params! {
    /// Elements of the result, or vectors of four.
    len: u32,
    /// Partial results of each.
    shares: u32,
}

/// Depths of a share are multiples of this: the blocks of one family, the vectors of the other.
const DEPTH_BLOCK: usize = 16;
/// Most bytes of partial results.
const MAX_SCRATCH: usize = 64 << 20;

/// A product `[rows, columns]` over `depth`, `planes` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    /// Products of these extents in one dispatch: groups, phases.
    pub planes: usize,
    /// The left operand is contiguous along the rows, not along the depth.
    pub a_rows: bool,
    /// The right operand is contiguous along the columns, not along the depth.
    pub b_columns: bool,
    /// The contiguous axis of the left operand comes in fours.
    pub a_vec4: bool,
    /// The contiguous axis of the right operand comes in fours.
    pub b_vec4: bool,
    /// The columns of the result come in fours.
    pub out_vec4: bool,
}

/// A family with its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Workgroups of 256 with tiles of `64 rm` rows and 64 columns.
    Tile {
        /// Vectors of four rows a thread.
        rm: usize,
    },
    /// Subgroups of `sg` lanes with tiles of `tm` rows and `4 tn sg` columns.
    Register {
        /// Lanes.
        sg: usize,
        /// Rows.
        tm: usize,
        /// Vectors of four columns a lane.
        tn: usize,
    },
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Family::Tile { rm } => write!(f, "tile {}x64", 64 * rm),
            Family::Register { sg, tm, tn } => write!(f, "registers {tm}x{}", 4 * tn * sg),
        }
    }
}

impl Family {
    /// The families and tiles that fit a product on a target, the one to take unmeasured first.
    pub fn fitting(product: &Product, target: &Target) -> Vec<Family> {
        let Product { rows, columns, .. } = *product;
        let (default, others) = if let (true, Some([4, 4] | [8, 8])) = (target.software, target.subgroup) {
            let sg = target.subgroup.map_or(8, |[size, _]| size as usize);
            // 32 rows is the most that Mesa unrolls, and the least that rows loaded in fours need.
            let tm = if product.a_rows || rows > 16 { 32 } else { rows.next_multiple_of(8).max(8) };
            let tn = if columns > 4 * sg { 2 } else { 1 };
            let fewer = if product.a_rows { 32 } else { 16.min(tm) };
            let others = [(tm, 3 - tn), (fewer, tn)].map(|(tm, tn)| Family::Register { sg, tm, tn });
            (Family::Register { sg, tm, tn }, others)
        } else {
            // The larger tile loads less for each product, once there are workgroups enough for a large card.
            let large = rows.div_ceil(128) * columns.div_ceil(64) * product.planes >= 512;
            let tile = |rm: usize| Family::Tile { rm };
            (tile(if large { 2 } else { 1 }), [tile(1), tile(2)])
        };
        let mut families = vec![default];
        for family in others {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// The family and tile for a product on a target.
    pub fn choose(product: &Product, target: &Target) -> Family {
        Family::fitting(product, target)[0]
    }

    /// Tiles of a plane.
    fn tiles(&self, product: &Product) -> usize {
        let (rows, columns) = match *self {
            Family::Tile { rm } => (64 * rm, 64),
            Family::Register { sg, tm, tn } => (tm, 4 * tn * sg),
        };
        product.rows.div_ceil(rows) * product.columns.div_ceil(columns)
    }

    /// Into how many shares the depth is cut and how long each is: enough workgroups for the device's cores, and sums
    /// short enough that the rounding of a long one stays small.
    pub fn shares(&self, product: &Product) -> (usize, usize) {
        let (workgroups, least, most) = match self {
            Family::Tile { .. } => (256, 256, 8192),
            Family::Register { .. } => (8, 512, 8192),
        };
        let tiles = self.tiles(product) * product.planes;
        let wanted = (workgroups / tiles.max(1)).min(product.depth / least);
        let bytes = 4 * product.rows * product.columns * product.planes;
        share(product.depth, wanted.max(product.depth.div_ceil(most)).min(MAX_SCRATCH / bytes.max(1)))
    }

    /// The dispatch of a product: `shaders` are the files of the two families, `planes` counts shares too.
    pub fn call<P: bytemuck::Pod>(
        &self,
        shaders: [&'static Shader; 2],
        params: &P,
        product: &Product,
        planes: usize,
        launch: &Launch,
        target: &Target,
    ) -> Call {
        let [tile, register] = shaders;
        let mut grid = target.grid(self.tiles(product));
        grid[2] = planes as u32;
        let call = match *self {
            Family::Tile { rm } => Call::new(tile, "product", params, launch, grid).constant("RM", rm as u32),
            Family::Register { sg, tm, tn } => Call::new(register, "product", params, launch, grid)
                .constant("SG", sg as u32)
                .constant("TM", tm as u32)
                .constant("TN", tn as u32),
        };
        let mut call =
            call.constant("A_ROWS", product.a_rows.into()).constant("B_COLUMNS", product.b_columns.into());
        call = call.in_fours(product.out_vec4 && matches!(self, Family::Register { .. }), launch);
        if !product.a_vec4 {
            call = call.include("common/a_vec4.wgsl", "common/a_scalar.wgsl");
        }
        if !product.b_vec4 {
            call = call.include("common/b_vec4.wgsl", "common/b_scalar.wgsl");
        }
        call
    }
}

/// `depth` cut into at most `wanted` shares: how many, and the length of all but the last.
pub(super) fn share(depth: usize, wanted: usize) -> (usize, usize) {
    let chunk = depth.div_ceil(wanted.max(1)).next_multiple_of(DEPTH_BLOCK).max(DEPTH_BLOCK);
    (depth.div_ceil(chunk).max(1), chunk)
}

/// The call that adds `shares` partial results of scratch buffer 0 and finishes them.
pub(super) fn total(shares: usize, launch: &Launch, target: &Target) -> Call {
    let fours = stages::in_fours(launch);
    let len = if fours { launch.shape.len() / 4 } else { launch.shape.len() };
    let params = Params { len: len as u32, shares: shares as u32 };
    let mut call = Call::new(&SHARES, "total", &params, launch, target.grid(len.div_ceil(64)));
    call.inputs = vec![Arg::Scratch(0)];
    if fours {
        call.include("common/x_scalar.wgsl", "common/x_vec4.wgsl").in_fours(true, launch)
    } else {
        call
    }
}

/// Makes a call leave its result in scratch buffer 0, unfinished.
pub(super) fn into_scratch(mut call: Call) -> Call {
    call.output = Arg::Scratch(0);
    call.stages = false;
    call
}
