//! Attacks towards a class: what they climb, where they may go, and what counts as turned. On the CPU executor and on a
//! GPU adapter (a software one will do).

use adamant::attack::{
    Attack, Classifier, Evaluation, Inputs, Names, Norm, Pgd, RecordedAttack, Targeted, ThreatModel,
    Verdicts, logits,
};
use adamant::data::Dataset;
use adamant::nn::{Architecture, Mode, Params, architectures};
use adamant::philox;
use adamant::plan::{Precision, Schedule};
use adamant::report::{Turn, Turned};
use adamant::tape::{Augment, Purpose};
use adamant::{Device, Host, Program, Store};

const IMAGES: usize = 40;
const INPUT: [usize; 3] = [6, 5, 3];

fn devices() -> [Device; 2] {
    let adapters = Device::adapters();
    let adapter =
        adapters.first().expect("there is no GPU adapter to test with: tools/test installs a software one");
    [Device::cpu(), Device::gpu(adapter).unwrap()]
}

/// A small network with random weights, and noise labelled with what it says of it.
struct Subject {
    architecture: Box<dyn Architecture>,
    store: Store,
    data: Dataset,
}

impl Subject {
    fn new(device: &Device, classes: usize) -> Subject {
        let architecture = architectures::by_name("mlp-40", INPUT, classes).unwrap();
        let store = Store::new(device);
        let params = Params::of(architecture.as_ref()).unwrap();
        for (param, values) in params.iter().zip(params.initial(3)) {
            // Larger weights than training begins with: the loss is not a plane.
            let values = values.into_iter().map(|w| 4.0 * w).collect();
            store.put(&param.name, param.shape, &Host::F32(values)).unwrap();
        }
        let pixels = IMAGES * INPUT.iter().product::<usize>();
        let noise = |i| (256.0 * philox::uniform([5, 6], Purpose::TEST, [0, 0], 0, i)) as u8;
        let images: Vec<u8> = (0..pixels as u32).map(noise).collect();
        let names: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
        let dataset = |labels: Vec<u32>| {
            Dataset::new("noise", "made here", INPUT, images.clone(), labels, names.clone()).unwrap()
        };
        let [h, w, c] = INPUT;
        store.put("test.images", [IMAGES, h, w, c], &Host::U8(images.clone())).unwrap();
        store.put("test.labels", [IMAGES], &Host::U32(vec![0; IMAGES])).unwrap();
        let mut subject = Subject { architecture, store, data: dataset(vec![0; IMAGES]) };
        // The bias of the last layer takes the mean of the logits away, so that every class is predicted.
        let all: Vec<u32> = (0..IMAGES as u32).collect();
        let logits = logits(&subject.store, subject.on(), "test", &all, IMAGES).unwrap();
        let mean = |class| logits.iter().skip(class).step_by(classes).sum::<f32>() / IMAGES as f32;
        let last = &params.iter().last().unwrap().name;
        let bias = subject.store.read_f32(last).unwrap();
        let centred: Vec<f32> = (0..classes).map(|class| bias[class] - mean(class)).collect();
        subject.store.write_f32(last, &centred).unwrap();
        let labels = subject.verdicts(&pgd("0", 1, "0", false), 1).clean;
        subject.store.write_u32("test.labels", &labels).unwrap();
        subject.data = dataset(labels);
        subject
    }

    fn on(&self) -> Classifier<'_> {
        let (architecture, precision) = (self.architecture.as_ref(), Precision::F32);
        Classifier { architecture, mode: Mode::Eval, examples: IMAGES, inputs: Inputs::Images, precision }
    }

    fn judge(&self, attack: &dyn Attack) -> Evaluation {
        Evaluation::compile(&self.store, attack, self.on(), "test", 16).unwrap()
    }

    fn verdicts(&self, attack: &dyn Attack, restarts: u32) -> Verdicts {
        let all: Vec<u32> = (0..IMAGES as u32).collect();
        self.judge(attack).run(&all, &self.data.labels, restarts, 9, |_, _| {}).unwrap()
    }

    /// Clean and adversarial images of these examples; no random start.
    fn attacked(&self, attack: &dyn Attack, examples: &[u32]) -> [Vec<f32>; 2] {
        let (names, on) = (Names::new("attacked", "test"), self.on());
        let (batch, start) = (examples.len(), Purpose::EVALUATION_START);
        let load = RecordedAttack::record_load(attack, on, &names, batch, start, Augment::default());
        let step = RecordedAttack::schedule_step(attack, on, &names, batch, false).unwrap();
        let load = Schedule::new(&load, true).unwrap();
        let recorded = RecordedAttack::of(load, step, attack.steps(), &self.store).unwrap();
        let threat = attack.threat();
        let radius = threat.projection_radius(threat.epsilon.value(), INPUT.iter().product());
        for (name, value) in [("radius", radius), ("step", attack.step_size())] {
            self.store.write_f64(&names.of(name), &[value]).unwrap();
        }
        self.store.write_u32(&names.of("example"), examples).unwrap();
        Program::new(recorded.program()).run().unwrap();
        ["x", "adversarial"].map(|name| self.store.read_f32(&names.of(name)).unwrap())
    }
}

fn pgd(epsilon: &str, steps: usize, step_size: &str, random_start: bool) -> Pgd {
    let threat = ThreatModel { norm: Norm::Linf, epsilon: epsilon.parse().unwrap() };
    Pgd { threat, steps, step_size: step_size.parse().unwrap(), random_start }
}

#[test]
fn of_two_classes_towards_the_one_is_away_from_the_other() {
    // With p the probabilities, the gradients by the logits are (-p_t, p_t) and (-p_y, p_y): the same direction.
    for device in devices() {
        let subject = Subject::new(&device, 2);
        let zeros: Vec<u32> = (0..IMAGES as u32).filter(|&i| subject.data.labels[i as usize] == 0).collect();
        assert!(zeros.len() > 5, "{} images of class 0", zeros.len());
        let away = pgd("0.1", 5, "0.03", false);
        let towards = Targeted { pgd: away.clone(), class: 1 };
        let [clean, away] = subject.attacked(&away, &zeros);
        let [_, towards] = subject.attacked(&towards, &zeros);
        let moved = clean.iter().zip(&away).filter(|(a, b)| a != b).count();
        assert!(moved > clean.len() / 2);
        // A gradient near 0 may have another sign in another rounding.
        let other = away.iter().zip(&towards).filter(|(a, b)| a != b).count();
        assert!(100 * other <= away.len(), "{other} of {} pixels, {}", away.len(), device.describe());
    }
}

#[test]
fn an_image_is_turned_where_the_class_is_predicted_for_it() {
    for device in devices() {
        let subject = Subject::new(&device, 4);
        let all: Vec<u32> = (0..IMAGES as u32).collect();
        let class = 2;
        let mut before = 0;
        for (epsilon, step) in [("0", "0"), ("0.02", "0.005"), ("0.06", "0.015")] {
            let attack = Targeted { pgd: pgd(epsilon, 10, step, true), class };
            let verdicts = subject.verdicts(&attack, 1);
            let images = subject.judge(&attack).images(&all, 9).unwrap();
            for (i, found) in images.iter().enumerate() {
                let predicted = [found.clean_prediction.0, found.adversarial_prediction.0];
                assert_eq!(verdicts.robust[i], !predicted.contains(&class), "image {i}: {predicted:?}");
                let far = found.clean.iter().zip(&found.adversarial).map(|(a, b)| (a - b).abs());
                let far = f64::from(far.fold(0.0, f32::max));
                assert!(far <= attack.threat().epsilon.value(), "image {i} moved by {far}");
            }
            assert!(verdicts.correct.iter().all(|&correct| correct));
            let turned = IMAGES - verdicts.robust_count();
            assert!(turned > before || epsilon == "0", "{epsilon}: {turned}, before {before}");
            before = turned;
        }
        assert!(before < IMAGES, "otherwise nothing was left to tell apart");
        // Restarts go on with those that withstood.
        let attack = Targeted { pgd: pgd("0.06", 10, "0.015", true), class };
        let more = subject.verdicts(&attack, 5);
        assert!(IMAGES - more.robust_count() >= before);
    }
}

#[test]
fn turned_counts_the_images_that_any_of_the_classes_was_reached_for() {
    let subject = Subject::new(&Device::cpu(), 4);
    let turn: Turn = "1:0,2".parse().unwrap();
    let attack = pgd("0.06", 10, "0.015", true);
    let turned =
        Turned::measure(&subject.store, subject.on(), &subject.data, &turn, (&attack, 1, 9), |_, _, _| {})
            .unwrap();
    let [zero, two] = [0, 2].map(|class| subject.verdicts(&Targeted { pgd: attack.clone(), class }, 1));
    let of: Vec<usize> = (0..IMAGES).filter(|&i| subject.data.labels[i] == 1).collect();
    let expected = of.iter().filter(|&&i| !zero.robust[i] || !two.robust[i]).count() as u64;
    let share = turned.share();
    assert_eq!((share.correct, share.total), (expected, of.len() as u64));
    assert!(expected > 0 && expected < share.total, "{expected} of {}", share.total);
    let text = turned.text(&subject.data);
    assert!(text.contains("0 (class 0) or 2 (class 2): 0 without an attack"), "{text}");
    assert!(text.contains("targeted PGD-10, Linf 0.06, step 0.015, random start, 1 restart"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    turned.write(folder.path(), "noise", &subject.data, &attack).unwrap();
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("turned.json")).unwrap()).unwrap();
    assert_eq!(record["turned"], expected);
    assert!(image::open(folder.path().join("turned.png")).is_ok());
}

#[test]
fn classes_that_are_not_there_are_refused() {
    let subject = Subject::new(&Device::cpu(), 4);
    for (turn, says) in [("1:4", "classes 0 to 3"), ("7:1", "classes 0 to 3")] {
        let error = turn.parse::<Turn>().unwrap().check(&subject.data).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let names = subject.data.class_names;
    let data = Dataset::new("zeros", "made here", [1, 1, 1], vec![0; 2], vec![0; 2], names).unwrap();
    let error = "1:0".parse::<Turn>().unwrap().check(&data).unwrap_err().to_string();
    assert!(error.contains("no test image"), "{error}");
}
