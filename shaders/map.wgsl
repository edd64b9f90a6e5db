// Elementwise chains, in place or not, and fills.
//
//   forward  out[i] = finish(x[(i / div) % modulo], i)
//   update   out[i] = finish(out[i], i)
//   fill     out[i] = finish(value, i)
//
// Bindings: x [modulo], out [len].
// Tiling: an invocation handles PER elements, WORKGROUP apart, so that neighbours in a workgroup are neighbours in
// memory.

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
alias In1 = Element;
@group(0) @binding(1) var<storage, read> x: array<In1>;
alias Out = Element;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/index.wgsl
// #include common/finish.wgsl

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = flat(group, groups) * (WORKGROUP * PER) + lane;
    for (var j = 0u; j < PER; j++) {
        let i = first + j * WORKGROUP;
        if i < params.len {
            if PLAIN == 1u {
                out[i] = Out(finish(Element(x[i]), i));
            } else {
                out[i] = Out(finish(Element(x[(i / params.div) % params.modulo]), i));
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
    let first = flat(group, groups) * (WORKGROUP * PER) + lane;
    for (var j = 0u; j < PER; j++) {
        let i = first + j * WORKGROUP;
        if i < params.len {
            out[i] = Out(finish(bitcast<Element>(params.value), i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn update(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = flat(group, groups) * (WORKGROUP * PER) + lane;
    for (var j = 0u; j < PER; j++) {
        let i = first + j * WORKGROUP;
        if i < params.len {
            out[i] = Out(finish(Element(out[i]), i));
        }
    }
}
