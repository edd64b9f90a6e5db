// Loads of the left operand where four neighbours in memory are four neighbours along the operand's contiguous axis.
alias In1 = f32;
@group(0) @binding(1) var<storage, read> a: array<vec4<In1>>;

// Elements (m, k) to (m, k + 3), or (m, k) to (m + 3, k) where the rows are contiguous; 0 outside.
fn load_a(plane: Plane, row: Row, m: u32, k: u32) -> vec4<f32> {
    let i = a_index(plane, row, k);
    return select(vec4<f32>(), vec4<f32>(a[select(i, 0u, i == NONE) / 4u]), i != NONE);
}

