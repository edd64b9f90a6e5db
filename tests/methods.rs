//! A training step of every method against PyTorch: the attack's images, the loss, every weight's gradient, running
//! statistics and new weights, for the same weights, images and noise (tools/make_method_reference.py).

mod reference;

use adamant::data::Dataset;
use adamant::launch::{Kernel, Launch};
use adamant::nn::{Architecture, Collapsed, Conv2d, Dummies, Mode, Net, Var};
use adamant::plan::Schedule;
use adamant::train::{METHODS, Recipe, Trainer};
use adamant::{DType, Device, Plan, Program, Step, Store, Tape};
use reference::{Reference, cpus, gpus, permute};

const BATCH: usize = 5;
const IMAGE: [usize; 3] = [6, 6, 2];
/// The bounds that the house has set itself: in f64, and in f32.
const DOUBLE: f64 = 1e-8;
const SINGLE: f64 = 1e-4;

/// Two convolutions with batch norm and a linear layer, as `Tiny` of tools/make_method_reference.py.
struct Tiny {
    outputs: usize,
    /// SiLU in place of ReLU.
    smooth: bool,
}

impl Architecture for Tiny {
    fn name(&self) -> String {
        "tiny".into()
    }

    fn input(&self) -> [usize; 3] {
        IMAGE
    }

    fn classes(&self) -> usize {
        self.outputs
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let conv = |stride: usize| Conv2d { stride: [stride; 2], padding: [1, 1], ..Conv2d::default() };
        let activation = |x: Var<'t>| if self.smooth { x.silu() } else { x.relu() };
        let x = activation(net.batch_norm("bn1", net.conv("conv1", x, 4, [3, 3], conv(1), false)));
        let x = activation(net.batch_norm("bn2", net.conv("conv2", x, 6, [3, 3], conv(2), false)));
        net.linear("linear", x.flatten(), self.outputs)
    }
}

/// A method's case: its name in the reference file, and what its recipe says.
struct Case {
    name: &'static str,
    recipe: Recipe,
}

fn case(name: &'static str, method: &str, change: impl FnOnce(&mut Recipe)) -> Case {
    let mut recipe = Recipe {
        method: method.into(),
        epsilon: "0.1".into(),
        steps: 3,
        step_size: "0.03".into(),
        epsilon_warmup: 0.0,
        epochs: 1,
        batch: BATCH,
        optimizer: "sgd".into(),
        momentum: 0.9,
        weight_average: 0.0,
        validation: 0,
        ..Recipe::default()
    };
    change(&mut recipe);
    Case { name, recipe }
}

fn nothing(_: &mut Recipe) {}

fn awp(recipe: &mut Recipe, gamma: f64) {
    (recipe.awp_gamma, recipe.weight_decay) = (gamma, 5e-4);
}

/// A run on one batch, with the weights of the reference.
struct Subject {
    trainer: Trainer,
    reference: Reference,
    case: &'static str,
    tolerance: f64,
}

impl Subject {
    fn new(case: &Case, device: &Device, tolerance: f64) -> Subject {
        Subject::of(case, device, tolerance, false)
    }

    fn of(case: &Case, device: &Device, tolerance: f64, smooth: bool) -> Subject {
        let dummies = case.recipe.method == "ducat";
        let reference = Reference::open(if dummies { "methods-dummies" } else { "methods" });
        let inputs = reference.inputs(0.0);
        let [h, w, c] = IMAGE;
        let bytes: Vec<u8> = inputs.images.values.iter().map(|x| (x * 256.0).floor() as u8).collect();
        let images = permute(&bytes, &[BATCH, c, h, w], &[0, 2, 3, 1]);
        let classes = (0..10).map(|class| class.to_string()).collect();
        let data = Dataset::new("bytes", "made here", IMAGE, images, inputs.labels.clone(), classes).unwrap();
        let architecture: Box<dyn Architecture> = match dummies {
            true => Box::new(Dummies::new(Box::new(Tiny { outputs: 20, smooth: false }))),
            false => Box::new(Tiny { outputs: 10, smooth }),
        };
        let trainer = Trainer::new(case.recipe.clone(), architecture, &data, device).unwrap();
        for tensor in &inputs.state {
            let param = trainer.params().get(&tensor.name).unwrap();
            let values = param.from_torch(&tensor.shape, &tensor.values).unwrap();
            trainer.store().write_f32(&tensor.name, &values).unwrap();
        }
        let subject = Subject { trainer, reference, case: case.name, tolerance };
        let step = match case.recipe.method.as_str() {
            "fgsm" | "grad-align" | "free" => 0.1,
            _ => case.recipe.step().unwrap().value(),
        };
        // The ball of the reference, to the last bit.
        for (name, value) in [("batch5.radius", 0.1), ("batch5.step", step), ("optimizer.rate", 0.05)] {
            if subject.store().get(name).is_some() {
                subject.store().write_f64(name, &[value]).unwrap();
            }
        }
        subject.store().write_u32("batch5.example", &[0, 1, 2, 3, 4]).unwrap();
        subject
    }

    fn store(&self) -> &Store {
        self.trainer.store()
    }

    /// Writes images of the reference (NCHW) to a tensor.
    fn write(&self, tensor: &str, what: &str) {
        let (shape, values) = self.reference.get(&format!("{}.{what}", self.case));
        self.store().write_f64(tensor, &permute(&values, &shape, &[0, 2, 3, 1])).unwrap();
    }

    /// A tensor of images as the reference has them.
    fn images(&self, tensor: &str) -> Vec<f64> {
        let [h, w, c] = IMAGE;
        permute(&self.store().read_f64(tensor).unwrap(), &[BATCH, h, w, c], &[0, 3, 1, 2])
    }

    /// A tensor of a parameter's shape as the reference has it.
    fn parameter(&self, tensor: &str, name: &str) -> Vec<f64> {
        let param = self.trainer.params().get(name).unwrap();
        param.to_torch(&self.store().read_f64(tensor).unwrap()).unwrap().1
    }

    #[track_caller]
    fn check(&self, what: &str, got: &[f64], tolerance: f64) {
        let name = format!("{}.{what}", self.case);
        let device = self.store().device().describe();
        self.reference.check(&name, got, tolerance).unwrap_or_else(|e| panic!("{device}: {e}"));
    }

    /// The attack's images. A sign turns over where a gradient is near zero: in f32 a few may be elsewhere.
    fn check_images(&self) {
        let (_, want) = self.reference.get(&format!("{}.adversarial", self.case));
        let got = self.images("batch5.adversarial");
        let (bound, allowed) = match self.tolerance < 1e-6 {
            // The L1 ball's threshold is found by 26 halvings, the reference's by 200.
            true if self.case == "pgd-l1" => (1e-7, 0),
            true => (DOUBLE, 0),
            false => (SINGLE, want.len() / 50),
        };
        let off = got.iter().zip(&want).filter(|(a, b)| (*a - *b).abs() > bound).count();
        assert!(off <= allowed, "{}: {off} of {} pixels are elsewhere", self.case, want.len());
    }

    /// Runs the phases of a step up to the update, with the reference's starts; the update is then on its images.
    fn attack(&self) {
        let mut starts = 0;
        for phase in self.trainer.phases(BATCH).unwrap() {
            if phase.name == "prepare" || phase.name == "update" {
                break;
            }
            let plan = Plan::of(phase.schedule, self.store()).unwrap();
            Program::new(vec![Step::Repeat(phase.times, &plan)]).run().unwrap();
            let start = format!("start{starts}");
            if ["load", "restart"].contains(&phase.name)
                && self.reference.names().contains(&format!("{}.{start}", self.case))
            {
                self.write("batch5.adversarial", &start);
                starts += 1;
            }
            if phase.name == "load" && self.store().get("batch5.targets").is_some() {
                let (_, targets) = self.reference.get(&format!("{}.targets", self.case));
                self.store().write_f64("batch5.targets", &targets).unwrap();
            }
        }
        self.check_images();
        self.write("batch5.adversarial", "adversarial");
    }

    /// Runs the phase of this name.
    fn run(&self, name: &str) {
        let phases = self.trainer.phases(BATCH).unwrap();
        let phase = phases.into_iter().find(|phase| phase.name == name).unwrap();
        Plan::of(phase.schedule, self.store()).unwrap().run().unwrap();
    }

    /// Holds loss and gradients (velocities after the first step) against the reference's.
    #[track_caller]
    fn check_update(&self) {
        let loss = self.store().read_f64("metrics.loss").unwrap()[0] / BATCH as f64;
        self.check("loss", &[loss], self.tolerance);
        for param in self.trainer.params().iter().filter(|param| param.role.is_trained()) {
            let velocity = self.parameter(&format!("optimizer.momentum/{}", param.name), &param.name);
            self.check(&format!("grad.{}", param.name), &velocity, self.tolerance);
        }
        let names = self.reference.names();
        for param in self.trainer.params() {
            let after = format!("after.{}", param.name);
            if names.contains(&format!("{}.{after}", self.case)) {
                self.check(&after, &self.parameter(&param.name, &param.name), self.tolerance);
            }
        }
    }
}

fn devices() -> Vec<(Device, f64)> {
    cpus(DOUBLE, SINGLE)
}

fn with_gpus() -> Vec<(Device, f64)> {
    devices().into_iter().chain(gpus(SINGLE)).collect()
}

/// Holds a whole step against the reference.
fn holds(case: Case, devices: Vec<(Device, f64)>) {
    for (device, tolerance) in devices {
        let subject = Subject::new(&case, &device, tolerance);
        subject.attack();
        subject.run("update");
        subject.check_update();
    }
}

#[test]
fn standard_and_the_single_step_methods() {
    holds(case("standard", "standard", nothing), devices());
    holds(case("fgsm", "fgsm", nothing), devices());
    let fast = |recipe: &mut Recipe| {
        (recipe.step_size, recipe.attack_batch_norm) = ("0.125".into(), "train".into());
    };
    holds(case("fgsm-rs", "fgsm-rs", fast), devices());
    let noisy = |recipe: &mut Recipe| {
        (recipe.step_size, recipe.attack_batch_norm) = ("0.1".into(), "train".into());
    };
    holds(case("n-fgsm", "n-fgsm", noisy), devices());
}

#[test]
fn pgd_in_every_batch_norm_mode_and_norm() {
    for (name, mode) in [("pgd-eval", "eval"), ("pgd-train", "train"), ("pgd-train-frozen", "train-frozen")] {
        holds(case(name, "pgd", |recipe| recipe.attack_batch_norm = mode.into()), devices());
    }
    for (name, norm) in [("pgd-l2", "l2"), ("pgd-l1", "l1")] {
        holds(case(name, "pgd", |recipe| recipe.norm = norm.into()), devices());
    }
}

#[test]
fn pgd_keeps_the_worst_of_restarts_and_iterates() {
    holds(case("pgd-restarts", "pgd", |recipe| recipe.restarts = 2), with_gpus());
    let best = |recipe: &mut Recipe| (recipe.use_best, recipe.step_size) = (true, "0.15".into());
    holds(case("pgd-use-best", "pgd", best), devices());
}

#[test]
fn label_smoothing_and_mixing() {
    holds(case("pgd-smooth", "pgd", |recipe| recipe.label_smoothing = 0.1), devices());
    holds(case("pgd-share", "pgd", |recipe| recipe.adversarial_ratio = 0.5), devices());
    holds(case("pgd-both", "pgd", |recipe| recipe.keep_clean = true), devices());
}

#[test]
fn mixtures_of_classes_are_what_attack_and_update_go_by() {
    for (device, tolerance) in devices() {
        let case = case("pgd-soft", "pgd", |recipe| recipe.augment = vec!["mixup:1".into()]);
        let subject = Subject::new(&case, &device, tolerance);
        // Each image is all of itself; the reference's distributions are written over what is loaded.
        let all_of_itself = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0].repeat(BATCH);
        subject.store().write_f64("batch5.mix", &all_of_itself).unwrap();
        subject.store().write_u32("batch5.major", &[0, 1, 2, 3, 4]).unwrap();
        subject.attack();
        subject.run("update");
        subject.check_update();
    }
}

#[test]
fn trades_flows_back_through_both_arguments() {
    holds(case("trades", "trades", nothing), with_gpus());
    let smooth = |recipe: &mut Recipe| {
        (recipe.beta, recipe.label_smoothing, recipe.norm) = (5.0, 0.1, "l2".into());
    };
    holds(case("trades-smooth", "trades", smooth), devices());
}

#[test]
fn mart_weighs_by_how_unsure_the_clean_prediction_is() {
    holds(case("mart", "mart", |recipe| recipe.beta = 5.0), with_gpus());
}

#[test]
fn awp_perturbs_weights_layer_by_layer_and_takes_it_off_again() {
    for case in [
        case("pgd-awp", "pgd", |recipe| awp(recipe, 0.01)),
        case("trades-awp", "trades", |recipe| awp(recipe, 0.005)),
    ] {
        for (device, tolerance) in with_gpus() {
            let subject = Subject::new(&case, &device, tolerance);
            let statistics = |subject: &Subject| subject.store().read_f64("bn1.running_mean").unwrap();
            subject.attack();
            let before = statistics(&subject);
            subject.run("prepare");
            assert_eq!(statistics(&subject), before, "the first pass is on a copy");
            for name in ["conv1.weight", "conv2.weight", "linear.weight"] {
                let v = subject.parameter(&format!("awp/{name}"), name);
                subject.check(&format!("v.{name}"), &v, tolerance);
            }
            assert!(subject.store().names().iter().filter(|name| name.starts_with("awp/")).count() == 3);
            subject.run("update");
            subject.check_update();
        }
    }
}

/// GradAlign as the reference's case, in a form.
fn grad_align(form: &str) -> Case {
    case("grad-align", "grad-align", |recipe| {
        (recipe.attack_batch_norm, recipe.grad_align_lambda) = ("train".into(), 0.5);
        recipe.grad_align_form = form.into();
    })
}

#[test]
fn grad_align_differentiates_the_input_gradient_again() {
    for (device, tolerance) in with_gpus() {
        let subject = Subject::new(&grad_align("exact"), &device, tolerance);
        subject.attack();
        subject.run("prepare");
        subject.write("batch5.point", "point");
        subject.run("update");
        subject.check_update();
    }
}

#[test]
fn grad_align_of_first_order_is_near_the_exact_one_where_the_network_is_smooth() {
    let without = || case("grad-align", "fgsm", |recipe| recipe.attack_batch_norm = "train".into());
    for (device, _) in devices() {
        let step = |case: &Case| {
            let subject = Subject::of(case, &device, SINGLE, true);
            // The gradient that it goes by is its own, the images are the reference's.
            for phase in subject.trainer.phases(BATCH).unwrap() {
                Plan::of(phase.schedule, subject.store()).unwrap().run().unwrap();
                if phase.name == "attack" {
                    subject.write("batch5.adversarial", "adversarial");
                }
            }
            let trained = subject.trainer.params().iter().filter(|param| param.role.is_trained());
            let velocity = |name: &str| subject.parameter(&format!("optimizer.momentum/{name}"), name);
            let all: Vec<f64> = trained.flat_map(|param| velocity(&param.name)).collect();
            (all, subject.store().read_f64("metrics.loss").unwrap()[0])
        };
        let [(plain, _), (exact, loss), (near, told)] =
            [without(), grad_align("exact"), grad_align("first-order")].map(|case| step(&case));
        // The same noise, so the same loss is told; the alignment's part of the gradient is what is approximated.
        assert!((loss - told).abs() < 1e-5 * loss, "{loss} and {told}");
        let [exact, near] = [exact, near]
            .map(|all| all.iter().zip(&plain).map(|(with, without)| with - without).collect::<Vec<f64>>());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(&exact, &near) / (dot(&exact, &exact) * dot(&near, &near)).sqrt();
        let ratio = (dot(&near, &near) / dot(&exact, &exact)).sqrt();
        assert!(cosine > 0.9999 && (ratio - 1.0).abs() < 0.01, "cosine {cosine}, lengths {ratio}");
    }
}

#[test]
fn free_takes_both_gradients_of_one_pass() {
    let case = case("free", "free", |recipe| recipe.replays = 2);
    for (device, tolerance) in with_gpus() {
        let subject = Subject::new(&case, &device, tolerance);
        subject.run("load");
        subject.write("free.perturbation", "before");
        let mut total = 0.0;
        for replay in 0..2 {
            subject.run("update");
            let before = std::mem::replace(&mut total, subject.store().read_f64("metrics.loss").unwrap()[0]);
            // An image counts once, however often it is learned from.
            let loss = (total - before) * 2.0 / BATCH as f64;
            subject.check(&format!("loss{replay}"), &[loss], tolerance);
            let moved = subject.images("free.perturbation");
            subject.check(&format!("perturbation{replay}"), &moved, tolerance);
        }
        for param in subject.trainer.params() {
            let weight = subject.parameter(&param.name, &param.name);
            subject.check(&format!("after.{}", param.name), &weight, tolerance);
        }
    }
}

#[test]
fn dummy_classes_take_the_adversarial_images() {
    let case = case("ducat", "ducat", nothing);
    holds(case, devices());
}

#[test]
fn the_collapsed_network_is_logsumexp_of_class_and_dummy() {
    for (device, tolerance) in with_gpus() {
        let subject = Subject::new(&case("ducat", "ducat", nothing), &device, tolerance);
        subject.run("load");
        let raw = Dummies::new(Box::new(Tiny { outputs: 20, smooth: false }));
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Eval);
        let x = tape.source("batch5.x", [BATCH, 6, 6, 2], DType::F32);
        tape.assign("collapsed", Collapsed(&raw).forward(&net, x));
        Plan::compile(&tape, subject.store()).unwrap().run().unwrap();
        let got = subject.store().read_f64("collapsed").unwrap();
        subject.reference.check("collapsed", &got, tolerance).unwrap();
        assert_eq!(Collapsed(&raw).classes(), 10);
    }
}

/// The schedule of the phase of this name, for a recipe as [`case`] makes it.
fn schedule(method: &str, change: impl FnOnce(&mut Recipe), name: &str) -> Schedule {
    let subject = Subject::new(&case("", method, change), &Device::cpu(), SINGLE);
    let phases = subject.trainer.phases(BATCH).unwrap();
    phases.into_iter().find(|phase| phase.name == name).unwrap().schedule
}

#[test]
fn no_attack_computes_a_weights_gradient() {
    for method in METHODS {
        let subject = Subject::new(&case("", method, nothing), &Device::cpu(), SINGLE);
        let phases = subject.trainer.phases(BATCH).unwrap();
        for phase in phases.iter().filter(|phase| ["load", "attack"].contains(&phase.name)) {
            let launches = &phase.schedule.launches;
            let weights = |launch: &&Launch| matches!(launch.kernel, Kernel::Conv2dWeightGrad(_));
            assert_eq!(launches.iter().filter(weights).count(), 0, "{method}: {}", phase.schedule);
        }
    }
}

#[test]
fn trades_predicts_clean_images_once_a_batch() {
    let (trades, pgd) = (schedule("trades", nothing, "attack"), schedule("pgd", nothing, "attack"));
    // A further step costs what one of PGD does: a pass forward and one back.
    let further = |schedule: &Schedule| schedule.flops_of(3) - schedule.flops_of(2);
    assert_eq!(further(&trades), further(&pgd), "{trades}");
    assert!(trades.flops_of(1) > pgd.flops_of(1));
}

#[test]
fn trades_and_free_share_what_is_the_same() {
    let count = |schedule: &Schedule, which: fn(&Kernel) -> bool| {
        schedule.launches.iter().filter(|launch| which(&launch.kernel)).count()
    };
    // The network has two convolutions. TRADES has two passes and not three, free one forward and one back.
    let trades = schedule("trades", nothing, "update");
    assert_eq!(count(&trades, |kernel| matches!(kernel, Kernel::Conv2d(_))), 4, "{trades}");
    let free = schedule("free", nothing, "update");
    assert_eq!(count(&free, |kernel| matches!(kernel, Kernel::Conv2d(_))), 2, "{free}");
    assert_eq!(count(&free, |kernel| matches!(kernel, Kernel::Conv2dInputGrad(_))), 2, "{free}");
    assert_eq!(count(&free, |kernel| matches!(kernel, Kernel::Conv2dWeightGrad(_))), 2, "{free}");
}
