//! A step in several processes: each sums the gradients of its part of the batch, all of them add up what all have, and each
//! makes the same update.
//!
//! The sum goes through the host in the order of ranks, so that every process holds the same bits whatever the network
//! between them does. Nothing is lost by a process that vanishes: a step changes what a checkpoint holds only after all
//! have been heard.

use super::{CORRECT, GRADIENT, LOSS, Trainer};
use crate::error::{Error, Result};
use crate::nn::Role;
use crate::plan::{Program, Step};
use crate::tensor::Host;
use crate::train::trainer::watch::Judged;

/// Loss and right answers of the epoch so far.
pub(super) type Sums = [f64; 2];

impl Trainer {
    /// Whether other processes train with this one.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.share.0.is_some()
    }

    /// Leaves the other processes: what comes after training is done by one alone.
    pub fn leave_peers(&mut self) {
        self.share.0 = None;
    }

    /// Names of the running statistics, and of the sums of gradients.
    fn exchanged(&self) -> [Vec<String>; 2] {
        let running = |role| matches!(role, Role::RunningMean | Role::RunningVar);
        let running = self.params.iter().filter(|param| running(param.role)).map(|param| param.name.clone());
        [running.collect(), self.params.trained().map(|param| format!("{GRADIENT}{}", param.name)).collect()]
    }

    fn read_all(&self, names: &[String]) -> Result<Vec<Host>> {
        self.store.read(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The sums as the device has them.
    pub(super) fn sums(&self) -> Result<Sums> {
        let read = self.store.read(&[LOSS, CORRECT])?;
        Ok([read[0].to_f64()[0], read[1].to_f64()[0]])
    }

    fn write_sums(&self, sums: Sums) -> Result<()> {
        self.store.write_f32(LOSS, &[sums[0] as f32])?;
        self.store.write_f32(CORRECT, &[sums[1] as f32])
    }

    /// Runs step `step` with the other processes; `before` are the sums before it, and `stop` whether this process is asked
    /// to stop. Gives the sums after it, over all processes, and whether any of them is asked to stop.
    ///
    /// # Errors
    /// Of the device; [`Error::Peers`] when a process is not heard of, and then all is as before the step, but for the
    /// gradients.
    pub(super) fn step_together(&self, step: u32, before: Sums, stop: bool) -> Result<(Sums, bool)> {
        let [running, gradients] = self.exchanged();
        let kept = self.read_all(&running)?;
        let (parts, names) = self.parts_before_update(step);
        Program::new(parts).named(names).run()?;
        let after = self.sums()?;
        let mut own = Vec::new();
        let mut lengths = Vec::new();
        for host in self.read_all(&running)?.into_iter().chain(self.read_all(&gradients)?) {
            let values = host.to_f64();
            lengths.push(values.len());
            own.extend(values.into_iter().map(|x| x as f32));
        }
        let means = lengths[..running.len()].iter().sum();
        own.extend([(after[0] - before[0]) as f32, (after[1] - before[1]) as f32, f32::from(u8::from(stop))]);
        let all = match self.share.sum(&own, means, self.images(step)) {
            Ok(all) => all,
            Err(error) => {
                running.iter().zip(&kept).try_for_each(|(name, host)| self.store.write(name, host))?;
                self.write_sums(before)?;
                return Err(error);
            }
        };
        let (tensors, rest) = all.split_at(all.len() - 3);
        let mut at = 0;
        for (name, length) in running.iter().chain(&gradients).zip(lengths) {
            self.store.write_f32(name, &tensors[at..at + length])?;
            at += length;
        }
        // As the device holds them: what is added to next time.
        let sums =
            [before[0] + f64::from(rest[0]), before[1] + f64::from(rest[1])].map(|x| f64::from(x as f32));
        self.write_sums(sums)?;
        if let Some(update) = &self.update {
            Program::new(vec![Step::Run(update)]).named(vec!["update"]).run()?;
        }
        Ok((sums, rest[2] > 0.0))
    }

    /// What all processes go by after an epoch: what that of rank 0 found. (On machines that differ, the others may find
    /// something else in the last digit.)
    pub(super) fn agreed(&self, judged: Judged) -> Result<Judged> {
        let found = judged.numbers().map(|number| number.unwrap_or(f64::NAN));
        let told = self.share.of_first(&found)?;
        let numbers: Vec<Option<f64>> = told.into_iter().map(|x| (!x.is_nan()).then_some(x)).collect();
        let numbers = numbers.try_into().map_err(|_| Error::Peers("rank 0 told of something else".into()))?;
        Ok(Judged::of(numbers))
    }
}
