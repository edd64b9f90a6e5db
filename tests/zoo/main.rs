//! A zoo of broken defences, each of which has to be flagged, and healthy networks, which must not be.

mod defences;

use adamant::attack::{Apgd, Ascending, Evaluation, Fgsm, Loss, Norm, Pgd, Search, ThreatModel, by_name};
use adamant::data::{self, Dataset};
use adamant::nn::{Architecture, Mode, Params, architectures};
use adamant::report::evaluation::{Passes, Subject};
use adamant::report::honesty::{self, Flag, Kind, Suspect};
use adamant::train::checkpoint;
use adamant::train::{Recipe, Silent, Trainer};
use adamant::weights::Weights;
use adamant::{Device, Store};
use defences::{Broken, Defence};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// Images that are looked at.
const IMAGES: u32 = 60;

fn threat() -> ThreatModel {
    ThreatModel { norm: Norm::Linf, epsilon: "0.3".parse().unwrap() }
}

fn test_data() -> &'static Dataset {
    static DATA: OnceLock<Dataset> = OnceLock::new();
    DATA.get_or_init(|| data::load("mnist").unwrap().test)
}

/// Weights of the house's own hardened network.
fn hardened() -> (Box<dyn Architecture>, Weights) {
    let data = test_data();
    let network = architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd/weights.safetensors");
    let weights = checkpoint::load_weights(&file, network.as_ref(), &params).unwrap();
    (network, weights)
}

/// The same network, trained on clean images for an epoch.
fn standard() -> (Box<dyn Architecture>, Weights) {
    static WEIGHTS: OnceLock<Weights> = OnceLock::new();
    let data = test_data();
    let network = || architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
    let weights = WEIGHTS.get_or_init(|| {
        let recipe = Recipe {
            method: "standard".into(),
            epochs: 1,
            probe: 0,
            weight_average: 0.0,
            train_images: 4000,
            ..Recipe::default()
        };
        let train = data::load("mnist").unwrap().train;
        let mut trainer = Trainer::new(recipe, network(), &train, &Device::cpu()).unwrap();
        trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
        trainer.weights().unwrap()
    });
    (network(), weights.clone())
}

/// What is looked at, and how.
struct Case {
    architecture: Box<dyn Architecture>,
    weights: Weights,
    mode: Mode,
}

impl Case {
    fn broken(defence: Defence, (of, weights): (Box<dyn Architecture>, Weights)) -> Case {
        Case { architecture: Box::new(Broken { of, defence }), weights, mode: Mode::Eval }
    }

    /// The flags that `checks` raises after an evaluation by `attacks`.
    fn flags(&self, attacks: &[&dyn Search], transferred: bool, checks: Checks) -> Vec<Flag> {
        let data = test_data();
        let params = Params::of(self.architecture.as_ref()).unwrap();
        let subject = Subject {
            name: "zoo",
            identity: "zoo",
            architecture: self.architecture.as_ref(),
            params: &params,
            weights: &self.weights,
            data,
            mode: self.mode,
        };
        let store = Store::new(&Device::cpu());
        subject.put(&store).unwrap();
        let examples: Vec<u32> = (0..IMAGES).collect();
        let labels = &data.labels[..IMAGES as usize];
        let mut standing = vec![true; examples.len()];
        for search in attacks {
            let judge =
                Evaluation::compile_search(&store, *search, subject.classifier(), "test", 60).unwrap();
            let verdicts = judge.run(&examples, labels, 1, 0, |_, _| {}).unwrap();
            standing.iter_mut().zip(&verdicts.robust).for_each(|(all, one)| *all &= one);
        }
        let passes = Passes::compile(&store, subject.classifier(), 32).unwrap();
        let classes = data.classes;
        let suspect = Suspect {
            subject,
            store: &store,
            passes: &passes,
            threat: threat(),
            examples: examples.clone(),
            standing,
            black_box: vec![by_name("square-500", &threat(), classes).unwrap().attacks.remove(0).search],
            stronger: vec![
                (Box::new(Ascending(Box::new(Pgd::usual(threat(), 100)))), 1),
                (Apgd::new(threat(), Loss::CrossEntropy, classes).boxed(), 1),
            ],
            transferred: transferred
                .then(|| (on_another(&examples), "the network without its defence".into())),
            seed: 0,
        };
        checks(&suspect)
    }
}

type Checks = fn(&Suspect<'_>) -> Vec<Flag>;

fn cheap(suspect: &Suspect<'_>) -> Vec<Flag> {
    honesty::cheap(suspect).unwrap()
}

fn costly(suspect: &Suspect<'_>) -> Vec<Flag> {
    honesty::costly(suspect, |_, _, _| {}).unwrap()
}

fn all(suspect: &Suspect<'_>) -> Vec<Flag> {
    [cheap(suspect), costly(suspect)].concat()
}

/// Adversarial images of the standard network.
fn on_another(examples: &[u32]) -> Vec<f32> {
    let (network, weights) = standard();
    let params = Params::of(network.as_ref()).unwrap();
    let data = test_data();
    let (architecture, weights, params) = (network.as_ref(), &weights, &params);
    let (name, identity, mode) = ("standard", "standard", Mode::Eval);
    let subject = Subject { name, identity, architecture, params, weights, data, mode };
    let store = Store::new(&Device::cpu());
    subject.put(&store).unwrap();
    let pgd = Pgd::usual(threat(), 40);
    let judge = Evaluation::compile(&store, &pgd, subject.classifier(), "test", 60).unwrap();
    judge.images(examples, 0).unwrap().into_iter().flat_map(|image| image.adversarial).collect()
}

fn kinds(flags: &[Flag]) -> Vec<Kind> {
    flags.iter().map(|flag| flag.kind).collect()
}

/// The defence is flagged as `kind`, in words that say what was measured and what to do.
fn is_flagged(flags: &[Flag], kind: Kind) {
    let found = flags.iter().find(|flag| flag.kind == kind);
    let flag = found.unwrap_or_else(|| panic!("not flagged as {kind:?}, but as {:?}", kinds(flags)));
    let text = flag.text();
    assert!(text.starts_with("warning: ") && text.chars().any(|c| c.is_ascii_digit()), "{text}");
    assert!(!flag.advice.is_empty());
    println!("{text}");
}

#[test]
fn defences_that_break_the_gradient_are_flagged() {
    let fgsm = Fgsm { threat: threat() };
    for (defence, kind) in [
        (Defence::Quantised, Kind::ZeroGradient),
        (Defence::Detached, Kind::ZeroGradient),
        (Defence::Saturated, Kind::ZeroGradient),
        (Defence::Steep, Kind::ZeroGradient),
        (Defence::Softmax, Kind::Softmax),
        (Defence::Logarithm, Kind::NotFinite),
        (Defence::Noise, Kind::Randomised),
        (Defence::Shifted, Kind::Randomised),
    ] {
        let case = Case::broken(defence, standard());
        is_flagged(&case.flags(&[&Ascending(&fgsm)], false, cheap), kind);
    }
}

#[test]
fn defences_that_mislead_attacks_are_flagged_by_other_attacks() {
    let pgd = Pgd::usual(threat(), 20);
    let attacks: [&dyn Search; 1] = [&Ascending(&pgd)];
    let case = Case::broken(Defence::InteriorQuantised, standard());
    is_flagged(&case.flags(&attacks, false, costly), Kind::SingleStep);
    let case = Case::broken(Defence::Quantised, standard());
    let flags = case.flags(&attacks, true, costly);
    is_flagged(&flags, Kind::Transfer);
    is_flagged(&flags, Kind::BlackBox);
    let case = Case::broken(Defence::Saturated, standard());
    is_flagged(&case.flags(&attacks, false, costly), Kind::LargeEpsilon);
}

#[test]
fn batch_norm_in_training_mode_is_flagged_and_in_evaluation_mode_it_is_not() {
    let data = test_data();
    let network = || architectures::by_name("preact-resnet18-w2", data.image, data.classes).unwrap();
    let params = Params::of(network().as_ref()).unwrap();
    let names = params.iter().map(|param| param.name.clone());
    let weights: Weights = names.zip(params.initial(0)).collect();
    let case = |mode| Case { architecture: network(), weights: weights.clone(), mode };
    is_flagged(&case(Mode::TrainFrozen).flags(&[], false, cheap), Kind::Neighbours);
    assert_eq!(kinds(&case(Mode::Eval).flags(&[], false, cheap)), []);
}

#[test]
fn an_evaluation_that_has_not_converged_is_flagged() {
    let (architecture, weights) = hardened();
    let case = Case { architecture, weights, mode: Mode::Eval };
    let fgsm = Fgsm { threat: threat() };
    is_flagged(&case.flags(&[&Ascending(&fgsm)], false, costly), Kind::MoreSteps);
}

#[test]
fn healthy_networks_are_not_flagged() {
    let classes = test_data().classes;
    let ce = Apgd::new(threat(), Loss::CrossEntropy, classes);
    let dlr = Apgd::new(threat(), Loss::TargetedDlr, classes);
    for (architecture, weights) in [hardened(), standard()] {
        let case = Case { architecture, weights, mode: Mode::Eval };
        let flags = case.flags(&[&ce, &dlr], true, all);
        assert!(flags.is_empty(), "{:?}", flags.iter().map(Flag::text).collect::<Vec<_>>());
    }
}
