//! From a shader file to the text a pipeline is made of: includes, stages, constants, baked parameters.

use super::stages::{self, Width};
use super::{Arg, Call, Field, Kind, Shader};
use crate::launch::Launch;
use crate::shape::DType;

/// Binding of the first input.
pub(super) const FIRST_INPUT: u32 = 1;
/// Binding of the result.
pub(super) const OUT: u32 = 7;
/// Binding of the first operand of the stages.
pub(super) const FIRST_OPERAND: u32 = 8;

/// The files shaders may include.
const COMMON: &[(&str, &str)] = &[
    ("common/a_scalar.wgsl", include_str!("../../shaders/common/a_scalar.wgsl")),
    ("common/a_vec4.wgsl", include_str!("../../shaders/common/a_vec4.wgsl")),
    ("common/b_scalar.wgsl", include_str!("../../shaders/common/b_scalar.wgsl")),
    ("common/b_vec4.wgsl", include_str!("../../shaders/common/b_vec4.wgsl")),
    ("common/before.wgsl", include_str!("../../shaders/common/before.wgsl")),
    ("common/byte.wgsl", include_str!("../../shaders/common/byte.wgsl")),
    ("common/conv2d.wgsl", include_str!("../../shaders/common/conv2d.wgsl")),
    ("common/cooperative16.wgsl", include_str!("../../shaders/common/cooperative16.wgsl")),
    ("common/cooperative8.wgsl", include_str!("../../shaders/common/cooperative8.wgsl")),
    ("common/conv2d_params.wgsl", include_str!("../../shaders/common/conv2d_params.wgsl")),
    ("common/element.wgsl", include_str!("../../shaders/common/element.wgsl")),
    ("common/elementwise.wgsl", include_str!("../../shaders/common/elementwise.wgsl")),
    ("common/finish.wgsl", include_str!("../../shaders/common/finish.wgsl")),
    ("common/gemm_cooperative.wgsl", include_str!("../../shaders/common/gemm_cooperative.wgsl")),
    ("common/gemm_register.wgsl", include_str!("../../shaders/common/gemm_register.wgsl")),
    ("common/gemm_tile.wgsl", include_str!("../../shaders/common/gemm_tile.wgsl")),
    ("common/index.wgsl", include_str!("../../shaders/common/index.wgsl")),
    ("common/matmul.wgsl", include_str!("../../shaders/common/matmul.wgsl")),
    ("common/nan.wgsl", include_str!("../../shaders/common/nan.wgsl")),
    ("common/out_scalar.wgsl", include_str!("../../shaders/common/out_scalar.wgsl")),
    ("common/out_vec4.wgsl", include_str!("../../shaders/common/out_vec4.wgsl")),
    ("common/philox.wgsl", include_str!("../../shaders/common/philox.wgsl")),
    ("common/store_scalar.wgsl", include_str!("../../shaders/common/store_scalar.wgsl")),
    ("common/store_vec4.wgsl", include_str!("../../shaders/common/store_vec4.wgsl")),
    ("common/taps_load.wgsl", include_str!("../../shaders/common/taps_load.wgsl")),
    ("common/taps_shuffle.wgsl", include_str!("../../shaders/common/taps_shuffle.wgsl")),
    ("common/x_scalar.wgsl", include_str!("../../shaders/common/x_scalar.wgsl")),
    ("common/x_vec4.wgsl", include_str!("../../shaders/common/x_vec4.wgsl")),
];

/// The texts that shaders may include.
pub(super) fn included() -> impl Iterator<Item = &'static str> {
    COMMON.iter().map(|(_, text)| *text)
}

/// The text of a shader with its includes as the files have them: what tests and editors see.
///
/// # Errors
/// A sentence when an included file does not exist.
pub(super) fn plain(shader: &Shader) -> Result<String, String> {
    expand(shader.text, &|_| None)
}

/// The text of a call: the launch's stages for `finish` and `before`, constants set, parameters baked if asked.
pub(super) fn assemble(call: &Call, launch: &Launch, bake: bool) -> Result<String, String> {
    // Of a reduction in several calls, the first reads x.
    let before = if call.inputs.first() == Some(&Arg::Input(0)) { launch.before() } else { &[] };
    let chain = if call.stages { launch.stages.as_slice() } else { &[] };
    let uses_functions = !chain.is_empty() || !before.is_empty();
    let functions = if uses_functions { common("common/elementwise.wgsl")? } else { "" };
    let replaced = |path: &str| match path {
        // Shaders that move elements of any type call it Element.
        "common/finish.wgsl" if launch.dtype == DType::U32 && moves_elements(call.shader.text) => {
            Some(stages::finish_u32())
        }
        "common/finish.wgsl" if uses_functions || call.width == Width::Four => {
            let value = call.width.value();
            Some(format!(
                "alias Value = {value};\n{functions}\n{}",
                stages::finish(chain, launch, call.width)
            ))
        }
        "common/before.wgsl" if !before.is_empty() => Some(stages::before(before, launch, call.width)),
        _ => {
            let swap = call.includes.iter().find(|(from, _)| *from == path)?;
            COMMON.iter().find(|(name, _)| *name == swap.1).map(|(_, text)| text.to_string())
        }
    };
    let mut text = expand(call.shader.text, &replaced)?;
    for (name, value) in &call.constants {
        text = set_constant(&text, name, *value)?;
    }
    let halves = half_bindings(call, launch, &text);
    for name in &halves {
        text = set_alias(&text, name)?;
    }
    if !halves.is_empty() {
        text.insert_str(0, "enable f16;\n");
    }
    if bake {
        text = bake_params(&text, call.shader.fields, &call.params)?;
    }
    Ok(text)
}

/// Whether a shader moves elements of any type.
fn moves_elements(text: &str) -> bool {
    text.contains("alias In1 = Element;") || text.contains("// #include common/x_scalar.wgsl")
}

/// The aliases of the bindings that hold f16.
fn half_bindings(call: &Call, launch: &Launch, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (i, input) in call.inputs.iter().enumerate() {
        if let Arg::Input(input) = input
            && launch.inputs.get(*input).is_some_and(|place| launch.halves.contains(place))
        {
            names.push(format!("In{}", i + 1));
        }
    }
    if call.output == Arg::Output && launch.dtype == DType::F16 {
        names.push("Out".into());
    }
    // Not every call of a launch binds its operands.
    let operands = launch.operands();
    let half = operands.iter().enumerate().filter(|(_, (place, _))| launch.halves.contains(place));
    let half = half.map(|(k, _)| format!("Operand{k}"));
    names.extend(half.filter(|name| text.contains(&format!("\nalias {name} = "))));
    names
}

/// Makes the line `alias name = ...;` say f16.
fn set_alias(text: &str, name: &str) -> Result<String, String> {
    let start = format!("alias {name} = ");
    let line = text.lines().find(|line| line.starts_with(&start));
    let line = line.ok_or_else(|| format!("the shader has no line `{start}...;`"))?;
    Ok(text.replacen(line, &format!("{start}f16;"), 1))
}

fn common(path: &str) -> Result<&'static str, String> {
    let found = COMMON.iter().find(|(name, _)| *name == path);
    found.map(|(_, text)| *text).ok_or_else(|| format!("there is no shaders/{path} to include"))
}

/// Replaces the include lines, by `replaced(path)` where it has something for the path.
fn expand(text: &str, replaced: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut result = String::with_capacity(text.len() + 4096);
    for line in text.lines() {
        match line.strip_prefix("// #include ") {
            Some(path) => match replaced(path.trim()) {
                Some(text) => result.push_str(&text),
                None => result.push_str(common(path.trim())?),
            },
            None => result.push_str(line),
        }
        result.push('\n');
    }
    Ok(result)
}

/// Gives the line `const name = ...;` the value `value`.
fn set_constant(text: &str, name: &str, value: u32) -> Result<String, String> {
    let start = format!("const {name} = ");
    let mut hit = false;
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with(&start) {
            hit = true;
            result.push_str(&format!("{start}{value}u;\n"));
        } else {
            result.push_str(line);
            result.push('\n');
        }
    }
    if hit { Ok(result) } else { Err(format!("the shader has no line `{start}...;`")) }
}

/// Replaces the declaration of the uniform `params` by a constant of the same name.
fn bake_params(text: &str, fields: &[Field], bytes: &[u8]) -> Result<String, String> {
    let values = fields
        .iter()
        .map(|field| {
            let bytes = bytes.get(field.offset..field.offset + field.kind.bytes());
            let bytes = bytes.ok_or_else(|| format!("parameter {} is missing", field.name))?;
            let word = |i: usize| [bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]];
            Ok(match field.kind {
                Kind::U32 => format!("{}u", u32::from_ne_bytes(word(0))),
                Kind::I32 => format!("{}i", i32::from_ne_bytes(word(0))),
                Kind::F32 => stages::literal(f32::from_ne_bytes(word(0))),
                Kind::U32x4 => {
                    let [x, y, z, w] = [0, 1, 2, 3].map(|i| u32::from_ne_bytes(word(i)));
                    format!("vec4<u32>({x}u, {y}u, {z}u, {w}u)")
                }
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let constant = format!("const params = Params({});", values.join(", "));
    let declaration = "@group(0) @binding(0) var<uniform> params: Params;";
    if !text.contains(declaration) {
        return Err(format!("the shader has no line `{declaration}`"));
    }
    Ok(text.replacen(declaration, &constant, 1))
}
