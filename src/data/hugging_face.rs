//! Data sets of Hugging Face: parquet files with a column of pictures and one of labels (cargo feature `parquet`).
//!
//! train-*.parquet and test-*.parquet (or validation-, valid-), any number of each, in a folder. The column of pictures is
//! called image or img and holds PNG or JPEG files as bytes, by themselves or as the field `bytes` of a group; that of
//! labels is called label, fine_label or labels and holds whole numbers. The names of the classes are read from what the
//! hub writes into the files.

use super::pictures::{self, Part, Picture};
use super::stream::{self, MOST_BYTES};
use super::{Data, folder_name, list, names};
use crate::{Error, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 3] = ["label", "fine_label", "labels"];

/// The parquet files among `entries` whose names begin with one of `stems`: those of the first stem that has any.
fn find<'a>(entries: &'a [PathBuf], stems: &[&str]) -> Vec<&'a PathBuf> {
    let of = |stem: &str| -> Vec<&'a PathBuf> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        entries
            .iter()
            .filter(|path| name(path).starts_with(stem) && name(path).ends_with(".parquet"))
            .collect()
    };
    stems.iter().map(|stem| of(stem)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Load the parquet files in `folder`, their pictures resized to `size` by `size` pixels; 0 takes them as they are.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] where a part, a column or a picture is missing or not what it
/// should be.
pub(super) fn load(folder: &Path, entries: &[PathBuf], size: usize) -> Result<Data> {
    let mut class_names = None;
    let mut part = |stems: &[&str]| {
        let files = find(entries, stems);
        let mut part = Part::default();
        for path in &files {
            read(path, &mut part, &mut class_names)?;
        }
        match part.labels.is_empty() {
            true => {
                let why = format!("has no rows in files {}-*.parquet", list(stems));
                Err(Error::file(folder, why))
            }
            false => Ok((part, files[0].as_path())),
        }
    };
    let (train, train_path) = part(&["train"])?;
    let (test, test_path) = part(&["test", "validation", "valid"])?;
    let name = folder_name(folder);
    let labels = [(&train.labels[..], train_path), (&test.labels[..], test_path)];
    let class_names = names::of(&name, labels, class_names)?;
    let source = format!("the parquet files in {}", folder.display());
    pictures::dataset(&name, &source, [train, test], class_names, size)
}

/// Adds the rows of a file to `part`, and takes the names of the classes from it where it has them.
fn read(path: &Path, part: &mut Part, class_names: &mut Option<Vec<String>>) -> Result<()> {
    let refuse = |why: String| Error::file(path, why);
    let damaged = |error| refuse(format!("is no whole parquet file ({error}): download or copy it again"));
    let file = File::open(path).map_err(|error| Error::io(path, "could not open the data file", error))?;
    let length =
        file.metadata().map_err(|error| Error::io(path, "could not open the data file", error))?.len();
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let about = reader.metadata();
    let said: u64 =
        about.row_groups().iter().map(|group| group.total_byte_size().max(0).unsigned_abs()).sum();
    if said > stream::limit(length) {
        return Err(refuse(format!(
            "says that it unpacks to {said} bytes, more than is taken (or than a file of its size can hold)"
        )));
    }
    // A row has a picture, and a picture has bytes, though the format can say in a few of them that millions of rows are as one.
    let count: u64 = about.row_groups().iter().map(|group| group.num_rows().max(0).unsigned_abs()).sum();
    if count > length {
        return Err(refuse(format!(
            "says that it has {count} rows in a file of {length} bytes: download or copy it again"
        )));
    }
    // The reader takes these as they are, and panics where one is negative.
    let negative = |column: &ColumnChunkMetaData| {
        let start = column.dictionary_page_offset().unwrap_or(0).min(column.data_page_offset());
        start.min(column.compressed_size()) < 0
    };
    if about.row_groups().iter().flat_map(|group| group.columns()).any(negative) {
        let why = "is no whole parquet file (a column begins before the file does, or has less than no bytes): download \
                   or copy it again";
        return Err(refuse(why.into()));
    }
    let columns: Vec<&str> =
        about.file_metadata().schema().get_fields().iter().map(|field| field.name()).collect();
    let column = |wanted: &[&str]| {
        let found = wanted.iter().find_map(|name| columns.iter().position(|have| have == name));
        found.ok_or_else(|| refuse(format!("has no column {}, but {}", wanted.join(" or "), list(&columns))))
    };
    let (image, label) = (column(&IMAGES)?, column(&LABELS)?);
    let written = about.file_metadata().key_value_metadata();
    let hub = written
        .into_iter()
        .flatten()
        .find(|pair| pair.key == "huggingface")
        .and_then(|pair| pair.value.as_ref());
    if let (None, Some(text)) = (&class_names, hub) {
        *class_names = classes(text, columns[label]);
    }
    // Pages of a damaged file make the reader panic, which it should not: that is an error here like any other.
    let rows = || rows(&reader, path, part, [image, label]);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(rows)).unwrap_or_else(|_| {
        Err(refuse(
            "is no whole parquet file (the reader of its pages gave up): download or copy it again".into(),
        ))
    })
}

/// Adds the rows of `reader`, whose columns of pictures and labels these are.
fn rows(
    reader: &SerializedFileReader<File>,
    path: &Path,
    part: &mut Part,
    [image, label]: [usize; 2],
) -> Result<()> {
    let refuse = |why: String| Error::file(path, why);
    let damaged = |error| refuse(format!("is no whole parquet file ({error}): download or copy it again"));
    let mut taken: u64 = part.files.iter().map(Picture::len).sum();
    for (at, row) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
        let row = row.map_err(damaged)?;
        let (picture, class) =
            cells(&row, image, label).map_err(|why| refuse(format!("{why} in row {at}")))?;
        taken += picture.len() as u64;
        if taken > MOST_BYTES {
            return Err(refuse(format!(
                "holds more than the {} GiB of pictures that are taken",
                MOST_BYTES >> 30
            )));
        }
        part.files.push(Picture::Bytes(picture, path.join(at.to_string())));
        part.labels.push(class);
    }
    Ok(())
}

/// The picture and the label of a row, or what is wrong with them.
fn cells(row: &Row, image: usize, label: usize) -> std::result::Result<(Vec<u8>, u32), String> {
    let field = |at: usize| row.get_column_iter().nth(at).map(|(_, field)| field);
    let picture = match field(image) {
        Some(Field::Bytes(bytes)) => Some(bytes.data().to_vec()),
        Some(Field::Group(group)) => group.get_column_iter().find_map(|(name, field)| match field {
            Field::Bytes(bytes) if name == "bytes" => Some(bytes.data().to_vec()),
            _ => None,
        }),
        _ => None,
    };
    let picture = picture.ok_or("holds no picture as bytes (a column of PNG or JPEG files is taken)")?;
    let class = match field(label) {
        Some(Field::Byte(x)) => i64::from(*x),
        Some(Field::Short(x)) => i64::from(*x),
        Some(Field::Int(x)) => i64::from(*x),
        Some(Field::Long(x)) => *x,
        Some(Field::UByte(x)) => i64::from(*x),
        Some(Field::UShort(x)) => i64::from(*x),
        Some(Field::UInt(x)) => i64::from(*x),
        _ => return Err("holds a label that is no whole number".into()),
    };
    match u32::try_from(class) {
        Ok(class) if (class as usize) < names::MOST_CLASSES => Ok((picture, class)),
        _ => Err(format!("holds the label {class}, which is out of range")),
    }
}

/// The names of the classes of column `label` in what the hub wrote.
fn classes(text: &str, label: &str) -> Option<Vec<String>> {
    let about: Value = serde_json::from_str(text).ok()?;
    let found = about.pointer(&format!("/info/features/{label}/names"))?.as_array()?;
    let found: Vec<String> =
        found.iter().map(|name| name.as_str().map(String::from)).collect::<Option<_>>()?;
    (2..=names::MOST_CLASSES).contains(&found.len()).then_some(found)
}
