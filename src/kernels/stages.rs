//! Elementwise chains as WGSL: the body of `finish`, one line a stage.

use super::text::FIRST_OPERAND;
use crate::launch::{Kernel, Launch, Operand, Stage};
use crate::shape::Stretch;
use crate::tape::{Binary, Unary};

/// A float as WGSL that gives exactly its bits. Infinities and NaN, which WGSL has no literals for, are read from a
/// variable of common/elementwise.wgsl.
pub(super) fn literal(value: f32) -> String {
    if value.is_nan() {
        "not_a_number()".into()
    } else if value.is_infinite() {
        if value > 0.0 { "infinity()".into() } else { "(-infinity())".into() }
    } else if value.is_sign_negative() {
        format!("(-{:e}f)", -value)
    } else {
        format!("{value:e}f")
    }
}

/// How many neighbours `finish` handles at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// One: `finish(v: f32, i)` of element i.
    One,
    /// Four: `finish(v: vec4<f32>, i)` of the elements 4 i to 4 i + 3.
    Four,
}

impl Width {
    /// The type of what `finish` takes and gives.
    pub fn value(self) -> &'static str {
        match self {
            Width::One => "f32",
            Width::Four => "vec4<f32>",
        }
    }
}

/// Whether four neighbours of the result can be finished at a time: each operand gives them four neighbours, or one
/// value for all.
pub(super) fn in_fours(launch: &Launch) -> bool {
    let len = launch.shape.len();
    len.is_multiple_of(4) && launch.operands().iter().all(|(_, s)| gives_four(s) || gives_one(s))
}

/// Whether the elements of four neighbours are four neighbours.
fn gives_four(stretch: &Stretch) -> bool {
    stretch.div == 1 && stretch.modulo.is_multiple_of(4)
}

/// Whether the elements of four neighbours are one element.
fn gives_one(stretch: &Stretch) -> bool {
    stretch.modulo == 1 || stretch.div.is_multiple_of(4)
}

/// `finish` of a launch's chain, with the operands it reads. Needs common/elementwise.wgsl.
pub(super) fn finish(chain: &[Stage], launch: &Launch, width: Width) -> String {
    let mut text = format!("alias Element = {};\n", width.value());
    for (k, operand) in launch.operands().into_iter().enumerate() {
        let binding = FIRST_OPERAND + k as u32;
        let four = width == Width::Four && gives_four(&operand.1);
        let ty = match () {
            () if launch.reads_bits(operand) => "u32".to_string(),
            () if four => format!("vec4<Operand{k}>"),
            () => format!("Operand{k}"),
        };
        text += &format!("alias Operand{k} = f32;\n");
        text += &format!("@group(0) @binding({binding}) var<storage, read> operand{k}: array<{ty}>;\n");
    }
    text + "fn finish(first: Value, i: u32) -> Value {\n" + &body(chain, launch, launch.shape.len(), width)
}

/// The lines of a chain over `len` elements, `first` being the value of element (or vector) `i`.
fn body(chain: &[Stage], launch: &Launch, len: usize, width: Width) -> String {
    let operands = launch.operands();
    let mut text = String::from("    var v = first;\n");
    for stage in chain {
        let line = match stage {
            Stage::Unary(op) => unary(op, "v"),
            Stage::Binary { op, swapped, operand } => {
                let other = match operand {
                    Operand::Previous => "Value(out[i])".to_string(),
                    Operand::Bits { place, stretch } => {
                        let k = operands.iter().position(|found| *found == (*place, *stretch)).unwrap_or(0);
                        match width {
                            Width::One => {
                                format!("Value((operand{k}[{}] >> (i % 32u)) & 1u)", index(stretch, len))
                            }
                            Width::Four => {
                                let word = format!("operand{k}[{}]", index(&by_fours(stretch), len / 4));
                                format!(
                                    "Value((vec4<u32>({word} >> (4u * (i % 8u))) >> vec4<u32>(0u, 1u, 2u, 3u)) \
                                     & vec4<u32>(1u))"
                                )
                            }
                        }
                    }
                    Operand::Buffer { place, stretch } => {
                        let k = operands.iter().position(|found| *found == (*place, *stretch)).unwrap_or(0);
                        match width {
                            Width::One => format!("Value(operand{k}[{}])", index(stretch, len)),
                            Width::Four => {
                                let at = index(&by_fours(stretch), len / 4);
                                // Of a type that may not be f32.
                                let inner = if gives_four(stretch) { "" } else { "f32" };
                                format!("Value({inner}(operand{k}[{at}]))")
                            }
                        }
                    }
                };
                if *swapped { binary(op, &other, "v") } else { binary(op, "v", &other) }
            }
        };
        text += &format!("    v = {line};\n");
    }
    text + "    return v;\n}\n"
}

/// `finish` of a launch of u32.
pub(super) fn finish_u32() -> String {
    "alias Element = u32;\nfn finish(v: u32, i: u32) -> u32 {\n    return v;\n}\n".into()
}

/// `before` of a reduction, whose operands are declared with `finish`. Needs common/elementwise.wgsl.
pub(super) fn before(chain: &[Stage], launch: &Launch, width: Width) -> String {
    let len = match launch.kernel {
        Kernel::Reduce { outer, extent, inner, .. } => outer * extent * inner,
        _ => launch.shape.len(),
    };
    String::from("fn before(first: Value, i: u32) -> Value {\n") + &body(chain, launch, len, width)
}

/// The stretch by which a vector of four neighbours finds its vector, or its one element, in an operand.
fn by_fours(stretch: &Stretch) -> Stretch {
    if gives_four(stretch) {
        Stretch { div: 1, modulo: stretch.modulo / 4 }
    } else {
        Stretch { div: (stretch.div / 4).max(1), modulo: stretch.modulo }
    }
}

/// The index a stretch gives for element `i` of `len`, without operations that do nothing.
fn index(stretch: &Stretch, len: usize) -> String {
    let quotient = if stretch.div == 1 { "i".to_string() } else { format!("(i / {}u)", stretch.div) };
    match stretch.modulo {
        1 => "0u".into(),
        modulo if modulo >= len.div_ceil(stretch.div.max(1)) => quotient,
        modulo => format!("{quotient} % {modulo}u"),
    }
}

fn unary(op: &Unary, v: &str) -> String {
    let f = |x: f64| format!("Value({})", literal(x as f32));
    match op {
        Unary::Affine { scale, shift } if *shift == 0.0 => format!("{v} * {}", f(*scale)),
        Unary::Affine { scale, shift } if *scale == 1.0 => format!("{v} + {}", f(*shift)),
        Unary::Affine { scale, shift } => format!("{v} * {} + {}", f(*scale), f(*shift)),
        Unary::Exp => format!("exp({v})"),
        Unary::Log => format!("log({v})"),
        Unary::Sqrt => format!("sqrt({v})"),
        Unary::Square => format!("{v} * {v}"),
        Unary::Abs => format!("abs({v})"),
        Unary::Sign => format!("sign({v})"),
        Unary::Relu => format!("select({v}, Value(0f), {v} <= Value(0f))"),
        Unary::LeakyRelu { slope } => format!("select({v} * {}, {v}, {v} > Value(0f))", f(*slope)),
        Unary::Silu => format!("{v} * sigmoid({v})"),
        Unary::Gelu => format!("gelu({v})"),
        Unary::Tanh => format!("hyperbolic_tangent({v})"),
        Unary::Sigmoid => format!("sigmoid({v})"),
        Unary::Erf => format!("error_function({v})"),
        Unary::Clamp { lo, hi } => {
            let above = match *lo as f32 {
                f32::NEG_INFINITY => v.to_string(),
                lo => format!("select({v}, {0}, {v} < {0})", f(lo.into())),
            };
            match *hi as f32 {
                f32::INFINITY => above,
                hi => format!("select({above}, {0}, {v} > {0})", f(hi.into())),
            }
        }
    }
}

fn binary(op: &Binary, x: &str, y: &str) -> String {
    match op {
        Binary::Add => format!("{x} + {y}"),
        Binary::Sub => format!("{x} - {y}"),
        Binary::Mul => format!("{x} * {y}"),
        Binary::Div => format!("{x} / {y}"),
        Binary::Max => format!("max({x}, {y})"),
        Binary::Min => format!("min({x}, {y})"),
        Binary::AddScaled { scale } => format!("{x} + {} * {y}", literal(*scale as f32)),
        Binary::Gate { slope } if *slope == 0.0 => format!("select(Value(0f), {x}, {y} > Value(0f))"),
        Binary::Gate { slope } => format!("gate({x}, {y}, {})", literal(*slope as f32)),
        Binary::Greater => format!("select(Value(0f), Value(1f), {x} > {y})"),
        Binary::GreaterEqual => format!("select(Value(0f), Value(1f), {x} >= {y})"),
        Binary::Equal => format!("select(Value(0f), Value(1f), {x} == {y})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_keep_their_bits() {
        for value in
            [0.0f32, -0.0, 1.0, -1.5, 1e-45, f32::MIN_POSITIVE, f32::MAX, 0.1, 8.0 / 255.0, -1e30, 3.0e38]
        {
            let text = literal(value);
            let number = text.trim_start_matches('(').trim_end_matches(')').trim_end_matches('f');
            assert_eq!(number.parse::<f32>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
    }

    #[test]
    fn indices_do_only_what_is_needed() {
        let at = |div, modulo| index(&Stretch { div, modulo }, 24);
        assert_eq!(at(1, 24), "i");
        assert_eq!(at(1, 1), "0u");
        assert_eq!(at(1, 4), "i % 4u");
        assert_eq!(at(6, 4), "(i / 6u)");
        assert_eq!(at(2, 3), "(i / 2u) % 3u");
    }
}
