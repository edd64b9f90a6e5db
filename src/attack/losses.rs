//! The losses that AutoAttack's APGD climbs (Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an
//! ensemble of diverse parameter-free attacks", section 4), and a step's view of a network by one of them.

use super::Site;
use super::search::mean;
use crate::plan::Precision;
use crate::shape::Shape;
use crate::tape::Var;

/// A loss of logits z `[B,C]`, a number an example, that is the higher the nearer an example is to being broken. With y
/// the label, t a target class and z_1 >= z_2 >= ... the logits in order:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy.
    CrossEntropy,
    /// The difference of logits ratio `-(z_y - max of the others) / (z_1 - z_3 + 1e-12)`: it changes neither by a shift
    /// nor by a scale of the logits, so that no defence wins by saturating. With two classes there is no z_3, and the
    /// difference is taken as it is.
    Dlr,
    /// `-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2 + 1e-12)`. With three classes z_3 stands for both, with two the
    /// difference is taken as it is.
    TargetedDlr,
}

/// What DLR adds to its denominator.
const TINY: f64 = 1e-12;
/// More than any two logits are apart.
const FAR: f64 = 1e30;

impl Loss {
    /// What it is for a network of so many classes, in words.
    pub fn describe(self, classes: usize) -> String {
        match (self, classes) {
            (Loss::CrossEntropy, _) => "cross-entropy".into(),
            (Loss::Dlr, 3..) => "DLR".into(),
            (Loss::TargetedDlr, 4..) => "targeted DLR".into(),
            (Loss::TargetedDlr, 3) => "targeted DLR by the third logit alone, as there are 3 classes".into(),
            _ => "difference of logits without DLR's denominator, as there are 2 classes".into(),
        }
    }

    /// Whether it goes for a class.
    pub fn is_targeted(self) -> bool {
        self == Loss::TargetedDlr
    }

    /// The loss of logits `[B,C]` against u32 labels `[B]`, and a one-hot target `[B,C]` where it has one: `[B]`. The
    /// gradient goes through the sorted logits of the denominator too; of equal logits, through the first.
    pub fn of<'t>(self, logits: Var<'t>, labels: Var<'t>, target: Option<Var<'t>>) -> Var<'t> {
        let [batch, classes] = [logits.shape()[0], logits.shape()[1]];
        if self == Loss::CrossEntropy {
            return logits.cross_entropy(labels);
        }
        let label = labels.one_hot(classes);
        let other = target.unwrap_or_else(|| largest_but(logits, label));
        let order = |count| in_order(logits, count);
        let spread = match (self, classes) {
            (_, ..3) => None,
            (Loss::Dlr, _) | (_, 3) => {
                let order = order(3);
                Some(order[0] - order[2])
            }
            _ => {
                let order = order(4);
                Some(order[0].add_scaled(order[2], -0.5).add_scaled(order[3], -0.5))
            }
        };
        let sum = |weights: Var<'t>| (logits * weights).sum(&[1]).reshape([batch]);
        let ahead = sum(other - label);
        spread.map_or(ahead, |spread| ahead / sum(spread).affine(1.0, TINY))
    }
}

/// The largest logit of each row but that of the class marked in `but`, marked by a 1.
fn largest_but<'t>(logits: Var<'t>, but: Var<'t>) -> Var<'t> {
    logits.add_scaled(but, -FAR).argmax().one_hot(logits.shape()[1])
}

/// Which class has the largest logit of each row, which the next, and so on: so many of `[B,C]`, each with a 1 a row. Of
/// equal logits the first comes first.
pub fn in_order(logits: Var<'_>, count: usize) -> Vec<Var<'_>> {
    let (mut rest, classes) = (logits, logits.shape()[1]);
    (0..count)
        .map(|_| {
            let largest = rest.argmax().one_hot(classes);
            rest = rest.add_scaled(largest, -FAR);
            largest
        })
        .collect()
}

/// The label's logit less the largest other one, `[B,1]`: positive where the image is classified right.
pub(super) fn margin<'t>(site: &Site<'_, 't>, logits: Var<'t>) -> Var<'t> {
    let label = site.labels.one_hot(site.classes());
    // The label's is put below all others rather than to 0, which would be the largest where the others are negative.
    (logits * label).sum(&[1]) - logits.add_scaled(label, -FAR).amax(&[1])
}

/// The class of rank `first + run` (0 for the largest logit) of each row, run being [`Site::run`] and below `runs`:
/// `[B,C]` with a 1 a row.
pub fn target_of_run<'t>(site: &Site<'_, 't>, logits: Var<'t>, first: usize, runs: usize) -> Var<'t> {
    let order = in_order(logits, (first + runs).min(logits.shape()[1]));
    let targets = order.iter().skip(first).enumerate().map(|(run, &class)| {
        let now = site.run().equal(site.tape.fill(Shape::scalar(), run as f64));
        class * now
    });
    targets.reduce(|all, one| all + one).unwrap_or_else(|| site.tape.fill(logits.shape(), 0.0))
}

/// A network's view of images by a loss.
pub(super) struct View<'t> {
    /// The loss, `[B]`.
    pub loss: Var<'t>,
    /// 1 where the image is classified right ([`Site::correct`]), `[B]`.
    pub correct: Var<'t>,
    /// Gradient of the loss by the images, `[B,H,W,C]`; in half precision times a number an example.
    pub gradient: Var<'t>,
}

impl<'t> View<'t> {
    /// Of these images. The gradient is the mean over all passes ([`super::Eot`]); loss and class are those of the last, as
    /// in the reference.
    pub(super) fn of(site: &Site<'_, 't>, images: Var<'t>, loss: Loss, target: Option<Var<'t>>) -> View<'t> {
        let logits = site.each_pass(images);
        let losses: Vec<Var<'t>> =
            site.tape.scope("loss", || logits.iter().map(|&z| loss.of(z, site.labels, target)).collect());
        let gradient = match site.on.precision {
            Precision::F32 => site.tape.grad(mean(&losses), &[images])[0],
            // Each example's is brought into range, pass by pass.
            Precision::F16 => {
                let of_pass = |(&logits, &loss): (&Var<'t>, &Var<'t>)| {
                    let by_logits = site.tape.grad(loss, &[logits])[0];
                    let direction = by_logits / by_logits.abs().amax(&[1]).affine(1.0, 1e-30);
                    site.tape.weighted_grad(logits, direction, &[images])[0]
                };
                mean(&logits.iter().zip(&losses).map(of_pass).collect::<Vec<_>>())
            }
        };
        let last = logits.len() - 1;
        View { loss: losses[last], correct: site.correct(logits[last]).reshape([site.batch]), gradient }
    }
}
