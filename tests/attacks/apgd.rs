//! APGD: the laws of an attack, in every norm and with every loss.

use crate::house::{House, threat};
use adamant::Device;
use adamant::attack::{Apgd, AutoAttack, Loss, Norm, Pgd, Search, Standing, Suite, ThreatModel};

pub const IMAGES: usize = 100;

pub fn threats() -> [ThreatModel; 3] {
    [threat(Norm::Linf, "0.3"), threat(Norm::L2, "2"), threat(Norm::L1, "12")]
}

const LOSSES: [Loss; 3] = [Loss::CrossEntropy, Loss::Dlr, Loss::TargetedDlr];

pub fn few(threat: &ThreatModel, loss: Loss, steps: usize) -> Apgd {
    let attack = Apgd::new(threat.clone(), loss, 10);
    Apgd { steps, targets: 3, looks: steps.div_ceil(4), ..attack }
}

#[test]
fn it_breaks_what_pgd_breaks_and_stays_inside() {
    let house = House::new(&Device::cpu(), IMAGES);
    for threat in threats() {
        let step = (threat.epsilon.value() / 10.0).into();
        let pgd = Pgd { threat: threat.clone(), steps: 20, step_size: step, random_start: true };
        let pgd = Suite::of_attack(pgd, 1).run(house.subject(50), 3, Standing::default(), &mut ());
        let pgd = pgd.unwrap().robust[0];
        for loss in LOSSES {
            let attack = few(&threat, loss, 30).boxed();
            let verdicts = house.verdicts(attack.as_ref(), 50);
            let line = attack.line();
            assert!(verdicts.robust_count() <= pgd + 1, "{line}: {} of PGD's {pgd}", verdicts.robust_count());
            // Nothing is found outside: every witness was checked by its bits.
            assert_eq!(verdicts.outside, 0, "{line}");
        }
    }
}

#[test]
fn verdicts_do_not_depend_on_the_batch_they_are_reached_in() {
    let [cpu, gpu] = [Device::cpu(), Device::gpu(&Device::adapters()[0]).unwrap()];
    let [linf, l2, l1] = threats();
    for (device, threat, loss, steps, batch) in [
        (&cpu, &linf, Loss::CrossEntropy, 12, 7),
        (&cpu, &l2, Loss::Dlr, 12, 7),
        (&cpu, &l1, Loss::TargetedDlr, 12, 7),
        // A software adapter is slow.
        (&gpu, &linf, Loss::Dlr, 4, 34),
    ] {
        let house = House::new(device, IMAGES);
        let attack = few(threat, loss, steps).boxed();
        let all = house.verdicts(attack.as_ref(), IMAGES);
        assert!(all.robust_count() < all.clean_count(), "{} breaks nothing", attack.line());
        let small = house.verdicts(attack.as_ref(), batch);
        assert_eq!(small, all, "{}, {}", attack.line(), device.describe());
    }
}

#[test]
fn versions_are_known_by_their_names() {
    for name in AutoAttack::NAMES {
        let version: AutoAttack = name.parse().unwrap();
        assert_eq!(version.to_string(), format!("AutoAttack {name}"));
        assert!(!version.suite(&threats()[0], 10).attacks.is_empty());
    }
    assert!("strong".parse::<AutoAttack>().unwrap_err().to_string().contains("fast"));
}

#[test]
fn few_classes_are_said() {
    let line = |loss, classes| Apgd::new(threats()[0].clone(), loss, classes).line();
    assert_eq!(line(Loss::TargetedDlr, 10), "APGD-T, Linf 0.3, 100 steps, targeted DLR, 9 targets");
    assert!(line(Loss::TargetedDlr, 3).contains("third logit alone, as there are 3 classes, 2 targets"));
    assert!(line(Loss::TargetedDlr, 2).ends_with("2 classes, 1 target"));
    assert!(line(Loss::Dlr, 2).contains("2 classes"));
    assert_eq!(line(Loss::CrossEntropy, 2), "APGD-CE, Linf 0.3, 100 steps");
}
