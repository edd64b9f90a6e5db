//! The laws of the house, read off the source: imports point one way, only src/gpu names wgpu, every op family has
//! its three rooms, nothing is left unfinished. Test modules inside src are held to them too: a test that needs two
//! rooms which may not meet belongs in tests/.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A room (a path below src, without `.rs`), and the rooms it may import besides itself; lower rooms first.
/// A row for a folder inside a room stands for that folder instead of the room's own row. `bin` is above them all.
const LAW: &[(&str, &[&str])] = &[
    ("shape", &[]),
    ("error", &["shape"]),
    ("files", &["error"]),
    ("data", &["files", "error", "shape"]),
    ("tape", &["error", "shape"]),
    ("launch", &["tape", "shape"]),
    ("philox", &["tape"]),
    ("cpu", &["philox", "launch", "tape", "error", "shape"]),
    ("trace", &[]),
    ("gpu", &["trace", "error", "shape"]),
    ("kernels", &["gpu", "launch", "files", "tape", "error", "shape"]),
    ("device", &["kernels", "gpu", "trace", "cpu", "launch", "error", "shape"]),
    ("tensor", &["device", "gpu", "cpu", "error", "shape"]),
    ("plan", &["tensor", "device", "kernels", "gpu", "trace", "cpu", "launch", "tape", "error", "shape"]),
    ("nn", &["plan", "tensor", "device", "philox", "tape", "files", "error", "shape"]),
    ("nn/architectures", &["nn", "error", "shape"]),
    ("weights", &["nn", "files", "error", "shape"]),
    ("attack", &["nn", "plan", "tensor", "device", "tape", "error", "shape"]),
    (
        "train",
        &[
            "attack", "weights", "nn", "plan", "tensor", "device", "tape", "philox", "data", "files",
            "trace", "error", "shape",
        ],
    ),
    (
        "report",
        &[
            "train", "attack", "weights", "nn", "plan", "tensor", "device", "tape", "philox", "data",
            "files", "error", "shape",
        ],
    ),
];

/// Op families: each has shaders/X.wgsl, src/kernels/X.rs and src/cpu/X.rs.
const FAMILIES: [&str; 10] =
    ["matmul", "conv2d", "map", "mask", "reduce", "movement", "rows", "pool", "random", "gather"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends in `.extension`, sorted; none if there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Path below src with `/` between folders, without `.rs` and a last `/mod`.
fn module(file: &Path) -> String {
    let path = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = if parts.last() == Some(&"mod") { &parts[..parts.len() - 1] } else { &parts };
    parts.join("/")
}

/// The source with comments and the contents of strings and characters blanked; lines stay where they are.
fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < text.len() {
        let begin = i;
        let word_before = begin > 0 && (at(begin - 1).is_alphanumeric() || at(begin - 1) == '_');
        let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
        if at(i) == '/' && at(i + 1) == '/' {
            while i < text.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 || i >= text.len() {
                    break;
                }
            }
        } else if at(i) == 'r' && !(word_before && at(i - 1) != 'b') && at(i + 1 + hashes) == '"' {
            i += 2 + hashes;
            while i < text.len() && !(at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
        } else if at(i) == '"' {
            i += 1;
            while i < text.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < text.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(at(i));
            i += 1;
            continue;
        }
        out.extend(text[begin..i.min(text.len())].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    }
    out
}

/// Names a path goes on with after `prefix::`: one, or the first name of each branch of a `{...}`.
fn heads(after: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = after.trim_start().strip_prefix('{') else {
        return vec![name(after)];
    };
    let mut heads = vec![name(group)];
    let mut depth = 0;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(name(&group[i + 1..])),
            _ => {}
        }
    }
    heads
}

/// What lib.rs re-exports: name to room.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (i, _) in lib.match_indices("pub use ") {
        let path = &lib[i + 8..];
        if let Some((room, rest)) = path[..path.find(';').unwrap_or(path.len())].split_once("::") {
            map.extend(heads(rest).into_iter().map(|name| (name, room.trim().to_string())));
        }
    }
    map
}

/// (line, what is imported, its room) for each path in `code` that leaves `module` through the crate's root.
fn imports(module: &str, code: &str, reexports: &BTreeMap<String, String>) -> Vec<(usize, String, String)> {
    let is_room = |name: &str| LAW.iter().any(|(room, _)| *room == name);
    let mut found = Vec::new();
    let mut note = |i: usize, after: &str, only_rooms: bool| {
        for head in heads(after) {
            let room = reexports.get(&head).unwrap_or(&head).clone();
            if !only_rooms || is_room(&head) {
                found.push((code[..i].matches('\n').count() + 1, head, room));
            }
        }
    };
    let own = |i: usize| !code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    for root in ["crate::", "adamant::"] {
        for (i, _) in code.match_indices(root).filter(|(i, _)| own(*i)) {
            note(i, &code[i + root.len()..], false);
        }
    }
    // `super::super::x` reaches the root from two folders down. (In a `mod tests` it takes one more, hence a name
    // that is no room is one of the module's own.)
    for (i, _) in code.match_indices("super::").filter(|(i, _)| own(*i)) {
        let after = code[i..].trim_start_matches("super::");
        let steps = (code.len() - i - after.len()) / "super::".len();
        if steps >= module.split('/').count() {
            note(i, after, true);
        }
    }
    found
}

/// What in the file breaks the law of imports.
fn broken_imports(module: &str, source: &str, reexports: &BTreeMap<String, String>) -> Vec<String> {
    if module == "lib" || module.starts_with("bin/") {
        return Vec::new();
    }
    let in_folder = |room: &str| module == room || module.starts_with(&format!("{room}/"));
    let Some((room, allowed)) = LAW.iter().rev().find(|(room, _)| in_folder(room)) else {
        return vec![format!("src/{module}: a new room; give it a row in LAW of tests/imports.rs")];
    };
    let own = room.split('/').next().unwrap();
    imports(module, &code(source), reexports)
        .into_iter()
        .filter(|(_, _, target)| target != own && !allowed.contains(&target.as_str()))
        .map(|(line, name, _)| {
            format!(
                "src/{module}, line {line}: imports `{name}`, but {room} may import only [{}]",
                allowed.join(", ")
            )
        })
        .collect()
}

#[test]
fn the_law_itself_points_one_way() {
    for (i, (room, allowed)) in LAW.iter().enumerate() {
        for target in *allowed {
            assert!(
                LAW[..i].iter().any(|(lower, _)| lower == target),
                "{room} may not import {target}: not below it"
            );
        }
    }
}

#[test]
fn imports_point_one_way() {
    let lib = code(&std::fs::read_to_string(root().join("src/lib.rs")).unwrap());
    let reexports = reexports(&lib);
    let broken: Vec<String> = files(&root().join("src"), "rs")
        .iter()
        .flat_map(|file| broken_imports(&module(file), &std::fs::read_to_string(file).unwrap(), &reexports))
        .collect();
    assert!(broken.is_empty(), "imports point one way (tests/imports.rs):\n{}", broken.join("\n"));
}

#[test]
fn only_the_gpu_room_names_wgpu_and_nothing_is_unfinished() {
    let mut broken = Vec::new();
    for file in files(&root().join("src"), "rs") {
        let module = module(&file);
        for (i, line) in code(&std::fs::read_to_string(&file).unwrap()).lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if module.split('/').next() != Some("gpu") && words.any(|word| word == "wgpu") {
                broken.push(format!("src/{module}, line {}: only src/gpu names wgpu", i + 1));
            }
            for unfinished in ["todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(unfinished) {
                    broken.push(format!("src/{module}, line {}: {unfinished}...)", i + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_op_family_has_its_rooms() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_string();
    let shaders = files(&root().join("shaders"), "wgsl");
    for shader in shaders.iter().filter(|path| path.parent() == Some(&root().join("shaders"))) {
        let name = stem(shader);
        // The family itself, or a variant of it, as in matmul_register.
        let rest = FAMILIES.iter().find_map(|family| name.strip_prefix(family));
        let known = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        assert!(
            known,
            "{}: no op family of tests/imports.rs (shared code is in shaders/common)",
            shader.display()
        );
    }
    let missing: Vec<String> = FAMILIES
        .iter()
        .map(|x| [format!("shaders/{x}.wgsl"), format!("src/kernels/{x}.rs"), format!("src/cpu/{x}.rs")])
        .filter(|rooms| rooms[..2].iter().any(|room| root().join(room).exists()))
        .flat_map(|rooms| rooms.into_iter().filter(|room| !root().join(room).exists()))
        .collect();
    assert!(
        missing.is_empty(),
        "an op family lives in three rooms of its name; missing: {}",
        missing.join(", ")
    );
}

#[test]
fn the_reader_of_imports_sees_what_is_there() {
    let reexports = reexports("pub use error::{Error, Result};\npub use gpu::Gpu;\n");
    let broken = |module: &str, source: &str| broken_imports(module, source, &reexports).len();
    assert_eq!(broken("cpu/map", "use crate::{Error, launch::{Stage, Place}, shape::Shape};"), 0);
    assert_eq!(broken("cpu/map", "use crate::{Error, launch::Stage, gpu::{self, Buffer}};"), 1);
    assert_eq!(broken("cpu/map", "fn f(x: &crate::gpu::Gpu) {}\nuse super::super::kernels;"), 2);
    assert_eq!(broken("cpu/map", "use super::stages; mod tests { use super::*; }"), 0);
    assert_eq!(broken("shape", "mod tests { use super::super::plan::Plan; }"), 1);
    assert_eq!(broken("cpu/map", "use crate::Gpu;"), 1);
    assert_eq!(
        broken("cpu/map", "// crate::gpu\n/* crate::gpu /* */ crate::gpu */ let a = \"crate::gpu\\\"\";"),
        0
    );
    assert_eq!(
        broken("cpu/map", "let c = '\"'; let r = r#\"crate::gpu \"#; fn f<'a>(x: &'a crate::plan::Plan) {}"),
        1
    );
    assert_eq!(broken("nn/architectures/mlp", "use crate::nn::Linear; use crate::tape::Var;"), 1);
    assert_eq!(broken("report/table", "use adamant::bin;"), 1);
    assert_eq!(broken("somewhere", ""), 1);
    let line = &broken_imports("tape/vjp", "\n\nuse crate::device::Device;", &reexports)[0];
    assert!(line.starts_with("src/tape/vjp, line 3: imports `device`"), "{line}");
}
