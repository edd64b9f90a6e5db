//! Attacks by their names.

use adamant::attack::{Apgd, Ascending, Attack, AutoAttack, Fgsm, Loss, Pgd, Search, ThreatModel};
use adamant::report::evaluation::{Attempt, Part};
use adamant::{Error, Result};

/// What is known by name.
const NAMES: [&str; 6] = ["fgsm", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "autoattack"];

/// Most steps that a name may ask for.
const MOST_STEPS: usize = 1_000_000;

/// What `--attack` gives: names that commas separate.
pub(crate) fn names(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty()) {
        // Options of an attack are separated by commas too: "pgd-40:step=2/255,start=none".
        match names.last_mut().filter(|last| last.contains(':') && part.contains('=') && !part.contains(':'))
        {
            Some(last) => *last = format!("{last},{part}"),
            None => names.push(part.into()),
        }
    }
    names
}

/// The attack that `name` is, on a network of so many classes.
pub(crate) fn search(name: &str, threat: &ThreatModel, classes: usize) -> Result<Box<dyn Search>> {
    fn boxed(attack: impl Attack + 'static) -> Box<dyn Search> {
        Box::new(Ascending(Box::new(attack)))
    }
    let apgd = |loss| Ok(Apgd::new(threat.clone(), loss, classes).boxed());
    match name {
        "fgsm" => return Ok(boxed(Fgsm { threat: threat.clone() })),
        "pgd" => return Ok(boxed(Pgd::usual(threat.clone(), 40))),
        "apgd-ce" => return apgd(Loss::CrossEntropy),
        "apgd-dlr" => return apgd(Loss::Dlr),
        "apgd-t" => return apgd(Loss::TargetedDlr),
        _ => {}
    }
    if let Some(text) = name.strip_prefix("pgd-") {
        let steps = text.parse::<usize>().ok().filter(|steps| (1..=MOST_STEPS).contains(steps));
        let why = format!("steps go from 1 to {MOST_STEPS}, as pgd-100");
        let steps = steps.ok_or_else(|| Error::argument("attack", format!("`{name}`"), why))?;
        return Ok(boxed(Pgd::usual(threat.clone(), steps)));
    }
    Err(Error::unknown("attack", name, &NAMES))
}

/// The attacks that `name` asks for: one, or those of a suite.
pub(crate) fn attempts(
    name: &str,
    threat: &ThreatModel,
    restarts: u32,
    classes: usize,
    part: Part,
) -> Result<Vec<Attempt>> {
    if let Some(version) = name.strip_prefix("autoattack") {
        let version: AutoAttack = version.strip_prefix('-').unwrap_or(VERSION).parse()?;
        let suite = version.suite(threat, classes);
        let (name, entries) = (suite.name, suite.attacks.into_iter().enumerate());
        let attempt = |(place, entry): (usize, adamant::attack::Entry)| Attempt {
            search: entry.search,
            restarts: entry.restarts,
            suite: Some(name.clone()),
            goes_on: place > 0,
            place,
            part,
        };
        return Ok(entries.map(attempt).collect());
    }
    let search = search(name, threat, classes)?;
    Ok(vec![Attempt { search, restarts, suite: None, goes_on: false, place: 0, part }])
}

/// The version of AutoAttack that is meant by its plain name.
const VERSION: &str = "fast";
