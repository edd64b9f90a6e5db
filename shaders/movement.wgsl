// Data movement.
//
//   copy    out[i] = finish(x[offset + o . stride] if lo <= o < hi on every axis, else 0, i), o the index vector of i:
//           transposition, slicing, padding, broadcast
//   concat  out[r, before + c] = x[r, c], one call an input
//
// Bindings: x any, out [len].
// Axes count from the innermost; each is (extent, stride in x, lo, hi). The host drops axes of extent 1 and joins
// neighbours that are one run in x, so most copies have RANK 2 or 3.
// Tiling: an invocation handles PER elements.
// Tried and not taken: a tile in workgroup memory for transpositions; the plan folds them into products instead.

const WORKGROUP = 64u;
const PER = 1u;
const RANK = 6u;

struct Params {
    axis0: vec4<u32>,
    axis1: vec4<u32>,
    axis2: vec4<u32>,
    axis3: vec4<u32>,
    axis4: vec4<u32>,
    axis5: vec4<u32>,
    len: u32,
    offset: i32,
    // Of concat: columns of x, columns of out, where x begins among them.
    columns: u32,
    total: u32,
    before: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = Element;
@group(0) @binding(1) var<storage, read> x: array<In1>;
alias Out = Element;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/index.wgsl
// #include common/element.wgsl
// #include common/finish.wgsl

// How far an index has been taken apart: what is left of it, where in x it points, whether inside.
struct Walk {
    rest: u32,
    at: i32,
    inside: bool,
}

fn step_along(walk: Walk, axis: vec4<u32>) -> Walk {
    let o = walk.rest % axis.x;
    return Walk(walk.rest / axis.x, walk.at + i32(o * axis.y), walk.inside && o >= axis.z && o < axis.w);
}

@compute @workgroup_size(WORKGROUP)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            var walk = step_along(Walk(i, params.offset, true), params.axis0);
            if RANK > 1u {
                walk = step_along(walk, params.axis1);
            }
            if RANK > 2u {
                walk = step_along(walk, params.axis2);
            }
            if RANK > 3u {
                walk = step_along(walk, params.axis3);
            }
            if RANK > 4u {
                walk = step_along(walk, params.axis4);
            }
            if RANK > 5u {
                walk = step_along(walk, params.axis5);
            }
            var v = Element();
            if walk.inside {
                v = Element(x[walk.at]);
            }
            out[i] = Out(finish(v, i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn concat(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            out[(i / params.columns) * params.total + params.before + i % params.columns] = Out(x[i]);
        }
    }
}
