// A product of two operands by workgroups, through workgroup memory. Tile 4 RM WM rows x 4 RN WN columns, depth BK a
// turn; thread (y, x) of WM x WN holds RM x RN blocks of 4 x 4 sums. The next blocks are loaded into registers while the
// present ones are multiplied.
//
// Both operands lie in workgroup memory depth by depth, [BK, rows or columns], as vectors of four neighbours, so that
// a thread reads RM + RN vectors for 16 RM RN multiply-adds. A thread loads blocks of 4 x 4 elements and transposes
// in registers those of an operand whose depth is contiguous. (Writing single components transposed would have
// neighbours write components of one vector, which WGSL counts as a race.) Rows of vectors are padded by one, so that the
// threads that write different depths meet different banks.
//
// Where in the operands a thread loads is taken apart into pixels and taps once; from turn to turn it is moved on by
// additions (`advance`): a division of integers costs a GPU some 20 instructions. Nothing in the loop branches on edges:
// what lies outside is loaded from element 0 and replaced by 0.
//
// Recipe after Volkov & Demmel 2008 and CUTLASS. No hardware GPU has run it yet; on software Vulkan it is right, and slow
// as all workgroup memory is there (7 GFLOP/s).
//
// The file that includes it gives the operands: a_block, b_block, a_row, out_row, depth_of, advance, plane_of,
// column_count, and store_four.

// Threads along rows and columns.
const WM = 8u;
const WN = 16u;
// Vectors of four rows and of four columns a thread: 1 or 2.
const RM = 2u;
const RN = 1u;
// Depth a turn: a multiple of 4. RM WM BK / 4 and RN WN BK / 4 are at most WM WN: a block of each operand a thread.
const BK = 16u;

const THREADS = WM * WN;
const QUADS = BK / 4u;
// Vectors from one depth to the next.
const LDA = RM * WM + 1u;
const LDB = RN * WN + 1u;

var<workgroup> sh_a: array<vec4<f32>, BK * LDA>;
var<workgroup> sh_b: array<vec4<f32>, BK * LDB>;

// The depth `step` further on; see a_*.wgsl.
fn later(plane: Plane, depth: Depth, step: u32) -> Depth {
    return advance(plane, depth, step);
}

// s + a b^T.
fn outer(s: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        fma(vec4<f32>(a.x), b, s[0]),
        fma(vec4<f32>(a.y), b, s[1]),
        fma(vec4<f32>(a.z), b, s[2]),
        fma(vec4<f32>(a.w), b, s[3]),
    );
}

fn store_row(plane: Plane, v: vec4<f32>, m: u32, n: u32) {
    let first = out_row(plane, m);
    if first != NONE && n < column_count() {
        store_four(v, first + n, column_count() - n);
    }
}

// Stores the rows m to m + 3 of the columns n to n + 3.
fn store_block(plane: Plane, s: mat4x4<f32>, m: u32, n: u32) {
    store_row(plane, s[0], m, n);
    store_row(plane, s[1], m + 1u, n);
    store_row(plane, s[2], m + 2u, n);
    store_row(plane, s[3], m + 3u, n);
}

@compute @workgroup_size(THREADS)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let plane = plane_of(group.z);
    let column_tiles = (column_count() + 4u * RN * WN - 1u) / (4u * RN * WN);
    let tile = flat(group, groups);
    let m0 = (tile / column_tiles) * (4u * RM * WM);
    let n0 = (tile % column_tiles) * (4u * RN * WN);
    let y = lane / WN;
    let x = lane % WN;

    // The block of a this thread loads, rows 4 a_m and depths 4 a_k on, and of b, counted from the last thread, so that
    // fewer threads have two. Neighbours go along the contiguous axis.
    let loads_a = lane < RM * WM * QUADS;
    let a_m = select(lane / QUADS, lane % (RM * WM), A_ROWS == 1u);
    let a_k = select(lane % QUADS, lane / (RM * WM), A_ROWS == 1u);
    let other = THREADS - 1u - lane;
    let loads_b = other < RN * WN * QUADS;
    let b_n = select(other / QUADS, other % (RN * WN), B_COLUMNS == 1u);
    let b_k = select(other % QUADS, other / (RN * WN), B_COLUMNS == 1u);
    let m = m0 + 4u * a_m;
    let n = n0 + 4u * b_n;
    let rows = Rows(a_row(plane, m), a_row(plane, m + 1u), a_row(plane, m + 2u), a_row(plane, m + 3u));
    var depth_a = depth_of(plane, plane.begin + 4u * a_k);
    var depth_b = depth_of(plane, plane.begin + 4u * b_k);
    var next_a: mat4x4<f32>;
    var next_b: mat4x4<f32>;
    if loads_a {
        next_a = a_block(plane, rows, depth_a);
    }
    if loads_b {
        next_b = b_block(plane, depth_b, n);
    }
    let a_to = 4u * a_k * LDA + a_m;
    let b_to = 4u * b_k * LDB + b_n;

    // Blocks of sums; the second ones of an axis stay 0 where a thread has one.
    var sum00: mat4x4<f32>;
    var sum01: mat4x4<f32>;
    var sum10: mat4x4<f32>;
    var sum11: mat4x4<f32>;
    for (var k = plane.begin; k < plane.end; k += BK) {
        if loads_a {
            sh_a[a_to] = next_a[0];
            sh_a[a_to + LDA] = next_a[1];
            sh_a[a_to + 2u * LDA] = next_a[2];
            sh_a[a_to + 3u * LDA] = next_a[3];
        }
        if loads_b {
            sh_b[b_to] = next_b[0];
            sh_b[b_to + LDB] = next_b[1];
            sh_b[b_to + 2u * LDB] = next_b[2];
            sh_b[b_to + 3u * LDB] = next_b[3];
        }
        workgroupBarrier();
        // Behind the end these are zeros and never used.
        if loads_a {
            depth_a = advance(plane, depth_a, BK);
            next_a = a_block(plane, rows, depth_a);
        }
        if loads_b {
            depth_b = advance(plane, depth_b, BK);
            next_b = b_block(plane, depth_b, n);
        }
        for (var kk = 0u; kk < BK; kk++) {
            let a0 = sh_a[kk * LDA + y];
            let b0 = sh_b[kk * LDB + x];
            sum00 = outer(sum00, a0, b0);
            if RN == 2u {
                sum01 = outer(sum01, a0, sh_b[kk * LDB + (RN - 1u) * WN + x]);
            }
            if RM == 2u {
                let a1 = sh_a[kk * LDA + (RM - 1u) * WM + y];
                sum10 = outer(sum10, a1, b0);
                if RN == 2u {
                    sum11 = outer(sum11, a1, sh_b[kk * LDB + (RN - 1u) * WN + x]);
                }
            }
        }
        workgroupBarrier();
    }

    let to_m = m0 + 4u * y;
    let to_n = n0 + 4u * x;
    store_block(plane, sum00, to_m, to_n);
    if RN == 2u {
        store_block(plane, sum01, to_m, to_n + 4u * WN);
    }
    if RM == 2u {
        store_block(plane, sum10, to_m + 4u * WM, to_n);
    }
    if RM == 2u && RN == 2u {
        store_block(plane, sum11, to_m + 4u * WM, to_n + 4u * WN);
    }
}
