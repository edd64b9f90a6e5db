//! Attacks that ought to be weaker than the evaluation's, or no stronger, and are not.

use super::{Flag, Kind, Suspect, of};
use crate::attack::{Ascending, Evaluation, Fgsm, Norm, Pgd, Rational, Search, ThreatModel, Verdicts};
use crate::error::Result;
use crate::report::evaluation::{TEST, argmax};

/// Images at once.
const BATCH: usize = 100;
/// Share of the images from which a difference is told of (AutoAttack's: 0.2 points); never less than two images.
const DIFFERENCE: f64 = 0.002;
/// Steps of PGD beside a single one.
const STEPS: usize = 20;
/// Steps with a large epsilon.
const LARGE_STEPS: usize = 60;

/// Whether so many images of so many are worth telling of.
pub(super) fn matters(count: usize, all: usize) -> bool {
    count >= 2 && count as f64 > DIFFERENCE * all as f64
}

fn run(suspect: &Suspect<'_>, search: &dyn Search, restarts: u32, examples: &[u32]) -> Result<Verdicts> {
    let on = suspect.subject.classifier();
    let judge =
        Evaluation::compile_search(suspect.store, search, on, TEST, BATCH.min(examples.len().max(1)))?;
    // Another start than the evaluation's.
    let seed = suspect.seed.wrapping_add(0x5eed);
    judge.run(examples, &suspect.labels(examples), restarts, seed, |_, _| {})
}

/// The examples that stand.
fn standing(suspect: &Suspect<'_>) -> Vec<u32> {
    let pairs = suspect.examples.iter().zip(&suspect.standing);
    pairs.filter(|(_, stands)| **stands).map(|(example, _)| *example).collect()
}

/// FGSM against PGD, each on all images.
pub(super) fn single_step(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let threat = suspect.threat.clone();
    let (fgsm, pgd) = (Fgsm { threat: threat.clone() }, Pgd::usual(threat, STEPS));
    let one = run(suspect, &Ascending(&fgsm), 1, &suspect.examples)?;
    let many = run(suspect, &Ascending(&pgd), 1, &suspect.examples)?;
    let all = suspect.examples.len();
    if !matters(many.robust_count().saturating_sub(one.robust_count()), all) {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::SingleStep,
        measured: format!(
            "FGSM leaves {}, PGD-{STEPS} in the same ball {}",
            of(one.robust_count(), all, suspect.subject.data.kind()),
            many.robust_count()
        ),
        advice: "Many steps can do all that one can: gradients are good only where the attack starts. Use more restarts, \
                 larger steps, and attacks without gradients (--attack square)",
    }])
}

/// Attacks without gradients on what stands.
pub(super) fn black_box(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    on_what_stands(suspect, suspect.black_box.iter().map(|search| (search.as_ref(), 1)), Kind::BlackBox)
}

/// Attacks with more steps and restarts on what stands.
pub(super) fn more_steps(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let stronger = suspect.stronger.iter().map(|(search, restarts)| (search.as_ref(), *restarts));
    on_what_stands(suspect, stronger, Kind::MoreSteps)
}

fn on_what_stands<'s>(
    suspect: &Suspect<'_>,
    searches: impl Iterator<Item = (&'s dyn Search, u32)>,
    kind: Kind,
) -> Result<Vec<Flag>> {
    let (standing, all) = (standing(suspect), suspect.examples.len());
    let mut flags = Vec::new();
    for (search, restarts) in searches {
        if standing.is_empty() {
            break;
        }
        let left = run(suspect, search, restarts, &standing)?.robust_count();
        let broken = standing.len() - left;
        if matters(broken, all) {
            let times = if restarts > 1 { format!(", {restarts} restarts") } else { String::new() };
            flags.push(Flag {
                kind,
                measured: format!(
                    "of {} that stood after the evaluation, {broken} fall to {}{times}",
                    of(standing.len(), all, suspect.subject.data.kind()),
                    search.line()
                ),
                advice: match kind {
                    Kind::BlackBox => {
                        "Gradients mislead here (they are masked): trust the attack without them, give it more queries, \
                         and find what in the network hides its gradient"
                    }
                    _ => {
                        "The evaluation has not converged: its figure is too high. Name stronger attacks (--attack \
                         autoattack,apgd-ce:restarts=5), until more of them change nothing"
                    }
                },
            });
        }
    }
    Ok(flags)
}

/// Images made on another network, on what stands.
pub(super) fn transfer(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let Some((images, from)) = &suspect.transferred else { return Ok(Vec::new()) };
    let logits = suspect.passes.logits(images)?;
    let labels = suspect.labels(&suspect.examples);
    let rows = logits.chunks(suspect.passes.classes()).zip(&labels).zip(&suspect.standing);
    let broken = rows.filter(|((row, label), stands)| **stands && argmax(row) != **label).count();
    if !matters(broken, suspect.examples.len()) {
        return Ok(Vec::new());
    }
    let stood = suspect.standing.iter().filter(|&&stands| stands).count();
    Ok(vec![Flag {
        kind: Kind::Transfer,
        measured: format!(
            "of {} that stood after the evaluation, {broken} fall to images that were made on {from}",
            of(stood, suspect.examples.len(), suspect.subject.data.kind())
        ),
        advice: "An attack that sees the network ought to find what one on another network does: its gradients are masked. \
                 Trust the transferred images, and find what hides the gradient",
    }])
}

/// PGD in a ball that holds an image in which nothing is to be seen, and images of every class.
pub(super) fn large_epsilon(suspect: &Suspect<'_>) -> Result<Vec<Flag>> {
    let data = suspect.subject.data;
    if !matches!(data.examples, crate::data::Examples::Images(_)) {
        // Features have bounds of their own.
        return Ok(Vec::new());
    }
    // Every image and middle grey are no further apart than this.
    let pixels = data.image_len() as f64;
    let far = match suspect.threat.norm {
        Norm::Linf => 0.5,
        Norm::L2 => 0.5 * pixels.sqrt(),
        Norm::L1 => 0.5 * pixels,
    };
    let epsilon = far.max(suspect.threat.epsilon.value());
    let threat = ThreatModel { norm: suspect.threat.norm, epsilon: Rational::from(epsilon) };
    let pgd = Pgd::usual(threat, LARGE_STEPS);
    let left = run(suspect, &Ascending(&pgd), 1, &suspect.examples)?.robust_count();
    let all = suspect.examples.len();
    let chance = all as f64 / data.classes as f64;
    // Three deviations above chance.
    let share = 1.0 / data.classes as f64;
    if left as f64 <= chance + 3.0 * (all as f64 * share * (1.0 - share)).sqrt() {
        return Ok(Vec::new());
    }
    Ok(vec![Flag {
        kind: Kind::LargeEpsilon,
        measured: format!(
            "{} are still classified right under PGD-{LARGE_STEPS} with epsilon {epsilon:.3}, which allows to paint every \
             image grey ({:.0} would be chance)",
            of(left, all, data.kind()),
            chance
        ),
        advice: "The attack does not find what is surely there, so it says nothing of smaller radii either: gradients are \
                 masked. Use attacks without gradients (--attack square) and images from other networks (--transfer)",
    }])
}
