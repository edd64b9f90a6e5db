//! Running statistics of averaged weights, by a pass over the training images: `torch.optim.swa_utils.update_bn`.

use super::{AVERAGE, Trainer};
use crate::attack::Names;
use crate::error::Result;
use crate::nn::{Mode, Net, Param, Role};
use crate::plan::Schedule as Launches;
use crate::shape::{DType, Shape};
use crate::tape::Tape;
use crate::tensor::Host;
use crate::train::Buffers;

/// Share of a batch in the statistics: one over the batches so far; a scalar.
const SHARE: &str = "statistics.share";

impl Trainer {
    fn running(&self) -> impl Iterator<Item = &Param> {
        self.params.iter().filter(|param| matches!(param.role, Role::RunningMean | Role::RunningVar))
    }

    fn statistics_names(&self) -> Names {
        Names::new("statistics", "train")
    }

    /// The schedule of a batch of that pass, where the recipe has one and the network something to compute.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub(super) fn statistics_schedule(&self, batch: usize) -> Result<Option<Launches>> {
        let recomputes = self.averaging.is_some_and(|averaging| averaging.buffers == Buffers::Recompute);
        if !recomputes || self.running().next().is_none() {
            return Ok(None);
        }
        let (tape, names, on) = (Tape::new(), self.statistics_names(), self.on(Mode::Train));
        let draw = names.draw(&tape, batch);
        let all = tape.source(&names.images(), on.images(batch).with(0, on.examples), on.inputs.dtype());
        let share = tape.source(SHARE, Shape::scalar(), DType::F32);
        let net = Net::new(&tape, Mode::Train).with_draw(draw).with_share(share);
        self.architecture.forward(&net, all.gather_rows(draw.example));
        net.updates().iter().for_each(|(name, value)| tape.assign(name, *value));
        Launches::new(&tape, true).map(Some)
    }

    /// Recomputes running statistics by the weights that are in place, the averaged ones, and keeps them beside those:
    /// the mean of those of whole batches of clean training images in the order of the data set. (A short last batch,
    /// which PyTorch would give the weight of a whole one, is left out.)
    pub(super) fn recompute_statistics(&self) -> Result<()> {
        let Some(plan) = &self.statistics else { return Ok(()) };
        let names = self.statistics_names();
        let words = |name: &str, values: &[u32]| {
            self.store.put(&names.of(name), [values.len()], &Host::U32(values.to_vec()))
        };
        words("key", &self.key())?;
        for (done, examples) in self.train.chunks_exact(self.pass()).enumerate() {
            words("example", examples)?;
            words("counter", &[self.position.epoch, done as u32])?;
            self.store.put(SHARE, Shape::scalar(), &Host::F64(vec![1.0 / (done + 1) as f64]))?;
            plan.run()?;
        }
        for param in self.running() {
            let values = self.store.read(&[param.name.as_str()])?.remove(0);
            self.store.write(&format!("{AVERAGE}{}", param.name), &values)?;
        }
        Ok(())
    }
}
