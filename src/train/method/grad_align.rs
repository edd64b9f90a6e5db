//! GradAlign (Andriushchenko and Flammarion 2020, "Understanding and Improving Fast Adversarial Training";
//! understanding-fast-adv-training, train.py; spec 2.7): FGSM training, with the gradients by the image at x and at a
//! random point of the ball kept in line, against catastrophic overfitting.

use super::loss::CrossEntropy;
use super::{Batch, Method, Objective, only_linf};
use crate::attack::{Attack, Ball, Fgsm, ThreatModel};
use crate::error::{Error, Result};
use crate::nn::Net;
use crate::shape::Shape;
use crate::tape::{Draw, Purpose, Var};
use crate::train::Recipe;

/// `CE(f(x'), y) + lambda (1 - mean of cos(g1, g2))`, where g1 is the gradient by the image at x, taken for a constant, and
/// g2 that at x + n, n uniform in the ball; examples without a gradient are left out of the mean.
struct GradAlign {
    attack: KeepingFgsm,
    loss: CrossEntropy,
    lambda: f64,
    form: Form,
}

/// How the gradient of the second part is had.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// By differentiating g2 again on the tape.
    Exact,
    /// By two more gradients of the loss itself. The part's gradient by the weights is that of
    /// `sum over i of v_i . g2_i` with v its gradient by g2, taken for a constant: a derivative of the loss's gradient
    /// along v, of which `(grad l(x + n + h v) - grad l(x + n - h v)) / 2h` is an approximation. Nothing of second order is
    /// launched.
    FirstOrder,
}

/// Length of the largest `h v` of a batch, in pixel values: the shorter, the straighter is the network between the two
/// points, and the fewer digits does f32 leave of their difference.
const REACH: f64 = 0.01;

/// The names of the forms.
const FORMS: [&str; 2] = ["exact", "first-order"];

pub(super) fn of(recipe: &Recipe) -> Result<Box<dyn Method>> {
    only_linf(recipe)?;
    let lambda = recipe.grad_align_lambda;
    if !(0.0..=1e6).contains(&lambda) {
        return Err(Error::argument("grad-align lambda", lambda, "must be a number from 0 to 1000000"));
    }
    let form = match recipe.grad_align_form.as_str() {
        "exact" => Form::Exact,
        "first-order" => Form::FirstOrder,
        other => return Err(Error::unknown("grad-align form", other, &FORMS)),
    };
    let attack = KeepingFgsm(Fgsm { threat: recipe.threat()? });
    Ok(Box::new(GradAlign { attack, loss: CrossEntropy::of(recipe)?, lambda, form }))
}

/// g1 and g2 of a batch, `[B,H,W,C]`, in the terms of the cosine between them.
struct Pair<'t> {
    g1: Var<'t>,
    g2: Var<'t>,
    /// Lengths, `[B,1,1,1]`; 1 where there is none.
    lengths: [Var<'t>; 2],
    /// 1 for examples with both gradients, `[B,1,1,1]`.
    valid: Var<'t>,
    /// Cosines, `[B,1,1,1]`.
    cosine: Var<'t>,
}

impl<'t> Pair<'t> {
    fn new(g1: Var<'t>, g2: Var<'t>) -> Pair<'t> {
        let zero = g1.tape().fill(Shape::new(&[g1.shape()[0], 1, 1, 1]), 0.0);
        let squares = [g1, g2].map(|g| g.square().sum_per_example());
        let [has1, has2] = squares.map(|square| square.greater(zero));
        let valid = has1 * has2;
        // A root of 0 has no derivative; what is left out has length 1.
        let lengths = squares.map(|square| (square + valid.affine(-1.0, 1.0)).sqrt());
        let cosine = (g1 * g2).sum_per_example() / (lengths[0] * lengths[1]);
        Pair { g1, g2, lengths, valid, cosine }
    }

    /// How many examples have both gradients, at least 1; a scalar.
    fn count(&self) -> Var<'t> {
        let count = self.valid.sum_all();
        count.max(count.tape().fill(Shape::scalar(), 1.0))
    }

    /// `lambda (1 - cos)` of each example, weighted so that the sum over a batch divided by its images is the mean over
    /// the valid ones; `[B]`.
    fn parts(&self, lambda: f64) -> Var<'t> {
        let batch = self.valid.shape()[0];
        let parts = self.cosine.affine(-lambda, lambda) * self.valid / self.count();
        parts.scale(batch as f64).reshape([batch])
    }
}

impl GradAlign {
    /// Records the loss at these images, `[B]`, and its gradient by them.
    fn gradient<'t>(&self, batch: &Batch<'_, 't>, net: &Net<'t>, images: Var<'t>) -> Var<'t> {
        let losses = batch.targets.cross_entropy(batch.architecture.forward(net, images));
        batch.tape().grad(losses, &[images])[0]
    }

    fn pair<'t>(&self, batch: &Batch<'_, 't>, net: &Net<'t>, images: Var<'t>) -> Pair<'t> {
        Pair::new(batch.tensor("gradient", batch.x.shape()), self.gradient(batch, net, images))
    }
}

impl Method for GradAlign {
    fn name(&self) -> String {
        "grad-align".into()
    }

    fn attack(&self) -> &dyn Attack {
        &self.attack
    }

    fn prepares(&self, _stage: usize) -> bool {
        true
    }

    fn prepare(&self, batch: &Batch<'_, '_>) {
        let point = batch.ball.random_start(batch.draw, Purpose::METHOD, false);
        if self.form == Form::Exact {
            return batch.assign("point", point);
        }
        let pair = self.pair(batch, batch.net, point);
        let [one, two] = pair.lengths;
        let across = pair.g1 / one - pair.cosine * pair.g2 / two;
        let v = across * (pair.valid / two / pair.count()).scale(-self.lambda);
        let longest = v.square().sum_per_example().amax(&[0]).reshape(Shape::scalar()).sqrt();
        let h = batch.tape().fill(Shape::scalar(), REACH) / longest.affine(1.0, 1e-30);
        batch.assign("align.plus", point + v * h);
        batch.assign("align.minus", point - v * h);
        batch.assign("align.inverse", longest.affine(1.0, 1e-30).scale(0.5 / REACH));
        batch.assign("align.parts", pair.parts(self.lambda));
    }

    fn objective<'t>(&self, batch: &Batch<'_, 't>) -> Objective<'t> {
        let (shape, size) = (batch.x.shape(), batch.size());
        let plain = self.loss.objective(batch);
        match self.form {
            Form::Exact => {
                let pair = self.pair(batch, batch.net, batch.tensor("point", shape));
                Objective { losses: plain.losses + pair.parts(self.lambda), ..plain }
            }
            Form::FirstOrder => {
                // Running statistics are those of the adversarial images alone here.
                let net = batch.frozen();
                let [plus, minus] = ["align.plus", "align.minus"].map(|side| {
                    let images = batch.tensor(side, shape);
                    batch.targets.cross_entropy(batch.architecture.forward(&net, images))
                });
                let inverse = batch.tensor("align.inverse", Shape::scalar()).scale(size as f64);
                let parts = batch.tensor("align.parts", Shape::new(&[size]));
                Objective {
                    losses: plain.losses + (plus - minus) * inverse,
                    reported: Some(plain.losses + parts),
                    ..plain
                }
            }
        }
    }
}

/// FGSM that leaves its gradient behind: it is g1.
struct KeepingFgsm(Fgsm);

impl Attack for KeepingFgsm {
    fn name(&self) -> String {
        self.0.name()
    }

    fn threat(&self) -> &ThreatModel {
        self.0.threat()
    }

    fn keeps_gradient(&self) -> bool {
        true
    }

    fn steps(&self) -> usize {
        self.0.steps()
    }

    fn step_size(&self) -> f64 {
        self.0.step_size()
    }

    fn is_random(&self) -> bool {
        self.0.is_random()
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        self.0.start(ball, draw, purpose)
    }

    fn line(&self) -> String {
        self.0.line()
    }
}
