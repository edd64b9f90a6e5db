// Loads of the left operand, element by element: for extents that are no multiple of four.
alias In1 = f32;
@group(0) @binding(1) var<storage, read> a: array<In1>;

fn load_a_one(i: u32) -> f32 {
    return select(0f, f32(a[select(i, 0u, i == NONE)]), i != NONE);
}

// Elements (m, k) to (m, k + 3), or (m, k) to (m + 3, k) where the rows are contiguous; 0 outside.
fn load_a(plane: Plane, row: Row, m: u32, k: u32) -> vec4<f32> {
    if A_ROWS == 1u {
        return vec4<f32>(
            load_a_one(a_index(plane, row, k)),
            load_a_one(a_index(plane, a_row(plane, m + 1u), k)),
            load_a_one(a_index(plane, a_row(plane, m + 2u), k)),
            load_a_one(a_index(plane, a_row(plane, m + 3u), k)),
        );
    }
    return vec4<f32>(
        load_a_one(a_index(plane, row, k)),
        load_a_one(a_index(plane, row, k + 1u)),
        load_a_one(a_index(plane, row, k + 2u)),
        load_a_one(a_index(plane, row, k + 3u)),
    );
}

