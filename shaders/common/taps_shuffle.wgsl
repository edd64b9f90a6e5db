// Vector k of the filter at every tap and channel: each lane of a subgroup loads a share and hands it round.
const SHARES = (R * S * C + SG - 1u) / SG;

fn load_taps(k: u32, lane: u32) -> Taps {
    var mine: array<vec4<f32>, SHARES>;
    for (var m = 0u; m < SHARES; m++) {
        mine[m] = vec4<f32>(b[min(m * SG + lane, R * S * C - 1u) * params.k + k]);
    }
    var taps: Taps;
    for (var r = 0u; r < R; r++) {
        for (var s = 0u; s < S; s++) {
            for (var c = 0u; c < C; c++) {
                let t = (r * S + s) * C + c;
                taps[r][s][c] = subgroupShuffle(mine[t / SG], t % SG);
            }
        }
    }
    return taps;
}
