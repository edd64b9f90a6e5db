// Loads of the right operand where four neighbours in memory are four neighbours along the operand's contiguous axis.
alias In2 = f32;
@group(0) @binding(2) var<storage, read> b: array<vec4<In2>>;

// Elements (k, n) to (k, n + 3), or (k, n) to (k + 3, n) where the columns' depth is contiguous; 0 outside.
fn load_b(plane: Plane, k: u32, n: u32) -> vec4<f32> {
    let i = b_index(plane, k, n);
    return select(vec4<f32>(), vec4<f32>(b[select(i, 0u, i == NONE) / 4u]), i != NONE);
}

