// Elementwise functions that WGSL lacks or leaves too loose, for the stages the host writes. A Value is f32, or
// vec4<f32> where a shader handles four neighbours at a time; the host declares it before this file.

// The bits of +infinity and NaN, in variables because WGSL refuses them as constants.
var<private> infinity_bits: u32 = 0x7f800000u;
var<private> nan_bits: u32 = 0x7fc00000u;

fn infinity() -> f32 {
    return bitcast<f32>(infinity_bits);
}

fn not_a_number() -> f32 {
    return bitcast<f32>(nan_bits);
}

// 1 / (1 + e^-x), with an exponent that is never positive.
fn sigmoid(x: Value) -> Value {
    let e = exp(-abs(x));
    return select(e, Value(1f), x >= Value(0f)) / (1f + e);
}

// tanh x: a Taylor polynomial near 0, where the quotient would cancel; elsewhere (1 - e^-2|x|) / (1 + e^-2|x|), which
// cannot overflow.
fn hyperbolic_tangent(x: Value) -> Value {
    let s = x * x;
    let near = x + x * s * (-0.33333334f + s * (0.13333334f + s * (-0.053968254f + s * 0.021869488f)));
    let e = exp(-2f * abs(x));
    return select(sign(x) * ((1f - e) / (1f + e)), near, abs(x) < Value(0.25f));
}

// erf x to about 1e-7: minimax polynomials by N. Juffa (1 ulp in C), in x near 0 and for log(1 - erf) beyond, where
// 4 is far enough that erf rounds to 1.
fn error_function(x: Value) -> Value {
    let s = x * x;
    var near = fma(Value(-5.96761703e-4f), s, Value(4.99119423e-3f));
    near = fma(near, s, Value(-2.67681349e-2f));
    near = fma(near, s, Value(1.12819925e-1f));
    near = fma(near, s, Value(-3.76125336e-1f));
    near = fma(near, s, Value(1.28379166e-1f));
    near = fma(near, x, x);
    let t = min(abs(x), Value(4f));
    var far = fma(Value(-1.72853470e-5f), t, Value(3.83197126e-4f));
    far = fma(far, t, Value(-3.88396438e-3f));
    far = fma(far, t, Value(2.42546219e-2f));
    far = fma(far, t, Value(-1.06777877e-1f));
    far = fma(far, t, Value(-6.34846687e-1f));
    far = fma(far, t, Value(-1.28717512e-1f));
    far = fma(far, t, -t);
    return select(sign(x) * (1f - exp(far)), near, abs(x) <= Value(0.927734375f));
}

// x Phi(x).
fn gelu(x: Value) -> Value {
    return 0.5f * x * (1f + error_function(0.70710678f * x));
}

// x where y > 0, else slope * x.
fn gate(x: Value, y: Value, slope: f32) -> Value {
    return select(slope * x, x, y > Value(0f));
}
