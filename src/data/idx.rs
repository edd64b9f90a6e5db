//! The IDX format of MNIST and its relatives, read strictly.
//!
//! An IDX file is two zero bytes, the element type (8: unsigned byte), the number of axes, the axes' extents as
//! big-endian u32, and the elements, last axis fastest. Images are `00 00 08 03` with extents \[N, H, W\], labels
//! `00 00 08 01` with extent \[N\]. Either may be packed by gzip, xz or zstd, which is told from the contents, not from the
//! name.
//! Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
//!
//! Nothing a file says is believed before it is seen: no more memory is taken than bytes arrive, no more is inflated
//! than the header promised.

use super::stream::{MOST_BYTES, Stream};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Longest side of an image accepted, in pixels.
const MOST_SIDE: u32 = 1 << 14;

/// Images of one file.
#[derive(Debug, PartialEq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// The pixels, \[count, height, width\], 0 to 255.
    pub pixels: Vec<u8>,
}

/// The four files of a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Images,
    Labels,
}

impl Content {
    fn axes(self) -> usize {
        match self {
            Content::Images => 3,
            Content::Labels => 1,
        }
    }

    fn magic(self) -> [u8; 4] {
        [0, 0, 8, self.axes() as u8]
    }

    fn name(self) -> &'static str {
        match self {
            Content::Images => "images",
            Content::Labels => "labels",
        }
    }
}

/// Read the images in the IDX file `path`, plain or packed.
///
/// # Errors
/// [`Error::Io`] where it cannot be read, [`Error::File`] where it is not exactly a file of images.
pub fn read_images(path: &Path) -> Result<Images> {
    images(Stream::open(path)?, path)
}

/// Read the labels in the IDX file `path`, plain or packed.
///
/// # Errors
/// As [`read_images`].
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    Ok(body(Stream::open(path)?, path, Content::Labels)?.1)
}

/// Images of the bytes `source`, plain or packed; `path` names it in errors.
///
/// # Errors
/// As [`read_images`].
pub fn parse_images(source: &[u8], path: &Path) -> Result<Images> {
    images(Stream::of(source, source.len() as u64, path)?, path)
}

fn images(stream: Stream<'_>, path: &Path) -> Result<Images> {
    let (extents, pixels) = body(stream, path, Content::Images)?;
    let [count, height, width] = [0, 1, 2].map(|axis| extents[axis] as usize);
    Ok(Images { count, height, width, pixels })
}

/// Labels of the bytes `source`, plain or packed; `path` names it in errors.
///
/// # Errors
/// As [`read_images`].
pub fn parse_labels(source: &[u8], path: &Path) -> Result<Vec<u8>> {
    Ok(body(Stream::of(source, source.len() as u64, path)?, path, Content::Labels)?.1)
}

/// Header and elements, from a stream that is no longer compressed.
fn body(mut stream: Stream<'_>, path: &Path, content: Content) -> Result<(Vec<u32>, Vec<u8>)> {
    let refuse = |why: String| Err(Error::file(path, why));
    let unpacked = if stream.packing().is_some() { " after unpacking" } else { "" };

    let length = 4 + 4 * content.axes();
    let header = stream.take(length as u64)?;
    if header.is_empty() {
        return refuse(format!(
            "is empty{unpacked}, but {} in IDX format were expected: download or copy it again",
            content.name()
        ));
    }
    if let Some(found) = foreign(&header, content) {
        return refuse(format!(
            "is not an IDX file of {}: it has to start with the bytes {}{unpacked}, but starts with {} ({found})",
            content.name(),
            hex(&content.magic()),
            hex(&header[..header.len().min(4)]),
        ));
    }
    if header.len() < length {
        return refuse(format!(
            "is cut short in its header: {length} bytes expected{unpacked}, {} found: download or copy it again",
            header.len()
        ));
    }

    let extents: Vec<u32> =
        header[4..].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    if extents[0] == 0 {
        return refuse(format!("says that it holds no {}: download or copy it again", content.name()));
    }
    if let Some(side) = extents[1..].iter().find(|&&side| side == 0 || side > MOST_SIDE) {
        return refuse(format!(
            "says that an image has a side of {side} pixels; 1 to {MOST_SIDE} are taken. Its header is damaged, or \
             it is no data set of images"
        ));
    }
    let promised = extents.iter().try_fold(1u64, |total, &extent| total.checked_mul(extent.into()));
    let Some(promised) = promised.filter(|&total| total <= MOST_BYTES) else {
        return refuse(format!(
            "says that it holds {} {} ({}), more than the {} GiB that are taken. Its header is damaged, or the data \
             set is too large for this program",
            extents[0],
            content.name(),
            describe(&extents),
            MOST_BYTES >> 30,
        ));
    };

    let elements = stream.take(promised + 1)?;
    let found = elements.len() as u64;
    if found < promised {
        return refuse(format!(
            "is cut short: its header promises {} ({promised} bytes{unpacked}), but only {found} bytes follow: \
             download or copy it again",
            describe(&extents),
        ));
    }
    if found > promised {
        return refuse(format!(
            "goes on after the {} that its header promises ({promised} bytes{unpacked}): it is damaged, or two files \
             were joined; download or copy it again",
            describe(&extents),
        ));
    }
    Ok((extents, elements))
}

/// What `header` is the start of, where it is not the start of `content`.
fn foreign(header: &[u8], content: Content) -> Option<String> {
    let known = header.len().min(4);
    if header[..known] == content.magic()[..known] {
        return None;
    }
    let text = String::from_utf8_lossy(header).trim_start().to_lowercase();
    let found = match *header {
        [0, 0, 8, 1, ..] => "these are labels: are the two files swapped?".into(),
        [0, 0, 8, 3, ..] => "these are images: are the two files swapped?".into(),
        [0, 0, 8, axes, ..] => format!(
            "an IDX file with {axes} axes instead of {}: only grey images [N, H, W] and labels [N] are taken",
            content.axes()
        ),
        [0, 0, 9 | 11 | 12 | 13 | 14, ..] => "an IDX file of another element type than unsigned bytes".into(),
        [1 | 3, 8, 0, 0, ..] => "an IDX file in the wrong byte order".into(),
        [0x1f, 0x8b, ..] => "it was gzipped twice: unpack it once".into(),
        [b'P', b'K', ..] => "a zip archive: unpack it".into(),
        [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => "it was packed twice: unpack it once".into(),
        [0x89, b'P', b'N', b'G', ..] => "a PNG picture".into(),
        _ if text.starts_with("<!doc") || text.starts_with("<html") || text.starts_with("<?xml") => {
            "a web page: the download went wrong".into()
        }
        _ => "not a known format: download or copy it again".into(),
    };
    Some(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// "10000 images of 28x28" or "10000 labels".
fn describe(extents: &[u32]) -> String {
    match extents {
        [count, height, width] => format!("{count} images of {height}x{width}"),
        _ => format!("{} labels", extents[0]),
    }
}

/// The file in `folder` that goes by one of the names of `stem` ("train-images-idx3-ubyte"), if there is one.
///
/// The names that archives and programs in use give it: with `-` or `.` before `idx`, plain or packed.
pub fn find(folder: &Path, stem: &str) -> Option<PathBuf> {
    let dotted = stem.replace("-idx", ".idx");
    ["", ".gz", ".xz", ".zst"]
        .into_iter()
        .flat_map(|packing| [format!("{stem}{packing}"), format!("{dotted}{packing}")])
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}
