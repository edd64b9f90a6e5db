// The operands of a matrix product.
const NONE = 0xffffffffu;

struct Params {
    m: u32,
    n: u32,
    k: u32,
    // Depth a workgroup sums.
    chunk: u32,
    // How many share the depth.
    shares: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

struct Plane {
    // Depths to sum over.
    begin: u32,
    end: u32,
    // Where the result and the operands begin: there may be several products, one behind the other.
    offset: u32,
    a: u32,
    b: u32,
}

struct Row {
    // Index of depth 0; NONE below the matrix.
    first: u32,
}

// A depth of the operands.
struct Depth {
    k: u32,
}

fn depth_of(plane: Plane, k: u32) -> Depth {
    return Depth(k);
}

fn advance(plane: Plane, depth: Depth, step: u32) -> Depth {
    return Depth(depth.k + step);
}

fn plane_of(z: u32) -> Plane {
    let begin = (z % params.shares) * params.chunk;
    let product = z / params.shares;
    return Plane(
        begin,
        min(begin + params.chunk, params.k),
        z * params.m * params.n,
        product * params.m * params.k,
        product * params.k * params.n,
    );
}

fn column_count() -> u32 {
    return params.n;
}

fn a_row(plane: Plane, m: u32) -> Row {
    return Row(select(plane.a + select(m * params.k, m, A_ROWS == 1u), NONE, m >= params.m));
}

fn a_index(plane: Plane, row: Row, depth: Depth) -> u32 {
    let i = row.first + select(depth.k, depth.k * params.m, A_ROWS == 1u);
    return select(i, NONE, depth.k >= plane.end || row.first == NONE);
}

fn b_index(plane: Plane, depth: Depth, n: u32) -> u32 {
    let k = depth.k;
    let i = plane.b + select(n * params.k + k, k * params.n + n, B_COLUMNS == 1u);
    return select(i, NONE, k >= plane.end || n >= params.n);
}

fn out_row(plane: Plane, m: u32) -> u32 {
    return select(plane.offset + m * params.n, NONE, m >= params.m);
}

