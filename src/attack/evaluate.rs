//! Attacking a trained network: verdicts an example, over restarts.

use super::clean::{padded, predicted};
use super::recorded::record_batch;
use super::search::{self, Ascending, Search, Site, constant_name, is_state, table_name};
use super::{Adversarial, Attack, Classifier, Inputs, Names, Observer, ThreatModel, Verdicts, Witness, lead};
use crate::error::{Error, Result};
use crate::nn::Net;
use crate::plan::{Options, Plan, Program, Schedule, Step, largest_batch};
use crate::shape::{DType, Shape};
use crate::tape::{Augment, Tape};
use crate::tensor::{Host, Store};
use std::collections::BTreeMap;

/// An attack on a network and a data set of a store, compiled for evaluation: batch norm on running statistics,
/// examples left alone once they are broken.
pub struct Evaluation {
    store: Store,
    names: Names,
    batch: usize,
    threat: ThreatModel,
    steps: usize,
    steps_between_looks: usize,
    random: bool,
    /// Runs a restart.
    runs: u32,
    minimum_norm: bool,
    wants: Option<u32>,
    /// Whether examples are vectors of features, which have bounds of their own.
    features: bool,
    /// What the search remembers of an example, by the tensors' names.
    state: Vec<String>,
    load: Plan,
    start: Plan,
    step: Plan,
    judge_clean: Plan,
    judge_adversarial: Plan,
}

/// What came back of a batch.
struct Judged {
    prediction: Vec<u32>,
    confidence: Vec<f32>,
    clean: Vec<f32>,
    adversarial: Vec<f32>,
    /// Bounds of every feature; pixels have [0, 1].
    bounds: Option<[Vec<f32>; 2]>,
}

impl Evaluation {
    /// The plans of an evaluation in batches of so many images: loading, the start, a step, and judging the clean
    /// and the adversarial images.
    ///
    /// # Errors
    /// A shape error of the architecture.
    pub fn schedules(
        attack: &dyn Attack,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<[Schedule; 5]> {
        Evaluation::schedules_of(&Ascending(attack), on, data, batch)
    }

    /// As [`Evaluation::schedules`], for a search.
    ///
    /// # Errors
    /// A shape error of the architecture or the search.
    pub fn schedules_of(
        search: &dyn Search,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<[Schedule; 5]> {
        let names = Evaluation::names(search, on, data, batch);
        let [load, start, step] = [Tape::new(), Tape::new(), Tape::new()];
        record_batch(search.threat().norm, on, &names, &load, batch, Augment::default());
        search.start(&Site::new(&start, search, on, &names, batch, false));
        let site = Site::new(&step, search, on, &names, batch, true);
        search.step(&site);
        site.count();
        let judge = |image: &str| {
            let tape = Tape::new();
            let x = tape.source(&names.of(image), on.images(batch), DType::F32);
            let net = Net::new(&tape, on.mode).with_draw(names.draw(&tape, batch));
            let logits = on.architecture.forward(&net, x);
            let verdict = on.architecture.verdict(logits);
            tape.assign(
                &names.of("prediction"),
                predicted(
                    &names,
                    verdict,
                    names.source(&tape, "labels", [batch], DType::U32),
                    search.wants(),
                ),
            );
            tape.assign(&names.of("confidence"), verdict.softmax().amax(&[1]).reshape([batch]));
            Schedule::new(&tape, true)
        };
        let options = Options { precision: on.precision, ..Options::default() };
        Ok([
            Schedule::new(&load, true)?,
            Schedule::new(&start, true)?,
            Schedule::with(&step, options)?,
            judge("x")?,
            judge("adversarial")?,
        ])
    }

    fn names(search: &dyn Search, on: Classifier<'_>, data: &str, batch: usize) -> Names {
        Names::new(&format!("evaluate {} {batch} {data}", search.line()), data).with_inputs(on.inputs)
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
        Evaluation::compile_search(store, &Ascending(attack), on, data, batch)
    }

    /// As [`Evaluation::compile`], for a search.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile_search(
        store: &Store,
        search: &dyn Search,
        on: Classifier<'_>,
        data: &str,
        batch: usize,
    ) -> Result<Evaluation> {
        let record = |batch| Evaluation::schedules_of(search, on, data, batch);
        // Where not even one image fits, compiling says what is lacking.
        let batch = largest_batch(store, batch, record).unwrap_or(1);
        let names = Evaluation::names(search, on, data, batch);
        let schedules = Evaluation::schedules_of(search, on, data, batch)?;
        let state = |schedule: &Schedule| {
            let of_state = schedule.tensors.iter().filter(|tensor| is_state(&names, &tensor.name));
            of_state.map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
        };
        // What a start keeps and no step reads or writes need not move with an example.
        let state = state(&schedules[2]);
        let [load, start, step, judge_clean, judge_adversarial] = schedules;
        let evaluation = Evaluation {
            load: Plan::of(load, store)?,
            start: Plan::of(start, store)?,
            step: Plan::of(step, store)?,
            judge_clean: Plan::of(judge_clean, store)?,
            judge_adversarial: Plan::of(judge_adversarial, store)?,
            store: store.clone(),
            batch,
            threat: search.threat().clone(),
            steps: search.steps(),
            steps_between_looks: search.steps_between_looks().clamp(1, search.steps().max(1)),
            random: search.is_random(),
            runs: search.runs(on.architecture.classes()).max(1),
            minimum_norm: search.is_minimum_norm(),
            wants: search.wants(),
            features: on.inputs != Inputs::Images,
            state,
            names,
        };
        let radius = on.projection_radius(search.threat(), search.threat().epsilon.value());
        evaluation.put("radius", Shape::scalar(), Host::F64(vec![radius]))?;
        evaluation.put(lead::LEAD, Shape::scalar(), Host::F64(vec![lead::on(store.device())]))?;
        evaluation.put("step", Shape::scalar(), Host::F64(vec![search.step_size()]))?;
        let steps = evaluation.steps as u32;
        evaluation.put(search::SAME, [steps as usize + 1], Host::U32((0..=steps).collect()))?;
        let next = (0..=steps).map(|step| (step + 1).min(steps)).collect();
        evaluation.put(search::NEXT, [steps as usize + 1], Host::U32(next))?;
        for (name, values) in search.tables() {
            let expected = || format!("{} of {}: a number for each of {steps} steps", name, search.name());
            if values.len() != steps as usize {
                return Err(Error::argument("table", expected(), format!("has {}", values.len())));
            }
            evaluation.put(&table_name(name), [values.len()], Host::F64(values))?;
        }
        for (name, shape, values) in search.constants(on.architecture.input()) {
            evaluation.put(&constant_name(name), shape, Host::F64(values))?;
        }
        Ok(evaluation)
    }

    /// Writes one of the tensors of its names, if any plan asks for it.
    fn put(&self, name: &str, shape: impl Into<Shape>, values: Host) -> Result<()> {
        let name = self.names.of(name);
        match self.store.get(&name) {
            Some(_) => self.store.put(&name, shape, &values),
            None => Ok(()),
        }
    }

    /// Tells the device which examples are next: the last is repeated to fill the batch. `run` counts runs and restarts,
    /// `done` steps.
    fn load(&self, examples: &[u32], seed: u64, run: u32, done: usize) -> Result<()> {
        self.store.write_u32(&self.names.of("example"), &padded(examples, self.batch))?;
        self.put("key", [2], Host::U32(vec![seed as u32, (seed >> 32) as u32]))?;
        self.put("counter", [2], Host::U32(vec![run, 0]))?;
        self.put(search::RUN, Shape::scalar(), Host::F64(vec![f64::from(run % self.runs)]))?;
        self.put(search::RESTART, Shape::scalar(), Host::F64(vec![f64::from(run / self.runs)]))?;
        self.put(search::NOW, [1], Host::U32(vec![done as u32]))?;
        if done == 0 {
            let known = |pass: &usize| self.store.get(&self.names.of(&search::counters(*pass))).is_some();
            for pass in (0..).take_while(|pass| *pass == 0 || known(pass)) {
                let rows = self.steps as u32 + 1;
                let counters = (0..rows).flat_map(|step| [run, pass as u32 * rows + step]).collect();
                self.put(&search::counters(pass), [rows as usize, 2], Host::U32(counters))?;
            }
        }
        Ok(())
    }

    /// The classes that the last program predicted.
    fn predictions(&self) -> Result<Vec<u32>> {
        let read = self.store.read(&[&self.names.of("prediction")])?;
        Ok(read.into_iter().flat_map(Host::into_f32).map(|class| class as u32).collect())
    }

    /// What the last program judged.
    fn judged(&self) -> Result<Judged> {
        let names = ["prediction", "confidence", "x", "adversarial", "lower", "upper"];
        let names = names.map(|name| self.names.of(name));
        let wanted = &names[..if self.features { 6 } else { 4 }];
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let mut read = self.store.read(&wanted)?.into_iter().map(Host::into_f32);
        let mut next = || read.next().unwrap_or_default();
        let prediction = next().into_iter().map(|x| x as u32).collect();
        let (confidence, clean, adversarial) = (next(), next(), next());
        let bounds = self.features.then(|| [next(), next()]);
        Ok(Judged { prediction, confidence, clean, adversarial, bounds })
    }

    /// The program of a batch: `done` steps are behind it, `more` are to be done.
    fn program(&self, done: usize, more: usize) -> Program<'_> {
        let mut steps = vec![Step::Run(&self.load)];
        if done == 0 {
            steps.push(Step::Run(&self.start));
        }
        steps.extend([Step::Repeat(more, &self.step), Step::Run(&self.judge_adversarial)]);
        Program::new(steps)
    }

    /// Whether an example of class `label` withstands while class `prediction` is predicted for it.
    fn withstands(&self, label: u32, prediction: u32) -> bool {
        match self.wants {
            None => prediction == label,
            Some(class) => prediction != class,
        }
    }

    /// Attacks `examples` (indices into the data set, `labels` their classes): the clean images once, then `restarts`
    /// times all runs of the attack (1 where it draws no random numbers), each on the examples that still stand.
    ///
    /// # Errors
    /// Of the device, and of the observer.
    pub fn run(
        &self,
        examples: &[u32],
        labels: &[u32],
        restarts: u32,
        seed: u64,
        mut observer: impl Observer,
    ) -> Result<Verdicts> {
        let mut verdicts = self.clean(examples, labels, seed, &mut observer)?;
        for run in 0..self.runs(restarts) {
            self.go_on(examples, labels, [run, self.runs(restarts)], seed, &mut verdicts, &mut observer)?;
        }
        Ok(verdicts)
    }

    /// Runs of the attack that so many restarts are.
    pub fn runs(&self, restarts: u32) -> u32 {
        self.runs * if self.random { restarts.max(1) } else { 1 }
    }

    /// The verdicts before any attack: of the clean images.
    ///
    /// # Errors
    /// Of the device, and of the observer.
    pub fn clean(
        &self,
        examples: &[u32],
        labels: &[u32],
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        for (chunk, labels) in examples.chunks(self.batch).zip(labels.chunks(self.batch)) {
            self.load(chunk, seed, 0, 0)?;
            Program::new(vec![Step::Run(&self.load), Step::Run(&self.judge_clean)]).run()?;
            let judged = self.judged()?;
            for (row, &label) in labels.iter().enumerate() {
                let prediction = judged.prediction[row];
                let robust = self.withstands(label, prediction);
                if !robust {
                    let (at, clean) = (verdicts.clean.len(), judged.clean(row));
                    observer.broken(Witness { at, clean, adversarial: clean, prediction, distance: 0.0 })?;
                }
                verdicts.clean.push(prediction);
                verdicts.correct.push(prediction == label);
                verdicts.robust.push(robust);
                verdicts.distance.push(if robust { f64::INFINITY } else { 0.0 });
            }
        }
        verdicts.adversarial = verdicts.clean.clone();
        Ok(verdicts)
    }

    /// Run number `run` of so many ([`Evaluation::runs`]) on the examples that still stand by `verdicts`, whoever broke
    /// the others: what [`Evaluation::run`] does one after another, so that one may stop between runs, keep the
    /// verdicts, and go on later as if nothing had been.
    ///
    /// # Errors
    /// Of the device, and of the observer.
    pub fn go_on(
        &self,
        examples: &[u32],
        labels: &[u32],
        [run, runs]: [u32; 2],
        seed: u64,
        verdicts: &mut Verdicts,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut standing: Vec<usize> = (0..examples.len()).filter(|&i| verdicts.robust[i]).collect();
        let count = standing.len();
        let behind = run as usize * examples.len();
        let all = behind + count * (runs - run) as usize;
        let (mut kept, mut done, mut dropped) = (BTreeMap::new(), 0, 0);
        let mut on_device = false;
        while done < self.steps && !standing.is_empty() {
            let more = self.steps_between_looks.min(self.steps - done);
            let last = done + more == self.steps;
            let mut looked = 0;
            for chunk in standing.chunks(self.batch) {
                let ids: Vec<u32> = chunk.iter().map(|&i| examples[i]).collect();
                self.load(&ids, seed, run, done)?;
                if done > 0 && !on_device {
                    self.restore(chunk, &kept)?;
                }
                self.program(done, more).run()?;
                self.look(chunk, labels, verdicts, observer)?;
                looked += chunk.len();
                // One batch in which nothing broke goes on as it is: its state need not move through the host.
                on_device = standing.len() == chunk.len() && chunk.iter().all(|&i| verdicts.robust[i]);
                if !last && !on_device {
                    let robust = |&(_, &i): &(usize, &usize)| verdicts.robust[i];
                    self.save(chunk.iter().enumerate().filter(robust), &mut kept)?;
                }
                // Of so many examples' steps in all; an example that is dropped is done with.
                let steps = looked * (done + more) + (standing.len() - looked) * done;
                observer.progress(behind + dropped + steps / self.steps, all);
            }
            done += more;
            standing.retain(|&i| verdicts.robust[i]);
            dropped = count - standing.len();
        }
        Ok(())
    }

    /// Judges the images that a batch's program left, of the examples at `chunk`.
    fn look(
        &self,
        chunk: &[usize],
        labels: &[u32],
        verdicts: &mut Verdicts,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let predictions = self.predictions()?;
        let mut broken = Vec::new();
        for (row, (&at, &prediction)) in chunk.iter().zip(&predictions).enumerate() {
            verdicts.adversarial[at] = prediction;
            if !self.withstands(labels[at], prediction) {
                broken.push((row, at, prediction));
            }
        }
        if broken.is_empty() {
            return Ok(());
        }
        // Images are read where there is something to be seen in them.
        let judged = self.judged()?;
        for (row, at, prediction) in broken {
            let (clean, adversarial) = (judged.clean(row), judged.adversarial(row));
            let distance = self.threat.norm.distance(clean, adversarial);
            let near = distance <= self.threat.epsilon.value();
            if !judged.in_box(row) || !(near || self.minimum_norm) {
                verdicts.outside += 1;
                continue;
            }
            verdicts.outside += usize::from(!near);
            verdicts.robust[at] = !near;
            if distance < verdicts.distance[at] {
                verdicts.distance[at] = distance;
                observer.broken(Witness { at, clean, adversarial, prediction, distance })?;
            }
        }
        Ok(())
    }

    /// What the search remembers of examples at these rows of the batch, by where they stand: to go on with later.
    fn save<'s>(
        &self,
        rows: impl Iterator<Item = (usize, &'s usize)>,
        kept: &mut BTreeMap<usize, Vec<Vec<f32>>>,
    ) -> Result<()> {
        let names: Vec<&str> = self.state.iter().map(String::as_str).collect();
        let state: Vec<Vec<f32>> = self.store.read(&names)?.into_iter().map(Host::into_f32).collect();
        for (row, &at) in rows {
            kept.insert(at, state.iter().map(|all| row_of(all, row, self.batch).to_vec()).collect());
        }
        Ok(())
    }

    /// Writes what was saved of the examples at `chunk` to the rows of the batch, the last one's to those left.
    fn restore(&self, chunk: &[usize], kept: &BTreeMap<usize, Vec<Vec<f32>>>) -> Result<()> {
        let rows = (0..self.batch).map(|row| chunk[row.min(chunk.len() - 1)]);
        for (which, name) in self.state.iter().enumerate() {
            let values = rows.clone().filter_map(|at| kept.get(&at)).flat_map(|state| &state[which]);
            self.store.write_f32(name, &values.copied().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The adversarial images of one run of the attack on these examples.
    ///
    /// # Errors
    /// Of the device.
    pub fn images(&self, examples: &[u32], seed: u64) -> Result<Vec<Adversarial>> {
        let mut all = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(self.batch) {
            self.load(chunk, seed, 0, 0)?;
            Program::new(vec![Step::Run(&self.load), Step::Run(&self.judge_clean)]).run()?;
            let clean = self.judged()?;
            self.program(0, self.steps).run()?;
            let attacked = self.judged()?;
            all.extend(chunk.iter().enumerate().map(|(row, &example)| Adversarial {
                example,
                clean: attacked.clean(row).to_vec(),
                adversarial: attacked.adversarial(row).to_vec(),
                clean_prediction: (clean.prediction[row], clean.confidence[row]),
                adversarial_prediction: (attacked.prediction[row], attacked.confidence[row]),
            }));
        }
        Ok(all)
    }
}

/// Row `row` of `rows`.
fn row_of(all: &[f32], row: usize, rows: usize) -> &[f32] {
    let len = all.len() / rows.max(1);
    &all[row * len..(row + 1) * len]
}

impl Judged {
    fn rows(&self) -> usize {
        self.prediction.len()
    }

    fn clean(&self, row: usize) -> &[f32] {
        row_of(&self.clean, row, self.rows())
    }

    fn adversarial(&self, row: usize) -> &[f32] {
        row_of(&self.adversarial, row, self.rows())
    }

    /// Whether an adversarial image lies in its box, by its bits.
    fn in_box(&self, row: usize) -> bool {
        let image = self.adversarial(row);
        match &self.bounds {
            None => image.iter().all(|x| (0.0..=1.0).contains(x)),
            Some(bounds) => {
                let [lower, upper] = bounds.each_ref().map(|all| row_of(all, row, self.rows()));
                let within = |((x, lower), upper)| lower <= x && x <= upper;
                image.iter().zip(lower).zip(upper).all(within)
            }
        }
    }
}
