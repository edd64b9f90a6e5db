//! AutoAttack (Croce and Hein 2020; for L1 Croce and Hein 2021): attacks without parameters to tune, in the order and with
//! the constants of `auto-attack/autoattack/autoattack.py`.

use super::suite::Entry;
use super::{Apgd, Loss, Norm, Suite, ThreatModel};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Which attacks it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoAttack {
    /// APGD-CE, APGD-T: the two that find nearly all. No version of the reference.
    Fast,
    /// APGD-CE and APGD-DLR by gradients of 20 passes: for networks that draw random numbers.
    Rand,
}

/// Passes a gradient of a network that draws random numbers.
const PASSES: usize = 20;

impl AutoAttack {
    /// The names they go by.
    pub const NAMES: [&str; 2] = ["fast", "rand"];

    /// Its attacks on a network of so many classes.
    pub fn suite(self, threat: &ThreatModel, classes: usize) -> Suite {
        let l1 = threat.norm == Norm::L1;
        let apgd = |loss, restarts, passes| {
            // The reference gives L1 other numbers, as it takes one start there to find less.
            let targets = if l1 { 5 } else { super::apgd::TARGETS };
            let attack = Apgd { passes, targets, ..Apgd::new(threat.clone(), loss, classes) };
            Entry::new(attack.boxed(), restarts)
        };
        let attacks = match self {
            AutoAttack::Fast => {
                vec![apgd(Loss::CrossEntropy, if l1 { 5 } else { 1 }, 1), apgd(Loss::TargetedDlr, 1, 1)]
            }
            AutoAttack::Rand => vec![apgd(Loss::CrossEntropy, 1, PASSES), apgd(Loss::Dlr, 1, PASSES)],
        };
        Suite { name: self.to_string(), attacks }
    }
}

impl FromStr for AutoAttack {
    type Err = Error;

    fn from_str(text: &str) -> Result<AutoAttack> {
        match text {
            "fast" => Ok(AutoAttack::Fast),
            "rand" => Ok(AutoAttack::Rand),
            _ => Err(Error::unknown("version of AutoAttack", text, &AutoAttack::NAMES)),
        }
    }
}

impl fmt::Display for AutoAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AutoAttack::Fast => "AutoAttack fast",
            AutoAttack::Rand => "AutoAttack rand",
        })
    }
}
