//! NumPy archives (.npz): images as unsigned bytes, or vectors of features with what an attacker may do to them.
//!
//! | array | of images | of features |
//! |---|---|---|
//! | `x_train`, `x_test` (or `train_images`, `test_images`) | uint8 \[N, H, W\], \[N, H, W, C\] or \[N, C, H, W\], C 1 or 3 | numbers \[N, F\] |
//! | `y_train`, `y_test` (or `train_labels`, `test_labels`) | whole numbers \[N\] or \[N, 1\], from 0 up | the same |
//! | `class_names` | texts, one a class; may be left out | the same |
//! | `lower`, `upper` | | bounds, a number or \[F\]; 0 and 1 where left out |
//! | `mask` | | \[F\]: 1 for what an attacker may change, 0 for what not; all where left out |
//! | `direction` | | \[F\]: 1 for what an attacker may only make greater, -1 only smaller, 0 both; may be left out |
//! | `scale` | | a number: if not 0, each feature is brought to 0 to 1 by its bounds |
//! | `feature_names` | | texts \[F\]; may be left out |

use super::npy::{self, Array};
use super::stream;
use super::{Change, Data, Dataset, Limits, features, folder_name, names};
use crate::{Error, Result};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Longest side of an image accepted, in pixels.
const MOST_SIDE: usize = 1 << 14;

/// Names that images or features, and labels, go by.
const EXAMPLES: [[&str; 2]; 2] = [["x_train", "train_images"], ["x_test", "test_images"]];
const LABELS: [[&str; 2]; 2] = [["y_train", "train_labels"], ["y_test", "test_labels"]];

/// An open archive.
struct Archive<'a> {
    zip: ZipArchive<BufReader<File>>,
    path: &'a Path,
    /// Bytes that may still be taken out of it.
    left: u64,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Archive<'a>> {
        let refuse = |error| Error::io(path, "could not open the data file", error);
        let file = File::open(path).map_err(refuse)?;
        let size = file.metadata().map_err(refuse)?.len();
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            Error::file(path, format!("is not a whole .npz archive ({error}): download or copy it again"))
        })?;
        Ok(Archive { zip, path, left: stream::limit(size) })
    }

    /// The first array that goes by one of `names`, and where it is.
    fn array(&mut self, names: &[&str]) -> Result<Option<(Array, PathBuf)>> {
        for name in names {
            let Some(at) = self.zip.index_for_name(&format!("{name}.npy")) else { continue };
            let inside = self.path.join(name);
            let mut member = self.zip.by_index(at).map_err(|error| {
                Error::file(&inside, format!("cannot be unpacked ({error}): download or copy it again"))
            })?;
            let array = npy::read(&mut member, self.left, &inside)?;
            self.left = self.left.saturating_sub(array.len_bytes());
            return Ok(Some((array, inside)));
        }
        Ok(None)
    }

    /// As [`Archive::array`], where there has to be one.
    fn wanted(&mut self, names: &[&str]) -> Result<(Array, PathBuf)> {
        if let Some(found) = self.array(names)? {
            return Ok(found);
        }
        let have: Vec<String> = self.zip.file_names().take(20).flatten().map(String::from).collect();
        let why = format!(
            "has no array `{}`, but {}. Taken are x_train, y_train, x_test and y_test (or train_images and the like)",
            names.join("` or `"),
            have.join(", ")
        );
        Err(Error::file(self.path, why))
    }
}

/// Load the archive `path`.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::File`] where an array is missing or not what it should be.
pub(super) fn load(path: &Path) -> Result<Data> {
    let mut archive = Archive::open(path)?;
    let (train, train_path) = archive.wanted(&EXAMPLES[0])?;
    let (test, test_path) = archive.wanted(&EXAMPLES[1])?;
    let mut labels = Vec::new();
    for (names, (array, path)) in LABELS.iter().zip([(&train, &train_path), (&test, &test_path)]) {
        let (found, from) = archive.wanted(names)?;
        labels.push((whole_numbers(&found, &from)?, from));
        let (count, have) = (labels[labels.len() - 1].0.len(), array.shape.first().copied().unwrap_or(0));
        if count != have {
            return Err(Error::file(path, format!("is {}, but there are {count} labels", array.describe())));
        }
    }
    let given = match archive.array(&["class_names"])? {
        Some((array, path)) => {
            let texts = array.texts().ok_or_else(|| Error::file(&path, "is no array of texts"))?;
            Some(names::parse(texts.join("\n").as_bytes(), &path)?)
        }
        None => None,
    };
    let name = folder_name(path);
    let (test_labels, test_labels_path) = labels.pop().unwrap_or_default();
    let (train_labels, train_labels_path) = labels.pop().unwrap_or_default();
    if train.shape.len() == 2 {
        let columns = train.shape[1];
        if test.shape.len() != 2 || test.shape[1] != columns {
            let why = format!("is {}, but x_train has {columns} features", test.describe());
            return Err(Error::file(&test_path, why));
        }
        let (limits, scale) = limits(&mut archive, columns)?;
        for (array, path) in [(&train, &train_path), (&test, &test_path)] {
            if !array.is_numeric() {
                return Err(Error::file(path, "holds texts, but numbers are needed"));
            }
        }
        let numbers = |array: &Array| array.numbers().map(|x| x as f32).collect();
        let parts = [
            features::Part {
                values: numbers(&train),
                labels: train_labels,
                path: &train_path,
                labels_path: &train_labels_path,
            },
            features::Part {
                values: numbers(&test),
                labels: test_labels,
                path: &test_path,
                labels_path: &test_labels_path,
            },
        ];
        return features::dataset(&name, parts, limits, scale, given);
    }
    let (image, train) = pixels(train, &train_path)?;
    let (other, test) = pixels(test, &test_path)?;
    if image != other {
        let why = format!(
            "holds images of {other:?}, but those to train on are {image:?} (height, width, channels)"
        );
        return Err(Error::file(&test_path, why));
    }
    let labelled = [(&train_labels[..], &*train_labels_path), (&test_labels[..], &*test_labels_path)];
    let class_names = names::of(&name, labelled, given)?;
    let dataset = |which: &str, pixels, labels| {
        let source = format!("{which} images in {}", path.display());
        Dataset::new(&name, source, image, pixels, labels, class_names.clone())
    };
    Ok(Data { train: dataset("training", train, train_labels)?, test: dataset("test", test, test_labels)? })
}

/// Labels out of an array.
fn whole_numbers(array: &Array, path: &Path) -> Result<Vec<u32>> {
    let fits = matches!(array.shape[..], [_] | [_, 1]) && array.is_numeric();
    if !fits {
        let why = format!(
            "is {}, but labels are whole numbers [N]; of one-hot rows take np.argmax",
            array.describe()
        );
        return Err(Error::file(path, why));
    }
    let label = |(at, number): (usize, f64)| match number {
        n if n >= 0.0 && n < names::MOST_CLASSES as f64 && n.fract() == 0.0 => Ok(n as u32),
        n => Err(Error::file(
            path,
            format!(
                "label {n} (example {at}) is out of range: labels are whole numbers from 0 up, one a class"
            ),
        )),
    };
    array.numbers().enumerate().map(label).collect()
}

/// Extents \[H, W, C\] and pixels \[N, H, W, C\] of an array of images.
fn pixels(array: Array, path: &Path) -> Result<([usize; 3], Vec<u8>)> {
    let what = array.describe();
    let refuse = |why: &str| Err(Error::file(path, format!("is {what}, but {why}")));
    if !array.is_bytes() {
        return refuse(
            "images are taken as uint8, 0 to 255, and features as [N, F]: of floats from 0 to 1 take (255 * x).round().astype(np.uint8)",
        );
    }
    let is_channels = |extent: usize| extent == 1 || extent == 3;
    let (image, planes) = match array.shape[..] {
        [_, h, w] => ([h, w, 1], false),
        [_, h, w, c] if is_channels(c) => ([h, w, c], false),
        [_, c, h, w] if is_channels(c) => ([h, w, c], true),
        _ => return refuse("images are [N, H, W], [N, H, W, C] or [N, C, H, W] of 1 or 3 channels"),
    };
    if image[..2].iter().any(|side| !(1..=MOST_SIDE).contains(side)) {
        return refuse("a side of an image is 1 to 16384 pixels");
    }
    let bytes = array.into_bytes();
    let [h, w, c] = image;
    if !planes || c == 1 {
        return Ok((image, bytes));
    }
    let interleaved = bytes
        .chunks_exact(h * w * c)
        .flat_map(|image| (0..h * w * c).map(move |i| image[i % c * h * w + i / c]));
    Ok((image, interleaved.collect()))
}

/// What an attacker may do to so many features, and whether they are to be scaled.
fn limits(archive: &mut Archive<'_>, count: usize) -> Result<(Limits, bool)> {
    // A number for each feature, or one for all.
    let mut each = |name: &str, otherwise: f64| -> Result<(Vec<f64>, PathBuf)> {
        let Some((array, path)) = archive.array(&[name])? else {
            return Ok((vec![otherwise; count], PathBuf::from(name)));
        };
        let numbers: Vec<f64> = array.numbers().collect();
        match numbers.len() {
            1 if array.shape.len() <= 1 => Ok((vec![numbers[0]; count], path)),
            found if found == count && array.shape.len() == 1 => Ok((numbers, path)),
            _ => Err(Error::file(
                &path,
                format!("is {}, but one number for each of the {count} features is needed", array.describe()),
            )),
        }
    };
    let single = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let least = single(each("lower", 0.0)?.0);
    let most = single(each("upper", 1.0)?.0);
    let (mask, mask_path) = each("mask", 1.0)?;
    let (direction, direction_path) = each("direction", 0.0)?;
    let scale = each("scale", 0.0)?.0.first().is_some_and(|&scale| scale != 0.0);
    let mut changes = Vec::with_capacity(count);
    for (at, (mask, direction)) in mask.into_iter().zip(direction).enumerate() {
        changes.push(match (mask, direction) {
            (0.0, _) => Change::Fixed,
            (1.0, 0.0) => Change::Free,
            (1.0, 1.0) => Change::Up,
            (1.0, -1.0) => Change::Down,
            (1.0, other) => {
                let why = format!(
                    "is {other} for feature {at}, but -1 (only smaller), 0 or 1 (only greater) is needed"
                );
                return Err(Error::file(&direction_path, why));
            }
            (other, _) => {
                let why =
                    format!("is {other} for feature {at}, but 0 (fixed) or 1 (may be changed) is needed");
                return Err(Error::file(&mask_path, why));
            }
        });
    }
    let names = match archive.array(&["feature_names"])? {
        None => (0..count).map(|at| at.to_string()).collect(),
        Some((array, path)) => array.texts().filter(|names| names.len() == count).ok_or_else(|| {
            Error::file(&path, format!("is {}, but {count} texts are needed", array.describe()))
        })?,
    };
    Ok((Limits { names, least, most, changes }, scale))
}
