//! Tables of numbers (CSV): vectors of features, a row an example, as train.csv and test.csv in a folder, and features.toml
//! beside them, which says what an attacker may do to each.
//!
//! The first row names the columns. One column is the label (called `label`, or as features.toml says): a whole number
//! from 0 up, or a name. All other columns are features. Of features.toml everything may be left out:
//!
//! ```toml
//! label = "family"                 # the column of the label
//! classes = ["benign", "malware"]  # names of the classes, in order
//! ignore = ["sha256"]              # columns that are no features
//! scale = "bounds"                 # bring each feature to 0 to 1 by its bounds; or "none", the default
//! lower = 0.0                      # bounds and change of every feature that has none of its own
//! upper = 1.0
//! change = "free"                  # fixed, free, up (only greater) or down (only smaller)
//!
//! [feature.size]
//! lower = 0
//! upper = 1e6
//! change = "up"
//! ```

use super::stream::Stream;
use super::{Change, Data, Limits, features, folder_name, list, names};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most columns taken.
const MOST_COLUMNS: usize = 1 << 20;

/// The file features.toml.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Description {
    label: String,
    classes: Vec<String>,
    ignore: Vec<String>,
    scale: String,
    lower: f64,
    upper: f64,
    change: String,
    feature: BTreeMap<String, Feature>,
}

/// What it says of one feature.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    lower: Option<f64>,
    upper: Option<f64>,
    change: Option<String>,
}

impl Default for Description {
    fn default() -> Description {
        Description {
            label: "label".into(),
            classes: Vec::new(),
            ignore: Vec::new(),
            scale: "none".into(),
            lower: 0.0,
            upper: 1.0,
            change: "free".into(),
            feature: BTreeMap::new(),
        }
    }
}

/// The file `stem`.csv among `entries`, plain or packed.
fn find<'a>(entries: &'a [PathBuf], stem: &str) -> Option<&'a PathBuf> {
    let names = ["", ".gz", ".xz", ".zst"].map(|packing| format!("{stem}.csv{packing}"));
    entries
        .iter()
        .find(|path| path.file_name().is_some_and(|name| names.iter().any(|have| name == have.as_str())))
}

/// Whether a folder with these entries holds tables.
pub(super) fn is_here(entries: &[PathBuf]) -> bool {
    ["train", "test"].iter().any(|stem| find(entries, stem).is_some())
}

/// A file of rows as it is read.
struct Table {
    /// Names of the features, in order.
    columns: Vec<String>,
    /// \[N, F\].
    values: Vec<f32>,
    labels: Vec<String>,
    path: PathBuf,
}

/// Load the tables in `folder`.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] where one is missing or not what it should be.
pub(super) fn load(folder: &Path, entries: &[PathBuf]) -> Result<Data> {
    let path = folder.join("features.toml");
    let description = match path.is_file() {
        true => read_description(&path)?,
        false => Description::default(),
    };
    let file = |stem: &str| {
        let why = || format!("has no {stem}.csv: tables are taken as train.csv and test.csv");
        find(entries, stem).ok_or_else(|| Error::file(folder, why()))
    };
    let (train, test) = (file("train")?, file("test")?);
    let (train, test) = (read(train, &description)?, read(test, &description)?);
    if train.columns != test.columns {
        let other = train.columns.iter().zip(&test.columns).find(|(a, b)| a != b);
        let why = match other {
            Some((want, have)) => {
                format!("has the column `{have}` where {} has `{want}`", train.path.display())
            }
            None => format!(
                "has {} features, but {} has {}",
                test.columns.len(),
                train.path.display(),
                train.columns.len()
            ),
        };
        return Err(Error::file(&test.path, why));
    }
    let limits = limits(&description, &train.columns, &path)?;
    let classes = classes(&description, &train)?;
    // Labels are names of classes, or numbers.
    let named = classes.as_ref().filter(|names| train.labels.iter().any(|label| names.contains(label)));
    let number = |table: &Table| -> Result<Vec<u32>> {
        let label = |(row, text): (usize, &String)| match named {
            Some(names) => names.iter().position(|name| name == text).map(|at| at as u32).ok_or_else(|| {
                let some: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
                let why = format!("label `{text}` of row {row} is none of the classes {}", list(&some));
                Error::file(&table.path, why)
            }),
            None => text.parse().map_err(|_| {
                let why = format!(
                    "label `{text}` of row {row} is no whole number from 0 up, as those to train on are"
                );
                Error::file(&table.path, why)
            }),
        };
        table.labels.iter().enumerate().map(label).collect()
    };
    let labels = [number(&train)?, number(&test)?];
    let [train_labels, test_labels] = labels;
    let part = |values, labels, path| features::Part { values, labels, path, labels_path: path };
    let parts = [part(train.values, train_labels, &train.path), part(test.values, test_labels, &test.path)];
    features::dataset(&folder_name(folder), parts, limits, description.scale == "bounds", classes)
}

fn read_description(path: &Path) -> Result<Description> {
    let text = Stream::open(path)?.take(1 << 24)?;
    let text = std::str::from_utf8(&text).map_err(|_| Error::file(path, "is not a text in UTF-8"))?;
    let description: Description = toml::from_str(text)
        .map_err(|error| Error::file(path, format!("is no description of features: {error}")))?;
    if !["none", "bounds"].contains(&description.scale.as_str()) {
        return Err(Error::file(
            path,
            Error::unknown("scale", &description.scale, &["none", "bounds"]).to_string(),
        ));
    }
    if !description.classes.is_empty() {
        names::parse(description.classes.join("\n").as_bytes(), path)?;
    }
    Ok(description)
}

/// Reads a table: its features as numbers, its labels as they are written.
fn read(path: &Path, description: &Description) -> Result<Table> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(Stream::open(path)?);
    let refuse = |error: csv::Error| {
        Error::file(
            path,
            format!("is no table: {error}. Every row needs a cell for every name in the first row"),
        )
    };
    let header: Vec<String> = reader.headers().map_err(refuse)?.iter().map(String::from).collect();
    if header.len() > MOST_COLUMNS {
        return Err(Error::file(
            path,
            format!("has {} columns; at most {MOST_COLUMNS} are taken", header.len()),
        ));
    }
    let mut sorted: Vec<&String> = header.iter().collect();
    sorted.sort();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::file(path, format!("names two columns `{}`: give each its own name", twice[0])));
    }
    let Some(label) = header.iter().position(|name| *name == description.label) else {
        let some: Vec<&str> = header.iter().take(8).map(String::as_str).collect();
        let there = match header.len() {
            0 => "is empty".to_string(),
            columns => format!("has {}{}", some.join(", "), if columns > 8 { ", ..." } else { "" }),
        };
        let why = format!(
            "has no column `{}` for the label, but {there}: the first row has to hold the names of the columns, and \
             features.toml says which is the label, as label = \"NAME\"",
            description.label,
        );
        return Err(Error::file(path, why));
    };
    let ignored: Vec<bool> = header.iter().map(|name| description.ignore.contains(name)).collect();
    let is_feature = |at: usize| at != label && !ignored[at];
    let columns: Vec<String> =
        header.iter().enumerate().filter(|(at, _)| is_feature(*at)).map(|(_, name)| name.clone()).collect();
    if columns.is_empty() {
        return Err(Error::file(path, "has no columns beside the label and those that are ignored"));
    }
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(refuse)? {
        let row = labels.len();
        for (at, cell) in record.iter().enumerate() {
            if at == label {
                labels.push(cell.to_string());
            } else if !ignored[at] {
                let value = cell.parse::<f32>().map_err(|_| {
                    let cell: String = cell.chars().take(40).collect();
                    let why = format!(
                        "holds `{cell}` in row {row}, column `{}`, where a number is needed: mend it, or name the \
                         column under `ignore` in features.toml",
                        header[at]
                    );
                    Error::file(path, why)
                })?;
                values.push(value);
            }
        }
    }
    if labels.is_empty() {
        return Err(Error::file(path, "holds no rows below the names of its columns"));
    }
    Ok(Table { columns, values, labels, path: path.to_path_buf() })
}

/// Bounds and changes of these features; `path` is the description's.
fn limits(description: &Description, columns: &[String], path: &Path) -> Result<Limits> {
    if let Some(name) = description.feature.keys().find(|name| !columns.contains(name)) {
        let columns: Vec<&str> = columns.iter().take(50).map(String::as_str).collect();
        return Err(Error::file(path, Error::unknown("feature", name, &columns).to_string()));
    }
    let of = |name: &str| description.feature.get(name);
    let bound = |own: fn(&Feature) -> Option<f64>, common: f64| -> Vec<f32> {
        columns.iter().map(|name| of(name).and_then(own).unwrap_or(common) as f32).collect()
    };
    let mut changes = Vec::with_capacity(columns.len());
    for name in columns {
        let change = of(name).and_then(|own| own.change.as_deref()).unwrap_or(&description.change);
        changes.push(Change::named(change).ok_or_else(|| {
            Error::file(
                path,
                Error::unknown(&format!("change of `{name}`"), change, &Change::NAMES).to_string(),
            )
        })?);
    }
    let least = bound(|own| own.lower, description.lower);
    let most = bound(|own| own.upper, description.upper);
    Ok(Limits { names: columns.to_vec(), least, most, changes })
}

/// Names of the classes: those of the description, or, where labels are no numbers, those that occur in the training part
/// in the order of the alphabet.
fn classes(description: &Description, train: &Table) -> Result<Option<Vec<String>>> {
    if !description.classes.is_empty() {
        return Ok(Some(description.classes.clone()));
    }
    if train.labels.iter().all(|label| label.parse::<u32>().is_ok()) {
        return Ok(None);
    }
    let mut found = train.labels.clone();
    found.sort();
    found.dedup();
    match found.len() {
        2..=names::MOST_CLASSES => Ok(Some(found)),
        count => {
            let why = format!("has {count} different labels; 2 to {} are taken", names::MOST_CLASSES);
            Err(Error::file(&train.path, why))
        }
    }
}
