// An elementwise kernel's input, element by element.
alias In1 = Element;
@group(0) @binding(1) var<storage, read> x: array<In1>;
