// Loads of the left operand, element by element: for extents that are no multiple of four.
alias In1 = f32;
@group(0) @binding(1) var<storage, read> a: array<In1>;

fn load_a_one(i: u32) -> f32 {
    return select(0f, f32(a[select(i, 0u, i == NONE)]), i != NONE);
}

// Elements (m, k) to (m, k + 3), or (m, k) to (m + 3, k) where the rows are contiguous; 0 outside.
fn load_a(plane: Plane, row: Row, m: u32, depth: Depth) -> vec4<f32> {
    if A_ROWS == 1u {
        return vec4<f32>(
            load_a_one(a_index(plane, row, depth)),
            load_a_one(a_index(plane, a_row(plane, m + 1u), depth)),
            load_a_one(a_index(plane, a_row(plane, m + 2u), depth)),
            load_a_one(a_index(plane, a_row(plane, m + 3u), depth)),
        );
    }
    return vec4<f32>(
        load_a_one(a_index(plane, row, depth)),
        load_a_one(a_index(plane, row, later(plane, depth, 1u))),
        load_a_one(a_index(plane, row, later(plane, depth, 2u))),
        load_a_one(a_index(plane, row, later(plane, depth, 3u))),
    );
}

struct Rows {
    r0: Row,
    r1: Row,
    r2: Row,
    r3: Row,
}

fn load_a_rows(plane: Plane, rows: Rows, depth: Depth) -> vec4<f32> {
    return vec4<f32>(
        load_a_one(a_index(plane, rows.r0, depth)),
        load_a_one(a_index(plane, rows.r1, depth)),
        load_a_one(a_index(plane, rows.r2, depth)),
        load_a_one(a_index(plane, rows.r3, depth)),
    );
}

// Four rows and four depths: column j of the matrix is the rows at depth k + j; 0 outside.
fn a_block(plane: Plane, rows: Rows, depth: Depth) -> mat4x4<f32> {
    let second = later(plane, depth, 1u);
    let third = later(plane, second, 1u);
    let fourth = later(plane, third, 1u);
    return mat4x4<f32>(
        load_a_rows(plane, rows, depth),
        load_a_rows(plane, rows, second),
        load_a_rows(plane, rows, third),
        load_a_rows(plane, rows, fourth),
    );
}
