// Counter-based random numbers: a pure function of key, purpose, counter, example and element (src/cpu/philox.rs has
// the definition).
//
//   uniform  out[r, e] = finish((word >> 8) * 2^-24), the same bits on every device
//   normal   out[r, e] = finish(Box-Muller of a pair of words)
//
// Bindings: key [2], counter [2] = (epoch, step), example [rows] = the example's number in the data set, out [rows, row].
// Tiling: an invocation makes the four elements that share the words of one application of Philox.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011); Box and Muller (1958).

const WORKGROUP = 64u;

struct Params {
    purpose: u32,
    rows: u32,
    row: u32,
    // Groups of four elements in a row.
    groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> key: array<u32>;
@group(0) @binding(2) var<storage, read> counter: array<u32>;
@group(0) @binding(3) var<storage, read> example: array<u32>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/index.wgsl
// #include common/philox.wgsl
// #include common/finish.wgsl

// The four words of group `group` of row r.
fn words(r: u32, group: u32) -> vec4<u32> {
    return philox(
        vec2<u32>(key[0], key[1] ^ params.purpose),
        vec4<u32>(group, example[r], counter[1], counter[0]),
    );
}

fn store(v: vec4<f32>, r: u32, group: u32) {
    for (var j = 0u; j < 4u; j++) {
        let e = 4u * group + j;
        if e < params.row {
            let i = r * params.row + e;
            out[i] = Out(finish(v[j], i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn uniform_numbers(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i < params.rows * params.groups {
        let r = i / params.groups;
        let four = i % params.groups;
        store(to_uniform(words(r, four)), r, four);
    }
}

@compute @workgroup_size(WORKGROUP)
fn normal_numbers(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i < params.rows * params.groups {
        let r = i / params.groups;
        let four = i % params.groups;
        let u = to_uniform(words(r, four));
        store(vec4<f32>(box_muller(u.xy), box_muller(u.zw)), r, four);
    }
}
