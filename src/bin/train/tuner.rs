//! The tuner: whether there is one, what it remembers and where.

use super::common::say;
use super::flags::Flags;
use adamant::report::Environment;
use adamant::{Device, Error, Result, files};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most time that measuring kernels may take.
const TUNING: Duration = Duration::from_secs(60);

/// The file in a run's folder by which its kernels are chosen, where a tuner chooses them: what the tuner knew, so that
/// a resumed run takes the same ones whatever became of the tuner's own file.
const KERNELS: &str = "tuner.json";

/// Gives the device a tuner, where the flags ask for one, or the run that goes on had one.
pub(crate) fn start(flags: &Flags, device: &Device) -> Result<()> {
    let of_run = flags.resume.as_ref().map(|folder| folder.join(KERNELS));
    if let Some(file) = of_run.filter(|file| file.is_file()) {
        if device.tune(&file, None).is_none() {
            eprintln!(
                "warning: the run began on a GPU by measured kernels; on the CPU it does not come to the same bits"
            );
        }
        return Ok(());
    }
    if !flags.tune && flags.tune_cache.is_none() {
        return Ok(());
    }
    let Some(name) = device.tuner_file_name() else {
        say!("tuner     the CPU executor has one way for each shape: nothing to tune");
        return Ok(());
    };
    let file = match (&flags.tune_cache, cache_folder()) {
        (Some(file), _) => file.clone(),
        (None, Some(folder)) => folder.join("adamant").join(name),
        (None, None) => {
            let why =
                "there is no cache folder to remember in (HOME is not set): name a file by --tune-cache";
            return Err(Error::argument("tune", "without --tune-cache", why));
        }
    };
    if flags.tune {
        say!("tuner     measuring kernels that {} does not know, for a minute at most", file.display());
    }
    device.tune(&file, flags.tune.then_some(TUNING));
    Ok(())
}

/// Writes into the run's record which choices its kernels are by, where there is a tuner.
pub(crate) fn record(folder: &Path, device: &Device) -> Result<()> {
    let Some(tuner) = device.tuner() else { return Ok(()) };
    let kernels = folder.join(KERNELS);
    if tuner.file() != kernels {
        tuner.keep_copy(&kernels)?;
    }
    let path = folder.join("environment.json");
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, "could not read the record", e))?;
    let record = Environment::tuned_by(&text, tuner.file(), &tuner.hash());
    files::write_atomically(&path, record.map_err(|why| Error::file(&path, why))?.as_bytes())
}

/// The user's folder for what can be made again, by the custom of the system.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        // XDG Base Directory Specification.
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    }
}
