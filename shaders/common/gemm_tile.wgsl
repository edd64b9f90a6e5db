// A product of two operands by workgroups of 256, through workgroup memory. Tile 64 RM x 64, depth BK a turn; thread
// (y, x) of 16 x 16 holds 4 RM rows and 4 columns. The next blocks are loaded into registers while the present ones
// are multiplied.
//
// Each block lies in workgroup memory as vectors along the axis that is contiguous in its operand, so that it is
// written as it was read: where that is the depth, four rows (or columns) are read back and transposed in registers.
// (Writing it transposed would have neighbours write components of one vector, which WGSL counts as a race.)
//
// The file that includes it gives the operands: load_a, load_b, a_row, out_row, plane_of, column_count.

const BK = 16u;
// Vectors of four rows a thread: 1 or 2.
const RM = 1u;
// Vectors from one row of sh_a and sh_b to the next: one more than it has, so that threads which read one below the
// other meet different banks.
const LDA = A_ROWS * (16u * RM + 1u) + (1u - A_ROWS) * (BK / 4u + 1u);
const LDB = B_COLUMNS * 17u + (1u - B_COLUMNS) * (BK / 4u + 1u);

// Left operand [BK, 64 RM] or [64 RM, BK], right operand [BK, 64] or [64, BK].
var<workgroup> sh_a: array<vec4<f32>, (A_ROWS * BK + (1u - A_ROWS) * 64u * RM) * LDA>;
var<workgroup> sh_b: array<vec4<f32>, (B_COLUMNS * BK + (1u - B_COLUMNS) * 64u) * LDB>;

// Vectors i = 0 .. 3 are rows i, with the depths 4 k .. 4 k + 3, of vector r of thread row y.
fn rows_of(y: u32, r: u32, k: u32) -> mat4x4<f32> {
    if A_ROWS == 1u {
        let at = 4u * k * LDA + 16u * r + y;
        return transpose(mat4x4<f32>(sh_a[at], sh_a[at + LDA], sh_a[at + 2u * LDA], sh_a[at + 3u * LDA]));
    }
    let at = (64u * r + y) * LDA + k;
    return mat4x4<f32>(sh_a[at], sh_a[at + 16u * LDA], sh_a[at + 32u * LDA], sh_a[at + 48u * LDA]);
}

// Vectors i = 0 .. 3 are the depths 4 k + i of the four columns of thread column x.
fn depths_of(x: u32, k: u32) -> mat4x4<f32> {
    if B_COLUMNS == 1u {
        let at = 4u * k * LDB + x;
        return mat4x4<f32>(sh_b[at], sh_b[at + LDB], sh_b[at + 2u * LDB], sh_b[at + 3u * LDB]);
    }
    let at = x * LDB + k;
    return transpose(mat4x4<f32>(sh_b[at], sh_b[at + 16u * LDB], sh_b[at + 32u * LDB], sh_b[at + 48u * LDB]));
}

@compute @workgroup_size(256)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let plane = plane_of(group.z);
    let column_tiles = (column_count() + 63u) / 64u;
    let tile = flat(group, groups);
    let m0 = (tile / column_tiles) * (64u * RM);
    let n0 = (tile % column_tiles) * 64u;
    let y = lane / 16u;
    let x = lane % 16u;

    // What this thread loads of a block: of a the vectors (a_m + 64 r, a_k), or (a_m, a_k + 16 / RM r) where the rows
    // are contiguous; of b the vector (b_k, b_n). Where it puts them, from one r to the next.
    var a_m = lane / 4u;
    var a_k = 4u * (lane % 4u);
    var a_to = a_m * LDA + a_k / 4u;
    var a_step = 64u * LDA;
    if A_ROWS == 1u {
        a_m = 4u * (lane % (16u * RM));
        a_k = lane / (16u * RM);
        a_to = a_k * LDA + a_m / 4u;
        a_step = (16u / RM) * LDA;
    }
    var b_n = lane / 4u;
    var b_k = 4u * (lane % 4u);
    var b_to = b_n * LDB + b_k / 4u;
    if B_COLUMNS == 1u {
        b_n = 4u * x;
        b_k = y;
        b_to = b_k * LDB + b_n / 4u;
    }
    var rows: array<Row, RM>;
    var next_a: array<vec4<f32>, RM>;
    for (var r = 0u; r < RM; r++) {
        rows[r] = a_row(plane, m0 + a_m + (1u - A_ROWS) * 64u * r);
        next_a[r] = load_tile_a(plane, rows[r], m0 + a_m, plane.begin + a_k, r);
    }
    var next_b = load_b(plane, plane.begin + b_k, n0 + b_n);

    var sum: array<array<vec4<f32>, 4>, RM>;
    for (var k = plane.begin; k < plane.end; k += BK) {
        for (var r = 0u; r < RM; r++) {
            sh_a[a_to + a_step * r] = next_a[r];
        }
        sh_b[b_to] = next_b;
        workgroupBarrier();
        // Behind the end these are zeros and never used.
        for (var r = 0u; r < RM; r++) {
            next_a[r] = load_tile_a(plane, rows[r], m0 + a_m, k + BK + a_k, r);
        }
        next_b = load_b(plane, k + BK + b_k, n0 + b_n);
        for (var kk = 0u; kk < BK / 4u; kk++) {
            let bv = depths_of(x, kk);
            for (var r = 0u; r < RM; r++) {
                let av = rows_of(y, r, kk);
                for (var i = 0u; i < 4u; i++) {
                    var s = sum[r][i];
                    s = fma(vec4<f32>(av[i].x), bv[0], s);
                    s = fma(vec4<f32>(av[i].y), bv[1], s);
                    s = fma(vec4<f32>(av[i].z), bv[2], s);
                    s = fma(vec4<f32>(av[i].w), bv[3], s);
                    sum[r][i] = s;
                }
            }
        }
        workgroupBarrier();
    }

    // Which rows and columns a thread holds follows from how their vectors lie: neighbours, or 16 apart.
    let m_step = 16u - 15u * A_ROWS;
    let n_step = 16u - 15u * B_COLUMNS;
    for (var r = 0u; r < RM; r++) {
        for (var i = 0u; i < 4u; i++) {
            let m = m0 + 64u * r + (1u + 3u * A_ROWS) * y + m_step * i;
            let first = out_row(plane, m);
            if first != NONE {
                for (var c = 0u; c < 4u; c++) {
                    let n = n0 + (1u + 3u * B_COLUMNS) * x + n_step * c;
                    if n < column_count() {
                        out[first + n] = Stored(finish(sum[r][i][c], first + n));
                    }
                }
            }
        }
    }
}

// Vector r of this thread's share of a block of a.
fn load_tile_a(plane: Plane, row: Row, m: u32, k: u32, r: u32) -> vec4<f32> {
    if A_ROWS == 1u {
        return load_a(plane, row, m, k + (16u / RM) * r);
    }
    return load_a(plane, row, m + 64u * r, k);
}
