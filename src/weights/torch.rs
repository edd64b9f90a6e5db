//! What `torch.save` writes: an archive (from PyTorch 1.6 on), or pickles with storages behind them (before).
//!
//! | form | what is read of it |
//! |---|---|
//! | zip | `NAME/data.pkl`: the objects, a pickle; `NAME/data/KEY`: a storage, its elements little-endian; `NAME/byteorder` |
//! | older | pickles of a magic number, a version, facts about the machine, the objects, the keys of storages; then of each in that order how many elements (8 bytes) and the elements |
//!
//! The pickle is read as data ([`super::pickle`]). Members are looked up by name and never written anywhere, so that a
//! path in an archive leads nowhere; torch.save compresses none of them, and here one that is compressed is refused, so
//! that nothing is larger than the file.

use super::dict::{Bytes, Entry, MOST_TENSORS, Place, Source, StateDict};
use super::pickle::{self, Pickle, Storage, Tensor, Value, shown};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::{Read, SeekFrom};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Most bytes of pickle that are read; those of networks have some ten thousand.
const MOST_PICKLE: u64 = 32 << 20;

/// Where a state dict is within a file that holds more, in the order they are looked for. `last` and `best` are of
/// RobustBench's own files.
const USUAL: [&str; 10] = [
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "weights",
    "params",
    "best",
    "last",
];
/// How many of them lead to it at most.
const MOST_OPENED: usize = 4;
/// How many dicts beside it are looked into, and how many keys of those that hold weights are said.
const MOST_DICTS: usize = 64;
const MOST_BESIDE: usize = 4;

/// What to do with a file that is refused.
const AGAIN: &str =
    "If you trust it, load it in PyTorch and save the weights alone: torch.save(model.state_dict(), FILE)";

/// Instruction and bytes of the magic number that files of the older form begin with, behind the protocol.
const MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Opens the archive that PyTorch writes.
pub(super) fn archive(file: Box<dyn Bytes>, size: u64, path: &Path, open: &str) -> Result<StateDict> {
    let damaged = |why: String| Error::file(path, format!("is no whole .pt file ({why}): use another copy"));
    let mut zip = ZipArchive::new(file).map_err(|error| damaged(error.to_string()))?;
    if zip.has_duplicate_names() {
        return Err(damaged("two of its members have one name".into()));
    }
    let mut roots: Vec<String> = zip
        .file_names()
        .flatten()
        .filter_map(|name| name.strip_suffix("data.pkl").map(String::from))
        .filter(|root| root.ends_with('/') && root.matches('/').count() == 1)
        .collect();
    let (Some(root), true) = (roots.pop(), roots.is_empty()) else {
        let why = "is a zip archive, but not of torch.save: it has not one member NAME/data.pkl. Give the file that \
                   torch.save(model.state_dict(), FILE) writes";
        return Err(Error::file(path, why));
    };
    if let Some(order) = member(&mut zip, &format!("{root}byteorder"), size, path)? {
        let order = contents(&mut zip, order, 16, path)?;
        if order.trim_ascii() != b"little" {
            return Err(big_endian(path));
        }
    }
    let at = member(&mut zip, &format!("{root}data.pkl"), size, path)?;
    let at = at.ok_or_else(|| damaged("no data.pkl".into()))?;
    let bytes = contents(&mut zip, at, MOST_PICKLE, path)?;
    let pickle = pickle::read(&bytes).map_err(|why| refused(path, &why))?;
    let Found { tensors, opened, beside } = state_dict(&pickle, path, open)?;
    let mut places: HashMap<String, Place> = HashMap::new();
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let storage = &tensor.storage;
        let place = match places.get(&storage.key) {
            Some(place) => place.clone(),
            None => {
                let inside = format!("{root}data/{}", storage.key);
                let at = member(&mut zip, &inside, size, path)?.ok_or_else(|| {
                    damaged(format!("`{}` lies in `{}`, which is not there", shown(name), shown(&inside)))
                })?;
                let place = Place::Member(at.0, at.1);
                places.insert(storage.key.clone(), place.clone());
                place
            }
        };
        if bytes_of(storage) != Some(place.len()) {
            return Err(lying(path, storage, place.len()));
        }
        entries.push(entry(name, tensor, place));
    }
    let mut dict = StateDict::with(path, "PyTorch", entries, Source::Zip(Box::new(zip)))?;
    (dict.opened, dict.beside) = (opened, beside);
    Ok(dict)
}

/// Opens the form that PyTorch wrote before 1.6, and still does on request.
pub(super) fn legacy(mut file: Box<dyn Bytes>, size: u64, path: &Path, open: &str) -> Result<StateDict> {
    let io = |error| Error::io(path, "could not read the weights", error);
    let mut bytes = Vec::new();
    file.by_ref().take(MOST_PICKLE).read_to_end(&mut bytes).map_err(io)?;
    if bytes.get(2..14) != Some(&MAGIC[..]) {
        let why = "is a pickle, but not of torch.save, and nothing else is taken";
        return Err(Error::file(path, format!("{why}. {AGAIN}")));
    }
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::read(&bytes[at..]).map_err(|why| refused(path, &why))?;
        at += pickle.length;
        Ok::<Pickle, Error>(pickle)
    };
    let (_magic, version, machine, objects, keys) = (next()?, next()?, next()?, next()?, next()?);
    if !matches!(version.root(), Value::Int(1001)) {
        return Err(Error::file(path, format!("is of another version of torch.save than 1001. {AGAIN}")));
    }
    if let Value::Dict(facts) = machine.root()
        && machine.entries(facts).any(|fact| matches!(fact, ("little_endian", Value::Int(0))))
    {
        return Err(big_endian(path));
    }
    let Found { tensors, opened, beside } = state_dict(&objects, path, open)?;
    let Value::List(keys_of) = keys.root() else {
        return Err(refused(path, "the keys of its storages are no list"));
    };
    // All storages of the file, also those of what lies beside the state dict: each is stepped over.
    let storages: HashMap<&str, &Storage> =
        objects.storages().map(|storage| (storage.key.as_str(), storage)).collect();
    let mut places = HashMap::new();
    let mut start = at as u64;
    for &key in keys_of {
        let storage = match keys.get(key) {
            Value::Text(key) => storages.get(key.as_str()),
            _ => None,
        };
        let storage = *storage.ok_or_else(|| refused(path, "a storage follows that nothing names"))?;
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut count)).map_err(|_| {
            Error::file(path, "is cut short: not all of its storages are there. Use another copy")
        })?;
        let len = bytes_of(storage).filter(|&len| len <= size.saturating_sub(start + 8));
        let len = len.filter(|_| u64::from_le_bytes(count) == storage.count);
        let len = len.ok_or_else(|| lying(path, storage, size.saturating_sub(start + 8)))?;
        places.insert(storage.key.as_str(), Place::Slice(start + 8, len));
        start += 8 + len;
    }
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let place = places.get(tensor.storage.key.as_str()).cloned();
        let place = place
            .ok_or_else(|| refused(path, &format!("the storage of `{}` is not in the file", shown(name))))?;
        // Two storages of one key could be of different lengths.
        if bytes_of(&tensor.storage) != Some(place.len()) {
            return Err(lying(path, &tensor.storage, place.len()));
        }
        entries.push(entry(name, tensor, place));
    }
    let mut dict = StateDict::with(path, "PyTorch", entries, Source::Flat(file))?;
    (dict.opened, dict.beside) = (opened, beside);
    Ok(dict)
}

/// A member of the archive: which, and how many bytes it has, where it is not compressed and no larger than the file.
fn member(
    zip: &mut ZipArchive<Box<dyn Bytes>>,
    name: &str,
    size: u64,
    path: &Path,
) -> Result<Option<(usize, u64)>> {
    let Some(at) = zip.index_for_name(name) else { return Ok(None) };
    let refuse = |why: &str| Err(Error::file(path, format!("its member `{}` {why}", shown(name))));
    match zip.by_index_data(at) {
        Ok(about) if about.encrypted() => refuse("is encrypted"),
        Ok(about) if about.compression() != CompressionMethod::Stored => refuse(
            "is compressed, which torch.save does to none; small files that unpack to enormous ones are made so. If you \
             trust it, load it in PyTorch and save it again",
        ),
        Ok(about) if about.size() > size || about.size() != about.compressed_size() => refuse(&format!(
            "is said to have {} bytes, but the file has {size}: it is damaged, or was made to mislead",
            about.size()
        )),
        Ok(about) => Ok(Some((at, about.size()))),
        Err(error) => refuse(&format!("cannot be read ({error}): use another copy")),
    }
}

/// The contents of a member of at most so many bytes.
fn contents(
    zip: &mut ZipArchive<Box<dyn Bytes>>,
    (at, len): (usize, u64),
    most: u64,
    path: &Path,
) -> Result<Vec<u8>> {
    if len > most {
        let why = format!("has a pickle of {len} bytes, but at most {most} are taken. {AGAIN}");
        return Err(Error::file(path, why));
    }
    let mut bytes = Vec::new();
    let read = zip.by_index(at).map_err(std::io::Error::from);
    let read = read.and_then(|member| member.take(len.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 == len => Ok(bytes),
        Ok(_) => Err(Error::file(path, "is cut short: use another copy")),
        Err(error) => Err(Error::file(path, format!("is damaged ({error}): use another copy"))),
    }
}

/// What was found of a state dict within the objects of a file.
struct Found<'a> {
    /// Its tensors by name.
    tensors: Vec<(&'a str, &'a Tensor)>,
    /// The keys that led there.
    opened: Vec<String>,
    /// Keys beside those, whose dicts hold weights too.
    beside: Vec<String>,
}

/// A state dict as it stands in a pickle.
type Entries = [(pickle::Id, pickle::Id)];

/// Tensors of a dict, by name.
fn tensors<'a>(pickle: &'a Pickle, dict: &'a Entries) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
    pickle.entries(dict).filter_map(|(name, value)| match value {
        Value::Tensor(tensor) => Some((name, tensor.as_ref())),
        _ => None,
    })
}

/// How many tensors of a dict could be weights: floats with an axis. An accuracy that stands beside a state dict has no
/// axis, the state of a random generator is bytes.
fn weights(pickle: &Pickle, dict: &Entries) -> usize {
    let could = |tensor: &Tensor| tensor.dtype.is_float() && !tensor.dims.is_empty();
    // No more than a state dict may have: a hostile pickle can name one large dict again and again.
    tensors(pickle, &dict[..dict.len().min(MOST_TENSORS)]).filter(|(_, tensor)| could(tensor)).count()
}

/// The state dict within the objects of a file: where the keys of `open` lead, or where one usually is. Where both a dict
/// and one of its usual keys hold tensors, it is the one with more weights: others save a tensor or two beside.
fn state_dict<'a>(pickle: &'a Pickle, path: &Path, open: &str) -> Result<Found<'a>> {
    let (mut opened, mut beside): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut value = pickle.root();
    let mut asked = open.split('.').filter(|key| !key.is_empty());
    loop {
        let Value::Dict(dict) = value else {
            let what = match value {
                Value::Tensor(_) => "a single tensor",
                Value::List(_) => "a list",
                _ => "no dict",
            };
            return Err(Error::file(path, format!("holds {what}, but a state dict is needed. {AGAIN}")));
        };
        let entry = |key: &str| pickle.entries(dict).filter(|(have, _)| *have == key).last();
        let mut holding: Vec<&str> = Vec::new();
        let next = match asked.next() {
            Some(key) => entry(key),
            None => {
                let usual = USUAL.iter().filter_map(|key| match entry(key)? {
                    (key, value @ Value::Dict(inside)) => {
                        // One step further in, for what is nested twice.
                        let further = pickle.entries(inside).filter_map(|(key, value)| match value {
                            Value::Dict(further) if USUAL.contains(&key) => Some(weights(pickle, further)),
                            _ => None,
                        });
                        let most = further.take(USUAL.len()).max().unwrap_or(0);
                        Some((key, value, most.max(weights(pickle, inside))))
                    }
                    _ => None,
                });
                let usual: Vec<(&str, &Value, usize)> = usual.collect();
                let here = weights(pickle, dict);
                let inside = usual.iter().find(|(_, _, count)| *count >= here.max(1));
                let inside = inside.or(if here == 0 { usual.first() } else { None });
                let dicts = pickle.entries(dict).filter_map(|(key, value)| match value {
                    Value::Dict(dict) => Some((key, dict)),
                    _ => None,
                });
                let holds = |(key, dict): (_, &Vec<_>)| (weights(pickle, dict) > 0).then_some(key);
                holding = dicts.take(MOST_DICTS).filter_map(holds).collect();
                match inside {
                    Some(&(key, value, _)) => Some((key, value)),
                    // What lies beside a dict of weights under an unusual key is no state dict.
                    None if here == 0 && !holding.is_empty() => None,
                    None => {
                        let tensors: Vec<_> = tensors(pickle, dict).take(MOST_TENSORS + 1).collect();
                        if !tensors.is_empty() {
                            return Ok(Found { tensors, opened, beside });
                        }
                        None
                    }
                }
            }
        };
        let Some((key, inside)) = next.filter(|_| opened.len() < MOST_OPENED) else {
            let mut have: Vec<String> = pickle.entries(dict).take(20).map(|(key, _)| shown(key)).collect();
            have.dedup();
            let within =
                if opened.is_empty() { String::new() } else { format!(" in `{}`", opened.join(".")) };
            let why = format!(
                "has no state dict where one usually is ({}){within}; the keys there are {}. Say where it is by `open` in \
                 a file of names (--weights-names), as open = \"ema.state_dict\"",
                USUAL.join(", "),
                if have.is_empty() { "none".into() } else { have.join(", ") }
            );
            return Err(Error::file(path, why));
        };
        let within = opened.iter().map(|key| format!("{key}.")).collect::<String>();
        let others = holding.iter().filter(|other| **other != key).take(MOST_BESIDE);
        beside.extend(others.map(|other| format!("{within}{}", shown(other))));
        opened.push(shown(key));
        value = inside;
    }
}

fn entry(name: &str, tensor: &Tensor, place: Place) -> Entry {
    Entry {
        name: name.to_string(),
        dtype: tensor.dtype,
        dims: tensor.dims.clone(),
        strides: tensor.strides.clone(),
        offset: tensor.offset,
        place,
    }
}

/// Bytes of a storage, as its pickle says.
fn bytes_of(storage: &Storage) -> Option<u64> {
    storage.count.checked_mul(storage.dtype.bytes() as u64)
}

fn refused(path: &Path, why: &str) -> Error {
    Error::file(path, format!("is not read: {why}. {AGAIN}"))
}

fn big_endian(path: &Path) -> Error {
    let why = "was saved by a machine that puts the most significant byte first, which is not taken: save it again on \
               another";
    Error::file(path, why)
}

fn lying(path: &Path, storage: &Storage, have: u64) -> Error {
    let (count, dtype) = (storage.count, storage.dtype);
    let why = format!(
        "says that storage `{}` holds {count} numbers of {dtype}, but there are {have} bytes: it is cut short, damaged, \
         or was made to mislead",
        storage.key
    );
    Error::file(path, why)
}
