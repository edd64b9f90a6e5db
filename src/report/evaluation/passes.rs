//! Passes of given images through a network: logits, and the gradient of the loss by the image.

use crate::attack::Classifier;
use crate::error::{Error, Result};
use crate::nn::Net;
use crate::plan::{Plan, Schedule, largest_batch};
use crate::shape::DType;
use crate::tape::{Draw, Tape};
use crate::tensor::{Host, Store};

/// A network's passes forward and back over batches of images that the host gives. Its weights are in the store.
pub struct Passes {
    store: Store,
    prefix: String,
    batch: usize,
    /// Numbers in an image.
    elements: usize,
    /// Columns of the logits that decide.
    classes: usize,
    forward: Plan,
    backward: Plan,
}

impl Passes {
    /// Compiles them for no more than `batch` images at once, and no more than the device has memory for.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile(store: &Store, on: Classifier<'_>, batch: usize) -> Result<Passes> {
        let batch = largest_batch(store, batch, |batch| schedules(on, batch)).unwrap_or(1);
        let [forward, backward] = schedules(on, batch)?;
        Ok(Passes {
            store: store.clone(),
            prefix: prefix(batch),
            batch,
            elements: on.images(1).len(),
            classes: classes(on)?,
            forward: Plan::of(forward, store)?,
            backward: Plan::of(backward, store)?,
        })
    }

    /// Columns of [`Passes::logits`].
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The numbers that decide ([`crate::nn::Architecture::verdict`]), `[images, classes]`, of images `[images,H,W,C]`. A
    /// network that draws random numbers draws the same in every call.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not so many numbers; of the device.
    pub fn logits(&self, images: &[f32]) -> Result<Vec<f64>> {
        self.logits_as(images, 0, 0)
    }

    /// As [`Passes::logits`], but a network that draws random numbers draws others for each `forward`, and those that it
    /// draws for the image number `first` for the first of these.
    ///
    /// # Errors
    /// As [`Passes::logits`].
    pub fn logits_as(&self, images: &[f32], first: u32, forward: u32) -> Result<Vec<f64>> {
        let rows: Vec<u32> = (first..).take(images.len() / self.elements).collect();
        self.logits_of(images, &rows, forward)
    }

    /// As [`Passes::logits`], of images of these examples: a network that draws random numbers draws each example's own, in
    /// whatever batch it is, and others for each `forward`.
    ///
    /// # Errors
    /// As [`Passes::logits`].
    pub fn logits_of(&self, images: &[f32], examples: &[u32], forward: u32) -> Result<Vec<f64>> {
        self.check(images.len())?;
        if images.len() / self.elements != examples.len() {
            let count = images.len() / self.elements;
            return Err(Error::argument("examples", examples.len(), format!("there are {count} images")));
        }
        let mut all = Vec::new();
        for (chunk, examples) in images.chunks(self.batch * self.elements).zip(examples.chunks(self.batch)) {
            let images = Host::F32(padded(chunk, self.batch * self.elements, self.elements));
            let logits = self.forward(images, examples, forward)?;
            all.extend(&logits[..examples.len() * self.classes]);
        }
        Ok(all)
    }

    /// As [`Passes::logits`], of images that are not rounded to f32 where the device computes in f64.
    ///
    /// # Errors
    /// As [`Passes::logits`].
    pub fn logits_f64(&self, images: &[f64]) -> Result<Vec<f64>> {
        self.check(images.len())?;
        let mut all = Vec::new();
        for chunk in images.chunks(self.batch * self.elements) {
            let images = Host::F64(padded(chunk, self.batch * self.elements, self.elements));
            all.extend(&self.forward(images, &self.rows(), 0)?[..chunk.len() / self.elements * self.classes]);
        }
        Ok(all)
    }

    /// The numbers that decide, of a whole batch.
    fn forward(&self, images: Host, examples: &[u32], forward: u32) -> Result<Vec<f64>> {
        self.store.write(&self.name("x"), &images)?;
        self.draw(examples, forward)?;
        self.forward.run()?;
        self.store.read_f64(&self.name("logits"))
    }

    /// Says what random numbers are drawn, where the network draws any.
    fn draw(&self, examples: &[u32], forward: u32) -> Result<()> {
        let rows = padded(examples, self.batch, 1);
        for (what, values) in [("key", vec![0, 0]), ("counter", vec![forward, 0]), ("example", rows)] {
            if self.store.get(&self.name(what)).is_some() {
                self.store.write_u32(&self.name(what), &values)?;
            }
        }
        Ok(())
    }

    /// The first examples, that fill a batch.
    fn rows(&self) -> Vec<u32> {
        (0..self.batch as u32).collect()
    }

    fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }

    /// The loss (cross-entropy) of images `[images,H,W,C]` of these classes, and its gradient by them, as they are.
    ///
    /// # Errors
    /// As [`Passes::logits`].
    pub fn gradients(&self, images: &[f32], labels: &[u32]) -> Result<(Vec<f64>, Vec<f64>)> {
        self.check(images.len())?;
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        for (chunk, labels) in images.chunks(self.batch * self.elements).zip(labels.chunks(self.batch)) {
            let images = padded(chunk, self.batch * self.elements, self.elements);
            self.store.write(&self.name("x"), &Host::F32(images))?;
            self.store.write_u32(&self.name("labels"), &padded(labels, self.batch, 1))?;
            self.draw(&self.rows(), 0)?;
            self.backward.run()?;
            let rows = chunk.len() / self.elements;
            losses.extend(&self.store.read_f64(&self.name("loss"))?[..rows]);
            gradients.extend(&self.store.read_f64(&self.name("gradient"))?[..chunk.len()]);
        }
        Ok((losses, gradients))
    }

    fn check(&self, numbers: usize) -> Result<()> {
        match numbers.is_multiple_of(self.elements) {
            true => Ok(()),
            false => {
                let why = format!("images of {} numbers each were asked for", self.elements);
                Err(Error::argument("images", format!("{numbers} numbers"), why))
            }
        }
    }
}

/// A batch of `len` numbers: what is left of it repeats the last row.
fn padded<T: Copy>(chunk: &[T], len: usize, row: usize) -> Vec<T> {
    let mut all = chunk.to_vec();
    while all.len() < len {
        all.extend_from_within(all.len() - row..);
    }
    all
}

fn prefix(batch: usize) -> String {
    format!("passes {batch}")
}

/// A pass that may draw random numbers.
fn net<'t>(tape: &'t Tape, on: Classifier<'_>, batch: usize) -> Net<'t> {
    let source =
        |what: &str, len: usize| tape.source(&format!("{}.{what}", prefix(batch)), [len], DType::U32);
    let draw =
        Draw { key: source("key", 2), counter: source("counter", 2), example: source("example", batch) };
    Net::new(tape, on.mode).with_draw(draw)
}

/// Columns of what decides.
fn classes(on: Classifier<'_>) -> Result<usize> {
    let tape = Tape::new();
    let x = tape.source("x", on.images(1), DType::F32);
    let verdict = on.architecture.verdict(on.architecture.forward(&net(&tape, on, 1), x));
    tape.check()?;
    Ok(verdict.shape().dims().last().copied().unwrap_or(1))
}

fn schedules(on: Classifier<'_>, batch: usize) -> Result<[Schedule; 2]> {
    let name = |what: &str| format!("{}.{what}", prefix(batch));
    let forward = Tape::new();
    let x = forward.source(&name("x"), on.images(batch), DType::F32);
    let logits = on.architecture.forward(&net(&forward, on, batch), x);
    forward.assign(&name("logits"), on.architecture.verdict(logits));
    let backward = Tape::new();
    let x = backward.source(&name("x"), on.images(batch), DType::F32);
    let labels = backward.source(&name("labels"), [batch], DType::U32);
    let logits = on.architecture.verdict(on.architecture.forward(&net(&backward, on, batch), x));
    let losses = logits.cross_entropy(labels);
    backward.assign(&name("gradient"), backward.grad(losses.sum_all(), &[x])[0]);
    backward.assign(&name("loss"), losses);
    Ok([Schedule::new(&forward, true)?, Schedule::new(&backward, true)?])
}
