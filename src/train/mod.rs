//! Training: recipes, methods, optimisers, schedules, checkpoints, and the loop.

pub mod checkpoint;
mod feed;
mod method;
mod optimizer;
mod recipe;
mod record;
mod schedule;
mod trainer;

pub use checkpoint::{Checkpoint, Position, Weights};
pub use method::{Batch, METHODS, Method, Objective, method};
pub use optimizer::{DECAYED, Decayed, OPTIMIZERS, Optimizer};
pub use recipe::{MODES, Recipe, rational};
pub use record::{EpochRecord, Observer, Silent, StepReport};
pub use schedule::{PLACES, Place, SCHEDULES, Schedule};
pub use trainer::{EVALUATION_BATCH, Outcome, Phase, Trainer};
