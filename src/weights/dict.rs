//! A state dict in a file: names, extents and types at once, numbers only as they are asked for.
//!
//! So memory goes by what the network needs and by what the file holds, never by what the file says: a tensor is made
//! after its extents were found to be the parameter's, from a storage that was found to be as long as it claims.

use super::{pickle, safetensors, torch};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Most tensors of a file; the largest networks have some thousand.
pub(super) const MOST_TENSORS: usize = 1 << 15;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32 bits: what all others become.
    F32,
    /// 64 bits.
    F64,
    /// 16 bits, IEEE 754.
    F16,
    /// 16 bits, the upper half of an f32.
    BF16,
    /// No floating point: its name, and bytes an element.
    Other(&'static str, u8),
}

impl DType {
    /// Bytes of an element.
    pub(super) fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::F16 | DType::BF16 => 2,
            DType::Other(_, bytes) => usize::from(bytes),
        }
    }

    pub(super) fn is_float(self) -> bool {
        !matches!(self, DType::Other(..))
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Other(name, _) => name,
        })
    }
}

/// Where the elements of a storage are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// So many bytes of the file from this one on.
    Slice(u64, u64),
    /// A member of the archive, and how many bytes it has.
    Member(usize, u64),
}

impl Place {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        match *self {
            Place::Slice(_, len) | Place::Member(_, len) => len,
        }
    }
}

/// A tensor of a file: a view of a storage, counted in elements.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<u64>,
    pub(super) offset: u64,
    pub(super) place: Place,
}

impl Entry {
    /// Elements, where the view lies within its storage.
    fn check(&self) -> std::result::Result<(), String> {
        let count = self.dims.iter().try_fold(1usize, |all, &extent| all.checked_mul(extent));
        if count == Some(0) {
            return Ok(());
        }
        let far = self.dims.iter().zip(&self.strides).try_fold(self.offset, |far, (&extent, &stride)| {
            far.checked_add((extent as u64 - 1).checked_mul(stride)?)
        });
        let end = far.and_then(|far| far.checked_add(1)?.checked_mul(self.dtype.bytes() as u64));
        match (count, end) {
            (Some(_), Some(end)) if end <= self.place.len() => Ok(()),
            _ => Err(format!(
                "`{}` is said to be {} {:?}, but its storage has {} bytes, which do not hold that: the file is \
                 damaged, or was made to mislead",
                pickle::shown(&self.name),
                self.dtype,
                self.dims,
                self.place.len()
            )),
        }
    }
}

/// What files are read through.
pub trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// A file that numbers are read from.
pub(super) enum Source {
    /// As it is.
    Flat(Box<dyn Bytes>),
    /// An archive, its members not compressed.
    Zip(Box<ZipArchive<Box<dyn Bytes>>>),
}

/// A state dict in a file: names, extents and types. Its numbers are read as they are asked for.
pub struct StateDict {
    pub(super) path: PathBuf,
    pub(super) format: &'static str,
    pub(super) model: Option<String>,
    pub(super) opened: Vec<String>,
    pub(super) beside: Vec<String>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    source: Source,
    // The storage that was read last: tensors that share one often follow each other.
    last: Option<(Place, Vec<u8>)>,
}

impl StateDict {
    /// Opens a file of weights; what it is, safetensors or PyTorch's `.pt` and `.pth`, is told from its contents. Of a
    /// file that holds more than a state dict, `open` says where it is, as "ema.state_dict"; empty looks where it
    /// usually is.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] when it is neither, damaged, or would have something run.
    pub fn open(path: &Path, open: &str) -> Result<StateDict> {
        let refuse = |error| Error::io(path, "could not read the weights", error);
        let file = File::open(path).map_err(refuse)?;
        if !file.metadata().map_err(refuse)?.is_file() {
            let why = "is no file, but a folder or a device: give a file of weights, or the folder of a run";
            return Err(Error::file(path, why));
        }
        StateDict::of(Box::new(BufReader::with_capacity(1 << 16, file)), path, open)
    }

    /// As [`StateDict::open`], of the bytes of a file; `path` names it in errors.
    ///
    /// # Errors
    /// As [`StateDict::open`].
    pub fn of(mut file: Box<dyn Bytes>, path: &Path, open: &str) -> Result<StateDict> {
        let refuse = |error| Error::io(path, "could not read the weights", error);
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(refuse)?;
        let size = file.seek(SeekFrom::End(0)).map_err(refuse)?;
        file.rewind().map_err(refuse)?;
        let wrong = |why: String| Error::file(path, why);
        match &start[..] {
            [b'P', b'K', 3, 4, ..] => torch::archive(file, size, path, open),
            // Eight bytes of length and a header of JSON. A length may well begin as a pickle does: it is a multiple of 8,
            // so that of one file in 32 the first byte is 0x80, and that of 640 bytes is 0x80, 2. No pickle goes on like this.
            [_, _, _, _, _, _, 0, 0, b'{', ..] => safetensors::open(file, size, path),
            // PROTO and a protocol.
            [0x80, 2..=5, ..] => torch::legacy(file, size, path, open),
            // A tar header begins with a name, of which any byte but the first may be 0, as safetensors has them.
            start if start.starts_with(b"\x89HDF") || start.get(257..262) == Some(b"ustar") => Err(wrong(
                "is a tar archive or HDF5: neither safetensors nor what torch.save writes today. Load it with what wrote \
                 it, and save its state dict again"
                    .into(),
            )),
            [_, _, _, _, _, _, 0, 0, ..] => safetensors::open(file, size, path),
            _ => Err(wrong(
                "is neither safetensors nor a .pt or .pth file of torch.save: it is damaged, or something else".into(),
            )),
        }
    }

    /// A state dict of these tensors, in this order; the last of equal names is taken.
    pub(super) fn with(
        path: &Path,
        format: &'static str,
        entries: Vec<Entry>,
        source: Source,
    ) -> Result<StateDict> {
        if entries.len() > MOST_TENSORS {
            let why = format!("holds {} tensors, but at most {MOST_TENSORS} are taken", entries.len());
            return Err(Error::file(path, why));
        }
        let mut index = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            entry.check().map_err(|why| Error::file(path, why))?;
            index.insert(entry.name.clone(), at);
        }
        Ok(StateDict {
            path: path.to_path_buf(),
            format,
            model: None,
            opened: Vec::new(),
            beside: Vec::new(),
            entries,
            index,
            source,
            last: None,
        })
    }

    /// What it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// "safetensors" or "PyTorch".
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// The architecture that its metadata name, as files written here do.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The keys that led to it in a file that holds more, outermost first.
    pub fn opened(&self) -> &[String] {
        &self.opened
    }

    /// Keys of other dicts of weights beside those, as "ema": what `open` would have to say for them.
    pub fn beside(&self) -> &[String] {
        &self.beside
    }

    /// Names of its tensors with their extents, in PyTorch's layout and in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let last = |(at, entry): &(usize, &Entry)| self.index.get(&entry.name) == Some(at);
        let tensors = self.entries.iter().enumerate().filter(last);
        tensors.map(|(_, entry)| (entry.name.as_str(), entry.dims.as_slice()))
    }

    /// Extents and type of a tensor.
    pub fn get(&self, name: &str) -> Option<(&[usize], DType)> {
        let entry = &self.entries[*self.index.get(name)?];
        Some((&entry.dims, entry.dtype))
    }

    /// The elements of a tensor, row-major, as f32. (Its extents should be known to be good: they say how many.)
    ///
    /// # Errors
    /// [`Error::File`] with no such tensor, one of whole numbers, one with NaN or an infinity; [`Error::Io`].
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let refuse =
            |path: &Path, why: &str| Err(Error::file(path, format!("`{}` {why}", pickle::shown(name))));
        let Some(&at) = self.index.get(name) else { return refuse(&self.path, "is missing") };
        let entry = self.entries[at].clone();
        if !entry.dtype.is_float() {
            let why = format!("is {}, but f32, f64, f16 or bf16 is needed", entry.dtype);
            return refuse(&self.path, &why);
        }
        let bytes = self.storage(&entry)?;
        let values = elements(&entry, bytes);
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            let why =
                format!("has an element that is {bad} in f32: such weights are no network's, use others");
            return refuse(&self.path, &why);
        }
        Ok(values)
    }

    /// The bytes of the storage of an entry.
    fn storage(&mut self, entry: &Entry) -> Result<&[u8]> {
        if self.last.as_ref().is_none_or(|(place, _)| *place != entry.place) {
            let bytes = read_storage(&mut self.source, &entry.place).map_err(|error| {
                let why = format!("the numbers of `{}` cannot be read ({error})", pickle::shown(&entry.name));
                Error::file(&self.path, format!("{why}: it is damaged or cut short, use another copy"))
            })?;
            self.last = Some((entry.place.clone(), bytes));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

/// The bytes of a storage. How many there are was held against the size of the file when it was opened.
fn read_storage(source: &mut Source, place: &Place) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match (source, place) {
        (Source::Flat(file), Place::Slice(start, len)) => {
            file.seek(SeekFrom::Start(*start))?;
            file.take(*len).read_to_end(&mut bytes)?;
        }
        (Source::Zip(zip), Place::Member(at, len)) => {
            // To the very end, where the checksum is held against the contents.
            zip.by_index(*at)?.take(len.saturating_add(1)).read_to_end(&mut bytes)?;
        }
        _ => {}
    }
    if bytes.len() as u64 == place.len() {
        Ok(bytes)
    } else {
        Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("{} bytes, but {} were said to be there", bytes.len(), place.len()),
        ))
    }
}

/// The elements of a view, row-major. Its entry has been checked: it lies within its storage.
fn elements(entry: &Entry, storage: &[u8]) -> Vec<f32> {
    let width = entry.dtype.bytes();
    let count: usize = entry.dims.iter().product();
    let at = |index: u64| index as usize * width;
    let contiguous = {
        let mut want = 1;
        entry.dims.iter().zip(&entry.strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == want;
            want *= extent as u64;
            fits
        })
    };
    if count == 0 {
        return Vec::new();
    }
    let start = at(entry.offset);
    if contiguous {
        let bytes = &storage[start..start + count * width];
        return bytes.chunks_exact(width).map(|bytes| float(entry.dtype, bytes)).collect();
    }
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0usize; entry.dims.len()];
    let mut place = entry.offset;
    loop {
        let start = at(place);
        values.push(float(entry.dtype, &storage[start..start + width]));
        let mut axis = entry.dims.len();
        loop {
            if axis == 0 {
                return values;
            }
            axis -= 1;
            index[axis] += 1;
            place += entry.strides[axis];
            if index[axis] < entry.dims[axis] {
                break;
            }
            place -= entry.strides[axis] * entry.dims[axis] as u64;
            index[axis] = 0;
        }
    }
}

/// An element, from its little-endian bytes.
fn float(dtype: DType, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
        (DType::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).to_f32(),
        (DType::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).to_f32(),
        _ => f32::NAN,
    }
}
