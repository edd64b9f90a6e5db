//! Gradient alignment: how alike the input gradients at an image and at a random point of the ball around it are.
//!
//! The mean over images of cos(g(x), g(x + noise)), g the gradient of the cross-entropy by the image and the noise
//! uniform in the ball (Andriushchenko and Flammarion 2020, "Understanding and Improving Fast Adversarial Training",
//! section 4). Near 1 the loss is about linear in the ball and one step finds what many do; catastrophic overfitting
//! shows as a fall to about 0.

use super::clean::padded;
use super::{Classifier, Names, ThreatModel};
use crate::error::Result;
use crate::nn::Net;
use crate::plan::{Plan, Schedule, largest_batch};
use crate::shape::{DType, Shape};
use crate::tape::{Purpose, Tape, Var};
use crate::tensor::{Host, Store};

/// The measurement, compiled for a network and a data set of a store.
pub struct Alignment {
    store: Store,
    names: Names,
    batch: usize,
    plan: Plan,
}

impl Alignment {
    /// The plan of a batch of so many images.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn schedule(threat: &ThreatModel, on: Classifier<'_>, data: &str, batch: usize) -> Result<Schedule> {
        let (tape, names) = (Tape::new(), Alignment::names(data, batch).with_inputs(on.inputs));
        let images = on.images(batch);
        let draw = names.draw(&tape, batch);
        let all = tape.source(&names.images(), images.with(0, on.examples), on.inputs.dtype());
        let labels = tape.source(&names.all_labels(), [on.examples], DType::U32).gather_rows(draw.example);
        let x = all.gather_rows(draw.example);
        let radius = tape.source(&names.of("radius"), Shape::scalar(), DType::F32);
        let near = names.ball_around(&tape, threat.norm, x, radius, radius).random_start(
            draw,
            Purpose::EVALUATION_START.stream(2),
            false,
        );
        let (one, other) = (gradient(&tape, on, labels, x), gradient(&tape, on, labels, near));
        let lengths = one.norm_l2() * other.norm_l2();
        // An image without a gradient at one of the two has no cosine, and does not count (as the reference does).
        let counts = lengths.sign();
        let cosine = (one * other).sum_per_example().reshape(counts.shape()) / lengths.affine(1.0, 1e-30);
        tape.assign(&names.of("cosine"), (cosine * counts).reshape([batch]));
        tape.assign(&names.of("counts"), counts.reshape([batch]));
        Schedule::new(&tape, true)
    }

    fn names(data: &str, batch: usize) -> Names {
        Names::new(&format!("alignment {batch} {data}"), data)
    }

    /// Compiles it, for `batch` images at once or as many as there is memory for; data set and weights as for
    /// [`super::Evaluation::compile`].
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile(
        store: &Store,
        threat: &ThreatModel,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<Alignment> {
        let record = |batch| Alignment::schedule(threat, on, data, batch);
        let batch = largest_batch(store, batch, record).unwrap_or(1);
        let (names, plan) = (Alignment::names(data, batch), Plan::of(record(batch)?, store)?);
        let radius = on.projection_radius(threat, threat.epsilon.value());
        store.put(&names.of("radius"), Shape::scalar(), &Host::F64(vec![radius]))?;
        Ok(Alignment { store: store.clone(), names, batch, plan })
    }

    /// The mean cosine over `examples` (indices into the data set), -1 to 1; 0 where no image has a gradient. The noise
    /// is a function of seed and example.
    ///
    /// # Errors
    /// Of the device.
    pub fn measure(&self, examples: &[u32], seed: u64) -> Result<f64> {
        let put = |name: &str, words| self.store.put(&self.names.of(name), [2], &Host::U32(words));
        put("key", vec![seed as u32, (seed >> 32) as u32])?;
        put("counter", vec![0, 0])?;
        let (mut sum, mut count) = (0.0, 0.0);
        for chunk in examples.chunks(self.batch) {
            self.store.write_u32(&self.names.of("example"), &padded(chunk, self.batch))?;
            self.plan.run()?;
            let read = self.store.read(&[&self.names.of("cosine"), &self.names.of("counts")])?;
            let total = |host: &Host| host.to_f64()[..chunk.len()].iter().sum::<f64>();
            sum += total(&read[0]);
            count += total(&read[1]);
        }
        Ok(if count > 0.0 { sum / count } else { 0.0 })
    }
}

/// The gradient of the cross-entropy by the images `at`, each example's at a scale of its own: those of confident ones are
/// too small to be squared in f32, and no cosine changes by it.
fn gradient<'t>(tape: &'t Tape, on: Classifier<'_>, labels: Var<'t>, at: Var<'t>) -> Var<'t> {
    let logits = on.architecture.forward(&Net::new(tape, on.mode), at);
    tape.weighted_grad(logits, logits.cross_entropy_direction(labels), &[at])[0]
}
