//! A folder with a small data set to run the program in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Rows and columns of an image.
pub const SIDE: usize = 8;
/// Number of classes.
pub const CLASSES: usize = 4;

/// An IDX file of unsigned bytes.
pub fn idx_file(extents: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, extents.len() as u8];
    file.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
    file.extend_from_slice(elements);
    file
}

/// Noisy grey images whose class is the brighter quarter, and their labels.
fn part(images: usize, seed: u32) -> (Vec<u8>, Vec<u8>) {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 25
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..images {
        let class = i % CLASSES;
        labels.push(class as u8);
        for (row, column) in (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| (row, column))) {
            let bright = row / (SIDE / 2) * 2 + column / (SIDE / 2) == class;
            pixels.push((noise() + if bright { 90 } else { 0 }) as u8);
        }
    }
    let side = SIDE as u32;
    (idx_file(&[images as u32, side, side], &pixels), idx_file(&[images as u32], &labels))
}

/// What a run of the program did.
pub struct Ran {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A temporary folder that holds the data set `tiny`.
pub struct Tiny(TempDir);

impl Tiny {
    /// With so many training images, and 60 to test on.
    pub fn new(images: usize) -> Tiny {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("tiny");
        fs::create_dir(&data).unwrap();
        for (name, (images, labels)) in [("train", part(images, 1)), ("t10k", part(60, 2))] {
            fs::write(data.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
            fs::write(data.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
        }
        Tiny(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The program with these arguments, in this folder; on the CPU unless they say otherwise.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_train"), arguments)
    }

    /// As [`Tiny::command`], for any of our programs.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).args(arguments);
        if !arguments.contains(&"--device") {
            command.args(["--device", "cpu"]);
        }
        command
    }

    /// A short run of a small network with these arguments besides.
    pub fn short<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--data", "tiny", "--model", "mlp-16", "--epsilon", "0.1"];
        for (flag, value) in [("--epochs", "1"), ("--validation", "100"), ("--batch", "20")] {
            if !arguments.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        all.extend(arguments);
        all
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Runs the program to its end, which has to be a good one.
    pub fn runs(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
        ran
    }

    /// Starts the program.
    #[cfg(unix)]
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the program, which has to refuse: an error that says all of `words`, an exit code that is not 0, no
    /// panic, and not a file made, changed or removed. Returns the error.
    pub fn refuses(&self, arguments: &[&str], words: &[&str]) -> String {
        let before = contents(self.0.path());
        let ran = self.run(arguments);
        let err = without_driver_noise(&ran.err);
        assert!(
            matches!(ran.code, Some(code) if code != 0 && code != 101),
            "{arguments:?} ended with {:?}:\n{}{}",
            ran.code,
            ran.out,
            ran.err
        );
        assert!(err.starts_with("error: "), "{arguments:?}: {err}");
        for word in words.iter().chain(&[""]) {
            assert!(err.contains(word), "{arguments:?}: `{word}` is not in: {err}");
        }
        for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!err.contains(word), "{arguments:?}: {err}");
        }
        assert!(contents(self.0.path()) == before, "{arguments:?} left something behind or changed it");
        err
    }
}

/// Standard error without what Vulkan drivers print on their own.
fn without_driver_noise(err: &str) -> String {
    let noise = |line: &&str| !line.starts_with("WARNING: ") && !line.contains("MESA");
    err.lines().filter(noise).collect::<Vec<_>>().join("\n")
}

/// Everything below a folder: paths, and what the files hold.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, Vec::new());
        } else {
            // A device such as /dev/full has no end.
            let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(path, bytes);
        }
    }
    all
}
