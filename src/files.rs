//! Files that survive a kill, and run folders that never mix with older ones.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Write `bytes` as the file `path`, so that a kill, a power cut or a full disk at any moment leaves either the whole
/// previous file or the whole new one; see [`write_atomically_with`].
///
/// # Errors
/// [`Error::Io`] where the system refuses.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// Write the file `path` through `write`, all or nothing.
///
/// The contents go to `<path>.partial` beside it, are synced to the disk and renamed onto `path`, and the folder is
/// synced, in this order: at no moment does `path` name a half-written file. On an error the partial file is removed;
/// one that a kill left behind is overwritten by the next write.
///
/// # Errors
/// [`Error::Io`] where the system refuses, with what to do where the disk is full; `path` is then untouched.
pub fn write_atomically_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let partial = partial(path);
    let written = (|| {
        let mut file = BufWriter::new(File::create(&partial)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&partial, path)?;
        sync_folder(path)
    })();
    written.map_err(|error| {
        // Best effort: the error to report is the first one. Only a file is removed, never what stood in its way.
        if partial.is_file() || partial.is_symlink() {
            let _ = fs::remove_file(&partial);
        }
        write_error(path, error)
    })
}

/// SHA-256 of some bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The system's refusal to write `path`, with what to do about it.
pub(crate) fn write_error(path: &Path, error: io::Error) -> Error {
    let doing = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "could not be written because the disk is full (what was there before is kept); free some space, or choose \
             a folder on another disk"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "may not be written; choose another folder or change its permissions"
        }
        ErrorKind::NotFound => "could not be written because its folder does not exist",
        _ => "could not be written (what was there before is kept)",
    };
    Error::io(path, doing, error)
}

/// Where the new contents of `path` grow: beside it, hence on the same file system.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}

/// Make a rename in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Only Unix lets a program open and sync a folder; elsewhere the file system orders renames itself.
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Make the folder of a new run.
///
/// An empty folder is taken as it is. The folder's parent is made too (`runs/` of a fresh clone), its grandparent is
/// not: a mistyped path is an error rather than a new tree.
///
/// # Errors
/// [`Error::File`] where `path` is something else than a folder, holds files already or is to lie in a folder that
/// does not exist; [`Error::Io`] where it cannot be made or written.
pub fn create_run_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        let mut entries = fs::read_dir(path)
            .map_err(|error| Error::io(path, "could not list the output folder; choose another", error))?;
        if entries.next().is_some() {
            return Err(Error::file(
                path,
                "the output folder holds files already, and a new run would mix with them: choose another folder, \
                 continue that run with --resume, or move it away",
            ));
        }
    } else if path.exists() {
        return Err(Error::file(
            path,
            "is a file, but a folder to write the run to is needed: choose another path",
        ));
    } else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let above = parent.and_then(Path::parent).filter(|above| !above.as_os_str().is_empty());
        if let (Some(parent), Some(above)) = (parent, above)
            && !above.exists()
        {
            return Err(Error::file(
                path,
                format!(
                    "the folder {} it is to lie in does not exist: make it, or mend the path",
                    parent.display()
                ),
            ));
        }
        fs::create_dir_all(path)
            .map_err(|error| Error::io(path, "could not make the output folder; choose another", error))?;
    }
    // Whether files can be made is best asked by making one: permissions, quotas and read-only mounts all answer.
    let probe = path.join(".writable.partial");
    File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(|error| Error::io(path, "could not write to the output folder; choose another", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_previous_file_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        write_atomically(&path, b"first").unwrap();
        let error = write_atomically_with(&path, |file| {
            file.write_all(b"half of the sec")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("disk is full"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the partial file is gone");
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_really_full_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.safetensors");
        write_atomically(&path, b"first").unwrap();
        // The kernel's own full device stands where the new contents would grow.
        std::os::unix::fs::symlink("/dev/full", partial(&path)).unwrap();
        let error = write_atomically(&path, b"second").unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn what_stands_in_the_way_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::create_dir(partial(&path)).unwrap();
        assert!(write_atomically(&path, b"x").is_err());
        assert!(partial(&path).is_dir() && !path.exists());
        assert!(write_atomically(folder.path().join("no/such/file"), b"x").is_err());
    }

    #[test]
    fn run_folders() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs").join("first");
        create_run_folder(&run).unwrap();
        create_run_folder(&run).expect("an empty folder is fine");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0, "the probe is gone");
        fs::write(run.join("metrics.jsonl"), "").unwrap();
        let error = create_run_folder(&run).unwrap_err().to_string();
        assert!(error.contains("holds files already") && error.contains("--resume"), "{error}");

        let file = run.join("metrics.jsonl");
        assert!(create_run_folder(&file).unwrap_err().to_string().contains("is a file"));
        assert!(create_run_folder(file.join("below")).is_err());
        let error = create_run_folder(folder.path().join("a/b/c")).unwrap_err().to_string();
        assert!(error.contains("does not exist"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        // Not even root makes folders here.
        let error = create_run_folder("/proc/adamant-run").unwrap_err().to_string();
        assert!(error.contains("could not make"), "{error}");
    }
}
