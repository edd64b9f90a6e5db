//! Single ops against PyTorch: values, and gradients of `sum(dy * y)`, on every device. tests/reference/README.md
//! says what the cases are.

mod reference;

use adamant::device::Device;
use adamant::nn::{Conv2d, Mode, Net, Pool, Tape, Var};
use adamant::plan::Plan;
use adamant::tensor::{Host, Store};
use adamant::{DType, Shape};
use reference::{Reference, permute};

/// Axes of a tensor here in terms of PyTorch's, by its number of axes there: filters are `w`, the rest images.
fn layout(tensor: &str, rank: usize) -> &'static [usize] {
    match (tensor, rank) {
        ("w", 4) => &[2, 3, 1, 0],
        (_, 4) => &[0, 2, 3, 1],
        (_, 2) => &[0, 1],
        _ => &[0],
    }
}

/// The inverse of [`layout`].
fn back(tensor: &str, rank: usize) -> &'static [usize] {
    match (tensor, rank) {
        ("w", 4) => &[3, 2, 0, 1],
        (_, 4) => &[0, 3, 1, 2],
        (_, 2) => &[0, 1],
        _ => &[0],
    }
}

struct Ops {
    file: Reference,
    device: Device,
    tolerance: f64,
}

impl Ops {
    fn source<'t>(&self, tape: &'t Tape, store: &Store, case: &str, tensor: &str) -> Var<'t> {
        let name = format!("{case}.{tensor}");
        let (shape, values) = self.file.get(&name);
        let perm = layout(tensor, shape.len());
        let dims: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
        store.put(&name, Shape::new(&dims), &Host::F64(permute(&values, &shape, perm))).unwrap();
        tape.source(&name, Shape::new(&dims), DType::F32)
    }

    #[track_caller]
    fn hold(&self, store: &Store, tensor: &str, stored: &str) {
        let (shape, _) = self.file.get(stored);
        let kind = stored.rsplit('.').next().unwrap().trim_start_matches('d');
        let perm = layout(kind, shape.len());
        let dims: Vec<usize> = perm.iter().map(|&axis| shape[axis]).collect();
        let got = permute(&store.read_f64(tensor).unwrap(), &dims, back(kind, shape.len()));
        if let Err(why) = self.file.check(stored, &got, self.tolerance) {
            panic!("on {}: {why}", self.device.describe());
        }
    }

    /// Holds the case's result and its gradient by each of `inputs`.
    #[track_caller]
    fn case<'s>(
        &self,
        case: &str,
        inputs: &[&str],
        record: impl for<'t> Fn(&[Var<'t>], &Store) -> Var<'t> + 's,
    ) {
        let (store, tape) = (Store::new(&self.device), Tape::new());
        let vars: Vec<Var<'_>> = inputs.iter().map(|input| self.source(&tape, &store, case, input)).collect();
        let y = record(&vars, &store);
        let dy = self.source(&tape, &store, case, "dy");
        let y = y.reshape(dy.shape());
        tape.assign("y", y);
        for (input, gradient) in inputs.iter().zip(tape.grad(y * dy, &vars)) {
            tape.assign(&format!("d{input}"), gradient);
        }
        Plan::compile(&tape, &store).unwrap().run().unwrap();
        self.hold(&store, "y", &format!("{case}.y"));
        for input in inputs {
            self.hold(&store, &format!("d{input}"), &format!("{case}.d{input}"));
        }
    }

    fn labels<'t>(&self, tape: &'t Tape, store: &Store) -> Var<'t> {
        let labels: Vec<u32> = self.file.get("labels").1.iter().map(|&label| label as u32).collect();
        store.put("labels", [labels.len()], &Host::U32(labels.clone())).unwrap();
        tape.source("labels", [labels.len()], DType::U32)
    }
}

fn on(devices: Vec<(Device, f64)>, test: impl Fn(&Ops)) {
    for (device, tolerance) in devices {
        test(&Ops { file: Reference::open("ops"), device, tolerance });
    }
}

/// Each test on the CPU executors, and on every GPU adapter there is.
macro_rules! tests {
    ($($test:ident),* $(,)?) => {
        mod cpu {
            $(#[test] fn $test() { super::on(super::reference::cpus(1e-13, 2e-6), super::$test); })*
        }
        mod gpu {
            $(#[test] fn $test() { super::on(super::reference::gpus(2e-6), super::$test); })*
        }
    };
}

tests! {
    losses,
    activations,
    clamp_lets_gradients_through_between_its_bounds_and_at_them,
    ties_share_a_gradient,
    convolutions_and_pools,
    batch_norm_in_its_modes,
}

fn losses(ops: &Ops) {
    ops.case("softmax", &["x"], |v, _| v[0].softmax());
    ops.case("log_softmax", &["x"], |v, _| v[0].log_softmax());
    ops.case("cross_entropy", &["x"], |v, store| v[0].cross_entropy(ops.labels(v[0].tape(), store)));
    ops.case("cross_entropy.smooth", &["x"], |v, store| {
        let labels = ops.labels(v[0].tape(), store);
        v[0].cross_entropy_soft(labels.one_hot(5).affine(0.9, 0.1 / 5.0))
    });
    ops.case("cross_entropy.soft", &["x"], |v, store| {
        v[0].cross_entropy_soft(ops.source(v[0].tape(), store, "cross_entropy.soft", "target"))
    });
    ops.case("kl", &["p", "q"], |v, _| v[1].kl_divergence(v[0]));
}

fn activations(ops: &Ops) {
    ops.case("gelu", &["x"], |v, _| v[0].gelu());
    ops.case("silu", &["x"], |v, _| v[0].silu());
    ops.case("sigmoid", &["x"], |v, _| v[0].sigmoid());
    ops.case("tanh", &["x"], |v, _| v[0].tanh());
    ops.case("erf", &["x"], |v, _| v[0].erf());
    ops.case("relu", &["x"], |v, _| v[0].relu());
    ops.case("leaky_relu", &["x"], |v, _| v[0].leaky_relu(0.1));
    ops.case("abs", &["x"], |v, _| v[0].abs());
}

/// At a bound any number from 0 to 1 is a subgradient: PyTorch 2.15 gives 0, earlier releases 1, as here.
fn clamp_lets_gradients_through_between_its_bounds_and_at_them(ops: &Ops) {
    let (store, tape) = (Store::new(&ops.device), Tape::new());
    let [x, dy] = ["x", "dy"].map(|tensor| ops.source(&tape, &store, "clamp", tensor));
    let y = x.clamp(-1.5, 2.0);
    tape.assign("y", y);
    tape.assign("dx", tape.grad(y * dy, &[x])[0]);
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    ops.hold(&store, "y", "clamp.y");
    let [(_, x), (_, dy), (_, want)] =
        ["x", "dy", "dx"].map(|tensor| ops.file.get(&format!("clamp.{tensor}")));
    for (i, got) in store.read_f64("dx").unwrap().into_iter().enumerate() {
        let bound = x[i] == -1.5 || x[i] == 2.0;
        assert_eq!(got, if bound { dy[i] } else { want[i] }, "{}, x = {}", ops.device.describe(), x[i]);
    }
}

fn ties_share_a_gradient(ops: &Ops) {
    ops.case("amax", &["x"], |v, _| v[0].amax(&[1]));
    ops.case("maximum", &["a", "b"], |v, _| v[0].max(v[1]));
    ops.case("minimum", &["a", "b"], |v, _| v[0].min(v[1]));
}

fn convolutions_and_pools(ops: &Ops) {
    let square = |stride, padding, dilation, groups| Conv2d {
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [dilation; 2],
        groups,
    };
    let convolutions = [
        ("plain", square(1, 0, 1, 1)),
        ("stride", square(2, 1, 1, 1)),
        ("uneven", Conv2d { stride: [2, 3], padding: [2, 1], dilation: [1, 2], groups: 1 }),
        ("dilated", square(1, 2, 2, 1)),
        ("groups", square(1, 1, 1, 2)),
        ("depthwise", square(2, 1, 1, 4)),
        ("pointwise", square(2, 0, 1, 1)),
    ];
    for (name, conv) in convolutions {
        ops.case(&format!("conv2d.{name}"), &["x", "w"], |v, _| v[0].conv2d(v[1], conv));
    }
    ops.case("avg_pool.padded", &["x"], |v, _| v[0].avg_pool(Pool::square(3, 2, 1)));
    ops.case("max_pool.padded", &["x"], |v, _| v[0].max_pool(Pool::square(3, 2, 1)));
    let overlap = Pool { kernel: [3, 2], stride: [1, 2], padding: [0, 0] };
    ops.case("max_pool.overlap", &["x"], |v, _| v[0].max_pool(overlap));
}

fn batch_norm_in_its_modes(ops: &Ops) {
    for (mode, name) in [(Mode::Train, "train"), (Mode::TrainFrozen, "train"), (Mode::Eval, "eval")] {
        let case = format!("batch_norm.{name}");
        let (store, tape) = (Store::new(&ops.device), Tape::new());
        let net = Net::new(&tape, mode);
        for (ours, theirs) in [
            ("bn.weight", "w"),
            ("bn.bias", "b"),
            ("bn.running_mean", "running_mean"),
            ("bn.running_var", "running_var"),
        ] {
            let (shape, values) = ops.file.get(&format!("{case}.{theirs}"));
            store.put(ours, Shape::new(&shape), &Host::F64(values)).unwrap();
        }
        let x = ops.source(&tape, &store, &case, "x");
        let y = net.batch_norm("bn", x);
        let dy = ops.source(&tape, &store, &case, "dy");
        let weights = net.weights();
        tape.assign("y", y);
        let names = ["dx", "dw", "db"];
        for (name, gradient) in names.iter().zip(tape.grad(y * dy, &[x, weights[0].1, weights[1].1])) {
            tape.assign(name, gradient);
        }
        for (name, value) in net.updates() {
            tape.assign(&name, value);
        }
        Plan::compile(&tape, &store).unwrap().run().unwrap();
        for name in ["y", "dx", "dw", "db"] {
            ops.hold(&store, name, &format!("{case}.{name}"));
        }
        // The frozen mode leaves the statistics as they were.
        let after = if mode == Mode::TrainFrozen { "" } else { ".after" };
        for name in ["running_mean", "running_var"] {
            ops.hold(&store, &format!("bn.{name}"), &format!("{case}.{name}{after}"));
        }
    }
}
