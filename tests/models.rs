//! The models against PyTorch, on the reference executor, the CPU executor and every GPU adapter there is (software
//! Vulkan included): logits, loss, every gradient, running statistics, five steps of PGD, optimisers, a second
//! derivative. tests/reference/README.md says what the numbers are.

mod reference;

use adamant::attack::{Ball, Norm};
use adamant::device::Device;
use adamant::nn::{Architecture, Mode, Net, Params, Role, Tape, Var, architectures};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::train::{Decayed, Optimizer};
use adamant::{DType, Shape};
use reference::{Inputs, Reference, Tensor, cpus, epsilon_and_step, gpus, permute};

/// What an executor in f64 may differ by, relative to the largest element: the order of its sums.
const DOUBLE: f64 = 1e-11;
/// The same for executors in f32.
const SINGLE: f64 = 1e-4;
/// The same for ResNet-50 with batch statistics: PyTorch's own f32 differs from its f64 by 3e-3 there.
const DEEP: f64 = 2e-2;
/// Share of the pixels whose step may turn over where a gradient is nearly zero, in f32.
const TURNED: f64 = 0.005;

/// Narrow where the networks have a width.
const MODELS: [&str; 14] = [
    "mlp",
    "mnist-fast",
    "mnist-madry",
    "lenet5",
    "small-cnn",
    "preact-resnet18-w4",
    "preact-resnet18-gradalign-w2",
    "resnet18-w4",
    "resnet34-w2",
    "resnet50-w2",
    "resnet50-cifar-w2",
    "wide-resnet-16-2",
    "vgg11-bn-w2",
    "convnext-tiny-w4",
];

/// Built from the parts of others. A software adapter compiles every shape of every kernel for long, so these are held
/// there in evaluation alone.
const AGAIN: [&str; 4] = ["preact-resnet18-gradalign-w2", "resnet34-w2", "resnet50-w2", "resnet50-cifar-w2"];

/// A file of reference numbers, and the network it is about.
struct Model {
    file: Reference,
    inputs: Inputs,
    architecture: Box<dyn Architecture>,
    params: Params,
    epsilon: f64,
    step: f64,
}

impl Model {
    fn open(name: &str) -> Model {
        let file = Reference::open(name);
        let (epsilon, step) = epsilon_and_step(name);
        let inputs = file.inputs(epsilon);
        let [channels, rows, columns] = inputs.images.shape[1..] else { panic!("images are NCHW") };
        let architecture = architectures::by_name(name, [rows, columns, channels], 10).unwrap();
        let params = Params::of(architecture.as_ref()).unwrap();
        Model { file, inputs, architecture, params, epsilon, step }
    }

    fn has_batch_norm(&self) -> bool {
        self.params.iter().any(|param| param.name.ends_with("running_mean"))
    }

    /// A store with the weights, the images as `x`, the labels, and the attack's start as `adversarial`.
    fn store(&self, device: &Device) -> Store {
        let store = Store::new(device);
        for Tensor { name, shape, values } in &self.inputs.state {
            let ours = self.params.from_torch(name, shape, values).unwrap();
            store.put(name, self.params.get(name).unwrap().shape, &Host::F32(ours)).unwrap();
        }
        for (name, tensor) in [("x", &self.inputs.images), ("adversarial", &self.inputs.start)] {
            let nhwc = permute(&tensor.values, &tensor.shape, &[0, 2, 3, 1]);
            store.put(name, self.images(), &Host::F32(nhwc)).unwrap();
        }
        let labels = &self.inputs.labels;
        store.put("labels", [labels.len()], &Host::U32(labels.clone())).unwrap();
        for (name, value) in [("radius", self.epsilon), ("step", self.step)] {
            store.put(name, [], &Host::F64(vec![value])).unwrap();
        }
        store
    }

    fn images(&self) -> Shape {
        let [rows, columns, channels] = self.architecture.input();
        Shape::new(&[self.inputs.labels.len(), rows, columns, channels])
    }

    /// A tensor of the store in PyTorch's layout: a parameter, its gradient, images or anything plain.
    fn read(&self, store: &Store, tensor: &str, like: &str) -> Vec<f64> {
        let values = store.read_f64(tensor).unwrap();
        if like == "images" {
            return permute(&values, self.images().dims(), &[0, 3, 1, 2]);
        }
        match self.params.get(like) {
            Some(param) => param.to_torch(&values).unwrap().1,
            None => values,
        }
    }

    /// Logits of `x` and the sum of their cross-entropies.
    fn loss<'t>(&self, net: &Net<'t>, x: Var<'t>) -> (Var<'t>, Var<'t>) {
        let logits = self.architecture.forward(net, x);
        let labels = net.tape().source("labels", [self.inputs.labels.len()], DType::U32);
        (logits, logits.cross_entropy(labels).sum_all())
    }
}

/// The tests of all devices, on the CPU executors and on every GPU adapter there is.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        mod cpu {
            $(#[test] fn $test() { super::$test(super::cpus(super::DOUBLE, super::SINGLE)); })*
        }
        mod gpu {
            $(#[test] fn $test() { super::$test(super::gpus(super::SINGLE)); })*
        }
    };
}

tests! {
    logits_losses_and_every_gradient_are_pytorchs,
    a_step_of_pgd_from_pytorchs_iterates_is_pytorchs,
    signs_of_fgsm_and_of_pgds_first_step_are_pytorchs,
    three_steps_of_every_optimiser_are_pytorchs,
    the_gradient_of_a_gradient_is_pytorchs,
}

/// Holds one stored tensor, with the device and model in the message.
#[track_caller]
fn hold(model: &Model, device: &Device, name: &str, got: &[f64], tolerance: f64) {
    if let Err(why) = model.file.check(name, got, tolerance) {
        panic!("{} on {}: {why}", model.architecture.name(), device.describe());
    }
}

#[test]
fn names_shapes_and_order_are_those_of_pytorchs_state_dict() {
    for name in MODELS {
        let model = Model::open(name);
        let ours: Vec<_> = model.params.iter().map(|p| (p.name.clone(), p.torch_shape())).collect();
        let theirs: Vec<_> = model.inputs.state.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// Logits, loss, gradients by the input and by every parameter, and running statistics.
fn gradients(model: &Model, device: &Device, mode: Mode, prefix: &str, tolerance: f64) {
    let store = model.store(device);
    let tape = Tape::new();
    let net = Net::new(&tape, mode);
    let x = tape.source("x", model.images(), DType::F32);
    let (logits, loss) = model.loss(&net, x);
    let loss = loss.scale(1.0 / model.inputs.labels.len() as f64);
    let weights = net.weights();
    let mut by = vec![x];
    by.extend(weights.iter().map(|(_, var)| *var));
    let gradients = tape.grad(loss, &by);
    tape.assign("logits", logits);
    tape.assign("loss", loss);
    tape.assign("grad.input", gradients[0]);
    for ((name, _), gradient) in weights.iter().zip(&gradients[1..]) {
        tape.assign(&format!("grad.{name}"), *gradient);
    }
    for (name, value) in net.updates() {
        tape.assign(&name, value);
    }
    Plan::compile(&tape, &store).unwrap().run().unwrap();

    let deep = mode != Mode::Eval && model.architecture.name().starts_with("resnet50");
    let tolerance = if deep && tolerance == SINGLE { DEEP } else { tolerance };
    let check = |what: &str, like: &str, stored: &str| {
        hold(model, device, stored, &model.read(&store, what, like), tolerance);
    };
    check("logits", "", &format!("{prefix}.logits"));
    check("loss", "", &format!("{prefix}.loss"));
    check("grad.input", "images", &format!("{prefix}.grad.input"));
    for (name, _) in &weights {
        // The statistics of a batch take a convolution's bias away again: its gradient is a sum that leaves nothing.
        if let Some(layer) =
            name.strip_suffix(".bias").filter(|layer| mode != Mode::Eval && layer.starts_with("features."))
            && model.params.get(&format!("{layer}.weight")).unwrap().role == Role::Weight
        {
            let largest = |name: &str| {
                store.read_f64(&format!("grad.{name}")).unwrap().iter().fold(0f64, |m, x| m.max(x.abs()))
            };
            let (bias, weight) = (largest(name), largest(&format!("{layer}.weight")));
            assert!(bias <= 10.0 * tolerance * weight, "{name}: {bias} beside {weight}");
            continue;
        }
        check(&format!("grad.{name}"), name, &format!("{prefix}.grad.{name}"));
    }
    for param in model.params.iter().filter(|param| param.name.contains(".running_")) {
        if mode == Mode::Train {
            check(&param.name, &param.name, &format!("{prefix}.after.{}", param.name));
        } else {
            let before = model.inputs.state.iter().find(|t| t.name == param.name).unwrap();
            assert_eq!(
                store.read_f32(&param.name).unwrap(),
                before.values,
                "{mode:?} changed {}",
                param.name
            );
        }
    }
}

fn logits_losses_and_every_gradient_are_pytorchs(devices: Vec<(Device, f64)>) {
    for (device, tolerance) in devices {
        for name in MODELS {
            let model = Model::open(name);
            gradients(&model, &device, Mode::Eval, "eval", tolerance);
            if model.has_batch_norm() && !(device.is_gpu() && AGAIN.contains(&name)) {
                gradients(&model, &device, Mode::Train, "train", tolerance);
                gradients(&model, &device, Mode::TrainFrozen, "train", tolerance);
            }
        }
    }
}

/// The plan of one step of PGD from `adversarial`, which it replaces.
fn pgd_step(model: &Model, store: &Store, mode: Mode) -> Plan {
    let tape = Tape::new();
    let net = Net::new(&tape, mode);
    let [x, current] = ["x", "adversarial"].map(|name| tape.source(name, model.images(), DType::F32));
    let [radius, step] = ["radius", "step"].map(|name| tape.source(name, [], DType::F32));
    let (_, loss) = model.loss(&net, current);
    let gradient = tape.grad(loss, &[current])[0];
    let ball = Ball::new(Norm::Linf, x, radius, step);
    tape.assign("adversarial", ball.ascend(current, gradient));
    for (name, value) in net.updates() {
        tape.assign(&name, value);
    }
    Plan::compile(&tape, store).unwrap()
}

#[test]
fn five_steps_of_pgd_are_pytorchs() {
    let device = Device::reference();
    for name in MODELS {
        let model = Model::open(name);
        let modes = [(Mode::Eval, "pgd"), (Mode::Train, "pgd-train")];
        for (mode, prefix) in &modes[..if model.has_batch_norm() { 2 } else { 1 }] {
            let store = model.store(&device);
            let step = pgd_step(&model, &store, *mode);
            for i in 1..=5 {
                step.run().unwrap();
                let x = model.read(&store, "adversarial", "images");
                hold(&model, &device, &format!("{prefix}.x{i}"), &x, DOUBLE);
            }
            for param in model.params.iter().filter(|param| param.name.contains(".running_")) {
                if *mode == Mode::Train {
                    let running = model.read(&store, &param.name, &param.name);
                    hold(&model, &device, &format!("{prefix}.after.{}", param.name), &running, DOUBLE);
                }
            }
        }
    }
}

fn a_step_of_pgd_from_pytorchs_iterates_is_pytorchs(devices: Vec<(Device, f64)>) {
    for (device, _) in devices {
        for name in MODELS.into_iter().filter(|name| !device.is_gpu() || !AGAIN.contains(name)) {
            let model = Model::open(name);
            let store = model.store(&device);
            let step = pgd_step(&model, &store, Mode::Eval);
            for i in 1..=5 {
                step.run().unwrap();
                let (shape, want) = model.file.get(&format!("pgd.x{i}"));
                let got = model.read(&store, "adversarial", "images");
                let turned =
                    got.iter().zip(&want).filter(|(got, want)| (**got - **want).abs() > 1e-6).count();
                assert!(
                    (turned as f64) <= TURNED * want.len() as f64,
                    "{name} on {}: {turned} of {} pixels differ after step {i}",
                    device.describe(),
                    want.len()
                );
                // On from what PyTorch has, so that steps do not add up what turned over.
                store.write_f64("adversarial", &permute(&want, &shape, &[0, 2, 3, 1])).unwrap();
            }
        }
    }
}

/// Share of a gradient's largest magnitude below which f32 need not know its sign.
const TINY: f64 = 1e-4;

/// Signs of gradients in f32 where they are not tiny, at the images (FGSM) and at PGD's start: 99.99 % agree.
fn signs_of_fgsm_and_of_pgds_first_step_are_pytorchs(devices: Vec<(Device, f64)>) {
    for (device, _) in devices {
        // A software adapter compiles for long: a network of each kind there.
        let few = ["mnist-fast", "preact-resnet18-w4"];
        for name in MODELS.into_iter().filter(|name| !device.is_gpu() || few.contains(name)) {
            let model = Model::open(name);
            let plan = |device: &Device| {
                let (store, tape) = (model.store(device), Tape::new());
                let at = tape.source("adversarial", model.images(), DType::F32);
                let (_, loss) = model.loss(&Net::new(&tape, Mode::Eval), at);
                tape.assign("gradient", tape.grad(loss, &[at])[0]);
                (Plan::compile(&tape, &store).unwrap(), store)
            };
            let gradient = |(plan, store): &(Plan, Store)| {
                plan.run().unwrap();
                model.read(store, "gradient", "images")
            };
            let (here, exact) = (plan(&device), plan(&Device::reference()));
            // At the start the reference executor stands for PyTorch, which it is held against to 1e-11 by the other tests.
            let start = (gradient(&here), gradient(&exact));
            let (store, images) = (&here.1, store_images(&model));
            store.write_f32("adversarial", &images).unwrap();
            let image = (gradient(&here), model.file.get("eval.grad.input").1);
            for (what, (got, want)) in [("PGD-1", start), ("FGSM", image)] {
                let largest = want.iter().fold(0f64, |most, g| most.max(g.abs()));
                let clear = || got.iter().zip(&want).filter(|(_, want)| want.abs() > TINY * largest);
                let (count, turned) = (clear().count(), clear().filter(|(a, b)| *a * *b <= 0.0).count());
                assert!(count * 2 > want.len(), "{name}: {count} gradients of {} are not tiny", want.len());
                let share = turned as f64 / count as f64;
                assert!(share <= 1e-4, "{what}, {name} on {}: {turned} of {count} differ", device.describe());
            }
        }
    }
}

/// A model's images as they lie in a store.
fn store_images(model: &Model) -> Vec<f32> {
    permute(&model.inputs.images.values, &model.inputs.images.shape, &[0, 2, 3, 1])
}

/// Every weight after three steps on the same batch, full gradients, in PyTorch's layout.
fn three_steps(
    model: &Model,
    device: &Device,
    (optimizer, decayed): (&Optimizer, Decayed),
    rate: f64,
) -> Vec<(String, Vec<f64>)> {
    let store = model.store(device);
    let tape = Tape::new();
    let net = Net::new(&tape, Mode::Train);
    let (_, loss) = model.loss(&net, tape.source("x", model.images(), DType::F32));
    let weights = net.weights();
    let by: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
    let gradients = tape.grad(loss.scale(1.0 / model.inputs.labels.len() as f64), &by);
    for ((name, weight), gradient) in weights.iter().zip(gradients) {
        let decays = decayed.has(model.params.get(name).unwrap().role);
        optimizer.decaying(decays).record(&tape, name, *weight, gradient);
    }
    let plan = Plan::compile(&tape, &store).unwrap();
    for t in 1..=3 {
        optimizer.prepare(&store, t, rate).unwrap();
        plan.run().unwrap();
    }
    weights.into_iter().map(|(name, _)| (name.clone(), model.read(&store, &name, &name))).collect()
}

fn three_steps_of_every_optimiser_are_pytorchs(devices: Vec<(Device, f64)>) {
    let model = Model::open("mnist-fast");
    let sgd = |nesterov| Optimizer::Sgd { momentum: 0.9, nesterov, weight_decay: 5e-4 };
    let adam = |weight_decay, decoupled| Optimizer::Adam {
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay,
        decoupled,
    };
    let rules = [
        ("sgd", 0.1, sgd(false)),
        ("nesterov", 0.1, sgd(true)),
        ("adam", 2e-3, adam(5e-4, false)),
        ("adamw", 2e-3, adam(1e-2, true)),
        (
            "adam-numbers",
            2e-3,
            Optimizer::Adam { betas: [0.5, 0.9], epsilon: 1e-2, weight_decay: 0.0, decoupled: false },
        ),
        // Decay on weights alone.
        ("sgd-weights", 0.1, Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-2 }),
        ("adamw-weights", 2e-3, adam(1.0, true)),
    ];
    for (rule, rate, optimizer) in &rules {
        let decayed = if rule.ends_with("-weights") { Decayed::Weights } else { Decayed::All };
        let optimizer = (optimizer, decayed);
        let exact = three_steps(&model, &Device::reference(), optimizer, *rate);
        for (device, tolerance) in &devices {
            let weights = three_steps(&model, device, optimizer, *rate);
            for ((name, got), (_, exact)) in weights.iter().zip(&exact) {
                if !(matches!(optimizer.0, Optimizer::Adam { .. }) && *tolerance == SINGLE) {
                    hold(&model, device, &format!("after.{rule}.{name}"), got, *tolerance);
                    continue;
                }
                // Adam's first steps are signs of gradients: where one is nearly zero, f32 may step another way.
                let turned = got.iter().zip(exact).filter(|(a, b)| (**a - **b).abs() > 1e-5).count();
                let device = device.describe();
                assert!(
                    turned as f64 <= TURNED * got.len() as f64,
                    "{rule} on {device}: {turned} of {} elements of {name} differ",
                    got.len()
                );
            }
        }
    }
}

fn the_gradient_of_a_gradient_is_pytorchs(devices: Vec<(Device, f64)>) {
    let model = Model::open("mnist-fast");
    for (device, tolerance) in devices {
        let store = model.store(&device);
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Train);
        let x = tape.source("x", model.images(), DType::F32);
        let (_, loss) = model.loss(&net, x);
        let dx = tape.grad(loss, &[x])[0];
        let penalty = dx.square().sum_all().scale(1.0 / model.inputs.labels.len() as f64);
        let weights = net.weights();
        let by: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
        tape.assign("penalty", penalty);
        for ((name, _), gradient) in weights.iter().zip(tape.grad(penalty, &by)) {
            tape.assign(&format!("grad.{name}"), gradient);
        }
        Plan::compile(&tape, &store).unwrap().run().unwrap();
        hold(&model, &device, "penalty.value", &store.read_f64("penalty").unwrap(), tolerance);
        for (name, _) in &weights {
            let gradient = model.read(&store, &format!("grad.{name}"), name);
            hold(&model, &device, &format!("penalty.grad.{name}"), &gradient, tolerance);
        }
    }
}
