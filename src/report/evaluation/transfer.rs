//! Images that are made on one network and judged by another.

use super::verify::in_box;
use super::{Passes, Subject, argmax};
use crate::attack::{Classifier, Evaluation, Observer, ThreatModel, Verdicts, Witness, lead_on};
use crate::error::Result;
use crate::tensor::Store;

/// Another network, whose adversarial images the one that is evaluated judges.
pub(super) struct Crossing<'a> {
    judge: Subject<'a>,
    passes: Passes,
    other: &'a Subject<'a>,
    /// What the other's weights and the data are in: names of weights may be those of the judge.
    theirs: Store,
    /// How far ahead another class has to be to count, as a share of the largest logit.
    lead: f64,
    /// Images at once.
    batch: usize,
}

impl<'a> Crossing<'a> {
    /// From `other` to `judge`, whose weights are in `store`; both see the same data.
    ///
    /// # Errors
    /// Of the device.
    pub(super) fn compile(
        judge: Subject<'a>,
        other: &'a Subject<'a>,
        store: &Store,
        batch: usize,
    ) -> Result<Crossing<'a>> {
        let theirs = Store::new(store.device());
        other.put(&theirs)?;
        let passes = Passes::compile(store, judge.classifier(), batch)?;
        Ok(Crossing { judge, passes, other, theirs, lead: lead_on(store.device()), batch })
    }

    /// What the attack is compiled for: its data are called there what they are here.
    pub(super) fn attacked(&self) -> (&Store, Classifier<'a>) {
        (&self.theirs, self.other.classifier())
    }

    /// Makes an image of each of `examples` with `evaluation`, which attacks the other network. Those that lie in ball and box
    /// by their bits, and are read as another class here, break what they are of.
    ///
    /// # Errors
    /// Of the device, and of the observer.
    pub(super) fn run(
        &self,
        evaluation: &Evaluation,
        threat: &ThreatModel,
        examples: &[u32],
        seed: u64,
        verdicts: &mut Verdicts,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let data = self.judge.data;
        let mut at = 0;
        // A batch at a time, so that something is heard of it.
        for chunk in examples.chunks(self.batch) {
            let made = evaluation.images(chunk, seed)?;
            let images: Vec<f32> = made.iter().flat_map(|image| image.adversarial.iter().copied()).collect();
            let logits = self.passes.logits_of(&images, chunk, 0)?;
            for (made, logits) in made.iter().zip(logits.chunks(self.passes.classes())) {
                let prediction = argmax(logits);
                verdicts.adversarial[at] = prediction;
                let label = data.labels[made.example as usize];
                let lead = logits[prediction as usize] - logits[label as usize];
                let largest = logits.iter().fold(0f64, |most, logit| most.max(logit.abs()));
                if prediction != label && lead > self.lead * largest {
                    let (clean, adversarial) = (self.judge.clean(made.example), &made.adversarial);
                    let distance = threat.norm.distance(&clean, adversarial);
                    if distance <= threat.epsilon.value() && in_box(data, &clean, adversarial).is_ok() {
                        (verdicts.robust[at], verdicts.distance[at]) = (false, distance);
                        observer.broken(Witness { at, clean: &clean, adversarial, prediction, distance })?;
                    } else {
                        verdicts.outside += 1;
                    }
                }
                at += 1;
            }
            observer.progress(at, examples.len());
        }
        Ok(())
    }
}
