// An elementwise kernel's input in vectors of four neighbours.
alias In1 = f32;
@group(0) @binding(1) var<storage, read> x: array<vec4<In1>>;
