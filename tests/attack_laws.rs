//! What attacks and the training on them must do whatever the network: exactly where it is exact, on the CPU executor
//! in f32 and on a GPU adapter (a software one will do).

use adamant::attack::{
    Attack, Ball, Classifier, Evaluation, Fgsm, FgsmRs, Inputs, Names, Norm, Pgd, RecordedAttack,
    ThreatModel, Verdicts,
};
use adamant::data::Dataset;
use adamant::nn::architectures::{self, Mlp};
use adamant::nn::{Architecture, Mode, Net, Params};
use adamant::philox;
use adamant::plan::{Precision, Schedule};
use adamant::tape::{Augment, Draw, Purpose};
use adamant::train::{Outcome, Recipe, Silent, Trainer, Weights, examples};
use adamant::{DType, Device, Host, Plan, Program, Shape, Store, Tape};
use proptest::prelude::*;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// The CPU executor and the first GPU adapter.
fn devices() -> [Device; 2] {
    static GPU: OnceLock<Device> = OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        let adapters = Device::adapters();
        let adapter = adapters.first().expect(
            "there is no GPU adapter to test with. A software one will do: on Debian and Ubuntu install \
             mesa-vulkan-drivers, on Fedora mesa-vulkan-drivers, on Arch vulkan-swrast",
        );
        Device::gpu(adapter).unwrap()
    });
    [Device::cpu(), gpu.clone()]
}

fn uniform(stream: u32, len: usize) -> impl Iterator<Item = f64> {
    (0..len as u32).map(move |i| philox::uniform([2, 3], Purpose::TEST, [0, 0], stream, i))
}

const IMAGES: usize = 60;

/// Blurred noise in four classes, bytes; black and white pixels occur.
fn dataset(image: [usize; 3]) -> Dataset {
    let elements = image.iter().product::<usize>();
    let noise: Vec<f64> = uniform(0, IMAGES * elements).collect();
    let near = |i: usize| noise[i] + noise[(i + 1) % noise.len()] + noise[(i + image[1]) % noise.len()];
    let images = (0..noise.len()).map(|i| (255.0 * (near(i) - 1.0)).clamp(0.0, 255.0) as u8).collect();
    let labels = (0..IMAGES as u32).map(|i| i * 7 % 4).collect();
    let classes = (0..4).map(|class| class.to_string()).collect();
    Dataset::new("noise", "made here", image, images, labels, classes).unwrap()
}

fn threat(norm: Norm, epsilon: &str) -> ThreatModel {
    ThreatModel { norm, epsilon: epsilon.parse().unwrap() }
}

fn pgd(norm: Norm, epsilon: &str, steps: usize, step_size: &str, random_start: bool) -> Pgd {
    Pgd { threat: threat(norm, epsilon), steps, step_size: step_size.parse().unwrap(), random_start }
}

/// An attack compiled as training does it; with `freeze` as evaluation does.
fn compiled(
    store: &Store,
    attack: &dyn Attack,
    on: Classifier<'_>,
    names: &Names,
    batch: usize,
    freeze: bool,
) -> RecordedAttack {
    let load =
        RecordedAttack::record_load(attack, on, names, batch, Purpose::ATTACK_START, Augment::default());
    let load = Schedule::new(&load, true).unwrap();
    let step = RecordedAttack::schedule_step(attack, on, names, batch, freeze).unwrap();
    RecordedAttack::of(load, step, attack.steps(), store).unwrap()
}

/// A network with its initial weights (but for one bias), and images labelled with what it says of them: every one is
/// right, and not by much.
struct Subject {
    architecture: Box<dyn Architecture>,
    store: Store,
    labels: Vec<u32>,
    precision: Precision,
}

impl Subject {
    fn new(device: &Device, model: &str, input: [usize; 3]) -> Subject {
        Subject::in_precision(device, model, input, Precision::F32)
    }

    /// Whose gradients are computed in a precision.
    fn in_precision(device: &Device, model: &str, input: [usize; 3], precision: Precision) -> Subject {
        let architecture = architectures::by_name(model, input, 4).unwrap();
        let store = Store::new(device);
        let params = Params::of(architecture.as_ref()).unwrap();
        for (param, values) in params.iter().zip(params.initial(1)) {
            store.put(&param.name, param.shape, &Host::F32(values)).unwrap();
        }
        let data = dataset(input);
        examples::put(&store, "data", &data).unwrap();
        let mut subject = Subject { architecture, store, labels: vec![0; IMAGES], precision };
        // The bias of the last layer takes the mean of the logits away, so that every class is predicted.
        let logits = subject.logits(&(0..IMAGES as u32).collect::<Vec<_>>());
        let mean = |class: usize| logits.iter().skip(class).step_by(4).sum::<f32>() / IMAGES as f32;
        let last = &params.iter().last().unwrap().name;
        let bias = subject.store.read_f32(last).unwrap();
        let centred: Vec<f32> = (0..4).map(|class| bias[class] - mean(class)).collect();
        subject.store.write_f32(last, &centred).unwrap();
        let untouched = pgd(Norm::Linf, "0", 1, "0", false);
        subject.labels = subject.verdicts(&untouched, IMAGES, 1).clean;
        subject.store.write_u32("data.labels", &subject.labels).unwrap();
        subject
    }

    fn classifier(&self) -> Classifier<'_> {
        Classifier {
            architecture: self.architecture.as_ref(),
            mode: Mode::Eval,
            examples: IMAGES,
            inputs: Inputs::Images,
            precision: self.precision,
        }
    }

    fn verdicts(&self, attack: &dyn Attack, batch: usize, restarts: u32) -> Verdicts {
        let evaluation = Evaluation::compile(&self.store, attack, self.classifier(), "data", batch).unwrap();
        let examples: Vec<u32> = (0..IMAGES as u32).collect();
        evaluation.run(&examples, &self.labels, restarts, 9, |_, _| {}).unwrap()
    }

    /// Clean and adversarial images of these examples after a run of the attack as training runs it.
    fn attacked(&self, attack: &dyn Attack, examples: &[u32]) -> [Vec<f32>; 2] {
        self.run(attack, examples, false)
    }

    /// As [`Subject::attacked`]; with `freeze` as evaluation runs it.
    fn run(&self, attack: &dyn Attack, examples: &[u32], freeze: bool) -> [Vec<f32>; 2] {
        let (names, batch) = (Names::new("attacked", "data"), examples.len());
        let on = self.classifier();
        let recorded = compiled(&self.store, attack, on, &names, batch, freeze);
        let threat = attack.threat();
        let radius = threat.projection_radius(threat.epsilon.value(), on.images(1).len());
        for (name, value) in [("radius", radius), ("step", attack.step_size())] {
            self.store.write_f64(&names.of(name), &[value]).unwrap();
        }
        for (name, values) in [("example", examples), ("key", &[4, 5]), ("counter", &[1, 2])] {
            // An attack without a random start knows neither seed nor counter.
            if self.store.get(&names.of(name)).is_some() {
                self.store.write_u32(&names.of(name), values).unwrap();
            }
        }
        Program::new(recorded.program()).run().unwrap();
        ["x", "adversarial"].map(|name| self.store.read_f32(&names.of(name)).unwrap())
    }

    /// Which of these images, one for each example, are misclassified.
    fn wrong(&self, images: &[f32]) -> Vec<usize> {
        let tape = Tape::new();
        let x = tape.source("images", self.classifier().images(IMAGES), DType::F32);
        let logits = self.architecture.forward(&Net::new(&tape, Mode::Eval), x);
        tape.assign("correct", logits.correct(tape.source("data.labels", [IMAGES], DType::U32)));
        let plan = Plan::compile(&tape, &self.store).unwrap();
        self.store.write_f32("images", images).unwrap();
        plan.run().unwrap();
        let correct = self.store.read_f32("correct").unwrap();
        (0..IMAGES).filter(|&i| correct[i] == 0.0).collect()
    }

    /// Logits of these examples, `[B, 4]`.
    fn logits(&self, examples: &[u32]) -> Vec<f32> {
        let tape = Tape::new();
        let [name, logits] = ["examples", "logits"].map(|what| format!("{what} {}", examples.len()));
        let table = tape.source("data.images", self.classifier().images(IMAGES), DType::U8);
        let x = table.gather_rows(tape.source(&name, [examples.len()], DType::U32));
        tape.assign(&logits, self.architecture.forward(&Net::new(&tape, Mode::Eval), x));
        let plan = Plan::compile(&tape, &self.store).unwrap();
        self.store.write_u32(&name, examples).unwrap();
        plan.run().unwrap();
        self.store.read_f32(&logits).unwrap()
    }
}

const CNN: (&str, [usize; 3]) = ("mnist-fast", [12, 12, 1]);
const RESNET: (&str, [usize; 3]) = ("preact-resnet18-w4", [8, 8, 3]);

const MLP: (&str, [usize; 3]) = ("mlp-30", [28, 28, 1]);

/// Length of a perturbation, exact but for the rounding of f64.
fn distance(norm: Norm, x: &[f32], moved: &[f32]) -> f64 {
    let each = x.iter().zip(moved).map(|(&a, &b)| (f64::from(b) - f64::from(a)).abs());
    match norm {
        Norm::Linf => each.fold(0.0, f64::max),
        Norm::L2 => each.map(|d| d * d).sum::<f64>().sqrt(),
        Norm::L1 => each.sum(),
    }
}

#[track_caller]
fn assert_allowed(threat: &ThreatModel, elements: usize, x: &[f32], moved: &[f32], what: &str) {
    for (x, moved) in x.chunks(elements).zip(moved.chunks(elements)) {
        let distance = distance(threat.norm, x, moved);
        assert!(distance <= threat.epsilon.value(), "{what}: {threat}: moved by {distance}");
        assert!(moved.iter().all(|pixel| (0.0..=1.0).contains(pixel)), "{what}: {threat}: left the box");
    }
}

#[test]
fn pgd_with_one_step_of_epsilon_from_the_image_is_fgsm() {
    for (device, (model, input)) in devices().iter().flat_map(|d| [(d, CNN), (d, RESNET)]) {
        let subject = Subject::new(device, model, input);
        let examples = [3, 1, 4, 15, 9, 2];
        for (norm, epsilon) in [(Norm::Linf, "8/255"), (Norm::Linf, "0.3"), (Norm::L2, "0.5")] {
            let fgsm = subject.attacked(&Fgsm { threat: threat(norm, epsilon) }, &examples);
            let pgd = subject.attacked(&pgd(norm, epsilon, 1, epsilon, false), &examples);
            assert_eq!(fgsm, pgd, "{model}, {norm} {epsilon}, {}", device.describe());
            assert_ne!(fgsm[0], fgsm[1]);
        }
    }
}

#[test]
fn a_permuted_batch_gives_the_permuted_answers() {
    let cases = |d| {
        let single = [CNN, RESNET, MLP].map(|model| (d, model, Precision::F32));
        single.into_iter().chain([(d, CNN, Precision::F16)])
    };
    for (device, (model, input), precision) in devices().iter().flat_map(cases) {
        let subject = Subject::in_precision(device, model, input, precision);
        let examples: Vec<u32> = (0..37).collect();
        let permuted: Vec<u32> = (0..37).map(|i| (i * 10 + 5) % 37).collect();
        // Row i of the permuted batch is row permuted[i] of the plain one.
        let rows = |values: &[f32]| {
            let row = values.len() / permuted.len();
            permuted.iter().flat_map(|&i| values[i as usize * row..][..row].to_vec()).collect::<Vec<f32>>()
        };
        assert_eq!(rows(&subject.logits(&examples)), subject.logits(&permuted), "logits of {model}");
        for attack in [pgd(Norm::Linf, "0.1", 3, "0.04", true), pgd(Norm::L2, "1", 3, "0.4", true)] {
            let [plain, shuffled] = [&examples, &permuted].map(|order| subject.attacked(&attack, order));
            for (plain, shuffled) in plain.iter().zip(&shuffled) {
                assert_eq!(&rows(plain), shuffled, "{model}, {}, {}", attack.line(), device.describe());
            }
        }
    }
}

#[test]
fn attacks_on_networks_stay_inside() {
    for (device, precision) in devices().iter().flat_map(|d| [(d, Precision::F32), (d, Precision::F16)]) {
        let subject = Subject::in_precision(device, CNN.0, CNN.1, precision);
        let examples: Vec<u32> = (0..32).collect();
        for (norm, epsilon, step) in [
            (Norm::Linf, "8/255", "2/255"),
            (Norm::Linf, "0.3", "0.1"),
            (Norm::Linf, "0", "0.1"),
            (Norm::L2, "0.5", "0.2"),
            (Norm::L2, "0", "0.1"),
            (Norm::L2, "2", "0.7"),
            (Norm::L1, "3", "1"),
            (Norm::L1, "0", "0.1"),
        ] {
            let fast =
                FgsmRs { threat: threat(norm, epsilon), step_size: step.parse().unwrap(), clip_start: false };
            let attacks: [&dyn Attack; 2] = [&pgd(norm, epsilon, 5, step, true), &fast];
            for attack in attacks {
                let [x, moved] = subject.attacked(attack, &examples);
                assert_allowed(attack.threat(), 144, &x, &moved, &attack.line());
            }
        }
    }
}

/// Balls around given images, attacked with given gradients.
struct BallPlan {
    norm: Norm,
    store: Store,
    start: Plan,
    step: Plan,
}

const BALLS: usize = 3;

impl BallPlan {
    fn new(device: &Device, norm: Norm, elements: usize) -> BallPlan {
        let store = Store::new(device);
        let shape = Shape::new(&[BALLS, elements, 1, 1]);
        let ball = |tape: &'_ Tape, f: &dyn for<'t> Fn(Ball<'t>, &'t Tape)| {
            let scalar = |name: &str| tape.source(name, [], DType::F32);
            f(Ball::new(norm, tape.source("x", shape, DType::F32), scalar("radius"), scalar("step")), tape);
            Plan::compile(tape, &store).unwrap()
        };
        let start = ball(&Tape::new(), &|ball, tape| {
            let words = |name: &str, len: usize| tape.source(name, [len], DType::U32);
            let draw =
                Draw { key: words("key", 2), counter: words("counter", 2), example: words("example", BALLS) };
            tape.assign("start", ball.random_start(draw, Purpose::TEST, true));
        });
        let step = ball(&Tape::new(), &|ball, tape| {
            let [current, gradient] =
                ["current", "gradient"].map(|name| tape.source(name, shape, DType::F32));
            tape.assign("current", ball.ascend(current, gradient));
        });
        BallPlan { norm, store, start, step }
    }
}

/// Pixels as data sets have them and as they do not, the ends of the box among them.
fn pixel() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0f32),
        Just(1.0f32),
        (0u8..=255).prop_map(|byte| f32::from(byte) / 255.0),
        0.0f32..=1.0
    ]
}

/// Gradients of any size, zeros among them.
fn slope() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0f32),
        -1.0f32..1.0,
        (-1.0f32..1.0).prop_map(|g| g * 1e-12),
        (-1.0f32..1.0).prop_map(|g| g * 1e6)
    ]
}

#[test]
fn every_step_and_every_start_stays_in_the_ball_and_the_box() {
    for (device, cases) in devices().iter().zip([150, 40]) {
        for (norm, elements) in
            [(Norm::Linf, 50), (Norm::L2, 50), (Norm::L2, 1000), (Norm::L1, 50), (Norm::L1, 1000)]
        {
            let plan = BallPlan::new(device, norm, elements);
            let epsilons = prop::sample::select(vec!["8/255", "0.3", "0.031", "0", "2", "0.5", "1e-7"]);
            let len = BALLS * elements;
            let images = prop::collection::vec(pixel(), len);
            let gradients = prop::collection::vec(slope(), len);
            let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
                cases,
                failure_persistence: None,
                ..ProptestConfig::default()
            });
            runner
                .run(
                    &(epsilons, 0.0f64..1.5, images, gradients, any::<u32>()),
                    |(epsilon, step, x, g, seed)| {
                        stays_inside(&plan, &threat(norm, epsilon), step, &x, &g, seed);
                        Ok(())
                    },
                )
                .unwrap_or_else(|error| panic!("{}: {error}", device.describe()));
        }
    }
}

fn stays_inside(plan: &BallPlan, threat: &ThreatModel, step: f64, x: &[f32], gradient: &[f32], seed: u32) {
    let (store, elements) = (&plan.store, x.len() / BALLS);
    let radius = threat.projection_radius(threat.epsilon.value(), elements);
    assert!(plan.norm == threat.norm && radius <= threat.epsilon.value());
    store.write_f32("x", x).unwrap();
    store.write_f32("gradient", gradient).unwrap();
    store.write_f64("radius", &[radius]).unwrap();
    // Steps from a thousandth of the radius to far over it.
    store.write_f64("step", &[step * threat.epsilon.value().max(1e-3)]).unwrap();
    store.write_u32("key", &[seed, 0]).unwrap();
    store.write_u32("example", &[seed % 7, 8, 9]).unwrap();
    plan.start.run().unwrap();
    let start = store.read_f32("start").unwrap();
    assert_allowed(threat, elements, x, &start, "start");
    store.write_f32("current", &start).unwrap();
    for _ in 0..3 {
        plan.step.run().unwrap();
        let moved = store.read_f32("current").unwrap();
        assert_allowed(threat, elements, x, &moved, "step");
        if threat.epsilon.value() == 0.0 {
            assert_eq!(moved, x);
        }
    }
}

#[test]
fn on_a_linear_model_the_attack_lowers_the_margin_by_epsilon_times_the_dual_norm() {
    let (elements, epsilon) = (16, 0.1);
    let architecture = Mlp::new([4, 4, 1], &[], 2);
    let weights: Vec<f32> = uniform(1, 2 * elements).map(|u| (u - 0.5) as f32).collect();
    // Weights are [inputs, classes].
    let difference: Vec<f64> =
        weights.chunks(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0])).collect();
    // Bytes from 90 to 165: an epsilon of 0.1 keeps away from the box.
    let images: Vec<u8> = uniform(2, 8 * elements).map(|u| 90 + (75.0 * u) as u8).collect();
    let labels: Vec<u32> = (0..8).map(|i| i % 2).collect();
    for device in devices() {
        let store = Store::new(&device);
        store.put("1.weight", [elements, 2], &Host::F32(weights.clone())).unwrap();
        store.put("1.bias", [2], &Host::F32(vec![0.1, -0.2])).unwrap();
        store.put("data.images", [8, 4, 4, 1], &Host::U8(images.clone())).unwrap();
        store.put("data.labels", [8], &Host::U32(labels.clone())).unwrap();
        let on = Classifier {
            architecture: &architecture,
            mode: Mode::Eval,
            examples: 8,
            inputs: Inputs::Images,
            precision: Precision::F32,
        };
        let attacks: [(&dyn Attack, f64); 3] = [
            (&Fgsm { threat: threat(Norm::Linf, "0.1") }, difference.iter().map(|d| d.abs()).sum()),
            (&pgd(Norm::Linf, "0.1", 10, "0.03", true), difference.iter().map(|d| d.abs()).sum()),
            (&pgd(Norm::L2, "0.1", 20, "0.05", false), difference.iter().map(|d| d * d).sum::<f64>().sqrt()),
        ];
        for (attack, dual) in attacks {
            let names = Names::new(&attack.line(), "data");
            let recorded = compiled(&store, attack, on, &names, 8, false);
            let radius = attack.threat().projection_radius(epsilon, elements);
            store.write_f64(&names.of("radius"), &[radius]).unwrap();
            store.write_f64(&names.of("step"), &[attack.step_size()]).unwrap();
            store.write_u32(&names.of("example"), &(0..8).collect::<Vec<_>>()).unwrap();
            Program::new(recorded.program()).run().unwrap();
            let [x, moved] = ["x", "adversarial"].map(|name| store.read_f64(&names.of(name)).unwrap());
            for (i, (x, moved)) in x.chunks(elements).zip(moved.chunks(elements)).enumerate() {
                let sign = if labels[i] == 1 { 1.0 } else { -1.0 };
                let margin = |x: &[f64]| sign * x.iter().zip(&difference).map(|(x, d)| x * d).sum::<f64>();
                let lowered = margin(x) - margin(moved);
                let error = (lowered - epsilon * dual).abs() / (epsilon * dual);
                assert!(error <= 1e-5, "{}: {lowered} of {}, image {i}", attack.line(), epsilon * dual);
            }
        }
    }
}

/// Robust after the second attack, but not after the first.
fn raised(first: &Verdicts, second: &Verdicts) -> usize {
    first.robust.iter().zip(&second.robust).filter(|(first, second)| !**first && **second).count()
}

#[test]
fn neither_restarts_nor_further_steps_raise_robust_accuracy() {
    let subject = Subject::new(&Device::cpu(), CNN.0, CNN.1);
    for (norm, epsilon, step) in [(Norm::Linf, "0.05", "0.01"), (Norm::L2, "0.5", "0.1")] {
        let restarts = [1, 4, 16].map(|restarts| (1, restarts));
        let steps = [1, 2, 5, 20].map(|steps| (steps, 1));
        for growing in [&restarts[..], &steps[..]] {
            let attack =
                |&(steps, restarts)| subject.verdicts(&pgd(norm, epsilon, steps, step, true), 16, restarts);
            let verdicts: Vec<Verdicts> = growing.iter().map(attack).collect();
            let counts: Vec<usize> = verdicts.iter().map(Verdicts::robust_count).collect();
            let none_raised = verdicts.windows(2).all(|pair| raised(&pair[0], &pair[1]) == 0);
            assert!(none_raised, "{norm}: {growing:?} leave {counts:?}");
            // Otherwise the law would be empty.
            assert!(counts.windows(2).all(|pair| pair[0] > pair[1]), "{norm}: {growing:?} leave {counts:?}");
            assert!(verdicts.iter().all(|verdicts| verdicts.clean_count() == IMAGES));
        }
    }
}

#[test]
fn an_example_that_is_broken_stays_as_it_is() {
    for (device, precision) in devices().iter().flat_map(|d| [(d, Precision::F32), (d, Precision::F16)]) {
        let subject = Subject::in_precision(device, CNN.0, CNN.1, precision);
        let examples: Vec<u32> = (0..IMAGES as u32).collect();
        for (norm, epsilon, step) in [(Norm::Linf, "0.05", "0.03"), (Norm::L2, "0.5", "0.3")] {
            let attack = |steps| {
                let attack = pgd(norm, epsilon, steps, step, true);
                let [_, moved] = subject.run(&attack, &examples, true);
                moved
            };
            let (early, late) = (attack(3), attack(20));
            let broken: Vec<usize> = subject.wrong(&early);
            assert!(broken.len() > 5 && broken.len() < IMAGES, "{} of {IMAGES} are broken", broken.len());
            for i in broken {
                let pixels = i * 144..(i + 1) * 144;
                assert_eq!(early[pixels.clone()], late[pixels], "{norm}, image {i}, {}", device.describe());
            }
            assert_ne!(early, late);
        }
    }
}

#[test]
fn verdicts_do_not_depend_on_the_batch_they_are_reached_in() {
    for device in devices() {
        let subject = Subject::new(&device, CNN.0, CNN.1);
        let attack = pgd(Norm::Linf, "0.02", 5, "0.004", true);
        let all = subject.verdicts(&attack, IMAGES, 3);
        assert!((1..IMAGES).contains(&all.robust_count()), "{}", all.robust_count());
        // An image a batch is many submissions.
        let batches: &[usize] = if device.is_gpu() { &[7, 16] } else { &[1, 7, 16] };
        for &batch in batches {
            assert_eq!(subject.verdicts(&attack, batch, 3), all, "batches of {batch}, {}", device.describe());
        }
    }
}

/// Weights after an epoch of `recipe` on noise.
fn trained(device: &Device, (model, input): (&str, [usize; 3]), recipe: Recipe) -> Weights {
    let architecture = architectures::by_name(model, input, 4).unwrap();
    let recipe = Recipe { epsilon_warmup: 0.0, epochs: 1, batch: 24, validation: 0, ..recipe };
    let mut trainer = Trainer::new(recipe, architecture, &dataset(input), device).unwrap();
    assert_eq!(trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap(), Outcome::Finished);
    trainer.weights().unwrap()
}

fn bits(weights: &Weights) -> Vec<u32> {
    weights.iter().flat_map(|(_, values)| values.iter().map(|x| x.to_bits())).collect()
}

#[test]
fn adversarial_training_with_epsilon_0_is_standard_training() {
    let standard = Recipe { method: "standard".into(), ..Recipe::default() };
    let [cpu, gpu] = devices();
    for (device, model) in [(&cpu, CNN), (&cpu, RESNET), (&gpu, CNN)] {
        let want = trained(device, model, standard.clone());
        for (method, norm) in [("pgd", "linf"), ("pgd", "l2"), ("fgsm", "linf"), ("fgsm-rs", "linf")] {
            let recipe = Recipe {
                method: method.into(),
                norm: norm.into(),
                epsilon: "0".into(),
                steps: 2,
                ..Recipe::default()
            };
            let have = trained(device, model, recipe);
            assert_eq!(bits(&have), bits(&want), "{method}, {norm}, {}, {}", model.0, device.describe());
        }
        let attacked = trained(device, model, Recipe { steps: 2, ..Recipe::default() });
        assert_ne!(bits(&attacked), bits(&want));
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_on_any_number_of_threads() {
    let recipe = |seed| Recipe { steps: 2, seed, ..Recipe::default() };
    let on_threads = |threads: usize, model, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        bits(&pool.install(|| trained(&Device::cpu(), model, recipe(seed))))
    };
    for model in [CNN, RESNET] {
        let one = on_threads(1, model, 0);
        for threads in [1, 2, 3] {
            assert!(on_threads(threads, model, 0) == one, "{}: other weights on {threads} threads", model.0);
        }
        assert!(on_threads(2, model, 1) != one, "the seed changes nothing");
    }
    let [_, gpu] = devices();
    let gpu_weights = |seed| bits(&trained(&gpu, CNN, recipe(seed)));
    assert!(gpu_weights(0) == gpu_weights(0), "other weights on the second run on {}", gpu.describe());
}

#[test]
fn the_same_seed_gives_the_same_weights_in_half_precision() {
    let recipe = || Recipe { steps: 2, attack_precision: "f16".into(), ..Recipe::default() };
    let on_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        bits(&pool.install(|| trained(&Device::cpu(), CNN, recipe())))
    };
    let one = on_threads(1);
    for threads in [2, 3] {
        assert!(on_threads(threads) == one, "other weights on {threads} threads");
    }
    let [_, gpu] = devices();
    let gpu_weights = || bits(&trained(&gpu, CNN, recipe()));
    assert!(gpu_weights() == gpu_weights(), "other weights on the second run on {}", gpu.describe());
    let single = trained(&gpu, CNN, Recipe { steps: 2, ..Recipe::default() });
    assert!(gpu_weights() != bits(&single), "half precision changes nothing");
}
