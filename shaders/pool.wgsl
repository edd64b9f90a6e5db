// Pooling over windows of NHWC images.
//
//   max_index     index[n, p, q, c] = where in its window (row * kw + column) the maximum stands, the first of equals;
//                 BITS each, the first lowest in a word: 2 for a window of 2x2
//   gather        out[n, p, q, c] = finish(x at the window position index[n, p, q, c])
//   scatter       out[n, y, x, c] = finish(sum of dy over the windows whose index points at (y, x)): its transpose
//   average       out[n, p, q, c] = finish(scale * sum of x over the window), scale = 1 / (kh * kw)
//   average_grad  out[n, y, x, c] = finish(scale * sum of dy over the windows that hold (y, x)): its transpose
//
// Bindings: x [N, H, W, C] or dy [N, P, Q, C], index or positions [ceil(N P Q C / (32 / BITS))], out of either shape.
// Padding never wins a maximum and counts as zero in an average. A position outside the image, which max_index never
// writes, is moved inside.
// Tiling: an invocation handles PER elements of the result; the transposes gather, in the order of
// the windows, so nothing is added atomically.

const WORKGROUP = 64u;
const PER = 1u;
// Of a position, a power of two.
const BITS = 2u;
// Positions of a word.
const POSITIONS = 32u / BITS;

struct Params {
    h: u32,
    w: u32,
    c: u32,
    p: u32,
    q: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    // Elements of the result; of max_index words.
    len: u32,
    // Elements of the pooled tensor.
    pooled: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = f32;
@group(0) @binding(1) var<storage, read> x: array<In1>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;
@group(0) @binding(7) var<storage, read_write> index: array<u32>;

// #include common/index.wgsl
// #include common/element.wgsl
// #include common/nan.wgsl
// #include common/finish.wgsl

// First and one past the last of the window positions of output p that lie inside the image, along one axis.
fn taps(p: u32, kernel: u32, stride: u32, padding: u32, extent: u32) -> vec2<u32> {
    let start = p * stride;
    let first = max(padding, start) - start;
    let last = min(max(extent + padding, start) - start, kernel);
    return vec2<u32>(first, max(first, last));
}

fn row_taps(p: u32) -> vec2<u32> {
    return taps(p, params.kernel_h, params.stride_h, params.padding_h, params.h);
}

fn column_taps(q: u32) -> vec2<u32> {
    return taps(q, params.kernel_w, params.stride_w, params.padding_w, params.w);
}

// First and one past the last of the windows that hold image position y, along one axis.
fn windows(y: u32, kernel: u32, stride: u32, padding: u32, count: u32) -> vec2<u32> {
    let end = y + padding;
    var first = 0u;
    if end >= kernel {
        first = (end - kernel) / stride + 1u;
    }
    return vec2<u32>(first, min(end / stride + 1u, count));
}

// Element of x at window position (r, s) of output (p, q) of image n, channel c; the position lies inside.
fn x_at(n: u32, p: u32, q: u32, r: u32, s: u32, c: u32) -> u32 {
    let y = p * params.stride_h + r - params.padding_h;
    let z = q * params.stride_w + s - params.padding_w;
    return ((n * params.h + y) * params.w + z) * params.c + c;
}

// [n, p, q, c] of an element of the pooled tensor.
fn pooled(i: u32) -> vec4<u32> {
    let pixel = i / params.c;
    let line = pixel / params.q;
    return vec4<u32>(line / params.p, line % params.p, pixel % params.q, i % params.c);
}

// [n, y, x, c] of an element of the image.
fn imaged(i: u32) -> vec4<u32> {
    let pixel = i / params.c;
    let line = pixel / params.w;
    return vec4<u32>(line / params.h, line % params.h, pixel % params.w, i % params.c);
}

// Row and column of a window position, kept inside the image.
fn unpack(p: u32, q: u32, position: u32) -> vec2<u32> {
    let rows = row_taps(p);
    let columns = column_taps(q);
    return vec2<u32>(
        clamp(position / params.kernel_w, rows.x, rows.y - 1u),
        clamp(position % params.kernel_w, columns.x, columns.y - 1u),
    );
}

@compute @workgroup_size(WORKGROUP)
fn max_index(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let first = i * POSITIONS;
            let count = min(POSITIONS, params.pooled - first);
            var word = 0u;
            for (var k = 0u; k < count; k++) {
                word |= best_position(first + k) << (BITS * k);
            }
            index[i] = word;
        }
    }
}

// Where the maximum of element i's window stands.
fn best_position(i: u32) -> u32 {
    let o = pooled(i);
    let rows = row_taps(o.y);
    let columns = column_taps(o.z);
    var position = rows.x * params.kernel_w + columns.x;
    var best = f32(x[x_at(o.x, o.y, o.z, rows.x, columns.x, o.w)]);
    for (var r = rows.x; r < rows.y; r++) {
        for (var s = columns.x; s < columns.y; s++) {
            let v = f32(x[x_at(o.x, o.y, o.z, r, s, o.w)]);
            // A NaN never wins against a number.
            if v > best || (is_nan(best) && !is_nan(v)) {
                best = v;
                position = r * params.kernel_w + s;
            }
        }
    }
    return position;
}

// What best_position gave for element i.
fn position_of(i: u32) -> u32 {
    return (positions[i / POSITIONS] >> (BITS * (i % POSITIONS))) & (0xffffffffu >> (32u - BITS));
}

@compute @workgroup_size(WORKGROUP)
fn gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let o = pooled(i);
            let tap = unpack(o.y, o.z, position_of(i));
            out[i] = Out(finish(f32(x[x_at(o.x, o.y, o.z, tap.x, tap.y, o.w)]), i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn scatter(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let o = imaged(i);
            let ps = windows(o.y, params.kernel_h, params.stride_h, params.padding_h, params.p);
            let qs = windows(o.z, params.kernel_w, params.stride_w, params.padding_w, params.q);
            var sum = 0f;
            for (var p = ps.x; p < ps.y; p++) {
                for (var q = qs.x; q < qs.y; q++) {
                    let window = ((o.x * params.p + p) * params.q + q) * params.c + o.w;
                    let tap = unpack(p, q, position_of(window));
                    let y = p * params.stride_h + tap.x - params.padding_h;
                    let z = q * params.stride_w + tap.y - params.padding_w;
                    if y == o.y && z == o.z {
                        sum += f32(x[window]);
                    }
                }
            }
            out[i] = Out(finish(sum, i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn average(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let o = pooled(i);
            let rows = row_taps(o.y);
            let columns = column_taps(o.z);
            var sum = 0f;
            for (var r = rows.x; r < rows.y; r++) {
                for (var s = columns.x; s < columns.y; s++) {
                    sum += f32(x[x_at(o.x, o.y, o.z, r, s, o.w)]);
                }
            }
            out[i] = Out(finish(sum * params.scale, i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn average_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let o = imaged(i);
            let ps = windows(o.y, params.kernel_h, params.stride_h, params.padding_h, params.p);
            let qs = windows(o.z, params.kernel_w, params.stride_w, params.padding_w, params.q);
            var sum = 0f;
            for (var p = ps.x; p < ps.y; p++) {
                for (var q = qs.x; q < qs.y; q++) {
                    sum += f32(x[((o.x * params.p + p) * params.q + q) * params.c + o.w]);
                }
            }
            out[i] = Out(finish(sum * params.scale, i));
        }
    }
}
