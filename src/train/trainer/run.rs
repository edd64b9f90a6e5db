//! The loop: steps are handed over, losses collected as they come back, epochs judged and saved.

use super::{CORRECT, EVALUATION_BATCH, LOSS, Trainer};
use crate::attack::Evaluation;
use crate::error::{Error, Result};
use crate::nn::Mode;
use crate::tensor::Reading;
use crate::trace::Span;
use crate::train::{EpochRecord, Observer, StepReport, checkpoint};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, finished its step and saved.
    Interrupted,
}

/// The totals of loss and right answers after a step of the epoch, on their way from the device.
struct Underway {
    /// Steps of the epoch that they are of.
    steps: u32,
    reading: Reading,
}

/// The last totals that came back.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    steps: u32,
    loss: f64,
    correct: f64,
}

impl Trainer {
    /// Trains until the end or until `stop` is set, which is looked at after every step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when the loss is not finite, with the launch that made it so, the last good weights
    /// being saved; an error of the device, of the disk or of the observer.
    pub fn run(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome> {
        let mut known = None;
        let trace = self.store.device().trace();
        let span = |name| Span::new(trace.as_deref(), name);
        while self.position.epoch < self.recipe.epochs {
            let start = Instant::now();
            let begin = span("begin the epoch");
            let (before, position) = (self.state()?, self.position.clone());
            if self.position.step == 0 {
                self.reset_metrics()?;
            }
            let epoch = match known.take() {
                Some(epoch) => epoch,
                None => self.epoch(self.position.epoch)?,
            };
            self.tell(&epoch)?;
            drop(begin);
            let metrics = self.store.tensors(&[LOSS, CORRECT])?;
            let mut underway: VecDeque<Underway> = VecDeque::new();
            let mut totals = Totals { steps: self.position.step, ..Totals::default() };
            let mut images = 0;
            while self.position.step < self.steps_an_epoch() {
                let step = self.position.step;
                let reading = self.program(step).run_reading(&metrics);
                let reading = reading.map_err(|error| self.during(error, &totals))?;
                self.position.step += 1;
                self.position.steps += 1;
                underway.push_back(Underway { steps: self.position.step, reading });
                images += self.images(step);
                let last = self.position.step == self.steps_an_epoch();
                let stopping = !last && stop.load(Ordering::Relaxed);
                if last && self.position.epoch + 1 < self.recipe.epochs {
                    // While the device is at the epoch's last steps.
                    let _span = span("order the next epoch");
                    known = Some(self.epoch(self.position.epoch + 1)?);
                }
                let wait = last || stopping;
                let collecting = span("collect");
                let fresh = collect(&mut underway, wait, &mut totals);
                let fresh = fresh.map_err(|error| self.during(error, &totals))?;
                // What is about to be judged or saved is looked at as a whole.
                if !totals.loss.is_finite() || (wait && !self.is_finite()?) {
                    return Err(self.not_finite(totals.steps, &before, &position));
                }
                drop(collecting);
                let seen = self.train.len().min(totals.steps as usize * self.recipe.batch) as f64;
                observer.step(&StepReport {
                    epoch: self.position.epoch + 1,
                    images: self.images(step),
                    loss: fresh.then(|| totals.loss / seen),
                    accuracy: fresh.then(|| totals.correct / seen),
                });
                if stopping {
                    self.position.seconds += start.elapsed().as_secs_f64();
                    self.save()?;
                    return Ok(Outcome::Interrupted);
                }
            }
            let trained = start.elapsed().as_secs_f64();
            let ending = span("judge and save");
            let record = self.end_epoch(start, images as f64 / trained.max(1e-9), totals)?;
            // The record comes first: resuming drops the records of epochs after the checkpoint's, but could not
            // make one that was lost between the two.
            observer.epoch(&record)?;
            self.save()?;
            drop(ending);
            if stop.load(Ordering::Relaxed) && self.position.epoch < self.recipe.epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        Ok(Outcome::Finished)
    }

    /// The error of a device, with the steps that it may have come from: those after the last one whose loss came
    /// back, up to the one that was being handed over.
    fn during(&self, error: Error, totals: &Totals) -> Error {
        let (first, last) = (totals.steps + 1, self.position.step + 1);
        error.during(&format!("steps {first} to {last} of epoch {}", self.position.epoch + 1))
    }

    fn end_epoch(
        &mut self,
        start: Instant,
        examples_per_second: f64,
        Totals { loss, correct, .. }: Totals,
    ) -> Result<EpochRecord> {
        let (learning_rate, epsilon, _) =
            self.rates((self.position.steps * u64::from(self.method.replays())).saturating_sub(1))?;
        let (mut clean, mut robust) = (None, None);
        if !self.validation.is_empty() {
            let (c, r) = self.validate()?;
            (clean, robust) = (Some(c), Some(r));
        }
        // A run without validation images keeps its last weights as the best.
        let adversarial = self.method.is_adversarial();
        let score = if adversarial { robust } else { clean }.unwrap_or(f64::from(self.position.epoch));
        let best = self.position.best.is_none_or(|(have, _)| score > have);
        self.position.epoch += 1;
        self.position.step = 0;
        let seconds = self.position.seconds + start.elapsed().as_secs_f64();
        self.position.seconds = 0.0;
        if best {
            self.position.best = Some((score, self.position.epoch));
            self.best = Some(self.weights()?);
            self.save_best()?;
        }
        let examples = self.train.len() as f64;
        let accuracy = Some(correct / examples);
        Ok(EpochRecord {
            epoch: self.position.epoch,
            seconds,
            loss: loss / examples,
            train_clean: if adversarial { None } else { accuracy },
            train_robust: if adversarial { accuracy } else { None },
            validation_clean: clean,
            validation_robust: robust,
            epsilon,
            learning_rate,
            examples_per_second,
            best,
        })
    }

    /// Clean and robust accuracy on the validation images, at the full radius.
    fn validate(&mut self) -> Result<(f64, f64)> {
        let attack = self.validation_attack()?;
        // The averaged weights, where there are any, are what is judged: they stand in for the others meanwhile.
        let raw = self.swap_in_average()?;
        let judge = match self.judge.take() {
            Some(judge) => judge,
            None => {
                let batch = EVALUATION_BATCH.min(self.validation.len());
                Evaluation::compile(&self.store, &attack, self.on(Mode::Eval), "train", batch)?
            }
        };
        let labels: Vec<u32> = self.validation.iter().map(|&i| self.labels[i as usize]).collect();
        let verdicts = judge.run(&self.validation, &labels, 1, self.recipe.seed, |_, _| {})?;
        self.judge = Some(judge);
        if let Some(raw) = raw {
            checkpoint::put_weights(&self.store, &self.params, &raw)?;
        }
        let share = |count: usize| count as f64 / self.validation.len() as f64;
        Ok((share(verdicts.clean_count()), share(verdicts.robust_count())))
    }
}

/// Takes the totals that came back, or waits for all that are under way; whether there were new ones. Stops at
/// totals that are not finite, and takes them a step at a time: the step that made them so is not far.
fn collect(underway: &mut VecDeque<Underway>, wait: bool, totals: &mut Totals) -> Result<bool> {
    let mut fresh = false;
    while let Some(mut next) = underway.pop_front() {
        let values = match (next.reading.take()?, wait) {
            (Some(values), _) => values,
            (None, true) => next.reading.wait()?,
            (None, false) => {
                underway.push_front(next);
                break;
            }
        };
        let value = |at: usize| values.get(at).map_or(f64::NAN, |host| host.to_f64()[0]);
        *totals = Totals { steps: next.steps, loss: value(0), correct: value(1) };
        fresh = true;
        if !totals.loss.is_finite() {
            break;
        }
    }
    Ok(fresh)
}
