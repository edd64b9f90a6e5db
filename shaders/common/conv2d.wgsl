// The operands of the three products of a convolution x [N,H,W,C] * w [R,S,C/G,K] -> y [N,P,Q,K] with G groups, of
// CG = C / G and KG = K / G channels each:
//
//   forward      y  [N P Q, KG]    = sum over (r, s, c) of x(n, p, q; r, s, c)   w(r, s, c; k)
//   input_grad   dx [N H W, CG]    = sum over (r, s, k) of dy(n, h, w; r, s, k)  w(r, s, c; k)
//   weight_grad  dw [R S CG, KG]   = sum over (n, p, q) of x(n, p, q; r, s, c)   dy(n, p, q; k)
//
// Rows, columns and depth in that order; x(n, p, q; r, s, c) = x[n, p stride - padding + r dilation, ..., c] and
// dy(n, h, w; r, s, k) = dy[n, (h + padding - r dilation) / stride, ..., k] where that divides, both 0 outside. The
// operand is never laid out in memory (implicit GEMM, Chetlur et al. 2014, cuDNN). A strided input gradient is one
// product for each phase (h mod stride, w mod stride), over the taps that divide there, so that no lane multiplies
// zeros. A plane (workgroup z) is a group, a phase and a share of the depth.
const FORWARD = 0u;
const INPUT_GRAD = 1u;
const WEIGHT_GRAD = 2u;
// Which product.
const VERB = 0u;

const NONE = 0xffffffffu;

struct Plane {
    // Depths to sum over.
    begin: u32,
    end: u32,
    // Where the result begins.
    offset: u32,
    // First channel of x and of y.
    c: u32,
    k: u32,
    // Phase, first tap that divides there and number of them, in rows and columns (input_grad).
    phase: vec2<u32>,
    tap: vec2<u32>,
    taps: vec2<u32>,
}

// A row of the left operand: where its taps begin. Below the operand, y is so far up that every tap is outside.
struct Row {
    y: i32,
    x: i32,
    base: u32,
}

const OUTSIDE = Row(-0x40000000, 0, 0u);

fn plane_of(z: u32) -> Plane {
    var plane: Plane;
    let share = z % params.shares;
    var group = z / params.shares;
    var depth = params.r * params.s * params.cg;
    if VERB == INPUT_GRAD {
        let phases = params.stride_h * params.stride_w;
        let phase = group % phases;
        group = group / phases;
        plane.phase = vec2<u32>(phase / params.stride_w, phase % params.stride_w);
        plane.tap = vec2<u32>(
            first_tap(plane.phase.x, params.padding_h, params.stride_h, params.dilation_h, params.r),
            first_tap(plane.phase.y, params.padding_w, params.stride_w, params.dilation_w, params.s),
        );
        plane.taps = vec2<u32>(
            (params.r - plane.tap.x + params.step_h - 1u) / params.step_h,
            (params.s - plane.tap.y + params.step_w - 1u) / params.step_w,
        );
        depth = plane.taps.x * plane.taps.y * params.kg;
    }
    if VERB == WEIGHT_GRAD {
        depth = params.n * params.p * params.q;
    }
    plane.c = group * params.cg;
    plane.k = group * params.kg;
    plane.offset = share * params.partial + select(plane.k, plane.c, VERB == INPUT_GRAD);
    plane.begin = share * params.chunk;
    plane.end = min(plane.begin + params.chunk, depth);
    return plane;
}

fn column_count() -> u32 {
    return select(params.kg, params.cg, VERB == INPUT_GRAD);
}

// (n, h, w) of row m of a phase of the input gradient.
fn pixel(plane: Plane, m: u32) -> vec3<u32> {
    let rows = (params.h + params.stride_h - 1u) / params.stride_h;
    let columns = (params.w + params.stride_w - 1u) / params.stride_w;
    let line = m / columns;
    return vec3<u32>(
        line / rows,
        (line % rows) * params.stride_h + plane.phase.x,
        (m % columns) * params.stride_w + plane.phase.y,
    );
}

fn a_row(plane: Plane, m: u32) -> Row {
    if VERB == FORWARD {
        let line = m / params.q;
        let n = line / params.p;
        let y = i32((line % params.p) * params.stride_h) - i32(params.padding_h);
        let x = i32((m % params.q) * params.stride_w) - i32(params.padding_w);
        if n >= params.n {
            return OUTSIDE;
        }
        return Row(y, x, n * params.h * params.w);
    }
    if VERB == INPUT_GRAD {
        let at = pixel(plane, m);
        if at.x >= params.n {
            return OUTSIDE;
        }
        // Exact divisions: the phase and its first tap are chosen so.
        let y = (i32(at.y + params.padding_h) - i32(plane.tap.x * params.dilation_h)) / i32(params.stride_h);
        let x = (i32(at.z + params.padding_w) - i32(plane.tap.y * params.dilation_w)) / i32(params.stride_w);
        return Row(y, x, at.x * params.p * params.q);
    }
    let tap = m / params.cg;
    if tap >= params.r * params.s {
        return OUTSIDE;
    }
    let y = i32((tap / params.s) * params.dilation_h) - i32(params.padding_h);
    let x = i32((tap % params.s) * params.dilation_w) - i32(params.padding_w);
    return Row(y, x, plane.c + m % params.cg);
}

// (row, column) of a tap among those of a phase. Exact: far fewer than 2^20 taps.
fn split_tap(plane: Plane, tap: u32) -> vec2<u32> {
    if params.stride_w == 1u {
        return vec2<u32>(tap / params.s, tap % params.s);
    }
    // A float division, which software Vulkan does faster than one of integers.
    let i = u32((f32(tap) + 0.5f) / f32(plane.taps.y));
    return vec2<u32>(i, tap - i * plane.taps.y);
}

// A depth of the operands, taken apart: tap row i, tap column j (among those of the phase, for an input gradient) and
// channel c; for a weight gradient the row, column and image of a pixel of y.
struct Depth {
    k: u32,
    i: u32,
    j: u32,
    c: u32,
}

fn depth_of(plane: Plane, k: u32) -> Depth {
    if VERB == FORWARD {
        let tap = k / params.cg;
        return Depth(k, tap / params.s, tap % params.s, k % params.cg);
    }
    if VERB == INPUT_GRAD {
        let tap = split_tap(plane, k / params.kg);
        return Depth(k, tap.x, tap.y, k % params.kg);
    }
    let line = k / params.q;
    return Depth(k, line % params.p, k % params.q, line / params.p);
}

// The depth `step` further on, by additions: a few turns of a loop instead of divisions.
fn advance(plane: Plane, depth: Depth, step: u32) -> Depth {
    var d = depth;
    d.k += step;
    if VERB == WEIGHT_GRAD {
        d.j += step;
        while d.j >= params.q {
            d.j -= params.q;
            d.i += 1u;
            if d.i == params.p {
                d.i = 0u;
                d.c += 1u;
            }
        }
        return d;
    }
    let channels = select(params.cg, params.kg, VERB == INPUT_GRAD);
    let columns = select(params.s, plane.taps.y, VERB == INPUT_GRAD);
    d.c += step;
    while d.c >= channels {
        d.c -= channels;
        d.j += 1u;
        if d.j == columns {
            d.j = 0u;
            d.i += 1u;
        }
    }
    return d;
}

fn a_index(plane: Plane, row: Row, depth: Depth) -> u32 {
    if VERB == FORWARD {
        let y = u32(row.y + i32(depth.i * params.dilation_h));
        let x = u32(row.x + i32(depth.j * params.dilation_w));
        let i = (row.base + y * params.w + x) * params.c + plane.c + depth.c;
        return select(NONE, i, depth.k < plane.end && y < params.h && x < params.w);
    }
    if VERB == INPUT_GRAD {
        // From one tap of the phase to the next, dy moves by step dilation / stride: a whole number.
        let y = u32(row.y - i32(depth.i * (params.step_h * params.dilation_h / params.stride_h)));
        let x = u32(row.x - i32(depth.j * (params.step_w * params.dilation_w / params.stride_w)));
        let i = (row.base + y * params.q + x) * params.k + plane.k + depth.c;
        return select(NONE, i, depth.k < plane.end && y < params.p && x < params.q);
    }
    let y = u32(row.y + i32(depth.i * params.stride_h));
    let x = u32(row.x + i32(depth.j * params.stride_w));
    let i = ((depth.c * params.h + y) * params.w + x) * params.c + row.base;
    return select(NONE, i, depth.k < plane.end && y < params.h && x < params.w);
}

fn b_index(plane: Plane, depth: Depth, n: u32) -> u32 {
    if VERB == INPUT_GRAD {
        let tap = plane.tap + vec2<u32>(depth.i, depth.j) * vec2<u32>(params.step_h, params.step_w);
        let i = ((tap.x * params.s + tap.y) * params.cg + n) * params.k + plane.k + depth.c;
        return select(NONE, i, depth.k < plane.end && n < params.cg);
    }
    // Depth is (r, s, c) of w or (n, p, q) of dy.
    return select(NONE, depth.k * params.k + plane.k + n, depth.k < plane.end && n < params.kg);
}

fn out_row(plane: Plane, m: u32) -> u32 {
    if VERB == FORWARD {
        return select(NONE, m * params.k + plane.offset, m < params.n * params.p * params.q);
    }
    if VERB == INPUT_GRAD {
        let at = pixel(plane, m);
        let i = ((at.x * params.h + at.y) * params.w + at.z) * params.c + plane.offset;
        return select(NONE, i, at.x < params.n && at.y < params.h && at.z < params.w);
    }
    return select(NONE, m * params.k + plane.offset, m < params.r * params.s * params.cg);
}

