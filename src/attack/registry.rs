//! Attacks by name: `NAME`, `NAME-STEPS`, `NAME:option=value,...`, as "pgd-40", "pgd-40:step=2/255,restarts=5", "cw:c=10".

use super::{
    Apgd, Ascent, Attack, AutoAttack, Cw, Ddn, DeepFool, Fab, Fgsm, FgsmRs, Fmn, InnerPgd, Loss, Momentum,
    Noise, Norm, Pgd, RFgsm, Rational, Search, Square, Start, Suite, Targeted, ThreatModel,
};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::str::FromStr;

/// An attack, or a suite of several, that has a name.
struct Named {
    name: &'static str,
    /// What it is, in a few words.
    what: &'static str,
    make: fn(&mut Asked<'_>) -> Result<Suite>,
}

/// Every attack, in the order it is listed in: a line each.
const REGISTRY: &[Named] = &[
    Named { name: "noise", what: "random points of the ball; noise-N draws", make: noise },
    Named { name: "fgsm", what: "one step of epsilon", make: fgsm },
    Named { name: "fgsm-rs", what: "one step of 1.25 epsilon from a random start; step", make: fgsm_rs },
    Named { name: "r-fgsm", what: "one step from a random corner (Linf)", make: r_fgsm },
    Named { name: "pgd", what: "pgd-STEPS; step, start=uniform|normal|none, class", make: pgd },
    Named { name: "bim", what: "PGD from the image itself; step", make: bim },
    Named { name: "tpgd", what: "PGD on KL away from the clean prediction; step", make: tpgd },
    Named { name: "mi-fgsm", what: "ascent with momentum; step, decay", make: mi_fgsm },
    Named { name: "ni-fgsm", what: "ascent with Nesterov momentum; step, decay", make: ni_fgsm },
    Named { name: "square", what: "random search by windows; square-QUERIES (Linf, L2)", make: square },
    Named { name: "fab-t", what: "minimum norm, nine target classes; fab-t-STEPS, looks", make: fab_t },
    Named { name: "fab", what: "minimum norm, the nearest class at every step; fab-STEPS, looks", make: fab },
    Named { name: "deepfool", what: "minimum norm (L2, Linf); deepfool-STEPS, overshoot", make: deepfool },
    Named { name: "ddn", what: "minimum norm (L2); ddn-STEPS, gamma, radius", make: ddn },
    Named { name: "fmn", what: "minimum norm; fmn-STEPS, gamma, step", make: fmn },
    Named { name: "cw", what: "minimum norm (L2); cw-STEPS, rounds, c, kappa, rate", make: cw },
    Named { name: "apgd-ce", what: "APGD on cross-entropy; apgd-ce-STEPS, passes", make: apgd_ce },
    Named { name: "apgd-dlr", what: "APGD on the difference of logits ratio; passes", make: apgd_dlr },
    Named { name: "apgd-t", what: "APGD on targeted DLR, nine classes; passes, targets", make: apgd_t },
    Named { name: "autoattack", what: "a suite; version=standard|plus|rand|fast", make: autoattack },
];

/// Names of all attacks, each with what it is and what may be asked of it.
pub fn names() -> Vec<(&'static str, &'static str)> {
    REGISTRY.iter().map(|entry| (entry.name, entry.what)).collect()
}

/// The attack that `text` asks for, on a network of so many classes: a name of [`names`], its number of steps (queries,
/// draws) where one is given behind a dash, and options behind a colon. Every single attack has the option `restarts`.
///
/// # Errors
/// An unknown name or option, with the nearest known one; a value that is no number; a norm the attack is not made for.
pub fn by_name(text: &str, threat: &ThreatModel, classes: usize) -> Result<Suite> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let entry = |name: &str| REGISTRY.iter().find(|entry| entry.name == name);
    // A name may have dashes of its own.
    let (entry, steps) = match (entry(name), name.rsplit_once('-')) {
        (Some(entry), _) => (entry, None),
        (None, Some((stem, steps))) => match (entry(stem), steps.parse::<usize>()) {
            (Some(entry), Ok(steps)) => (entry, Some(steps)),
            _ => return Err(unknown(name, stem)),
        },
        (None, None) => return Err(unknown(name, name)),
    };
    if steps == Some(0) {
        return Err(Error::argument("attack", format!("`{text}`"), "needs at least one step"));
    }
    let mut given = BTreeMap::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        given.insert(key.trim(), value.trim());
    }
    let mut asked = Asked { name: entry.name, threat, classes, steps, given, known: Vec::new() };
    let mut suite = (entry.make)(&mut asked)?;
    if let [attack] = &mut suite.attacks[..] {
        attack.restarts = asked.option("restarts")?.unwrap_or(attack.restarts).max(1);
    }
    match asked.given.keys().next() {
        None => Ok(suite),
        Some(key) => Err(Error::unknown(&format!("option of {}", entry.name), key, &asked.known)),
    }
}

/// There is no attack `name`; `stem` is what stands before its last dash.
fn unknown(name: &str, stem: &str) -> Error {
    let names: Vec<&str> = REGISTRY.iter().map(|entry| entry.name).collect();
    match names.contains(&stem) {
        true => Error::argument("attack", format!("`{name}`"), format!("`{stem}-N` takes a number of steps")),
        // What is nearest to "pgt-40" is found by "pgt".
        false => Error::unknown("attack", if name.ends_with(char::is_numeric) { stem } else { name }, &names),
    }
}

/// What is asked of an attack.
struct Asked<'a> {
    name: &'static str,
    threat: &'a ThreatModel,
    classes: usize,
    steps: Option<usize>,
    given: BTreeMap<&'a str, &'a str>,
    known: Vec<&'static str>,
}

impl Asked<'_> {
    /// The value of option `key`, if it is given.
    fn option<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.known.push(key);
        let Some(value) = self.given.remove(key) else { return Ok(None) };
        let refuse =
            || Error::argument(format!("{key} of {}", self.name), format!("`{value}`"), "no such value");
        value.parse().map(Some).map_err(|_| refuse())
    }

    /// Its length of a step: `fraction` of epsilon unless it is given.
    fn step_size(&mut self, fraction: f64) -> Result<Rational> {
        // To seven digits, as it is printed.
        let usual = format!("{:.6e}", fraction * self.threat.epsilon.value()).parse().unwrap_or(0.0);
        Ok(self.option("step")?.unwrap_or_else(|| Rational::from(usual)))
    }

    /// Refuses any norm but these.
    fn needs(&self, norms: &[Norm]) -> Result<()> {
        let names: Vec<String> = norms.iter().map(Norm::to_string).collect();
        match norms.contains(&self.threat.norm) {
            true => Ok(()),
            false => Err(Error::argument("norm", self.threat.norm.to_string(), {
                format!("{} is made for {}", self.name, names.join(" and "))
            })),
        }
    }

    /// PGD from a start: steps that together go 2.5 times epsilon, as Madry's.
    fn pgd(&mut self, steps: usize) -> Result<Pgd> {
        let steps = self.steps.unwrap_or(steps);
        let step_size = self.step_size((2.5 / steps as f64).min(1.0))?;
        Ok(Pgd { threat: self.threat.clone(), steps, step_size, random_start: true })
    }

    /// No number of steps is taken.
    fn single(&self) -> Result<()> {
        match self.steps {
            None => Ok(()),
            Some(steps) => {
                Err(Error::argument("attack", format!("`{}-{steps}`", self.name), "it takes one step"))
            }
        }
    }
}

/// The suite of one search.
fn one(search: impl Search + 'static) -> Result<Suite> {
    Ok(Suite::of(Box::new(search), 1))
}

/// The suite of one attack by steps of ascent.
fn ascending(attack: impl Attack + 'static) -> Result<Suite> {
    Ok(Suite::of_attack(attack, 1))
}

fn noise(asked: &mut Asked<'_>) -> Result<Suite> {
    one(Noise { threat: asked.threat.clone(), draws: asked.steps.unwrap_or(20) })
}

fn fgsm(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.single()?;
    ascending(Fgsm { threat: asked.threat.clone() })
}

fn fgsm_rs(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.single()?;
    let step_size = asked.step_size(1.25)?;
    ascending(FgsmRs { threat: asked.threat.clone(), step_size, clip_start: true })
}

fn r_fgsm(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.single()?;
    asked.needs(&[Norm::Linf])?;
    ascending(RFgsm { threat: asked.threat.clone() })
}

fn pgd(asked: &mut Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(40)?;
    let start: Start = asked.option("start")?.unwrap_or(Start::Uniform);
    let random_start = start == Start::Uniform;
    match (asked.option::<u32>("class")?, start) {
        (Some(class), _) => ascending(Targeted { pgd: Pgd { random_start, ..pgd }, class }),
        (None, Start::Normal) => ascending(inner(pgd, Start::Normal, Ascent::CrossEntropy)),
        (None, _) => ascending(Pgd { random_start, ..pgd }),
    }
}

fn inner(pgd: Pgd, start: Start, ascends: Ascent) -> InnerPgd {
    let Pgd { threat, steps, step_size, .. } = pgd;
    InnerPgd { threat, steps, step_size, start, ascends, restarts: 1, keeps_best: false }
}

fn bim(asked: &mut Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(10)?;
    ascending(Pgd { random_start: false, ..pgd })
}

fn tpgd(asked: &mut Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(10)?;
    ascending(inner(pgd, Start::Normal, Ascent::Kl))
}

fn mi_fgsm(asked: &mut Asked<'_>) -> Result<Suite> {
    momentum(asked, false)
}

fn ni_fgsm(asked: &mut Asked<'_>) -> Result<Suite> {
    momentum(asked, true)
}

fn momentum(asked: &mut Asked<'_>, nesterov: bool) -> Result<Suite> {
    let steps = asked.steps.unwrap_or(10);
    // Epsilon over the number of steps, as both papers have it.
    let step_size = asked.step_size(1.0 / steps as f64)?;
    let decay = asked.option("decay")?.unwrap_or(1.0);
    one(Momentum { threat: asked.threat.clone(), steps, step_size, decay, nesterov })
}

fn square(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::Linf, Norm::L2])?;
    one(Square { threat: asked.threat.clone(), queries: asked.steps.unwrap_or(5000) })
}

fn fab_t(asked: &mut Asked<'_>) -> Result<Suite> {
    fab_of(asked, true)
}

fn fab(asked: &mut Asked<'_>) -> Result<Suite> {
    fab_of(asked, false)
}

fn fab_of(asked: &mut Asked<'_>, targeted: bool) -> Result<Suite> {
    let steps = asked.steps.unwrap_or(100);
    let looks = asked.option("looks")?.unwrap_or(steps);
    one(Fab { threat: asked.threat.clone(), steps, targeted, looks, classes: asked.classes })
}

fn deepfool(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2, Norm::Linf])?;
    let overshoot = asked.option("overshoot")?.unwrap_or(0.02);
    one(DeepFool { threat: asked.threat.clone(), steps: asked.steps.unwrap_or(50), overshoot })
}

fn ddn(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2])?;
    one(Ddn {
        threat: asked.threat.clone(),
        steps: asked.steps.unwrap_or(100),
        first_radius: asked.option("radius")?.unwrap_or(1.0),
        gamma: asked.option("gamma")?.unwrap_or(0.05),
    })
}

fn fmn(asked: &mut Asked<'_>) -> Result<Suite> {
    one(Fmn {
        threat: asked.threat.clone(),
        steps: asked.steps.unwrap_or(100),
        gamma: asked.option("gamma")?.unwrap_or(0.05),
        step_size: asked.option("step")?.unwrap_or(1.0),
    })
}

fn cw(asked: &mut Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2])?;
    one(Cw {
        threat: asked.threat.clone(),
        steps: asked.steps.unwrap_or(50),
        rounds: asked.option("rounds")?.unwrap_or(1),
        c: asked.option("c")?.unwrap_or(1.0),
        kappa: asked.option("kappa")?.unwrap_or(0.0),
        learning_rate: asked.option("rate")?.unwrap_or(0.01),
    })
}

fn apgd_ce(asked: &mut Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::CrossEntropy)
}

fn apgd_dlr(asked: &mut Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::Dlr)
}

fn apgd_t(asked: &mut Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::TargetedDlr)
}

fn apgd(asked: &mut Asked<'_>, loss: Loss) -> Result<Suite> {
    let mut apgd = Apgd::new(asked.threat.clone(), loss, asked.classes);
    apgd.steps = asked.steps.unwrap_or(apgd.steps);
    apgd.passes = asked.option("passes")?.unwrap_or(apgd.passes).max(1);
    if loss.is_targeted() {
        apgd.targets = asked.option("targets")?.unwrap_or(apgd.targets).max(1);
    }
    Ok(Suite::of(apgd.boxed(), 1))
}

fn autoattack(asked: &mut Asked<'_>) -> Result<Suite> {
    if let Some(steps) = asked.steps {
        let why = "its attacks have the numbers of the reference";
        return Err(Error::argument("attack", format!("`autoattack-{steps}`"), why));
    }
    asked.known.push("version");
    let version: AutoAttack = asked.given.remove("version").unwrap_or("standard").parse()?;
    Ok(version.suite(asked.threat, asked.classes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threat() -> ThreatModel {
        ThreatModel { norm: Norm::Linf, epsilon: "8/255".parse().unwrap() }
    }

    fn error(text: &str) -> String {
        by_name(text, &threat(), 10).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_name_gives_an_attack_or_says_which_norm_it_is_made_for() {
        for (name, _) in names() {
            let made = [Norm::Linf, Norm::L2, Norm::L1].map(|norm| {
                let threat = ThreatModel { norm, epsilon: "0.1".parse().unwrap() };
                match by_name(name, &threat, 10) {
                    Ok(suite) => {
                        for attack in &suite.attacks {
                            assert_eq!(attack.search.threat(), &threat, "{name}");
                            assert!(attack.search.steps() > 0, "{name}");
                            assert!(attack.line().contains("0.1"), "{name}: {}", attack.line());
                        }
                        !suite.attacks.is_empty()
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("is made for"), "{name}: {error}");
                        false
                    }
                }
            });
            assert!(made.contains(&true), "{name}");
        }
    }

    #[test]
    fn steps_and_options_are_read() {
        let line = |text: &str| by_name(text, &threat(), 10).unwrap().attacks[0].line();
        assert_eq!(
            line("pgd-40:step=2/255"),
            "PGD-40, Linf 8/255 = 0.03137, step 2/255 = 0.00784, random start"
        );
        assert!(line("pgd-7:start=none,class=3").contains("no random start, towards class 3"));
        assert!(line("mi-fgsm-5").starts_with("MI-FGSM-5, "));
        assert!(line("noise-3").ends_with("3 draws"));
        assert!(
            line("square-70:restarts=2").contains("70 queries")
                && line("square:restarts=2").ends_with("2 restarts")
        );
        assert!(line("apgd-t-5").contains("APGD-T"));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is_near() {
        for (text, why) in [
            ("pgt-40", "did you mean `pgd`"),
            ("mi-fgms", "did you mean `mi-fgsm`"),
            ("pgd-x", "takes a number"),
            ("pgd-0", "at least one step"),
            ("fgsm-3", "one step"),
            ("pgd:stp=1", "did you mean `step`"),
            ("noise:restart=1", "did you mean `restarts`"),
            ("autoattack:version=fats", "did you mean `fast`"),
            ("autoattack:restarts=2", "known are version"),
            ("pgd:step=abc", "step of pgd"),
            ("pgd:start=there", "start of pgd"),
            ("", "unknown"),
        ] {
            assert!(error(text).contains(why), "{text}: {}", error(text));
        }
    }
}
