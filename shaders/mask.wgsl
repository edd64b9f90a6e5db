// Which elements are positive, 32 to a word: what a gate needs to know of an activation.
//
//   out[w] bit b = x[32 w + b] > 0
//
// Bindings: x [len], out [ceil(len / 32)].
// Tiling: an invocation makes a word.
// Tried: a word by 32 lanes that vote would read memory in order, but needs subgroups of 32; the activation was just
// written and is in the caches.

const WORKGROUP = 64u;

struct Params {
    len: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = f32;
@group(0) @binding(1) var<storage, read> x: array<In1>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<In1>>;
@group(0) @binding(7) var<storage, read_write> out: array<u32>;

// #include common/index.wgsl

// Where len is a multiple of 4.
@compute @workgroup_size(WORKGROUP)
fn fours(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let word = flat(group, groups) * WORKGROUP + lane;
    let first = word * 8u;
    if first >= params.len / 4u {
        return;
    }
    let count = min(8u, params.len / 4u - first);
    var bits = 0u;
    for (var j = 0u; j < count; j++) {
        let four = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), vec4<f32>(x4[first + j]) > vec4<f32>(0f));
        bits |= (four.x | four.y | four.z | four.w) << (4u * j);
    }
    out[word] = bits;
}

@compute @workgroup_size(WORKGROUP)
fn singles(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let word = flat(group, groups) * WORKGROUP + lane;
    let first = word * 32u;
    if first >= params.len {
        return;
    }
    let count = min(32u, params.len - first);
    var bits = 0u;
    for (var j = 0u; j < count; j++) {
        bits |= select(0u, 1u << j, f32(x[first + j]) > 0f);
    }
    out[word] = bits;
}
