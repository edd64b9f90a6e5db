// A product of two operands by one subgroup, all in registers. Tile TM x 4 TN SG: lane l holds rows m0 .. m0 + TM - 1
// of the columns n0 + 4 (t SG + l) + c. The left operand is loaded once a subgroup, each lane a share of the rows, and
// handed round by shuffles; four steps of depth a turn. The host chooses it only for subgroups of one known size.
//
// The file that includes it gives the operands: load_a, load_b, a_row, out_row, depth_of, plane_of,
// column_count, and store_four.
//
// Measured on lavapipe (Mesa 22.3, subgroups of 8, 2 cores shared with other work, so by processor time), matrix
// product of 1024^3, GFLOP/s by tile rows x columns a lane: 16x4 12, 16x8 27, 32x4 22, 32x8 46. 64x4 and 64x8 fall to 5:
// Mesa unrolls loops of at most 32 turns, and a register array indexed by a loop that stays is kept in memory. Unrolled
// by hand, with named registers instead of arrays, 32x8 gains nothing and 64x8 a fourth for four times the compile
// time. `subgroupBroadcast`, which needs constant lanes, is no faster than `subgroupShuffle` in an unrolled loop. The
// same product by common/gemm_tile.wgsl: 7. Storing from the registers, unrolled, is at most 12 in 100 faster and
// compiles for 0.5 s instead of 0.25, for 9 s instead of 0.3 where three operands follow in stages.
//
// Convolutions 3x3 of 64 channels at 32x32, 128 at 16x16, 256 at 8x8, 512 at 4x4, batch 32: forward 51, 51, 28, 22;
// input gradient 48 each; weight gradient 29, 20, 24, 42 (gemm_tile.wgsl: 7 to 9). Matrix product of 1024^3 with a
// row-major or transposed, b likewise: 23, 45 (b transposed), 19 (a), 34 (both). What runs at half the speed reads
// down columns whose rows are 1 KiB and more apart, which fall into few sets of the caches; on a quiet machine the
// gap is smaller (41 and 46).

// Lanes of a subgroup, which is the workgroup.
const SG = 8u;
// Rows of the tile: a multiple of SG, of 4 SG where the left operand's rows are contiguous.
const TM = 32u;
// Vectors of four columns a lane.
const TN = 2u;
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
    let plane = plane_of(group.z);
    let column_tiles = (column_count() + 4u * TN * SG - 1u) / (4u * TN * SG);
    let tile = flat(group, groups);
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
