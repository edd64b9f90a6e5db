// Images of a table of bytes by index, each changed at random: a training batch.
//
//   forward  out[r, y, x, c] = finish(changed(padded[y + top, x' + left, c]) / 255), x' = x, or w - 1 - x where it is
//            mirrored; 0 in the hole
//
// padded is image index[r] with PADDING rows and columns around it, zeros or the image mirrored at its outermost
// pixels; changed multiplies a byte, and then its distance from the middle grey. The upper 16 bits of seven uniform numbers
// an image choose top, left, whether it is mirrored, the hole's place and the two factors, all by integers: every device
// does the same to the bit (Augment::choose and Change::byte of src/tape/augment.rs).
//
// Bindings: table [table, h, w, c] as bytes, four to a word, index [rows], uniform numbers [rows, 7],
// out [rows, h, w, c]. An index past the table reads its last image.
// Tiling: an invocation handles PER elements.

const WORKGROUP = 64u;
const PER = 1u;
const DRAWS = 7u;
const ONE = 16384u;

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
    // Side of the hole.
    cutout: u32,
    // Most that brightness and contrast change by, in parts of ONE.
    brightness: u32,
    contrast: u32,
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
    return u32(uniforms[DRAWS * r + which] * 65536f);
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

// Whether place i of extent is within the hole along its axis.
fn cut(r: u32, which: u32, i: u32, extent: u32) -> bool {
    let start = (drawn(r, which) * (extent + 1u - params.cutout)) >> 16u;
    return i >= start && i < start + params.cutout;
}

// What a number of ONE plus or minus `most` is for row r.
fn factor(r: u32, which: u32, most: u32) -> u32 {
    return ONE - most + ((drawn(r, which) * (2u * most + 1u)) >> 16u);
}

// A byte of an image of row r, after brightness and contrast.
fn changed(r: u32, byte: u32) -> u32 {
    if params.brightness + params.contrast == 0u {
        return byte;
    }
    let bright = min((byte * factor(r, 5u, params.brightness) + ONE / 2u) / ONE, 255u);
    let far = (i32(bright) - 128) * i32(factor(r, 6u, params.contrast)) + i32(ONE / 2u);
    return u32(clamp(128 + (far >> 14u), 0, 255));
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
            let column = pixel % params.w;
            var x = column;
            if params.flip == 1u && drawn(r, 2u) >= 32768u {
                x = params.w - 1u - x;
            }
            let y = inside(line % params.h + ((drawn(r, 0u) * places) >> 16u), params.h);
            let x_inside = inside(x + ((drawn(r, 1u) * places) >> 16u), params.w);
            var v = 0f;
            var hole = false;
            if params.cutout > 0u {
                hole = cut(r, 3u, line % params.h, params.h) && cut(r, 4u, column, params.w);
            }
            if y >= 0 && x_inside >= 0 && !hole {
                let image = min(index[r], params.table - 1u) * params.h;
                let at = ((image + u32(y)) * params.w + u32(x_inside)) * params.c + i % params.c;
                v = share(changed(r, (words[at / 4u] >> (at % 4u * 8u)) & 0xffu));
            }
            out[i] = Out(finish(v, i));
        }
    }
}
