//! APGD and suites of attacks: on a hardened network of the house, the laws of an attack, and what a suite keeps.

use adamant::attack::{
    Apgd, AutoAttack, Classifier, Entry, Evaluation, Inputs, Loss, Norm, Pgd, Search, Standing, Subject,
    Suite, SuiteObserver, ThreatModel, Verdicts, Witness, predictions,
};
use adamant::data::Dataset;
use adamant::nn::architectures;
use adamant::nn::{Architecture, Mode, Net, Params, Var};
use adamant::plan::Precision;
use adamant::train::{checkpoint, examples};
use adamant::{Device, Error, Result, Store, data};
use std::path::Path;

const IMAGES: usize = 100;

/// The hardened network of the house and test images of its sample.
struct Network {
    store: Store,
    architecture: Box<dyn Architecture>,
    data: Dataset,
    examples: Vec<u32>,
}

impl Network {
    fn new(device: &Device) -> Network {
        let data = data::load("mnist").unwrap().test;
        let architecture = architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
        let params = Params::of(architecture.as_ref()).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd/weights.safetensors");
        let weights = checkpoint::load_weights(&file, architecture.as_ref(), &params).unwrap();
        let store = Store::new(device);
        checkpoint::put_weights(&store, &params, &weights).unwrap();
        examples::put(&store, "test", &data).unwrap();
        Network { store, architecture, data, examples: (0..IMAGES as u32).collect() }
    }

    fn on(&self) -> Classifier<'_> {
        Classifier {
            architecture: self.architecture.as_ref(),
            mode: Mode::Eval,
            examples: self.data.len(),
            inputs: Inputs::Images,
            precision: Precision::F32,
        }
    }

    fn subject(&self, batch: usize) -> Subject<'_> {
        Subject {
            store: &self.store,
            on: self.on(),
            data: "test",
            batch,
            examples: &self.examples,
            labels: &self.data.labels[..IMAGES],
        }
    }

    fn verdicts(&self, search: &dyn Search, batch: usize) -> Verdicts {
        let judge = Evaluation::compile_search(&self.store, search, self.on(), "test", batch).unwrap();
        judge.run(&self.examples, &self.data.labels[..IMAGES], 1, 3, |_, _| {}).unwrap()
    }
}

fn threat(norm: Norm, epsilon: &str) -> ThreatModel {
    ThreatModel { norm, epsilon: epsilon.parse().unwrap() }
}

fn threats() -> [ThreatModel; 3] {
    [threat(Norm::Linf, "0.3"), threat(Norm::L2, "2"), threat(Norm::L1, "12")]
}

const LOSSES: [Loss; 3] = [Loss::CrossEntropy, Loss::Dlr, Loss::TargetedDlr];

fn few(threat: &ThreatModel, loss: Loss, steps: usize) -> Apgd {
    let attack = Apgd::new(threat.clone(), loss, 10);
    Apgd { steps, targets: 3, looks: steps.div_ceil(4), ..attack }
}

#[test]
fn it_breaks_what_pgd_breaks_and_stays_inside() {
    let network = Network::new(&Device::cpu());
    for threat in threats() {
        let step = (threat.epsilon.value() / 10.0).into();
        let pgd = Pgd { threat: threat.clone(), steps: 20, step_size: step, random_start: true };
        let pgd = Suite::of_attack(pgd, 1).run(network.subject(50), 3, Standing::default(), &mut ());
        let pgd = pgd.unwrap().robust[0];
        for loss in LOSSES {
            let attack = few(&threat, loss, 30).boxed();
            let verdicts = network.verdicts(attack.as_ref(), 50);
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
        let network = Network::new(device);
        let attack = few(threat, loss, steps).boxed();
        let all = network.verdicts(attack.as_ref(), IMAGES);
        assert!(all.robust_count() < all.clean_count(), "{} breaks nothing", attack.line());
        let small = network.verdicts(attack.as_ref(), batch);
        assert_eq!(small, all, "{}, {}", attack.line(), device.describe());
    }
}

/// Notes what it is told, and stops after so many words of where the run stands.
#[derive(Default)]
struct Notes {
    begun: Vec<(usize, usize)>,
    progress: Vec<(usize, usize, usize)>,
    broken: Vec<(usize, usize)>,
    stood: Vec<Standing>,
    stop_after: Option<usize>,
}

impl SuiteObserver for Notes {
    fn begins(&mut self, attack: usize, standing: usize) {
        self.begun.push((attack, standing));
    }

    fn progress(&mut self, attack: usize, done: usize, all: usize) {
        assert!(done <= all);
        self.progress.push((attack, done, all));
    }

    fn broken(&mut self, attack: usize, witness: Witness<'_>) -> Result<()> {
        self.broken.push((witness.at, attack));
        Ok(())
    }

    fn stands(&mut self, standing: &Standing) -> Result<()> {
        self.stood.push(standing.clone());
        match self.stop_after {
            Some(words) if self.stood.len() == words => Err(Error::Unsupported("stopped".into())),
            _ => Ok(()),
        }
    }
}

fn suite() -> Suite {
    let linf = &threats()[0];
    let attacks =
        [(Loss::CrossEntropy, 2), (Loss::TargetedDlr, 1), (Loss::Dlr, 1)].map(|(loss, restarts)| {
            let steps = if loss == Loss::CrossEntropy { 1 } else { 10 };
            Entry::new(few(linf, loss, steps).boxed(), restarts)
        });
    Suite { name: "three".into(), attacks: attacks.into() }
}

#[test]
fn each_attack_of_a_suite_goes_on_what_stands_and_each_example_is_broken_once() {
    let network = Network::new(&Device::cpu());
    let mut notes = Notes::default();
    let end = suite().run(network.subject(40), 3, Standing::default(), &mut notes).unwrap();
    let clean = end.verdicts.clean_count();
    assert_eq!(notes.begun, [(0, clean), (1, end.robust[0]), (2, end.robust[1])]);
    assert!(end.robust[0] < clean && end.robust[1] < end.robust[0], "{clean}, {:?}", end.robust);
    assert!(end.robust[2] <= end.robust[1]);
    assert_eq!(end.robust[2], end.verdicts.robust_count());
    // One witness an example, of the attack that is said to have broken it; a clean mistake is nobody's.
    let mut told = notes.broken.clone();
    told.sort_unstable();
    assert_eq!(told.len(), IMAGES - end.robust[2]);
    for (at, attack) in told {
        assert!(!end.verdicts.robust[at]);
        assert_eq!(end.broken_by[at], end.verdicts.correct[at].then_some(attack));
    }
    let (clean_and_runs, last) = (1 + 2 + 3 + 1, notes.stood.last());
    assert_eq!((notes.stood.len(), last), (clean_and_runs, Some(&end)));
    assert!(notes.progress.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", notes.progress);
}

#[test]
fn a_suite_that_was_stopped_goes_on_as_if_it_had_not_been() {
    let network = Network::new(&Device::cpu());
    let mut whole = Notes::default();
    let end = suite().run(network.subject(40), 3, Standing::default(), &mut whole).unwrap();
    for words in 1..whole.stood.len() {
        let mut first = Notes { stop_after: Some(words), ..Notes::default() };
        suite().run(network.subject(40), 3, Standing::default(), &mut first).unwrap_err();
        let kept = first.stood.pop().unwrap();
        let mut second = Notes::default();
        let resumed = suite().run(network.subject(40), 3, kept, &mut second).unwrap();
        assert_eq!(resumed, end, "stopped after {words}");
        let told: Vec<_> = first.broken.iter().chain(&second.broken).copied().collect();
        assert_eq!(told, whole.broken, "stopped after {words}");
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
    assert!(line(Loss::TargetedDlr, 2).contains("2 classes, 1 targets"));
    assert!(line(Loss::Dlr, 2).contains("2 classes"));
    assert_eq!(line(Loss::CrossEntropy, 2), "APGD-CE, Linf 0.3, 100 steps");
}

/// A network that drops pixels at random, with Mode::TrainFrozen also when it is judged.
struct Dropping(Box<dyn Architecture>);

impl Architecture for Dropping {
    fn name(&self) -> String {
        "dropping".into()
    }

    fn input(&self) -> [usize; 3] {
        self.0.input()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        self.0.forward(net, net.dropout(x, 0.2))
    }
}

#[test]
fn networks_that_draw_random_numbers_are_attacked_by_the_mean_of_several_passes() {
    let mut network = Network::new(&Device::cpu());
    network.architecture = Box::new(Dropping(network.architecture));
    let on = Classifier { mode: Mode::TrainFrozen, ..network.on() };
    // With a small radius the attack has to go where most passes agree.
    let attack = |passes| Apgd { passes, ..few(&threat(Norm::L2, "1"), Loss::CrossEntropy, 8) };
    let verdicts = |attack: &dyn Search, batch| {
        let judge = Evaluation::compile_search(&network.store, attack, on, "test", batch).unwrap();
        judge.run(&network.examples, &network.data.labels[..IMAGES], 1, 3, |_, _| {}).unwrap()
    };
    let one = verdicts(&attack(1), IMAGES);
    let several = verdicts(&attack(6), IMAGES);
    assert_eq!(one.clean, several.clean);
    // Passes that drew the same numbers would be one.
    assert_ne!(one, several);
    assert_eq!(verdicts(&attack(6), 7), several, "random numbers are an example's own, whatever its batch");
    assert!(attack(6).line().contains("gradients of 6 passes"));
}

#[test]
fn images_found_on_one_network_are_judged_by_another() {
    let network = Network::new(&Device::cpu());
    let attack = Pgd {
        threat: threat(Norm::Linf, "0.3"),
        steps: 10,
        step_size: "0.06".parse().unwrap(),
        random_start: true,
    };
    let judge = Evaluation::compile(&network.store, &attack, network.on(), "test", 32).unwrap();
    let found = judge.images(&network.examples[..50], 1).unwrap();
    let all: Vec<f32> = found.iter().flat_map(|image| image.adversarial.clone()).collect();
    let want: Vec<u32> = found.iter().map(|image| image.adversarial_prediction.0).collect();
    for batch in [50, 7, 1000] {
        assert_eq!(predictions(&network.store, network.on(), &all, batch).unwrap(), want);
    }
    // Another network on the same images: the same architecture without weights of its own.
    let other = Store::new(&Device::cpu());
    let params = Params::of(network.architecture.as_ref()).unwrap();
    for (param, values) in params.iter().zip(params.initial(5)) {
        other.put(&param.name, param.shape, &adamant::Host::F32(values)).unwrap();
    }
    assert_ne!(predictions(&other, network.on(), &all, 50).unwrap(), want);
    let error = predictions(&other, network.on(), &all[1..], 50).unwrap_err().to_string();
    assert!(error.contains("784"), "{error}");
}
