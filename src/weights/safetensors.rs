//! safetensors files, read and written. The same contents give the same bytes, and a file written here carries the
//! SHA-256 of all it says, so that a flipped bit is an error and not a different result.

use super::dict::{Bytes, DType, Entry, Place, Source, StateDict};
use crate::error::{Error, Result};
use crate::files;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

/// A tensor to be written: name, type, extents, little-endian bytes.
pub(crate) type Written = (String, Dtype, Vec<usize>, Vec<u8>);

/// Metadata key of the SHA-256 of everything else in a file.
const SHA256: &str = "sha256";

/// Opens a safetensors file as a state dict.
pub(super) fn open(mut file: Box<dyn Bytes>, size: u64, path: &Path) -> Result<StateDict> {
    let mut bytes = Vec::new();
    file.by_ref()
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(path, "could not read the weights", e))?;
    let mut entries = Vec::new();
    let (tensors, metadata) = parse(path, &bytes)?;
    for (name, tensor) in tensors.tensors() {
        let dtype = match tensor.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::Other("int64", 8),
            Dtype::I32 => DType::Other("int32", 4),
            Dtype::U8 => DType::Other("uint8", 1),
            Dtype::BOOL => DType::Other("bool", 1),
            // Types of less than a byte are there too: what counts is that they are no numbers of a network here.
            _ => DType::Other("of another type", 0),
        };
        // Row-major; where an extent is 0 there is no element, and strides mean nothing.
        let dims = tensor.shape().to_vec();
        let mut strides = vec![1u64; dims.len()];
        for axis in (1..dims.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(dims[axis] as u64);
        }
        let start = tensor.data().as_ptr().addr() - bytes.as_ptr().addr();
        let place = Place::Slice(start as u64, tensor.data().len() as u64);
        entries.push(Entry { name, dtype, dims, strides, offset: 0, place });
    }
    let model = metadata.get("model").cloned();
    // In the order of the file, which is the network's.
    entries.sort_by_key(|entry| match entry.place {
        Place::Slice(start, _) | Place::Member(_, start) => start,
    });
    let mut dict = StateDict::with(path, "safetensors", entries, Source::Flat(Box::new(Cursor::new(bytes))))?;
    dict.model = model;
    Ok(dict)
}

/// Writes a safetensors file. The library's own writer orders metadata differently in every run.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write(
    path: &Path,
    mut tensors: Vec<Written>,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    // Elements that need the widest alignment first: the data part starts at a multiple of 8.
    tensors.sort_by(|a, b| b.1.bitsize().cmp(&a.1.bitsize()).then_with(|| a.0.cmp(&b.0)));
    let contents = tensors.iter().map(|(name, _, _, bytes)| (name.as_str(), bytes.as_slice())).collect();
    metadata.insert(SHA256.into(), digest(&metadata, contents));
    let mut header = BTreeMap::from([("__metadata__".to_string(), json!(metadata))]);
    let mut end = 0;
    for (name, dtype, dims, bytes) in &tensors {
        let start = end;
        end += bytes.len();
        let entry = json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = json!(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    files::write_atomically_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, _, _, bytes)| file.write_all(bytes))
    })
}

/// SHA-256, in hexadecimal, over metadata and tensors in the order of their names.
fn digest(metadata: &BTreeMap<String, String>, mut tensors: Vec<(&str, &[u8])>) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in metadata.iter().filter(|(key, _)| *key != SHA256) {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    tensors.sort_unstable_by_key(|(name, _)| *name);
    for (name, bytes) in tensors {
        add(name.as_bytes());
        add(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A safetensors file and its metadata. Files of other programs carry no SHA-256, and are taken without.
///
/// # Errors
/// [`Error::File`] when it is damaged or something else.
pub(crate) fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<(SafeTensors<'a>, BTreeMap<String, String>)> {
    let damaged = |why: String| {
        Error::file(
            path,
            format!(
                "is not a whole safetensors file ({why}): it is damaged, or something else; use another copy"
            ),
        )
    };
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    let metadata: BTreeMap<String, String> =
        header.metadata().clone().unwrap_or_default().into_iter().collect();
    if let Some(sha256) = metadata.get(SHA256) {
        let tensors = file.tensors();
        let contents = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.data())).collect();
        if *sha256 != digest(&metadata, contents) {
            return Err(damaged("its contents do not have the SHA-256 it says".into()));
        }
    }
    Ok((file, metadata))
}
