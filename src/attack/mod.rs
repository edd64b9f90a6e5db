//! Attacks: the worst allowed perturbation, by gradient ascent recorded on the tape.
//!
//! An attack says how it starts and what one step does, given the gradient of the loss by the image; it is recorded
//! once and replayed. What it must never do is in [`ThreatModel`].

mod alignment;
mod apgd;
mod apgd_l1;
mod autoattack;
mod boundary;
mod clean;
mod cw;
mod ddn;
mod deepfool;
mod eot;
mod evaluate;
mod fab;
mod fgsm;
mod fmn;
mod hyperplane;
mod inner;
mod lead;
mod losses;
mod mixing;
mod momentum;
mod n_fgsm;
mod noise;
mod options;
mod pgd;
mod r_fgsm;
mod recorded;
mod registry;
mod search;
mod square;
mod square_l2;
mod suite;
mod targeted;
mod targets;
mod threat;
mod transfer;
mod verdicts;

pub use alignment::Alignment;
pub use apgd::Apgd;
pub use apgd_l1::ApgdL1;
pub use autoattack::AutoAttack;
pub use clean::{clean_predictions, logits};
pub use cw::Cw;
pub use ddn::Ddn;
pub use deepfool::DeepFool;
pub use eot::Eot;
pub use evaluate::Evaluation;
pub use fab::Fab;
pub use fgsm::{Fgsm, FgsmRs};
pub use fmn::Fmn;
pub use hyperplane::towards_hyperplane;
pub use inner::{InnerPgd, Start};
pub(crate) use lead::on as lead_on;
pub use losses::Loss;
pub use mixing::MIX;
pub use momentum::Momentum;
pub use n_fgsm::NFgsm;
pub use noise::Noise;
pub use pgd::Pgd;
pub use r_fgsm::RFgsm;
pub use recorded::{Classifier, Inputs, Names, RecordedAttack};
pub use registry::{by_name, names};
pub use search::{Ascending, Search, Site};
pub use square::Square;
pub use suite::{Entry, Standing, Subject, Suite, SuiteObserver, even_batch, seed_of};
pub use targeted::Targeted;
pub use targets::Targets;
pub use threat::{Ball, Limits, Norm, Rational, ThreatModel};
pub use transfer::Transfer;
pub use verdicts::{Adversarial, Observer, Verdicts, Witness};

use crate::tape::{Draw, Purpose, Var};

/// "1 step", "2 steps".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The loss whose gradient by the image an attack follows upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ascent {
    /// Cross-entropy against the [`Targets`].
    CrossEntropy,
    /// KL(softmax(clean logits) || softmax(logits)): away from what the network says of the clean image, whatever that
    /// is (TRADES; torchattacks calls it TPGD).
    Kl,
    /// The log-probability of this class: towards it, from wherever the image is.
    Towards(u32),
}

impl Ascent {
    /// Whether an example of class `label` withstands while class `prediction` is predicted for it.
    pub fn withstands(self, label: u32, prediction: u32) -> bool {
        match self {
            Ascent::CrossEntropy | Ascent::Kl => prediction == label,
            Ascent::Towards(class) => prediction != class,
        }
    }
}

/// A white-box attack by steps of gradient ascent.
pub trait Attack: Send + Sync {
    /// Its name with its number of steps, as "PGD-40".
    fn name(&self) -> String;

    /// What it may do.
    fn threat(&self) -> &ThreatModel;

    /// What it climbs.
    fn ascends(&self) -> Ascent {
        Ascent::CrossEntropy
    }

    /// Whether what it ends with is, of all its iterates, the one of the highest loss an example (`use_best` of
    /// MadryLab's robustness). It costs a forward pass.
    fn keeps_best(&self) -> bool {
        false
    }

    /// Runs from another random start, the worst end of which is kept for each example. It costs a forward pass a run.
    /// (Evaluation counts its restarts itself.)
    fn restarts(&self) -> u32 {
        1
    }

    /// Whether the gradient of the loss by the image is left in the tensor `gradient`, for the update to use.
    fn keeps_gradient(&self) -> bool {
        false
    }

    /// Gradients it takes a restart.
    fn steps(&self) -> usize;

    /// Length of a step, in pixel values.
    fn step_size(&self) -> f64;

    /// Whether its start is random, so that restarts differ.
    fn is_random(&self) -> bool;

    /// Records where it starts.
    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t>;

    /// Records a step from `current`, given the gradient of the loss there.
    fn step<'t>(&self, ball: &Ball<'t>, current: Var<'t>, gradient: Var<'t>) -> Var<'t> {
        ball.ascend(current, gradient)
    }

    /// All that a robust accuracy must be printed with: "PGD-40, Linf 0.3, step 0.01, random start".
    fn line(&self) -> String;
}
