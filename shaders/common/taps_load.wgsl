// Vector k of the filter at every tap and channel, each invocation loading all of them.
fn load_taps(k: u32, lane: u32) -> Taps {
    var taps: Taps;
    for (var r = 0u; r < R; r++) {
        for (var s = 0u; s < S; s++) {
            for (var c = 0u; c < C; c++) {
                taps[r][s][c] = vec4<f32>(b[((r * S + s) * C + c) * params.k + k]);
            }
        }
    }
    return taps;
}
