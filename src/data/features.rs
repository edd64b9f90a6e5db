//! Vectors of features: what an attacker may do to each, and how they become data sets.
//!
//! An attacker's radius counts for every feature in the same units. Where features are of different kinds, it means
//! something only after scaling: by their bounds, so that 0 is the least and 1 the greatest value of each, if the data set
//! asks for it. What was done is said in the data set's source.

use super::{Data, Dataset, names};
use crate::{Error, Result};
use std::path::Path;

/// How an attacker may change a feature, within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Change {
    /// Not at all.
    Fixed,
    /// Up and down.
    Free,
    /// Up alone: what can be added to a program, but not taken away.
    Up,
    /// Down alone.
    Down,
}

impl Change {
    /// Their names in files, in the order of the variants.
    pub const NAMES: [&str; 4] = ["fixed", "free", "up", "down"];

    /// The change of this name.
    pub fn named(name: &str) -> Option<Change> {
        let all = [Change::Fixed, Change::Free, Change::Up, Change::Down];
        Change::NAMES.iter().position(|have| *have == name).map(|at| all[at])
    }

    /// Whether a value may grow.
    pub fn may_grow(self) -> bool {
        matches!(self, Change::Free | Change::Up)
    }

    /// Whether a value may shrink.
    pub fn may_shrink(self) -> bool {
        matches!(self, Change::Free | Change::Down)
    }
}

/// What an attacker may do to vectors of features: for each, its name, the bounds of its value, and which way it may be
/// changed. All are as long as there are features.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Names of the features.
    pub names: Vec<String>,
    /// Least value of each.
    pub least: Vec<f32>,
    /// Greatest value of each.
    pub most: Vec<f32>,
    /// Which way each may be changed.
    pub changes: Vec<Change>,
}

impl Limits {
    /// Number of features.
    pub fn len(&self) -> usize {
        self.least.len()
    }

    /// Whether there is no feature.
    pub fn is_empty(&self) -> bool {
        self.least.is_empty()
    }

    /// The largest value, without its sign, that a feature may have.
    pub fn magnitude(&self) -> f32 {
        self.least.iter().chain(&self.most).fold(0.0, |most, bound| most.max(bound.abs()))
    }

    /// Features that may be changed.
    pub fn changeable(&self) -> usize {
        self.changes.iter().filter(|change| **change != Change::Fixed).count()
    }

    /// These limits once values are scaled by [`Limits::scale`]: the bounds are 0 and 1, or 0 and 0 where they were equal.
    fn unit(&self) -> Limits {
        let most = self.least.iter().zip(&self.most).map(|(least, most)| f32::from(u8::from(least < most)));
        Limits { least: vec![0.0; self.len()], most: most.collect(), ..self.clone() }
    }

    /// Values \[N, F\] brought to 0 to 1 by their bounds.
    fn scale(&self, mut values: Vec<f32>) -> Vec<f32> {
        for row in values.chunks_exact_mut(self.len()) {
            for ((value, least), most) in row.iter_mut().zip(&self.least).zip(&self.most) {
                // In f64: the distance of two f32 may be more than the largest of them.
                let (x, a, b) = (f64::from(*value), f64::from(*least), f64::from(*most));
                *value = if a < b { ((x - a) / (b - a)) as f32 } else { 0.0 };
            }
        }
        values
    }

    /// Why `values` \[N, F\] are refused under these limits, if they are.
    pub fn refusal(&self, values: &[f32]) -> Option<String> {
        let count = self.len();
        if [self.names.len(), self.most.len(), self.changes.len()] != [count; 3] {
            return Some("names, bounds and changes are not of as many features".into());
        }
        for (at, (least, most)) in self.least.iter().zip(&self.most).enumerate() {
            if !(least.is_finite() && most.is_finite() && least <= most) {
                let name = &self.names[at];
                return Some(format!(
                    "the bounds of feature `{name}` are {least} to {most}, not two numbers in order"
                ));
            }
        }
        let at = (0..values.len())
            .find(|&i| !(self.least[i % count] <= values[i] && values[i] <= self.most[i % count]))?;
        let (row, column) = (at / count, at % count);
        let (value, name) = (values[at], &self.names[column]);
        Some(match value.is_finite() {
            false => format!("feature `{name}` of row {row} is {value}, not a number"),
            true => format!(
                "feature `{name}` of row {row} is {value}, outside of its bounds, {} to {}: give other bounds, or mend \
                 the value",
                self.least[column], self.most[column]
            ),
        })
    }
}

/// One part of a data set of features, as a file gives it.
pub(super) struct Part<'a> {
    /// \[N, F\].
    pub(super) values: Vec<f32>,
    pub(super) labels: Vec<u32>,
    /// Where the values are from.
    pub(super) path: &'a Path,
    /// Where the labels are from.
    pub(super) labels_path: &'a Path,
}

/// The data set of these parts under `limits`; with `scale` each feature is brought to 0 to 1 by its bounds.
///
/// # Errors
/// [`Error::File`] where a value is no number or outside of its bounds, or a label is out of range.
pub(super) fn dataset(
    name: &str,
    parts: [Part<'_>; 2],
    limits: Limits,
    scale: bool,
    classes: Option<Vec<String>>,
) -> Result<Data> {
    for part in &parts {
        if let Some(why) = limits.refusal(&part.values) {
            return Err(Error::file(part.path, why));
        }
    }
    let labels = [0, 1].map(|at: usize| (&parts[at].labels[..], parts[at].labels_path));
    let classes = names::of(name, labels, classes)?;
    let scaled = if scale { limits.unit() } else { limits.clone() };
    let [train, test] = parts.map(|part| {
        let how = if scale { ", each scaled to 0 to 1 by its bounds" } else { "" };
        let source = format!("{} features in {}{how}", limits.len(), part.path.display());
        let values = if scale { limits.scale(part.values) } else { part.values };
        Dataset::of_features(name, source, values, scaled.clone(), part.labels, classes.clone())
    });
    Ok(Data { train: train?, test: test? })
}
