//! What the evaluation's own attacks say of each other: how much those without gradients found that those with them did
//! not, nor stronger ones.

use super::attacks::{matters, withstanding};
use super::{Flag, Kind, Suspect, of};
use crate::attack::Search;
use crate::error::Result;
use crate::report::evaluation::{Header, Outcome, Outcomes, Part};

/// Share of what stands after the attacks that use gradients from which on those without them say that more is to be
/// found. AutoAttack's reference warns from 0.2 points on; but what was found is counted here, and the hardened MNIST
/// networks of this house lose 2 to 4 points to Square after all others without being broken by more of it.
const MUCH: f64 = 0.1;

/// An attack by its place in the header.
type Asked<'s> = (usize, &'s dyn Search);

/// What became of the examples before the attack at `place`.
fn before<'o>(header: &Header, outcomes: &'o Outcomes, place: usize) -> &'o Outcome {
    &outcomes.attacks[if header.attacks[place].goes_on { place - 1 } else { 0 }]
}

/// Examples of the evaluation that fell to attacks without gradients alone. `searches` are the header's attacks, but for
/// the clean images. The attacks by gradients may but have been weak: with a suspect, whose examples are the first of the
/// evaluation's, only those of its examples count that its stronger attacks do not break either.
///
/// # Errors
/// Of the device.
pub fn counted<'s>(
    header: &Header,
    outcomes: &Outcomes,
    searches: impl Iterator<Item = &'s dyn Search>,
    kind: &str,
    suspect: Option<&Suspect<'_>>,
) -> Result<Option<Flag>> {
    let asked = (1..header.attacks.len()).zip(searches);
    // Images that were made on another network are neither.
    let own = |at: usize| header.attacks[at].part == Part::Attack && header.attacks[at].from.is_none();
    let asked = asked.filter(|&(place, _)| own(place));
    let (white, black): (Vec<Asked<'_>>, Vec<Asked<'_>>) =
        asked.partition(|(_, search)| search.uses_gradients());
    if white.is_empty() || black.is_empty() {
        return Ok(None);
    }
    // In a suite each goes on where the one before ended: what it broke is what stood before and does not after.
    let broke = |of: &[Asked<'_>], at: usize| {
        of.iter().any(|&(place, _)| {
            before(header, outcomes, place).standing[at] && !outcomes.attacks[place].standing[at]
        })
    };
    let clean = &outcomes.attacks[0].standing;
    let all = suspect.map_or(header.examples.len(), |suspect| suspect.examples.len());
    let stood: Vec<usize> = (0..all).filter(|&at| clean[at] && !broke(&white, at)).collect();
    let places: Vec<usize> = stood.iter().copied().filter(|&at| broke(&black, at)).collect();
    let fell = match suspect {
        Some(suspect) if matters(places.len(), all) => withstanding(suspect, &places)?,
        _ => places.len(),
    };
    if !matters(fell, all) {
        return Ok(None);
    }
    let names: Vec<&str> = black.iter().map(|&(place, _)| header.attacks[place].name.as_str()).collect();
    let much = fell as f64 > MUCH * stood.len() as f64;
    let nor = match suspect {
        Some(_) => ", and not to more steps and restarts by gradients either",
        None => "",
    };
    Ok(Some(Flag {
        kind: if much { Kind::BlackBox } else { Kind::BlackBoxCounted },
        measured: format!(
            "of {} that no attack by gradients broke, {fell} fell to {}{nor}",
            of(stood.len(), all, kind),
            names.join(" and ")
        ),
        advice: match (suspect, much) {
            (None, _) => {
                "They are counted as broken. Either the attacks by gradients were weak, or gradients mislead here (they are \
                 masked): --checks full says which"
            }
            (_, true) => {
                "Gradients mislead here (they are masked), and a search without them finds but a part: give it more \
                 queries and restarts (--attack square-20000:restarts=3), and find what in the network hides its gradient"
            }
            (_, false) => {
                "They are counted as broken. Gradients are masked in part: a figure by gradients alone would be too high, \
                 and more queries and restarts may find more (--attack autoattack,square-20000:restarts=3)"
            }
        },
    }))
}

/// Examples that stand after the attacks that were asked for, and fell within the same ball to those of the curves.
pub fn curves(header: &Header, outcomes: &Outcomes, kind: &str) -> Option<Flag> {
    let threat = header.attacks[0].threat().ok()?;
    let swept: Vec<usize> = (1..header.attacks.len())
        .filter(|&place| {
            header.attacks[place].part != Part::Attack && header.attacks[place].norm == header.attacks[0].norm
        })
        .collect();
    let near = |place: usize, at: usize| outcomes.attacks[place].distance[at] <= threat.epsilon.value();
    let stood: Vec<usize> = (0..header.examples.len()).filter(|&at| outcomes.worst.standing[at]).collect();
    let fell: Vec<usize> =
        stood.iter().copied().filter(|&at| swept.iter().any(|&place| near(place, at))).collect();
    let strongest =
        swept.into_iter().max_by_key(|&place| fell.iter().filter(|&&at| near(place, at)).count())?;
    matters(fell.len(), header.examples.len()).then(|| Flag {
        kind: Kind::MoreSteps,
        measured: format!(
            "of {} that stood after the attacks, {} fell in the same ball to those of the curves, most of them to {}",
            of(stood.len(), header.examples.len(), kind),
            fell.len(),
            header.attacks[strongest].line
        ),
        advice: "The worst case is of the attacks that were asked for, and they were too weak. Name stronger ones \
                 (--attack autoattack)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Norm, ThreatModel, by_name};
    use crate::report::evaluation::Attacked;

    const EXAMPLES: usize = 1000;

    fn header(names: &[&str], suite: bool) -> Header {
        let attacked = |name: &str| Attacked {
            name: name.into(),
            line: name.into(),
            norm: "Linf".into(),
            epsilon: "0.3".into(),
            steps: 1,
            restarts: 1,
            runs: 1,
            suite: None,
            goes_on: suite && name != "clean" && name != names[0],
            minimum_norm: false,
            part: Part::Attack,
            from: None,
        };
        Header {
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
        }
    }

    /// The first so many stand.
    fn outcome(standing: usize) -> Outcome {
        Outcome {
            standing: (0..EXAMPLES).map(|at| at < standing).collect(),
            prediction: vec![0; EXAMPLES],
            distance: (0..EXAMPLES).map(|at| if at < standing { f64::INFINITY } else { 0.2 }).collect(),
            tried: EXAMPLES,
            outside: 0,
        }
    }

    /// After an evaluation by these attacks, one after another where they are a suite: by gradients the first leaves 800 and
    /// the others all that they are tried on, those without break `fell` more.
    fn flag(fell: usize, names: &[&str], suite: bool) -> Option<Flag> {
        let threat = ThreatModel { norm: Norm::Linf, epsilon: "0.3".parse().unwrap() };
        let searches: Vec<Box<dyn Search>> =
            names.iter().map(|name| by_name(name, &threat, 10).unwrap().attacks.remove(0).search).collect();
        let mut left = 990;
        let mut after = |search: &dyn Search| {
            let stood = if suite { left.min(800) } else { 800 };
            left = if search.uses_gradients() { stood } else { 800 - fell };
            outcome(left)
        };
        let attacked = searches.iter().map(|search| after(search.as_ref()));
        let attacks = std::iter::once(outcome(990)).chain(attacked).collect();
        let outcomes = Outcomes { attacks, worst: outcome(800 - fell) };
        counted(
            &header(names, suite),
            &outcomes,
            searches.iter().map(|search| search.as_ref()),
            "test images",
            None,
        )
        .unwrap()
    }

    #[test]
    fn what_falls_to_attacks_without_gradients_alone_is_told_by_how_much_it_is() {
        let both = ["apgd-ce", "square"];
        let flag = |fell, names: &[&str]| flag(fell, names, false);
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
    #[test]
    fn in_a_suite_what_a_search_without_gradients_found_is_its_own_wherever_it_stands() {
        for names in [["apgd-ce", "square", "apgd-t"], ["apgd-ce", "apgd-t", "square"]] {
            let found = flag(40, &names, true).unwrap();
            assert!(
                found.measured.contains("800 of 1000 test images") && found.measured.contains("40 fell"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_falls_to_the_attacks_of_a_curve_in_the_same_ball_is_told_of() {
        let flag = |left: usize, distance: f64| {
            let mut header = header(&["fgsm", "apgd-ce"], false);
            header.attacks[2].part = Part::Epsilon;
            let mut swept = outcome(left);
            swept.distance.iter_mut().filter(|one| one.is_finite()).for_each(|one| *one = distance);
            let outcomes = Outcomes { attacks: vec![outcome(990), outcome(800), swept], worst: outcome(800) };
            curves(&header, &outcomes, "test images")
        };
        let found = flag(700, 0.2).unwrap();
        assert_eq!(found.kind, Kind::MoreSteps);
        assert!(found.measured.contains("100 fell") && found.measured.contains("apgd-ce"), "{found:?}");
        assert_eq!(flag(700, 0.4), None, "further than epsilon");
        assert_eq!(flag(800, 0.2), None, "no more than the attacks broke");
    }
}
