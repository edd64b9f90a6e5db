// Elementwise chains, in place or not, and fills.
//
//   forward  out[i] = finish(x[(i / div) % modulo], i)
//   update   out[i] = finish(out[i], i)
//   fill     out[i] = finish(value, i)
//
// Bindings: x [modulo], out [len].
// Tiling: an invocation handles PER elements. Where everything comes in fours, an element is a vector of four (x_vec4.wgsl, out_vec4.wgsl) and len and
// modulo count vectors.

const WORKGROUP = 64u;
const PER = 1u;
// 1 where x has the shape of the result: no index arithmetic.
const PLAIN = 0u;

struct Params {
    len: u32,
    div: u32,
    modulo: u32,
    value: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// #include common/index.wgsl
// #include common/element.wgsl
// #include common/finish.wgsl
// #include common/x_scalar.wgsl
// #include common/out_scalar.wgsl

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            if PLAIN == 1u {
                out[i] = Stored(finish(Element(x[i]), i));
            } else {
                out[i] = Stored(finish(Element(x[(i / params.div) % params.modulo]), i));
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            out[i] = Stored(finish(Element(bitcast<f32>(params.value)), i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn update(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            out[i] = Stored(finish(Element(out[i]), i));
        }
    }
}
