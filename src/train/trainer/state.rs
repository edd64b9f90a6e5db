//! Weights and all else that the steps to come depend on: read, saved, gone on from, and searched for what is no number.

use super::{AVERAGE, CORRECT, LOSS, Trainer};
use crate::error::{Error, Result};
use crate::nn::Mode;
use crate::tensor::Host;
use crate::train::OnCollapse;
use crate::train::checkpoint::{self, Checkpoint, Position};
use crate::weights::Weights;
use std::path::Path;

/// What an epoch began with, in the folder of a run that goes back on collapse.
const EPOCH_START: &str = "before.safetensors";

/// Whether everything in a state is a number.
pub(super) fn is_finite(state: &[(String, Host)]) -> bool {
    state.iter().all(|(_, host)| host.to_f64().iter().all(|x| x.is_finite()))
}

impl Trainer {
    /// Puts averaged weights in the place of the trained ones and gives those back, if the recipe averages.
    pub(super) fn swap_in_average(&self) -> Result<Option<checkpoint::State>> {
        if self.averaging.is_none() {
            return Ok(None);
        }
        let raw = self.read(self.params.iter().map(|param| param.name.clone()).collect())?;
        checkpoint::put_weights(&self.store, &self.params, &self.weights()?)?;
        self.recompute_statistics()?;
        Ok(Some(raw))
    }

    /// The weights that count: averaged ones, where the recipe averages.
    ///
    /// # Errors
    /// Of the device.
    pub fn weights(&self) -> Result<Weights> {
        let prefix = self.counting_prefix();
        let names = self.params.iter().map(|param| format!("{prefix}{}", param.name)).collect();
        Ok(self.weights_in(&self.read(names)?))
    }

    /// The best weights so far by validation, and the epoch they are of.
    pub fn best(&self) -> Option<(&Weights, u32)> {
        Some((self.best.as_ref()?, self.position.best?.1))
    }

    pub(super) fn reset_metrics(&self) -> Result<()> {
        [LOSS, CORRECT].iter().try_for_each(|name| self.store.write_f32(name, &[0.0]))
    }

    /// Names of everything that the steps to come depend on.
    fn state_names(&self) -> Vec<String> {
        let mut names = vec![LOSS.to_string(), CORRECT.to_string()];
        let images = self.on(Mode::Train).images(self.recipe.batch);
        names.extend(self.method.state(images).into_iter().map(|(name, _)| name));
        for param in &self.params {
            names.push(param.name.clone());
            if self.averaging.is_some() {
                names.push(format!("{AVERAGE}{}", param.name));
            }
            if param.role.is_trained() {
                names.extend(self.optimizer.state(&param.name));
            }
        }
        names
    }

    pub(super) fn state(&self) -> Result<checkpoint::State> {
        self.read(self.state_names())
    }

    fn read(&self, names: Vec<String>) -> Result<checkpoint::State> {
        let hosts = self.store.read(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(names.into_iter().zip(hosts).collect())
    }

    pub(super) fn restore(&self, state: &[(String, Host)]) -> Result<()> {
        state.iter().try_for_each(|(name, host)| self.store.write(name, host))
    }

    pub(super) fn save_best(&self) -> Result<()> {
        let (Some(folder), Some(best)) = (&self.folder, &self.best) else { return Ok(()) };
        let (name, steps) = (self.architecture.name(), self.position.steps);
        checkpoint::save_weights(&folder.join("best.safetensors"), &name, &self.params, best, steps)
    }

    /// Saves weights and everything needed to go on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self) -> Result<()> {
        self.save_state(&self.state()?)
    }

    /// As [`Trainer::save`], of a run that holds `state`.
    pub(super) fn save_state(&self, state: &[(String, Host)]) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (name, steps) = (self.architecture.name(), self.position.steps);
        let file = folder.join("last.safetensors");
        checkpoint::save_weights(&file, &name, &self.params, &self.weights_in(state), steps)?;
        self.save_resume(state, self.position.clone())
    }

    /// What the names of the weights that count begin with.
    fn counting_prefix(&self) -> &'static str {
        if self.averaging.is_some() { AVERAGE } else { "" }
    }

    /// The weights that count, see [`Trainer::weights`], as `state` has them.
    fn weights_in(&self, state: &[(String, Host)]) -> Weights {
        let prefix = self.counting_prefix();
        let held = |(name, host): &(String, Host)| {
            let param = self.params.get(name.strip_prefix(prefix)?)?;
            Some((param.name.clone(), host.to_f64().into_iter().map(|x| x as f32).collect()))
        };
        state.iter().filter_map(held).collect()
    }

    /// Saves everything needed to go on: what the run holds as `state`, standing at `position`.
    pub(super) fn save_resume(&self, state: &[(String, Host)], position: Position) -> Result<()> {
        self.save_checkpoint("resume.safetensors", state, position)
    }

    fn save_checkpoint(&self, file: &str, state: &[(String, Host)], position: Position) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (recipe, data) = (self.recipe.clone(), self.data.clone());
        checkpoint::save_resume(
            &folder.join(file),
            &Checkpoint { recipe, data, position, state: state.to_vec() },
        )
    }

    /// Keeps the state that an epoch begins with, where a collapse goes back to it: also on disk, for the run may be
    /// killed and gone on with in the middle of the epoch.
    pub(super) fn keep_epoch_start(&mut self, state: &[(String, Host)]) -> Result<()> {
        if self.recipe.on_collapse()? != OnCollapse::Back || self.probe().is_empty() {
            return Ok(());
        }
        self.epoch_start = Some(state.to_vec());
        self.save_checkpoint(EPOCH_START, state, self.position.clone())
    }

    /// Goes back to the weights, and what belongs to them, that the epoch which has just ended began with.
    pub(super) fn go_back(&mut self) -> Result<()> {
        let state = match (self.epoch_start.take(), &self.folder) {
            (Some(state), _) => state,
            (None, Some(folder)) => {
                let path = folder.join(EPOCH_START);
                let kept = checkpoint::load_resume(&path)?;
                let same = kept.recipe == self.recipe && kept.data == self.data && kept.position.step == 0;
                if !same || kept.position.epoch + 1 != self.position.epoch {
                    let why = "is not what the epoch began with; put that back, or start a new run";
                    return Err(Error::file(path, why));
                }
                kept.state
            }
            (None, None) => return Err(Error::Unsupported("going back without the epoch's start".into())),
        };
        self.restore(&state)
    }

    /// Removes what was kept of an epoch's beginning, when no epoch is to come.
    pub(super) fn forget_epoch_start(&mut self) {
        self.epoch_start = None;
        if let Some(folder) = &self.folder {
            // Best effort: a file too many harms nobody, and mostly there is none.
            let _ = std::fs::remove_file(folder.join(EPOCH_START));
        }
    }

    /// Goes on from a saved run: to the same bits as if it had not stopped, on the same device. `checkpoint` is what
    /// `folder` holds as `resume.safetensors`.
    ///
    /// # Errors
    /// [`Error::File`] when the checkpoint is of another recipe, architecture or data set, or `best.safetensors` is
    /// not what it should be; this run is then as it was.
    pub fn resume(&mut self, folder: &Path, checkpoint: Checkpoint) -> Result<()> {
        let path = folder.join("resume.safetensors");
        let Checkpoint { recipe, data, position, state } = checkpoint;
        if recipe != self.recipe {
            return Err(Error::file(&path, "it was saved under another recipe; resume without other flags"));
        }
        if data != self.data {
            let why = format!(
                "the training data in `{}` are not those the run began with (another SHA-256): put those back, or \
                 start a new run",
                self.recipe.data
            );
            return Err(Error::file(&path, why));
        }
        if position.epoch > recipe.epochs || position.step >= self.steps_an_epoch() {
            let why = format!("it stands at step {} of epoch {}", position.step, position.epoch + 1);
            return Err(Error::file(&path, format!("{why}, which the run does not have: use another copy")));
        }
        let names = self.state_names();
        for (name, host) in &state {
            let fits = self.store.get(name).is_some_and(|tensor| tensor.shape.len() == host.to_f64().len());
            if !names.contains(name) || !fits {
                let why = format!(
                    "`{name}` does not belong to `{}`: another architecture",
                    self.architecture.name()
                );
                return Err(Error::file(&path, why));
            }
        }
        if let Some(missing) = names.iter().find(|name| !state.iter().any(|(have, _)| have == *name)) {
            return Err(Error::file(
                &path,
                format!("it lacks `{missing}`: damaged, or of another architecture"),
            ));
        }
        if position.best.is_some() {
            let best = folder.join("best.safetensors");
            self.best = Some(checkpoint::load_weights(&best, self.architecture.as_ref(), &self.params)?);
        }
        self.restore(&state)?;
        self.position = position;
        Ok(())
    }

    /// The error of a loss or a weight that is not finite. Finds the launch that first made it so, and saves the
    /// weights that this stretch of training began with: the epoch's first, or those of the last checkpoint.
    pub(super) fn not_finite(&mut self, last: u32, before: &[(String, Host)], position: &Position) -> Error {
        match self.find_not_finite(last, before, position) {
            Ok((launch, step)) => {
                let kept = match (position.steps, position.step) {
                    (0, _) => "the initial weights".to_string(),
                    (steps, 0) => format!("the weights from before this epoch ({steps} steps)"),
                    (steps, _) => format!("the weights of the last checkpoint ({steps} steps)"),
                };
                let file = self.folder.as_deref().unwrap_or(Path::new("")).join("last.safetensors");
                Error::NotFinite {
                    what: format!("training in epoch {}, step {}", position.epoch + 1, step + 1),
                    launch,
                    advice: format!(
                        "Kept are {kept}, in {}. Start again with a lower learning rate",
                        file.display()
                    ),
                }
            }
            Err(error) => error,
        }
    }

    /// Runs again from where this stretch of training began (the same bits) to the first step after which a weight,
    /// the optimiser's state or the loss is not finite, and that step once more launch by launch; `last` is a step of
    /// the epoch after which one was not, counted from 1. Gives the launch and the step within the epoch, counted
    /// from 0.
    fn find_not_finite(
        &mut self,
        last: u32,
        before: &[(String, Host)],
        position: &Position,
    ) -> Result<(String, u32)> {
        self.rewind(before, position)?;
        self.save()?;
        if self.is_one_of_several() {
            // What went before cannot be run again by one process alone.
            return Ok((
                "not looked for: train in one process to have it named".into(),
                last.saturating_sub(1),
            ));
        }
        let mut culprit = position.step;
        while culprit + 1 < last {
            self.program(culprit).run()?;
            if !is_finite(&self.state()?) {
                break;
            }
            culprit += 1;
        }
        self.rewind(before, position)?;
        (position.step..culprit).try_for_each(|step| self.program(step).run())?;
        let launch = self.program(culprit).first_not_finite()?;
        self.rewind(before, position)?;
        Ok((launch.unwrap_or_else(|| "none on the second run".into()), culprit))
    }

    /// Goes back to a state of this run.
    fn rewind(&mut self, state: &[(String, Host)], position: &Position) -> Result<()> {
        self.position = position.clone();
        self.restore(state)?;
        if position.step == 0 {
            self.reset_metrics()?;
        }
        self.tell(&self.epoch(position.epoch)?)
    }
}
