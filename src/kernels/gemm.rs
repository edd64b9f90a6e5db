//! What the matrix product and the convolutions share: three families of product kernels, and the choice between them.
//!
//! * shaders/common/gemm_tile.wgsl: blocks of both operands go through workgroup memory. For hardware GPUs; runs
//!   everywhere.
//! * shaders/common/gemm_cooperative.wgsl: products in half precision by the units that multiply matrices, where the
//!   adapter has them and they were found right (cooperative.rs).
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
    /// In half precision: both operands may be rounded to f16.
    pub half: bool,
}

/// A family with its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Workgroups with a tile in workgroup memory.
    Tile(Tile),
    /// Subgroups with cooperative matrices.
    Cooperative(Cooperative),
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

/// A tile of common/gemm_tile.wgsl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Threads along the rows.
    wm: usize,
    /// Threads along the columns.
    wn: usize,
    /// Vectors of four rows a thread.
    rm: usize,
    /// Vectors of four columns a thread.
    rn: usize,
}

/// A tile of common/gemm_cooperative.wgsl: `sr` x `sc` subgroups of `sg` lanes with 2 x 2 matrices of `size` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cooperative {
    size: usize,
    sg: usize,
    sr: usize,
    sc: usize,
}

impl Cooperative {
    /// The depth a turn.
    const DEPTH: usize = 32;

    /// The tiles a target runs.
    fn fitting(target: &Target) -> Vec<Cooperative> {
        let (Some(size), Some([low, high])) = (target.cooperative, target.subgroup) else {
            return Vec::new();
        };
        let (size, sg) = (size as usize, low as usize);
        let tile = |(sr, sc)| Cooperative { size, sg, sr, sc };
        let fits = |tile: &Cooperative| {
            // A thread loads one block of 4 x 4 of each operand.
            let blocks = tile.rows().max(tile.columns()) / 4 * (Cooperative::DEPTH / 4);
            let bytes = 2 * Cooperative::DEPTH * (tile.rows() + tile.columns() + 16)
                + 4 * size * size * tile.sr * tile.sc;
            low == high
                && blocks <= tile.threads()
                && tile.threads() <= target.workgroup_invocations.min(256) as usize
                && bytes <= target.workgroup_memory as usize
        };
        [(2, 2), (4, 2), (4, 4)].into_iter().map(tile).filter(fits).collect()
    }

    fn rows(&self) -> usize {
        2 * self.size * self.sr
    }

    fn columns(&self) -> usize {
        2 * self.size * self.sc
    }

    fn threads(&self) -> usize {
        self.sg * self.sr * self.sc
    }

    /// Tiles that cover a plane.
    fn count(&self, product: &Product) -> usize {
        product.rows.div_ceil(self.rows()) * product.columns.div_ceil(self.columns())
    }
}

/// The tiles a hardware GPU chooses from: 128x128 with 8x8 sums a thread, then fewer and smaller ones, which load more
/// for each product and leave less of the device idle.
const TILES: [Tile; 6] = [
    Tile { wm: 16, wn: 16, rm: 2, rn: 2 },
    Tile { wm: 16, wn: 8, rm: 2, rn: 2 },
    Tile { wm: 8, wn: 16, rm: 2, rn: 2 },
    Tile { wm: 8, wn: 16, rm: 2, rn: 1 },
    Tile { wm: 16, wn: 8, rm: 2, rn: 1 },
    Tile { wm: 8, wn: 8, rm: 1, rn: 1 },
];

/// Threads that a large GPU of today wants to be busy with: 128 cores of 256.
const BUSY_THREADS: usize = 128 * 256;
/// Fewest depths of a share on hardware.
const SHORTEST_SHARE: usize = 256;

impl Tile {
    fn rows(&self) -> usize {
        4 * self.rm * self.wm
    }

    fn columns(&self) -> usize {
        4 * self.rn * self.wn
    }

    fn threads(&self) -> usize {
        self.wm * self.wn
    }

    /// Tiles that cover a plane.
    fn count(&self, product: &Product) -> usize {
        product.rows.div_ceil(self.rows()) * product.columns.div_ceil(self.columns())
    }

    /// The depth a turn: 16, or 8 where two padded blocks of 16 exceed the workgroup memory.
    fn depth(&self, target: &Target) -> usize {
        let bytes = 16 * 16 * (self.rm * self.wm + self.rn * self.wn + 2);
        if bytes <= target.workgroup_memory as usize { 16 } else { 8 }
    }

    /// What a product costs by this tile, in no unit: the multiply-adds of whole tiles, what is loaded for each, over
    /// the share of a large device that is busy. The depth may be shared where there are few tiles. A guess that was
    /// never measured on hardware: it orders the tiles for where nothing was measured.
    fn cost(&self, product: &Product) -> f64 {
        let (rows, columns) = (self.rows() as f64, self.columns() as f64);
        let tiles = self.count(product) * product.planes;
        let most = (product.depth / SHORTEST_SHARE).max(1);
        let shares = (BUSY_THREADS / (tiles * self.threads()).max(1)).clamp(1, most);
        let busy = (tiles * shares * self.threads()) as f64 / BUSY_THREADS as f64;
        let loads = 1.0 + 24.0 / rows + 24.0 / columns;
        let sharing = if shares > 1 { 1.1 } else { 1.0 };
        tiles as f64 * rows * columns * loads * sharing / busy.min(1.0)
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Family::Tile(tile) => {
                write!(f, "tile {}x{} of {} threads", tile.rows(), tile.columns(), tile.threads())
            }
            Family::Cooperative(tile) => {
                write!(f, "cooperative {}x{} by {}", tile.rows(), tile.columns(), tile.size)
            }
            Family::Register { sg, tm, tn } => write!(f, "registers {tm}x{}", 4 * tn * sg),
        }
    }
}

impl Family {
    /// The families and tiles that fit a product on a target, the one to take unmeasured first.
    pub fn fitting(product: &Product, target: &Target) -> Vec<Family> {
        let Product { rows, columns, .. } = *product;
        if let (true, Some([4, 4] | [8, 8])) = (target.software, target.subgroup) {
            let sg = target.subgroup.map_or(8, |[size, _]| size as usize);
            // Rows loaded in fours need at least 32. With one vector of columns a lane twice as many rows are as many
            // sums, and fewer loads for each.
            let tn = if columns > 4 * sg { 2 } else { 1 };
            let tm = match rows {
                _ if product.a_rows => 32,
                0..=16 => rows.next_multiple_of(8).max(8),
                64.. if tn == 1 => 64,
                _ => 32,
            };
            let mut families = vec![(tm, tn), (tm.min(32), 3 - tn)];
            let fewer = if product.a_rows { 32 } else { tm.div_ceil(2).max(16).min(tm) };
            if fewer < tm {
                families.push((fewer, tn));
            }
            return families.into_iter().map(|(tm, tn)| Family::Register { sg, tm, tn }).collect();
        }
        let mut tiles: Vec<Tile> = TILES
            .into_iter()
            .filter(|tile| tile.threads() <= target.workgroup_invocations as usize)
            .collect();
        tiles.sort_by(|x, y| x.cost(product).total_cmp(&y.cost(product)));
        let mut families: Vec<Family> = tiles.into_iter().map(Family::Tile).collect();
        if product.half {
            let tiles = Cooperative::fitting(target);
            // A matrix or two of columns would be mostly idle.
            let pays = tiles.first().is_some_and(|tile| rows.min(columns) >= 2 * tile.size);
            let at = if pays { 0 } else { families.len() };
            families.splice(at..at, tiles.into_iter().map(Family::Cooperative));
        }
        families
    }

    /// The family and tile for a product on a target.
    pub fn choose(product: &Product, target: &Target) -> Family {
        Family::fitting(product, target)[0]
    }

    /// Tiles of a plane.
    fn tiles(&self, product: &Product) -> usize {
        match *self {
            Family::Tile(tile) => tile.count(product),
            Family::Cooperative(tile) => tile.count(product),
            Family::Register { sg, tm, tn } => {
                product.rows.div_ceil(tm) * product.columns.div_ceil(4 * tn * sg)
            }
        }
    }

    /// Into how many shares the depth is cut and how long each is: enough workgroups for the device's cores, and sums
    /// short enough that the rounding of a long one stays small.
    pub fn shares(&self, product: &Product) -> (usize, usize) {
        let (workgroups, least, most) = match self {
            Family::Tile(tile) => (BUSY_THREADS / tile.threads(), SHORTEST_SHARE, 8192),
            Family::Cooperative(tile) => (BUSY_THREADS / tile.threads(), SHORTEST_SHARE, 8192),
            Family::Register { .. } => (8, 512, 8192),
        };
        let tiles = self.tiles(product) * product.planes;
        let wanted = (workgroups / tiles.max(1)).min(product.depth / least);
        let bytes = 4 * product.rows * product.columns * product.planes;
        share(product.depth, wanted.max(product.depth.div_ceil(most)).min(MAX_SCRATCH / bytes.max(1)))
    }

    /// The dispatch of a product: `shaders` are the files of the three families, `planes` counts shares too.
    pub fn call<P: bytemuck::Pod>(
        &self,
        shaders: [&'static Shader; 3],
        params: &P,
        product: &Product,
        planes: usize,
        launch: &Launch,
        target: &Target,
    ) -> Call {
        let [tile, register, cooperative] = shaders;
        let mut grid = target.grid(self.tiles(product));
        grid[2] = planes as u32;
        let call = match *self {
            Family::Tile(size) => Call::new(tile, "product", params, launch, grid)
                .constant("WM", size.wm as u32)
                .constant("WN", size.wn as u32)
                .constant("RM", size.rm as u32)
                .constant("RN", size.rn as u32)
                .constant("BK", size.depth(target) as u32),
            Family::Cooperative(size) => {
                let call = Call::new(cooperative, "product", params, launch, grid)
                    .constant("SG", size.sg as u32)
                    .constant("SR", size.sr as u32)
                    .constant("SC", size.sc as u32)
                    .constant("BK", Cooperative::DEPTH as u32);
                if size.size == 8 {
                    call.include("common/cooperative16.wgsl", "common/cooperative8.wgsl")
                } else {
                    call
                }
            }
            Family::Register { sg, tm, tn } => Call::new(register, "product", params, launch, grid)
                .constant("SG", sg as u32)
                .constant("TM", tm as u32)
                .constant("TN", tn as u32),
        };
        let mut call =
            call.constant("A_ROWS", product.a_rows.into()).constant("B_COLUMNS", product.b_columns.into());
        call = call.in_fours(product.out_vec4, launch);
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
