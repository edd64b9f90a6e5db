//! Attacks on the mean of several passes.

use crate::house::{House, named, threat};
use adamant::Device;
use adamant::attack::{AutoAttack, Norm, Search, Site, ThreatModel, names};

const IMAGES: usize = 100;

/// Attacks of which each does something else with a network, few steps of each.
const CASES: &[(&str, Norm, &str)] = &[
    ("fgsm", Norm::Linf, "0.3"),
    ("pgd-5", Norm::Linf, "0.3"),
    ("tpgd-5", Norm::L2, "2"),
    ("ni-fgsm-5", Norm::Linf, "0.3"),
    ("square-40", Norm::Linf, "0.3"),
    ("fab-t-4", Norm::L2, "2"),
    ("deepfool-5", Norm::Linf, "0.4"),
    ("ddn-10", Norm::L2, "2"),
    ("fmn-10", Norm::Linf, "0.4"),
    ("cw-10:c=10,rate=0.05", Norm::L2, "3"),
    ("apgd-ce-5", Norm::Linf, "0.3"),
    ("apgd-t-3", Norm::L1, "12"),
];

/// The attack, on the mean of so many passes.
fn of(&(name, norm, epsilon): &(&str, Norm, &str), passes: usize) -> Box<dyn Search> {
    let colon = if name.contains(':') { ',' } else { ':' };
    named(&format!("{name}{colon}passes={passes}"), norm, epsilon)
}

#[test]
fn a_network_that_draws_nothing_is_attacked_as_by_one_pass() {
    let house = House::new(&Device::cpu(), IMAGES);
    for case in CASES {
        let (one, three) = (house.verdicts(&*of(case, 1), IMAGES), house.verdicts(&*of(case, 3), IMAGES));
        assert_eq!(one, three, "{}", of(case, 3).line());
        assert!(one.robust_count() < one.clean_count(), "{} breaks nothing", of(case, 1).line());
    }
}

/// Keeps the logits of each pass.
struct Watched {
    threat: ThreatModel,
    passes: usize,
}

impl Search for Watched {
    fn name(&self) -> String {
        "watched".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("watched, {} passes", self.passes)
    }

    fn steps(&self) -> usize {
        2
    }

    fn passes(&self) -> usize {
        self.passes
    }

    fn is_random(&self) -> bool {
        false
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        site.keep_adversarial(site.x());
        self.keep(site, "start");
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        self.keep(site, "step");
        site.keep_adversarial(site.adversarial());
    }
}

impl Watched {
    fn keep(&self, site: &Site<'_, '_>, when: &str) {
        for (pass, logits) in site.each_pass(site.x()).into_iter().enumerate() {
            site.keep(&format!("{when} {pass}"), logits);
        }
    }

    /// The logits of each pass at the start and of the last step.
    fn seen(&self, house: &House) -> Vec<Vec<f64>> {
        house.verdicts(self, IMAGES);
        let names = ["start", "step"].map(|when| (0..self.passes).map(move |pass| format!("{when} {pass}")));
        let of = |name: String| format!("evaluate {} {IMAGES} test.state/{name}", self.line());
        names.into_iter().flatten().map(|name| house.store.read_f64(&of(name)).unwrap()).collect()
    }
}

#[test]
fn every_pass_of_every_step_draws_numbers_of_its_own_and_the_first_those_of_one() {
    let mut house = House::new(&Device::cpu(), IMAGES);
    house.drop_pixels();
    let watched = |passes| Watched { threat: threat(Norm::Linf, "0.1"), passes }.seen(&house);
    let (one, three) = (watched(1), watched(3));
    for (i, logits) in three.iter().enumerate() {
        assert!(three[..i].iter().all(|other| other != logits), "pass {i} of both is as one before it");
    }
    assert_eq!([&three[0], &three[3]], [&one[0], &one[1]]);
}

#[test]
fn a_network_that_draws_random_numbers_is_attacked_otherwise_by_several_passes_and_in_any_batch_the_same() {
    let mut house = House::new(&Device::cpu(), IMAGES);
    house.drop_pixels();
    for case in CASES {
        let (one, four) = (of(case, 1), of(case, 4));
        let verdicts = house.verdicts(&*four, IMAGES);
        let single = house.verdicts(&*one, IMAGES);
        assert_eq!(verdicts.clean, single.clean, "{}", four.line());
        // Passes that drew the same numbers would be one.
        assert_ne!(verdicts, single, "{}", four.line());
        assert_eq!(house.verdicts(&*four, 7), verdicts, "{}, batches of 7", four.line());
    }
}

#[test]
fn the_mean_of_many_passes_breaks_more_than_one_of_them() {
    let mut house = House::new(&Device::cpu(), IMAGES);
    house.drop_pixels();
    // One pass says nothing of the pixels that it drops: one in five stays as it is. Of 16 passes none does.
    let broken = |passes| {
        let search = of(&("fgsm", Norm::Linf, "0.4"), passes);
        let verdicts = house.verdicts(&*search, IMAGES);
        println!("{}: {} of {}", search.line(), verdicts.robust_count(), verdicts.clean_count());
        verdicts.clean_count() - verdicts.robust_count()
    };
    let (one, many) = (broken(1), broken(16));
    assert!(many > one, "{many} broken by the mean of 16 passes, {one} by one");
}

#[test]
fn every_attack_that_asks_the_network_says_of_how_many_passes() {
    for (name, what) in names() {
        assert_eq!(what.contains("passes"), name != "noise" && name != "autoattack", "{name}: {what}");
    }
    assert!(of(&("mi-fgsm", Norm::Linf, "0.3"), 20).line().ends_with(", mean of 20 passes"));
    assert!(!of(&("mi-fgsm", Norm::Linf, "0.3"), 1).line().contains("passes"));
    let rand = AutoAttack::Rand.suite(&threat(Norm::Linf, "0.3"), 10);
    assert!(rand.attacks.iter().all(|entry| entry.line().ends_with("mean of 20 passes")));
}
