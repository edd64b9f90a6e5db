//! Data sets whose parts are four files in IDX format: MNIST, of which a sample is embedded, Fashion-MNIST, and what else
//! comes that way.

use super::{Data, Dataset, folder_name, idx, list, names};
use crate::{Error, Result};
use std::path::Path;

/// Names of the four files of a data set in IDX format, without what they are packed by.
pub const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Whether one of the four files lies in `folder`.
pub(super) fn is_here(folder: &Path) -> bool {
    IDX_FILES.iter().any(|stem| idx::find(folder, stem).is_some())
}

/// Load the data set whose four IDX files lie in `folder`, plain or packed, under the names of [`IDX_FILES`] (or
/// with a dot before `idx`).
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] where one is missing or not what it should be.
pub(super) fn load_folder(folder: &Path) -> Result<Data> {
    let found = IDX_FILES.map(|stem| idx::find(folder, stem));
    let missing: Vec<&str> =
        IDX_FILES.iter().zip(&found).filter(|(_, path)| path.is_none()).map(|(stem, _)| *stem).collect();
    let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = found else {
        return Err(Error::file(
            folder,
            format!(
                "lacks {}. A data set in IDX format is four files, plain or packed (.gz, .xz, .zst): {}",
                list(&missing),
                list(&IDX_FILES)
            ),
        ));
    };
    let train = Part::new(
        (idx::read_images(&train_images)?, &train_images),
        (idx::read_labels(&train_labels)?, &train_labels),
    )?;
    let test = Part::new(
        (idx::read_images(&test_images)?, &test_images),
        (idx::read_labels(&test_labels)?, &test_labels),
    )?;
    let name = folder_name(folder);
    let source = format!("the IDX files in {}", folder.display());
    let names = names::given(folder)?;
    let sources = [format!("training part of {source}"), format!("test part of {source}")];
    join(&name, sources, train, test, names)
}

/// The embedded sample of MNIST: 10 000 training and 2 000 test images; see `src/data/sample/README.md`.
pub(super) fn sample() -> Result<Data> {
    let images = |bytes: &[u8], path| Ok::<_, Error>((idx::parse_images(bytes, path)?, path));
    let labels = |bytes: &[u8], path| Ok::<_, Error>((idx::parse_labels(bytes, path)?, path));
    let train = Part::new(
        images(include_bytes!("sample/train-images-idx3-ubyte.gz"), Path::new("<embedded>/train-images"))?,
        labels(include_bytes!("sample/train-labels-idx1-ubyte.gz"), Path::new("<embedded>/train-labels"))?,
    )?;
    let test = Part::new(
        images(include_bytes!("sample/t10k-images-idx3-ubyte.gz"), Path::new("<embedded>/t10k-images"))?,
        labels(include_bytes!("sample/t10k-labels-idx1-ubyte.gz"), Path::new("<embedded>/t10k-labels"))?,
    )?;
    let source = |which: &str| {
        format!("every {which} image of MNIST (LeCun, Cortes and Burges, CC BY-SA 3.0), embedded sample")
    };
    join("mnist", [source("sixth training"), source("fifth test")], train, test, None)
}

/// Images and labels that belong together, with the files they came from.
struct Part<'a> {
    images: idx::Images,
    images_path: &'a Path,
    labels: Vec<u32>,
    labels_path: &'a Path,
}

impl<'a> Part<'a> {
    fn new(images: (idx::Images, &'a Path), labels: (Vec<u8>, &'a Path)) -> Result<Part<'a>> {
        let numbers = labels.0.into_iter().map(u32::from).collect();
        let part = Part { images: images.0, images_path: images.1, labels: numbers, labels_path: labels.1 };
        if part.images.count != part.labels.len() {
            return Err(Error::file(
                part.labels_path,
                format!(
                    "holds {} labels, but {} holds {} images: the two files do not belong together",
                    part.labels.len(),
                    part.images_path.display(),
                    part.images.count
                ),
            ));
        }
        Ok(part)
    }

    fn dataset(self, name: &str, source: String, class_names: Vec<String>) -> Result<Dataset> {
        let image = [self.images.height, self.images.width, 1];
        Dataset::new(name, source, image, self.images.pixels, self.labels, class_names)
    }
}

/// Both parts as a data set: one image size, one set of classes.
fn join(
    name: &str,
    sources: [String; 2],
    train: Part,
    test: Part,
    given: Option<Vec<String>>,
) -> Result<Data> {
    let size = |part: &Part| (part.images.height, part.images.width);
    if size(&train) != size(&test) {
        return Err(Error::file(
            test.images_path,
            format!(
                "holds images of {}x{}, but {} holds images of {}x{}: the files do not belong together",
                test.images.height,
                test.images.width,
                train.images_path.display(),
                train.images.height,
                train.images.width
            ),
        ));
    }
    let labels = [(&train.labels[..], train.labels_path), (&test.labels[..], test.labels_path)];
    let class_names = names::of(name, labels, given)?;
    let [train_source, test_source] = sources;
    Ok(Data {
        train: train.dataset(name, train_source, class_names.clone())?,
        test: test.dataset(name, test_source, class_names)?,
    })
}

/// Where Debian's package `dataset-fashion-mnist` puts the four files.
const FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";

/// Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
/// Algorithms", MIT licence), where Debian's package puts it.
///
/// # Errors
/// [`Error::Argument`] where the package is not installed, else as [`load_folder`].
pub(super) fn fashion() -> Result<Data> {
    let folder = Path::new(FASHION_MNIST);
    if !folder.is_dir() {
        return Err(Error::argument(
            "data",
            "`fashion-mnist`",
            format!(
                "its files are not in {FASHION_MNIST}: install Debian's package dataset-fashion-mnist, or run \
                 `tools/fetch_data fashion-mnist FOLDER` and give that folder"
            ),
        ));
    }
    load_folder(folder)
}
