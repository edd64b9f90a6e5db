//! Attacking a trained network: verdicts an example, over restarts.

use super::{Ascent, Attack, Classifier, Names, RecordedAttack};
use crate::error::Result;
use crate::nn::Net;
use crate::plan::{Plan, Program, Schedule, Step, largest_batch};
use crate::shape::{DType, Shape};
use crate::tape::{Augment, Purpose, Tape};
use crate::tensor::{Host, Store};

/// Logits `[examples, classes]` of clean images (indices into the data set), in this order; data set and weights as
/// for [`Evaluation::compile`].
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
    let names = |batch: usize| Names::new(&format!("logits {batch} {data}"), data);
    let record = |batch: usize| {
        let (tape, names) = (Tape::new(), names(batch));
        let all = tape.source(&names.images(), on.images(batch).with(0, on.examples), on.inputs.dtype());
        let x = all.gather_rows(names.draw(&tape, batch).example);
        let logits = on.architecture.forward(&Net::new(&tape, on.mode), x);
        tape.assign(&names.of("logits"), logits);
        Schedule::new(&tape, true)
    };
    let batch = largest_batch(store, batch, record).unwrap_or(1);
    let (plan, names) = (Plan::of(record(batch)?, store)?, names(batch));
    let mut all = Vec::new();
    for chunk in examples.chunks(batch) {
        store.write_u32(&names.of("example"), &padded(chunk, batch))?;
        plan.run()?;
        let logits = store.read_f32(&names.of("logits"))?;
        all.extend(&logits[..chunk.len() * on.architecture.classes()]);
    }
    Ok(all)
}

/// The examples, the last one repeated to fill the batch.
pub(super) fn padded(examples: &[u32], batch: usize) -> Vec<u32> {
    let mut padded = examples.to_vec();
    padded.resize(batch, *examples.last().unwrap_or(&0));
    padded
}

/// What became of each example evaluated, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Class predicted for the clean image.
    pub clean: Vec<u32>,
    /// Class predicted for the adversarial image of the last restart that was run on the example.
    pub adversarial: Vec<u32>,
    /// Whether the clean image is classified right.
    pub correct: Vec<bool>,
    /// Whether the clean image and every adversarial one are classified right: a clean mistake counts as broken. Under a
    /// targeted attack: whether none of them is classified as the attack wants it.
    pub robust: Vec<bool>,
}

impl Verdicts {
    /// Examples whose clean image is classified right.
    pub fn clean_count(&self) -> usize {
        self.correct.iter().filter(|&&x| x).count()
    }

    /// Examples that withstood every restart.
    pub fn robust_count(&self) -> usize {
        self.robust.iter().filter(|&&x| x).count()
    }
}

/// An adversarial image beside its clean one.
#[derive(Clone, Debug)]
pub struct Adversarial {
    /// The example's index in the data set.
    pub example: u32,
    /// Pixels `[H,W,C]` in [0, 1].
    pub clean: Vec<f32>,
    /// Pixels `[H,W,C]` in [0, 1].
    pub adversarial: Vec<f32>,
    /// Class predicted for the clean image, and its probability.
    pub clean_prediction: (u32, f32),
    /// Class predicted for the adversarial image, and its probability.
    pub adversarial_prediction: (u32, f32),
}

/// An attack on a network and a data set of a store, compiled for evaluation: batch norm on running statistics,
/// examples frozen once they are broken.
pub struct Evaluation {
    store: Store,
    names: Names,
    batch: usize,
    image: usize,
    random: bool,
    ascent: Ascent,
    attack: RecordedAttack,
    judge_clean: Plan,
    judge_adversarial: Plan,
}

impl Evaluation {
    /// The plans of an evaluation in batches of so many images: loading with the start, a step, and judging the clean
    /// and the adversarial images.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn schedules(
        attack: &dyn Attack,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<[Schedule; 4]> {
        let names = Evaluation::names(attack, data, batch).with_inputs(on.inputs);
        let none = Augment::default();
        let load = RecordedAttack::record_load(attack, on, &names, batch, Purpose::EVALUATION_START, none);
        let step = RecordedAttack::schedule_step(attack, on, &names, batch, true)?;
        let judge = |image: &str| {
            let tape = Tape::new();
            let x = tape.source(&names.of(image), on.images(batch), DType::F32);
            let logits = on.architecture.forward(&Net::new(&tape, on.mode), x);
            let verdict = on.architecture.verdict(logits);
            tape.assign(&names.of("prediction"), verdict.argmax());
            tape.assign(&names.of("confidence"), verdict.softmax().amax(&[1]).reshape([batch]));
            Schedule::new(&tape, true)
        };
        Ok([Schedule::new(&load, true)?, step, judge("x")?, judge("adversarial")?])
    }

    fn names(attack: &dyn Attack, data: &str, batch: usize) -> Names {
        Names::new(&format!("evaluate {} {batch} {data}", attack.line()), data)
    }

    /// Compiles it. The data set's tensors are `{data}.images` and `{data}.labels`; the network's weights are in the
    /// store by their names. No more than `batch` images at once, and no more than the device has memory for: which
    /// images share a batch never changes a verdict.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile(
        store: &Store,
        attack: &dyn Attack,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<Evaluation> {
        let record = |batch| Evaluation::schedules(attack, on, data, batch);
        // Where not even one image fits, compiling says what is lacking.
        let batch = largest_batch(store, batch, record).unwrap_or(1);
        let names = Evaluation::names(attack, data, batch).with_inputs(on.inputs);
        let [load, step, judge_clean, judge_adversarial] = Evaluation::schedules(attack, on, data, batch)?;
        let recorded = RecordedAttack::of(load, step, attack.steps(), store)?;
        let epsilon = attack.threat().epsilon.value();
        let elements = on.images(1).len();
        let radius = on.projection_radius(attack.threat(), epsilon);
        store.put(&names.of("radius"), Shape::scalar(), &Host::F64(vec![radius]))?;
        store.put(&names.of("step"), Shape::scalar(), &Host::F64(vec![attack.step_size()]))?;
        Ok(Evaluation {
            judge_clean: Plan::of(judge_clean, store)?,
            judge_adversarial: Plan::of(judge_adversarial, store)?,
            store: store.clone(),
            batch,
            image: elements,
            random: attack.is_random(),
            ascent: attack.ascends(),
            attack: recorded,
            names,
        })
    }

    /// Tells the device which examples are next: the last is repeated to fill the batch.
    fn load(&self, examples: &[u32], seed: u64, restart: u32) -> Result<()> {
        self.store.write_u32(&self.names.of("example"), &padded(examples, self.batch))?;
        // An attack without random numbers has no use for these two, and its plans did not make them.
        let put = |name: &str, words| self.store.put(&self.names.of(name), [2], &Host::U32(words));
        put("key", vec![seed as u32, (seed >> 32) as u32])?;
        put("counter", vec![restart, 0])
    }

    fn predictions(&self) -> Result<(Vec<u32>, Vec<f32>)> {
        let mut read = self.store.read(&[&self.names.of("prediction"), &self.names.of("confidence")])?;
        let confidence = read.remove(1).to_f64().into_iter().map(|x| x as f32).collect();
        let prediction = read.remove(0).to_f64().into_iter().map(|x| x as u32).collect();
        Ok((prediction, confidence))
    }

    fn attack_program(&self) -> Program<'_> {
        let mut steps = self.attack.program();
        steps.push(Step::Run(&self.judge_adversarial));
        Program::new(steps)
    }

    /// Attacks `examples` (indices into the data set, `labels` their classes): the clean images once, then `restarts`
    /// runs of the attack (1 where its start is not random), each on the examples that are still right.
    /// `progress` hears how many attacks are done and how many there may be.
    ///
    /// # Errors
    /// Of the device.
    pub fn run(
        &self,
        examples: &[u32],
        labels: &[u32],
        restarts: u32,
        seed: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        for chunk in examples.chunks(self.batch) {
            self.load(chunk, seed, 0)?;
            Program::new(vec![self.attack.loading(), Step::Run(&self.judge_clean)]).run()?;
            verdicts.clean.extend(&self.predictions()?.0[..chunk.len()]);
        }
        verdicts.correct = verdicts.clean.iter().zip(labels).map(|(a, b)| a == b).collect();
        verdicts.robust =
            verdicts.clean.iter().zip(labels).map(|(&a, &b)| self.ascent.withstands(b, a)).collect();
        verdicts.adversarial = verdicts.clean.clone();
        let restarts = if self.random { restarts.max(1) } else { 1 };
        for restart in 0..restarts {
            let standing: Vec<usize> = (0..examples.len()).filter(|&i| verdicts.robust[i]).collect();
            let mut done = 0;
            for chunk in standing.chunks(self.batch) {
                let ids: Vec<u32> = chunk.iter().map(|&i| examples[i]).collect();
                self.load(&ids, seed, restart)?;
                self.attack_program().run()?;
                let (predictions, _) = self.predictions()?;
                for (&i, &prediction) in chunk.iter().zip(&predictions) {
                    verdicts.adversarial[i] = prediction;
                    verdicts.robust[i] = self.ascent.withstands(labels[i], prediction);
                }
                done += chunk.len();
                let left = (restarts - 1 - restart) as usize * standing.len();
                let before = restart as usize * examples.len();
                progress(before + done, before + standing.len() + left);
            }
        }
        Ok(verdicts)
    }

    /// The adversarial images of one run of the attack on these examples.
    ///
    /// # Errors
    /// Of the device.
    pub fn images(&self, examples: &[u32], seed: u64) -> Result<Vec<Adversarial>> {
        let mut all = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(self.batch) {
            self.load(chunk, seed, 0)?;
            Program::new(vec![self.attack.loading(), Step::Run(&self.judge_clean)]).run()?;
            let (clean_class, clean_confidence) = self.predictions()?;
            self.attack_program().run()?;
            let (class, confidence) = self.predictions()?;
            let clean = self.store.read_f32(&self.names.of("x"))?;
            let adversarial = self.store.read_f32(&self.names.of("adversarial"))?;
            for (i, &example) in chunk.iter().enumerate() {
                let pixels = i * self.image..(i + 1) * self.image;
                all.push(Adversarial {
                    example,
                    clean: clean[pixels.clone()].to_vec(),
                    adversarial: adversarial[pixels].to_vec(),
                    clean_prediction: (clean_class[i], clean_confidence[i]),
                    adversarial_prediction: (class[i], confidence[i]),
                });
            }
        }
        Ok(all)
    }
}
