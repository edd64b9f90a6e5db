//! What the fuzz targets do: each gives bytes to a reader of files, as a file where it takes no bytes.
//!
//! A reader may refuse them, and mostly does. It may not panic, hang, run out of memory or write anything. Where a
//! checksum or a container would refuse nearly every change, the target puts the bytes into a good container itself.

// The program's own file, which is no part of the library.
#[allow(dead_code, reason = "of what the program asks, reading alone is tried here")]
#[path = "../../src/bin/evaluate/request.rs"]
mod request;

use adamant::data::{self, Dataset, idx};
use adamant::kernels::tuner::Cache;
use adamant::nn::{Architecture, Mode, Onnx, Params, architectures};
use adamant::report;
use adamant::report::evaluation::{Log, MAGIC, Subject, verify as recheck};
use adamant::train::{Recipe, checkpoint};
use adamant::weights::{self, Names, StateDict, Taking, Weights};
use request::Request;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

thread_local! {
    // One folder for all inputs of a process, in memory where the system has such a place.
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// A file or folder of this name below the folder of this process.
fn place(name: &str) -> PathBuf {
    FOLDER.with(|folder| {
        let memory = Path::new("/dev/shm");
        let make = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        folder.get_or_init(|| make().expect("a temporary folder")).path().join(name)
    })
}

/// Writes a file below the folder of this process.
fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = place(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
    std::fs::write(&path, bytes).expect("a file can be written");
    path
}

fn load(path: &Path) {
    let _ = data::load(path.to_str().expect("a path in UTF-8"));
}

/// The first byte, which chooses between forms, and the rest.
fn chosen(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, &[][..]), |(&first, rest)| (first, rest))
}

/// An archive of these members, not compressed.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in members {
        zip.start_file(*name, stored).expect("a member");
        zip.write_all(bytes).expect("its bytes");
    }
    zip.finish().expect("an archive").into_inner()
}

/// IDX: images and labels, plain or packed (the first bytes tell).
pub fn idx(bytes: &[u8]) {
    let _ = idx::parse_images(bytes, Path::new("images"));
    let _ = idx::parse_labels(bytes, Path::new("labels"));
}

/// Records of CIFAR: as files of a folder, or as an archive.
pub fn cifar(bytes: &[u8]) {
    let (form, bytes) = chosen(bytes);
    match form % 3 {
        0 => {
            let path = write("cifar/train.bin", bytes);
            write("cifar/test.bin", bytes);
            load(path.parent().expect("a folder"));
        }
        1 => load(&write("cifar.tar", bytes)),
        _ => load(&write("cifar.tar.gz", bytes)),
    }
}

/// An array of NumPy's.
fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}");
    header.push_str(&" ".repeat(63 - (10 + header.len()) % 64));
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// NumPy: an archive, or one array inside of a good archive.
pub fn npz(bytes: &[u8]) {
    let (form, bytes) = chosen(bytes);
    if form % 8 == 0 {
        return load(&write("whole.npz", bytes));
    }
    let images = npy("|u1", "2, 2, 2", &[0, 1, 2, 3, 4, 5, 6, 7]);
    let features = npy("<f4", "2, 1", &[0; 8]);
    let labels = npy("|u1", "2,", &[0, 1]);
    let x = if form & 16 == 0 { &images } else { &features };
    let mut members: Vec<(&str, &[u8])> =
        vec![("x_train.npy", x), ("y_train.npy", &labels), ("x_test.npy", x), ("y_test.npy", &labels)];
    match form % 8 {
        1 => (members[0].1, members[2].1) = (bytes, bytes),
        2 => members[1].1 = bytes,
        3 => members.push(("class_names.npy", bytes)),
        4 => members.push(("lower.npy", bytes)),
        5 => members.push(("mask.npy", bytes)),
        6 => members.push(("feature_names.npy", bytes)),
        _ => members[2].1 = bytes,
    }
    load(&write("array.npz", &archive(&members)));
}

/// Tables: features.toml, and after a line of dashes the rows of train.csv and test.csv.
pub fn table(bytes: &[u8]) {
    let split = bytes.windows(5).position(|window| window == b"\n---\n");
    let (description, rows) = match split {
        Some(at) => (&bytes[..at], &bytes[at + 5..]),
        None => (&[][..], bytes),
    };
    let path = write("table/features.toml", description);
    write("table/train.csv", rows);
    write("table/test.csv", rows);
    load(path.parent().expect("a folder"));
}

/// A folder of pictures, of which the bytes are one.
pub fn picture(bytes: &[u8]) {
    let (form, bytes) = chosen(bytes);
    let [picture, other] = if form % 2 == 0 { ["p.png", "p.jpg"] } else { ["p.jpg", "p.png"] };
    let folder = place("pictures");
    for part in ["train", "test"] {
        let _ = std::fs::remove_file(folder.join(part).join("a").join(other));
        write(&format!("pictures/{part}/a/{picture}"), bytes);
    }
    let size = if form & 2 == 0 { 0 } else { 8 };
    let _ = data::load_sized(folder.to_str().expect("a path in UTF-8"), size);
}

/// A recipe (TOML), and what is made of its texts.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(recipe) = Recipe::parse(text, Path::new("recipe.toml")) else { return };
    let _ = recipe.check();
    let _ = (recipe.threat(), recipe.start(), recipe.augment(), recipe.averaging());
    let _ = (recipe.step(), recipe.precision(), recipe.mode(), recipe.on_collapse());
    let again = recipe.to_toml().expect("a recipe can be written");
    let again = Recipe::parse(&again, Path::new("again.toml")).expect("what was written can be read");
    // A number that is none is not even equal to itself.
    if recipe.clone() == recipe {
        assert!(again == recipe, "what was written is another recipe");
    }
}

thread_local! {
    static NETWORKS: Vec<(Box<dyn Architecture>, Params)> = ["mlp-1", "mnist-fast", "resnet18-w1-normalized"]
        .map(|name| {
            let network = architectures::by_name(name, [4, 4, 3], 2).expect("an architecture");
            let params = Params::of(network.as_ref()).expect("its parameters");
            (network, params)
        })
        .into();
}

/// Everything that is done with a file of weights.
fn use_weights(bytes: Vec<u8>, open: &str) {
    let (taking, length) = (Taking::default(), bytes.len());
    let Ok(mut dict) = StateDict::of(Box::new(Cursor::new(bytes)), Path::new("weights"), open) else {
        return;
    };
    // What a network that needs it would have made: no more than a million elements here.
    let small = |dims: &[usize]| {
        dims.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).is_some_and(|n| n < 1 << 20)
    };
    let names: Vec<String> =
        dict.tensors().filter(|(_, dims)| small(dims)).take(64).map(|(name, _)| name.to_string()).collect();
    for name in names {
        let dims = dict.get(&name).expect("a tensor that is there").0.to_vec();
        if let Ok(values) = dict.read(&name) {
            assert_eq!(values.len(), dims.iter().product::<usize>());
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
    let _ = weights::told(&dict, &taking.names, [4, 4, 3], 2);
    // One network an input: what is refused is told again, and networks that are recorded to compare take most of the time.
    NETWORKS.with(|networks| {
        let (network, params) = &networks[length % networks.len()];
        if let Ok(weights) = weights::take(&mut dict, network.as_ref(), params, &taking) {
            assert_eq!(weights.len(), params.len());
        }
    });
}

/// safetensors.
pub fn safetensors(bytes: &[u8]) {
    use_weights(bytes.to_vec(), "");
}

/// What `torch.save` writes, in both of its forms.
pub fn torch(bytes: &[u8]) {
    use_weights(bytes.to_vec(), "");
}

/// The pickle of such a file, in a good archive with a storage of 64 bytes, or behind the head of the older form.
pub fn pickle(bytes: &[u8]) {
    let (form, bytes) = chosen(bytes);
    let open = if form & 4 == 0 { "" } else { "ema.state" };
    if form & 1 == 0 {
        let numbers = [0x3e; 64];
        return use_weights(
            archive(&[("a/data.pkl", bytes), ("a/data/0", &numbers), ("a/data/1", &numbers)]),
            open,
        );
    }
    let head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\x00\x00\x00little_endian\x88s.";
    use_weights([head, bytes].concat(), open);
}

/// A table of names, asked about some.
pub fn names(bytes: &[u8]) {
    let Ok(names) = Names::read(&write("names.toml", bytes)) else { return };
    let header = br#"{"a.b.c.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}       "#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    let mut dict =
        StateDict::of(Box::new(Cursor::new(file)), Path::new("weights"), names.open()).expect("a good file");
    let taking = Taking { names, redraw_last: Some(1) };
    NETWORKS.with(|networks| {
        for (network, params) in networks {
            let _ = weights::take(&mut dict, network.as_ref(), params, &taking);
        }
    });
}

/// A network of ONNX: read, its scratch recording made, its weights drawn.
pub fn onnx(bytes: &[u8]) {
    let Ok(network) = Onnx::from_bytes(bytes) else { return };
    let params = Params::of(&network).expect("a network that was taken can be recorded");
    assert_eq!(params.initial(1).len(), params.len());
}

/// The checkpoint of a run.
pub fn resume(bytes: &[u8]) {
    let _ = checkpoint::load_resume(&write("resume.safetensors", bytes));
}

/// What a run writes down as it goes.
pub fn records(bytes: &[u8]) {
    let _ = report::metrics::read(&write("metrics.jsonl", bytes));
}

/// The log of an evaluation, with its witnesses: as it is, or as records behind their lengths (two bytes), to which the
/// chain of hashes is added.
pub fn evaluation(bytes: &[u8]) {
    let (form, bytes) = chosen(bytes);
    let path = Path::new("evaluation.log");
    if form % 4 == 0 {
        let _ = Log::from_bytes(path, bytes);
        return;
    }
    let _ = Log::from_bytes(path, &chained(bytes));
}

/// A log of these records, each behind its length (two bytes), with the chain of hashes.
fn chained(mut bytes: &[u8]) -> Vec<u8> {
    let mut log = MAGIC.to_vec();
    let mut chain = Sha256::digest(MAGIC);
    while let [low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (contents, rest) = rest.split_at(length);
        chain = Sha256::new().chain_update(chain).chain_update(contents).finalize();
        log.extend((length as u32).to_le_bytes());
        log.extend(contents);
        log.extend(chain);
        bytes = rest;
    }
    log
}

/// A network and its test data: two images of two pixels.
struct Evaluated {
    architecture: Box<dyn Architecture>,
    params: Params,
    weights: Weights,
    data: Dataset,
}

impl Evaluated {
    fn new() -> Evaluated {
        let images = npy("|u1", "2, 1, 2", &[0, 1, 2, 255]);
        let labels = npy("|u1", "2,", &[0, 1]);
        let members: [(&str, &[u8]); 4] = [
            ("x_train.npy", &images),
            ("y_train.npy", &labels),
            ("x_test.npy", &images),
            ("y_test.npy", &labels),
        ];
        let path = write("evaluated.npz", &archive(&members));
        let data = data::load(path.to_str().expect("a path in UTF-8")).expect("a good archive").test;
        let architecture =
            architectures::by_name("mlp-1", data.image, data.classes).expect("an architecture");
        let params = Params::of(architecture.as_ref()).expect("its parameters");
        let weights = params.iter().map(|param| param.name.clone()).zip(params.initial(1)).collect();
        Evaluated { architecture, params, weights, data }
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            name: "mlp-1",
            identity: "mlp-1",
            architecture: self.architecture.as_ref(),
            params: &self.params,
            weights: &self.weights,
            data: &self.data,
            mode: Mode::Eval,
        }
    }
}

thread_local! {
    static EVALUATED: Evaluated = Evaluated::new();
}

/// The re-check of a log: records as for [`evaluation`], of which the first, the header, has `WEIGHTS` and `DATA` where the
/// SHA-256 of the network's and of the data belong.
pub fn verify(bytes: &[u8]) {
    let [low, high, rest @ ..] = bytes else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (header, units) = rest.split_at(length);
    let Ok(header) = std::str::from_utf8(header) else { return };
    EVALUATED.with(|evaluated| {
        let subject = evaluated.subject();
        let header = header.replacen("WEIGHTS", &subject.sha256(), 1);
        let header = header.replacen("DATA", &subject.data.sha256, 1);
        let Ok(length) = u16::try_from(header.len()) else { return };
        let log = [&length.to_le_bytes()[..], header.as_bytes(), units].concat();
        let Ok(log) = Log::from_bytes(Path::new("evaluation.log"), &chained(&log)) else { return };
        if let Ok(verified) = recheck(&subject, &log, |_, _| {}) {
            let lines = verified.lines(&log.header);
            assert!(lines.len() < 1 << 16, "{} lines", lines.len());
        }
    });
}

/// What an evaluation was asked for (evaluate.toml), and what is made of its texts.
pub fn request(bytes: &[u8]) {
    let path = write("evaluation/evaluate.toml", bytes);
    let folder = path.parent().expect("a folder");
    let Ok(request) = Request::read(folder) else { return };
    let _ = (request.checks(), request.steps());
    if let Ok(threat) = request.threat(None) {
        let _ = request.radii(&threat);
    }
    request.write(folder).expect("a request can be written");
    assert!(Request::read(folder).expect("what was written can be read") == request);
}

/// What the tuner remembers of a device.
pub fn tuner(bytes: &[u8]) {
    let _ = Cache::read(&write("tuner.json", bytes));
}

/// A data set of Hugging Face: the bytes are the file of its training part and of its test part.
///
/// The crate that reads pages panics at some damaged ones, which the reader catches and tells as an error (hugging_face.rs). The
/// hook that libFuzzer sets would end the process at such a panic: here it counts where it gets out of the reader.
pub fn parquet(bytes: &[u8]) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let path = write("parquet/train-0.parquet", bytes);
    write("parquet/test-0.parquet", bytes);
    let folder = path.parent().expect("a folder");
    if std::panic::catch_unwind(|| load(folder)).is_err() {
        eprintln!("a panic left the reader of parquet");
        std::process::abort();
    }
}
