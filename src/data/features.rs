//! Vectors of features: what an attacker may do to each.

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
