// A product of two operands in half precision by cooperative matrices, which a GPU multiplies in units of its own:
// f16 times f16, sums in f32. Tile 2 SIZE SR rows x 2 SIZE SC columns, depth BK a turn; SR x SC subgroups of a workgroup
// hold 2 x 2 matrices of sums each.
//
// Both operands lie in workgroup memory as f16, depth by depth, [BK, rows or columns], rounded while they are staged where
// their buffers hold f32. Blocks of 4 x 4 elements are loaded, and moved on from turn to turn, as in gemm_tile.wgsl. A
// cooperative matrix can be neither taken apart nor converted, so the sums go through workgroup memory on their way to
// `finish`, a matrix of each subgroup at a time.
//
// The host chooses it only for products in half precision, for subgroups of one known size, and after a product of known
// result came out right on the device (src/kernels/cooperative.rs). On software (llvmpipe of Mesa 26, matrices of
// 8 x 8) the kernel tests pass; no hardware has run it.
//
// The file that includes it gives the operands: a_block, b_block, a_row, out_row, depth_of, advance, plane_of,
// column_count, and store_four; and cooperative8.wgsl or cooperative16.wgsl the matrices.

// Lanes of a subgroup.
const SG = 32u;
// Subgroups along rows and columns.
const SR = 2u;
const SC = 2u;
// Depth a turn: a multiple of SIZE. SR SIZE BK / 8 and SC SIZE BK / 8 are at most THREADS: a block of each operand a thread.
const BK = 32u;

const THREADS = SG * SR * SC;
const TILE_M = 2u * SIZE * SR;
const TILE_N = 2u * SIZE * SC;
const QUADS = BK / 4u;
// Elements from one depth to the next: padded against bank conflicts.
const LDA = TILE_M + 8u;
const LDB = TILE_N + 8u;

var<workgroup> sh_a: array<f16, BK * LDA>;
var<workgroup> sh_b: array<f16, BK * LDB>;
// A matrix of sums of each subgroup.
var<workgroup> sh_sum: array<f32, SR * SC * SIZE * SIZE>;

// The depth `step` further on; see a_*.wgsl.
fn later(plane: Plane, depth: Depth, step: u32) -> Depth {
    return advance(plane, depth, step);
}

fn stage_a(v: vec4<f32>, to: u32) {
    sh_a[to] = f16(v.x);
    sh_a[to + 1u] = f16(v.y);
    sh_a[to + 2u] = f16(v.z);
    sh_a[to + 3u] = f16(v.w);
}

fn stage_b(v: vec4<f32>, to: u32) {
    sh_b[to] = f16(v.x);
    sh_b[to + 1u] = f16(v.y);
    sh_b[to + 2u] = f16(v.z);
    sh_b[to + 3u] = f16(v.w);
}

// Stores what a subgroup left in its part of sh_sum, whose first element is row m and column n of the result.
fn store_matrix(plane: Plane, m: u32, n: u32, part: u32, lane: u32) {
    for (var e = lane; e < SIZE * SIZE / 4u; e += SG) {
        let first = out_row(plane, m + e / (SIZE / 4u));
        let column = n + 4u * (e % (SIZE / 4u));
        let at = part + 4u * e;
        if first != NONE && column < column_count() {
            let v = vec4<f32>(sh_sum[at], sh_sum[at + 1u], sh_sum[at + 2u], sh_sum[at + 3u]);
            store_four(v, first + column, column_count() - column);
        }
    }
}

@compute @workgroup_size(THREADS)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let plane = plane_of(group.z);
    let column_tiles = (column_count() + TILE_N - 1u) / TILE_N;
    let tile = flat(group, groups);
    let m0 = (tile / column_tiles) * TILE_M;
    let n0 = (tile % column_tiles) * TILE_N;
    // First row and column of this subgroup's matrices in the tile.
    let sub_m = (subgroup / SC) * (2u * SIZE);
    let sub_n = (subgroup % SC) * (2u * SIZE);

    // The blocks this thread loads, as in gemm_tile.wgsl.
    let loads_a = lane < (TILE_M / 4u) * QUADS;
    let a_m = select(lane / QUADS, lane % (TILE_M / 4u), A_ROWS == 1u);
    let a_k = select(lane % QUADS, lane / (TILE_M / 4u), A_ROWS == 1u);
    let other = THREADS - 1u - lane;
    let loads_b = other < (TILE_N / 4u) * QUADS;
    let b_n = select(other / QUADS, other % (TILE_N / 4u), B_COLUMNS == 1u);
    let b_k = select(other % QUADS, other / (TILE_N / 4u), B_COLUMNS == 1u);
    let m = m0 + 4u * a_m;
    let n = n0 + 4u * b_n;
    let rows = Rows(a_row(plane, m), a_row(plane, m + 1u), a_row(plane, m + 2u), a_row(plane, m + 3u));
    var depth_a = depth_of(plane, plane.begin + 4u * a_k);
    var depth_b = depth_of(plane, plane.begin + 4u * b_k);
    let a_to = 4u * a_k * LDA + 4u * a_m;
    let b_to = 4u * b_k * LDB + 4u * b_n;

    var sum00 = Sums();
    var sum01 = Sums();
    var sum10 = Sums();
    var sum11 = Sums();
    for (var k = plane.begin; k < plane.end; k += BK) {
        if loads_a {
            let block = a_block(plane, rows, depth_a);
            stage_a(block[0], a_to);
            stage_a(block[1], a_to + LDA);
            stage_a(block[2], a_to + 2u * LDA);
            stage_a(block[3], a_to + 3u * LDA);
            depth_a = advance(plane, depth_a, BK);
        }
        if loads_b {
            let block = b_block(plane, depth_b, n);
            stage_b(block[0], b_to);
            stage_b(block[1], b_to + LDB);
            stage_b(block[2], b_to + 2u * LDB);
            stage_b(block[3], b_to + 3u * LDB);
            depth_b = advance(plane, depth_b, BK);
        }
        workgroupBarrier();
        for (var kk = 0u; kk < BK; kk += SIZE) {
            let a0 = coopLoad<Left>(&sh_a[kk * LDA + sub_m], LDA);
            let a1 = coopLoad<Left>(&sh_a[kk * LDA + sub_m + SIZE], LDA);
            let b0 = coopLoadT<Right>(&sh_b[kk * LDB + sub_n], LDB);
            let b1 = coopLoadT<Right>(&sh_b[kk * LDB + sub_n + SIZE], LDB);
            sum00 = coopMultiplyAdd(a0, b0, sum00);
            sum01 = coopMultiplyAdd(a0, b1, sum01);
            sum10 = coopMultiplyAdd(a1, b0, sum10);
            sum11 = coopMultiplyAdd(a1, b1, sum11);
        }
        workgroupBarrier();
    }

    let part = subgroup * (SIZE * SIZE);
    let to_m = m0 + sub_m;
    let to_n = n0 + sub_n;
    coopStoreT(sum00, &sh_sum[part], SIZE);
    workgroupBarrier();
    store_matrix(plane, to_m, to_n, part, member);
    workgroupBarrier();
    coopStoreT(sum01, &sh_sum[part], SIZE);
    workgroupBarrier();
    store_matrix(plane, to_m, to_n + SIZE, part, member);
    workgroupBarrier();
    coopStoreT(sum10, &sh_sum[part], SIZE);
    workgroupBarrier();
    store_matrix(plane, to_m + SIZE, to_n, part, member);
    workgroupBarrier();
    coopStoreT(sum11, &sh_sum[part], SIZE);
    workgroupBarrier();
    store_matrix(plane, to_m + SIZE, to_n + SIZE, part, member);
}
