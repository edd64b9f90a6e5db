//! Learning rates over a run, a value per step.

use super::Recipe;
use crate::error::{Error, Result};

/// Names of the schedules.
pub const SCHEDULES: [&str; 5] = ["constant", "linear", "cosine", "cyclic", "piecewise"];

/// The learning rate as a function of the share of the run that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The same throughout.
    Constant,
    /// From the full rate down to 0 in a line.
    Linear,
    /// From the full rate down to 0 along half a cosine.
    Cosine,
    /// From 0 up to the full rate at 40 % and down to 0 at the end, in lines (fast_adversarial, MNIST; spec 2.2).
    Cyclic,
    /// The full rate, a tenth from 50 % on, a hundredth from 75 % on (Rice et al. 2020; spec 2.1).
    Piecewise,
}

impl Schedule {
    /// The recipe's schedule.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name.
    pub fn of(recipe: &Recipe) -> Result<Schedule> {
        match recipe.schedule.as_str() {
            "constant" => Ok(Schedule::Constant),
            "linear" => Ok(Schedule::Linear),
            "cosine" => Ok(Schedule::Cosine),
            "cyclic" => Ok(Schedule::Cyclic),
            "piecewise" => Ok(Schedule::Piecewise),
            other => Err(Error::unknown("schedule", other, &SCHEDULES)),
        }
    }

    /// Factor on the full rate after `done` of the run, 0 to 1.
    pub fn factor(self, done: f64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - done,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Schedule::Cyclic if done < 0.4 => done / 0.4,
            Schedule::Cyclic => (1.0 - done) / 0.6,
            Schedule::Piecewise if done < 0.5 => 1.0,
            Schedule::Piecewise if done < 0.75 => 0.1,
            Schedule::Piecewise => 0.01,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_pass_through_their_corners() {
        assert_eq!(Schedule::Cyclic.factor(0.0), 0.0);
        assert_eq!(Schedule::Cyclic.factor(0.4), 1.0);
        assert_eq!(Schedule::Cyclic.factor(1.0), 0.0);
        assert_eq!(Schedule::Linear.factor(0.25), 0.75);
        assert!((Schedule::Cosine.factor(0.5) - 0.5).abs() < 1e-15);
        assert_eq!([0.49, 0.5, 0.75].map(|done| Schedule::Piecewise.factor(done)), [1.0, 0.1, 0.01]);
    }
}
