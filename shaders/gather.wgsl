// Rows of a table by index: a batch out of a data set.
//
//   forward  out[r, c] = finish(table[index[r], c])
//   bytes    out[r, c] = finish(table[index[r], c] / 255), the table as bytes, four to a word
//
// Bindings: table [table, row], index [rows], out [rows, row]. An index past the table reads its last row.
// Tiling: an invocation handles PER elements.

const WORKGROUP = 64u;
const PER = 1u;

struct Params {
    row: u32,
    // Rows of the table.
    table: u32,
    // Elements of the result.
    len: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = Element;
@group(0) @binding(1) var<storage, read> x: array<In1>;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
alias Out = Element;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/index.wgsl
// #include common/byte.wgsl
// #include common/element.wgsl
// #include common/finish.wgsl

// Element of the table that element i of the result is.
fn source(i: u32) -> u32 {
    return min(index[i / params.row], params.table - 1u) * params.row + i % params.row;
}

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
            out[i] = Out(finish(Element(x[source(i)]), i));
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn bytes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let at = source(i);
            // The conversion does nothing: bytes become floats. It lets the file stand where Element is u32.
            out[i] = Out(finish(Element(share((words[at / 4u] >> (at % 4u * 8u)) & 0xffu)), i));
        }
    }
}
