// Loads of the right operand, element by element: for extents that are no multiple of four.
alias In2 = f32;
@group(0) @binding(2) var<storage, read> b: array<In2>;

fn load_b_one(i: u32) -> f32 {
    return select(0f, f32(b[select(i, 0u, i == NONE)]), i != NONE);
}

// Elements (k, n) to (k, n + 3); 0 outside.
fn load_b_columns(plane: Plane, depth: Depth, n: u32) -> vec4<f32> {
    return vec4<f32>(
        load_b_one(b_index(plane, depth, n)),
        load_b_one(b_index(plane, depth, n + 1u)),
        load_b_one(b_index(plane, depth, n + 2u)),
        load_b_one(b_index(plane, depth, n + 3u)),
    );
}

// Elements (k, n) to (k, n + 3), or (k, n) to (k + 3, n) where the columns' depth is contiguous; 0 outside.
fn load_b(plane: Plane, depth: Depth, n: u32) -> vec4<f32> {
    if B_COLUMNS == 1u {
        return load_b_columns(plane, depth, n);
    }
    return vec4<f32>(
        load_b_one(b_index(plane, depth, n)),
        load_b_one(b_index(plane, later(plane, depth, 1u), n)),
        load_b_one(b_index(plane, later(plane, depth, 2u), n)),
        load_b_one(b_index(plane, later(plane, depth, 3u), n)),
    );
}

// Four depths and four columns: column j of the matrix is depth k + j; 0 outside.
fn b_block(plane: Plane, depth: Depth, n: u32) -> mat4x4<f32> {
    let second = later(plane, depth, 1u);
    let third = later(plane, second, 1u);
    let fourth = later(plane, third, 1u);
    return mat4x4<f32>(
        load_b_columns(plane, depth, n),
        load_b_columns(plane, second, n),
        load_b_columns(plane, third, n),
        load_b_columns(plane, fourth, n),
    );
}
