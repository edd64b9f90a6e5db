//! The history of a run: one JSON object a line, one line an epoch (`metrics.jsonl`).

use crate::files::write_error;
use crate::train::EpochRecord;
use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A metrics file that is open for more epochs.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Length up to the end of the last complete line, in bytes.
    length: u64,
}

impl Metrics {
    /// Start a new, empty metrics file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made or is there already.
    pub fn create(path: impl AsRef<Path>) -> Result<Metrics> {
        let path = path.as_ref();
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.map_err(|error| write_error(path, error))?;
        Ok(Metrics { path: path.into(), file, length: 0 })
    }

    /// Go on with the metrics file of an interrupted run whose weights are those after `epoch`, and give the records
    /// up to there.
    ///
    /// Later records and a last line that a kill cut short are removed: those epochs are trained again. A missing
    /// file is as good as an empty one.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read or written; [`Error::File`] where a line before the last is not a
    /// record.
    pub fn resume(path: impl AsRef<Path>, epoch: u32) -> Result<(Metrics, Vec<EpochRecord>)> {
        let path = path.as_ref();
        if !path.exists() {
            return Ok((Metrics::create(path)?, Vec::new()));
        }
        let mut length = 0;
        let mut kept = Vec::new();
        for (record, end) in parse(path)? {
            if record.epoch > epoch {
                break;
            }
            kept.push(record);
            length = end;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(|error| write_error(path, error))?;
        file.set_len(length).map_err(|error| write_error(path, error))?;
        Ok((Metrics { path: path.into(), file, length }, kept))
    }

    /// Add one line and sync it to the disk: the checkpoint that is written next counts on it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written; the file then ends with the previous line.
    pub fn append(&mut self, record: &EpochRecord) -> Result<()> {
        let written = serde_json::to_vec(record).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)?;
            self.file.sync_data()?;
            Ok(line.len() as u64)
        });
        match written {
            Ok(length) => {
                self.length += length;
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

/// The records of a metrics file; a last line that a kill cut short is left out.
///
/// # Errors
/// As [`Metrics::resume`].
pub fn read(path: impl AsRef<Path>) -> Result<Vec<EpochRecord>> {
    Ok(parse(path.as_ref())?.into_iter().map(|(record, _)| record).collect())
}

/// The records, each with the position after its line.
fn parse(path: &Path) -> Result<Vec<(EpochRecord, u64)>> {
    let text = std::fs::read(path).map_err(|error| Error::io(path, "could not read the metrics", error))?;
    let mut records = Vec::new();
    let mut end = 0;
    for (number, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let last = end + line.len() == text.len();
        end += line.len();
        if !line.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice(line) {
            Ok(record) => records.push((record, end as u64)),
            Err(_) if last => {}
            Err(error) => {
                let kind = std::io::Error::from(error);
                let why = match kind.kind() {
                    ErrorKind::UnexpectedEof => "is cut short".to_string(),
                    _ => format!("is not a record ({kind})"),
                };
                return Err(Error::file(
                    path,
                    format!("line {} {why}: remove that line, or start a new run", number + 1),
                ));
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A run of `epochs` epochs that looks like a real one: epsilon warms up over the first half.
    pub(crate) fn records(epochs: u32) -> Vec<EpochRecord> {
        let mut best = 0.0;
        (1..=epochs)
            .map(|epoch| {
                let t = f64::from(epoch) / f64::from(epochs);
                let wiggle = (f64::from(epoch) * 2.4).sin();
                let validation_robust =
                    0.86 - 0.55 * (-4.0 * t).exp() + 0.008 * wiggle - 0.03 * (t - 0.9).max(0.0) * 10.0;
                let chosen = validation_robust > best;
                best = validation_robust.max(best);
                EpochRecord {
                    epoch,
                    seconds: 2.1 + 0.1 * wiggle,
                    loss: 2.1 * (-3.0 * t).exp() + 0.35 + 0.02 * wiggle,
                    train_clean: Some(0.975 - 0.5 * (-6.0 * t).exp()),
                    train_robust: Some(0.88 - 0.62 * (-4.0 * t).exp()),
                    validation_clean: Some(0.978 - 0.3 * (-6.0 * t).exp() + 0.004 * wiggle),
                    validation_robust: Some(validation_robust),
                    validation_raw: None,
                    epsilon: 0.3 * (2.0 * t).min(1.0),
                    learning_rate: 2e-3 * (1.0 - t).max(0.02),
                    examples_per_second: 4321.0,
                    best: chosen,
                    probe_clean: Some(0.98 - 0.3 * (-6.0 * t).exp()),
                    probe_robust: Some(0.9 - 0.6 * (-4.0 * t).exp()),
                    alignment: Some(0.9 - 0.2 * t),
                    test_clean: (epoch % 2 == 0).then_some(0.97 - 0.3 * (-6.0 * t).exp()),
                    test_robust: (epoch % 2 == 0).then_some(validation_robust - 0.01),
                    collapse: None,
                }
            })
            .collect()
    }

    #[test]
    fn what_is_appended_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path).unwrap();
        let mut records = records(3);
        records[1].train_clean = None;
        for record in &records {
            metrics.append(record).unwrap();
        }
        assert_eq!(read(&path).unwrap(), records);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        assert!(Metrics::create(&path).is_err(), "a run's history is not overwritten");

        let unknown = EpochRecord { loss: f64::NAN, ..records[0].clone() };
        metrics.append(&unknown).unwrap();
        assert!(read(&path).unwrap()[3].loss.is_nan());
    }

    #[test]
    fn resuming_drops_what_will_be_trained_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let records = records(4);
        let mut metrics = Metrics::create(&path).unwrap();
        records.iter().for_each(|record| metrics.append(record).unwrap());
        let whole = fs::read(&path).unwrap();

        // Killed in the middle of the last line, at any byte of it.
        let third = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0 + 1;
        for cut in [third, third + 1, whole.len() - 2, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path).unwrap(), records[..3], "cut at {cut}");
            let (mut metrics, kept) = Metrics::resume(&path, 4).unwrap();
            assert_eq!(kept, records[..3]);
            metrics.append(&records[3]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }

        // The checkpoint is older than the history.
        let (mut metrics, kept) = Metrics::resume(&path, 1).unwrap();
        assert_eq!(kept, records[..1]);
        metrics.append(&records[1]).unwrap();
        assert_eq!(read(&path).unwrap(), records[..2]);

        let missing = folder.path().join("other.jsonl");
        assert_eq!(Metrics::resume(&missing, 5).unwrap().1, []);
    }

    #[test]
    fn a_broken_line_before_the_last_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let good = serde_json::to_string(&records(1)[0]).unwrap();
        for broken in ["{\"epoch\": 2", "hello"] {
            fs::write(&path, format!("{good}\n{broken}\n{good}\n")).unwrap();
            let error = Metrics::resume(&path, 9).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("metrics.jsonl"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut metrics = Metrics { path: "/dev/full".into(), file, length: 0 };
        let error = metrics.append(&records(1)[0]).unwrap_err().to_string();
        assert!(error.contains("disk is full"), "{error}");
    }
}
