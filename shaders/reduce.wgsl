// Folds over an axis: x seen as [outer, extent, inner] to [outer, inner], a sum or a maximum.
//
//   out[o, k, i] = finish(fold over e in piece k of before(x[o, e, i], its place in x))
//
// Bindings: x [outer, extent, inner], out [outer, chunks, inner]; chunk k folds the `piece` elements of the extent
// from k * piece on. One chunk is the whole fold; with more, the host calls again on the [outer, chunks, inner] of
// partial results, so the order of a sum depends on shapes and the device alone.
// Tiling: `serial` folds a chunk by one invocation, neighbours along inner reading neighbours in memory; four running
// folds hide the latency of an addition. `tree` folds a chunk by a workgroup, for rows too few or too narrow to
// keep a GPU busy otherwise. Where inner comes in fours, an element is a vector of four and inner counts vectors.

const WORKGROUP = 64u;
const TREE = 256u;
// 1 for a maximum.
const MAXIMUM = 0u;

struct Params {
    outer: u32,
    extent: u32,
    inner: u32,
    chunks: u32,
    piece: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

var<workgroup> sh_part: array<Element, TREE>;

// #include common/index.wgsl
// #include common/before.wgsl
// #include common/finish.wgsl
// #include common/x_scalar.wgsl
// #include common/out_scalar.wgsl

fn combine(a: Element, b: Element) -> Element {
    if MAXIMUM == 1u {
        return max(a, b);
    }
    return a + b;
}

// Element i of x on its way in.
fn before_at(i: u32) -> Element {
    return before(Element(x[i]), i);
}

// What the first element of a lane without elements is: nothing to a sum, and no larger than anything to a maximum.
fn neutral() -> Element {
    return Element(select(0f, -3.4028235e38f, MAXIMUM == 1u));
}

@compute @workgroup_size(WORKGROUP)
fn serial(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.outer * params.chunks * params.inner {
        return;
    }
    let column = i % params.inner;
    let chunk = (i / params.inner) % params.chunks;
    let row = i / (params.inner * params.chunks);
    let first = chunk * params.piece;
    let last = min(first + params.piece, params.extent);
    let base = row * params.extent * params.inner + column;
    var e = first + 1u;
    var a = before_at(base + first * params.inner);
    if last - first >= 8u {
        var b = before_at(base + e * params.inner);
        var c = before_at(base + (e + 1u) * params.inner);
        var d = before_at(base + (e + 2u) * params.inner);
        e += 3u;
        for (; e + 4u <= last; e += 4u) {
            a = combine(a, before_at(base + e * params.inner));
            b = combine(b, before_at(base + (e + 1u) * params.inner));
            c = combine(c, before_at(base + (e + 2u) * params.inner));
            d = combine(d, before_at(base + (e + 3u) * params.inner));
        }
        a = combine(combine(a, b), combine(c, d));
    }
    for (; e < last; e++) {
        a = combine(a, before_at(base + e * params.inner));
    }
    out[i] = Stored(finish(a, i));
}

@compute @workgroup_size(TREE)
fn tree(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups);
    let inside = i < params.outer * params.chunks * params.inner;
    let column = i % params.inner;
    let chunk = (i / params.inner) % params.chunks;
    let row = i / (params.inner * params.chunks);
    let first = chunk * params.piece;
    let last = min(first + params.piece, params.extent);
    let base = row * params.extent * params.inner + column;
    var v = neutral();
    if inside && first + lane < last {
        v = before_at(base + (first + lane) * params.inner);
        for (var e = first + lane + TREE; e < last; e += TREE) {
            v = combine(v, before_at(base + e * params.inner));
        }
    }
    sh_part[lane] = v;
    workgroupBarrier();
    for (var width = TREE / 2u; width > 0u; width /= 2u) {
        if lane < width {
            sh_part[lane] = combine(sh_part[lane], sh_part[lane + width]);
        }
        workgroupBarrier();
    }
    if lane == 0u && inside {
        out[i] = Stored(finish(sh_part[0], i));
    }
}
