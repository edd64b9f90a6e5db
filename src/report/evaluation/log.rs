//! The log of an evaluation: what became of every example under every attack, with a witness of each that was broken, in
//! one file that is appended to as the evaluation goes.
//!
//! A log is [`MAGIC`] and then records. A record is its length (u32), its contents, and 32 bytes: the SHA-256 of the
//! record's place in the chain (the 32 bytes before it, of `MAGIC` for the first) and its contents. So a flipped bit, a
//! record left out or put elsewhere is an error, and what a kill cut short is told from what was changed. All numbers are
//! little-endian. Contents:
//!
//! * of the first record: the [`Header`] as JSON;
//! * of a [`Unit`]: 1 (u8), attack, run and group (u32 each), how many images were found outside of ball or box (u64), how many
//!   verdicts (u32) and those: example (u32, its place in the header's list), classes predicted for the clean and for the
//!   last adversarial image (u32 each), bits (u8: 1 where the clean image is classified right, 2 where the example
//!   stands), distance of the nearest image that breaks it (f64, infinite where there is none); how many witnesses (u32) and
//!   those: example (u32), class predicted (u32), distance (f64) and the image's pixels (f32 each, `[H,W,C]`);
//! * of the last record of an evaluation that is complete: 2 (u8).

use super::unit::{self, Taker, Unit};
use crate::attack::{Norm, Rational, ThreatModel};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;

/// What a log begins with.
pub const MAGIC: &[u8] = b"adamant evaluation 1\n";

/// Most numbers in an image, and examples in a log: far beyond any, and what they take fits into memory.
const MOST: usize = 1 << 28;

pub(super) const END: u8 = 2;

pub(super) type Hash = [u8; 32];

/// What was evaluated, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The program that wrote it, as "adamant 0.1.0".
    pub program: String,
    /// The architecture's name.
    pub model: String,
    /// SHA-256 of the weights, see [`super::Subject::sha256`].
    pub model_sha256: String,
    /// The data set's name.
    pub data: String,
    /// SHA-256 of the test data, as [`crate::data::Dataset::sha256`].
    pub data_sha256: String,
    /// Rows, columns and channels of an image.
    pub image: [usize; 3],
    /// Classes of the data set.
    pub classes: usize,
    /// Which of the test data were evaluated.
    pub examples: Vec<u32>,
    /// Seed of everything random.
    pub seed: u64,
    /// Examples in a unit, at most.
    pub group: usize,
    /// The attacks; the first is none, and looks at the clean images.
    pub attacks: Vec<Attacked>,
}

/// An attack of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attacked {
    /// Its name.
    pub name: String,
    /// Its attack line, with restarts, without the number of examples.
    pub line: String,
    /// "Linf", "L2" or "L1".
    pub norm: String,
    /// The radius, as it was given.
    pub epsilon: String,
    /// Steps of a run.
    pub steps: usize,
    /// Restarts.
    pub restarts: u32,
    /// Runs in all: restarts times those that differ in more than random numbers, as in the class they go for.
    pub runs: u32,
    /// The suite it is one of, as "AutoAttack".
    pub suite: Option<String>,
    /// Whether it was run on what stands after the attack before it alone; else on all that is classified right.
    pub goes_on: bool,
    /// Whether it looks for the nearest image, which may lie outside of the ball.
    pub minimum_norm: bool,
    /// What it is part of: `attack`, or the curve `epsilon` or `steps`.
    pub part: Part,
    /// The network that its images were made on, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// Another network, that images were made on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// What it is called.
    pub model: String,
    /// SHA-256 of the weights, as in the header.
    pub model_sha256: String,
}

/// What an attack of an evaluation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// One of those that were asked for.
    Attack,
    /// A point of the curve of accuracy against epsilon.
    Epsilon,
    /// A point of the curve of accuracy against steps.
    Steps,
}

impl Attacked {
    /// What it may do.
    ///
    /// # Errors
    /// [`Error::Argument`] where norm or radius is none.
    pub fn threat(&self) -> Result<ThreatModel> {
        Ok(ThreatModel { norm: self.norm.parse::<Norm>()?, epsilon: self.epsilon.parse::<Rational>()? })
    }

    /// Its name behind that of its suite: "AutoAttack standard: FAB-T".
    pub fn within_suite(&self) -> String {
        match &self.suite {
            Some(suite) => format!("{suite}: {}", self.name),
            None => self.name.clone(),
        }
    }
}

/// A log as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// What was evaluated, and how.
    pub header: Header,
    /// What was found, in the order in which it was.
    pub units: Vec<Unit>,
    /// Whether the evaluation was complete.
    pub complete: bool,
    /// Bytes up to the end of the last whole record.
    pub(super) whole: usize,
    /// Bytes that follow it: of a record that a kill cut short.
    rest: usize,
    pub(super) chain: Hash,
}

/// The chain's next 32 bytes.
pub(super) fn link(chain: &Hash, contents: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(chain);
    hash.update(contents);
    hash.finalize().into()
}

pub(super) fn first_link() -> Hash {
    Sha256::digest(MAGIC).into()
}

impl Header {
    /// Numbers in an image.
    pub fn elements(&self) -> usize {
        self.image.iter().product()
    }

    /// Refuses what no evaluation writes.
    fn check(&self) -> std::result::Result<(), String> {
        let elements = self.image.iter().try_fold(1usize, |all, &extent| all.checked_mul(extent));
        if elements.is_none_or(|elements| elements == 0 || elements > MOST) {
            return Err(format!("images of {:?} are none", self.image));
        }
        if self.classes == 0 || self.classes > MOST || self.group == 0 {
            return Err(format!("{} classes in units of {} are none", self.classes, self.group));
        }
        if self.examples.is_empty() || self.examples.len() > MOST || self.attacks.is_empty() {
            return Err("it names no examples or no attacks".into());
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.examples.iter().find(|example| !seen.insert(**example)) {
            return Err(format!("it names example {twice} twice"));
        }
        self.attacks.iter().try_for_each(|attack| attack.threat().map(drop).map_err(|e| e.to_string()))
    }
}

impl Log {
    /// Reads a log; `path` is what errors call it. A last record that is cut short is left out, see [`Log::rest`]. Takes
    /// memory in proportion to the bytes, whatever they say.
    ///
    /// # Errors
    /// [`Error::File`] where it is something else, or anything in it was changed.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Log> {
        let refuse = |why: String| Error::file(path, why);
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            return Err(refuse("is not the log of an evaluation (evaluation.log in its folder)".into()));
        };
        let mut chain = first_link();
        let mut log: Option<Log> = None;
        let mut seen: HashSet<(usize, u32, usize)> = HashSet::new();
        for record in 0.. {
            let whole = bytes.len() - rest.len();
            let mut take = Taker(rest);
            let found = take.u32().and_then(|length| {
                let contents = take.bytes(length as usize)?;
                Some((contents, take.array::<32>()?))
            });
            let Some((contents, given)) = found else {
                let Some(mut log) = log else {
                    return Err(refuse("is cut short before the end of its header".into()));
                };
                (log.whole, log.rest, log.chain) = (whole, rest.len(), chain);
                return Ok(log);
            };
            let wrong = |why: String| Error::file(path, format!("record {record} at byte {whole}: {why}"));
            chain = link(&chain, contents);
            if chain != given {
                let why = "does not have the SHA-256 it says: it was damaged or changed";
                return Err(wrong(why.into()));
            }
            match &mut log {
                None => {
                    let header: Header =
                        serde_json::from_slice(contents).map_err(|e| wrong(format!("is no header: {e}")))?;
                    header.check().map_err(wrong)?;
                    let (units, complete) = (Vec::new(), false);
                    log = Some(Log { header, units, complete, whole: 0, rest: 0, chain });
                }
                Some(log) if log.complete => return Err(wrong("follows the end".into())),
                Some(log) => match contents {
                    [END] => log.complete = true,
                    [unit::KIND, contents @ ..] => {
                        let unit = Unit::parse(&log.header, contents).map_err(wrong)?;
                        if !seen.insert(unit.place()) {
                            let (attack, run, group) = unit.place();
                            let why = format!("group {group} of run {run} of attack {attack} comes twice");
                            return Err(wrong(why));
                        }
                        log.units.push(unit);
                    }
                    _ => return Err(wrong("is of no kind that is known".into())),
                },
            }
            rest = take.0;
        }
        Err(refuse("has more records than can be counted".into()))
    }

    /// Reads a log.
    ///
    /// # Errors
    /// [`Error::Io`], and as [`Log::from_bytes`].
    pub fn read(path: &Path) -> Result<Log> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "could not read the evaluation", e))?;
        Log::from_bytes(path, &bytes)
    }

    /// Bytes behind the last whole record: of one that a kill cut short.
    pub fn rest(&self) -> usize {
        self.rest
    }
}
