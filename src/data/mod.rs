//! Data sets: labelled images as bytes or vectors of features, and where they come from; a format is a file.

mod cifar;
mod dataset;
mod features;
#[cfg(feature = "parquet")]
mod hugging_face;
pub mod idx;
mod load;
mod mnist;
mod names;
mod npy;
mod npz;
mod pictures;
mod stream;
mod table;

pub use dataset::{Data, Dataset, Examples, Groups};
pub use features::{Change, Limits};
pub use load::{NAMES, load, load_sized};
pub use mnist::IDX_FILES;

use std::path::Path;

/// What a folder or a file is called, without what ends it.
fn folder_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = if full.is_dir() { Some(name.as_str()) } else { name.split('.').next() };
    stem.filter(|stem| !stem.is_empty()).unwrap_or("data").to_string()
}

/// "a, b and c".
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => one.to_string(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
