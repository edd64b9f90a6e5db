//! What a data set is given as: a name, a folder or a file, told from what is there.

use super::{Data, cifar, list, mnist, npz, pictures, table};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What [`load`] knows by name.
pub const NAMES: [&str; 2] = ["mnist", "fashion-mnist"];

/// Most files of a folder that are looked at to tell what it holds.
const MOST_ENTRIES: usize = 100_000;

/// Longest side that pictures are resized to.
const MOST_SIZE: usize = 4096;

/// What is taken, for errors.
const TAKEN: &str = "taken are a folder with the four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, \
    t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or packed), with the binary form of CIFAR-10 or CIFAR-100, \
    with train.bin and test.bin of such records, with pictures (train/CLASS/*.png or .jpg, and test), or with tables \
    (train.csv and test.csv); the archive of CIFAR-10 or CIFAR-100; and a file .npz of NumPy arrays";

/// Load a data set: `mnist` is the embedded sample, `fashion-mnist` what Debian's package of it installs, anything else
/// the folder or the file of a data set, whose format is told from what is there. (A folder that is called `mnist` is
/// given as `./mnist`.)
///
/// # Errors
/// [`Error::Argument`] for what is neither a known name nor there, [`Error::Io`] where a file cannot be read,
/// [`Error::File`] where one is missing or not what it should be.
pub fn load(spec: &str) -> Result<Data> {
    load_sized(spec, 0)
}

/// Load a data set as [`load`], whose images are `size` by `size` pixels: pictures are resized to that, images of other
/// formats have to be of that size. 0 takes them as they are.
///
/// # Errors
/// As [`load`], and [`Error::Argument`] where images that are no pictures are of another size.
pub fn load_sized(spec: &str, size: usize) -> Result<Data> {
    if size > MOST_SIZE {
        return Err(Error::argument(
            "image size",
            size,
            format!("pictures are resized to at most {MOST_SIZE} pixels"),
        ));
    }
    let data = load_any(spec, size)?;
    let [h, w, _] = data.train.image;
    if size > 0 && [h, w] != [size, size] {
        let why = format!(
            "pictures are resized, but `{}` holds {} of {h}x{w}: leave it out",
            data.train.name,
            data.train.kind()
        );
        return Err(Error::argument("image size", size, why));
    }
    Ok(data)
}

fn load_any(spec: &str, size: usize) -> Result<Data> {
    match spec {
        "mnist" => return mnist::sample(),
        "fashion-mnist" => return mnist::fashion(),
        _ => {}
    }
    let path = Path::new(spec);
    if path.is_dir() {
        return load_folder(path, size, true);
    }
    if path.exists() {
        return load_file(path);
    }
    let looks_like_a_path = spec.contains(['/', '\\']) || spec.starts_with(['.', '~']);
    if looks_like_a_path {
        return Err(Error::argument(
            "data",
            format!("`{spec}`"),
            format!(
                "there is no such folder and no such file. Known by name are {}; else {TAKEN}",
                list(&NAMES)
            ),
        ));
    }
    let mut error = Error::unknown("data", spec, &NAMES);
    if let Error::Argument { why, .. } = &mut error {
        why.push_str(&format!(". Else a folder or a file is given: {TAKEN}"));
    }
    Err(error)
}

fn load_file(path: &Path) -> Result<Data> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    match () {
        () if [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst"]
            .iter()
            .any(|end| name.ends_with(end)) =>
        {
            cifar::load_archive(path)
        }
        () if name.ends_with(".npz") => npz::load(path),
        () => Err(Error::file(
            path,
            format!("is a file; give the folder of the data set, or another file: {TAKEN}"),
        )),
    }
}

/// Load the data set in a folder; with `deeper` also the one in the only folder or archive in it.
fn load_folder(folder: &Path, size: usize, deeper: bool) -> Result<Data> {
    let refuse = |error| Error::io(folder, "could not list the folder of the data set", error);
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden {
            entries.push(path);
        }
        if entries.len() > MOST_ENTRIES {
            return Err(Error::file(folder, format!("holds more than {MOST_ENTRIES} files; {TAKEN}")));
        }
    }
    entries.sort();
    if mnist::is_here(folder) {
        return mnist::load_folder(folder);
    }
    if cifar::is_here(&entries) {
        return cifar::load_folder(folder, &entries);
    }
    if pictures::is_here(&entries) {
        return pictures::load(folder, size);
    }
    if let Some(parquet) = entries.iter().find(|path| path.extension().is_some_and(|end| end == "parquet")) {
        return load_parquet(folder, &entries, size, parquet);
    }
    if table::is_here(&entries) {
        return table::load(folder, &entries);
    }
    match &entries[..] {
        // As archives unpack, and as downloads lie.
        [only] if deeper && only.is_dir() => load_folder(only, size, false),
        [only] if deeper && only.is_file() => load_file(only),
        _ => Err(Error::file(folder, format!("holds no data set that is known; {TAKEN}"))),
    }
}

#[cfg(feature = "parquet")]
fn load_parquet(folder: &Path, entries: &[PathBuf], size: usize, _: &Path) -> Result<Data> {
    super::hugging_face::load(folder, entries, size)
}

#[cfg(not(feature = "parquet"))]
fn load_parquet(_: &Path, _: &[PathBuf], _: usize, found: &Path) -> Result<Data> {
    Err(Error::file(
        found,
        "is a parquet file, which this program was built without: build it with --features parquet, as \
         cargo run --release --features parquet --bin train",
    ))
}
