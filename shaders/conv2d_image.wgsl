// Input gradient of a convolution with few input channels: the first layer's, which every step of an attack needs. The
// stages that follow in an attack (sign, step, projection, clipping) end it, so that the gradient is never in memory.
//
//   dx[n,h,w,c] = finish(sum over (r, s, k) of dy[n, (h + padding - r) / stride, ..., k] w[r,s,c,k]), where that divides
//
// Bindings: a is dy [N,P,Q,K], b is w [R,S,C,K], both in vectors of four k; out is dx [N,H,W,C].
//
// Tiling: an invocation has TH x TW pixels with all their channels, and goes through k four at a time. A vector of dy
// is loaded once and used for every pixel and tap it meets; as a product a tile's columns would be all but empty (C of
// them), and as a product with a fold behind it (conv2d_direct.wgsl) every tap is written and read once more.
//   input_grad         for software Vulkan: a subgroup a workgroup, everything in registers, the filter handed round by
//                      shuffles (taps_shuffle.wgsl).
//   input_grad_staged  for hardware GPUs: LX x LY invocations, TW = 1, dy with its halo by way of workgroup memory,
//                      eight k a turn; neighbours in w read neighbouring vectors.
//
// Measured on lavapipe by processor time on two cores, against product and fold: 3x3 1->32 at 28x28, batch 128 6.1 ms
// (9.1); 3x3 3->64 at 32x32, batch 32 3.6 ms (5.9); 4x4 stride 2 1->16 at 28x28, batch 64 0.44 ms (0.98); 5x5 1->32 at
// 28x28, batch 64 5.2 ms (6.0). Tiles of 8 x 8 pixels gain nothing. input_grad_staged has run on software only.

// Extents that loops and register arrays depend on, set by the host. TH is a multiple of SH, TW of SW.
const R = 3u;
const S = 3u;
const C = 1u;
const SH = 1u;
const SW = 1u;
const PH = 1u;
const PW = 1u;
const TH = 4u;
const TW = 1u;
// Lanes of a subgroup (input_grad).
const SG = 8u;
// Invocations along w and h (input_grad_staged).
const LX = 16u;
const LY = 4u;

// Rows of dy above row h0 / SH that meet the tile, and all that do; columns likewise.
const ABOVE = (R - 1u - PH) / SH;
const LEFT = (S - 1u - PW) / SW;
const ROWS = ABOVE + (TH - 1u + PH) / SH + 1u;
const COLUMNS = LEFT + (TW - 1u + PW) / SW + 1u;

struct Params {
    n: u32,
    h: u32,
    w: u32,
    p: u32,
    q: u32,
    // Vectors of four k.
    k: u32,
    // Tiles of an image along h and w; of a workgroup's size in input_grad_staged.
    tiles_h: u32,
    tiles_w: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = f32;
alias In2 = f32;
@group(0) @binding(1) var<storage, read> a: array<vec4<In1>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<In2>>;

// #include common/finish.wgsl
// #include common/out_scalar.wgsl
// #include common/index.wgsl
// #include common/taps_load.wgsl

alias Pixels = array<array<array<f32, C>, TW>, TH>;
alias Window = array<array<vec4<f32>, COLUMNS>, ROWS>;
alias Taps = array<array<array<vec4<f32>, C>, S>, R>;

// The vector k of dy at (p, q) of image n; 0 outside.
fn dy_at(n: u32, p: u32, q: u32, k: u32) -> vec4<f32> {
    let inside = p < params.p && q < params.q && n < params.n;
    let i = ((n * params.p + p) * params.q + q) * params.k + k;
    return select(vec4<f32>(), vec4<f32>(a[select(0u, i, inside)]), inside);
}

// Adds to each pixel what four k of the window give it. Every array is indexed by loops over its extents, which
// compilers unroll.
fn accumulate(sum: ptr<function, Pixels>, window: ptr<function, Window>, taps: ptr<function, Taps>) {
    for (var i = 0u; i < TH; i++) {
        for (var j = 0u; j < TW; j++) {
            for (var r = 0u; r < R; r++) {
                for (var s = 0u; s < S; s++) {
                    // Row and column of dy times the stride, counted from the window's first.
                    let y = i + PH + ABOVE * SH - r;
                    let x = j + PW + LEFT * SW - s;
                    if y % SH == 0u && x % SW == 0u {
                        let v = (*window)[y / SH][x / SW];
                        for (var c = 0u; c < C; c++) {
                            let w = (*taps)[r][s][c];
                            var t = (*sum)[i][j][c];
                            t = fma(v.x, w.x, t);
                            t = fma(v.y, w.y, t);
                            t = fma(v.z, w.z, t);
                            (*sum)[i][j][c] = fma(v.w, w.w, t);
                        }
                    }
                }
            }
        }
    }
}

// The pixels of a software tile, [TH TW C, SG].
var<workgroup> sh_sum: array<f32, TH * TW * C * SG>;

@compute @workgroup_size(SG)
fn input_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups) * SG + lane;
    let h0 = ((tile / params.tiles_w) % params.tiles_h) * TH;
    let w0 = (tile % params.tiles_w) * TW;
    let n = tile / (params.tiles_w * params.tiles_h);
    var sum: Pixels;
    for (var k = 0u; k < params.k; k++) {
        var window: Window;
        for (var y = 0u; y < ROWS; y++) {
            for (var x = 0u; x < COLUMNS; x++) {
                // Above the image the unsigned difference is huge.
                window[y][x] = dy_at(n, h0 / SH + y - ABOVE, w0 / SW + x - LEFT, k);
            }
        }
        var taps = load_taps(k, lane);
        accumulate(&sum, &window, &taps);
    }
    // By way of memory, each lane reading only what it wrote, so that `finish` stands in a loop and not TH TW C times
    // in the text.
    for (var i = 0u; i < TH; i++) {
        for (var j = 0u; j < TW; j++) {
            for (var c = 0u; c < C; c++) {
                sh_sum[((i * TW + j) * C + c) * SG + lane] = sum[i][j][c];
            }
        }
    }
    // A bound the compiler does not know keeps it from unrolling.
    let count = min(TH * TW * C, groups.x * 0x10000u);
    for (var e = 0u; e < count; e++) {
        let h = h0 + e / (TW * C);
        let w = w0 + (e / C) % TW;
        if h < params.h && w < params.w && n < params.n {
            let i = ((n * params.h + h) * params.w + w) * C + e % C;
            out[i] = Stored(finish(sh_sum[e * SG + lane], i));
        }
    }
}

// Rows and columns of dy a workgroup reads, and the two vectors of four k at each.
const SHARED_ROWS = ABOVE + (LY * TH - 1u + PH) / SH + 1u;
const SHARED_COLUMNS = LEFT + (LX * TW - 1u + PW) / SW + 1u;
var<workgroup> sh_dy: array<array<array<vec4<f32>, SHARED_COLUMNS>, SHARED_ROWS>, 2>;

@compute @workgroup_size(LX, LY)
fn input_grad_staged(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    let h0 = ((tile / params.tiles_w) % params.tiles_h) * (LY * TH);
    let w0 = (tile % params.tiles_w) * (LX * TW);
    let n = tile / (params.tiles_w * params.tiles_h);
    var sum: Pixels;
    for (var k = 0u; k < params.k; k += 2u) {
        // Neighbouring invocations load the two vectors of a pixel of dy: 32 bytes in a row.
        for (var e = lane; e < 2u * SHARED_ROWS * SHARED_COLUMNS; e += LX * LY) {
            let half = e % 2u;
            let y = e / (2u * SHARED_COLUMNS);
            let x = (e / 2u) % SHARED_COLUMNS;
            let v = dy_at(n, h0 / SH + y - ABOVE, w0 / SW + x - LEFT, min(k + half, params.k - 1u));
            sh_dy[half][y][x] = select(vec4<f32>(), v, k + half < params.k);
        }
        workgroupBarrier();
        for (var half = 0u; half < 2u; half++) {
            var window: Window;
            for (var y = 0u; y < ROWS; y++) {
                for (var x = 0u; x < COLUMNS; x++) {
                    window[y][x] = sh_dy[half][local.y * (TH / SH) + y][local.x * (TW / SW) + x];
                }
            }
            var taps = load_taps(min(k + half, params.k - 1u), lane);
            accumulate(&sum, &window, &taps);
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < TH; i++) {
        for (var j = 0u; j < TW; j++) {
            for (var c = 0u; c < C; c++) {
                let h = h0 + local.y * TH + i;
                let w = w0 + local.x * TW + j;
                if h < params.h && w < params.w && n < params.n {
                    let at = ((n * params.h + h) * params.w + w) * C + c;
                    out[at] = Stored(finish(sum[i][j][c], at));
                }
            }
        }
    }
}
