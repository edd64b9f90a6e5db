// The result, element by element.
alias Out = Element;
alias Stored = Out;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;
