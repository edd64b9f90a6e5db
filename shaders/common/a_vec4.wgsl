// Loads of the left operand where four neighbours in memory are four neighbours along the operand's contiguous axis.
alias In1 = f32;
@group(0) @binding(1) var<storage, read> a: array<vec4<In1>>;

// Elements (m, k) to (m, k + 3), or (m, k) to (m + 3, k) where the rows are contiguous; 0 outside.
fn load_a(plane: Plane, row: Row, m: u32, depth: Depth) -> vec4<f32> {
    let i = a_index(plane, row, depth);
    return select(vec4<f32>(), vec4<f32>(a[select(i, 0u, i == NONE) / 4u]), i != NONE);
}

struct Rows {
    r0: Row,
    r1: Row,
    r2: Row,
    r3: Row,
}

// Four rows and four depths: column j of the matrix is the rows at depth k + j; 0 outside.
fn a_block(plane: Plane, rows: Rows, depth: Depth) -> mat4x4<f32> {
    if A_ROWS == 1u {
        let second = later(plane, depth, 1u);
        let third = later(plane, second, 1u);
        return mat4x4<f32>(
            load_a(plane, rows.r0, 0u, depth),
            load_a(plane, rows.r0, 0u, second),
            load_a(plane, rows.r0, 0u, third),
            load_a(plane, rows.r0, 0u, later(plane, third, 1u)),
        );
    }
    return transpose(mat4x4<f32>(
        load_a(plane, rows.r0, 0u, depth),
        load_a(plane, rows.r1, 0u, depth),
        load_a(plane, rows.r2, 0u, depth),
        load_a(plane, rows.r3, 0u, depth),
    ));
}
