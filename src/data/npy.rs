//! Arrays in NumPy's format (.npy), read strictly; objects (pickles) are never unpacked.
//!
//! The magic bytes, a version, the length of a header, the header (a Python dictionary with the keys descr,
//! fortran_order and shape), and the elements, last axis fastest. Format: NumPy Enhancement Proposal 1.

use super::stream::MOST_BYTES;
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Unsigned,
    Signed,
    Float,
    /// UTF-32.
    Text,
    /// Bytes.
    Latin,
}

/// An array.
#[derive(Debug)]
pub(super) struct Array {
    kind: Kind,
    /// Bytes of an element.
    size: usize,
    /// Whether the first byte of an element is the lowest.
    little: bool,
    /// Extents.
    pub(super) shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Reads one array from `source`, of which no more than `most` bytes are taken; `path` names it in errors.
///
/// # Errors
/// [`Error::File`] where it is not exactly an array of numbers or texts.
pub(super) fn read(source: &mut impl Read, most: u64, path: &Path) -> Result<Array> {
    let refuse = |why: String| Error::file(path, why);
    let damaged =
        |error: std::io::Error| refuse(format!("cannot be unpacked ({error}): download or copy it again"));
    let mut start = [0; 8];
    source.read_exact(&mut start).map_err(damaged)?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(refuse("is not an array in NumPy's format: it does not begin with \\x93NUMPY".into()));
    }
    let wide = match start[6] {
        1 => false,
        2 | 3 => true,
        version => {
            return Err(refuse(format!("is of version {version} of NumPy's format; 1 to 3 are taken")));
        }
    };
    let mut length = [0; 4];
    source.read_exact(&mut length[..if wide { 4 } else { 2 }]).map_err(damaged)?;
    let length = u32::from_le_bytes(length);
    if length > 1 << 16 {
        return Err(refuse(format!("says that its header is {length} bytes long: it is damaged")));
    }
    let mut header = vec![0; length as usize];
    source.read_exact(&mut header).map_err(damaged)?;
    let header = String::from_utf8_lossy(&header);
    let said = format!("has the header `{}`", header.trim().chars().take(120).collect::<String>());
    let descr =
        value(&header, "descr").and_then(|value| value.strip_prefix(['\'', '"'])?.split(['\'', '"']).next());
    let Some((kind, size, little)) = descr.and_then(element) else {
        return Err(refuse(format!(
            "{said}; arrays of numbers, of truth values and of texts are taken. (Objects would be a pickle, which may \
             run any program: they are never read.)"
        )));
    };
    match value(&header, "fortran_order").map(|value| value.starts_with("False")) {
        Some(true) => {}
        _ => {
            return Err(refuse(format!(
                "{said}; only arrays whose last axis is fastest are taken: save np.ascontiguousarray of it"
            )));
        }
    }
    let shape = value(&header, "shape")
        .and_then(extents)
        .ok_or_else(|| refuse(format!("{said}, which has no shape")))?;
    let promised = shape.iter().try_fold(size as u64, |total, &extent| total.checked_mul(extent as u64));
    let Some(promised) = promised.filter(|&promised| promised <= most.min(MOST_BYTES)) else {
        return Err(refuse(format!(
            "is an array of {shape:?} elements of {size} bytes, more than is taken (or than a file of its size can hold)"
        )));
    };
    let mut bytes = Vec::new();
    source.take(promised + 1).read_to_end(&mut bytes).map_err(damaged)?;
    match bytes.len() as u64 {
        found if found < promised => Err(refuse(format!(
            "is cut short: its header promises {shape:?} elements ({promised} bytes), but {found} bytes follow"
        ))),
        found if found > promised => Err(refuse(format!(
            "goes on after the {shape:?} elements that its header promises: it is damaged"
        ))),
        _ => Ok(Array { kind, size, little, shape, bytes }),
    }
}

/// The text after `'key':` in a header.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'"))? + key.len() + 2;
    Some(header[at..].trim_start().strip_prefix(':')?.trim_start())
}

/// Kind, size and order of the elements that "<f4" and the like stand for.
fn element(descr: &str) -> Option<(Kind, usize, bool)> {
    let (order, rest) = descr.split_at_checked(1)?;
    let little = match order {
        "<" | "|" | "=" => true,
        ">" => false,
        _ => return None,
    };
    let (kind, size) = rest.split_at_checked(1)?;
    let size: usize = size.parse().ok().filter(|size| (1..=1 << 16).contains(size))?;
    let kind = match (kind, size) {
        ("b", 1) => Kind::Bool,
        ("u", 1 | 2 | 4 | 8) => Kind::Unsigned,
        ("i", 1 | 2 | 4 | 8) => Kind::Signed,
        ("f", 2 | 4 | 8) => Kind::Float,
        ("U", _) => return Some((Kind::Text, 4 * size, little)),
        ("S", _) => Kind::Latin,
        _ => return None,
    };
    Some((kind, size, little))
}

/// The numbers in "(3, 4)".
fn extents(text: &str) -> Option<Vec<usize>> {
    let inside = text.strip_prefix('(')?.split(')').next()?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().ok()).collect::<Option<Vec<usize>>>().filter(|shape| shape.len() <= 8)
}

impl Array {
    /// Whether it holds unsigned bytes.
    pub(super) fn is_bytes(&self) -> bool {
        (self.kind, self.size) == (Kind::Unsigned, 1)
    }

    /// Whether it holds numbers or truth values.
    pub(super) fn is_numeric(&self) -> bool {
        !matches!(self.kind, Kind::Text | Kind::Latin)
    }

    /// What it holds, in Python's words.
    pub(super) fn describe(&self) -> String {
        let name = match self.kind {
            Kind::Bool => "bool".into(),
            Kind::Unsigned => format!("uint{}", 8 * self.size),
            Kind::Signed => format!("int{}", 8 * self.size),
            Kind::Float => format!("float{}", 8 * self.size),
            Kind::Text | Kind::Latin => "texts".into(),
        };
        format!("{name} {:?}", self.shape)
    }

    /// Bytes that it takes.
    pub(super) fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The elements of an array of unsigned bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The elements as numbers, in order; none for texts.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        let elements = if self.is_numeric() { &self.bytes[..] } else { &[] };
        elements.chunks_exact(self.size).map(|bytes| {
            let mut word = [0; 8];
            let size = bytes.len();
            word[..size].copy_from_slice(bytes);
            if !self.little {
                word[..size].reverse();
            }
            let bits = u64::from_le_bytes(word);
            match (self.kind, size) {
                (Kind::Float, 2) => half::f16::from_bits(bits as u16).to_f64(),
                (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
                (Kind::Float, _) => f64::from_bits(bits),
                (Kind::Signed, _) => {
                    let unused = 64 - 8 * size as u32;
                    ((bits << unused) as i64 >> unused) as f64
                }
                _ => bits as f64,
            }
        })
    }

    /// The elements as texts; `None` for numbers, and where one is no text.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let element = |bytes: &[u8]| match self.kind {
            Kind::Text => {
                let letters = bytes.chunks_exact(4).map(|b| {
                    let word = [b[0], b[1], b[2], b[3]];
                    let code = if self.little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) };
                    char::from_u32(code)
                });
                letters.collect::<Option<String>>()
            }
            Kind::Latin => Some(bytes.iter().map(|&byte| char::from(byte)).collect()),
            _ => None,
        };
        let texts = self.bytes.chunks_exact(self.size).map(element);
        texts.map(|text| Some(text?.trim_end_matches('\0').to_string())).collect()
    }
}
