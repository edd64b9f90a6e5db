//! Files made to do harm, or damaged: each is refused with what is wrong, nothing is run, nothing is written, and memory
//! goes by what the file has, not by what it says.

use super::foreign::path;
use adamant::nn::{Params, architectures};
use adamant::weights::{self, StateDict, Taking};
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Why these bytes are refused.
fn refusal(bytes: &[u8]) -> String {
    match StateDict::of(Box::new(Cursor::new(bytes.to_vec())), Path::new("FILE"), "") {
        Ok(dict) => panic!("taken: {:?}", dict.tensors().collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    let error = refusal(bytes);
    assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not all in: {error}");
    // Nothing that a terminal would obey.
    assert!(!error.chars().any(|c| c.is_control()), "{error:?}");
}

/// An archive of these members, not compressed.
pub(super) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    archive_by(members, CompressionMethod::Stored)
}

fn archive_by(members: &[(&str, &[u8])], how: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(how)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A `.pt` file with this pickle, and one storage of four numbers.
pub(super) fn pt(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn whole(number: i32) -> Vec<u8> {
    [b"J", &number.to_le_bytes()[..]].concat()
}

fn function(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn call(module: &str, name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function(module, name), tuple(arguments), b"R".to_vec()].concat()
}

/// Numbers kept outside, as torch.save says where.
pub(super) fn storage(class: &str, key: &str, count: i32) -> Vec<u8> {
    let id = [text("storage"), function("torch", class), text(key), text("cpu"), whole(count)];
    [tuple(&id), b"Q".to_vec()].concat()
}

pub(super) fn tensor(storage: Vec<u8>, offset: i32, dims: &[i32], strides: &[i32]) -> Vec<u8> {
    let all = |numbers: &[i32]| tuple(&numbers.iter().map(|&n| whole(n)).collect::<Vec<_>>());
    let rest = [vec![0x89], call("collections", "OrderedDict", &[])];
    let arguments = [storage, whole(offset), all(dims), all(strides), rest.concat()];
    call("torch._utils", "_rebuild_tensor_v2", &arguments)
}

/// A pickle of a dict with this under `w`.
pub(super) fn dict_of(value: Vec<u8>) -> Vec<u8> {
    [vec![0x80, 2, b'}'], text("w"), value, b"s.".to_vec()].concat()
}

pub(super) fn four() -> Vec<u8> {
    tensor(storage("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1])
}

#[test]
fn what_the_helpers_write_is_taken() {
    let file = pt(&dict_of(four()));
    let mut dict = StateDict::of(Box::new(Cursor::new(file)), Path::new("FILE"), "").unwrap();
    assert_eq!(dict.tensors().collect::<Vec<_>>(), [("w", &[2, 2][..])]);
    assert_eq!(dict.read("w").unwrap(), [0.0; 4]);
}

#[test]
fn functions_that_no_state_dict_needs_are_named_and_not_called() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("it-was-run");
    let command = format!("touch {}", witness.display());
    for (module, name, argument) in [
        ("os", "system", &*command),
        ("posix", "system", &*command),
        ("nt", "system", &*command),
        ("subprocess", "check_output", &*command),
        ("builtins", "eval", "1"),
        ("builtins", "exec", "1"),
        ("builtins", "getattr", "os"),
        ("__builtin__", "__import__", "os"),
        ("torch", "load", "other.pt"),
        ("torch.hub", "load_state_dict_from_url", "http://example.org"),
        ("torch._utils", "_rebuild_wrapper_subclass", ""),
        ("torch.nn.modules.linear", "Linear", ""),
        ("numpy.testing._private.utils", "runstring", "1"),
        ("collections", "OrderedDict.__class__", ""),
        ("__main__", "Network", ""),
    ] {
        let called = call(module, name, &[text(argument)]);
        let at_all = [vec![0x80, 2], called.clone(), b".".to_vec()].concat();
        // By its other instruction, as protocol 4 writes it, and as an object's class.
        let stacked = [vec![0x80, 4], text(module), text(name), vec![0x93], b".".to_vec()].concat();
        let object = [vec![0x80, 2], function(module, name), b")\x81.".to_vec()].concat();
        for pickle in [at_all, dict_of([called, b"0".to_vec(), four()].concat()), stacked, object] {
            refused(&pt(&pickle), &[&format!("`{module}.{name}`"), "nothing was run", "torch.save(model"]);
        }
    }
    assert!(!witness.exists());
}

#[test]
fn instructions_that_no_state_dict_needs_are_named() {
    for (pickle, name) in [
        (&b"\x80\x02(ios\nsystem\n."[..], "INST"),
        (b"\x80\x02(o.", "OBJ"),
        (b"\x80\x02Pid\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x80\x02N2.", "DUP"),
        (b"\x80\x02N0.", "POP"),
        (b"\x80\x02I1\n.", "INT"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02\xff.", "0xff"),
        (b"\x80\x06.", "protocol 6"),
    ] {
        refused(&pt(pickle), &[name, "pickle"]);
    }
}

#[test]
fn pickles_that_end_early_or_lie_are_refused() {
    let good = dict_of(four());
    for cut in 0..good.len() {
        refused(&pt(&good[..cut]), &["pickle"]);
    }
    // Lengths of texts and bytes; a memo and a stack that are empty; unbalanced marks; halves of entries.
    for pickle in [
        &b"\x80\x02X\xff\xff\xff\xffabc."[..],
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x80\x02T\xff\xff\xff\xffabc.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02h\x00.",
        b"\x80\x02t.",
        b"\x80\x02).\x85",
        b"\x80\x02\x85.",
        b"\x80\x02}(NNNu.",
        b"\x80\x02]NNs.",
        b"\x80\x02}Na.",
        b"\x80\x02(N.",
        b"\x80\x02N(R.",
        b"\x80\x02NN\x93.",
        b"\x80\x02}}R.",
        b"\x80\x02NQ.",
        b"\x80\x02)Q.",
        b"\x80\x02b.",
        b"\x80\x02",
        b"",
        b".",
    ] {
        refusal(&pt(pickle));
    }
    let endless = [&b"\x80\x02c"[..], &[b'x'; 4096]].concat();
    refused(&pt(&endless), &["a name without an end"]);
}

#[test]
fn pickles_that_would_fill_memory_are_refused() {
    let many = |what: &[u8], times: usize| {
        [vec![0x80, 2, b']', b'q', 0], what.repeat(times), b".".to_vec()].concat()
    };
    refused(&pt(&many(b")", 1 << 21)), &["more than 1048576 values"]);
    refused(&pt(&many(b"h\x00", 1 << 21)), &["more than 1048576 values"]);
    refused(&pt(&many(b"(", 1 << 21)), &["nested deeper than"]);
    refused(&pt(&many(b"]q\x00", 1 << 20)), &["more than 1048576 values"]);
    // Lists in lists, a hundred thousand deep: read, and found to be no state dict, without recursion.
    refused(&pt(&many(b"\x85", 100_000)), &["a list"]);
    // A dict of a list of pairs, made again and again out of the same list.
    let pairs = [b"(".to_vec(), b"NN\x86".repeat(10_000), b"e".to_vec()].concat();
    let again = [function("collections", "OrderedDict"), b"q\x01".to_vec(), b"h\x01h\x00\x85R".repeat(1000)];
    refused(&pt(&many(&[pairs, again.concat()].concat(), 1)), &["more than 1048576 values"]);
    // A list that holds itself.
    refused(&pt(b"\x80\x02]q\x00h\x00a."), &["a list"]);
    // A dict that holds itself where a state dict usually is.
    let circle = [&b"\x80\x02}q\x00"[..], &text("model"), b"h\x00s."].concat();
    refused(&pt(&circle), &["no state dict where one usually is", "in `model.model.model.model`"]);
    let large = vec![b'N'; (32 << 20) + 1];
    refused(&pt(&large), &["pickle of 33554433 bytes"]);
}

#[test]
fn tensors_that_do_not_lie_in_their_storage_are_refused() {
    let of = |count, offset, dims: &[i32], strides: &[i32]| {
        dict_of(tensor(storage("FloatStorage", "0", count), offset, dims, strides))
    };
    let huge = i32::MAX;
    for pickle in [
        of(4, 1, &[4], &[1]),
        of(4, 0, &[5], &[1]),
        of(4, 0, &[2, 2], &[3, 1]),
        of(4, 4, &[1], &[1]),
        of(4, huge, &[1], &[1]),
        of(4, 0, &[huge, huge, huge, huge], &[1, 1, 1, 1]),
        of(4, 0, &[huge, huge], &[huge, huge]),
        of(4, 0, &[2], &[huge]),
    ] {
        refused(&pt(&pickle), &["`w` is said to be f32", "storage has 16 bytes"]);
    }
    // Every element the same one: it lies within its storage, and is made only for a parameter that has as many.
    refused(&pt(&of(4, 0, &[huge, huge, huge], &[0; 3])), &["`w` is said to be f32"]);
    let expanded = pt(&of(4, 0, &[huge], &[0]));
    let dict = StateDict::of(Box::new(Cursor::new(expanded)), Path::new("FILE"), "").unwrap();
    assert_eq!(dict.get("w").unwrap().0, [huge as usize]);
    for (pickle, words) in [
        (of(4, -1, &[1], &[1]), "a negative number"),
        (of(4, 0, &[-1], &[1]), "a negative number"),
        (of(4, 0, &[4], &[-1]), "a negative number"),
        (of(4, 0, &[4], &[1, 1]), "1 extents, but 2 strides"),
        (of(4, 0, &[1; 9], &[1; 9]), "9 axes"),
        (of(5, 0, &[1], &[1]), "holds 5 numbers of f32, but there are 16 bytes"),
        (of(huge, 0, &[1], &[1]), "2147483647 numbers"),
        (of(-4, 0, &[1], &[1]), "a storage of -4 numbers"),
        (dict_of(tensor(storage("DoubleStorage", "0", 4), 0, &[4], &[1])), "but there are 16 bytes"),
        (dict_of(tensor(storage("FloatStorage", "7", 4), 0, &[4], &[1])), "`a/data/7`, which is not there"),
        (dict_of(tensor(storage("FloatStorage", "../../etc/passwd", 4), 0, &[4], &[1])), "../../etc/passwd"),
        (dict_of(tensor(storage("FloatStorage", "", 4), 0, &[4], &[1])), "torch.save calls none"),
        (dict_of(tensor(storage("Size", "0", 4), 0, &[4], &[1])), "no storage of PyTorch"),
        (dict_of(tensor(b"N".to_vec(), 0, &[4], &[1])), "what is no storage"),
    ] {
        refused(&pt(&pickle), &[words]);
    }
}

#[test]
fn archives_that_mislead_are_refused() {
    let pickle = dict_of(four());
    let numbers = &[0u8; 16][..];
    let good: &[(&str, &[u8])] = &[("a/data.pkl", &pickle), ("a/data/0", numbers)];
    // A path out of the folder is only a name: nothing is unpacked, and no such member is asked for.
    refused(&archive(&[("../data.pkl", &pickle), ("../../etc/data/0", numbers)]), &["which is not there"]);
    refused(&archive(&[("/etc/a/data.pkl", &pickle)]), &["NAME/data.pkl"]);
    refused(&archive(&[("data.pkl", &pickle), ("data/0", numbers)]), &["NAME/data.pkl"]);
    refused(&archive(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)]), &["not one member"]);
    refused(&archive(&[("readme", b"hello")]), &["not one member"]);
    refused(&archive(&[good, &[("a/byteorder", b"big")]].concat()), &["most significant byte first"]);
    // Two members of one name, of which another program might read the other one.
    let twice = archive(&[good, &[("a/data/1", &[1; 16])]].concat());
    let name = |at: usize| twice[at..].starts_with(b"a/data/1");
    let twice: Vec<u8> =
        (0..twice.len()).map(|at| if at >= 7 && name(at - 7) { b'0' } else { twice[at] }).collect();
    refused(&twice, &["two of its members have one name"]);
    // A member that is said to be larger than the file: the sizes in its entry of the directory, behind the checksum.
    let mut lying = archive(good);
    let entry = lying.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    lying[entry + 20..entry + 28].copy_from_slice(&[0, 0, 0, 0x40, 0, 0, 0, 0x40]);
    refused(&lying, &["`a/data/0` is said to have 1073741824 bytes", "made to mislead"]);
    // What unpacks to a thousand times its size: torch.save compresses nothing, so nothing compressed is taken.
    let bomb = vec![0u8; 16 << 20];
    let deflated = archive_by(&[("a/data.pkl", &bomb)], CompressionMethod::Deflated);
    assert!(deflated.len() < 100_000);
    refused(&deflated, &["`a/data.pkl` is compressed", "save it again"]);
    let mut mixed = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    mixed.start_file("a/data.pkl", stored).unwrap();
    mixed.write_all(&pickle).unwrap();
    mixed.start_file("a/data/0", stored.compression_method(CompressionMethod::Deflated)).unwrap();
    mixed.write_all(&bomb).unwrap();
    refused(&mixed.finish().unwrap().into_inner(), &["`a/data/0` is compressed"]);

    // Cut anywhere, and with any byte changed: refused, or the weights as they were; never a panic, never a hang.
    let good = archive(good);
    for cut in 0..good.len() {
        refusal(&good[..cut]);
    }
    for at in 0..good.len() {
        for change in [0xff, 1, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= change;
            if let Ok(mut dict) = StateDict::of(Box::new(Cursor::new(changed)), Path::new("FILE"), "") {
                let names: Vec<String> = dict.tensors().map(|(name, _)| name.to_string()).collect();
                names.iter().for_each(|name| drop(dict.read(name)));
            }
        }
    }
    // A number that was changed is found by the archive's checksum.
    let mut changed = good.clone();
    let start = changed.windows(16).rposition(|window| window == numbers).unwrap();
    changed[start + 3] = 1;
    let mut dict = StateDict::of(Box::new(Cursor::new(changed)), Path::new("FILE"), "").unwrap();
    let error = dict.read("w").unwrap_err().to_string();
    assert!(error.contains("cannot be read") && error.contains("use another copy"), "{error}");
}

#[test]
fn the_older_form_cut_or_changed_is_refused() {
    let good = std::fs::read(path("legacy-resnet18.pt")).unwrap();
    for cut in (0..good.len()).step_by(97) {
        refusal(&good[..cut]);
    }
    refused(&good[..good.len() - 1], &["cut short"]);
    // How many numbers a storage holds, as its pickle says: BININT1, NONE, TUPLE.
    let mut lying = good.clone();
    let at = good.windows(4).position(|bytes| matches!(bytes, [b'K', _, b'N', b't'])).unwrap();
    lying[at + 1] += 1;
    refused(&lying, &["says that storage", "made to mislead"]);
    for pickle in [&b"\x80\x02N."[..], b"\x80\x04cos\nsystem\n."] {
        refused(pickle, &["is a pickle, but not of torch.save"]);
    }
    // The magic number, and behind it a call.
    let mut evil = good[..good.iter().position(|&byte| byte == b'.').unwrap() + 1].to_vec();
    evil.extend(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.");
    refused(&evil, &["`os.system`", "nothing was run"]);
}

#[test]
fn what_is_no_file_of_weights_is_said() {
    refused(b"", &["neither safetensors nor"]);
    refused(b"hello, this is some text and no weights", &["neither safetensors nor"]);
    refused(b"\x89HDF\r\n\x1a\n and so on", &["HDF5"]);
    // The form of PyTorch's first year; a short name is followed by zeros, as the length of a header of safetensors is.
    for name in ["storages", "pickle", "a"] {
        let mut tar = vec![0; 1536];
        tar[..name.len()].copy_from_slice(name.as_bytes());
        tar[257..263].copy_from_slice(b"ustar\0");
        refused(&tar, &["is a tar archive", "save its state dict again"]);
    }
    let header = br#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#;
    let lying = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat();
    refused(&lying, &["not a whole safetensors file"]);
    let far = [&(1u64 << 40).to_le_bytes()[..], header, &[0; 16]].concat();
    refused(&far, &["not a whole safetensors file"]);
    let deep = "[".repeat(1 << 20);
    let deep = [&(deep.len() as u64).to_le_bytes()[..], deep.as_bytes()].concat();
    refused(&deep, &["not a whole safetensors file"]);
    let folder = tempfile::tempdir().unwrap();
    let error = StateDict::open(folder.path(), "").err().unwrap().to_string();
    assert!(error.contains("is no file"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let network = architectures::by_name("mlp-1", [1, 1, 1], 1).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.pt");
    let load = |class: &str, bytes: &[u8]| {
        let count = 2;
        let view = |at, dims: &[i32]| tensor(storage(class, "0", count), at, dims, &vec![1; dims.len()]);
        let mut pickle = vec![0x80, 2, b'}', b'('];
        for (name, value) in [
            ("1.weight", view(0, &[1, 1])),
            ("1.bias", view(1, &[1])),
            ("3.weight", view(1, &[1, 1])),
            ("3.bias", view(1, &[1])),
        ] {
            pickle.extend([text(name), value].concat());
        }
        pickle.extend(b"u.");
        std::fs::write(&path, archive(&[("a/data.pkl", &pickle), ("a/data/0", bytes)])).unwrap();
        weights::load(&path, network.as_ref(), &params, &Taking::default()).map_err(|e| e.to_string())
    };
    let f32s = |a: f32, b: f32| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let f64s = |a: f64, b: f64| [a.to_le_bytes(), b.to_le_bytes()].concat();
    let weights = load("FloatStorage", &f32s(1.5, -2.0)).unwrap();
    assert_eq!(weights[0].1, [1.5]);
    assert_eq!(weights[3].1, [-2.0]);
    assert_eq!(load("DoubleStorage", &f64s(1.5, -2.0)).unwrap(), weights);
    assert_eq!(load("HalfStorage", &[0, 0x3e, 0, 0xc0]).unwrap(), weights);
    assert_eq!(load("BFloat16Storage", &[0xc0, 0x3f, 0, 0xc0]).unwrap(), weights);
    for (class, bytes, words) in [
        ("FloatStorage", f32s(f32::NAN, 1.0), "`1.weight` has an element that is NaN"),
        ("FloatStorage", f32s(1.0, f32::INFINITY), "`1.bias` has an element that is inf"),
        ("DoubleStorage", f64s(1.0, -1e300), "`1.bias` has an element that is -inf in f32"),
        ("LongStorage", f64s(1.0, 1.0), "`1.weight` is int64, but f32, f64, f16 or bf16 is needed"),
    ] {
        let error = load(class, &bytes).unwrap_err();
        assert!(error.contains(words) && error.contains("weights.pt"), "{error}");
    }
}
