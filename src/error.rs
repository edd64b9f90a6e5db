//! What can go wrong, in words that say what, where, why and what to do.

use std::path::PathBuf;

/// Result of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// Every error of the library. The message is for people; the variant is for programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An op was recorded with operands that do not fit it.
    #[error("{location}: {op}: {message}")]
    Shape {
        /// The op's name.
        op: &'static str,
        /// What does not fit, and what would.
        message: String,
        /// File and line that recorded it.
        location: &'static std::panic::Location<'static>,
    },
    /// A named tensor was used with another shape or type than it has.
    #[error("tensor `{name}` is {have}, but {want} was asked for")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Type and shape it has, as "f32 \[2x3\]".
        have: String,
        /// What was asked for.
        want: String,
    },
    /// A plan or a tensor needs more memory than the device has left.
    #[error("{what} needs {needed} bytes on {device}, which has {available} left{hint}")]
    OutOfMemory {
        /// What was being placed.
        what: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// The device.
        device: String,
        /// What would fit, as "; the largest batch that fits is 96", or empty.
        hint: String,
    },
    /// No device is what was asked for.
    #[error("{0}")]
    NoDevice(String),
    /// The GPU or its driver reported an error.
    #[error("{device}: {message}")]
    Gpu {
        /// The device.
        device: String,
        /// What it reported, and what to do.
        message: String,
    },
    /// The GPU went away (reset, driver restart, unplugged, or a kernel that ran too long).
    #[error("{device} was lost: {message}. Resume from the last checkpoint")]
    DeviceLost {
        /// The device.
        device: String,
        /// The driver's reason.
        message: String,
    },
    /// A value turned NaN or infinite.
    #[error("{what}: a value is not finite; the first launch that made one is {launch}. {advice}")]
    NotFinite {
        /// What was noticed.
        what: String,
        /// The launch.
        launch: String,
        /// What to do.
        advice: String,
    },
    /// A value given by the user is not one the program takes.
    #[error("{what}: {value}: {why}")]
    Argument {
        /// The flag, key or parameter.
        what: String,
        /// What was given.
        value: String,
        /// Why it is refused and what would be taken.
        why: String,
    },
    /// A file's contents are not what they should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        why: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process of a run that is trained by several was not heard of.
    #[error("{0}")]
    Peers(String),
    /// The library was used in a way it does not support.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// A refused argument, with the nearest of `choices` as "did you mean" when one is near.
    pub fn unknown(what: &str, value: &str, choices: &[&str]) -> Error {
        let near = choices
            .iter()
            .map(|c| (strsim::damerau_levenshtein(&value.to_lowercase(), &c.to_lowercase()), c))
            .min()
            .filter(|(distance, c)| *distance <= 1 + c.len() / 3);
        let hint = near.map(|(_, c)| format!(" (did you mean `{c}`?)")).unwrap_or_default();
        Error::Argument {
            what: what.into(),
            value: format!("`{value}`"),
            why: format!("unknown{hint}; known are {}", choices.join(", ")),
        }
    }

    /// An operating-system error while `doing` something to `path`.
    pub fn io(path: impl Into<PathBuf>, doing: &'static str, source: std::io::Error) -> Error {
        Error::Io { path: path.into(), doing, source }
    }

    /// A file that is not what it should be.
    pub fn file(path: impl Into<PathBuf>, why: impl Into<String>) -> Error {
        Error::File { path: path.into(), why: why.into() }
    }

    /// An error of the device with what was under way when it came; another error as it is.
    pub fn during(self, what: &str) -> Error {
        let more = |message: String| format!("{message} ({what} were under way)");
        match self {
            Error::Gpu { device, message } => Error::Gpu { device, message: more(message) },
            Error::DeviceLost { device, message } => Error::DeviceLost { device, message: more(message) },
            other => other,
        }
    }

    /// A refused argument.
    pub fn argument(what: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Error {
        Error::Argument { what: what.into(), value: value.to_string(), why: why.into() }
    }
}
