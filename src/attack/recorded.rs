//! An attack recorded against a network: the plan that loads a batch and starts, and the plan of one step.
//!
//! Data sets lie on the device as bytes. A run uploads which examples a batch has, and everything else happens
//! there: gathering, random start, K steps. The step's plan asks for the image's gradient alone, so it launches
//! nothing for weights.

use super::search::mean;
use super::{Ascent, Attack, Ball, Limits, Norm, Targets, ThreatModel, lead, mixing};
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
    /// Classes, where targets are soft.
    soft: Option<usize>,
    inputs: Inputs,
}

impl Names {
    /// Names that begin with `prefix`, on the data set whose tensors begin with `data`.
    pub fn new(prefix: &str, data: &str) -> Names {
        Names { prefix: prefix.into(), data: data.into(), soft: None, inputs: Inputs::Images }
    }

    /// These names, where loading a batch also assigns `targets`, f32 `[B, classes]`: see [`Targets`].
    pub fn with_soft_targets(self, classes: usize) -> Names {
        Names { soft: Some(classes), ..self }
    }

    /// These names, where the examples of the data set are as `inputs` says.
    pub fn with_inputs(self, inputs: Inputs) -> Names {
        Names { inputs, ..self }
    }

    /// A tensor of the attack: `example` (u32 `[B]`, which examples), `key` and `counter` (u32 `[2]`, random
    /// numbers), `epoch` (u32 `[2]`: the counter of augmentation, (epoch, 0)), `radius` and `step` (scalars), `x`, `adversarial`, `labels` and what else a caller adds.
    pub fn of(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix)
    }

    /// A tensor of the data set.
    pub(super) fn of_data(&self, what: &str) -> String {
        format!("{}.{what}", self.data)
    }

    /// What an attacker may do to the data set's vectors of features: its tensors `least`, `most`, `down` and `up`, f32
    /// `[1,1,1,F]`, see [`Limits`].
    pub(super) fn limits<'t>(&self, tape: &'t Tape, images: Shape) -> Limits<'t> {
        let one = images.with(0, 1);
        let source = |what: &str| tape.source(&self.of_data(what), one, DType::F32);
        Limits { least: source("least"), most: source("most"), down: source("down"), up: source("up") }
    }

    /// The data set's bytes, u8 `[N,H,W,C]`, or features, f32 `[N,1,1,F]`.
    pub fn images(&self) -> String {
        self.of_data("images")
    }

    /// The data set's labels, u32 `[N]`.
    pub fn all_labels(&self) -> String {
        self.of_data("labels")
    }

    /// The tensor [`Names::of`] this as it stands in the store.
    pub fn source<'t>(&self, tape: &'t Tape, what: &str, shape: impl Into<Shape>, dtype: DType) -> Var<'t> {
        tape.source(&self.of(what), shape, dtype)
    }

    /// The batch's images, labels and iterate as they stand in the store.
    pub fn batch<'t>(&self, tape: &'t Tape, images: Shape) -> (Var<'t>, Var<'t>, Var<'t>) {
        let x = self.source(tape, "x", images, DType::F32);
        let labels = self.source(tape, "labels", [images[0]], DType::U32);
        let adversarial = self.source(tape, "adversarial", images, DType::F32);
        (x, labels, adversarial)
    }

    /// What the batch is to be classified as.
    pub fn targets<'t>(&self, tape: &'t Tape, batch: usize) -> Targets<'t> {
        let soft = self.soft.map(|classes| self.source(tape, "targets", [batch, classes], DType::F32));
        Targets { labels: self.source(tape, "labels", [batch], DType::U32), soft }
    }

    /// The ball around clean images x `[B,H,W,C]`: its bounds are recorded.
    pub(super) fn ball_around<'t>(
        &self,
        tape: &'t Tape,
        norm: Norm,
        x: Var<'t>,
        radius: Var<'t>,
        step: Var<'t>,
    ) -> Ball<'t> {
        match self.inputs {
            Inputs::Images => Ball::new(norm, x, radius, step),
            Inputs::Features { .. } => Ball::of_features(norm, x, radius, step, self.limits(tape, x.shape())),
        }
    }

    /// The ball round the batch's images, as loading recorded it.
    pub fn ball<'t>(&self, tape: &'t Tape, norm: Norm, images: Shape) -> Ball<'t> {
        let source = |what: &str, shape: Shape| self.source(tape, what, shape, DType::F32);
        Ball {
            norm,
            x: source("x", images),
            radius: source("radius", Shape::scalar()),
            step: source("step", Shape::scalar()),
            lower: source("lower", images),
            upper: source("upper", images),
            changeable: match self.inputs {
                Inputs::Images => None,
                Inputs::Features { .. } => Some(self.limits(tape, images).changeable()),
            },
        }
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

/// What the examples of a data set are on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Inputs {
    /// Images as bytes, of which 255 is 1; an attacker may change every pixel within [0, 1].
    #[default]
    Images,
    /// Vectors of features as f32, with bounds and what may be changed beside them.
    Features {
        /// The largest value without its sign: roundings are in proportion to it.
        magnitude: f32,
    },
}

impl Inputs {
    /// What they are stored as.
    pub fn dtype(self) -> DType {
        match self {
            Inputs::Images => DType::U8,
            Inputs::Features { .. } => DType::F32,
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
    /// What they are.
    pub inputs: Inputs,
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

    /// The radius that projections use for a radius of `epsilon`, see [`ThreatModel::projection_radius`], which is told
    /// for values of at most 1: larger ones are those times a number.
    pub fn projection_radius(&self, threat: &ThreatModel, epsilon: f64) -> f64 {
        let magnitude = match self.inputs {
            Inputs::Images => 1.0,
            Inputs::Features { magnitude } => f64::from(magnitude).max(1.0),
        };
        magnitude * threat.projection_radius(epsilon / magnitude, self.images(1).len())
    }
}

/// Images `draw.example` of the table `all`, augmented by what is drawn for them in the epoch.
fn loaded<'t>(tape: &'t Tape, names: &Names, all: Var<'t>, augment: Augment, draw: Draw<'t>) -> Var<'t> {
    match augment.is_none() {
        true => all.gather_rows(draw.example),
        false => {
            let epoch = names.source(tape, "epoch", [2], DType::U32);
            all.augmented(augment, Draw { counter: epoch, ..draw })
        }
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
    /// attacked are pixels.) With soft targets they are then mixed, as mixing.rs says.
    pub fn record_load(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        purpose: Purpose,
        augment: Augment,
    ) -> Tape {
        let tape = Tape::new();
        let ball = record_batch(attack.threat().norm, on, names, &tape, batch, augment);
        tape.scope("start", || {
            tape.assign(&names.of("adversarial"), attack.start(&ball, names.draw(&tape, batch), purpose));
            if attack.keeps_best() || attack.restarts() > 1 {
                // Below every loss there is.
                tape.assign(&names.of("best_loss"), tape.fill([batch], -1.0));
            }
        });
        tape
    }

    /// Records the start of restart number `restart` (from 1 up) on the batch that is loaded.
    pub fn record_restart(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        purpose: Purpose,
        restart: u32,
    ) -> Tape {
        let tape = Tape::new();
        tape.scope("start", || {
            let ball = names.ball(&tape, attack.threat().norm, on.images(batch));
            // A start draws from up to two streams.
            let start = attack.start(&ball, names.draw(&tape, batch), purpose.stream(2 * restart));
            tape.assign(&names.of("adversarial"), start);
        });
        tape
    }

    /// Records the end of a run of an attack that keeps its best: the last iterate is looked at too, and what is kept
    /// becomes the adversarial image.
    pub fn record_keep(attack: &dyn Attack, on: Classifier<'_>, names: &Names, batch: usize) -> Tape {
        let tape = Tape::new();
        let (_, _, current) = names.batch(&tape, on.images(batch));
        let net = Net::new(&tape, on.mode).with_draw(names.draw(&tape, batch));
        let losses = ascended(attack, on, &net, names, current, on.architecture.forward(&net, current));
        let kept = tape.scope("keep", || keep_best(names, current, losses));
        tape.assign(&names.of("adversarial"), kept);
        for (name, value) in net.updates() {
            tape.assign(&name, value);
        }
        tape
    }

    /// Records one step. With `freeze` an example that is broken already (misclassified, or classified as the attack
    /// wants it) stays as it is, so that the worst of all iterates is what remains.
    pub fn record_step(
        attack: &dyn Attack,
        on: Classifier<'_>,
        names: &Names,
        batch: usize,
        freeze: bool,
    ) -> Tape {
        let tape = Tape::new();
        record_ascent(attack, on, names, &[names.draw(&tape, batch)], batch, freeze);
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

/// Records what loads a batch: images, labels and the bounds of the ball around each, which is returned.
pub(super) fn record_batch<'t>(
    norm: Norm,
    on: Classifier<'_>,
    names: &Names,
    tape: &'t Tape,
    batch: usize,
    augment: Augment,
) -> Ball<'t> {
    let images = on.images(batch);
    let draw = names.draw(tape, batch);
    let all = tape.source(&names.images(), images.with(0, on.examples), on.inputs.dtype());
    let all_labels = tape.source(&names.all_labels(), [on.examples], DType::U32);
    let load = |example| loaded(tape, names, all, augment, Draw { example, ..draw });
    let x = tape.scope("load", || {
        let (x, labels) = match names.soft {
            None => (load(draw.example), all_labels.gather_rows(draw.example)),
            Some(classes) => {
                let (x, labels, targets) = mixing::record(tape, names, images, classes, all_labels, load);
                tape.assign(&names.of("targets"), targets);
                (x, labels)
            }
        };
        tape.assign(&names.of("x"), x);
        tape.assign(&names.of("labels"), labels);
        x
    });
    let radius = names.source(tape, "radius", [], DType::F32);
    let step = names.source(tape, "step", [], DType::F32);
    tape.scope("start", || {
        let ball = names.ball_around(tape, norm, x, radius, step);
        tape.assign(&names.of("lower"), ball.lower);
        tape.assign(&names.of("upper"), ball.upper);
        ball
    })
}

/// Records a step of ascent, see [`RecordedAttack::record_step`], of a pass by each of `draws` (at least one, of one tape),
/// which say what random numbers a network draws: see [`super::Eot`].
pub(super) fn record_ascent<'t>(
    attack: &(impl Attack + ?Sized),
    on: Classifier<'_>,
    names: &Names,
    draws: &[Draw<'t>],
    batch: usize,
    freeze: bool,
) {
    let (tape, images) = (draws[0].example.tape(), on.images(batch));
    let (_, labels, current) = names.batch(tape, images);
    let nets: Vec<Net<'t>> = draws.iter().map(|&draw| Net::new(tape, on.mode).with_draw(draw)).collect();
    let logits: Vec<Var<'t>> = nets.iter().map(|net| on.architecture.forward(net, current)).collect();
    let each = |of: &dyn Fn(&Net<'t>, Var<'t>) -> Var<'t>| {
        mean(&nets.iter().zip(&logits).map(|(net, &logits)| of(net, logits)).collect::<Vec<_>>())
    };
    let losses = || each(&|net, logits| ascended(attack, on, net, names, current, logits));
    // A step goes by the gradient's direction alone, and in half precision it has to be in range.
    let gradient = match (on.precision, on.mode) {
        (Precision::F16, Mode::Eval) => each(&|net, logits| {
            let direction = tape.scope("loss'", || match attack.ascends() {
                Ascent::CrossEntropy if names.soft.is_none() => logits.cross_entropy_direction(labels),
                _ => {
                    let by_logits =
                        tape.grad(ascended(attack, on, net, names, current, logits), &[logits])[0];
                    by_logits / by_logits.abs().amax(&[1]).affine(1.0, 1e-30)
                }
            });
            tape.weighted_grad(logits, direction, &[current])[0]
        }),
        (Precision::F16, _) => {
            let loss = tape.scope("loss", || losses().scale(HALF_SCALE));
            tape.grad(loss, &[current])[0]
        }
        (Precision::F32, _) => {
            let loss = tape.scope("loss", losses);
            tape.grad(loss, &[current])[0]
        }
    };
    tape.scope("attack", || {
        // An example that is broken takes a step of length 0. Linf leaves it as it is then; a projection into
        // another ball may move its last bits, so there the old value is chosen.
        let norm = attack.threat().norm;
        let standing = standing(attack, names, each(&|_, logits| on.architecture.verdict(logits)), labels);
        let standing = standing.reshape([batch, 1, 1, 1]);
        let mut ball = names.ball(tape, norm, images);
        if freeze && norm == Norm::Linf {
            ball.step = standing * ball.step;
        }
        let mut moved = attack.step(&ball, current, gradient);
        if freeze && norm != Norm::Linf {
            moved = standing.broadcast_to(images).select(moved, current);
        }
        tape.assign(&names.of("adversarial"), moved);
        if attack.keeps_gradient() {
            tape.assign(&names.of("gradient"), gradient);
        }
        if attack.keeps_best() {
            keep_best(names, current, losses());
        }
    });
    for (name, value) in nets.last().map(Net::updates).unwrap_or_default() {
        tape.assign(&name, value);
    }
}

/// The loss that an attack climbs, `[B]`, at images with these logits.
fn ascended<'t>(
    attack: &(impl Attack + ?Sized),
    on: Classifier<'_>,
    net: &Net<'t>,
    names: &Names,
    images: Var<'t>,
    logits: Var<'t>,
) -> Var<'t> {
    let (tape, batch) = (net.tape(), images.shape()[0]);
    match attack.ascends() {
        Ascent::CrossEntropy => names.targets(tape, batch).cross_entropy(logits),
        Ascent::Kl => {
            // It depends on nothing that the steps write, so that a repeat computes it once. Running statistics are
            // those of the attacked images alone.
            let mode = if on.mode == Mode::Train { Mode::TrainFrozen } else { on.mode };
            let clean = Net::new(tape, mode).with_draw(names.draw(tape, batch));
            let x = names.source(tape, "x", images.shape(), DType::F32);
            logits.kl_divergence(on.architecture.forward(&clean, x))
        }
        Ascent::Towards(class) => {
            on.architecture.verdict(logits).log_softmax().slice(1, class as usize, 1).reshape([batch])
        }
    }
}

/// 1 for the examples that withstand the attack by these logits, `[B]`; see [`Ascent::withstands`] and lead.rs.
fn standing<'t>(attack: &(impl Attack + ?Sized), names: &Names, logits: Var<'t>, labels: Var<'t>) -> Var<'t> {
    match attack.ascends() {
        Ascent::CrossEntropy | Ascent::Kl => lead::correct(names, logits, labels),
        Ascent::Towards(class) => {
            let logits = lead::lowered(names, logits, lead::marked(logits, class));
            let wanted = logits.slice(1, class as usize, 1);
            logits.amax(&[1]).greater(wanted).reshape([logits.shape()[0]])
        }
    }
}

/// Records that `current` is kept in the tensor `best` for the examples whose loss `[B]` there is at least the highest
/// so far (`best_loss`). Returns what is kept.
fn keep_best<'t>(names: &Names, current: Var<'t>, losses: Var<'t>) -> Var<'t> {
    let (tape, shape) = (current.tape(), current.shape());
    let (best, highest) = (names.of("best"), names.of("best_loss"));
    let before = tape.source(&highest, losses.shape(), DType::F32);
    let mut one = vec![1; shape.rank()];
    one[0] = shape[0];
    let better = losses.greater_equal(before).reshape(Shape::new(&one)).broadcast_to(shape);
    let kept = better.select(current, tape.source(&best, shape, DType::F32));
    tape.assign(&best, kept);
    tape.assign(&highest, losses.max(before));
    kept
}
