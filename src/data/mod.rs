//! Data sets: labelled images as bytes, and where they come from.

pub mod idx;

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// What `load` knows by name.
pub const NAMES: [&str; 1] = ["mnist"];

/// Names of the four files of a data set in IDX format, without `.gz`.
pub const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Labelled images of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Short name, such as "mnist".
    pub name: String,
    /// The pixels, \[N, H, W, C\], 0 to 255.
    pub images: Vec<u8>,
    /// The class of each image, 0 to `classes - 1`.
    pub labels: Vec<u32>,
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Name of each class.
    pub class_names: Vec<String>,
    /// Where the images come from, for people.
    pub source: String,
    /// SHA-256, in hexadecimal, of everything a result depends on: extents, pixels and labels.
    pub sha256: String,
}

/// A data set's training part and the test part that only final figures may see.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Images to train on and to hold out validation images from.
    pub train: Dataset,
    /// Images for the final figures.
    pub test: Dataset,
}

impl Dataset {
    /// The data set of these images \[N, H, W, C\] and labels.
    ///
    /// # Errors
    /// [`Error::Argument`] where the counts do not match, there is no image, an extent is zero, or a label is not
    /// below the number of names.
    pub fn new(
        name: impl Into<String>,
        source: impl Into<String>,
        image: [usize; 3],
        images: Vec<u8>,
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Dataset> {
        let (name, source) = (name.into(), source.into());
        let refuse = |why: String| Err(Error::argument("data set", &name, why));
        let bytes = image.iter().try_fold(labels.len(), |total, &extent| total.checked_mul(extent));
        if bytes != Some(images.len()) {
            return refuse(format!(
                "{} bytes of pixels do not make {} images of {image:?}",
                images.len(),
                labels.len()
            ));
        }
        if images.is_empty() {
            return refuse("holds no image".into());
        }
        if let Some(at) = labels.iter().position(|&label| label as usize >= class_names.len()) {
            return refuse(format!(
                "label {} of image {at} is not one of the {} classes",
                labels[at],
                class_names.len()
            ));
        }
        let mut hash = Sha256::new();
        for extent in [labels.len(), image[0], image[1], image[2], class_names.len()] {
            hash.update((extent as u64).to_le_bytes());
        }
        hash.update(&images);
        hash.update(labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>());
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Dataset { name, images, labels, image, classes: class_names.len(), class_names, source, sha256 })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes an image takes: H * W * C.
    pub fn image_len(&self) -> usize {
        self.image.iter().product()
    }

    /// Pixels of image `i`, \[H, W, C\].
    ///
    /// # Panics
    /// Where `i` is not below [`Dataset::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        &self.images[i * self.image_len()..][..self.image_len()]
    }

    /// Hold out `count` images for validation: the indices that stay for training and those that are held out, each
    /// ascending.
    ///
    /// Stratified: every class gives its share, rounded so that the shares add up. Which images of a class is a
    /// function of `seed` alone.
    ///
    /// # Errors
    /// [`Error::Argument`] where no image would be left to train on.
    pub fn split_validation(&self, count: usize, seed: u64) -> Result<(Vec<u32>, Vec<u32>)> {
        if count >= self.len() {
            return Err(Error::argument(
                "validation images",
                count,
                format!("{} has {} images, and some have to be left to train on", self.name, self.len()),
            ));
        }
        let all: Vec<u32> = (0..self.len() as u32).collect();
        Ok(self.choose(&all, count, seed))
    }

    /// Of the images `among`, those that are left and `count` that are chosen (all, where there are no more), each
    /// ascending; stratified and by `seed` alone, as [`Dataset::split_validation`].
    pub fn choose(&self, among: &[u32], count: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
        let count = count.min(among.len());
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.classes];
        for &i in among {
            members[self.labels[i as usize] as usize].push(i);
        }
        // Largest remainder: whole shares first, then one more to those who lost most by rounding down.
        let all = among.len().max(1) as u128;
        let share = |class: &Vec<u32>| class.len() as u128 * count as u128;
        let mut quotas: Vec<usize> = members.iter().map(|class| (share(class) / all) as usize).collect();
        let mut by_loss: Vec<usize> = (0..self.classes).collect();
        by_loss.sort_by_key(|&class| std::cmp::Reverse(share(&members[class]) % all));
        let missing = count - quotas.iter().sum::<usize>();
        for &class in &by_loss[..missing] {
            quotas[class] += 1;
        }

        let (mut left, mut chosen) = (Vec::with_capacity(among.len() - count), Vec::with_capacity(count));
        for (mut class, quota) in members.into_iter().zip(quotas) {
            class.sort_by_key(|&i| split_mix(seed ^ split_mix(i.into())));
            chosen.extend_from_slice(&class[..quota]);
            left.extend_from_slice(&class[quota..]);
        }
        left.sort_unstable();
        chosen.sort_unstable();
        (left, chosen)
    }

    /// The images with these indices, in this order.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none, or an index is out of range.
    pub fn subset(&self, indices: &[u32]) -> Result<Dataset> {
        if let Some(&i) = indices.iter().find(|&&i| i as usize >= self.len()) {
            return Err(Error::argument("image", i, format!("{} has {} images", self.name, self.len())));
        }
        let mut images = Vec::with_capacity(indices.len() * self.image_len());
        for &i in indices {
            images.extend_from_slice(self.image(i as usize));
        }
        let labels = indices.iter().map(|&i| self.labels[i as usize]).collect();
        let source = format!("{} of the {} images of {}", indices.len(), self.len(), self.source);
        Dataset::new(&self.name, source, self.image, images, labels, self.class_names.clone())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): a
/// bijection that scatters neighbouring numbers.
fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Load a data set: `"mnist"` is the embedded sample, anything else a folder with the four IDX files, plain or
/// gzipped. (A folder that is called `mnist` is given as `./mnist`.)
///
/// # Errors
/// [`Error::Argument`] for what is neither a known name nor a folder, else what [`load_folder`] says.
pub fn load(spec: &str) -> Result<Data> {
    if spec == "mnist" {
        return mnist_sample();
    }
    let path = Path::new(spec);
    if path.is_dir() {
        return load_folder(path);
    }
    if path.exists() {
        return Err(Error::file(path, format!("is a file; give the folder that holds {}", list(&IDX_FILES))));
    }
    let looks_like_a_path = spec.contains(['/', '\\']) || spec.starts_with(['.', '~']);
    if looks_like_a_path {
        return Err(Error::argument(
            "data",
            format!("`{spec}`"),
            format!("there is no such folder; give one that holds {}, or `mnist`", list(&IDX_FILES)),
        ));
    }
    let mut error = Error::unknown("data", spec, &NAMES);
    if let Error::Argument { why, .. } = &mut error {
        why.push_str(" (the embedded sample), or a folder with the four IDX files");
    }
    Err(error)
}

/// Load the data set whose four IDX files lie in `folder`, plain or gzipped, under the names of [`IDX_FILES`] (or
/// with a dot before `idx`).
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] where one is missing or not what it should be.
pub fn load_folder(folder: &Path) -> Result<Data> {
    let found = IDX_FILES.map(|stem| idx::find(folder, stem));
    let missing: Vec<&str> =
        IDX_FILES.iter().zip(&found).filter(|(_, path)| path.is_none()).map(|(stem, _)| *stem).collect();
    let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = found else {
        return Err(Error::file(
            folder,
            format!(
                "lacks {}. A data set in IDX format is four files, plain or gzipped (.gz): {}",
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
    let name =
        folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "data".into());
    let source = format!("the IDX files in {}", folder.display());
    join(&name, [format!("training part of {source}"), format!("test part of {source}")], train, test)
}

/// The embedded sample of MNIST: 10 000 training and 2 000 test images; see `src/data/sample/README.md`.
fn mnist_sample() -> Result<Data> {
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
    join("mnist", [source("sixth training"), source("fifth test")], train, test)
}

/// Images and labels that belong together, with the files they came from.
struct Part<'a> {
    images: idx::Images,
    images_path: &'a Path,
    labels: Vec<u8>,
    labels_path: &'a Path,
}

impl<'a> Part<'a> {
    fn new(images: (idx::Images, &'a Path), labels: (Vec<u8>, &'a Path)) -> Result<Part<'a>> {
        let part = Part { images: images.0, images_path: images.1, labels: labels.0, labels_path: labels.1 };
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
        let labels = self.labels.into_iter().map(u32::from).collect();
        Dataset::new(name, source, image, self.images.pixels, labels, class_names)
    }
}

/// Both parts as a data set: one image size, one set of classes.
fn join(name: &str, sources: [String; 2], train: Part, test: Part) -> Result<Data> {
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
    // IDX does not say how many classes there are. The training labels do, if none is left out below the largest;
    // a gap means that a label is damaged or that counting does not start at 0.
    let classes = usize::from(train.labels.iter().copied().max().unwrap_or(0)) + 1;
    if let Some(absent) = (0..classes).find(|&class| !train.labels.contains(&(class as u8))) {
        let at = train.labels.iter().position(|&label| usize::from(label) == classes - 1).unwrap_or(0);
        return Err(Error::file(
            train.labels_path,
            format!(
                "label {} (image {at}) is out of range: labels have to be 0 to classes - 1 without a gap, but no \
                 image is of class {absent}. The file is damaged, or its labels have to be renumbered from 0",
                classes - 1
            ),
        ));
    }
    if classes < 2 {
        return Err(Error::file(
            train.labels_path,
            "all images are of class 0: at least two classes are needed",
        ));
    }
    if let Some(at) = test.labels.iter().position(|&label| usize::from(label) >= classes) {
        return Err(Error::file(
            test.labels_path,
            format!(
                "label {} (image {at}) is out of range: the training images have the classes 0 to {}",
                test.labels[at],
                classes - 1
            ),
        ));
    }
    let class_names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let [train_source, test_source] = sources;
    Ok(Data {
        train: train.dataset(name, train_source, class_names.clone())?,
        test: test.dataset(name, test_source, class_names)?,
    })
}

/// "a, b and c".
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => one.to_string(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
