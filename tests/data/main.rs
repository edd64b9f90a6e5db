//! Data sets: good files in every accepted form, and every kind of bad file.

mod held_out;
#[cfg(feature = "parquet")]
mod hugging_face;
mod idx;
mod pictures;
mod records;
mod tables;

use adamant::data;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Load a folder with these files.
fn load<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> adamant::Result<data::Data> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    data::load(folder.path().to_str().unwrap())
}

/// The error of a folder with these files.
fn error<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> String {
    load(files).unwrap_err().to_string()
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "`{error}` does not say `{word}`");
    }
}
