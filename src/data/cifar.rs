//! Records of a label and a colour image of 32 by 32 pixels: CIFAR-10 and CIFAR-100 in their official binary form, as the
//! folder or as the archive, and what else comes as such records, as the German traffic signs do.
//!
//! A record is the label, one byte, and 3072 bytes: 32 rows of 32 pixels of red, then of green, then of blue. CIFAR-100
//! has two labels, of the 20 coarse classes and of the 100 fine ones, which are the ones used. Format: Krizhevsky 2009,
//! "Learning Multiple Layers of Features from Tiny Images".
//!
//! Of an archive, members are read into memory by the last part of their names; nothing is unpacked onto the disk.

use super::stream::{self, Stream};
use super::{Data, Dataset, folder_name, list, names};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Extents of an image.
const IMAGE: [usize; 3] = [32, 32, 3];
const PIXELS: usize = 32 * 32 * 3;

/// The files of CIFAR-10; those of CIFAR-100 and others are `train.bin` and `test.bin`.
const CIFAR10: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// A file of the data set, in a folder or in an archive.
struct Member {
    /// What it is called in errors.
    path: PathBuf,
    /// Its contents, where it was in an archive.
    bytes: Option<Vec<u8>>,
}

impl Member {
    fn bytes(self) -> Result<(Vec<u8>, PathBuf)> {
        let bytes = match self.bytes {
            Some(bytes) => bytes,
            None => Stream::open(&self.path)?.rest()?,
        };
        Ok((bytes, self.path))
    }
}

/// Files by their names, without what they are packed by.
type Members = BTreeMap<String, Member>;

/// The name of a file of records or of names, without what it is packed by; `None` for other files.
fn plain_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = [".gz", ".xz", ".zst"].iter().find_map(|packing| name.strip_suffix(packing)).unwrap_or(&name);
    let wanted = name.ends_with(".bin") || names::FILES.contains(&name);
    wanted.then(|| name.to_string())
}

/// Whether `folder` holds files of records.
pub(super) fn is_here(entries: &[PathBuf]) -> bool {
    entries.iter().any(|path| path.is_file() && plain_name(path).is_some_and(|name| name.ends_with(".bin")))
}

/// Load the data set whose files lie in `folder`.
///
/// # Errors
/// [`Error::Io`] where a file cannot be read, [`Error::File`] where one is missing or not what it should be.
pub(super) fn load_folder(folder: &Path, entries: &[PathBuf]) -> Result<Data> {
    let mut members = Members::new();
    for path in entries.iter().filter(|path| path.is_file()) {
        if let Some(name) = plain_name(path) {
            add(&mut members, name, Member { path: path.clone(), bytes: None }, folder)?;
        }
    }
    load(folder, &folder_name(folder), members)
}

/// Load the data set in the archive `path`: a tar file, plain or packed.
///
/// # Errors
/// As [`load_folder`].
pub(super) fn load_archive(path: &Path) -> Result<Data> {
    let stream = Stream::open(path)?;
    let packing = stream.packing();
    let refuse = |error| match stream::refusal(path, packing, 0, error) {
        Error::Io { source, .. } if source.raw_os_error().is_none() => {
            Error::file(path, format!("is not a whole tar archive ({source}): download or copy it again"))
        }
        other => other,
    };
    let mut archive = tar::Archive::new(stream);
    let mut members = Members::new();
    for entry in archive.entries().map_err(refuse)? {
        let mut entry = entry.map_err(refuse)?;
        let inside = entry.path().map_err(refuse)?.into_owned();
        let leaves = |part| !matches!(part, Component::Normal(_) | Component::CurDir);
        if inside.components().any(leaves) {
            let why = format!(
                "holds a member that would lie outside of it, `{}`: such an archive is not taken",
                inside.display()
            );
            return Err(Error::file(path, why));
        }
        let Some(name) = plain_name(&inside).filter(|_| entry.header().entry_type().is_file()) else {
            continue;
        };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).map_err(refuse)?;
        if (bytes.len() as u64) < entry.size() {
            let why = format!("is cut short in its member `{}`: download or copy it again", inside.display());
            return Err(Error::file(path, why));
        }
        let within = path.join(&inside);
        // A member may be packed itself.
        let bytes = Stream::of(&bytes[..], bytes.len() as u64, &within)?.rest()?;
        add(&mut members, name, Member { path: within, bytes: Some(bytes) }, path)?;
    }
    // The end of the tar archive is not the end of what it is packed by, which holds a checksum.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(refuse)?;
    if !members.keys().any(|name| name.ends_with(".bin")) {
        let why = "holds no .bin files. An archive is taken where it holds the binary form of CIFAR-10 or CIFAR-100";
        return Err(Error::file(path, why));
    }
    load(path, &folder_name(path), members)
}

fn add(members: &mut Members, name: String, member: Member, place: &Path) -> Result<()> {
    if let Some(other) = members.get(&name) {
        let (one, two) = (other.path.display(), member.path.display());
        return Err(Error::file(place, format!("holds both {one} and {two}: leave one of them")));
    }
    members.insert(name, member);
    Ok(())
}

/// The data set of these files; `place` is where they were found.
fn load(place: &Path, name: &str, mut members: Members) -> Result<Data> {
    let mut given = None;
    for file in names::FILES {
        if let Some(member) = members.remove(file) {
            let (text, path) = member.bytes()?;
            given = Some(names::parse(&text, &path)?);
        }
    }
    let is_cifar10 = CIFAR10.iter().any(|file| members.contains_key(*file));
    let [train, test] = match is_cifar10 {
        true => cifar10(place, members)?,
        false => two_files(place, members)?,
    };
    // Where both lengths of a record fit, the labels tell: 20 coarse classes and 100 fine ones.
    let is_cifar100 = !is_cifar10
        && [&train, &test].iter().all(|part| part.iter().all(|(bytes, _)| fine_labels(bytes)))
        && ![&train, &test].iter().all(|part| part.iter().all(|(bytes, _)| bytes.len() % (1 + PIXELS) == 0));
    let name = match (is_cifar10, is_cifar100) {
        (true, _) => "cifar10",
        (_, true) => "cifar100",
        _ => name,
    };
    let given = match (is_cifar10, is_cifar100) {
        (true, _) => given.or_else(|| names::known("cifar", 10)),
        (_, true) => given.or_else(|| names::known("cifar", 100)),
        _ => given,
    };
    let labels = 1 + usize::from(is_cifar100);
    let train = Records::read(train, labels)?;
    let test = Records::read(test, labels)?;
    let class_names = match given {
        Some(names) => {
            train.check(names.len())?;
            test.check(names.len())?;
            names
        }
        None => {
            let labels = [(&train.labels[..], train.path()), (&test.labels[..], test.path())];
            names::of(name, labels, None)?
        }
    };
    let dataset = |part: Records, which: &str| {
        let source = format!("{which} part of the records in {}", place.display());
        Dataset::new(name, source, IMAGE, part.pixels, part.labels, class_names.clone())
    };
    Ok(Data { train: dataset(train, "training")?, test: dataset(test, "test")? })
}

/// Contents and names of the files of the training part and of the test part.
type Parts = [Vec<(Vec<u8>, PathBuf)>; 2];

fn cifar10(place: &Path, mut members: Members) -> Result<Parts> {
    let missing: Vec<&str> = CIFAR10.into_iter().filter(|file| !members.contains_key(*file)).collect();
    if !missing.is_empty() {
        let why = format!(
            "lacks {}. CIFAR-10 in its binary form is six files, plain or packed (.gz, .xz, .zst): {}",
            list(&missing),
            list(&CIFAR10)
        );
        return Err(Error::file(place, why));
    }
    let files = CIFAR10.iter().filter_map(|file| members.remove(*file));
    let mut train = files.map(Member::bytes).collect::<Result<Vec<_>>>()?;
    let test = train.pop().into_iter().collect();
    Ok([train, test])
}

fn two_files(place: &Path, members: Members) -> Result<Parts> {
    let mut parts: Parts = Default::default();
    for (part, stem) in parts.iter_mut().zip(["train", "test"]) {
        let found: Vec<&String> =
            members.keys().filter(|name| name.starts_with(stem) && name.ends_with(".bin")).collect();
        match found[..] {
            [_] => {}
            [] => {
                let have: Vec<&str> = members.keys().map(String::as_str).collect();
                let why = format!(
                    "has no file {stem}.bin, but {}. Records of a label and a 32x32 colour image are taken as \
                     train.bin and test.bin, plain or packed (.gz, .xz, .zst), CIFAR-10 as {}",
                    list(&have),
                    list(&CIFAR10)
                );
                return Err(Error::file(place, why));
            }
            _ => {
                let found: Vec<&str> = found.iter().map(|name| name.as_str()).collect();
                let why = format!("holds {}: which is the {stem} part? Leave one of them", list(&found));
                return Err(Error::file(place, why));
            }
        }
        part.reserve(1);
    }
    for (name, member) in members {
        let at = if name.starts_with("train") { 0 } else { 1 };
        if name.starts_with("train") || name.starts_with("test") {
            parts[at].push(member.bytes()?);
        }
    }
    Ok(parts)
}

/// Whether all records of `bytes` are CIFAR-100's: two labels, below 20 and below 100.
fn fine_labels(bytes: &[u8]) -> bool {
    let mut records = bytes.chunks_exact(2 + PIXELS);
    records.all(|record| record[0] < 20 && record[1] < 100)
        && records.remainder().is_empty()
        && !bytes.is_empty()
}

/// The records of one part.
struct Records {
    /// \[N, H, W, C\].
    pixels: Vec<u8>,
    labels: Vec<u32>,
    /// The files, with the number of records up to the end of each.
    files: Vec<(usize, PathBuf)>,
}

impl Records {
    /// The records of these files, each of so many labels, of which the last counts, and an image.
    fn read(files: Vec<(Vec<u8>, PathBuf)>, labels: usize) -> Result<Records> {
        let record = labels + PIXELS;
        let mut all = Records { pixels: Vec::new(), labels: Vec::new(), files: Vec::new() };
        for (bytes, path) in files {
            if bytes.is_empty() {
                return Err(Error::file(
                    path,
                    "is empty, but records of images were expected: download or copy it again",
                ));
            }
            if bytes.len() % record != 0 {
                let why = format!(
                    "is {} bytes long{}, which is no whole number of records of {record} bytes (label and 32x32x3 \
                     pixels; {} are left over): it is cut short, or of another format. Download or copy it again",
                    bytes.len(),
                    if labels == 1 { "" } else { " (unpacked)" },
                    bytes.len() % record
                );
                return Err(Error::file(path, why));
            }
            all.pixels.reserve(bytes.len() / record * PIXELS);
            for record in bytes.chunks_exact(record) {
                let (label, planes) = record.split_at(labels);
                all.labels.push(u32::from(label[labels - 1]));
                let (red, rest) = planes.split_at(PIXELS / 3);
                let (green, blue) = rest.split_at(PIXELS / 3);
                all.pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((r, g), b)| [*r, *g, *b]));
            }
            all.files.push((all.labels.len(), path));
        }
        Ok(all)
    }

    fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |(_, path)| path)
    }

    /// Checks that all labels are below `classes`.
    fn check(&self, classes: usize) -> Result<()> {
        let Some(at) = self.labels.iter().position(|&label| label as usize >= classes) else {
            return Ok(());
        };
        let file = self.files.iter().position(|(end, _)| at < *end).unwrap_or(0);
        let first = if file == 0 { 0 } else { self.files[file - 1].0 };
        Err(Error::file(
            &self.files[file].1,
            format!(
                "label {} (record {}) is out of range: there are {classes} classes, counted from 0. The file is \
                 damaged, or of another format",
                self.labels[at],
                at - first
            ),
        ))
    }
}
