// The result in vectors of four neighbours: `finish` takes and gives four, and indices count vectors.
alias Out = f32;
alias Stored = vec4<Out>;
@group(0) @binding(7) var<storage, read_write> out: array<Stored>;
