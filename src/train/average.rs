//! Averages of weights over a run: what is judged and saved in the place of the trained ones.
//!
//! An average is recorded once, `average + share * (weight - average)` after each update; what it is an average of is the
//! table of shares: an exponential moving average, one with a warm-up, or the plain mean of snapshots (SWA).

use super::Recipe;
use super::schedule::Time;
use crate::error::{Error, Result};
use crate::shape::{DType, Shape};
use crate::tape::{Tape, Var};

/// Share of the new weights in their average, after this update; a scalar.
const SHARE: &str = "average.share";

/// Names of how the running statistics of batch norms are averaged.
pub const BUFFERS: [&str; 3] = ["copy", "average", "recompute"];

/// What stands beside averaged weights where the trained ones have running statistics of batch norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// Those of the trained weights (Gowal et al. 2020).
    Copy,
    /// Their average, as of any weight (FastAT).
    Average,
    /// The mean over a pass of the averaged weights over the training images, before each judgement
    /// (`torch.optim.swa_utils.update_bn`, Izmailov et al. 2018).
    Recompute,
}
/// Names of how often snapshots are taken.
pub const SNAPSHOTS: [&str; 2] = ["epoch", "step"];

/// How weights are averaged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averaging {
    kind: Kind,
    /// The running statistics beside them.
    pub buffers: Buffers,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `average <- d average + (1 - d) weight` with the same d throughout.
    Exponential { decay: f64 },
    /// The weights themselves over this share of the updates; then d = min(decay, (1 + s) / (10 + s)), s being the
    /// updates since (Gowal et al. 2020; DM-Improves-AT's watrain.py, where the share is 0.025).
    Warmed { decay: f64, share: f64 },
    /// The mean of the weights after every update, or after every epoch, from `start` on (stochastic weight averaging,
    /// Izmailov et al. 2018); until then the weights themselves.
    Snapshots { start: Time, every_epoch: bool },
}

impl Averaging {
    /// What the recipe averages, if it does.
    ///
    /// # Errors
    /// [`Error::Argument`] for numbers that do not go together.
    pub fn of(recipe: &Recipe) -> Result<Option<Averaging>> {
        let refuse =
            |what: &str, value: &dyn ToString, why: &str| Err(Error::argument(what, value.to_string(), why));
        let (decay, share) = (recipe.weight_average, recipe.weight_average_warmup);
        if !(0.0..=1.0).contains(&decay) {
            return refuse("weight average", &decay, "must be a number from 0 to 1.0");
        }
        if !(0.0..1.0).contains(&share) {
            return refuse(
                "warm-up of the weight average",
                &share,
                "must be a share of the run from 0 to below 1",
            );
        }
        let buffers = match recipe.weight_average_buffers.as_str() {
            "copy" => Buffers::Copy,
            "average" => Buffers::Average,
            "recompute" => Buffers::Recompute,
            other => return Err(Error::unknown("weight average buffers", other, &BUFFERS)),
        };
        let every_epoch = match recipe.swa_every.as_str() {
            "epoch" => true,
            "step" => false,
            other => return Err(Error::unknown("swa every", other, &SNAPSHOTS)),
        };
        let start = Time::of("swa start", recipe.swa_start)?;
        let kind = match (recipe.swa_start > 0.0, decay > 0.0) {
            (true, true) => {
                let why = "averages of two kinds: set --weight-average 0 with it";
                return refuse("swa start", &recipe.swa_start, why);
            }
            (true, false) if start.epochs(f64::from(recipe.epochs)) >= f64::from(recipe.epochs) => {
                return refuse("swa start", &recipe.swa_start, "is not before the end of the run");
            }
            (true, false) => Kind::Snapshots { start, every_epoch },
            (false, true) if share > 0.0 => Kind::Warmed { decay, share },
            (false, true) => Kind::Exponential { decay },
            (false, false) => return Ok(None),
        };
        Ok(Some(Averaging { kind, buffers }))
    }

    /// Records the average of what is `value` after the update, in tensor `name`, and assigns it.
    pub(super) fn record<'t>(self, tape: &'t Tape, name: &str, value: Var<'t>) {
        let average = tape.source(name, value.shape(), DType::F32);
        let way = value - average;
        let way = match self.kind {
            Kind::Exponential { decay } => way.scale(1.0 - decay),
            _ => way * tape.source(SHARE, Shape::scalar(), DType::F32),
        };
        tape.assign(name, way + average);
    }

    /// The scalars that it reads after update `update` (from 0) of a run of `epochs` epochs of `per_epoch` updates, by
    /// the names of their tensors.
    pub fn scalars(&self, update: u64, per_epoch: u64, epochs: u64) -> Vec<(&'static str, f64)> {
        match self.kind {
            Kind::Exponential { .. } => Vec::new(),
            _ => vec![(SHARE, self.share(update, per_epoch, epochs))],
        }
    }

    fn share(&self, update: u64, per_epoch: u64, epochs: u64) -> f64 {
        match self.kind {
            Kind::Exponential { decay } => 1.0 - decay,
            Kind::Warmed { decay, share } => {
                let warm = (share * (per_epoch * epochs) as f64).round() as u64;
                match update.checked_sub(warm) {
                    Some(since) => 1.0 - decay.min((1 + since) as f64 / (10 + since) as f64),
                    None => 1.0,
                }
            }
            Kind::Snapshots { start, every_epoch } => {
                let start = start.epochs(epochs as f64);
                // Snapshots that were taken before this update, and whether it is followed by one.
                let (taken, takes) = if every_epoch {
                    let (epoch, first) = (update / per_epoch, start.ceil() as u64);
                    (epoch.checked_sub(first), (update + 1).is_multiple_of(per_epoch))
                } else {
                    let first = (start * per_epoch as f64).ceil() as u64;
                    (update.checked_sub(first), true)
                };
                match (taken, takes) {
                    (None, _) | (Some(0), false) => 1.0,
                    (Some(_), false) => 0.0,
                    (Some(taken), true) => 1.0 / (taken + 1) as f64,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(recipe: &Recipe, per_epoch: u64) -> Vec<f64> {
        let averaging = Averaging::of(recipe).unwrap().unwrap();
        let epochs = u64::from(recipe.epochs);
        (0..epochs * per_epoch).map(|update| averaging.share(update, per_epoch, epochs)).collect()
    }

    /// What the shares make of a sequence of numbers.
    fn averages(shares: &[f64]) -> Vec<f64> {
        let mut average = 100.0;
        let weights = (0..shares.len()).map(|i| (i * i) as f64);
        weights
            .zip(shares)
            .map(|(weight, share)| {
                average += share * (weight - average);
                average
            })
            .collect()
    }

    #[test]
    fn a_warmed_average_goes_by_its_formula() {
        let recipe =
            Recipe { weight_average: 0.6, weight_average_warmup: 0.25, epochs: 4, ..Recipe::default() };
        let shares = shares(&recipe, 5);
        // Five of twenty updates; then 1/10, 2/11, 3/12, ..., until 0.6 is reached at 14/23.
        assert_eq!(shares[..5], [1.0; 5]);
        for (since, share) in shares[5..].iter().enumerate() {
            let decay = ((1 + since) as f64 / (10 + since) as f64).min(0.6);
            assert!((share - (1.0 - decay)).abs() < 1e-15, "{since}");
        }
        assert_eq!(shares[19], 1.0 - 0.6);
        // Without a warm-up the decay is the same from the first update on.
        let plain = Recipe { weight_average_warmup: 0.0, ..recipe };
        assert!(super::tests::shares(&plain, 5).iter().all(|share| *share == 1.0 - 0.6));
    }

    #[test]
    fn snapshots_are_averaged_with_equal_weight() {
        let swa = |start, every: &str| Recipe {
            weight_average: 0.0,
            swa_start: start,
            swa_every: every.into(),
            epochs: 4,
            ..Recipe::default()
        };
        // Epochs of three updates. Every step from the second half on: updates 6 to 11.
        let by_step = averages(&shares(&swa(0.5, "step"), 3));
        assert_eq!(by_step[..6], [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
        for (last, average) in by_step.iter().enumerate().skip(6) {
            let mean = (6..=last).map(|i| (i * i) as f64).sum::<f64>() / (last - 5) as f64;
            assert!((average - mean).abs() < 1e-12, "{last}: {average}");
        }
        // After every epoch from two done ones on: updates 8 and 11; before the first the weights themselves.
        let by_epoch = averages(&shares(&swa(2.0, "epoch"), 3));
        assert_eq!(by_epoch[..9], (0..9).map(|i| f64::from(i * i)).collect::<Vec<_>>()[..]);
        assert_eq!(by_epoch[9..], [64.0, 64.0, (64.0 + 121.0) / 2.0]);
    }

    #[test]
    fn averages_of_two_kinds_and_late_starts_are_refused() {
        let error = |recipe: Recipe| Averaging::of(&recipe).unwrap_err().to_string();
        let swa = |start| Recipe { weight_average: 0.0, swa_start: start, epochs: 4, ..Recipe::default() };
        assert!(error(Recipe { swa_start: 0.5, weight_average: 0.9, ..swa(0.5) }).contains("two kinds"));
        assert!(error(swa(4.0)).contains("not before the end"));
        assert!(error(swa(f64::NAN)).contains("share of the run"));
        assert!(error(Recipe { swa_every: "stop".into(), ..swa(0.5) }).contains("did you mean `step`?"));
        assert!(error(Recipe { weight_average_warmup: 1.0, ..swa(0.0) }).contains("below 1"));
        assert!(error(Recipe { weight_average_buffers: "cpy".into(), ..swa(0.0) }).contains("`copy`"));
        assert_eq!(Averaging::of(&swa(0.0)).unwrap(), None);
    }
}
