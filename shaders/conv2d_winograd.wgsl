// The transforms around the products of a convolution by 3x3 filters with stride 1, or of its input gradient, after
// Winograd: a tile of 4 x 4 results from the 6 x 6 inputs d it reads is A^T ((G g G^T) * (B^T d B)) A, so that 36 products
// stand for 144.
//
//   filters   u [36,C,K]             from w [3,3,C,K], turned by half a turn where TURNED is 1 (the input gradient)
//   inputs    v [36,tiles,channels]  from the images, with zeros outside
//   (36 matrix products by matmul*.wgsl: m [36,tiles,channels of the result] = v u or v u^T)
//   results   out = finish(A^T m A)
//
// Bindings: a is w, x (or dy), m, in vectors of four channels; out is u, v, y (or dx). An invocation has four channels of a
// filter or tile; neighbours have neighbouring channels.
//
// S. Winograd 1980; A. Lavin and S. Gray, CVPR 2016; the points 0, +-sqrt(1/2), +-sqrt 2 and infinity for their small
// error in f32, as on the CPU (src/cpu/conv2d/points.rs, where it is stated).

const WORKGROUP = 32u;
// 1 to turn the filter.
const TURNED = 0u;

struct Params {
    // Channels of x in the filter, and vectors of channels of y.
    filter_c: u32,
    filter_k: u32,
    // Rows, columns and vectors of channels of what is read.
    h: u32,
    w: u32,
    c: u32,
    // Rows, columns and vectors of channels of the result.
    p: u32,
    q: u32,
    k: u32,
    // Zeros above and left of what is read.
    top: u32,
    left: u32,
    // Tiles of an image, down and across, and of the images of this dispatch; the first of these.
    tiles_h: u32,
    tiles_w: u32,
    tiles: u32,
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = f32;
@group(0) @binding(1) var<storage, read> a: array<vec4<In1>>;

// #include common/finish.wgsl
// #include common/out_scalar.wgsl
// #include common/store_scalar.wgsl
// #include common/index.wgsl

alias Four = array<vec4<f32>, 4>;
alias Six = array<vec4<f32>, 6>;

// The points and their squares; 1 / m'(A) and 1 / m'(B) of m(x) = x (x^2 - A^2) (x^2 - B^2).
const A = 0.70710678118654752f;
const B = 1.4142135623730951f;
const A2 = 0.5f;
const B2 = 2f;
const NA = -0.66666666666666667f;
const NB = 0.16666666666666667f;

fn times(x: f32, y: vec4<f32>, z: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(x), y, z);
}

// B^T d.
fn of_inputs(d: Six) -> Six {
    let even_a = times(-B2, d[2], d[4]);
    let odd_a = times(-B2, d[1], d[3]);
    let even_b = times(-A2, d[2], d[4]);
    let odd_b = times(-A2, d[1], d[3]);
    return Six(
        times(-(A2 + B2), d[2], d[0] + d[4]),
        times(A, odd_a, even_a),
        times(-A, odd_a, even_a),
        times(B, odd_b, even_b),
        times(-B, odd_b, even_b),
        times(-(A2 + B2), d[3], d[1] + d[5]),
    );
}

// G g.
fn of_filters(g0: vec4<f32>, g1: vec4<f32>, g2: vec4<f32>) -> Six {
    let even_a = NA * times(A2, g2, g0);
    let even_b = NB * times(B2, g2, g0);
    return Six(
        g0,
        times(A * NA, g1, even_a),
        times(-A * NA, g1, even_a),
        times(B * NB, g1, even_b),
        times(-B * NB, g1, even_b),
        g2,
    );
}

// A^T m.
fn to_results(m: Six) -> Four {
    let sum_a = m[1] + m[2];
    let difference_a = m[1] - m[2];
    let sum_b = m[3] + m[4];
    let difference_b = m[3] - m[4];
    return Four(
        m[0] + (sum_a + sum_b),
        times(A, difference_a, B * difference_b),
        times(A2, sum_a, B2 * sum_b),
        times(A * A2, difference_a, times(B * B2, difference_b, m[5])),
    );
}

@compute @workgroup_size(WORKGROUP)
fn filters(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = params.filter_c * params.filter_k;
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= count {
        return;
    }
    var rows: array<Six, 3>;
    for (var r = 0u; r < 3u; r++) {
        let tap = select(3u * r, 8u - 3u * r, TURNED == 1u);
        rows[r] = of_filters(
            vec4<f32>(a[tap * count + i]),
            vec4<f32>(a[select(tap + 1u, tap - 1u, TURNED == 1u) * count + i]),
            vec4<f32>(a[select(tap + 2u, tap - 2u, TURNED == 1u) * count + i]),
        );
    }
    for (var s = 0u; s < 6u; s++) {
        var column = of_filters(rows[0][s], rows[1][s], rows[2][s]);
        for (var r = 0u; r < 6u; r++) {
            store_four(column[r], 4u * ((6u * r + s) * count + i), 4u);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn inputs(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = params.tiles * params.c;
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= count {
        return;
    }
    let tile = i / params.c;
    let line = tile / params.tiles_w;
    let n = params.first + line / params.tiles_h;
    // Above and left of the image the unsigned difference is huge.
    let y0 = 4u * (line % params.tiles_h) - params.top;
    let x0 = 4u * (tile % params.tiles_w) - params.left;
    var columns: array<Six, 6>;
    for (var s = 0u; s < 6u; s++) {
        var d: Six;
        for (var r = 0u; r < 6u; r++) {
            let inside = y0 + r < params.h && x0 + s < params.w;
            let at = ((n * params.h + y0 + r) * params.w + x0 + s) * params.c + i % params.c;
            d[r] = select(vec4<f32>(), vec4<f32>(a[select(0u, at, inside)]), inside);
        }
        columns[s] = of_inputs(d);
    }
    for (var r = 0u; r < 6u; r++) {
        var row = of_inputs(Six(
            columns[0][r],
            columns[1][r],
            columns[2][r],
            columns[3][r],
            columns[4][r],
            columns[5][r],
        ));
        for (var s = 0u; s < 6u; s++) {
            store_four(row[s], 4u * ((6u * r + s) * count + i), 4u);
        }
    }
}

// The results of each invocation, [16, WORKGROUP].
var<workgroup> sh_results: array<vec4<f32>, 16u * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn results(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let count = params.tiles * params.k;
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= count {
        return;
    }
    let tile = i / params.k;
    let line = tile / params.tiles_w;
    let n = params.first + line / params.tiles_h;
    let y0 = 4u * (line % params.tiles_h);
    let x0 = 4u * (tile % params.tiles_w);
    var columns: array<Four, 6>;
    for (var s = 0u; s < 6u; s++) {
        var m: Six;
        for (var r = 0u; r < 6u; r++) {
            m[r] = vec4<f32>(a[(6u * r + s) * count + i]);
        }
        columns[s] = to_results(m);
    }
    // By way of memory, each invocation reading only what it wrote, so that `finish` stands in a loop and not 16 times in
    // the text.
    for (var r = 0u; r < 4u; r++) {
        var row = to_results(Six(
            columns[0][r],
            columns[1][r],
            columns[2][r],
            columns[3][r],
            columns[4][r],
            columns[5][r],
        ));
        for (var s = 0u; s < 4u; s++) {
            sh_results[(4u * r + s) * WORKGROUP + lane] = row[s];
        }
    }
    // A bound the compiler does not know keeps it from unrolling.
    let some = min(16u, groups.x * 0x10000u);
    for (var e = 0u; e < some; e++) {
        let y = y0 + e / 4u;
        let x = x0 + e % 4u;
        if y < params.p && x < params.q {
            let at = ((n * params.p + y) * params.q + x) * params.k + i % params.k;
            store_four(sh_results[e * WORKGROUP + lane], 4u * at, 4u);
        }
    }
}
