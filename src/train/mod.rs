//! Training: recipes, methods, optimisers, schedules, checkpoints, and the loop.

mod augment;
mod average;
pub mod checkpoint;
pub mod examples;
mod feed;
mod method;
mod optimizer;
mod peers;
mod recipe;
pub mod recipes;
mod record;
mod schedule;
mod trainer;
mod watch;

pub use crate::weights::Weights;
pub use augment::{Augmentation, Mix, Mixing};
pub use average::{Averaging, BUFFERS, Buffers, SNAPSHOTS};
pub use checkpoint::{Checkpoint, Position};
pub use method::{Batch, METHODS, Method, Objective, method};
pub use optimizer::{DECAYED, Decayed, OPTIMIZERS, Optimizer};
pub use peers::Peers;
pub use recipe::{MODES, Recipe, rational};
pub use record::{Collapse, EpochRecord, Observer, Silent, StepReport};
pub use schedule::{PLACES, Place, SCHEDULES, Schedule};
pub use trainer::{EVALUATION_BATCH, Outcome, Phase, Trainer};
pub use watch::{BLIND, COLLAPSE, CheckpointEvery, OnCollapse, PROBE_STEPS, Stopped};
