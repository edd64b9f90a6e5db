//! Host side of shaders/conv2d_image.wgsl: the input gradient of a convolution with few input channels.

use super::{Call, Shader, Target, params};
use crate::launch::{ConvShape, Launch};

/// shaders/conv2d_image.wgsl.
pub(super) static SHADER: Shader = Shader {
    path: "conv2d_image.wgsl",
    text: include_str!("../../shaders/conv2d_image.wgsl"),
    fields: Params::FIELDS,
};

params! {
    n: u32,
    h: u32,
    w: u32,
    p: u32,
    q: u32,
    /// Vectors of four output channels.
    k: u32,
    /// Tiles of an image along h.
    tiles_h: u32,
    /// Tiles of an image along w.
    tiles_w: u32,
}

/// Most input channels.
const CHANNELS: usize = 4;
/// Most registers of sums an invocation holds.
const SUMS: usize = 64;
/// Most multiply-adds in the text of the kernel, which compiles in proportion.
const UNROLLED: usize = 2560;
/// Invocations of a workgroup on hardware along w and h.
const LANES: [usize; 2] = [16, 4];

/// How an invocation's pixels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows.
    th: usize,
    /// Columns.
    tw: usize,
    /// Lanes of the subgroup that is a workgroup on software; `None` on hardware.
    sg: Option<usize>,
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pixels {}x{}", self.th, self.tw)
    }
}

/// Multiply-adds in the text for a tile.
fn unrolled(shape: &ConvShape, th: usize, tw: usize) -> usize {
    th * tw * shape.c * shape.r.div_ceil(shape.stride[0]) * shape.s.div_ceil(shape.stride[1]) * 4
}

/// The tiles that fit an input gradient, the one to take unmeasured first; none where the kernel does not fit.
pub(super) fn tiles(shape: &ConvShape, target: &Target) -> Vec<Tile> {
    let ConvShape { c, r, s, k, stride: [sh, sw], padding, dilation, groups, .. } = *shape;
    let plain = groups == 1 && dilation == [1, 1] && c <= CHANNELS && k > 0 && k.is_multiple_of(4);
    if !plain || padding[0] >= r || padding[1] >= s {
        return Vec::new();
    }
    let tile = |th, tw, sg| Tile { th, tw, sg };
    let candidates = match (target.software, target.subgroup) {
        (true, Some([low, high])) if low == high => {
            let sg = Some(low as usize);
            let (four_h, four_w) = (4usize.next_multiple_of(sh), 4usize.next_multiple_of(sw));
            vec![tile(four_h, four_w, sg), tile(2 * four_h, 2 * four_w, sg), tile(2 * sh, 2 * sw, sg)]
        }
        (true, _) => Vec::new(),
        // A column an invocation, so that neighbours read neighbours from workgroup memory; of a strided gradient the
        // columns of a phase each.
        (false, _) => vec![tile(4 * sh, sw, None), tile(2 * sh, sw, None)],
    };
    let fits = |tile: &Tile| {
        let bytes =
            32 * ((r - 1) / sh + 1 + LANES[1] * tile.th / sh) * ((s - 1) / sw + 1 + LANES[0] * tile.tw / sw);
        tile.th * tile.tw * c <= SUMS
            && unrolled(shape, tile.th, tile.tw) <= UNROLLED
            && (tile.sg.is_some() || bytes <= target.workgroup_memory as usize)
    };
    let mut tiles: Vec<Tile> = Vec::new();
    for tile in candidates.into_iter().filter(fits) {
        if !tiles.contains(&tile) {
            tiles.push(tile);
        }
    }
    tiles
}

/// The dispatch of an input gradient by a tile.
pub(super) fn call(tile: Tile, shape: &ConvShape, launch: &Launch, target: &Target) -> Call {
    let ConvShape { n, h, w, c, r, s, p, q, k, stride, padding, .. } = *shape;
    let Tile { th, tw, sg } = tile;
    let [lx, ly] = if sg.is_some() { [1, 1] } else { LANES };
    let (tiles_h, tiles_w) = (h.div_ceil(th * ly), w.div_ceil(tw * lx));
    let params = Params {
        n: n as u32,
        h: h as u32,
        w: w as u32,
        p: p as u32,
        q: q as u32,
        k: (k / 4) as u32,
        tiles_h: tiles_h as u32,
        tiles_w: tiles_w as u32,
    };
    let (entry, tiles) =
        (if sg.is_some() { "input_grad" } else { "input_grad_staged" }, n * tiles_h * tiles_w);
    let grid = target.grid(tiles.div_ceil(sg.unwrap_or(1)));
    let mut call = Call::new(&SHADER, entry, &params, launch, grid);
    let [sh, sw] = stride;
    let [ph, pw] = padding;
    let extents = [("R", r), ("S", s), ("C", c), ("SH", sh), ("SW", sw), ("PH", ph), ("PW", pw)];
    for (name, value) in extents.into_iter().chain([("TH", th), ("TW", tw)]) {
        call = call.constant(name, value as u32);
    }
    match sg {
        Some(sg) => {
            call.constant("SG", sg as u32).include("common/taps_load.wgsl", "common/taps_shuffle.wgsl")
        }
        None => call,
    }
}
