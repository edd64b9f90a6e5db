//! Where and with what a run was made (`environment.json`).

use serde::Serialize;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything outside the configuration that a result may depend on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Environment {
    /// Version of adamant.
    pub adamant: &'static str,
    /// Commit of the source folder this program was built in, with `+` where files were changed since; absent where
    /// that folder or git is no longer there.
    pub commit: Option<String>,
    /// Compiler this program was built with.
    pub rustc: &'static str,
    /// Target this program was built for, such as "x86_64-unknown-linux-gnu".
    pub target: &'static str,
    /// Model of the processor.
    pub cpu: String,
    /// Threads the processor runs at once, as far as this process may use them.
    pub threads: usize,
    /// The device the run used, in words.
    pub device: String,
    /// Where kernels were chosen by a tuner: its file and the SHA-256 of its choices, which results depend on.
    pub tuner: Option<String>,
    /// The data sets of the run.
    pub data: Vec<DataSource>,
    /// The command line, one string an argument.
    pub command: Vec<String>,
    /// When the run started, UTC, ISO 8601.
    pub started: String,
}

/// A data set, so that another can be told from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataSource {
    /// What the run used it for: "train" or "test".
    pub part: &'static str,
    /// Its name.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// Number of examples.
    pub examples: usize,
    /// What they are: "images", or "feature vectors".
    pub kind: &'static str,
    /// SHA-256 of its contents, in hexadecimal.
    pub sha256: String,
}

impl DataSource {
    /// The description of `dataset`, used as `part`.
    pub fn of(part: &'static str, dataset: &crate::data::Dataset) -> DataSource {
        DataSource {
            part,
            name: dataset.name.clone(),
            source: dataset.source.clone(),
            examples: dataset.len(),
            kind: dataset.kind(),
            sha256: dataset.sha256.clone(),
        }
    }
}

impl Environment {
    /// The environment of this process, which uses `device` and `data`.
    pub fn capture(device: impl Into<String>, data: Vec<DataSource>) -> Environment {
        Environment {
            adamant: env!("CARGO_PKG_VERSION"),
            commit: commit(Path::new(env!("CARGO_MANIFEST_DIR"))),
            rustc: env!("ADAMANT_RUSTC"),
            target: env!("ADAMANT_TARGET"),
            cpu: cpu_model(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            device: device.into(),
            tuner: None,
            data,
            command: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            started: utc(SystemTime::now()),
        }
    }

    /// An environment as JSON, with a tuner's file and the SHA-256 of its choices added.
    ///
    /// # Errors
    /// A sentence for text that is no environment.
    pub fn tuned_by(json: &[u8], file: &Path, sha256: &str) -> Result<String, String> {
        let mut value: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| format!("is no record of an environment: {e}"))?;
        let fields = value.as_object_mut().ok_or("is no record of an environment")?;
        fields.insert("tuner".into(), format!("{}, sha256 {sha256}", file.display()).into());
        Ok(serde_json::to_string_pretty(&value).unwrap_or_default() + "\n")
    }

    /// The environment as indented JSON that ends with a line break.
    pub fn to_json(&self) -> String {
        // Strings and numbers alone: nothing here that JSON could refuse.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// First line that `command` prints, where it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_string())
}

fn commit(folder: &Path) -> Option<String> {
    // A package unpacked inside somebody else's repository is not of that repository's commit.
    if !folder.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(folder).args(arguments));
    let hash = git(&["rev-parse", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|line| !line.is_empty());
    Some(if changed { hash + "+" } else { hash })
}

fn cpu_model() -> String {
    let found = if cfg!(target_os = "linux") {
        std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_string())
        })
    } else if cfg!(target_os = "macos") {
        output(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]))
    } else {
        std::env::var("PROCESSOR_IDENTIFIER").ok()
    };
    found.unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

/// A moment as "2026-01-31T12:34:56Z".
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar: Hinnant, "chrono-compatible low-level date algorithms". Years start in
    // March, so that the leap day is the last of its year; an era is 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn everything_is_filled_in() {
        let data = DataSource {
            part: "train",
            name: "mnist".into(),
            source: "a test".into(),
            examples: 3,
            kind: "images",
            sha256: "ab".into(),
        };
        let environment = Environment::capture("CPU, 2 threads", vec![data]);
        assert!(environment.rustc.starts_with("rustc 1."), "{}", environment.rustc);
        assert!(environment.target.contains(std::env::consts::ARCH), "{}", environment.target);
        assert!(!environment.cpu.is_empty() && environment.threads > 0 && !environment.command.is_empty());
        let json: serde_json::Value = serde_json::from_str(&environment.to_json()).unwrap();
        assert_eq!((&json["device"], &json["data"][0]["examples"]), (&"CPU, 2 threads".into(), &3.into()));
        assert_eq!(json["adamant"], env!("CARGO_PKG_VERSION"));
    }
}
