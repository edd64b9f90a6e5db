// The end of a product whose depth was shared: out[i] = finish(sum over s of x[s, i], i), in the order of s.
//
// Bindings: x [shares, len], out [len].
// Tiling: an invocation an element, or, where they come in fours, a vector of four; then len counts vectors.

const WORKGROUP = 64u;

struct Params {
    len: u32,
    shares: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// #include common/finish.wgsl
// #include common/x_scalar.wgsl
// #include common/out_scalar.wgsl
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
    var sum = Element();
    for (var s = 0u; s < params.shares; s++) {
        sum += Element(x[s * params.len + i]);
    }
    out[i] = Stored(finish(sum, i));
}
