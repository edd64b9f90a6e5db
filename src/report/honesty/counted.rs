//! What the evaluation's own attacks say of each other: how much those without gradients found that those with them did
//! not.

use super::attacks::matters;
use super::{Flag, Kind, of};
use crate::attack::Search;
use crate::report::evaluation::{Header, Outcomes, Part};

/// Share of what stands after the attacks that use gradients from which on those without them say that more is to be
/// found. AutoAttack's reference warns from 0.2 points on; but what was found is counted here, and the hardened MNIST
/// networks of this house lose 2 to 4 points to Square after all others without being broken by more of it.
const MUCH: f64 = 0.1;

/// Examples of the evaluation that fell to attacks without gradients alone. `searches` are the header's attacks, but for
/// the clean images.
pub fn counted<'s>(
    header: &Header,
    outcomes: &Outcomes,
    searches: impl Iterator<Item = &'s dyn Search>,
    kind: &str,
) -> Option<Flag> {
    let asked = header.attacks[1..].iter().zip(&outcomes.attacks[1..]).zip(searches);
    let asked: Vec<_> = asked.filter(|((attacked, _), _)| attacked.part == Part::Attack).collect();
    let (white, black): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, search)| search.uses_gradients());
    if white.is_empty() || black.is_empty() {
        return None;
    }
    // In a suite each goes on where the one before ended, so those after a black-box attack have its finds among theirs:
    // in the reference's order there are none.
    let stood: Vec<usize> = (0..header.examples.len())
        .filter(|&at| white.iter().all(|((_, outcome), _)| outcome.standing[at]))
        .collect();
    let fell = stood.iter().filter(|&&at| !outcomes.worst.standing[at]).count();
    if !matters(fell, header.examples.len()) {
        return None;
    }
    let names: Vec<&str> = black.iter().map(|((attacked, _), _)| attacked.name.as_str()).collect();
    let much = fell as f64 > MUCH * stood.len() as f64;
    Some(Flag {
        kind: if much { Kind::BlackBox } else { Kind::BlackBoxCounted },
        measured: format!(
            "of {} that stood after attacks by gradients, {fell} fell to {}",
            of(stood.len(), header.examples.len(), kind),
            names.join(" and ")
        ),
        advice: match much {
            true => {
                "Gradients mislead here (they are masked), and a search without them finds but a part: give it more \
                 queries and restarts (--attack square-20000:restarts=3), and find what in the network hides its gradient"
            }
            false => {
                "They are counted as broken. Gradients are masked in part: a figure by gradients alone would be too high, \
                 and more queries and restarts may find more (--attack autoattack,square-20000:restarts=3)"
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Norm, ThreatModel, by_name};
    use crate::report::evaluation::{Attacked, Outcome};

    const EXAMPLES: usize = 1000;

    /// After an evaluation by APGD, which leaves 800, and Square, which breaks `fell` of those.
    fn flag(fell: usize, names: &[&str]) -> Option<Flag> {
        let threat = ThreatModel { norm: Norm::Linf, epsilon: "0.3".parse().unwrap() };
        let searches: Vec<Box<dyn Search>> =
            names.iter().map(|name| by_name(name, &threat, 10).unwrap().attacks.remove(0).search).collect();
        let attacked = |name: &str| Attacked {
            name: name.into(),
            line: name.into(),
            norm: "Linf".into(),
            epsilon: "0.3".into(),
            steps: 1,
            restarts: 1,
            runs: 1,
            suite: None,
            goes_on: false,
            minimum_norm: false,
            part: Part::Attack,
        };
        let header = Header {
            program: "adamant".into(),
            model: "model".into(),
            model_sha256: String::new(),
            data: "data".into(),
            data_sha256: String::new(),
            image: [1, 1, 1],
            classes: 10,
            examples: (0..EXAMPLES as u32).collect(),
            seed: 0,
            group: EXAMPLES,
            attacks: std::iter::once("clean").chain(names.iter().copied()).map(attacked).collect(),
        };
        let outcome = |standing: usize| Outcome {
            standing: (0..EXAMPLES).map(|at| at < standing).collect(),
            prediction: vec![0; EXAMPLES],
            distance: vec![0.0; EXAMPLES],
            tried: EXAMPLES,
            outside: 0,
        };
        let after = |search: &dyn Search| outcome(if search.uses_gradients() { 800 } else { 800 - fell });
        let attacks =
            std::iter::once(outcome(990)).chain(searches.iter().map(|search| after(search.as_ref())));
        let outcomes = Outcomes { attacks: attacks.collect(), worst: outcome(800 - fell) };
        counted(&header, &outcomes, searches.iter().map(|search| search.as_ref()), "test images")
    }

    #[test]
    fn what_falls_to_attacks_without_gradients_alone_is_told_by_how_much_it_is() {
        let both = ["apgd-ce", "square"];
        assert_eq!(flag(0, &both), None);
        assert_eq!(flag(2, &both), None, "0.2 points and no more");
        let little = flag(40, &both).unwrap();
        assert_eq!(little.kind, Kind::BlackBoxCounted);
        assert!(little.text().starts_with("note: "), "{}", little.text());
        assert!(
            little.measured.contains("800 of 1000 test images")
                && little.measured.contains("40 fell to square")
        );
        let much = flag(100, &both).unwrap();
        assert_eq!(much.kind, Kind::BlackBox);
        assert!(much.text().starts_with("warning: "), "{}", much.text());
        // There is nothing to hold them against.
        assert_eq!(flag(40, &["square"]), None);
        assert_eq!(flag(40, &["apgd-ce"]), None);
    }
}
