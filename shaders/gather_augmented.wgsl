// Images of a table of bytes by index, each cropped out of its padding and mirrored at random: a training batch.
//
//   forward  out[r, y, x, c] = finish(padded[y + top, x' + left, c] / 255), x' = x, or w - 1 - x where it is mirrored
//
// padded is image index[r] with PADDING rows and columns around it, zeros or the image mirrored at its outermost
// pixels. The upper 16 bits of three uniform numbers an image choose top, left and whether it is mirrored, by integers:
// every device chooses the same (Augment::choose of src/tape/op.rs).
//
// Bindings: table [table, h, w, c] as bytes, four to a word, index [rows], uniform numbers [rows, 3],
// out [rows, h, w, c]. An index past the table reads its last image.
// Tiling: an invocation handles PER elements.

const WORKGROUP = 64u;
const PER = 1u;

struct Params {
    h: u32,
    w: u32,
    c: u32,
    // Images of the table.
    table: u32,
    // Elements of the result.
    len: u32,
    padding: u32,
    // 1: pad with the mirrored image.
    reflect_edges: u32,
    // 1: one image in two is mirrored.
    flip: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
// Always f32: half a number would choose otherwise.
@group(0) @binding(3) var<storage, read> uniforms: array<f32>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/index.wgsl
// #include common/byte.wgsl
// #include common/element.wgsl
// #include common/finish.wgsl

// The upper 16 bits of uniform number `which` of row r.
fn drawn(r: u32, which: u32) -> u32 {
    return u32(uniforms[3u * r + which] * 65536f);
}

// Row or column of the image that row or column i of the padded one is, among extent; -1 for a zero.
fn inside(i: u32, extent: u32) -> i32 {
    let at = i32(i) - i32(params.padding);
    let last = i32(extent) - 1;
    if params.reflect_edges == 1u {
        return last - abs(last - abs(at));
    }
    return select(-1, at, at >= 0 && at <= last);
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    let places = 2u * params.padding + 1u;
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.len {
            let pixel = i / params.c;
            let line = pixel / params.w;
            let r = line / params.h;
            var x = pixel % params.w;
            if params.flip == 1u && drawn(r, 2u) >= 32768u {
                x = params.w - 1u - x;
            }
            let y = inside(line % params.h + ((drawn(r, 0u) * places) >> 16u), params.h);
            let x_inside = inside(x + ((drawn(r, 1u) * places) >> 16u), params.w);
            var v = 0f;
            if y >= 0 && x_inside >= 0 {
                let image = min(index[r], params.table - 1u) * params.h;
                let at = ((image + u32(y)) * params.w + u32(x_inside)) * params.c + i % params.c;
                v = share((words[at / 4u] >> (at % 4u * 8u)) & 0xffu);
            }
            out[i] = Out(finish(v, i));
        }
    }
}
