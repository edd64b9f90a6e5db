//! Folders of pictures: train/CLASS/NAME.png or .jpg, and the same under test (or val).
//!
//! Pictures become bytes of one size: as they are where all are of one size, else their shorter side is resized to the
//! size asked for (bilinear, with anti-aliasing) and the middle is cut out. All are grey, or all have three channels: grey
//! ones among coloured ones become coloured. Transparency is dropped and 16 bits become 8, as torchvision's
//! `convert("RGB")` does; a camera's orientation (EXIF) is not applied, as it does not either.
//!
//! What a picture says of its size is held against limits before anything is unpacked.

use super::stream::MOST_BYTES;
use super::{Data, Dataset, folder_name, list};
use crate::{Error, Result};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::{Path, PathBuf};

/// Longest side and most pixels of a picture.
const MOST_SIDE: u32 = 1 << 14;
const MOST_PIXELS: u64 = 1 << 26;

/// Most bytes that a decoder may take for itself.
const MOST_MEMORY: u64 = 1 << 29;

/// Most pictures of a part: ImageNet-21k has 14 million.
const MOST_PICTURES: usize = 1 << 24;

/// Names that the test part goes by.
const TEST: [&str; 4] = ["test", "val", "valid", "validation"];

/// Whether a folder with these entries holds pictures.
pub(super) fn is_here(entries: &[PathBuf]) -> bool {
    entries.iter().any(|path| path.is_dir() && path.file_name().is_some_and(|name| name == "train"))
}

/// An encoded picture.
pub(super) enum Picture {
    /// A file of its own.
    File(PathBuf),
    /// The contents of one, with where they are from.
    #[cfg_attr(
        not(feature = "parquet"),
        expect(dead_code, reason = "pictures inside of other files are parquet's")
    )]
    Bytes(Vec<u8>, PathBuf),
}

impl Picture {
    /// Where it is, for errors.
    fn path(&self) -> &Path {
        match self {
            Picture::File(path) | Picture::Bytes(_, path) => path,
        }
    }

    /// Bytes that it takes in memory.
    #[cfg(feature = "parquet")]
    pub(super) fn len(&self) -> u64 {
        match self {
            Picture::File(_) => 0,
            Picture::Bytes(bytes, _) => bytes.len() as u64,
        }
    }

    fn reader(&self) -> Result<ImageReader<Box<dyn BufReadSeek + '_>>> {
        let open = |error| Error::io(self.path(), "could not open the picture", error);
        let source: Box<dyn BufReadSeek> = match self {
            Picture::File(path) => Box::new(BufReader::new(File::open(path).map_err(open)?)),
            Picture::Bytes(bytes, _) => Box::new(Cursor::new(&bytes[..])),
        };
        // By contents, whatever the name says.
        ImageReader::new(source).with_guessed_format().map_err(open)
    }
}

/// What decoders read from.
trait BufReadSeek: BufRead + Seek {}

impl<T: BufRead + Seek> BufReadSeek for T {}

/// Pictures of a part, with their classes.
#[derive(Default)]
pub(super) struct Part {
    pub(super) files: Vec<Picture>,
    pub(super) labels: Vec<u32>,
}

/// What the header of a picture says.
#[derive(Clone, Copy, PartialEq)]
struct Header {
    width: u32,
    height: u32,
    grey: bool,
}

/// Load the pictures in `folder`, resized to `size` by `size` pixels; 0 takes them as they are.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] for the first that is no picture, is cut short, or is of
/// another size, and where a part or a class is missing.
pub(super) fn load(folder: &Path, size: usize) -> Result<Data> {
    let train = folder.join("train");
    let Some(test) = TEST.iter().map(|name| folder.join(name)).find(|path| path.is_dir()) else {
        let why = format!("has a folder train, but none for testing: it is called {}", TEST.join(", or "));
        return Err(Error::file(folder, why));
    };
    let classes = entries(&train)?;
    if let Some(file) = classes.iter().find(|path| !path.is_dir()) {
        return Err(Error::file(
            file,
            "is not a folder: train holds a folder for each class, and those the pictures",
        ));
    }
    if classes.len() < 2 {
        return Err(Error::file(&train, format!("holds {} classes; at least two are needed", classes.len())));
    }
    let class_names: Vec<String> = classes.iter().map(|path| name(path)).collect();
    for path in entries(&test)? {
        if !class_names.contains(&name(&path)) {
            let some: Vec<&str> = class_names.iter().take(20).map(String::as_str).collect();
            return Err(Error::file(&path, format!("is none of the classes to train on: {}", list(&some))));
        }
    }
    let parts = [part(&train, &class_names)?, part(&test, &class_names)?];
    let source = format!("the pictures in {}", folder.display());
    dataset(&folder_name(folder), &source, parts, class_names, size)
}

/// The data set of these pictures, from `source`.
///
/// # Errors
/// As [`load`].
pub(super) fn dataset(
    name: &str,
    source: &str,
    [train, test]: [Part; 2],
    class_names: Vec<String>,
    size: usize,
) -> Result<Data> {
    let headers = [headers(&train)?, headers(&test)?];
    let image = extents([&train, &test], &headers, size)?;
    let dataset = |which: &str, part: Part| {
        let resized = if size > 0 { format!(", resized to {size}x{size}") } else { String::new() };
        let source = format!("{which} part of {source}{resized}");
        let pixels = pixels(&part, image, size > 0)?;
        Dataset::new(name, source, image, pixels, part.labels, class_names.clone())
    };
    Ok(Data { train: dataset("training", train)?, test: dataset("test", test)? })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a folder holds, sorted, without what is hidden.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let refuse = |error| Error::io(folder, "could not list the folder of pictures", error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if !name(&path).starts_with('.') {
            found.push(path);
        }
        if found.len() > MOST_PICTURES {
            return Err(Error::file(folder, format!("holds more than {MOST_PICTURES} files")));
        }
    }
    found.sort();
    Ok(found)
}

fn part(folder: &Path, class_names: &[String]) -> Result<Part> {
    let mut part = Part { files: Vec::new(), labels: Vec::new() };
    for (label, class) in class_names.iter().enumerate() {
        let class = folder.join(class);
        if !class.is_dir() {
            continue;
        }
        for file in entries(&class)? {
            let ending = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if !["png", "jpg", "jpeg"].contains(&ending.as_str()) || !file.is_file() {
                return Err(Error::file(
                    &file,
                    "is no picture: .png, .jpg and .jpeg are taken. Move it away",
                ));
            }
            part.files.push(Picture::File(file));
            part.labels.push(label as u32);
        }
        if part.files.len() > MOST_PICTURES {
            return Err(Error::file(folder, format!("holds more than {MOST_PICTURES} pictures")));
        }
    }
    match part.files.is_empty() {
        true => Err(Error::file(folder, "holds no pictures")),
        false => Ok(part),
    }
}

/// A decoder of the picture, which has been held against the limits, and what its header says.
fn decoder(picture: &Picture) -> Result<(impl ImageDecoder + '_, Header)> {
    let path = picture.path();
    let refuse = |error: image::ImageError| {
        Error::file(path, format!("is no whole PNG or JPEG picture ({error}): download or copy it again"))
    };
    let mut reader = picture.reader()?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        _ => return Err(Error::file(path, "is no PNG or JPEG picture, whatever its name says")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MOST_SIDE);
    limits.max_image_height = Some(MOST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if !(1..=MOST_PIXELS).contains(&pixels) || decoder.total_bytes() > MOST_MEMORY {
        let why =
            format!("says that it has {width}x{height} pixels; 1 to {} million are taken", MOST_PIXELS >> 20);
        return Err(Error::file(path, why));
    }
    let grey = !decoder.color_type().has_color();
    Ok((decoder, Header { width, height, grey }))
}

fn headers(part: &Part) -> Result<Vec<Header>> {
    part.files.par_iter().map(|picture| Ok(decoder(picture)?.1)).collect()
}

/// Height, width and channels that all pictures are to have.
fn extents(parts: [&Part; 2], headers: &[Vec<Header>; 2], size: usize) -> Result<[usize; 3]> {
    let all = || parts.iter().zip(headers).flat_map(|(part, headers)| part.files.iter().zip(headers));
    let Some((first, header)) = all().next() else {
        return Err(Error::Unsupported("a data set without pictures".into()));
    };
    let channels = if all().all(|(_, header)| header.grey) { 1 } else { 3 };
    let (height, width) = match size {
        0 => (header.height as usize, header.width as usize),
        size => (size, size),
    };
    if size == 0
        && let Some((path, other)) = all().find(|(_, h)| (h.width, h.height) != (header.width, header.height))
    {
        let path = path.path();
        let why = format!(
            "has {}x{} pixels, but {} has {}x{}: say to what size pictures are to be resized, as --image-size 64",
            other.width,
            other.height,
            first.path().display(),
            header.width,
            header.height
        );
        return Err(Error::file(path, why));
    }
    for part in parts {
        let bytes = (part.files.len() as u64).saturating_mul((height * width * channels) as u64);
        if bytes > MOST_BYTES {
            let why = format!(
                "{} pictures of {height}x{width}x{channels} are more than the {} GiB that are taken: use a smaller size",
                part.files.len(),
                MOST_BYTES >> 30
            );
            return Err(Error::argument("image size", size, why));
        }
    }
    Ok([height, width, channels])
}

/// The pictures' bytes \[N, H, W, C\].
fn pixels(part: &Part, [h, w, c]: [usize; 3], resize: bool) -> Result<Vec<u8>> {
    let mut all = vec![0; part.files.len() * h * w * c];
    all.par_chunks_exact_mut(h * w * c).zip(&part.files).try_for_each(|(out, file)| {
        let path = file.path();
        let decoder = decoder(file)?.0;
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| {
            Error::file(path, format!("is cut short or damaged ({error}): download or copy it again"))
        })?;
        // To the channels wanted first: resizing then mixes no transparency into colours.
        picture = match c {
            1 => DynamicImage::ImageLuma8(picture.into_luma8()),
            _ => DynamicImage::ImageRgb8(picture.into_rgb8()),
        };
        if resize {
            picture = middle(&picture, h as u32);
        }
        let bytes = picture.as_bytes();
        if bytes.len() != out.len() {
            return Err(Error::file(path, "was changed while it was read"));
        }
        out.copy_from_slice(bytes);
        Ok(())
    })?;
    Ok(all)
}

/// The middle of the picture whose shorter side is resized to `size`.
fn middle(picture: &DynamicImage, size: u32) -> DynamicImage {
    let (width, height) = (u64::from(picture.width()), u64::from(picture.height()));
    let shorter = width.min(height);
    // The longer side as torchvision rounds it: down, and no shorter than the other.
    let scaled = |side: u64| ((side * u64::from(size) / shorter) as u32).max(size);
    let resized = picture.resize_exact(scaled(width), scaled(height), FilterType::Triangle);
    let (left, top) = ((resized.width() - size) / 2, (resized.height() - size) / 2);
    resized.crop_imm(left, top, size, size)
}
