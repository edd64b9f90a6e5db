//! Attacks by their names.

use adamant::attack::{Norm, Search, Suite, ThreatModel, by_name};
use adamant::report::evaluation::{Attempt, Part};
use adamant::{Error, Result};

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

/// The attack or the suite that `name` is, on a network of so many classes. `autoattack-fast` is `autoattack:version=fast`.
fn suite(name: &str, threat: &ThreatModel, classes: usize) -> Result<Suite> {
    let name = match name.strip_prefix("autoattack-") {
        Some(version) => format!("autoattack:version={version}"),
        None => name.to_string(),
    };
    by_name(&name, threat, classes)
}

/// The attacks that `name` asks for: one, or those of a suite. A single one has as many restarts as are asked for here,
/// unless its name says how many.
pub(crate) fn attempts(
    name: &str,
    threat: &ThreatModel,
    restarts: u32,
    classes: usize,
    part: Part,
) -> Result<Vec<Attempt>> {
    let suite = suite(name, threat, classes)?;
    let says = name.contains("restarts=");
    let several = suite.attacks.len() > 1;
    let (name, entries) = (suite.name, suite.attacks.into_iter().enumerate());
    let attempt = |(place, entry): (usize, adamant::attack::Entry)| Attempt {
        search: entry.search,
        restarts: if several || says { entry.restarts } else { restarts },
        suite: several.then(|| name.clone()),
        goes_on: place > 0,
        place,
        part,
        transferred: false,
    };
    Ok(entries.map(attempt).collect())
}

/// The single attack that `name` is.
pub(crate) fn search(name: &str, threat: &ThreatModel, classes: usize) -> Result<Box<dyn Search>> {
    let none = || Error::argument("attack", format!("`{name}`"), "is a suite of no attacks");
    suite(name, threat, classes)?.attacks.pop().map(|entry| entry.search).ok_or_else(none)
}

/// Attacks that use no gradient, with so few queries as a check can take.
pub(crate) fn black_box(threat: &ThreatModel, classes: usize) -> Result<Vec<Box<dyn Search>>> {
    let mut all = vec![search("noise-20", threat, classes)?];
    // Square is made for two norms.
    if threat.norm != Norm::L1 {
        all.push(search("square-1000", threat, classes)?);
    }
    Ok(all)
}
