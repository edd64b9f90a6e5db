//! What a network says of images that come from elsewhere, as of adversarial images found on another network (transfer).

use super::evaluate::padded;
use super::{Classifier, Names};
use crate::error::{Error, Result};
use crate::nn::Net;
use crate::plan::{Plan, Schedule, largest_batch};
use crate::shape::DType;
use crate::tape::Tape;
use crate::tensor::{Host, Store};

/// The classes predicted for `images` (f32, `[N,H,W,C]` in a row, of any N), whose pixels are taken as they are: neither
/// clipped nor rounded. The network's weights are in the store. No more than `batch` images at once.
///
/// An image that is adversarial for another network breaks an example of this one if the class is not the example's, and if
/// it lies in the ball and the box ([`super::Norm::distance`]).
///
/// # Errors
/// [`Error::Argument`] where the numbers are not a whole number of images; as [`Plan::compile`], and of the device.
pub fn predictions(store: &Store, on: Classifier<'_>, images: &[f32], batch: usize) -> Result<Vec<u32>> {
    let len = on.images(1).len();
    if !images.len().is_multiple_of(len) {
        let value = format!("{} numbers", images.len());
        return Err(Error::argument("images", value, format!("an image of this network has {len}")));
    }
    let names = |batch: usize| Names::new(&format!("predictions {batch}"), "");
    let record = |batch: usize| {
        let (tape, names) = (Tape::new(), names(batch));
        let x = names.source(&tape, "images", on.images(batch), DType::F32);
        let net = Net::new(&tape, on.mode).with_draw(names.draw(&tape, batch));
        let verdict = on.architecture.verdict(on.architecture.forward(&net, x));
        tape.assign(&names.of("predictions"), verdict.argmax());
        Schedule::new(&tape, true)
    };
    let count = images.len() / len;
    let batch = largest_batch(store, batch.min(count.max(1)), record).unwrap_or(1);
    let (plan, names) = (Plan::of(record(batch)?, store)?, names(batch));
    let mut all = Vec::with_capacity(count);
    for (part, chunk) in images.chunks(batch * len).enumerate() {
        let rows = chunk.len() / len;
        let mut filled = chunk.to_vec();
        filled.resize(batch * len, 0.0);
        store.write_f32(&names.of("images"), &filled)?;
        // A network that draws random numbers draws them by an image's place.
        let places: Vec<u32> = (0..rows).map(|row| (part * batch + row) as u32).collect();
        if store.get(&names.of("example")).is_some() {
            store.write_u32(&names.of("example"), &padded(&places, batch))?;
        }
        plan.run()?;
        let read = store.read(&[&names.of("predictions")])?.into_iter().next().map(Host::into_f32);
        all.extend(read.unwrap_or_default().into_iter().take(rows).map(|class| class as u32));
    }
    Ok(all)
}
