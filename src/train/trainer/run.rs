//! The loop: steps are handed over, losses collected as they come back, epochs judged and saved.

use super::state::is_finite;
use super::watch::collapse;
use super::{CORRECT, LOSS, Trainer};
use crate::error::{Error, Result};
use crate::tensor::Reading;
use crate::trace::Span;
use crate::train::checkpoint::Position;
use crate::train::{EpochRecord, Observer, OnCollapse, StepReport, Stopped};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done, or the run stopped before the last for a reason of its own ([`Stopped`]).
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
        let (mut known, mut held) = (None, None);
        let trace = self.store.device().trace();
        let span = |name| Span::new(trace.as_deref(), name);
        while self.position.epoch < self.recipe.epochs && self.position.stopped.is_none() {
            let start = Instant::now();
            let begin = span("begin the epoch");
            // What a value that is not finite is searched from: where the epoch begins, was gone on with or was last saved.
            let state = held.take().map_or_else(|| self.state(), Ok)?;
            let (mut before, mut position) = (state, self.position.clone());
            let mut saved = (self.position.step, start);
            if self.position.step == 0 {
                self.keep_epoch_start(&before)?;
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
            let mut sums = if self.is_one_of_several() { self.sums()? } else { [0.0; 2] };
            while self.position.step < self.steps_an_epoch() {
                let step = self.position.step;
                let asked;
                if self.is_one_of_several() {
                    let stepped = self.step_together(step, sums, stop.load(Ordering::Relaxed));
                    (sums, asked) = stepped.or_else(|error| self.lost(error))?;
                    totals = Totals { steps: step + 1, loss: sums[0], correct: sums[1] };
                } else {
                    let reading = self.program(step).run_reading(&metrics);
                    let reading = reading.map_err(|error| self.during(error, &totals))?;
                    underway.push_back(Underway { steps: step + 1, reading });
                    asked = stop.load(Ordering::Relaxed);
                }
                self.position.step += 1;
                self.position.steps += 1;
                images += self.images(step);
                let last = self.position.step == self.steps_an_epoch();
                let stopping = !last && asked;
                if last && self.position.epoch + 1 < self.recipe.epochs {
                    // While the device is at the epoch's last steps.
                    let _span = span("order the next epoch");
                    known = Some(self.epoch(self.position.epoch + 1)?);
                }
                let due = !last
                    && !stopping
                    && self.folder.is_some()
                    && self.checkpoint_every.is_due(self.position.step - saved.0, saved.1.elapsed());
                let wait = last || stopping || due;
                let collecting = span("collect");
                let fresh = collect(&mut underway, wait, &mut totals);
                let fresh = fresh.map_err(|error| self.during(error, &totals))? || self.is_one_of_several();
                // What is about to be judged or saved is looked at as a whole.
                let state = if wait { Some(self.state()?) } else { None };
                if !totals.loss.is_finite() || !state.as_deref().is_none_or(is_finite) {
                    return Err(self.not_finite(totals.steps, &before, &position));
                }
                drop(collecting);
                match state {
                    Some(state) if due => {
                        let _span = span("save");
                        let seconds = self.position.seconds + start.elapsed().as_secs_f64();
                        self.save_resume(&state, Position { seconds, ..self.position.clone() })?;
                        (before, position) = (state, self.position.clone());
                        saved = (self.position.step, Instant::now());
                    }
                    state => held = state,
                }
                let seen = self.train.len().min(totals.steps as usize * self.recipe.batch) as f64;
                observer.step(&StepReport {
                    epoch: self.position.epoch + 1,
                    images: self.images(step),
                    loss: fresh.then(|| totals.loss / seen),
                    accuracy: fresh.then(|| totals.correct / seen),
                });
                if stopping {
                    self.position.seconds += start.elapsed().as_secs_f64();
                    let state = held.take().map_or_else(|| self.state(), Ok)?;
                    self.save_state(&state)?;
                    return Ok(Outcome::Interrupted);
                }
            }
            let trained = start.elapsed().as_secs_f64();
            let ending = span("judge and save");
            let record = self.end_epoch(start, images as f64 / trained.max(1e-9), totals)?;
            // The record comes first: resuming drops the records of epochs after the checkpoint's, but could not
            // make one that was lost between the two.
            observer.epoch(&record)?;
            // Judging leaves the state as it was read, unless it recomputes running statistics or goes back.
            if self.statistics.is_some() || self.position.stopped == Some(Stopped::WentBack) {
                held = None;
            }
            let state = held.take().map_or_else(|| self.state(), Ok)?;
            self.save_state(&state)?;
            held = Some(state);
            drop(ending);
            let over = self.position.epoch == self.recipe.epochs || self.position.stopped.is_some();
            // Several processes agree on a stop within a step, of which the next epoch has one.
            if stop.load(Ordering::Relaxed) && !over && !self.is_one_of_several() {
                return Ok(Outcome::Interrupted);
            }
        }
        self.forget_epoch_start();
        Ok(Outcome::Finished)
    }

    /// The error of a device, with the steps that it may have come from: those after the last one whose loss came
    /// back, up to the one that was being handed over.
    fn during(&self, error: Error, totals: &Totals) -> Error {
        let (first, last) = (totals.steps + 1, self.position.step + 1);
        error.during(&format!("steps {first} to {last} of epoch {}", self.position.epoch + 1))
    }

    /// Saves what there is when another process is lost: the run as it was before the step, which all could go on from.
    fn lost<T>(&mut self, error: Error) -> Result<T> {
        if let (Error::Peers(message), Some(folder)) = (&error, &self.folder) {
            let saved = format!("{message}. Saved in {} is the run up to the step before", folder.display());
            return self.save().and(Err(Error::Peers(saved)));
        }
        Err(error)
    }

    fn end_epoch(
        &mut self,
        start: Instant,
        examples_per_second: f64,
        Totals { loss, correct, .. }: Totals,
    ) -> Result<EpochRecord> {
        let updates = |steps: u64| steps * u64::from(self.method.replays());
        let (learning_rate, epsilon, _) = self.rates(updates(self.position.steps).saturating_sub(1))?;
        let first = self.position.steps.saturating_sub(u64::from(self.steps_an_epoch()));
        let full = self.rates(updates(first))?.1 >= self.recipe.threat()?.epsilon.value();
        let judged = self.judge(self.position.epoch + 1)?;
        let judged = self.agreed(judged)?;
        let (clean, robust) = judged.validation;
        // A run without validation images keeps its last weights as the best.
        let adversarial = self.method.is_adversarial();
        let score = if adversarial { robust } else { clean }.unwrap_or(f64::from(self.position.epoch));
        let examples = self.train.len() as f64;
        let accuracy = Some(correct / examples);
        let train_robust = accuracy.filter(|_| adversarial);
        let collapse = collapse(&mut self.position, train_robust, judged.probe.1, full);
        let back = collapse.is_some() && self.recipe.on_collapse()? == OnCollapse::Back;
        // Weights that are not gone on with are not the best, unless there are no others.
        let best = match self.position.best {
            Some((have, _)) => score > have && !back,
            None => true,
        };
        self.position.epoch += 1;
        self.position.step = 0;
        let seconds = self.position.seconds + start.elapsed().as_secs_f64();
        self.position.seconds = 0.0;
        if best {
            self.position.best = Some((score, self.position.epoch));
            self.best = Some(self.weights()?);
            self.save_best()?;
        }
        if back {
            self.go_back()?;
        }
        let patience = self.recipe.patience;
        let waited = self.position.best.is_some_and(|(_, best)| self.position.epoch - best >= patience);
        self.position.stopped = match (collapse, self.recipe.on_collapse()?) {
            (Some(_), OnCollapse::Stop) => Some(Stopped::Collapse),
            (Some(_), OnCollapse::Back) => Some(Stopped::WentBack),
            _ if patience > 0 && waited => Some(Stopped::Patience),
            _ => None,
        };
        Ok(EpochRecord {
            epoch: self.position.epoch,
            seconds,
            loss: loss / examples,
            train_clean: if adversarial { None } else { accuracy },
            train_robust,
            validation_clean: clean,
            validation_robust: robust,
            validation_raw: judged.raw,
            epsilon,
            learning_rate,
            examples_per_second,
            best,
            probe_clean: judged.probe.0,
            probe_robust: judged.probe.1,
            alignment: judged.alignment,
            test_clean: judged.test.0,
            test_robust: judged.test.1,
            collapse,
        })
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
