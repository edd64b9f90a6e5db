// The end of a product whose depth was shared: out[i] = finish(sum over s of partial[s, i], i), in the order of s.
//
// Bindings: partial [shares, len], out [len].
// Tiling: an invocation an element.

const WORKGROUP = 64u;

struct Params {
    len: u32,
    shares: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/finish.wgsl
// #include common/index.wgsl

@compute @workgroup_size(WORKGROUP)
fn total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.len {
        return;
    }
    var sum = 0f;
    for (var s = 0u; s < params.shares; s++) {
        sum += partial[s * params.len + i];
    }
    out[i] = Out(finish(sum, i));
}
