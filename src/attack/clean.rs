//! What a network makes of clean images, and what counts as predicted.

use super::{Classifier, Names, lead};
use crate::error::Result;
use crate::nn::Net;
use crate::plan::{Plan, Schedule, largest_batch};
use crate::shape::{DType, Shape};
use crate::tape::{Tape, Var};
use crate::tensor::{Host, Store};

/// Logits `[examples, classes]` of clean images (indices into the data set), in this order; data set and weights as
/// for [`super::Evaluation::compile`].
///
/// # Errors
/// As [`Plan::compile`], and of the device.
pub fn logits(
    store: &Store,
    on: Classifier<'_>,
    data: &str,
    examples: &[u32],
    batch: usize,
) -> Result<Vec<f32>> {
    of_clean("logits", store, on, data, (examples, 0), batch, |_, logits, _| logits)
}

/// What is predicted of clean images, as an [`super::Evaluation`] with this seed judges them in its first run.
///
/// # Errors
/// As [`Plan::compile`], and of the device.
pub fn clean_predictions(
    store: &Store,
    on: Classifier<'_>,
    data: &str,
    examples: &[u32],
    seed: u64,
    batch: usize,
) -> Result<Vec<u32>> {
    let all = of_clean("clean", store, on, data, (examples, seed), batch, |names, logits, labels| {
        predicted(names, on.architecture.verdict(logits), labels, None)
    })?;
    Ok(all.into_iter().map(|class| class as u32).collect())
}

/// What `of` makes of the logits and the labels of each batch of clean images, a row an example; its tensors' names begin
/// with `prefix`.
fn of_clean(
    prefix: &str,
    store: &Store,
    on: Classifier<'_>,
    data: &str,
    (examples, seed): (&[u32], u64),
    batch: usize,
    of: impl for<'t> Fn(&Names, Var<'t>, Var<'t>) -> Var<'t>,
) -> Result<Vec<f32>> {
    let names = |batch: usize| Names::new(&format!("{prefix} {batch} {data}"), data);
    let record = |batch: usize| {
        let (tape, names) = (Tape::new(), names(batch));
        let draw = names.draw(&tape, batch);
        let all = tape.source(&names.images(), on.images(batch).with(0, on.examples), on.inputs.dtype());
        let labels = tape.source(&names.all_labels(), [on.examples], DType::U32);
        let net = Net::new(&tape, on.mode).with_draw(draw);
        let logits = on.architecture.forward(&net, all.gather_rows(draw.example));
        tape.assign(&names.of("outputs"), of(&names, logits, labels.gather_rows(draw.example)));
        Schedule::new(&tape, true)
    };
    let batch = largest_batch(store, batch, record).unwrap_or(1);
    let (plan, names) = (Plan::of(record(batch)?, store)?, names(batch));
    let put = |what: &str, values: &[u32]| match store.get(&names.of(what)) {
        Some(_) => store.write_u32(&names.of(what), values),
        None => Ok(()),
    };
    if store.get(&names.of(lead::LEAD)).is_some() {
        store.put(&names.of(lead::LEAD), Shape::scalar(), &Host::F64(vec![lead::on(store.device())]))?;
    }
    put("key", &[seed as u32, (seed >> 32) as u32])?;
    put("counter", &[0, 0])?;
    let mut all = Vec::new();
    for chunk in examples.chunks(batch) {
        store.write_u32(&names.of("example"), &padded(chunk, batch))?;
        plan.run()?;
        let read = store.read(&[&names.of("outputs")])?;
        for outputs in read.into_iter().map(Host::into_f32) {
            all.extend(&outputs[..outputs.len() / batch * chunk.len()]);
        }
    }
    Ok(all)
}

/// The class that counts as predicted by what decides, u32 `[B]`: see lead.rs.
pub(super) fn predicted<'t>(names: &Names, verdict: Var<'t>, labels: Var<'t>, wants: Option<u32>) -> Var<'t> {
    let judged = match wants {
        None => lead::raised(names, verdict, labels.one_hot(verdict.shape()[1])),
        Some(class) => lead::lowered(names, verdict, lead::marked(verdict, class)),
    };
    judged.argmax()
}

/// The examples, the last one repeated to fill the batch.
pub(super) fn padded(examples: &[u32], batch: usize) -> Vec<u32> {
    let mut padded = examples.to_vec();
    padded.resize(batch, *examples.last().unwrap_or(&0));
    padded
}
