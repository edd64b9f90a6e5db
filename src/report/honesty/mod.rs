//! Where an evaluation may fool itself: what was measured that speaks against its figures, and what to do about it.
//!
//! Defences that break attacks instead of withstanding them (Athalye, Carlini and Wagner 2018, "Obfuscated Gradients Give a
//! False Sense of Security"; Carlini et al. 2019, "On Evaluating Adversarial Robustness"; the flags of AutoAttack) show
//! themselves: by outputs that are not what attacks take them for (`outputs`), by gradients that say nothing
//! (`gradients`), by images that depend on their neighbours (`batches`), and by attacks that ought to be weaker and are
//! not (`attacks`). Each check is a file here. The costly ones look at a subset of the examples.

mod attacks;
mod batches;
mod counted;
mod gradients;
mod outputs;
mod transferred;

pub use attacks::told;
pub use counted::{counted, curves};
pub use transferred::transferred;

use crate::attack::{Search, ThreatModel};
use crate::error::Result;
use crate::report::evaluation::{Passes, Subject};
use crate::tensor::Store;

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The same image gives other outputs each time.
    Randomised,
    /// Outputs are probabilities.
    Softmax,
    /// An output is not a number.
    NotFinite,
    /// The loss has no gradient.
    ZeroGradient,
    /// The gradient is not the loss's.
    WrongGradient,
    /// What is said of an image depends on the images beside it.
    Neighbours,
    /// Verdicts depend on how many images are attacked at once.
    BatchSize,
    /// Too few classes for losses that compare several.
    FewClasses,
    /// An attack without gradients finds what those with them do not.
    BlackBox,
    /// The same, by little, within the evaluation: its figure counts them.
    BlackBoxCounted,
    /// One step finds what many do not.
    SingleStep,
    /// Another network's adversarial images break what attacks on this one do not.
    Transfer,
    /// More steps or restarts find more.
    MoreSteps,
    /// With a radius that allows everything, images are still classified right.
    LargeEpsilon,
    /// With a radius that allows everything, as many as are right now may be.
    LargeEpsilonUntried,
}

impl Kind {
    /// Its name in `results.json`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Randomised => "randomised output",
            Kind::Softmax => "softmax output",
            Kind::NotFinite => "output is no number",
            Kind::ZeroGradient => "zero gradient",
            Kind::WrongGradient => "analytic gradient is not the numeric one",
            Kind::Neighbours => "output depends on the other images of the batch",
            Kind::BatchSize => "verdicts depend on the batch size",
            Kind::FewClasses => "too few classes",
            Kind::BlackBox => "black-box beats white-box",
            Kind::BlackBoxCounted => "black-box finds what white-box does not",
            Kind::SingleStep => "single step beats iterated",
            Kind::Transfer => "transfer beats white-box",
            Kind::MoreSteps => "more steps or restarts still help",
            Kind::LargeEpsilon => "a large epsilon does not reach chance",
            Kind::LargeEpsilonUntried => "a large epsilon was not tried",
        }
    }

    /// Whether it says that figures may be wrong, and not only what lies behind them.
    pub fn is_warning(self) -> bool {
        !matches!(self, Kind::FewClasses | Kind::BlackBoxCounted | Kind::LargeEpsilonUntried)
    }
}

/// Something that speaks against the figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// What may be wrong.
    pub kind: Kind,
    /// What was measured.
    pub measured: String,
    /// What to do.
    pub advice: &'static str,
}

impl Flag {
    /// In words.
    pub fn text(&self) -> String {
        let what = if self.kind.is_warning() { "warning" } else { "note" };
        format!("{what}: {}: {}. {}", self.kind.name(), self.measured, self.advice)
    }
}

/// What checks go by.
pub struct Suspect<'a> {
    /// What is evaluated; its weights and data are in the store.
    pub subject: Subject<'a>,
    /// The store.
    pub store: &'a Store,
    /// Passes through it.
    pub passes: &'a Passes,
    /// What was attacked with.
    pub threat: ThreatModel,
    /// The examples that checks look at (indices into the test data). A hundred are enough to see what is broken; how little
    /// an attack may find and be told of goes by how many they are ([`told`]).
    pub examples: Vec<u32>,
    /// Of these, whether each stands after the evaluation.
    pub standing: Vec<bool>,
    /// Attacks that use no gradient, to be held against those that do.
    pub black_box: Vec<Box<dyn Search>>,
    /// Attacks with more steps than the evaluation's, and how many restarts.
    pub stronger: Vec<(Box<dyn Search>, u32)>,
    /// Seed of everything random.
    pub seed: u64,
}

impl Suspect<'_> {
    /// Clean images `[examples,H,W,C]`, as they are on the device.
    fn clean(&self, examples: &[u32]) -> Vec<f32> {
        examples.iter().flat_map(|&example| self.subject.clean(example)).collect()
    }

    /// Their classes.
    fn labels(&self, examples: &[u32]) -> Vec<u32> {
        examples.iter().map(|&example| self.subject.data.labels[example as usize]).collect()
    }

    /// The first `count` examples.
    fn first(&self, count: usize) -> &[u32] {
        &self.examples[..count.min(self.examples.len())]
    }
}

/// The checks that cost a few passes.
///
/// # Errors
/// Of the device.
pub fn cheap(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let mut flags = outputs::check(suspect)?;
    flags.extend(gradients::check(suspect)?);
    flags.extend(batches::check_outputs(suspect)?);
    Ok(flags)
}

/// A check: what it finds.
type Check = fn(&Suspect<'_>) -> Result<Vec<Flag>>;

/// The checks that run attacks. `progress` hears what is being done, how many checks are done, and of how many.
///
/// # Errors
/// Of the device.
pub fn costly(
    suspect: &Suspect<'_>,
    mut progress: impl FnMut(&'static str, usize, usize),
) -> Result<Vec<Flag>> {
    let checks: [(&'static str, Check); 4] = [
        ("batch sizes", batches::check_verdicts),
        ("FGSM against PGD", attacks::single_step),
        ("more steps, then black-box attacks", attacks::on_what_stands),
        ("a large epsilon", attacks::large_epsilon),
    ];
    let mut flags = Vec::new();
    for (done, (what, check)) in checks.into_iter().enumerate() {
        progress(what, done, checks.len());
        flags.extend(check(suspect)?);
    }
    progress("", checks.len(), checks.len());
    Ok(flags)
}

/// "12 of 100 images".
fn of(count: usize, all: usize, kind: &str) -> String {
    format!("{count} of {all} {kind}")
}
