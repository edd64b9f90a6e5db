//! An attack recorded against a network: the plan that loads a batch and starts, and the plan of one step.
//!
//! Data sets lie on the device as bytes. A run uploads which examples a batch has, and everything else happens
//! there: gathering, random start, K steps. The step's plan asks for the image's gradient alone, so it launches
//! nothing for weights.

use super::{Attack, Ball, Norm};
use crate::error::Result;
use crate::nn::{Architecture, Mode, Net};
use crate::plan::{Options, Plan, Precision, Schedule, Step};
use crate::shape::{DType, Shape};
use crate::tape::{Augment, Draw, Purpose, Tape, Var};
use crate::tensor::Store;

/// Names of the tensors an attack on batches of one size works with in a store.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
    data: String,
}

impl Names {
    /// Names that begin with `prefix`, on the data set whose tensors begin with `data`.
    pub fn new(prefix: &str, data: &str) -> Names {
        Names { prefix: prefix.into(), data: data.into() }
    }

    /// A tensor of the attack: `example` (u32 `[B]`, which examples), `key` and `counter` (u32 `[2]`, random
    /// numbers), `epoch` (u32 `[2]`: the counter of augmentation, (epoch, 0)), `radius` and `step` (scalars), `x`, `adversarial`, `labels` and what else a caller adds.
    pub fn of(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }

    /// The data set's bytes, u8 `[N,H,W,C]`.
    pub fn images(&self) -> String {
        format!("{}.images", self.data)
    }

    /// The data set's labels, u32 `[N]`.
    pub fn all_labels(&self) -> String {
        format!("{}.labels", self.data)
    }

    fn source<'t>(&self, tape: &'t Tape, what: &str, shape: impl Into<Shape>, dtype: DType) -> Var<'t> {
        tape.source(&self.of(what), shape, dtype)
    }

    /// The batch's images, labels and iterate as they stand in the store.
    pub fn batch<'t>(&self, tape: &'t Tape, images: Shape) -> (Var<'t>, Var<'t>, Var<'t>) {
        let x = self.source(tape, "x", images, DType::F32);
        let labels = self.source(tape, "labels", [images[0]], DType::U32);
        let adversarial = self.source(tape, "adversarial", images, DType::F32);
        (x, labels, adversarial)
    }

    /// What the batch's random numbers are a function of.
    pub fn draw<'t>(&self, tape: &'t Tape, batch: usize) -> Draw<'t> {
        Draw {
            key: self.source(tape, "key", [2], DType::U32),
            counter: self.source(tape, "counter", [2], DType::U32),
            example: self.source(tape, "example", [batch], DType::U32),
        }
    }
}

/// A network as an attack sees it.
#[derive(Clone, Copy)]
pub struct Classifier<'a> {
    /// The network.
    pub architecture: &'a dyn Architecture,
    /// What batch norm does while it is attacked (spec 2.0).
    pub mode: Mode,
    /// Examples of the data set on the device.
    pub examples: usize,
    /// What the gradients of an attack on it are computed in.
    pub precision: Precision,
}

/// What gradients are multiplied by in half precision where batch norm makes one example's depend on the others', so
/// that each having a scale of its own would turn them: probabilities less 1 lie in [-1, 1], and this leaves as much
/// room above as the weights of a network need.
const HALF_SCALE: f64 = 256.0;

impl Classifier<'_> {
    /// Shape of a batch of its images.
    pub fn images(&self, batch: usize) -> Shape {
        let [h, w, c] = self.architecture.input();
        Shape::new(&[batch, h, w, c])
    }
}

/// An attack on batches of one size, compiled.
pub struct RecordedAttack {
    load: Plan,
    step: Plan,
    steps: usize,
}

impl RecordedAttack {
    /// Records the plan that gathers a batch and starts the attack on it; images are augmented first, by what is drawn
    /// in an epoch for an example, whatever step and batch it is in. (Normalisation is a layer of the network: what is
    /// attacked are pixels.)
    pub fn record_load(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        purpose: Purpose,
        augment: Augment,
    ) -> Tape {
        let tape = Tape::new();
        let images = on.images(batch);
        let draw = names.draw(&tape, batch);
        let all = tape.source(&names.images(), images.with(0, on.examples), DType::U8);
        let all_labels = tape.source(&names.all_labels(), [on.examples], DType::U32);
        let x = tape.scope("load", || match augment.is_none() {
            true => all.gather_rows(draw.example),
            false => {
                let epoch = names.source(&tape, "epoch", [2], DType::U32);
                all.augmented(augment, Draw { counter: epoch, ..draw })
            }
        });
        tape.assign(&names.of("x"), x);
        tape.assign(&names.of("labels"), all_labels.gather_rows(draw.example));
        let radius = names.source(&tape, "radius", [], DType::F32);
        let step = names.source(&tape, "step", [], DType::F32);
        tape.scope("start", || {
            let ball = Ball::new(attack.threat().norm, x, radius, step);
            tape.assign(&names.of("lower"), ball.lower);
            tape.assign(&names.of("upper"), ball.upper);
            tape.assign(&names.of("adversarial"), attack.start(&ball, draw, purpose));
        });
        tape
    }

    /// Records one step. With `freeze` an example that is misclassified already stays as it is, so that
    /// the worst of all iterates is what remains.
    pub fn record_step(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        freeze: bool,
    ) -> Tape {
        let tape = Tape::new();
        let images = on.images(batch);
        let (x, labels, current) = names.batch(&tape, images);
        let net = Net::new(&tape, on.mode).with_draw(names.draw(&tape, batch));
        let logits = on.architecture.forward(&net, current);
        // A step goes by the gradient's direction alone, and in half precision it has to be in range.
        let gradient = match (on.precision, on.mode) {
            (Precision::F16, Mode::Eval) => {
                let direction = tape.scope("loss'", || logits.cross_entropy_direction(labels));
                tape.weighted_grad(logits, direction, &[current])[0]
            }
            (Precision::F16, _) => {
                let loss = tape.scope("loss", || logits.cross_entropy(labels).scale(HALF_SCALE));
                tape.grad(loss, &[current])[0]
            }
            (Precision::F32, _) => {
                let loss = tape.scope("loss", || logits.cross_entropy(labels));
                tape.grad(loss, &[current])[0]
            }
        };
        tape.scope("attack", || {
            // An example that is broken takes a step of length 0. Linf leaves it as it is then; a projection into an
            // L2 ball may move its last bits, so there the old value is chosen.
            let right = logits.correct(labels).reshape([batch, 1, 1, 1]);
            let mut step = names.source(&tape, "step", [], DType::F32);
            if freeze && attack.threat().norm == Norm::Linf {
                step = right * step;
            }
            let ball = Ball {
                norm: attack.threat().norm,
                x,
                radius: names.source(&tape, "radius", [], DType::F32),
                step,
                lower: names.source(&tape, "lower", images, DType::F32),
                upper: names.source(&tape, "upper", images, DType::F32),
            };
            let mut moved = attack.step(&ball, current, gradient);
            if freeze && attack.threat().norm == Norm::L2 {
                moved = right.broadcast_to(images).select(moved, current);
            }
            tape.assign(&names.of("adversarial"), moved);
        });
        for (name, value) in net.updates() {
            tape.assign(&name, value);
        }
        tape
    }

    /// The schedule of a step as [`RecordedAttack::record_step`] records it, in the precision of `on`.
    ///
    /// # Errors
    /// As [`Schedule::with`].
    pub fn schedule_step(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        freeze: bool,
    ) -> Result<Schedule> {
        let tape = RecordedAttack::record_step(attack, on, names, batch, freeze);
        Schedule::with(&tape, Options { precision: on.precision, ..Options::default() })
    }

    /// Binds schedules of [`RecordedAttack::record_load`] and [`RecordedAttack::schedule_step`] to a store.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn of(load: Schedule, step: Schedule, steps: usize, store: &Store) -> Result<RecordedAttack> {
        Ok(RecordedAttack { load: Plan::of(load, store)?, step: Plan::of(step, store)?, steps })
    }

    /// Loading, start and all steps, as parts of a program.
    pub fn program(&self) -> Vec<Step<'_>> {
        vec![Step::Run(&self.load), Step::Repeat(self.steps, &self.step)]
    }

    /// Loading and start alone.
    pub fn loading(&self) -> Step<'_> {
        Step::Run(&self.load)
    }

    /// One step alone.
    pub fn stepping(&self) -> Step<'_> {
        Step::Run(&self.step)
    }
}
