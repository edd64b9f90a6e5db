// A product of two operands by workgroups of 256, through workgroup memory. Tile 64 RM x 64, depth BK a turn; thread
// (y, x) of 16 x 16 holds rows 64 r + 4 y + i and columns 4 x + c. The next blocks are loaded into registers while
// the present ones are multiplied.

const BK = 16u;
// Vectors of four rows a thread: 1 or 2.
const RM = 1u;
// Vectors of a row of sh_a and sh_b: one more than the tile has, so that the scattered writes of operands whose depth
// is contiguous fall into different banks.
const LDA = 16u * RM + 1u;
const LDB = 17u;

// Left operand [BK, 64 RM] and right operand [BK, 64].
var<workgroup> sh_a: array<vec4<f32>, BK * LDA>;
var<workgroup> sh_b: array<vec4<f32>, BK * LDB>;

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

    // What this thread loads of a block: of a, vectors (a_m + 64 r, a_k), or (a_m, a_k + 16 / RM r) where the rows
    // are contiguous; of b, vector (b_k, b_n).
    var a_m = lane / 4u;
    var a_k = 4u * (lane % 4u);
    if A_ROWS == 1u {
        a_m = 4u * (lane % (16u * RM));
        a_k = lane / (16u * RM);
    }
    var b_n = lane / 4u;
    var b_k = 4u * (lane % 4u);
    if B_COLUMNS == 1u {
        b_n = 4u * x;
        b_k = y;
    }
    var rows: array<Row, RM>;
    for (var r = 0u; r < RM; r++) {
        rows[r] = a_row(plane, m0 + a_m + select(64u * r, 0u, A_ROWS == 1u));
    }

    var next_a: array<vec4<f32>, RM>;
    for (var r = 0u; r < RM; r++) {
        next_a[r] = load_tile_a(plane, rows[r], m0 + a_m, a_k + plane.begin, r);
    }
    var next_b = load_b(plane, plane.begin + b_k, n0 + b_n);
    var sum: array<array<vec4<f32>, 4>, RM>;
    for (var k = plane.begin; k < plane.end; k += BK) {
        for (var r = 0u; r < RM; r++) {
            if A_ROWS == 1u {
                sh_a[(a_k + (16u / RM) * r) * LDA + a_m / 4u] = next_a[r];
            } else {
                let m = a_m + 64u * r;
                sh_a[a_k * LDA + m / 4u][m % 4u] = next_a[r].x;
                sh_a[(a_k + 1u) * LDA + m / 4u][m % 4u] = next_a[r].y;
                sh_a[(a_k + 2u) * LDA + m / 4u][m % 4u] = next_a[r].z;
                sh_a[(a_k + 3u) * LDA + m / 4u][m % 4u] = next_a[r].w;
            }
        }
        if B_COLUMNS == 1u {
            sh_b[b_k * LDB + b_n / 4u] = next_b;
        } else {
            sh_b[b_k * LDB + b_n / 4u][b_n % 4u] = next_b.x;
            sh_b[(b_k + 1u) * LDB + b_n / 4u][b_n % 4u] = next_b.y;
            sh_b[(b_k + 2u) * LDB + b_n / 4u][b_n % 4u] = next_b.z;
            sh_b[(b_k + 3u) * LDB + b_n / 4u][b_n % 4u] = next_b.w;
        }
        workgroupBarrier();
        // Behind the end these are zeros and never used.
        for (var r = 0u; r < RM; r++) {
            next_a[r] = load_tile_a(plane, rows[r], m0 + a_m, k + BK + a_k, r);
        }
        next_b = load_b(plane, k + BK + b_k, n0 + b_n);
        for (var kk = 0u; kk < BK; kk++) {
            let bv = sh_b[kk * LDB + x];
            for (var r = 0u; r < RM; r++) {
                let av = sh_a[kk * LDA + 16u * r + y];
                sum[r][0] = fma(vec4<f32>(av.x), bv, sum[r][0]);
                sum[r][1] = fma(vec4<f32>(av.y), bv, sum[r][1]);
                sum[r][2] = fma(vec4<f32>(av.z), bv, sum[r][2]);
                sum[r][3] = fma(vec4<f32>(av.w), bv, sum[r][3]);
            }
        }
        workgroupBarrier();
    }

    let n = n0 + 4u * x;
    for (var r = 0u; r < RM; r++) {
        for (var i = 0u; i < 4u; i++) {
            let first = out_row(plane, m0 + 64u * r + 4u * y + i);
            if first != NONE {
                for (var c = 0u; c < 4u; c++) {
                    if n + c < column_count() {
                        out[first + n + c] = finish(sum[r][i][c], first + n + c);
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
