//! What may be asked of attacks by name, each option with the values that mean something: with others an attack would do
//! nothing, or nonsense, and call what is left robust.

use super::{AutoAttack, Rational, Start};
use crate::error::{Error, Result};

/// An option of an attack.
#[derive(Clone, Copy)]
pub(super) struct Opt {
    /// What it is called.
    pub(super) key: &'static str,
    allowed: Allowed,
}

/// What an option may be.
#[derive(Clone, Copy)]
enum Allowed {
    /// A whole number, from 1 to so many.
    Whole(usize),
    /// A number, as a decimal or a fraction, from this to that.
    Number(f64, f64),
    /// One of these.
    Word(&'static [&'static str]),
}

const fn whole(key: &'static str, most: usize) -> Opt {
    Opt { key, allowed: Allowed::Whole(most) }
}

const fn number(key: &'static str, least: f64, most: f64) -> Opt {
    Opt { key, allowed: Allowed::Number(least, most) }
}

const fn word(key: &'static str, words: &'static [&'static str]) -> Opt {
    Opt { key, allowed: Allowed::Word(words) }
}

/// A length: more than f32 takes for 0, less than it takes for infinite.
const fn length(key: &'static str) -> Opt {
    number(key, 1e-30, 1e30)
}

/// Steps, behind the dash of a name.
pub(super) const STEPS: Opt = whole("steps", 1_000_000);
pub(super) const RESTARTS: Opt = whole("restarts", 10_000);
pub(super) const STEP: Opt = length("step");
pub(super) const START: Opt = word("start", &Start::NAMES);
/// With more than 1 the momentum would outgrow f32.
pub(super) const DECAY: Opt = number("decay", 0.0, 1.0);
pub(super) const LOOKS: Opt = whole("looks", 1_000_000);
pub(super) const OVERSHOOT: Opt = number("overshoot", 0.0, 10.0);
/// A radius is multiplied by one less it, and by one and it: never by 0 or 1.
pub(super) const GAMMA: Opt = number("gamma", 1e-4, 0.99);
pub(super) const RADIUS: Opt = length("radius");
pub(super) const ROUNDS: Opt = whole("rounds", 100);
/// The search takes 1e10 for no bound.
pub(super) const C: Opt = number("c", 1e-9, 1e9);
pub(super) const KAPPA: Opt = number("kappa", 0.0, 1e6);
pub(super) const RATE: Opt = number("rate", 1e-6, 100.0);
/// Each is recorded.
pub(super) const PASSES: Opt = whole("passes", 100);
/// Each is recorded; there are as many runs as there are other classes at most.
pub(super) const TARGETS: Opt = whole("targets", 1000);
pub(super) const VERSION: Opt = word("version", &AutoAttack::NAMES);

/// A bound as it is printed.
fn shown(bound: f64) -> String {
    if bound != 0.0 && !(1e-3..1e5).contains(&bound) { format!("{bound:e}") } else { bound.to_string() }
}

impl Opt {
    /// As it is listed: "step", "start=uniform|normal|none".
    pub(super) fn listed(&self) -> String {
        match self.allowed {
            Allowed::Word(words) => format!("{}={}", self.key, words.join("|")),
            Allowed::Whole(_) | Allowed::Number(..) => self.key.into(),
        }
    }

    /// What it may be, in words.
    fn allowed(&self) -> String {
        match self.allowed {
            Allowed::Whole(most) => format!("a whole number from 1 to {most}"),
            Allowed::Number(least, most) => format!("a number from {} to {}", shown(least), shown(most)),
            Allowed::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    /// Refuses what `value` of `attack` may not be.
    ///
    /// # Errors
    /// [`Error::Argument`] with attack, option, value and what is allowed.
    pub(super) fn check(&self, attack: &str, value: &str) -> Result<()> {
        let good = match self.allowed {
            Allowed::Whole(most) => value.parse().is_ok_and(|number: usize| (1..=most).contains(&number)),
            Allowed::Number(least, most) => {
                value.parse().is_ok_and(|number: Rational| (least..=most).contains(&number.value()))
            }
            Allowed::Word(words) if words.contains(&value) => true,
            Allowed::Word(words) => {
                return Err(Error::unknown(&format!("{} of {attack}", self.key), value, words));
            }
        };
        let why = || format!("must be {}", self.allowed());
        let refuse = || Error::argument(format!("{} of {attack}", self.key), format!("`{value}`"), why());
        good.then_some(()).ok_or_else(refuse)
    }

    /// The whole number that `value` of `attack` is.
    ///
    /// # Errors
    /// As [`Opt::check`].
    pub(super) fn whole_of(&self, attack: &str, value: &str) -> Result<usize> {
        self.check(attack, value)?;
        Ok(value.parse().unwrap_or(1))
    }

    /// Values at the ends of what it may be.
    #[cfg(test)]
    pub(super) fn extremes(&self) -> Vec<String> {
        match self.allowed {
            Allowed::Whole(most) => vec!["1".into(), most.to_string()],
            Allowed::Number(least, most) => vec![least.to_string(), format!("{most:e}")],
            Allowed::Word(words) => words.iter().map(|word| word.to_string()).collect(),
        }
    }
}
