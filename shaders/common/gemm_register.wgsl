// A product of two operands by one subgroup, all in registers. Tile TM x 4 TN SG: lane l holds rows m0 .. m0 + TM - 1
// of the columns n0 + 4 (t SG + l) + c. The left operand is loaded once a subgroup, each lane a share of the rows, and
// handed round by shuffles; four steps of depth a turn. The host chooses it only for subgroups of one known size.
//
// The file that includes it gives the operands: load_a, load_b, a_row, out_row, depth_of, plane_of,
// column_count, and store_four.
//
// Measured on lavapipe (Mesa 22.3, subgroups of 8, 2 cores shared with other work, so by processor time), GFLOP/s. The
// sums, 256 vectors of 8 lanes, lie in the first-level cache: each takes the four depths of a turn before the next, for 71
// at a matrix product of 1024^3 and 82 at a 3x3 convolution of 128 channels at 16x16. Depth by depth, a load and a store of
// each sum for every multiply-add, the same were 47 and 52; eight depths a turn give 39 to 54, sixteen 37 to 49. Tiles,
// rows x columns a lane, by that convolution: 32x8 75, 32x4 64, 24x8 70, 16x8 60, 16x16 63, 32x16 58, 32x12 39; by one of 32
// channels, so of 4 columns a lane: 64x4 66, 48x4 64, 32x4 59, 24x4 54, 16x4 49. Another 3x3 convolution or product has
// another best of them, by a tenth: 24x8 before 32x8 at 64 channels. `subgroupBroadcast`, which needs constant lanes, is no
// faster than `subgroupShuffle` in an unrolled loop. The same product by common/gemm_tile.wgsl: 7. Storing from the
// registers, unrolled, is between 7 in 100 faster and as much slower, and compiles for twice as long, for 9 s instead
// of 0.3 where three operands follow.
//
// What runs slower (a product whose rows are 1 KiB and more apart) reads down columns that fall into few sets of the
// caches. The phases of a strided input gradient read the same pixels of dy, and write neighbours: tile by tile instead of
// phase by phase 3x3 stride 2 from 64 channels at 14x14 to 32 at 28x28 takes 22 ms instead of 32, batch 128.

// Lanes of a subgroup, which is the workgroup.
const SG = 8u;
// Rows of the tile: a multiple of SG, of 4 SG where the left operand's rows are contiguous.
const TM = 32u;
// Vectors of four columns a lane.
const TN = 2u;
// 1 to do the same tile of every plane before the next tile: for planes that read and write the same memory.
const INTERLEAVED = 0u;
// Rows a lane loads.
const SHARE = TM / SG;
// Vectors of four rows a lane loads at each depth, where the rows are contiguous.
const QUARTER = max(SHARE / 4u, 1u);

// The sums of each lane, [TM TN, SG].
var<workgroup> sh_sum: array<vec4<f32>, TM * TN * SG>;

// The depth `step` further on, anew: extents are constants here, and divisions by them cost next to nothing.
fn later(plane: Plane, depth: Depth, step: u32) -> Depth {
    return depth_of(plane, depth.k + step);
}

// The row of the tile that sum[j][l] belongs to.
fn row_of(j: u32, l: u32) -> u32 {
    if A_ROWS == 1u {
        return 4u * ((j / 4u) * SG + l) + j % 4u;
    }
    return j * SG + l;
}

@compute @workgroup_size(SG)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var number = flat(group, groups);
    var z = group.z;
    if INTERLEAVED == 1u {
        number += z * groups.x * groups.y;
        z = number % groups.z;
        number = number / groups.z;
    }
    let plane = plane_of(z);
    let column_tiles = (column_count() + 4u * TN * SG - 1u) / (4u * TN * SG);
    let tile = number;
    let m0 = (tile / column_tiles) * TM;
    let n0 = (tile % column_tiles) * (4u * TN * SG) + 4u * lane;

    var rows: array<Row, SHARE>;
    for (var j = 0u; j < SHARE; j++) {
        if A_ROWS == 1u {
            rows[j] = a_row(plane, m0 + 4u * ((j % QUARTER) * SG + lane));
        } else {
            rows[j] = a_row(plane, m0 + j * SG + lane);
        }
    }

    var sum: array<array<array<vec4<f32>, TN>, SG>, SHARE>;
    for (var k = plane.begin; k < plane.end; k += 4u) {
        var av: array<vec4<f32>, SHARE>;
        for (var j = 0u; j < SHARE; j++) {
            if A_ROWS == 1u {
                // Component c of vector kk QUARTER + jj is row 4 (jj SG + l) + c at depth k + kk.
                let jj = j % QUARTER;
                av[j] = load_a(plane, rows[jj], m0 + 4u * (jj * SG + lane), depth_of(plane, k + j / QUARTER));
            } else {
                av[j] = load_a(plane, rows[j], m0 + j * SG + lane, depth_of(plane, k));
            }
        }
        var bt: array<array<vec4<f32>, 4>, TN>;
        if B_COLUMNS == 0u {
            for (var t = 0u; t < TN; t++) {
                for (var c = 0u; c < 4u; c++) {
                    bt[t][c] = load_b(plane, depth_of(plane, k), n0 + 4u * t * SG + c);
                }
            }
        }
        var bv: array<array<vec4<f32>, TN>, 4>;
        for (var kk = 0u; kk < 4u; kk++) {
            for (var t = 0u; t < TN; t++) {
                if B_COLUMNS == 1u {
                    bv[kk][t] = load_b(plane, depth_of(plane, k + kk), n0 + 4u * t * SG);
                } else {
                    bv[kk][t] = vec4<f32>(bt[t][0][kk], bt[t][1][kk], bt[t][2][kk], bt[t][3][kk]);
                }
            }
        }
        for (var j = 0u; j < SHARE; j++) {
            for (var l = 0u; l < SG; l++) {
                var s: array<f32, 4>;
                for (var kk = 0u; kk < 4u; kk++) {
                    if A_ROWS == 1u {
                        s[kk] = subgroupShuffle(av[kk * QUARTER + j / 4u][j % 4u], l);
                    } else {
                        s[kk] = subgroupShuffle(av[j][kk], l);
                    }
                }
                for (var t = 0u; t < TN; t++) {
                    var v = sum[j][l][t];
                    for (var kk = 0u; kk < 4u; kk++) {
                        v = fma(vec4<f32>(s[kk]), bv[kk][t], v);
                    }
                    sum[j][l][t] = v;
                }
            }
        }
    }

    // By way of memory, each lane reading only what it wrote, so that `finish` stands in a loop and not 4 TM TN times
    // in the text.
    for (var j = 0u; j < SHARE; j++) {
        for (var l = 0u; l < SG; l++) {
            for (var t = 0u; t < TN; t++) {
                sh_sum[((j * SG + l) * TN + t) * SG + lane] = sum[j][l][t];
            }
        }
    }
    // A bound the compiler does not know keeps it from unrolling.
    let count = min(TM * TN, groups.x * 0x10000u);
    // Folded away where extents are constants and the tile divides them.
    let whole = column_count() % (4u * TN * SG) == 0u;
    for (var e = 0u; e < count; e++) {
        let row = e / TN;
        let first = out_row(plane, m0 + row_of(row / SG, row % SG));
        let n = n0 + 4u * (e % TN) * SG;
        if first != NONE && (whole || n < column_count()) {
            store_four(sh_sum[e * SG + lane], first + n, select(column_count() - n, 4u, whole));
        }
    }
}
