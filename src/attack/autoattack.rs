//! AutoAttack (Croce and Hein 2020; for L1 Croce and Hein 2021): attacks without parameters to tune, in the order and with
//! the constants of `auto-attack/autoattack/autoattack.py`.

use super::suite::Entry;
use super::{Apgd, Eot, Fab, Loss, Norm, Search, Square, Suite, ThreatModel};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Which attacks it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoAttack {
    /// APGD-CE, APGD-T, FAB-T, Square: what a robust accuracy "by AutoAttack" is.
    Standard,
    /// APGD-CE, APGD-DLR and FAB with 5 restarts, Square, APGD-T, FAB-T.
    Plus,
    /// APGD-CE and APGD-DLR by gradients of 20 passes: for networks that draw random numbers.
    Rand,
    /// APGD-CE, APGD-T: the two that find nearly all, at a tenth of the work. No version of the reference.
    Fast,
}

/// Passes a gradient of a network that draws random numbers.
const PASSES: usize = 20;
/// Restarts of `plus`, and of APGD-CE in L1.
const RESTARTS: u32 = 5;
/// Targets of APGD-T in L1, but for `plus`, which has as many as in other norms.
const TARGETS_L1: usize = 5;
/// Steps of FAB.
const FAB_STEPS: usize = 100;
/// Steps after which FAB looks for examples that are broken: a look costs as much as one step.
const FAB_LOOKS: usize = 25;
/// Queries of Square.
const QUERIES: usize = 5000;

impl AutoAttack {
    /// Its versions.
    pub const ALL: [AutoAttack; 4] =
        [AutoAttack::Standard, AutoAttack::Plus, AutoAttack::Rand, AutoAttack::Fast];
    /// The names they go by.
    pub const NAMES: [&str; 4] = ["standard", "plus", "rand", "fast"];

    /// Its attacks on a network of so many classes. In L1 there is no Square here; the suite's name says so.
    pub fn suite(self, threat: &ThreatModel, classes: usize) -> Suite {
        let l1 = threat.norm == Norm::L1;
        let apgd = |loss, restarts| {
            let whole = Apgd::new(threat.clone(), loss, classes);
            let targets = if l1 && self != AutoAttack::Plus { TARGETS_L1 } else { whole.targets };
            Entry::new(Apgd { targets, ..whole }.boxed(), restarts)
        };
        let fab = |targeted, restarts| {
            let fab = Fab { threat: threat.clone(), steps: FAB_STEPS, targeted, looks: FAB_LOOKS, classes };
            Entry::new(Box::new(fab), restarts)
        };
        let square = || {
            let square: Box<dyn Search> = Box::new(Square { threat: threat.clone(), queries: QUERIES });
            (!l1).then(|| Entry::new(square, 1))
        };
        let ce = |restarts| apgd(Loss::CrossEntropy, restarts);
        let targeted = || apgd(Loss::TargetedDlr, 1);
        let attacks: Vec<Option<Entry>> = match self {
            AutoAttack::Standard => {
                let restarts = if l1 { RESTARTS } else { 1 };
                vec![Some(ce(restarts)), Some(targeted()), Some(fab(true, 1)), square()]
            }
            AutoAttack::Plus => vec![
                Some(ce(RESTARTS)),
                Some(apgd(Loss::Dlr, RESTARTS)),
                Some(fab(false, RESTARTS)),
                square(),
                Some(targeted()),
                Some(fab(true, 1)),
            ],
            AutoAttack::Rand => {
                let several = |Entry { search, restarts }| {
                    Some(Entry::new(Box::new(Eot { search, passes: PASSES }), restarts))
                };
                vec![several(ce(1)), several(apgd(Loss::Dlr, 1))]
            }
            AutoAttack::Fast => vec![Some(ce(if l1 { RESTARTS } else { 1 })), Some(targeted())],
        };
        let lacks = l1 && matches!(self, AutoAttack::Standard | AutoAttack::Plus);
        let name = if lacks { format!("{self} without Square") } else { self.to_string() };
        Suite { name, attacks: attacks.into_iter().flatten().collect() }
    }
}

impl FromStr for AutoAttack {
    type Err = Error;

    fn from_str(text: &str) -> Result<AutoAttack> {
        let place = AutoAttack::NAMES.iter().position(|name| *name == text);
        place
            .map(|place| AutoAttack::ALL[place])
            .ok_or_else(|| Error::unknown("version of AutoAttack", text, &AutoAttack::NAMES))
    }
}

impl fmt::Display for AutoAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = AutoAttack::ALL.iter().position(|version| version == self).unwrap_or(0);
        write!(f, "AutoAttack {}", AutoAttack::NAMES[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_restarts_in_l1_are_the_references() {
        let threat = ThreatModel { norm: Norm::L1, epsilon: "12".parse().unwrap() };
        let of = |version: AutoAttack| {
            let runs = |entry: &Entry| (entry.search.name(), entry.search.runs(10), entry.restarts);
            version.suite(&threat, 10).attacks.iter().map(runs).collect::<Vec<_>>()
        };
        let row = |name: &str, runs, restarts| (name.to_string(), runs, restarts);
        let [ce, t, fab_t] = [row("APGD-CE", 1, 5), row("APGD-T", 5, 1), row("FAB-T", 9, 1)];
        assert_eq!(of(AutoAttack::Standard), [ce.clone(), t.clone(), fab_t.clone()]);
        let [dlr, fab, nine] = [row("APGD-DLR", 1, 5), row("FAB", 1, 5), row("APGD-T", 9, 1)];
        assert_eq!(of(AutoAttack::Plus), [ce.clone(), dlr, fab, nine, fab_t]);
        assert_eq!(
            of(AutoAttack::Rand),
            [row("APGD-CE (20 passes)", 1, 1), row("APGD-DLR (20 passes)", 1, 1)]
        );
        assert_eq!(of(AutoAttack::Fast), [ce, t]);
    }
}
