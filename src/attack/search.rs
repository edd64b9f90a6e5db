//! Attacks that carry state of their own for each example from step to step, and how all attacks are recorded for
//! evaluation.
//!
//! An attack is two recordings: where it starts, and what a step does. Both read and keep named tensors whose first
//! axis is the batch; everything an attack remembers of an example is a row of those. That is why the evaluation may
//! stop between steps, drop the examples that are broken, and go on with the others in other batches: rows move, and
//! nothing else is remembered. Random numbers are a function of the example, the run and the step, so that it changes
//! no result either.

use super::recorded::record_ascent;
use super::{Ascent, Attack, Ball, Classifier, Limits, Names, ThreatModel, lead};
use crate::nn::Net;
use crate::shape::{DType, Shape};
use crate::tape::{Draw, Op, Purpose, Tape, Var};
use std::cell::Cell;
use std::ops::Deref;

/// Which of the search's runs is under way, from 0: a scalar.
pub(super) const RUN: &str = "run";
/// Which restart is under way, from 0: a scalar.
pub(super) const RESTART: &str = "restart";
/// Steps done, u32 `[1]`.
pub(super) const NOW: &str = "now";
/// 0, 1, 2, ... as u32 `[steps + 1]`.
pub(super) const SAME: &str = "same";
/// 1, 2, 3, ... as u32 `[steps + 1]`.
pub(super) const NEXT: &str = "next";
/// What the random numbers of pass `pass` of each step are counted by, u32 `[steps + 1, 2]`: (restart and run, a number of
/// its own), with that of the start in front.
pub(super) fn counters(pass: usize) -> String {
    match pass {
        0 => "counters".into(),
        _ => format!("counters {pass}"),
    }
}

/// An attack as evaluation runs it: a start, and a step that is repeated.
///
/// What it must leave in the tensor `adversarial` ([`Site::keep_adversarial`]), `[B,H,W,C]`: a misclassified image for
/// an example that it has broken, any image of the box else. Whether an image breaks its example is judged outside, by
/// a forward pass and by its exact bits ([`super::Evaluation::run`]).
pub trait Search: Send + Sync {
    /// Its name, as "APGD-CE".
    fn name(&self) -> String;

    /// What it may do. A minimum-norm attack looks for the nearest image in this norm; epsilon is what is asked for
    /// in the end.
    fn threat(&self) -> &ThreatModel;

    /// All that a robust accuracy must be printed with: "APGD-CE, Linf 8/255, 100 steps".
    fn line(&self) -> String;

    /// Times that [`Search::step`] is run.
    fn steps(&self) -> usize;

    /// Steps after which the evaluation looks for examples that are broken, and drops them. A look costs a forward pass
    /// and, unless all examples are one batch and none is broken, moving state through the host.
    fn steps_between_looks(&self) -> usize {
        self.steps()
    }

    /// Whether it draws random numbers, so that restarts differ.
    fn is_random(&self) -> bool;

    /// Whether it goes by gradients. What does not ought to find no more.
    fn uses_gradients(&self) -> bool {
        true
    }

    /// Runs that differ in more than random numbers, as in the class each goes for ([`Site::run`]): an evaluation does
    /// all of them for each restart, each on the examples that still stand.
    fn runs(&self, _classes: usize) -> u32 {
        1
    }

    /// Whether it looks for the nearest adversarial image instead of any one in the ball: what it finds may lie
    /// outside the ball, and is worth keeping for its distance.
    fn is_minimum_norm(&self) -> bool {
        false
    }

    /// The class that is to be predicted, where any other misclassification does not count.
    fn wants(&self) -> Option<u32> {
        None
    }

    /// Passes whose mean the network is taken for ([`super::Eot`]).
    fn passes(&self) -> usize {
        1
    }

    /// Length of a step, where the step size is one number: the tensor `step` of its ball.
    fn step_size(&self) -> f64 {
        0.0
    }

    /// Numbers that differ from step to step, `steps` of each: [`Site::number`] reads them.
    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        Vec::new()
    }

    /// Numbers that never change, for images `[H,W,C]`, by name and shape: [`Site::constant`] reads them.
    fn constants(&self, _image: [usize; 3]) -> Vec<(&'static str, Shape, Vec<f64>)> {
        Vec::new()
    }

    /// Records the start of a run.
    fn start<'t>(&self, site: &Site<'_, 't>);

    /// Records a step.
    fn step<'t>(&self, site: &Site<'_, 't>);
}

/// Where an attack is recorded: a batch of a data set, a network, and the state of the attack.
pub struct Site<'a, 't> {
    /// The tape.
    pub tape: &'t Tape,
    /// The network.
    pub on: Classifier<'a>,
    /// Images of the batch.
    pub batch: usize,
    /// The clean images `[B,H,W,C]`, radius, step and bounds, as scalars and tensors on the tape.
    pub ball: Ball<'t>,
    /// Their classes, u32 `[B]`.
    pub labels: Var<'t>,
    names: Names,
    /// Steps of the tables.
    steps: usize,
    /// As [`Search::passes`].
    passes: usize,
    /// Whether this is a step, and not the start.
    stepping: bool,
    /// Whether anything recorded asks which step it is.
    counts: Cell<bool>,
}

impl<'a, 't> Site<'a, 't> {
    /// Where the start of `search` is recorded, or a step, on a tape of its own; [`Site::count`] ends it.
    pub(super) fn new(
        tape: &'t Tape,
        search: &dyn Search,
        on: Classifier<'a>,
        names: &Names,
        batch: usize,
        stepping: bool,
    ) -> Site<'a, 't> {
        let ball = names.ball(tape, search.threat().norm, on.images(batch));
        let labels = names.source(tape, "labels", [batch], DType::U32);
        let (steps, passes) = (search.steps(), search.passes());
        let (names, counts) = (names.clone(), Cell::new(false));
        Site { tape, on, batch, ball, labels, names, steps, passes, stepping, counts }
    }

    /// The step under way, u32 `[1]`.
    fn now(&self) -> Var<'t> {
        self.counts.set(true);
        self.names.source(self.tape, NOW, [1], DType::U32)
    }

    /// Records that the step is done, where anything in it asks for its number. Integers are moved on a device, never
    /// calculated with, and no launch reads and writes one tensor of them: the next number is looked up in one table
    /// and copied by another.
    pub(super) fn count(&self) {
        if self.counts.get() {
            let table = |name| self.names.source(self.tape, name, [self.steps + 1], DType::U32);
            let next = table(NEXT).gather_rows(self.now());
            self.tape.assign(&self.names.of(NOW), table(SAME).gather_rows(next));
        }
    }

    /// What random numbers are a function of: example, restart and run, and step (0 at the start, then from 1). Streams
    /// of [`Purpose::EVALUATION_START`] are for evaluation.
    pub fn draw(&self) -> Draw<'t> {
        self.draw_of(0)
    }

    /// The same, of one of several passes in a step.
    fn draw_of(&self, pass: usize) -> Draw<'t> {
        let mut draw = self.names.draw(self.tape, self.batch);
        if self.stepping || pass > 0 {
            let table = |name: &str, shape: Shape| self.names.source(self.tape, name, shape, DType::U32);
            let row = match self.stepping {
                true => table(NEXT, Shape::new(&[self.steps + 1])).gather_rows(self.now()),
                false => self.now(),
            };
            let counters = table(&counters(pass), Shape::new(&[self.steps + 1, 2]));
            draw.counter = counters.gather_rows(row).reshape([2]);
        }
        draw
    }

    /// The clean images, `[B,H,W,C]`.
    pub fn x(&self) -> Var<'t> {
        self.ball.x
    }

    /// Logits `[B, classes]` of images `[B,H,W,C]`: the network's, dummy classes being taken together with what they
    /// stand for; the mean of all passes.
    pub fn logits(&self, images: Var<'t>) -> Var<'t> {
        mean(&self.each_pass(images))
    }

    /// As [`Site::logits`], of each of [`Search::passes`], at least one. Each draws random numbers of its own, and others in
    /// every step, where the network draws any; else they are one pass.
    pub fn each_pass(&self, images: Var<'t>) -> Vec<Var<'t>> {
        self.counting(|| {
            let logits = |draw| {
                let net = Net::new(self.tape, self.on.mode).with_draw(draw);
                self.on.architecture.verdict(self.on.architecture.forward(&net, images))
            };
            self.draws().into_iter().map(logits).collect()
        })
    }

    /// What each pass draws random numbers by.
    fn draws(&self) -> Vec<Draw<'t>> {
        (0..self.passes.max(1)).map(|pass| self.draw_of(pass)).collect()
    }

    /// What `record` records with a network, which is given what to draw random numbers by. One that draws none does not ask
    /// which step it is.
    fn counting<R>(&self, record: impl FnOnce() -> R) -> R {
        let (counts, before) = (self.counts.get(), self.tape.nodes().len());
        let recorded = record();
        let draws = self.tape.nodes()[before..].iter().any(|node| matches!(node.op, Op::Random { .. }));
        self.counts.set(counts || draws);
        recorded
    }

    /// Columns of the logits.
    pub fn classes(&self) -> usize {
        self.on.architecture.classes()
    }

    /// A shape of one number an example that broadcasts over images: `[B,1,1,1]`.
    pub fn per_example(&self) -> Shape {
        Shape::new(&[self.batch, 1, 1, 1])
    }

    /// A shape of one number that broadcasts over images: `[1,1,1,1]`.
    pub fn one(&self) -> Shape {
        Shape::new(&[1, 1, 1, 1])
    }

    /// Which of [`Search::runs`] is under way, from 0: a scalar.
    pub fn run(&self) -> Var<'t> {
        self.names.source(self.tape, RUN, Shape::scalar(), DType::F32)
    }

    /// Which restart is under way, from 0: a scalar.
    pub fn restart(&self) -> Var<'t> {
        self.names.source(self.tape, RESTART, Shape::scalar(), DType::F32)
    }

    /// The constant `name` ([`Search::constants`]), of the shape it has there.
    pub fn constant(&self, name: &str, shape: impl Into<Shape>) -> Var<'t> {
        self.names.source(self.tape, &constant_name(name), shape, DType::F32)
    }

    /// The row of the constant `name`, `[rows, columns]`, that belongs to this step: `[1, columns]`; at the start, the
    /// first. A table by [`Search::tables`] has one number a step; this has several that are looked up together.
    pub fn row_of_constant(&self, name: &str, rows: usize, columns: usize) -> Var<'t> {
        let table = self.constant(name, [rows, columns]);
        match self.stepping {
            true => table.gather_rows(self.now()),
            false => table.slice(0, 0, 1),
        }
    }

    /// The least and the greatest value that each pixel or feature may take, as x, whatever the radius: [0, 1] for
    /// pixels. What may not be changed has x as both.
    pub fn bounds(&self) -> [Var<'t>; 2] {
        let x = self.x();
        match self.ball.changeable {
            None => [0.0, 1.0].map(|bound| self.tape.fill(x.shape(), bound)),
            Some(_) => {
                let Limits { least, most, down, up } = self.names.limits(self.tape, x.shape());
                let all = |of: Var<'t>| of.broadcast_to(x.shape());
                [all(down).select(all(least), x), all(up).select(all(most), x)]
            }
        }
    }

    /// Images drawn into the box of [`Site::bounds`].
    pub fn into_box(&self, images: Var<'t>) -> Var<'t> {
        match self.ball.changeable {
            None => images.clamp(0.0, 1.0),
            Some(_) => {
                let [least, most] = self.bounds();
                images.max(least).min(most)
            }
        }
    }

    /// The ball round the same images with another radius, a scalar or `[B,1,1,1]`. Its projections are exact for that
    /// radius but for rounding: they do not keep the distance from it that [`ThreatModel::projection_radius`] does.
    pub fn ball_of_radius(&self, radius: Var<'t>) -> Ball<'t> {
        self.names.ball_around(self.tape, self.ball.norm, self.x(), radius, self.ball.step)
    }

    /// Where the gradient of the cross-entropy points at images with these logits, as the images: it is that gradient
    /// times a number for each example, in range also where the network is too sure for f32
    /// ([`Var::cross_entropy_direction`]).
    pub fn ascent(&self, logits: Var<'t>, images: Var<'t>) -> Var<'t> {
        let direction = logits.cross_entropy_direction(self.labels);
        self.ball.along(self.tape.weighted_grad(logits, direction, &[images])[0])
    }

    /// 1 where an example is classified right by these logits, or wrong by so little that it may be rounding (lead.rs):
    /// `[B,1,1,1]`.
    pub fn correct(&self, logits: Var<'t>) -> Var<'t> {
        lead::correct(&self.names, logits, self.labels).reshape(self.per_example())
    }

    /// How far ahead of the label's logit another one has to be for an example to be classified wrong (lead.rs), `[B,1]`.
    pub(super) fn needed(&self, logits: Var<'t>) -> Var<'t> {
        lead::needed(&self.names, logits)
    }

    /// The number of table `name` ([`Search::tables`]) for this step, a scalar; at the start, that of the first step.
    pub fn number(&self, name: &str) -> Var<'t> {
        let table = self.names.source(self.tape, &table_name(name), [self.steps], DType::F32);
        let number = match self.stepping {
            true => table.gather_rows(self.now()),
            false => table.slice(0, 0, 1),
        };
        number.reshape(Shape::scalar())
    }

    /// What the attack remembers as `name`, as it was before this step; its first axis is the batch.
    pub fn state(&self, name: &str, shape: impl Into<Shape>) -> Var<'t> {
        self.names.source(self.tape, &state_name(name), shape, DType::F32)
    }

    /// Remembers `value` as `name` from here on. A start keeps all that a step reads.
    pub fn keep(&self, name: &str, value: Var<'t>) {
        self.tape.assign(&self.names.of(&state_name(name)), value);
    }

    /// The image that was kept last for each example, `[B,H,W,C]`.
    pub fn adversarial(&self) -> Var<'t> {
        self.names.source(self.tape, "adversarial", self.x().shape(), DType::F32)
    }

    /// Keeps these images, see [`Search`].
    pub fn keep_adversarial(&self, images: Var<'t>) {
        self.tape.assign(&self.names.of("adversarial"), images);
    }
}

/// The mean of what several passes gave, at least one. Those of a network that draws no random numbers are one value, which is
/// its own mean: a third of three times it would be off by a rounding.
pub(super) fn mean<'t>(passes: &[Var<'t>]) -> Var<'t> {
    let first = passes[0];
    if passes.iter().all(|pass| pass.id() == first.id()) {
        return first;
    }
    let sum = passes.iter().skip(1).fold(first, |sum, &pass| sum + pass);
    sum.scale(1.0 / passes.len() as f64)
}

/// What is remembered as `name`, as [`Names::of`] takes it.
fn state_name(name: &str) -> String {
    format!("state/{name}")
}

/// The table `name`, as [`Names::of`] takes it.
pub(super) fn table_name(name: &str) -> String {
    format!("table/{name}")
}

/// The constant `name`, as [`Names::of`] takes it.
pub(super) fn constant_name(name: &str) -> String {
    format!("constant/{name}")
}

/// Whether `tensor` is something that an attack under `names` remembers of each example.
pub(super) fn is_state(names: &Names, tensor: &str) -> bool {
    tensor == names.of("adversarial") || tensor.starts_with(&names.of(&state_name("")))
}

/// An [`Attack`] (a reference to one, or a box with one) as a search: its iterates are the adversarial images, and an
/// example that is broken stays as it is.
pub struct Ascending<A>(pub A);

impl<A> Search for Ascending<A>
where
    A: Deref<Target: Attack> + Send + Sync,
{
    fn name(&self) -> String {
        self.0.name()
    }

    fn threat(&self) -> &ThreatModel {
        self.0.threat()
    }

    fn line(&self) -> String {
        self.0.line()
    }

    fn steps(&self) -> usize {
        self.0.steps()
    }

    fn is_random(&self) -> bool {
        self.0.is_random()
    }

    fn wants(&self) -> Option<u32> {
        match self.0.ascends() {
            Ascent::CrossEntropy | Ascent::Kl => None,
            Ascent::Towards(class) => Some(class),
        }
    }

    fn step_size(&self) -> f64 {
        self.0.step_size()
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep_adversarial(self.0.start(&site.ball, site.draw(), Purpose::EVALUATION_START));
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        site.counting(|| record_ascent(&*self.0, site.on, &site.names, &site.draws(), site.batch, true));
    }
}
