//! Attacks by their names.

use adamant::attack::{Ascending, Attack, Fgsm, Pgd, Search, Site, ThreatModel};
use adamant::report::evaluation::{Attempt, Part};
use adamant::{Error, Result};

/// What is known by name.
const NAMES: [&str; 2] = ["fgsm", "pgd"];

/// Most steps that a name may ask for.
const MOST_STEPS: usize = 1_000_000;

/// The attack, or the attacks of the suite, that `name` is, against this.
pub(crate) fn attempts(name: &str, threat: &ThreatModel, restarts: u32, part: Part) -> Result<Vec<Attempt>> {
    let (plain, steps) = match name.rsplit_once('-') {
        Some((plain, steps)) if steps.chars().all(|c| c.is_ascii_digit()) => {
            let steps = steps.parse::<usize>().ok().filter(|steps| (1..=MOST_STEPS).contains(steps));
            let why = format!("steps go from 1 to {MOST_STEPS}, as pgd-100");
            (plain, Some(steps.ok_or_else(|| Error::argument("attack", format!("`{name}`"), why))?))
        }
        _ => (name, None),
    };
    let search: Box<dyn Search> = match (plain, steps) {
        ("fgsm", None) => Box::new(Owned(Box::new(Fgsm { threat: threat.clone() }))),
        ("pgd", steps) => Box::new(Owned(Box::new(Pgd::usual(threat.clone(), steps.unwrap_or(40))))),
        _ => return Err(Error::unknown("attack", name, &NAMES)),
    };
    Ok(vec![Attempt { search, restarts, suite: None, goes_on: false, part }])
}

/// An [`Attack`] of one's own as a search.
struct Owned(Box<dyn Attack>);

impl Search for Owned {
    fn name(&self) -> String {
        Ascending(&*self.0).name()
    }
    fn threat(&self) -> &ThreatModel {
        self.0.threat()
    }
    fn line(&self) -> String {
        Ascending(&*self.0).line()
    }
    fn steps(&self) -> usize {
        Ascending(&*self.0).steps()
    }
    fn is_random(&self) -> bool {
        Ascending(&*self.0).is_random()
    }
    fn step_size(&self) -> f64 {
        Ascending(&*self.0).step_size()
    }
    fn start<'t>(&self, site: &Site<'_, 't>) {
        Ascending(&*self.0).start(site);
    }
    fn step<'t>(&self, site: &Site<'_, 't>) {
        Ascending(&*self.0).step(site);
    }
}
