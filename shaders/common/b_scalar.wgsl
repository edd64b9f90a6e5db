// Loads of the right operand, element by element: for extents that are no multiple of four.
alias In2 = f32;
@group(0) @binding(2) var<storage, read> b: array<In2>;

fn load_b_one(i: u32) -> f32 {
    return select(0f, f32(b[select(i, 0u, i == NONE)]), i != NONE);
}

// Elements (k, n) to (k, n + 3), or (k, n) to (k + 3, n) where the columns' depth is contiguous; 0 outside.
fn load_b(plane: Plane, k: u32, n: u32) -> vec4<f32> {
    let step = select(vec2<u32>(1u, 0u), vec2<u32>(0u, 1u), B_COLUMNS == 1u);
    return vec4<f32>(
        load_b_one(b_index(plane, k, n)),
        load_b_one(b_index(plane, k + step.x, n + step.y)),
        load_b_one(b_index(plane, k + 2u * step.x, n + 2u * step.y)),
        load_b_one(b_index(plane, k + 3u * step.x, n + 3u * step.y)),
    );
}

