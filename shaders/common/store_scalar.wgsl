// Stores the first `count` of four neighbours of the result, which begin at element i.
fn store_four(v: vec4<f32>, i: u32, count: u32) {
    if count > 0u {
        out[i] = Stored(finish(v.x, i));
    }
    if count > 1u {
        out[i + 1u] = Stored(finish(v.y, i + 1u));
    }
    if count > 2u {
        out[i + 2u] = Stored(finish(v.z, i + 2u));
    }
    if count > 3u {
        out[i + 3u] = Stored(finish(v.w, i + 3u));
    }
}
