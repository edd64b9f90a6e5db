//! A zoo of broken defences, each of which has to be flagged, and healthy networks, which must not be.

mod defences;

use adamant::attack::{Apgd, Ascending, Evaluation, Loss, Norm, Pgd, Search, ThreatModel, by_name, seed_of};
use adamant::data::{self, Change, Dataset, Examples, Limits};
use adamant::nn::architectures::Mlp;
use adamant::nn::{Architecture, Mode, Params, architectures};
use adamant::philox;
use adamant::report::evaluation::{
    self, Assessment, Attacked, Attempt, Header, Outcome, Outcomes, Part, Passes, Subject, Writer,
};
use adamant::report::honesty::{self, Flag, Kind, Suspect};
use adamant::tape::Purpose;
use adamant::train::checkpoint;
use adamant::train::{Recipe, Silent, Trainer};
use adamant::weights::Weights;
use adamant::{Device, Store};
use defences::{Broken, Defence};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// Examples that are looked at.
const EXAMPLES: u32 = 60;

fn threat() -> ThreatModel {
    threat_of(Norm::Linf, "0.3")
}

fn threat_of(norm: Norm, epsilon: &str) -> ThreatModel {
    ThreatModel { norm, epsilon: epsilon.parse().unwrap() }
}

fn test_data() -> &'static Dataset {
    static DATA: OnceLock<Dataset> = OnceLock::new();
    DATA.get_or_init(|| data::load("mnist").unwrap().test)
}

/// A network and its weights.
type Network = (Box<dyn Architecture>, Weights);

/// Weights of the house's own hardened network.
fn hardened() -> Network {
    let data = test_data();
    let network = architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd/weights.safetensors");
    let weights = checkpoint::load_weights(&file, network.as_ref(), &params).unwrap();
    (network, weights)
}

/// The same network, trained on clean images for an epoch.
fn standard() -> Network {
    static WEIGHTS: OnceLock<Weights> = OnceLock::new();
    let weights =
        WEIGHTS.get_or_init(|| trained(&data::load("mnist").unwrap().train, &on_clean("mnist-fast")).1);
    let data = test_data();
    (architectures::by_name("mnist-fast", data.image, data.classes).unwrap(), weights.clone())
}

/// An epoch of 4 000 clean images.
fn on_clean(model: &str) -> Recipe {
    Recipe {
        model: model.into(),
        method: "standard".into(),
        epochs: 1,
        probe: 0,
        weight_average: 0.0,
        train_images: 4000,
        ..Recipe::default()
    }
}

/// A network that is trained here.
fn trained(data: &Dataset, recipe: &Recipe) -> Network {
    trained_as(|| architectures::by_name(&recipe.model, data.image, data.classes).unwrap(), data, recipe)
}

fn trained_as(network: impl Fn() -> Box<dyn Architecture>, data: &Dataset, recipe: &Recipe) -> Network {
    let mut trainer = Trainer::new(recipe.clone(), network(), data, &Device::cpu()).unwrap();
    trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    (network(), trainer.weights().unwrap())
}

/// An untrained network.
fn untrained(model: &str, data: &Dataset) -> Network {
    let network = architectures::by_name(model, data.image, data.classes).unwrap();
    let params = Params::of(network.as_ref()).unwrap();
    let names = params.iter().map(|param| param.name.clone());
    let weights = names.zip(params.initial(0)).collect();
    (network, weights)
}

/// What is looked at, and how.
struct Case {
    architecture: Box<dyn Architecture>,
    weights: Weights,
    mode: Mode,
    data: Dataset,
    threat: ThreatModel,
    /// Examples that are looked at.
    examples: u32,
}

/// What was evaluated: which examples stand, and the suite of attacks with what became of each under it, where it was one.
struct Evaluated {
    standing: Vec<bool>,
    suite: Option<BySuite>,
}

/// What a suite was, and what it found.
type BySuite = (Header, Outcomes, Vec<Box<dyn Search>>);

impl Case {
    /// On MNIST in evaluation mode, under Linf.
    fn of((architecture, weights): Network) -> Case {
        let (data, threat) = (test_data().clone(), threat());
        Case { architecture, weights, mode: Mode::Eval, data, threat, examples: EXAMPLES }
    }

    fn broken(defence: Defence, (of, weights): Network) -> Case {
        Case::of((Box::new(Broken { of, defence }), weights))
    }

    /// Calls `then` with what is evaluated and where it lies.
    fn with<T>(&self, then: impl FnOnce(Subject<'_>, &Store) -> T) -> T {
        let params = Params::of(self.architecture.as_ref()).unwrap();
        let subject = Subject {
            name: "zoo",
            identity: "zoo",
            architecture: self.architecture.as_ref(),
            params: &params,
            weights: &self.weights,
            data: &self.data,
            mode: self.mode,
        };
        let store = Store::new(&Device::cpu());
        subject.put(&store).unwrap();
        then(subject, &store)
    }

    fn examples(&self) -> Vec<u32> {
        (0..self.examples.min(self.data.len() as u32)).collect()
    }

    /// The attack of this name in the ball.
    fn attack(&self, name: &str) -> Box<dyn Search> {
        by_name(name, &self.threat, self.data.classes).unwrap().attacks.remove(0).search
    }

    /// An evaluation by attacks of these names, each on all examples.
    fn by(&self, names: &[&str]) -> Evaluated {
        let examples = self.examples();
        let labels = &self.data.labels[..examples.len()];
        let mut standing = vec![true; examples.len()];
        for name in names {
            let verdicts = self.with(|subject, store| {
                let (search, on) = (self.attack(name), subject.classifier());
                let judge = Evaluation::compile_search(store, search.as_ref(), on, "test", 60).unwrap();
                judge.run(&examples, labels, 1, 0, |_, _| {}).unwrap()
            });
            standing.iter_mut().zip(&verdicts.robust).for_each(|(all, one)| *all &= one);
        }
        Evaluated { standing, suite: None }
    }

    /// An evaluation as `evaluate` makes it by a suite of these attacks, each on what those before it left.
    fn by_suite(&self, names: &[&str]) -> Evaluated {
        let folder = tempfile::tempdir().unwrap();
        let attempt = |(place, name): (usize, &&str)| Attempt {
            search: self.attack(name),
            restarts: 1,
            suite: Some("suite".into()),
            goes_on: place > 0,
            place,
            part: Part::Attack,
            transferred: false,
        };
        self.with(|subject, store| {
            let attempts = names.iter().enumerate().map(attempt).collect();
            let assessment =
                Assessment { subject, other: None, attempts, examples: self.examples(), seed: 0, batch: 60 };
            let header = assessment.header().unwrap();
            let mut writer = Writer::create(&folder.path().join("log"), &header).unwrap();
            let units = assessment.run(store, &mut writer, Vec::new(), &mut evaluation::Silent).unwrap();
            let outcomes = Outcomes::of(&header, &units);
            let searches = assessment.attempts.into_iter().map(|attempt| attempt.search).collect();
            Evaluated { standing: outcomes.worst.standing.clone(), suite: Some((header, outcomes, searches)) }
        })
    }

    /// What an evaluation that left these examples found, and images that were made on the standard network.
    fn transferred(&self, standing: &[bool]) -> (Header, Outcomes) {
        let folder = tempfile::tempdir().unwrap();
        let other = Case { threat: self.threat.clone(), ..Case::of(standard()) };
        other.with(|other, _| {
            self.with(|subject, store| {
                let assessment = Assessment {
                    subject,
                    other: Some(other),
                    attempts: vec![Attempt::by_transfer(&self.threat)],
                    examples: self.examples(),
                    seed: 0,
                    batch: 60,
                };
                let mut header = assessment.header().unwrap();
                let mut writer = Writer::create(&folder.path().join("log"), &header).unwrap();
                let units = assessment.run(store, &mut writer, Vec::new(), &mut evaluation::Silent).unwrap();
                let mut outcomes = Outcomes::of(&header, &units);
                assert_eq!(outcomes.attacks[1].outside, 0);
                // The attacks on the network itself, as one.
                let own = Outcome { standing: standing.to_vec(), ..outcomes.attacks[0].clone() };
                header.attacks.push(Attacked { from: None, ..header.attacks[1].clone() });
                outcomes.attacks.push(own);
                (header, outcomes)
            })
        })
    }

    /// The flags that `checks` raises after an evaluation, and its own.
    fn flags(&self, evaluated: Evaluated, transferred: bool, checks: Checks) -> Vec<Flag> {
        let Evaluated { standing, suite } = evaluated;
        let transferred = transferred.then(|| self.transferred(&standing));
        self.with(|subject, store| {
            let passes = Passes::compile(store, subject.classifier(), 32).unwrap();
            // Square is made for two norms.
            let black_box = if self.threat.norm == Norm::L1 { "noise-20" } else { "square-500" };
            let examples = self.examples();
            let suspect = Suspect {
                subject,
                store,
                passes: &passes,
                threat: self.threat.clone(),
                examples: examples.clone(),
                standing,
                black_box: vec![self.attack(black_box)],
                stronger: vec![
                    (Box::new(Ascending(Box::new(Pgd::usual(self.threat.clone(), 100)))), 1),
                    (Apgd::new(self.threat.clone(), Loss::CrossEntropy, self.data.classes).boxed(), 1),
                ],
                seed: seed_of(0, 99),
            };
            let (mut flags, kind) = (Vec::new(), self.data.kind());
            if let Some((header, outcomes, searches)) = &suite {
                let searches = searches.iter().map(|search| search.as_ref());
                flags.extend(honesty::counted(header, outcomes, searches, kind, Some(&suspect)).unwrap());
            }
            if let Some((header, outcomes)) = &transferred {
                flags.extend(honesty::transferred(header, outcomes, kind, Some(&suspect)).unwrap());
            }
            flags.extend(checks(&suspect));
            flags
        })
    }
}

type Checks = fn(&Suspect<'_>) -> Vec<Flag>;

fn cheap(suspect: &Suspect<'_>) -> Vec<Flag> {
    honesty::cheap(suspect).unwrap()
}

fn costly(suspect: &Suspect<'_>) -> Vec<Flag> {
    honesty::costly(suspect, |_, _, _| {}).unwrap()
}

fn nothing(_: &Suspect<'_>) -> Vec<Flag> {
    Vec::new()
}

fn all(suspect: &Suspect<'_>) -> Vec<Flag> {
    [cheap(suspect), costly(suspect)].concat()
}

fn kinds(flags: &[Flag]) -> Vec<Kind> {
    flags.iter().map(|flag| flag.kind).collect()
}

/// The defence is flagged as `kind`, in words that say what was measured and what to do.
fn is_flagged(flags: &[Flag], kind: Kind) {
    let found = flags.iter().find(|flag| flag.kind == kind);
    let flag = found.unwrap_or_else(|| panic!("not flagged as {kind:?}, but as {:?}", kinds(flags)));
    let text = flag.text();
    let begins = if kind.is_warning() { "warning: " } else { "note: " };
    assert!(text.starts_with(begins) && text.chars().any(|c| c.is_ascii_digit()), "{text}");
    assert!(!flag.advice.is_empty());
    println!("{text}");
}

fn is_healthy(flags: &[Flag], what: &str) {
    assert!(flags.is_empty(), "{what}: {:?}", flags.iter().map(Flag::text).collect::<Vec<_>>());
}

#[test]
fn defences_that_break_the_gradient_are_flagged() {
    for (defence, kind) in [
        (Defence::Quantised, Kind::ZeroGradient),
        (Defence::Detached, Kind::ZeroGradient),
        (Defence::Saturated, Kind::ZeroGradient),
        (Defence::Steep, Kind::ZeroGradient),
        (Defence::Softmax, Kind::Softmax),
        (Defence::Logarithm, Kind::NotFinite),
        (Defence::Noise, Kind::Randomised),
        (Defence::Shifted, Kind::Randomised),
        (Defence::AnothersGradient, Kind::WrongGradient),
    ] {
        let case = Case::broken(defence, standard());
        is_flagged(&case.flags(case.by(&[]), false, cheap), kind);
    }
}

#[test]
fn a_gradient_of_another_function_alone_is_flagged_as_no_other_fault() {
    let case = Case::broken(Defence::AnothersGradient, standard());
    assert_eq!(kinds(&case.flags(case.by(&[]), false, cheap)), [Kind::WrongGradient]);
}

#[test]
fn defences_that_mislead_attacks_are_flagged_by_other_attacks() {
    let case = Case::broken(Defence::InteriorQuantised, standard());
    is_flagged(&case.flags(case.by(&["pgd-20"]), false, costly), Kind::SingleStep);
    let case = Case::broken(Defence::Quantised, standard());
    let flags = case.flags(case.by(&["pgd-20"]), true, costly);
    is_flagged(&flags, Kind::Transfer);
    is_flagged(&flags, Kind::BlackBox);
    let case = Case::broken(Defence::Saturated, standard());
    is_flagged(&case.flags(case.by(&["pgd-20"]), false, costly), Kind::LargeEpsilon);
}

#[test]
fn what_a_suite_with_square_finds_by_square_alone_is_flagged() {
    let suite = ["apgd-ce", "apgd-t", "fab-t-20", "square-500"];
    let case = Case::broken(Defence::Quantised, standard());
    is_flagged(&case.flags(case.by_suite(&suite), false, nothing), Kind::BlackBox);
    // Of a healthy network Square finds little or nothing more, and no check finds anything after it.
    let case = Case::of(hardened());
    let evaluated = case.by_suite(&suite);
    assert!(evaluated.standing.iter().filter(|&&stands| stands).count() > EXAMPLES as usize / 2);
    let flags = case.flags(evaluated, true, all);
    is_healthy(&flags.into_iter().filter(|flag| flag.kind.is_warning()).collect::<Vec<_>>(), "hardened");
}

#[test]
fn batch_norm_in_training_mode_is_flagged_and_in_evaluation_mode_it_is_not() {
    let case = |mode| Case { mode, ..Case::of(untrained("preact-resnet18-w2", test_data())) };
    let cheap_of = |case: Case| case.flags(case.by(&[]), false, cheap);
    is_flagged(&cheap_of(case(Mode::TrainFrozen)), Kind::Neighbours);
    assert_eq!(kinds(&cheap_of(case(Mode::Eval))), []);
}

#[test]
fn verdicts_that_depend_on_the_batch_are_flagged() {
    let case = Case::broken(Defence::BatchMean, hardened());
    is_flagged(&case.flags(case.by(&["pgd-20"]), false, costly), Kind::BatchSize);
}

#[test]
fn few_classes_are_told_of_and_no_fault() {
    for classes in [2, 3, 4, 9] {
        let all = test_data();
        let chosen: Vec<u32> =
            (0..all.len() as u32).filter(|&i| all.labels[i as usize] < classes).take(20).collect();
        let part = all.subset(&chosen).unwrap();
        let class_names = part.class_names[..classes as usize].to_vec();
        let data = Dataset { classes: classes as usize, class_names, ..part };
        let case = Case { data: data.clone(), ..Case::of(untrained("mlp-16", &data)) };
        let flags = case.flags(case.by(&[]), false, cheap);
        is_flagged(&flags, Kind::FewClasses);
        assert_eq!(flags.len(), 1, "{:?}", kinds(&flags));
    }
}

#[test]
fn an_evaluation_that_has_not_converged_is_flagged() {
    let case = Case::of(hardened());
    let flags = case.flags(case.by(&["fgsm"]), false, costly);
    is_flagged(&flags, Kind::MoreSteps);
    // That one step was not enough says nothing of gradients, though Square finds more than it.
    assert!(!kinds(&flags).contains(&Kind::BlackBox), "{:?}", kinds(&flags));
}

#[test]
fn attacks_by_gradients_that_were_but_weak_are_no_sign_of_masked_gradients() {
    // Square, and images of another network, find what a small step of one gradient does not; PGD finds it too.
    let case = Case::of(standard());
    let evaluated = case.by_suite(&["tpgd-1:step=0.001", "square-300"]);
    let Some((header, outcomes, searches)) = &evaluated.suite else { unreachable!() };
    let alone = honesty::counted(header, outcomes, searches.iter().map(|s| s.as_ref()), "images", None);
    assert_eq!(alone.unwrap().unwrap().kind, Kind::BlackBox);
    assert_eq!(kinds(&case.flags(evaluated, false, nothing)), []);
    let case = Case::of(hardened());
    let evaluated = case.by(&["noise-1"]);
    let (header, outcomes) = case.transferred(&evaluated.standing);
    let alone = honesty::transferred(&header, &outcomes, "images", None);
    assert_eq!(alone.unwrap().unwrap().kind, Kind::Transfer);
    assert_eq!(kinds(&case.flags(evaluated, true, nothing)), []);
}

#[test]
fn healthy_networks_are_not_flagged() {
    for (network, what) in [(hardened(), "hardened"), (standard(), "standard")] {
        let case = Case::of(network);
        is_healthy(&case.flags(case.by(&["apgd-ce", "apgd-t"]), true, all), what);
    }
}

#[test]
fn a_linear_classifier_is_not_flagged() {
    // One step finds all there is to be found: many steps have to be long enough to come there too, wherever they start.
    // No pixel is black or white, where half of the starts are clipped to the image.
    let grey = |data: &Dataset| {
        let Examples::Images(pixels) = &data.examples else { unreachable!() };
        let pixels = pixels.iter().map(|pixel| 64 + pixel / 2).collect();
        let (labels, names) = (data.labels.clone(), data.class_names.clone());
        Dataset::new("grey", "here", data.image, pixels, labels, names).unwrap()
    };
    let linear = || -> Box<dyn Architecture> { Box::new(Mlp::new(test_data().image, &[], 10)) };
    let network = trained_as(linear, &grey(&data::load("mnist").unwrap().train), &on_clean("mlp"));
    let case = Case {
        threat: threat_of(Norm::Linf, "0.02"),
        data: grey(test_data()),
        examples: 600,
        ..Case::of(network)
    };
    is_healthy(&case.flags(stands_in_part(&case), false, all), "linear");
}

#[test]
fn healthy_networks_are_not_flagged_under_other_norms() {
    for (norm, epsilon) in [(Norm::L2, "1"), (Norm::L1, "4")] {
        let case = Case { threat: threat_of(norm, epsilon), ..Case::of(standard()) };
        is_healthy(&case.flags(stands_in_part(&case), true, all), &norm.to_string());
    }
}

#[test]
fn a_healthy_residual_network_is_not_flagged() {
    let recipe = Recipe { batch: 50, learning_rate: 0.01, ..on_clean("preact-resnet18-w4") };
    let (_, weights) = trained(&data::load("mnist").unwrap().train, &recipe);
    for (norm, epsilon) in [(Norm::Linf, "0.06"), (Norm::L2, "0.6")] {
        let network = architectures::by_name(&recipe.model, test_data().image, 10).unwrap();
        let case =
            Case { threat: threat_of(norm, epsilon), examples: 20, ..Case::of((network, weights.clone())) };
        is_healthy(&case.flags(stands_in_part(&case), true, all), &norm.to_string());
    }
}

/// An evaluation by APGD that leaves some of the examples, and not all.
fn stands_in_part(case: &Case) -> Evaluated {
    let evaluated = case.by(&["apgd-ce", "apgd-t"]);
    let stand = evaluated.standing.iter().filter(|&&stands| stands).count();
    println!("{} {}: {stand} of {} stand", case.threat.norm, case.threat.epsilon, case.examples);
    let few = case.examples as usize / 10;
    assert!((few..case.examples as usize - few).contains(&stand), "{}: {stand} stand", case.threat.norm);
    evaluated
}

/// Vectors of six features of three classes; `fixed` of them may not be changed, and each says something of the class.
fn features(fixed: usize) -> Dataset {
    const FEATURES: usize = 6;
    let uniform =
        |stream: u32, i: usize| philox::uniform([5, 5], Purpose::TEST, [0, 0], stream, i as u32) as f32;
    let labels: Vec<u32> = (0..600).map(|row| (uniform(1, row) * 3.0) as u32).collect();
    // Twice as wide from feature to feature.
    let most: Vec<f32> = (0..FEATURES).map(|f| (1 << f) as f32).collect();
    let values = (0..600 * FEATURES)
        .map(|i| most[i % FEATURES] * (0.3 * labels[i / FEATURES] as f32 + 0.4 * uniform(2, i)))
        .collect();
    let changes = (0..FEATURES).map(|f| match f {
        f if f < fixed => Change::Fixed,
        f if f % 2 == 0 => Change::Up,
        _ => Change::Free,
    });
    let limits = Limits {
        names: (0..FEATURES).map(|f| format!("feature {f}")).collect(),
        least: vec![0.0; FEATURES],
        most,
        changes: changes.collect(),
    };
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Dataset::of_features("table", "made here", values, limits, labels, classes).unwrap()
}

#[test]
fn of_features_a_large_epsilon_is_tried_where_chance_means_something() {
    let recipe = Recipe {
        epsilon: "0.1".into(),
        epochs: 20,
        batch: 32,
        learning_rate: 0.02,
        train_images: 0,
        validation: 60,
        ..on_clean("mlp-32")
    };
    for fixed in [0, 2] {
        let data = features(fixed);
        let case = |network: Network| Case {
            data: data.clone(),
            threat: threat_of(Norm::L2, "0.1"),
            ..Case::of(network)
        };
        let of = |case: Case| case.flags(case.by(&["apgd-ce", "apgd-t"]), false, all);
        let network = || trained(&data, &recipe);
        let healthy = of(case(network()));
        let (of, weights) = network();
        let broken = case((Box::new(Broken { of, defence: Defence::Saturated }), weights));
        let broken = broken.flags(broken.by(&["pgd-20"]), false, costly);
        match fixed {
            0 => {
                assert_eq!(kinds(&healthy), [Kind::FewClasses]);
                is_flagged(&broken, Kind::LargeEpsilon);
            }
            _ => {
                // What may not be changed tells every vector from the others.
                assert_eq!(kinds(&healthy), [Kind::FewClasses, Kind::LargeEpsilonUntried]);
                is_flagged(&healthy, Kind::LargeEpsilonUntried);
                is_flagged(&broken, Kind::LargeEpsilonUntried);
            }
        }
    }
}
