//! Attacks by name: `NAME`, `NAME-STEPS`, `NAME:option=value,...`, as "pgd-40", "pgd-40:step=2/255,restarts=5", "cw:c=10".

use super::options::{
    C, DECAY, GAMMA, KAPPA, LOOKS, OVERSHOOT, Opt, PASSES, RADIUS, RATE, RESTARTS, ROUNDS, START, STEP,
    STEPS, TARGETS, VERSION,
};
use super::{
    Apgd, Ascent, Attack, AutoAttack, Cw, Ddn, DeepFool, Entry, Eot, Fab, Fgsm, FgsmRs, Fmn, InnerPgd, Loss,
    Momentum, Noise, Norm, Pgd, RFgsm, Rational, Search, Square, Start, Suite, ThreatModel,
};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// An attack, or a suite of several, that has a name.
struct Named {
    name: &'static str,
    /// What it is, in a few words.
    what: &'static str,
    /// What may be asked of it.
    options: &'static [Opt],
    make: fn(&Asked<'_>) -> Result<Suite>,
}

/// A line of the registry.
const fn named(
    name: &'static str,
    what: &'static str,
    options: &'static [Opt],
    make: fn(&Asked<'_>) -> Result<Suite>,
) -> Named {
    Named { name, what, options, make }
}

/// Every attack, in the order it is listed in: a line each.
const REGISTRY: &[Named] = &[
    named("noise", "random points of the ball; noise-N draws", &[RESTARTS], noise),
    named("fgsm", "one step of epsilon", &[PASSES], fgsm),
    named("fgsm-rs", "one step of 1.25 epsilon from a random start", &[STEP, PASSES, RESTARTS], fgsm_rs),
    named("r-fgsm", "one step from a random corner (Linf)", &[PASSES, RESTARTS], r_fgsm),
    named("pgd", "projected gradient descent; pgd-STEPS", &[STEP, START, PASSES, RESTARTS], pgd),
    named("bim", "PGD from the image itself; bim-STEPS", &[STEP, PASSES], bim),
    named("tpgd", "PGD on KL away from the clean prediction; tpgd-STEPS", &[STEP, PASSES, RESTARTS], tpgd),
    named("mi-fgsm", "ascent with momentum; mi-fgsm-STEPS", &[STEP, DECAY, PASSES], mi_fgsm),
    named("ni-fgsm", "ascent with Nesterov momentum; ni-fgsm-STEPS", &[STEP, DECAY, PASSES], ni_fgsm),
    named("square", "random search by windows (Linf, L2); square-QUERIES", &[PASSES, RESTARTS], square),
    named("fab-t", "minimum norm, up to nine target classes; fab-t-STEPS", &[LOOKS, PASSES, RESTARTS], fab_t),
    named("fab", "minimum norm, the nearest class at every step; fab-STEPS", &[LOOKS, PASSES, RESTARTS], fab),
    named("deepfool", "minimum norm (L2, Linf); deepfool-STEPS", &[OVERSHOOT, PASSES], deepfool),
    named("ddn", "minimum norm (L2); ddn-STEPS", &[GAMMA, RADIUS, PASSES], ddn),
    named("fmn", "minimum norm; fmn-STEPS", &[GAMMA, STEP, PASSES], fmn),
    named("cw", "minimum norm (L2); cw-STEPS", &[ROUNDS, C, KAPPA, RATE, PASSES], cw),
    named("apgd-ce", "APGD on cross-entropy; apgd-ce-STEPS", &[PASSES, RESTARTS], apgd_ce),
    named(
        "apgd-dlr",
        "APGD on the difference of logits ratio; apgd-dlr-STEPS",
        &[PASSES, RESTARTS],
        apgd_dlr,
    ),
    named("apgd-t", "APGD on targeted DLR; apgd-t-STEPS", &[PASSES, TARGETS, RESTARTS], apgd_t),
    named("autoattack", "a suite", &[VERSION], autoattack),
];

/// Names of all attacks, each with what it is and the options it takes.
pub fn names() -> Vec<(&'static str, String)> {
    let listed = |entry: &Named| {
        let options: Vec<String> = entry.options.iter().map(Opt::listed).collect();
        (entry.name, format!("{}; {}", entry.what, options.join(", ")))
    };
    REGISTRY.iter().map(listed).collect()
}

/// The attack that `text` asks for, on a network of so many classes: a name of [`names`], its number of steps (queries,
/// draws) where one is given behind a dash, and options behind a colon. Those that start at
/// random have the option `restarts`, all single ones but noise `passes` ([`Eot`]).
///
/// # Errors
/// An unknown name or option, with the nearest known one; an option that is given twice, or whose value is none of those
/// it may have; a norm the attack is not made for.
pub fn by_name(text: &str, threat: &ThreatModel, classes: usize) -> Result<Suite> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let entry = |name: &str| REGISTRY.iter().find(|entry| entry.name == name);
    let number = |steps: &str| !steps.is_empty() && steps.bytes().all(|byte| byte.is_ascii_digit());
    // A name may have dashes of its own.
    let (entry, steps) = match (entry(name), name.rsplit_once('-')) {
        (Some(entry), _) => (entry, None),
        (None, Some((stem, steps))) => match entry(stem) {
            Some(entry) if number(steps) => (entry, Some(STEPS.whole_of(entry.name, steps)?)),
            _ => return Err(unknown(name, stem)),
        },
        (None, None) => return Err(unknown(name, name)),
    };
    let mut given = BTreeMap::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let (key, value) = (key.trim(), value.trim());
        let Some(known) = entry.options.iter().find(|known| known.key == key) else {
            return Err(no_option(entry, key));
        };
        known.check(entry.name, value)?;
        if given.insert(key, value).is_some() {
            let what = format!("{key} of {}", entry.name);
            return Err(Error::argument(what, format!("`{value}`"), "it is given twice"));
        }
    }
    let asked = Asked { name: entry.name, threat, classes, steps, given };
    let mut suite = (entry.make)(&asked)?;
    if let [attack] = &suite.attacks[..] {
        let passes = asked.whole(PASSES, 1);
        if asked.whole(RESTARTS, 1) > 1 && !attack.search.is_random() {
            let why = "it draws no random numbers, so that every restart is the first one again";
            return Err(Error::argument(
                format!("restarts of {}", entry.name),
                asked.whole(RESTARTS, 1),
                why,
            ));
        }
        let as_asked = |Entry { search, restarts }| {
            let search = if passes > 1 { Box::new(Eot { search, passes }) } else { search };
            Entry::new(search, asked.whole(RESTARTS, restarts as usize) as u32)
        };
        suite.attacks = suite.attacks.into_iter().map(as_asked).collect();
    }
    Ok(suite)
}

/// An attack takes no option of this key.
fn no_option(entry: &Named, key: &str) -> Error {
    if key == "class" {
        let why = "every misclassification counts here, so that no attack by name goes for one class; train --turn 3:5 \
                   counts the images of a class that are turned into another";
        return Error::argument(format!("option of {}", entry.name), "`class`", why);
    }
    let keys: Vec<&str> = entry.options.iter().map(|option| option.key).collect();
    Error::unknown(&format!("option of {}", entry.name), key, &keys)
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

/// What is asked of an attack; the values have been checked.
struct Asked<'a> {
    name: &'static str,
    threat: &'a ThreatModel,
    classes: usize,
    steps: Option<usize>,
    given: BTreeMap<&'a str, &'a str>,
}

impl Asked<'_> {
    /// The value of an option that is a whole number.
    fn whole(&self, option: Opt, usual: usize) -> usize {
        self.given.get(option.key).and_then(|value| value.parse().ok()).unwrap_or(usual)
    }

    /// The value of an option that is a number.
    fn number(&self, option: Opt, usual: f64) -> f64 {
        let given = self.given.get(option.key).and_then(|value| value.parse::<Rational>().ok());
        given.map_or(usual, |given| given.value())
    }

    /// Its length of a step: `fraction` of epsilon unless it is given.
    fn step_size(&self, fraction: f64) -> Rational {
        // To seven digits, as it is printed.
        let usual = format!("{:.6e}", fraction * self.threat.epsilon.value()).parse().unwrap_or(0.0);
        let given = self.given.get(STEP.key).and_then(|value| value.parse().ok());
        given.unwrap_or_else(|| Rational::from(usual))
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
    fn pgd(&self, steps: usize) -> Pgd {
        let steps = self.steps.unwrap_or(steps);
        let step_size = self.step_size((2.5 / steps as f64).min(1.0));
        Pgd { threat: self.threat.clone(), steps, step_size, random_start: true }
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

fn noise(asked: &Asked<'_>) -> Result<Suite> {
    one(Noise { threat: asked.threat.clone(), draws: asked.steps.unwrap_or(20) })
}

fn fgsm(asked: &Asked<'_>) -> Result<Suite> {
    asked.single()?;
    ascending(Fgsm { threat: asked.threat.clone() })
}

fn fgsm_rs(asked: &Asked<'_>) -> Result<Suite> {
    asked.single()?;
    let step_size = asked.step_size(1.25);
    ascending(FgsmRs { threat: asked.threat.clone(), step_size, clip_start: true })
}

fn r_fgsm(asked: &Asked<'_>) -> Result<Suite> {
    asked.single()?;
    asked.needs(&[Norm::Linf])?;
    ascending(RFgsm { threat: asked.threat.clone() })
}

fn pgd(asked: &Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(40);
    let start: Start = asked.given.get(START.key).map_or(Ok(Start::Uniform), |start| start.parse())?;
    match start {
        Start::Normal => ascending(inner(pgd, Start::Normal, Ascent::CrossEntropy)),
        start => ascending(Pgd { random_start: start == Start::Uniform, ..pgd }),
    }
}

fn inner(pgd: Pgd, start: Start, ascends: Ascent) -> InnerPgd {
    let Pgd { threat, steps, step_size, .. } = pgd;
    InnerPgd { threat, steps, step_size, start, ascends, restarts: 1, keeps_best: false }
}

fn bim(asked: &Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(10);
    ascending(Pgd { random_start: false, ..pgd })
}

fn tpgd(asked: &Asked<'_>) -> Result<Suite> {
    let pgd = asked.pgd(10);
    ascending(inner(pgd, Start::Normal, Ascent::Kl))
}

fn mi_fgsm(asked: &Asked<'_>) -> Result<Suite> {
    momentum(asked, false)
}

fn ni_fgsm(asked: &Asked<'_>) -> Result<Suite> {
    momentum(asked, true)
}

fn momentum(asked: &Asked<'_>, nesterov: bool) -> Result<Suite> {
    let steps = asked.steps.unwrap_or(10);
    // Epsilon over the number of steps, as both papers have it.
    let step_size = asked.step_size(1.0 / steps as f64);
    let decay = asked.number(DECAY, 1.0);
    one(Momentum { threat: asked.threat.clone(), steps, step_size, decay, nesterov })
}

fn square(asked: &Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::Linf, Norm::L2])?;
    one(Square { threat: asked.threat.clone(), queries: asked.steps.unwrap_or(5000) })
}

fn fab_t(asked: &Asked<'_>) -> Result<Suite> {
    fab_of(asked, true)
}

fn fab(asked: &Asked<'_>) -> Result<Suite> {
    fab_of(asked, false)
}

fn fab_of(asked: &Asked<'_>, targeted: bool) -> Result<Suite> {
    let steps = asked.steps.unwrap_or(100);
    let looks = asked.whole(LOOKS, steps);
    one(Fab { threat: asked.threat.clone(), steps, targeted, looks, classes: asked.classes })
}

fn deepfool(asked: &Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2, Norm::Linf])?;
    let overshoot = asked.number(OVERSHOOT, 0.02);
    one(DeepFool { threat: asked.threat.clone(), steps: asked.steps.unwrap_or(50), overshoot })
}

fn ddn(asked: &Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2])?;
    one(Ddn {
        threat: asked.threat.clone(),
        steps: asked.steps.unwrap_or(100),
        first_radius: asked.number(RADIUS, 1.0),
        gamma: asked.number(GAMMA, 0.05),
    })
}

fn fmn(asked: &Asked<'_>) -> Result<Suite> {
    one(Fmn {
        threat: asked.threat.clone(),
        steps: asked.steps.unwrap_or(100),
        gamma: asked.number(GAMMA, 0.05),
        step_size: asked.number(STEP, 1.0),
    })
}

fn cw(asked: &Asked<'_>) -> Result<Suite> {
    asked.needs(&[Norm::L2])?;
    let (steps, rounds) = (asked.steps.unwrap_or(50), asked.whole(ROUNDS, 1));
    // All rounds are steps of one run.
    STEPS.whole_of("cw, all rounds together", &(steps * rounds).to_string())?;
    one(Cw {
        threat: asked.threat.clone(),
        steps,
        rounds,
        c: asked.number(C, 1.0),
        kappa: asked.number(KAPPA, 0.0),
        learning_rate: asked.number(RATE, 0.01),
    })
}

fn apgd_ce(asked: &Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::CrossEntropy)
}

fn apgd_dlr(asked: &Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::Dlr)
}

fn apgd_t(asked: &Asked<'_>) -> Result<Suite> {
    apgd(asked, Loss::TargetedDlr)
}

fn apgd(asked: &Asked<'_>, loss: Loss) -> Result<Suite> {
    let mut apgd = Apgd::new(asked.threat.clone(), loss, asked.classes);
    apgd.steps = asked.steps.unwrap_or(apgd.steps);
    if loss.is_targeted() {
        apgd.targets = asked.whole(TARGETS, apgd.targets);
    }
    Ok(Suite::of(apgd.boxed(), 1))
}

fn autoattack(asked: &Asked<'_>) -> Result<Suite> {
    if let Some(steps) = asked.steps {
        let why = "its attacks have the numbers of the reference";
        return Err(Error::argument("attack", format!("`autoattack-{steps}`"), why));
    }
    let version: AutoAttack = asked.given.get(VERSION.key).unwrap_or(&"standard").parse()?;
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
        assert!(line("pgd-7:start=none").contains("no random start"));
        assert!(line("deepfool:overshoot=1/10").contains("overshoot 0.1"));
        assert!(line("mi-fgsm-5").starts_with("MI-FGSM-5, "));
        assert!(line("noise-3").ends_with("3 draws"));
        assert!(
            line("square-70:restarts=2").contains("70 queries")
                && line("square:restarts=2").ends_with("2 restarts")
        );
        assert!(line("apgd-t-5").contains("APGD-T"));
    }

    #[test]
    fn lines_name_the_targets_that_there_are() {
        for (classes, targets) in [(2, 1), (3, 2), (4, 3), (9, 8), (10, 9), (11, 9), (1000, 9)] {
            for name in ["fab-t", "apgd-t", "autoattack"] {
                let suite = by_name(name, &threat(), classes).unwrap();
                let targeted = suite.attacks.iter().filter(|attack| attack.line().contains("target"));
                let mut lines = 0;
                for attack in targeted.filter(|attack| attack.search.name().ends_with("-T")) {
                    let (runs, line) = (attack.search.runs(classes), attack.line());
                    assert_eq!(runs, targets, "{name} on {classes} classes");
                    let words = if targets == 1 { "1 target".into() } else { format!("{targets} targets") };
                    assert!(line.split(", ").any(|part| part == words), "{classes} classes: {line}");
                    lines += 1;
                }
                assert_eq!(lines, if name == "autoattack" { 2 } else { 1 }, "{classes} classes");
            }
        }
        let fab = |classes| by_name("fab", &threat(), classes).unwrap().attacks[0].line();
        assert!(!fab(10).contains("nearest of") && fab(11).ends_with("nearest of 10 classes"), "{}", fab(11));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is_near() {
        for (text, why) in [
            ("pgt-40", "did you mean `pgd`"),
            ("mi-fgms", "did you mean `mi-fgsm`"),
            ("pgd-x", "takes a number"),
            ("pgd-0", "steps of pgd: `0`: must be a whole number from 1 to 1000000"),
            ("fgsm-3", "one step"),
            ("pgd:stp=1", "did you mean `step`"),
            ("noise:restart=1", "did you mean `restarts`"),
            ("bim:restarts=2", "known are step, passes"),
            ("pgd:start=none,restarts=2", "draws no random numbers"),
            ("autoattack:version=fats", "did you mean `fast`"),
            ("autoattack:restarts=2", "known are version"),
            ("pgd:class=3", "train --turn"),
            ("cw:class=3", "every misclassification counts"),
            ("pgd:start=there", "start of pgd"),
            ("", "unknown"),
        ] {
            assert!(error(text).contains(why), "{text}: {}", error(text));
        }
    }

    /// What each option of each attack may not be, and the words for what it may.
    const REFUSED: [(&str, &[&str], &str); 20] = [
        (
            "pgd step",
            &["0", "-1", "nan", "inf", "1e31", "1e-31", "abc", "", "1/0", "0/255"],
            "from 1e-30 to 1e30",
        ),
        ("fgsm-rs step", &["0", "-8/255", "1/0"], "from 1e-30 to 1e30"),
        ("bim step", &["0"], "from 1e-30 to 1e30"),
        ("tpgd step", &["0"], "from 1e-30 to 1e30"),
        ("mi-fgsm step", &["0"], "from 1e-30 to 1e30"),
        ("mi-fgsm decay", &["inf", "-0.1", "1.01", "nan"], "from 0 to 1"),
        ("ni-fgsm decay", &["inf", "2"], "from 0 to 1"),
        ("fab-t looks", &["0", "-1", "1000001", "2.5"], "whole number from 1 to 1000000"),
        ("fab looks", &["0"], "whole number from 1 to 1000000"),
        ("deepfool overshoot", &["-2", "10.1", "nan"], "from 0 to 10"),
        ("ddn gamma", &["5", "1", "0", "-0.1", "nan"], "from 1e-4 to 0.99"),
        ("ddn radius", &["0", "inf", "-1"], "from 1e-30 to 1e30"),
        ("fmn gamma", &["1", "0"], "from 1e-4 to 0.99"),
        ("fmn step", &["-1", "0", "inf"], "from 1e-30 to 1e30"),
        ("cw rounds", &["0", "101", "1.5", "-1"], "whole number from 1 to 100"),
        ("cw c", &["nan", "0", "-1", "1e10"], "from 1e-9 to 1e9"),
        ("cw kappa", &["-1", "inf", "1e7"], "from 0 to 1e6"),
        ("cw rate", &["0", "inf", "nan", "101"], "from 1e-6 to 100"),
        ("apgd-ce passes", &["0", "-1", "101", "4294967297"], "whole number from 1 to 100"),
        ("apgd-t targets", &["0", "1001", "x"], "whole number from 1 to 1000"),
    ];

    /// The error of `text` under the first norm that the attack is made for.
    fn error_in_any_norm(text: &str) -> String {
        let all = [Norm::L2, Norm::Linf].map(|norm| {
            let threat = ThreatModel { norm, epsilon: "0.5".parse().unwrap() };
            by_name(text, &threat, 10).err().map(|error| error.to_string()).unwrap_or_default()
        });
        all.into_iter().find(|error| !error.contains("is made for")).unwrap()
    }

    #[test]
    fn what_no_option_may_be_is_refused_by_attack_option_value_and_what_it_may_be() {
        for (option, values, allowed) in REFUSED {
            let (attack, key) = option.split_once(' ').unwrap();
            for value in values {
                let error = error_in_any_norm(&format!("{attack}:{key}={value}"));
                for words in [format!("{key} of {attack}: `{value}`"), allowed.into()] {
                    assert!(error.contains(&words), "{attack}:{key}={value}: `{words}` is not in: {error}");
                }
            }
        }
        for (text, words) in [
            ("pgd-5000000000", "steps of pgd: `5000000000`: must be a whole number from 1 to 1000000"),
            ("pgd-99999999999999999999999", "whole number from 1 to 1000000"),
            ("apgd-t-0", "steps of apgd-t: `0`"),
            ("cw-20000:rounds=100", "steps of cw, all rounds together: `2000000`"),
            ("pgd:restarts=0", "restarts of pgd: `0`: must be a whole number from 1 to 10000"),
            ("pgd:restarts=4294967296", "restarts of pgd"),
            ("pgd:step=0.1,step=0.2", "given twice"),
            ("pgd:step", "step of pgd: ``"),
        ] {
            assert!(error_in_any_norm(text).contains(words), "{text}: {}", error_in_any_norm(text));
        }
    }

    #[test]
    fn what_an_option_may_be_at_most_and_at_least_is_taken_by_every_attack() {
        for entry in REGISTRY {
            for option in entry.options {
                for value in option.extremes() {
                    let text = format!("{}:{}={value}", entry.name, option.key);
                    assert_eq!(error_in_any_norm(&text), "", "{text}");
                }
            }
            assert!(names().iter().any(|(name, what)| *name == entry.name
                && entry.options.iter().all(|option| what.contains(option.key))));
        }
        assert_eq!(error_in_any_norm("pgd-1000000"), "");
    }
}
