//! Writing the log of an evaluation (log.rs), record by record.

use super::log::{END, Hash, Header, Log, MAGIC, first_link, link};
use super::unit::Unit;
use crate::error::{Error, Result};
use crate::files::write_error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A log that is open for more.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes up to the end of the last whole record.
    length: u64,
    chain: Hash,
    complete: bool,
}

impl Writer {
    /// Begins a new log.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made or is there already.
    pub fn create(path: &Path, header: &Header) -> Result<Writer> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.map_err(|error| write_error(path, error))?;
        alone(&file, path)?;
        Writer::begin(path, file, head(header)?)
    }

    /// Writes what a log begins with into an empty file.
    fn begin(path: &Path, mut file: File, (head, chain): (Vec<u8>, Hash)) -> Result<Writer> {
        let written = file.write_all(&head).and_then(|()| file.sync_all());
        written.map_err(|error| write_error(path, error))?;
        Ok(Writer { path: path.into(), file, length: head.len() as u64, chain, complete: false })
    }

    /// Goes on with the log of an interrupted evaluation, which must be of this header; what a kill cut short is removed. One
    /// that was interrupted before there was a log, or all of its header, begins.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`Log::from_bytes`]; [`Error::File`] where it is of another evaluation, or another program writes it.
    pub fn resume(path: &Path, header: &Header) -> Result<(Writer, Log)> {
        if !path.exists() {
            let writer = Writer::create(path, header)?;
            return Ok((writer, Log::read(path)?));
        }
        let file = OpenOptions::new().append(true).open(path).map_err(|error| write_error(path, error))?;
        alone(&file, path)?;
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "could not read the evaluation", e))?;
        let head = head(header)?;
        if bytes.len() < head.0.len() && head.0.starts_with(&bytes) {
            file.set_len(0).map_err(|error| write_error(path, error))?;
            let writer = Writer::begin(path, file, head)?;
            return Ok((writer, Log::read(path)?));
        }
        let log = Log::from_bytes(path, &bytes)?;
        if let Some(other) = difference(&log.header, header) {
            let why = format!(
                "is of an evaluation with {other}: put back what it began with, or start another one in a new folder"
            );
            return Err(Error::file(path, why));
        }
        let length = log.whole as u64;
        file.set_len(length).map_err(|error| write_error(path, error))?;
        let (chain, complete) = (log.chain, log.complete);
        Ok((Writer { path: path.into(), file, length, chain, complete }, log))
    }

    /// Adds a unit, synced to the disk.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written; the log then ends with what was there before.
    pub fn unit(&mut self, unit: &Unit) -> Result<()> {
        self.append(&unit.to_bytes())
    }

    /// Says that the evaluation is complete, where the log does not say so yet.
    ///
    /// # Errors
    /// As [`Writer::unit`].
    pub fn end(&mut self) -> Result<()> {
        if !self.complete {
            self.append(&[END])?;
            self.complete = true;
        }
        Ok(())
    }

    fn append(&mut self, contents: &[u8]) -> Result<()> {
        let (record, chain) = record(&self.chain, contents)?;
        let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += record.len() as u64;
                self.chain = chain;
                Ok(())
            }
            Err(error) => {
                // Best effort: the error to report is the first one.
                let _ = self.file.set_len(self.length);
                Err(write_error(&self.path, error))
            }
        }
    }
}

/// A record of these contents in the chain, and its link.
fn record(chain: &Hash, contents: &[u8]) -> Result<(Vec<u8>, Hash)> {
    let chain = link(chain, contents);
    let length = u32::try_from(contents.len()).map_err(|_| {
        Error::Unsupported("a record of an evaluation of more than 4 GiB: use a smaller --batch".into())
    })?;
    Ok(([&length.to_le_bytes()[..], contents, &chain].concat(), chain))
}

/// What a log of this header begins with, and the chain's link after it.
fn head(header: &Header) -> Result<(Vec<u8>, Hash)> {
    let contents = serde_json::to_vec(header)
        .map_err(|e| Error::Unsupported(format!("header of an evaluation: {e}")))?;
    let (record, chain) = record(&first_link(), &contents)?;
    Ok(([MAGIC, &record[..]].concat(), chain))
}

/// What the first of two evaluations has that the second has not.
fn difference(one: &Header, other: &Header) -> Option<String> {
    if one == other {
        return None;
    }
    let what = match () {
        () if one.model_sha256 != other.model_sha256 => {
            format!("other weights (SHA-256 {})", one.model_sha256)
        }
        () if one.data_sha256 != other.data_sha256 => {
            format!("other test data (SHA-256 {})", one.data_sha256)
        }
        () if one.program != other.program => format!("another version ({})", one.program),
        () if one.attacks != other.attacks => {
            "other attacks, or other networks that images are made on".into()
        }
        () if one.examples != other.examples => "other examples".into(),
        () => "another seed, batch or model".into(),
    };
    Some(what)
}

/// Locks the log until it is closed: two that write it would leave records that follow each other nowhere. Where the file
/// system has no locks, it is written without.
fn alone(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::file(
            path,
            "is being written by another program, which goes on with it: wait until that ends",
        )),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::evaluation::{Attacked, Found, Part, Verdict};

    fn header() -> Header {
        let attacked = |name: &str| Attacked {
            name: name.into(),
            line: name.into(),
            norm: "Linf".into(),
            epsilon: "8/255".into(),
            steps: 10,
            restarts: 1,
            runs: 1,
            suite: None,
            goes_on: false,
            minimum_norm: false,
            part: Part::Attack,
            from: None,
        };
        Header {
            program: "adamant".into(),
            model: "mlp".into(),
            model_sha256: "a".into(),
            data: "d".into(),
            data_sha256: "b".into(),
            image: [1, 2, 1],
            classes: 3,
            examples: vec![5, 6, 9],
            seed: 0,
            group: 2,
            attacks: vec![attacked("none"), attacked("PGD-40")],
        }
    }

    #[test]
    fn two_programs_do_not_write_one_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evaluation.log");
        let first = Writer::create(&path, &header()).unwrap();
        let error = Writer::resume(&path, &header()).err().unwrap().to_string();
        assert!(error.contains("another program"), "{error}");
        drop(first);
        Writer::resume(&path, &header()).unwrap();
    }

    fn unit(attack: usize, group: usize) -> Unit {
        let at = group as u32;
        Unit {
            attack,
            run: 0,
            group,
            outside: 0,
            verdicts: vec![
                Verdict { at, clean: 0, adversarial: 2, correct: true, robust: false, distance: 0.01 },
                Verdict {
                    at: at + 1,
                    clean: 1,
                    adversarial: 1,
                    correct: true,
                    robust: true,
                    distance: f64::INFINITY,
                },
            ],
            witnesses: vec![Found {
                at,
                prediction: 2,
                distance: 0.01,
                image: vec![0.5, f32::from_bits(0x3f000001)],
            }],
        }
    }

    /// A log of three units, and where each record ends.
    fn written(folder: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
        let path = folder.join("evaluation.log");
        let mut writer = Writer::create(&path, &header()).unwrap();
        let mut ends = vec![writer.length as usize];
        for (attack, group) in [(0, 0), (1, 0), (1, 1)] {
            writer.unit(&unit(attack, group)).unwrap();
            ends.push(writer.length as usize);
        }
        writer.end().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes, ends)
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes, _) = written(folder.path());
        let log = Log::from_bytes(&path, &bytes).unwrap();
        assert_eq!(log.header, header());
        assert_eq!(log.units, [unit(0, 0), unit(1, 0), unit(1, 1)]);
        assert!(log.complete && log.rest() == 0);
        assert!(Writer::create(&path, &header()).is_err(), "an evaluation is not overwritten");
    }

    #[test]
    fn a_log_cut_anywhere_is_gone_on_with_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, whole, ends) = written(folder.path());
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            // Before the end of its header it is no log yet.
            assert_eq!(Log::read(&path).is_ok(), cut >= ends[0], "cut at {cut}");
            let (mut writer, log) = Writer::resume(&path, &header()).unwrap();
            assert_eq!(log.units.len(), ends[1..].iter().filter(|&&end| end <= cut).count(), "cut at {cut}");
            assert!(!log.complete);
            for (attack, group) in [(0, 0), (1, 0), (1, 1)].into_iter().skip(log.units.len()) {
                writer.unit(&unit(attack, group)).unwrap();
            }
            writer.end().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
        std::fs::remove_file(&path).unwrap();
        let (_, log) = Writer::resume(&path, &header()).unwrap();
        assert!(log.units.is_empty() && std::fs::read(&path).unwrap() == whole[..ends[0]]);
        // What is no beginning of this log is left alone.
        std::fs::write(&path, "notes").unwrap();
        assert!(Writer::resume(&path, &header()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"notes");
    }

    #[test]
    fn a_changed_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (path, whole, _) = written(folder.path());
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                // A length that has grown beyond the end reads as a record that was cut short, never as a good one.
                let good = Log::from_bytes(&path, &bytes).is_ok_and(|log| log.complete || log.rest() == 0);
                assert!(!good, "byte {at}");
            }
        }
    }

    #[test]
    fn records_that_lie_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        type Lie = fn(&mut Unit);
        let lies: [(&str, Lie); 6] = [
            ("attack 7", |unit| unit.attack = 7),
            ("example 9", |unit| unit.verdicts[1].at = 9),
            ("out of order", |unit| unit.verdicts[1].at = 0),
            ("class 3", |unit| unit.verdicts[0].adversarial = 3),
            ("distance", |unit| unit.witnesses[0].distance = f64::NAN),
            ("no verdict", |unit| unit.witnesses[0].at = 2),
        ];
        for (i, (why, lie)) in lies.into_iter().enumerate() {
            let path = folder.path().join(i.to_string());
            let mut writer = Writer::create(&path, &header()).unwrap();
            let mut unit = unit(1, 0);
            lie(&mut unit);
            writer.unit(&unit).unwrap();
            let error = Log::read(&path).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        let path = folder.path().join("twice");
        let mut writer = Writer::create(&path, &header()).unwrap();
        (0..2).for_each(|_| writer.unit(&unit(1, 0)).unwrap());
        assert!(Log::read(&path).unwrap_err().to_string().contains("twice"));
        let path = folder.path().join("more");
        let mut writer = Writer::create(&path, &header()).unwrap();
        (0..2).for_each(|_| writer.end().unwrap());
        assert!(Log::read(&path).unwrap().complete, "an end that is said twice is written once");
        writer.unit(&unit(1, 0)).unwrap();
        assert!(Log::read(&path).unwrap_err().to_string().contains("follows the end"));

        for (i, wrong) in [
            Header { image: [usize::MAX, 3, 3], ..header() },
            Header { examples: vec![], ..header() },
            Header { examples: vec![5, 6, 5], ..header() },
            Header { classes: 0, ..header() },
        ]
        .into_iter()
        .enumerate()
        {
            let path = folder.path().join(format!("header {i}"));
            Writer::create(&path, &wrong).unwrap();
            assert!(Log::read(&path).is_err());
        }
    }
}
