//! Learning rates over a run, a value per step, as the references take them.
//!
//! A schedule is a factor on the full rate at a [`Place`] in the run. Where the rate of a step is read differs between
//! the references, and is a key of its own (`schedule_at`): the code of Rice et al. and fast_adversarial's MNIST
//! script take the place after the step, schedulers of PyTorch that are stepped after the optimiser (fast_adversarial
//! on CIFAR-10, N-FGSM) the place before it, and TRADES, MART, MadryLab/robustness and DM change the rate between epochs.

use super::Recipe;
use crate::error::{Error, Result};

/// Names of the schedules.
pub const SCHEDULES: [&str; 8] =
    ["constant", "linear", "cosine", "cyclic", "one-cycle", "piecewise", "multistep", "interpolated"];

/// Names of where a step's rate is read.
pub const PLACES: [&str; 4] = ["auto", "end", "start", "epoch"];

/// What PyTorch's one-cycle begins at, as a part of the full rate (`div_factor` 25).
const ONE_CYCLE_FIRST: f64 = 1.0 / 25.0;
/// What it ends at, as a part of that (`final_div_factor` 1e4).
const ONE_CYCLE_LAST: f64 = 1e-4;

/// The learning rate over a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    curve: Curve,
    read: Read,
    warmup: Time,
}

/// How the rate goes, as a factor on the full one.
#[derive(Clone, Debug, PartialEq)]
enum Curve {
    /// The same throughout.
    Constant,
    /// From the full rate down to 0 in a line.
    Linear,
    /// From the full rate down to 0 along half a cosine (`CosineAnnealingLR`).
    Cosine,
    /// From 0 up to the full rate at this share and down to 0 at the end, in lines (fast_adversarial: 1/2 on CIFAR-10,
    /// 2/5 on MNIST; Rice et al. 2/5; spec 2.1, 2.2).
    Cyclic { peak: f64 },
    /// Along half a cosine from 1/25 of the full rate up to it at this share, and along another down to 4e-6
    /// (Smith and Topin 2018; `OneCycleLR`, `pct_start` being the share).
    OneCycle { peak: f64 },
    /// The full rate, times the factors of all milestones that are reached. `piecewise` is 1/10 at 50 % and at 75 %
    /// (Rice et al. 2020; spec 2.1).
    Steps(Vec<(Time, f64)>),
    /// Through these points in lines, and level before the first and after the last (`numpy.interp`).
    Interpolated(Vec<(Time, f64)>),
}

/// Where the rate of a step is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// When the step is done: n/N for the n-th of N steps. A milestone then takes effect a step early.
    End,
    /// Before it: (n - 1)/N.
    Start,
    /// Before its epoch.
    Epoch,
}

/// A point of time in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Time {
    Share(f64),
    Epoch(f64),
}

impl Time {
    /// Below 1 a share of the run, from 1 on epochs.
    pub(super) fn of(what: &str, number: f64) -> Result<Time> {
        match number {
            _ if !number.is_finite() || number < 0.0 => {
                let why = "must be a share of the run (from 0 to below 1) or a number of epochs (from 1)";
                Err(Error::argument(what, number, why))
            }
            _ if number < 1.0 => Ok(Time::Share(number)),
            _ => Ok(Time::Epoch(number)),
        }
    }

    /// In epochs of a run of so many.
    pub(super) fn epochs(self, of: f64) -> f64 {
        match self {
            Time::Share(share) => share * of,
            Time::Epoch(epoch) => epoch,
        }
    }
}

/// A step's place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Steps that are done before it.
    pub step: u64,
    /// Steps of an epoch.
    pub per_epoch: u64,
    /// Epochs of the run.
    pub epochs: u64,
}

impl Schedule {
    /// The recipe's schedule.
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name, or numbers that do not belong to it.
    pub fn of(recipe: &Recipe) -> Result<Schedule> {
        let peak = recipe.schedule_peak;
        if !(peak > 0.0 && peak < 1.0) {
            return Err(Error::argument("schedule peak", peak, "must be a share of the run between 0 and 1"));
        }
        let name = recipe.schedule.as_str();
        let curve = match name {
            "constant" => Curve::Constant,
            "linear" => Curve::Linear,
            "cosine" => Curve::Cosine,
            "cyclic" => Curve::Cyclic { peak },
            "one-cycle" => Curve::OneCycle { peak },
            "piecewise" => Curve::Steps(vec![(Time::Share(0.5), 0.1), (Time::Share(0.75), 0.1)]),
            "multistep" => Curve::Steps(points(recipe)?),
            "interpolated" => Curve::Interpolated(points(recipe)?),
            other => return Err(Error::unknown("schedule", other, &SCHEDULES)),
        };
        if !recipe.milestones.is_empty() && !matches!(name, "multistep" | "interpolated") {
            let why = format!("only `multistep` and `interpolated` have them, not `{name}`");
            return Err(Error::argument("milestones", format!("{:?}", recipe.milestones), why));
        }
        let read = match (recipe.schedule_at.as_str(), &curve) {
            ("auto" | "start", Curve::OneCycle { .. }) => Read::Start,
            ("auto", Curve::Steps(_)) if name == "multistep" => Read::Start,
            ("end", Curve::OneCycle { .. }) => {
                let why = "one-cycle counts its steps as PyTorch does, from 0: `start` or `epoch`";
                return Err(Error::argument("schedule at", "`end`", why));
            }
            ("auto" | "end", _) => Read::End,
            ("start", _) => Read::Start,
            ("epoch", _) => Read::Epoch,
            (other, _) => return Err(Error::unknown("schedule at", other, &PLACES)),
        };
        let warmup = Time::of("warm-up of the learning rate", recipe.learning_rate_warmup)?;
        let epochs = f64::from(recipe.epochs);
        if warmup.epochs(epochs) >= epochs && recipe.epochs > 0 {
            let why = format!("must be shorter than the run of {epochs} epochs");
            return Err(Error::argument("warm-up of the learning rate", recipe.learning_rate_warmup, why));
        }
        Ok(Schedule { curve, read, warmup })
    }

    /// Factor on the full rate for a step.
    ///
    /// A warm-up comes in front: the factor rises in a line from 0 to 1, and the curve runs over what is left.
    /// Milestones keep their places in the run.
    pub fn factor(&self, place: Place) -> f64 {
        let Place { step, per_epoch, epochs } = place;
        // In steps, or in epochs where the rate is that of a whole epoch: PyTorch's schedulers do not know which.
        let (at, of, unit) = match self.read {
            Read::End => ((step + 1) as f64, (epochs * per_epoch) as f64, per_epoch as f64),
            Read::Start => (step as f64, (epochs * per_epoch) as f64, per_epoch as f64),
            Read::Epoch => ((step / per_epoch) as f64, epochs as f64, 1.0),
        };
        let in_units = |time: &Time| time.epochs(epochs as f64) * unit;
        let warm = in_units(&self.warmup);
        if at < warm {
            return at / warm;
        }
        let (since, rest) = (at - warm, of - warm);
        let done = since / rest;
        match &self.curve {
            Curve::Constant => 1.0,
            Curve::Linear => 1.0 - done,
            Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Curve::Cyclic { peak } if done < *peak => done / peak,
            Curve::Cyclic { peak } => (1.0 - done) / (1.0 - peak),
            Curve::OneCycle { peak } => {
                // PyTorch numbers steps from 0 to rest - 1, and puts the peak at peak * rest - 1.
                let (top, last) = (peak * rest - 1.0, rest - 1.0);
                let between = |from: f64, to: f64, share: f64| {
                    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
                };
                if since <= top {
                    between(ONE_CYCLE_FIRST, 1.0, since / top.max(f64::MIN_POSITIVE))
                } else {
                    between(1.0, ONE_CYCLE_FIRST * ONE_CYCLE_LAST, (since - top) / (last - top))
                }
            }
            Curve::Steps(points) => {
                points.iter().filter(|(time, _)| at >= in_units(time)).map(|(_, factor)| factor).product()
            }
            Curve::Interpolated(points) => {
                let next = points.iter().position(|(time, _)| in_units(time) > at).unwrap_or(points.len());
                match (next.checked_sub(1).map(|i| &points[i]), points.get(next)) {
                    (Some((from, low)), Some((to, high))) => {
                        let (from, to) = (in_units(from), in_units(to));
                        low + (high - low) * (at - from) / (to - from)
                    }
                    (Some((_, level)), None) | (None, Some((_, level))) => *level,
                    (None, None) => 1.0,
                }
            }
        }
    }
}

/// Milestones of the recipe with their factors.
fn points(recipe: &Recipe) -> Result<Vec<(Time, f64)>> {
    let (milestones, factors) = (&recipe.milestones, &recipe.schedule_factors);
    let refuse = |why: String| Err(Error::argument("milestones", format!("{milestones:?}"), why));
    if milestones.is_empty() {
        let why = "needs them: shares of the run (below 1) or epochs (from 1), as 0.5,0.75 or 100,150";
        return refuse(format!("`{}` {why}", recipe.schedule));
    }
    let times: Vec<Time> = milestones.iter().map(|&m| Time::of("milestones", m)).collect::<Result<_>>()?;
    let epochs = f64::from(recipe.epochs);
    if !times.iter().map(|time| time.epochs(epochs)).is_sorted_by(|a, b| a < b) {
        return refuse("must rise".into());
    }
    let every = match factors.len() {
        1 if recipe.schedule == "multistep" => vec![factors[0]; times.len()],
        have if have == times.len() => factors.clone(),
        have => {
            let why = format!("there are {} milestones, but {have} factors", times.len());
            return Err(Error::argument("schedule factors", format!("{factors:?}"), why));
        }
    };
    if every.iter().any(|factor| !factor.is_finite() || !(0.0..=1e3).contains(factor)) {
        return Err(Error::argument(
            "schedule factors",
            format!("{factors:?}"),
            "must be numbers from 0 to 1000",
        ));
    }
    Ok(times.into_iter().zip(every).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of every step of a run.
    fn factors(recipe: &Recipe, per_epoch: u64) -> Vec<f64> {
        let schedule = Schedule::of(recipe).unwrap();
        let epochs = u64::from(recipe.epochs);
        (0..epochs * per_epoch).map(|step| schedule.factor(Place { step, per_epoch, epochs })).collect()
    }

    fn recipe(schedule: &str, at: &str, epochs: u32) -> Recipe {
        Recipe { schedule: schedule.into(), schedule_at: at.into(), epochs, ..Recipe::default() }
    }

    #[track_caller]
    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() <= 1e-14, "step {i}: {got}, not {want}");
        }
    }

    /// What PyTorch 2.15 prints for its schedulers with a rate of 1, stepped after the optimiser.
    #[test]
    fn schedules_are_pytorchs() {
        // OneCycleLR(max_lr=1, total_steps=10), and with total_steps=20, pct_start=0.25.
        let ten = [
            0.040000000000000036,
            0.52,
            1.0,
            0.9504846320134737,
            0.8117456539497631,
            0.6112620219362893,
            0.38874197806371075,
            0.18825834605023697,
            0.049519367986526286,
            4e-06,
        ];
        let one_cycle = |peak, at, epochs| Recipe { schedule_peak: peak, ..recipe("one-cycle", at, epochs) };
        close(&factors(&one_cycle(0.3, "auto", 2), 5), &ten);
        // A rate an epoch: PyTorch's scheduler stepped once an epoch.
        let epochs = factors(&one_cycle(0.3, "epoch", 10), 3);
        close(&epochs.iter().copied().step_by(3).collect::<Vec<_>>(), &ten);
        assert!(epochs.chunks(3).all(|epoch| epoch.iter().all(|x| *x == epoch[0])));
        close(
            &factors(&one_cycle(0.25, "start", 4), 5),
            &[
                0.040000000000000036,
                0.1805887450304573,
                0.52,
                0.8594112549695427,
                1.0,
                0.9890738440717014,
                0.9567729017303851,
                0.904508879153485,
                0.8345659649182164,
                0.750001,
                0.654509879153485,
                0.5522660225769003,
                0.4477379774230999,
                0.3454941208465151,
                0.2500030000000001,
                0.16543803508178376,
                0.09549512084651508,
                0.04323109826961479,
                0.010930155928298624,
                4e-06,
            ],
        );
        // CosineAnnealingLR(T_max=8).
        close(
            &factors(&recipe("cosine", "start", 2), 4),
            &[
                1.0,
                0.9619397662556434,
                0.8535533905932737,
                0.6913417161825449,
                0.5,
                0.30865828381745514,
                0.14644660940672627,
                0.03806023374435664,
            ],
        );
        // SequentialLR of LambdaLR(s / 3) and CosineAnnealingLR(T_max=9), milestone 3.
        close(
            &factors(&Recipe { learning_rate_warmup: 0.25, ..recipe("cosine", "start", 4) }, 3),
            &[
                0.0,
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.9698463103929542,
                0.883022221559489,
                0.75,
                0.5868240888334653,
                0.41317591116653485,
                0.2500000000000001,
                0.11697777844051105,
                0.030153689607045845,
            ],
        );
        // MultiStepLR(milestones=[4, 6], gamma=0.1), in epochs and in shares; StepLR(3, gamma=0.1), once an epoch.
        let multistep = |milestones: &[f64], at, epochs| Recipe {
            milestones: milestones.to_vec(),
            ..recipe("multistep", at, epochs)
        };
        let want = [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01];
        close(&factors(&multistep(&[2.0, 3.0], "auto", 4), 2), &want);
        close(&factors(&multistep(&[0.5, 0.75], "auto", 4), 2), &want);
        close(&factors(&multistep(&[2.0, 3.0], "epoch", 4), 2), &want);
        // CyclicLR(base_lr=0, max_lr=1, step_size_up=4, step_size_down=4): fast_adversarial's CIFAR10/train_fgsm.py.
        let cyclic = |peak, at, epochs| Recipe { schedule_peak: peak, ..recipe("cyclic", at, epochs) };
        close(&factors(&cyclic(0.5, "start", 4), 2), &[0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]);
        // numpy.interp at epoch + (i + 1) / batches through (0, 0), (2/5, 1), (1, 0): MNIST/train_mnist.py.
        close(
            &factors(&cyclic(0.4, "auto", 4), 3),
            &[
                0.20833333333333331,
                0.41666666666666663,
                0.625,
                0.8333333333333333,
                0.9722222222222223,
                0.8333333333333334,
                0.6944444444444444,
                0.5555555555555556,
                0.41666666666666663,
                0.2777777777777777,
                0.13888888888888895,
                0.0,
            ],
        );
        // numpy.interp through (0, 0), (1, 1), (3, 0.1), (4, 0.01), in the manner of fast_adversarial's ImageNet.
        let through = Recipe {
            milestones: vec![0.0, 1.0, 3.0, 4.0],
            schedule_factors: vec![0.0, 1.0, 0.1, 0.01],
            ..recipe("interpolated", "end", 4)
        };
        close(
            &factors(&through, 3),
            &[
                0.3333333333333333,
                0.6666666666666666,
                1.0,
                0.8500000000000001,
                0.7000000000000001,
                0.55,
                0.3999999999999999,
                0.25,
                0.1,
                0.06999999999999999,
                0.040000000000000015,
                0.01,
            ],
        );
    }

    #[test]
    fn schedules_pass_through_their_corners() {
        close(&factors(&recipe("linear", "auto", 2), 2), &[0.75, 0.5, 0.25, 0.0]);
        close(&factors(&recipe("piecewise", "auto", 2), 4), &[1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01]);
        close(&factors(&recipe("constant", "auto", 1), 3), &[1.0; 3]);
        let warm = |schedule: &str, at: &str| Recipe {
            learning_rate_warmup: 1.0,
            milestones: if schedule == "multistep" { vec![2.0] } else { Vec::new() },
            ..recipe(schedule, at, 3)
        };
        close(&factors(&warm("constant", "end"), 2), &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        close(&factors(&warm("multistep", "start"), 2), &[0.0, 0.5, 1.0, 1.0, 0.1, 0.1]);
        close(&factors(&warm("cyclic", "start"), 5)[..6], &[0.0, 0.2, 0.4, 0.6, 0.8, 0.0]);
    }

    #[test]
    fn what_does_not_belong_to_a_schedule_is_an_error_that_says_why() {
        let error = |recipe: Recipe| Schedule::of(&recipe).unwrap_err().to_string();
        assert!(error(recipe("cosin", "auto", 4)).contains("did you mean `cosine`?"));
        assert!(error(recipe("cosine", "strat", 4)).contains("did you mean `start`?"));
        assert!(error(recipe("one-cycle", "end", 4)).contains("`start` or `epoch`"));
        assert!(error(recipe("multistep", "auto", 4)).contains("needs them"));
        let multistep = |milestones: &[f64], factors: &[f64]| Recipe {
            milestones: milestones.to_vec(),
            schedule_factors: factors.to_vec(),
            ..recipe("multistep", "auto", 4)
        };
        assert!(error(multistep(&[0.5, 1.0], &[0.1])).contains("must rise"));
        assert!(error(multistep(&[-0.5], &[0.1])).contains("share of the run"));
        assert!(error(multistep(&[f64::NAN], &[0.1])).contains("share of the run"));
        assert!(error(multistep(&[0.5, 0.7, 0.8], &[0.1, 0.2])).contains("3 milestones, but 2 factors"));
        assert!(error(multistep(&[0.5], &[f64::INFINITY])).contains("from 0 to 1000"));
        assert!(
            error(Recipe { schedule: "linear".into(), ..multistep(&[0.5], &[0.1]) }).contains("not `linear`")
        );
        assert!(
            error(Recipe { schedule_peak: 1.0, ..recipe("cyclic", "auto", 4) }).contains("between 0 and 1")
        );
        let warm = |warmup| Recipe { learning_rate_warmup: warmup, ..recipe("cosine", "auto", 4) };
        assert!(error(warm(4.0)).contains("shorter than the run"));
        assert!(error(warm(-1.0)).contains("share of the run"));
    }
}
