//! Accuracy as counts, with its uncertainty.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Quantile of the standard normal distribution that leaves 2.5 % on either side.
const Z: f64 = 1.959_963_984_540_054;

/// Images classified right, of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Images classified right.
    pub correct: u64,
    /// Images in all.
    pub total: u64,
}

impl Accuracy {
    /// `correct` of `total` images.
    pub fn new(correct: u64, total: u64) -> Accuracy {
        Accuracy { correct, total }
    }

    /// Share that is right, 0 to 1; 0 where there are no images.
    pub fn fraction(self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }

    /// Share that is right, in percent.
    pub fn percent(self) -> f64 {
        100.0 * self.fraction()
    }

    /// The 95 % confidence interval of the share, both ends 0 to 1: Wilson, "Probable inference, the law of
    /// succession, and statistical inference", 1927. Right near 0 and 1 too, where the usual one is not. It speaks of
    /// the choice of images only, not of other training seeds.
    pub fn interval(self) -> (f64, f64) {
        if self.total == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.total as f64, self.fraction());
        let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        // All and nothing are ends of their intervals, which rounding would miss by a hair.
        let low = if self.correct == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if self.correct == self.total { 1.0 } else { (centre + half).min(1.0) };
        (low, high)
    }
}

impl Accuracy {
    /// "97.35 % (96.55 to 97.97)": with the ends of its 95 % interval.
    pub fn with_interval(self) -> String {
        let (low, high) = self.interval();
        format!("{self} ({:.2} to {:.2})", 100.0 * low, 100.0 * high)
    }
}

/// "97.35 %".
impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} %", self.percent())
    }
}

impl std::ops::AddAssign for Accuracy {
    fn add_assign(&mut self, other: Accuracy) {
        self.correct += other.correct;
        self.total += other.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_interval() {
        // Agresti and Coull (1998) and R's prop.test(correct = FALSE).
        let near = |accuracy: Accuracy, low: f64, high: f64| {
            let (l, h) = accuracy.interval();
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{accuracy}: {l} to {h}");
        };
        near(Accuracy::new(0, 10), 0.0, 0.2775);
        near(Accuracy::new(10, 10), 0.7225, 1.0);
        near(Accuracy::new(5, 10), 0.2366, 0.7634);
        near(Accuracy::new(1947, 2000), 0.9655, 0.9797);
        assert_eq!(Accuracy::default().interval(), (0.0, 1.0));
        assert_eq!(Accuracy::new(1947, 2000).with_interval(), "97.35 % (96.55 to 97.97)");
    }

    #[test]
    fn shares() {
        let mut accuracy = Accuracy::new(1, 3);
        accuracy += Accuracy::new(2, 3);
        assert_eq!((accuracy.fraction(), accuracy.to_string().as_str()), (0.5, "50.00 %"));
        assert_eq!(Accuracy::default().percent(), 0.0);
    }
}
