// Stores four neighbours of the result, which begin at element i, a multiple of four; `count` is 4 or 0.
fn store_four(v: vec4<f32>, i: u32, count: u32) {
    if count > 0u {
        out[i / 4u] = Stored(finish(v, i / 4u));
    }
}
