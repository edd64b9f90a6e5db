// Loads of the right operand where four neighbours in memory are four neighbours along the operand's contiguous axis.
alias In2 = f32;
@group(0) @binding(2) var<storage, read> b: array<vec4<In2>>;

// Elements (k, n) to (k, n + 3), or (k, n) to (k + 3, n) where the columns' depth is contiguous; 0 outside.
fn load_b(plane: Plane, depth: Depth, n: u32) -> vec4<f32> {
    let i = b_index(plane, depth, n);
    return select(vec4<f32>(), vec4<f32>(b[select(i, 0u, i == NONE) / 4u]), i != NONE);
}

// Four depths and four columns: column j of the matrix is depth k + j; 0 outside.
fn b_block(plane: Plane, depth: Depth, n: u32) -> mat4x4<f32> {
    if B_COLUMNS == 1u {
        let second = later(plane, depth, 1u);
        let third = later(plane, second, 1u);
        return mat4x4<f32>(
            load_b(plane, depth, n),
            load_b(plane, second, n),
            load_b(plane, third, n),
            load_b(plane, later(plane, third, 1u), n),
        );
    }
    return transpose(mat4x4<f32>(
        load_b(plane, depth, n),
        load_b(plane, depth, n + 1u),
        load_b(plane, depth, n + 2u),
        load_b(plane, depth, n + 3u),
    ));
}
