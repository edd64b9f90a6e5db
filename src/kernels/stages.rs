//! Elementwise chains as WGSL: the body of `finish`, one line a stage.

use super::text::FIRST_OPERAND;
use crate::launch::{Launch, Operand, Stage};
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

/// `finish` of a launch's chain, with the operands it reads. Needs common/elementwise.wgsl.
pub(super) fn finish(chain: &[Stage], launch: &Launch) -> String {
    let operands = if chain.is_empty() { Vec::new() } else { launch.operands() };
    let mut text = String::from("alias Element = f32;\n");
    for k in 0..operands.len() {
        let binding = FIRST_OPERAND + k as u32;
        text += &format!("alias Operand{k} = f32;\n");
        text += &format!("@group(0) @binding({binding}) var<storage, read> operand{k}: array<Operand{k}>;\n");
    }
    text += "fn finish(first: f32, i: u32) -> f32 {\n    var v = first;\n";
    for stage in chain {
        let line = match stage {
            Stage::Unary(op) => unary(op, "v"),
            Stage::Binary { op, swapped, operand } => {
                let other = match operand {
                    Operand::Previous => "f32(out[i])".to_string(),
                    Operand::Buffer { place, stretch } => {
                        let k = operands.iter().position(|found| *found == (*place, *stretch)).unwrap_or(0);
                        format!("f32(operand{k}[{}])", index(stretch, launch.shape.len()))
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

/// `before` of a reduction. Needs common/elementwise.wgsl.
pub(super) fn before(chain: &[Unary]) -> String {
    let lines: String = chain.iter().map(|op| format!("    v = {};\n", unary(op, "v"))).collect();
    format!("fn before(first: f32) -> f32 {{\n    var v = first;\n{lines}    return v;\n}}\n")
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
    let f = |x: f64| literal(x as f32);
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
        Unary::Relu => format!("select({v}, 0f, {v} <= 0f)"),
        Unary::LeakyRelu { slope } => format!("select({v} * {}, {v}, {v} > 0f)", f(*slope)),
        Unary::Silu => format!("{v} * sigmoid({v})"),
        Unary::Gelu => format!("gelu({v})"),
        Unary::Tanh => format!("hyperbolic_tangent({v})"),
        Unary::Sigmoid => format!("sigmoid({v})"),
        Unary::Erf => format!("error_function({v})"),
        Unary::Clamp { lo, hi } => {
            let above = match *lo as f32 {
                f32::NEG_INFINITY => v.to_string(),
                lo => format!("select({v}, {0}, {v} < {0})", literal(lo)),
            };
            match *hi as f32 {
                f32::INFINITY => above,
                hi => format!("select({above}, {0}, {v} > {0})", literal(hi)),
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
        Binary::Gate { slope } if *slope == 0.0 => format!("select(0f, {x}, {y} > 0f)"),
        Binary::Gate { slope } => format!("gate({x}, {y}, {})", literal(*slope as f32)),
        Binary::Greater => format!("select(0f, 1f, {x} > {y})"),
        Binary::GreaterEqual => format!("select(0f, 1f, {x} >= {y})"),
        Binary::Equal => format!("select(0f, 1f, {x} == {y})"),
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
