//! Every shader file against naga: it validates within WebGPU's default limits, and the host's structs are its own.

use adamant::kernels::{Kind, shaders};
use adamant::launch::MAX_OPERANDS;
use std::collections::BTreeSet;
use std::path::Path;

/// WebGPU's default limits that a compute shader can exceed.
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16384;

fn parse(text: &str, path: &str) -> (naga::Module, naga::valid::ModuleInfo) {
    let module = naga::front::wgsl::parse_str(text)
        .unwrap_or_else(|error| panic!("{path}: {}", error.emit_to_string(text)));
    // No capability: what every WebGPU device has. Subgroups are asked for by the files that name them.
    let mut capabilities = naga::valid::Capabilities::empty();
    if text.contains("subgroup") {
        capabilities |= naga::valid::Capabilities::SUBGROUP;
    }
    if text.contains("enable wgpu_cooperative_matrix;") {
        capabilities |= naga::valid::Capabilities::COOPERATIVE_MATRIX;
        capabilities |= naga::valid::Capabilities::SUBGROUP;
    }
    if text.contains("enable f16;") {
        capabilities |= naga::valid::Capabilities::SHADER_FLOAT16;
    }
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{path}: {}", error.emit_to_string(text)));
    (module, info)
}

#[test]
fn every_file_is_registered() {
    // As cargo says it now, not where this was built: tools/bundle takes tests to other machines.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let folder = Path::new(&root).join("shaders");
    let names = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".wgsl").then_some(name)
    };
    let files: BTreeSet<String> = std::fs::read_dir(folder).unwrap().filter_map(names).collect();
    let known: BTreeSet<String> = shaders().iter().map(|shader| shader.path.to_string()).collect();
    assert_eq!(files, known);
}

#[test]
fn every_file_validates_within_the_default_limits() {
    for shader in shaders() {
        let text = shader.plain().unwrap();
        let (module, info) = parse(&text, shader.path);
        assert!(!module.entry_points.is_empty(), "{} has no entry point", shader.path);
        for (index, point) in module.entry_points.iter().enumerate() {
            let name = format!("{} {}", shader.path, point.name);
            let used = info.get_entry_point(index);
            let (mut storage, mut shared) = (0, 0);
            let mut bindings = BTreeSet::new();
            for (handle, variable) in module.global_variables.iter() {
                if used[handle].is_empty() {
                    continue;
                }
                if let Some(binding) = &variable.binding {
                    assert_eq!(binding.group, 0, "{name}");
                    assert!(
                        bindings.insert(binding.binding),
                        "{name} uses binding {} twice",
                        binding.binding
                    );
                    let space = match binding.binding {
                        0 => naga::AddressSpace::Uniform,
                        1..=3 => naga::AddressSpace::Storage { access: naga::StorageAccess::LOAD },
                        5..=7 => naga::AddressSpace::Storage {
                            access: naga::StorageAccess::LOAD | naga::StorageAccess::STORE,
                        },
                        other => panic!("{name} binds {other}"),
                    };
                    assert_eq!(variable.space, space, "{name}, binding {}", binding.binding);
                    storage += usize::from(binding.binding > 0);
                }
                if variable.space == naga::AddressSpace::WorkGroup {
                    shared += module.types[variable.ty].inner.size(module.to_ctx());
                }
            }
            // Operands of stages come on top.
            let many = ["map.wgsl", "reduce.wgsl"].contains(&shader.path);
            let operands = if many { MAX_OPERANDS } else { MAX_OPERANDS - 2 };
            // Of a launch with results beside its output fewer operands are read: see `Launch::max_operands`.
            let operands = operands - bindings.range(5..=6).count().saturating_sub(1);
            assert!(storage + operands <= MAX_STORAGE_BUFFERS, "{name} binds {storage}");
            assert!(bindings.contains(&7), "{name} writes nothing");
            let invocations: u32 = point.workgroup_size.iter().product();
            assert!(invocations <= MAX_INVOCATIONS, "{name}: {invocations} invocations");
            assert!(shared <= MAX_WORKGROUP_BYTES, "{name}: {shared} bytes of workgroup memory");
        }
    }
}

#[test]
fn floats_may_lie_in_memory_as_f16() {
    for shader in shaders() {
        let text = shader.plain().unwrap();
        // Bindings of floats are declared by these aliases and no other way, but for sums, for numbers a row beside a
        // gradient, and for uniform numbers that choose among places, which are never stored as f16.
        for line in
            text.lines().filter(|line| line.starts_with("@group(0) @binding(") && line.contains("storage"))
        {
            let named = ["In1>", "In2>", "Out>", "u32>"].iter().any(|name| line.contains(name));
            let never =
                [" partial: ", " losses: ", " right: ", " uniforms: "].iter().any(|name| line.contains(name));
            assert!(named || never, "{}: {line}", shader.path);
        }
        let halved = |line: &str| match line.split_once(" = ") {
            Some((start @ ("alias In1" | "alias In2" | "alias Out"), _)) => format!("{start} = f16;\n"),
            _ => format!("{line}\n"),
        };
        let halves: String = text.lines().map(halved).collect();
        assert_ne!(halves, text, "{} has no floats", shader.path);
        parse(&format!("enable f16;\n{halves}"), shader.path);
    }
}

#[test]
fn host_structs_are_the_shaders_own() {
    for shader in shaders() {
        let text = shader.plain().unwrap();
        let (module, _) = parse(&text, shader.path);
        let (_, ty) = module
            .types
            .iter()
            .find(|(_, ty)| ty.name.as_deref() == Some("Params"))
            .unwrap_or_else(|| panic!("{} has no Params", shader.path));
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("Params is no struct") };
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let theirs: Vec<_> = members
            .iter()
            .map(|member| {
                let kind = match &module.types[member.ty].inner {
                    naga::TypeInner::Scalar(naga::Scalar::U32) => Kind::U32,
                    naga::TypeInner::Scalar(naga::Scalar::I32) => Kind::I32,
                    naga::TypeInner::Scalar(naga::Scalar::F32) => Kind::F32,
                    naga::TypeInner::Vector { size: naga::VectorSize::Quad, scalar: naga::Scalar::U32 } => {
                        Kind::U32x4
                    }
                    other => panic!("{}: a parameter of type {other:?}", shader.path),
                };
                (member.name.clone().unwrap(), member.offset as usize, kind)
            })
            .collect();
        let ours: Vec<_> =
            shader.fields.iter().map(|field| (field.name.to_string(), field.offset, field.kind)).collect();
        assert_eq!(ours, theirs, "{}", shader.path);
        let end = shader.fields.last().map_or(0, |field| field.offset + field.kind.bytes());
        assert_eq!(end, *span as usize, "{}: pad Params to the size the shader gives it", shader.path);
    }
}
