//! What a run looks out for, and when it saves what it goes on from.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::time::Duration;

/// Robust accuracy on the probe images that falls by more than this from one epoch to the next is catastrophic
/// overfitting (fast_adversarial/CIFAR10/train_fgsm.py; spec 2.2).
pub const COLLAPSE: f64 = 0.2;

/// Training images that withstand the attack trained on and are broken by the probe's, as a share, from which on that is
/// catastrophic overfitting without an epoch before it to compare with. Attacks of one step that work are within some
/// 0.1 of PGD-5.
pub const BLIND: f64 = 0.5;

/// Steps of the attack on the probe images, each of a quarter of epsilon: 5 of 2/255 for 8/255 (spec 2.2).
pub const PROBE_STEPS: usize = 5;

/// What to do about catastrophic overfitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCollapse {
    /// Say so and go on.
    Warn,
    /// Say so and stop.
    Stop,
    /// Take the weights from before the epoch, and stop.
    Back,
}

/// Why a run ended before its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// The validation accuracy did not get better for as many epochs as the recipe has patience.
    Patience,
    /// Catastrophic overfitting; the weights are those after it.
    Collapse,
    /// Catastrophic overfitting; the weights are those from before that epoch.
    WentBack,
}

/// How often a run saves what it goes on from while an epoch is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckpointEvery {
    /// At the ends of epochs alone.
    Epoch,
    /// After so many steps.
    Steps(u32),
    /// After the step that so much time has passed by.
    Time(Duration),
}

impl Default for CheckpointEvery {
    /// Three minutes: what a kill costs at most, for less than a hundredth of the time even where a checkpoint takes a
    /// second.
    fn default() -> CheckpointEvery {
        CheckpointEvery::Time(Duration::from_secs(180))
    }
}

impl CheckpointEvery {
    /// Whether it is time, so many steps and so long after the last checkpoint.
    pub fn is_due(self, steps: u32, time: Duration) -> bool {
        match self {
            CheckpointEvery::Epoch => false,
            CheckpointEvery::Steps(every) => steps >= every,
            CheckpointEvery::Time(every) => time >= every,
        }
    }
}

impl FromStr for CheckpointEvery {
    type Err = Error;

    /// `3min`, `0.5min`, `500` (steps), `0` (epochs alone).
    fn from_str(text: &str) -> Result<CheckpointEvery> {
        let refuse = || {
            let why = "write minutes as 3min or 0.5min, steps as 500, or 0 for the ends of epochs alone";
            Error::argument("how often to save", format!("`{text}`"), why)
        };
        let text = text.trim();
        if let Some(minutes) = text.strip_suffix("min") {
            let minutes: f64 = minutes.trim().parse().map_err(|_| refuse())?;
            // A week; and what is not a number is in no range.
            return match (0.0..=1e4).contains(&minutes) {
                true => Ok(CheckpointEvery::Time(Duration::from_secs_f64(60.0 * minutes))),
                false => Err(refuse()),
            };
        }
        match text.parse() {
            Ok(0) => Ok(CheckpointEvery::Epoch),
            Ok(steps) => Ok(CheckpointEvery::Steps(steps)),
            Err(_) => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_steps_and_never() {
        let parse = |text: &str| text.parse::<CheckpointEvery>();
        assert_eq!(parse("3min").unwrap(), CheckpointEvery::default());
        assert_eq!(parse("0.5 min").unwrap(), CheckpointEvery::Time(Duration::from_secs(30)));
        assert_eq!(parse("500").unwrap(), CheckpointEvery::Steps(500));
        assert_eq!(parse("0").unwrap(), CheckpointEvery::Epoch);
        for wrong in ["", "min", "-1min", "nanmin", "infmin", "-5", "3 hours", "1e9min", "1.5"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("3min"), "{wrong}: {error}");
        }
        assert!(CheckpointEvery::Steps(3).is_due(3, Duration::ZERO));
        assert!(!CheckpointEvery::Steps(3).is_due(2, Duration::MAX));
        assert!(CheckpointEvery::default().is_due(0, Duration::from_secs(180)));
        assert!(!CheckpointEvery::Epoch.is_due(u32::MAX, Duration::MAX));
    }
}
