//! Every attack that has a name: ball and box from the bits, batches, and that it breaks what it should.

use crate::house::{House, named};
use adamant::attack::{Norm, Observer, Search, ThreatModel, Verdicts, Witness};
use adamant::report::evaluation::Passes;
use adamant::{Device, Result};
use std::collections::BTreeMap;

/// Test images of the house's sample.
const IMAGES: usize = 120;

/// Holds every witness against ball and box, in f64 from the bits, and keeps the last of each example.
struct Checks {
    threat: ThreatModel,
    minimum: bool,
    last: BTreeMap<usize, Vec<f32>>,
}

impl Observer for &mut Checks {
    fn broken(&mut self, witness: Witness<'_>) -> Result<()> {
        let distance = self.threat.norm.distance(witness.clean, witness.adversarial);
        assert_eq!(distance, witness.distance);
        assert!(self.minimum || distance <= self.threat.epsilon.value(), "{}: {distance}", self.threat);
        assert!(witness.adversarial.iter().all(|x| (0.0..=1.0).contains(x)), "{}: left the box", self.threat);
        self.last.insert(witness.at, witness.adversarial.to_vec());
        Ok(())
    }
}

/// Verdicts whose witnesses are all held against ball and box.
fn checked(house: &House, search: &dyn Search, batch: usize, restarts: u32) -> Verdicts {
    watched(house, search, batch, restarts).0
}

/// The same, and the last witness of each example.
fn watched(
    house: &House,
    search: &dyn Search,
    batch: usize,
    restarts: u32,
) -> (Verdicts, BTreeMap<usize, Vec<f32>>) {
    let (threat, minimum) = (search.threat().clone(), search.is_minimum_norm());
    let mut checks = Checks { threat, minimum, last: BTreeMap::new() };
    let verdicts = house.observed(search, batch, restarts, &mut checks).unwrap();
    (verdicts, checks.last)
}

/// Attacks with a radius at which each breaks some images of the hardened network, and leaves some.
const CASES: &[(&str, Norm, &str)] = &[
    ("noise-5", Norm::Linf, "0.6"),
    ("noise-5", Norm::L2, "20"),
    ("fgsm", Norm::Linf, "0.35"),
    ("fgsm-rs", Norm::Linf, "0.35"),
    ("r-fgsm", Norm::Linf, "0.4"),
    ("pgd-7", Norm::Linf, "0.35"),
    ("bim-7", Norm::Linf, "0.35"),
    ("tpgd-7", Norm::Linf, "0.35"),
    ("mi-fgsm-7", Norm::Linf, "0.35"),
    ("mi-fgsm-7", Norm::L2, "2.5"),
    ("ni-fgsm-7", Norm::Linf, "0.35"),
    ("square-300", Norm::Linf, "0.35"),
    ("square-300", Norm::L2, "2"),
    ("apgd-ce-10", Norm::Linf, "0.33"),
    ("apgd-ce-10", Norm::L2, "2"),
    ("apgd-ce-10", Norm::L1, "12"),
    ("apgd-dlr-10", Norm::Linf, "0.33"),
    ("apgd-dlr-10", Norm::L2, "2"),
    ("apgd-t-5", Norm::Linf, "0.33"),
    ("apgd-t-5", Norm::L2, "2"),
    ("apgd-t-5", Norm::L1, "12"),
    ("fab-t-20", Norm::Linf, "0.35"),
    ("fab-10", Norm::L2, "3"),
    ("fab-t-20", Norm::L1, "60"),
    ("deepfool-20", Norm::L2, "4.5"),
    ("deepfool-20", Norm::Linf, "0.6"),
    ("ddn-40", Norm::L2, "2.5"),
    ("fmn-40", Norm::Linf, "0.55"),
    ("fmn-40", Norm::L2, "2.5"),
    ("fmn-40", Norm::L1, "15"),
    ("cw-60:c=10,rate=0.05", Norm::L2, "3"),
];

#[test]
fn every_attack_stays_inside_breaks_something_and_does_not_see_its_batch() {
    let house = House::new(&Device::cpu(), IMAGES);
    let exact = House::new(&Device::reference(), IMAGES);
    let passes = Passes::compile(&exact.store, exact.on(), IMAGES).unwrap();
    for &(name, norm, epsilon) in CASES {
        let search = named(name, norm, epsilon);
        let (all, last) = watched(&house, &*search, IMAGES, 1);
        // What was found in f32 is misclassified in f64 too.
        let images: Vec<f32> = last.values().flatten().copied().collect();
        let logits = passes.logits(&images).unwrap();
        for (&at, logits) in last.keys().zip(logits.chunks(passes.classes())) {
            let (label, most) = (house.labels[at] as usize, logits.iter().copied().fold(f64::MIN, f64::max));
            assert!(most > logits[label], "{}, example {at}: {logits:?}, class {label}", search.line());
        }
        let (clean, robust) = (all.clean_count(), all.robust_count());
        println!("{}: {robust} of {clean}", search.line());
        assert!(robust < clean && robust > 0, "{}: {robust} of {clean}", search.line());
        if !search.is_minimum_norm() {
            assert_eq!(all.outside, 0, "{}", search.line());
        }
        for batch in [7, 50] {
            assert_eq!(checked(&house, &*search, batch, 1), all, "{}, batches of {batch}", search.line());
        }
    }
}

/// Robust after the second attack, but not after the first.
fn raised(first: &Verdicts, second: &Verdicts) -> usize {
    first.robust.iter().zip(&second.robust).filter(|(first, second)| !**first && **second).count()
}

#[test]
fn restarts_and_further_queries_never_raise_robust_accuracy() {
    let house = House::new(&Device::cpu(), IMAGES);
    let of = |name: &str, restarts| {
        let search = named(name, Norm::Linf, "0.33");
        checked(&house, &*search, IMAGES, restarts)
    };
    for name in ["noise-3", "r-fgsm", "tpgd-3", "square-100", "fab-t-5"] {
        let (one, three) = (of(name, 1), of(name, 3));
        assert_eq!(raised(&one, &three), 0, "{name}");
        // What does not restart is one run.
        assert!(three.robust_count() <= one.robust_count(), "{name}");
    }
    // Queries are counted from the same start, and so are draws.
    for (few, many) in [("square-60", "square-240"), ("noise-2", "noise-9")] {
        assert_eq!(raised(&of(few, 1), &of(many, 1)), 0, "{few}");
    }
    assert_eq!(of("mi-fgsm-3", 1), of("mi-fgsm-3", 4));
}

/// Every image that any attack makes, misclassified or not, lies in its box, and in its ball where it has one: measured
/// in f64 from the bits. ADAMANT_IMAGES says how many images:
///
///     ADAMANT_IMAGES=100000 cargo test --release --test attacks no_image -- --nocapture
#[test]
fn no_image_of_any_attack_leaves_ball_or_box() {
    let house = House::new(&Device::cpu(), IMAGES);
    let wanted =
        std::env::var("ADAMANT_IMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(60 * CASES.len());
    let each = wanted.div_ceil(CASES.len());
    let (mut images, mut violations, begun) = (0, 0, std::time::Instant::now());
    for &(name, norm, epsilon) in CASES {
        let search = named(name, norm, epsilon);
        let judge = house.judge(&*search, 250).unwrap();
        let (mut left, mut seed) = (each, 0);
        while left > 0 {
            let examples: Vec<u32> = (0..left.min(house.data.len()) as u32).collect();
            for found in judge.images(&examples, seed).unwrap() {
                let far = norm.distance(&found.clean, &found.adversarial) > search.threat().epsilon.value();
                let outside = found.adversarial.iter().any(|x| !(0.0..=1.0).contains(x));
                violations += usize::from(outside || far && !search.is_minimum_norm());
                images += 1;
            }
            left -= examples.len();
            seed += 1;
        }
        println!("{}: {images} images so far, {violations} violations", search.line());
    }
    println!("{images} images of {} attacks, {:.0} s", CASES.len(), begun.elapsed().as_secs_f64());
    assert_eq!(violations, 0);
}
