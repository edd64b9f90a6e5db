//! What a run tells while it goes.

use serde::{Deserialize, Deserializer, Serialize};

/// What is known after an epoch. Accuracies are fractions, 0 to 1, and absent (`null`) where they were not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch that ended, counted from 1.
    pub epoch: u32,
    /// Wall-clock time it took, validation included, in seconds.
    pub seconds: f64,
    /// Mean training loss over the epoch.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Accuracy on the clean training images, as they were trained on.
    pub train_clean: Option<f64>,
    /// Accuracy on the attacked training images, as they were trained on.
    pub train_robust: Option<f64>,
    /// Accuracy on the clean validation images, after the epoch.
    pub validation_clean: Option<f64>,
    /// Accuracy on the attacked validation images, after the epoch.
    pub validation_robust: Option<f64>,
    /// Of a network with dummy classes: accuracy on the validation images when its raw outputs are attacked, which
    /// over-reports; the one above is of the collapsed network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_raw: Option<f64>,
    /// Epsilon that was trained with at the end of the epoch.
    pub epsilon: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f64,
    /// Training images a second, over the training part of the epoch.
    pub examples_per_second: f64,
    /// Whether these weights were the best so far on the validation images, and were kept. The chosen epoch of a
    /// run is the last that says so.
    pub best: bool,
    /// Accuracy on the clean probe images (training images, the same throughout), after the epoch.
    #[serde(default)]
    pub probe_clean: Option<f64>,
    /// Accuracy on the probe images attacked by PGD-5, after the epoch.
    #[serde(default)]
    pub probe_robust: Option<f64>,
    /// Mean cosine of the input gradients at probe images and at random points of the ball around them, -1 to 1.
    #[serde(default)]
    pub alignment: Option<f64>,
    /// Accuracy on clean test images, after the epoch. Nothing is chosen by it.
    #[serde(default)]
    pub test_clean: Option<f64>,
    /// Accuracy on attacked test images, after the epoch. Nothing is chosen by it.
    #[serde(default)]
    pub test_robust: Option<f64>,
    /// Whether catastrophic overfitting was seen in this epoch, and by what.
    #[serde(default)]
    pub collapse: Option<Collapse>,
}

/// By what catastrophic overfitting was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collapse {
    /// The robust accuracy on the probe images fell by more than [`super::COLLAPSE`], from that after the epoch before.
    Fell {
        /// What it was.
        from: f64,
        /// What it is.
        to: f64,
    },
    /// The attack that is trained on breaks fewer images than PGD-5 does, by more than [`super::BLIND`].
    Blind {
        /// Accuracy on the attacked training images over the epoch.
        trained: f64,
        /// Robust accuracy on the probe images.
        probe: f64,
    },
}

impl std::fmt::Display for Collapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Collapse::Fell { from, to } => write!(
                f,
                "robust accuracy on the probe images fell from {:.1} to {:.1} %",
                100.0 * from,
                100.0 * to
            ),
            Collapse::Blind { trained, probe } => write!(
                f,
                "{:.1} % of the training images withstand the attack they were trained with, but only {:.1} % of the \
                 probe images PGD-5",
                100.0 * trained,
                100.0 * probe
            ),
        }
    }
}

/// JSON has no NaN: it is written as `null`.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// What is known within an epoch.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Images learned from since the last report.
    pub images: usize,
    /// Mean loss over the epoch so far, when it was read back.
    pub loss: Option<f64>,
    /// Accuracy on the epoch's training images so far, as they were trained on, when it was read back.
    pub accuracy: Option<f64>,
}

/// Whoever wants to hear how a run goes.
pub trait Observer {
    /// A step was handed to the device.
    fn step(&mut self, _report: &StepReport) {}

    /// An epoch ended; its weights are saved next.
    ///
    /// # Errors
    /// Ends the run, which then resumes from the checkpoint before.
    fn epoch(&mut self, _record: &EpochRecord) -> crate::error::Result<()> {
        Ok(())
    }
}

/// Hears nothing.
pub struct Silent;

impl Observer for Silent {}
