//! What an epoch is judged by: validation images, the probe against catastrophic overfitting, and test images to look at.

use super::{EVALUATION_BATCH, Trainer};
use crate::attack::{Alignment, Classifier, Evaluation, Pgd, Rational};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::nn::Mode;
use crate::plan::{self, Schedule as Launches};
use crate::train::watch::{BLIND, COLLAPSE, PROBE_STEPS};
use crate::train::{Collapse, Position, examples};

/// Prefix of the tensors of the test images that are watched.
const TEST: &str = "watched";

/// What epochs are judged by, compiled when it is first asked for.
#[derive(Default)]
pub(super) struct Watched {
    validation: Option<Evaluation>,
    /// Of a network with dummy classes: its raw outputs on the validation images.
    raw: Option<Evaluation>,
    probe: Option<(Evaluation, Alignment)>,
    test: Option<Evaluation>,
    /// Images that are judged at once.
    batch: Option<usize>,
    /// Labels of the test images on the device; none where none are watched.
    test_labels: Vec<u32>,
}

/// Clean and robust accuracy, 0 to 1.
type Accuracies = (Option<f64>, Option<f64>);

/// What was found after an epoch; nothing where nothing was looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    pub(super) validation: Accuracies,
    /// Robust accuracy on the validation images by the raw outputs of a network with dummy classes.
    pub(super) raw: Option<f64>,
    pub(super) probe: Accuracies,
    pub(super) alignment: Option<f64>,
    pub(super) test: Accuracies,
}

impl Judged {
    /// All of it as numbers.
    pub(super) fn numbers(&self) -> [Option<f64>; 8] {
        let Judged { validation, raw, probe, alignment, test } = *self;
        [validation.0, validation.1, raw, probe.0, probe.1, alignment, test.0, test.1]
    }

    /// What [`Judged::numbers`] gave.
    pub(super) fn of(
        [clean, robust, raw, probe, attacked, alignment, test, broken]: [Option<f64>; 8],
    ) -> Judged {
        let (validation, probe, test) = ((clean, robust), (probe, attacked), (test, broken));
        Judged { validation, raw, probe, alignment, test }
    }
}

impl Trainer {
    /// Puts the test images on the device of which the recipe watches some for the curves (none with `test_every` 0):
    /// nothing is ever chosen by them.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not of the training images' size or classes; of the device.
    pub fn watch_test(&mut self, test: &Dataset) -> Result<()> {
        if self.recipe.test_every == 0 {
            return Ok(());
        }
        if test.image != self.architecture.input() {
            let why = format!(
                "are {:?}, but `{}` takes {:?}",
                test.image,
                self.recipe.model,
                self.architecture.input()
            );
            return Err(Error::argument("test images", format!("those of `{}`", test.name), why));
        }
        let all: Vec<u32> = (0..test.len() as u32).collect();
        let (_, chosen) = test.choose(&all, self.recipe.test_images, self.recipe.seed);
        let test = test.subset(&chosen)?;
        examples::put(&self.store, TEST, &test)?;
        self.watched.test_labels = test.labels;
        Ok(())
    }

    /// Test images that are watched for the curves.
    pub fn watched_test_images(&self) -> usize {
        self.watched.test_labels.len()
    }

    /// The attack that judges the validation images, and the test images that are watched.
    ///
    /// # Errors
    /// A refused number of the recipe.
    pub fn validation_attack(&self) -> Result<Pgd> {
        let threat = self.recipe.threat()?;
        let steps = self.recipe.validation_steps;
        let step_size = Rational::from((2.5e4 * threat.epsilon.value() / steps as f64).round() / 1e4);
        Ok(Pgd { threat, steps, step_size, random_start: true })
    }

    /// The attack on the probe images, by which catastrophic overfitting is seen.
    ///
    /// # Errors
    /// A refused number of the recipe.
    pub fn probe_attack(&self) -> Result<Pgd> {
        let threat = self.recipe.threat()?;
        let step_size = Rational::from((0.25e6 * threat.epsilon.value()).round() / 1e6);
        Ok(Pgd { threat, steps: PROBE_STEPS, step_size, random_start: true })
    }

    /// The probe images: the first of the order that training begins with. None for standard training, which withstands
    /// nothing that could be lost.
    pub fn probe(&self) -> Vec<u32> {
        match self.method.is_adversarial() {
            true => self.order(0).into_iter().take(self.recipe.probe).collect(),
            false => Vec::new(),
        }
    }

    /// All that judging an epoch of training compiles, in batches no larger than `batch`.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub(super) fn watching_schedules(&self, batch: usize) -> Result<Vec<Launches>> {
        let batch = batch.min(EVALUATION_BATCH);
        let mut all = Vec::new();
        if !self.validation.is_empty() {
            let (attack, size) = (self.validation_attack()?, batch.min(self.validation.len()));
            all.extend(self.judged(|on| Evaluation::schedules(&attack, on, "train", size))?);
            if self.method.has_dummies() {
                all.extend(Evaluation::schedules(&attack, self.on(Mode::Eval), "train", size)?);
            }
        }
        let probe = self.probe().len();
        if probe > 0 {
            let attack = self.probe_attack()?;
            let size = batch.min(probe);
            all.extend(self.judged(|on| Evaluation::schedules(&attack, on, "train", size))?);
            all.push(self.judged(|on| Alignment::schedule(&attack.threat, on, "train", size))?);
        }
        Ok(all)
    }

    /// Judges the weights as they are after epoch `epoch` (counted from 1).
    pub(super) fn judge(&mut self, epoch: u32) -> Result<Judged> {
        let mut judged = Judged::default();
        let batch = self.judged_at_once()?;
        // The averaged weights, where there are any, are what is judged: they stand in for the others meanwhile.
        let test = self.watched.test_labels.len();
        let test = if epoch.is_multiple_of(self.recipe.test_every.max(1)) { test } else { 0 };
        // Where nothing is judged or computed by them, nothing is moved.
        let moved = !self.validation.is_empty() || test > 0 || self.statistics.is_some();
        let raw = if moved { self.swap_in_average()? } else { None };
        if !self.validation.is_empty() {
            let judge = match self.watched.validation.take() {
                Some(judge) => judge,
                None => {
                    let (attack, size) = (self.validation_attack()?, batch.min(self.validation.len()));
                    self.judged(|on| Evaluation::compile(&self.store, &attack, on, "train", size))?
                }
            };
            let labels = self.labels_of(&self.validation);
            judged.validation = self.accuracies(&judge, &self.validation, &labels)?;
            self.watched.validation = Some(judge);
            if self.method.has_dummies() {
                let judge = match self.watched.raw.take() {
                    Some(judge) => judge,
                    None => {
                        let (attack, on) = (self.validation_attack()?, self.on(Mode::Eval));
                        let size = batch.min(self.validation.len());
                        Evaluation::compile(&self.store, &attack, on, "train", size)?
                    }
                };
                judged.raw = self.accuracies(&judge, &self.validation, &labels)?.1;
                self.watched.raw = Some(judge);
            }
        }
        if test > 0 {
            let judge = match self.watched.test.take() {
                Some(judge) => judge,
                None => {
                    let attack = self.validation_attack()?;
                    self.judged(|on| {
                        let on = Classifier { examples: test, ..on };
                        Evaluation::compile(&self.store, &attack, on, TEST, batch.min(test))
                    })?
                }
            };
            let examples: Vec<u32> = (0..test as u32).collect();
            judged.test = self.accuracies(&judge, &examples, &self.watched.test_labels)?;
            self.watched.test = Some(judge);
        }
        if let Some(raw) = raw {
            self.restore(&raw)?;
        }
        // The probe looks at the weights that training moves: averaged ones would show a collapse late.
        let probe = self.probe();
        if !probe.is_empty() {
            let (judge, alignment) = match self.watched.probe.take() {
                Some(both) => both,
                None => {
                    let (attack, batch) = (self.probe_attack()?, batch.min(probe.len()));
                    self.judged(|on| {
                        let judge = Evaluation::compile(&self.store, &attack, on, "train", batch)?;
                        let alignment = Alignment::compile(&self.store, &attack.threat, on, "train", batch)?;
                        Ok::<_, Error>((judge, alignment))
                    })?
                }
            };
            judged.probe = self.accuracies(&judge, &probe, &self.labels_of(&probe))?;
            judged.alignment = Some(alignment.measure(&probe, self.recipe.seed)?);
            self.watched.probe = Some((judge, alignment));
        }
        Ok(judged)
    }

    /// Images that are judged at once: as many as keep a device busy, or where there is no room for that, a batch of
    /// training, for which there is ([`Trainer::compile`] has seen to it). The first to be compiled must not take what
    /// the others need.
    fn judged_at_once(&mut self) -> Result<usize> {
        if let Some(batch) = self.watched.batch {
            return Ok(batch);
        }
        let batch = match plan::fits(&self.watching_schedules(EVALUATION_BATCH)?, &self.store) {
            Ok(()) => EVALUATION_BATCH,
            Err(_) => EVALUATION_BATCH.min(self.pass()),
        };
        self.watched.batch = Some(batch);
        Ok(batch)
    }

    fn labels_of(&self, examples: &[u32]) -> Vec<u32> {
        examples.iter().map(|&i| self.labels[i as usize]).collect()
    }

    fn accuracies(&self, judge: &Evaluation, examples: &[u32], labels: &[u32]) -> Result<Accuracies> {
        let verdicts = judge.run(examples, labels, 1, self.recipe.seed, |_, _| {})?;
        let share = |count: usize| Some(count as f64 / examples.len() as f64);
        Ok((share(verdicts.clean_count()), share(verdicts.robust_count())))
    }
}

/// Whether the epoch that ends brought catastrophic overfitting: `trained` is the accuracy on its attacked training images,
/// `probe` the robust one on the probe images now, and `full` whether the whole epoch was trained at the full radius. Tells
/// of each collapse once.
pub(super) fn collapse(
    position: &mut Position,
    trained: Option<f64>,
    probe: Option<f64>,
    full: bool,
) -> Option<Collapse> {
    let to = probe?;
    let from = position.probe.replace(to);
    let blinder = |gap: f64| trained.filter(|trained| full && trained - to > gap);
    if position.collapsed {
        position.collapsed = blinder(BLIND / 2.0).is_some();
        return None;
    }
    let collapse = match (from, blinder(BLIND)) {
        (Some(from), _) if from - to > COLLAPSE => Collapse::Fell { from, to },
        (_, Some(trained)) => Collapse::Blind { trained, probe: to },
        _ => return None,
    };
    position.collapsed = true;
    Some(collapse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_is_seen_in_its_epoch_and_told_of_once() {
        // Robust accuracy of training and of the probe after each epoch, and whether that is a collapse.
        let follow = |full: bool, epochs: &[(f64, f64, bool)]| {
            let mut position = Position::default();
            for (epoch, &(trained, probe, expected)) in epochs.iter().enumerate() {
                let seen = collapse(&mut position, Some(trained), Some(probe), full);
                assert_eq!(seen.is_some(), expected, "epoch {}: {seen:?}", epoch + 1);
                assert_eq!(position.probe, Some(probe));
            }
        };
        let healthy = [(0.3, 0.2, false), (0.5, 0.45, false), (0.6, 0.3, false), (0.7, 0.5, false)];
        follow(true, &healthy);
        // It falls in one epoch; blind from then on; recovers; falls again.
        let fell =
            [(0.6, 0.5, false), (0.9, 0.1, true), (0.95, 0.0, false), (0.6, 0.5, false), (0.9, 0.2, true)];
        follow(true, &fell);
        // Blind from the first epoch on, unless the radius is still growing.
        follow(true, &[(0.9, 0.1, true), (0.95, 0.0, false)]);
        follow(false, &[(0.9, 0.1, false), (0.95, 0.05, false)]);
        let mut position = Position::default();
        assert_eq!(collapse(&mut position, Some(0.9), None, true), None);
        assert_eq!(position, Position::default());
    }
}
