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
    /// Epsilon that was trained with at the end of the epoch.
    pub epsilon: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f64,
    /// Training images a second, over the training part of the epoch.
    pub examples_per_second: f64,
    /// Whether these weights were the best so far on the validation images, and were kept. The chosen epoch of a
    /// run is the last that says so.
    pub best: bool,
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
