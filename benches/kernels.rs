//! Kernels at the shapes of the models, on the CPU executor and on every adapter.
//!
//!     cargo bench --bench kernels                  # everything
//!     cargo bench --bench kernels -- conv2d map    # rows whose name contains one of these words
//!
//! Each row is a plan of one launch, run many times in one submission: the median time of a run (on a GPU with what
//! a launch in a row costs beyond its kernel), the rates, and the share of the device's ceiling. The ceiling is
//! measured first: fused multiply-adds on registers, and a copy of 64 MiB. A kernel can take no less time than the
//! larger of its operations over the one and its bytes over the other; that over the time it took is its share.
//! Bytes count each buffer once; what stays in a cache between runs may exceed the copy's rate.

mod measure;

use adamant::shape::{DType, Shape};
use adamant::tape::{Conv2d, Var};
use adamant::{Device, Plan, Program, Result, Step, Store, Tape};
use measure::{Ceiling, Filter};
use std::process::ExitCode;
use std::time::Duration;

/// A row: its name and what it records.
struct Case {
    name: String,
    record: Box<dyn Fn(&Tape)>,
}

fn source<'t>(tape: &'t Tape, name: &str, dims: &[usize]) -> Var<'t> {
    tape.source(name, Shape::new(dims), DType::F32)
}

/// A convolution of `[n, side, side, c]` by a `[size, size, c, k]` filter, and its two gradients.
fn conv(cases: &mut Vec<Case>, what: &str, [n, side, c]: [usize; 3], [size, k]: [usize; 2], conv: Conv2d) {
    let [p, q] = conv.output([side, side], [size, size]).expect("the filter fits");
    let (x, w, y) = ([n, side, side, c], [size, size, c, k], [n, p, q, k]);
    let mut add = |direction: &str, record: Box<dyn Fn(&Tape)>| {
        let stride = if conv.stride == [1, 1] { "" } else { " stride 2" };
        let name = format!(
            "conv2d {direction}: {size}x{size}{stride} {c}->{k} at {side}x{side}, batch {n} ({what})"
        );
        cases.push(Case { name, record });
    };
    add(
        "forward",
        Box::new(move |tape| {
            tape.assign("y", source(tape, "x", &x).conv2d(source(tape, "w", &w), conv));
        }),
    );
    add(
        "input_grad",
        Box::new(move |tape| {
            let dy = source(tape, "dy", &y);
            tape.assign("dx", dy.conv2d_input_grad(source(tape, "w", &w), Shape::new(&x), conv));
        }),
    );
    add(
        "weight_grad",
        Box::new(move |tape| {
            let x = source(tape, "x", &x);
            tape.assign("dw", x.conv2d_weight_grad(source(tape, "dy", &y), Shape::new(&w), conv));
        }),
    );
}

/// A matrix product of `[m, k]` by `[k, n]`, either factor stored transposed.
fn matmul(cases: &mut Vec<Case>, what: &str, [m, n, k]: [usize; 3], ta: bool, tb: bool) {
    let a = if ta { [k, m] } else { [m, k] };
    let b = if tb { [n, k] } else { [k, n] };
    let mark = |t: bool| if t { "^T" } else { "" };
    cases.push(Case {
        name: format!("matmul a{} b{}: {m}x{n}x{k} ({what})", mark(ta), mark(tb)),
        record: Box::new(move |tape| {
            tape.assign("c", source(tape, "a", &a).matmul_t(ta, source(tape, "b", &b), tb));
        }),
    });
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let all = &mut cases;
    let same = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let halving = Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::default() };
    let wide = Conv2d { padding: [2, 2], ..Conv2d::default() };
    conv(all, "mnist-fast", [64, 28, 1], [4, 16], halving);
    conv(all, "mnist-fast", [64, 14, 16], [4, 32], halving);
    conv(all, "mnist-madry", [64, 28, 1], [5, 32], wide);
    conv(all, "ResNet-18", [32, 32, 3], [3, 64], same);
    for (side, channels) in [(32, 64), (16, 128), (8, 256), (4, 512)] {
        conv(all, "ResNet-18", [32, side, channels], [3, channels], same);
    }
    for (what, [rows, inputs, outputs]) in [("mnist-fast", [64, 1568, 100]), ("mnist-fast", [64, 100, 10])] {
        matmul(all, &format!("{what}, forward"), [rows, outputs, inputs], false, false);
        matmul(all, &format!("{what}, input_grad"), [rows, inputs, outputs], false, true);
        matmul(all, &format!("{what}, weight_grad"), [inputs, outputs, rows], true, false);
    }
    matmul(all, "square", [512; 3], false, false);
    matmul(all, "square", [1024; 3], false, false);
    const ELEMENTS: usize = 1 << 24;
    all.push(Case {
        name: "map: relu(x + y), 16 Mi elements".into(),
        record: Box::new(|tape| {
            let (x, y) = (source(tape, "x", &[ELEMENTS]), source(tape, "y", &[ELEMENTS]));
            tape.assign("z", (x + y).relu());
        }),
    });
    all.push(Case {
        name: "reduce: sum of 16 Mi elements".into(),
        record: Box::new(|tape| tape.assign("sum", source(tape, "x", &[ELEMENTS]).sum_all())),
    });
    all.push(Case {
        name: "reduce: sum over 256 Ki rows of 64 channels".into(),
        record: Box::new(|tape| tape.assign("sum", source(tape, "x", &[ELEMENTS / 64, 64]).sum(&[0]))),
    });
    cases
}

/// Seconds, operations and bytes of a run of the case.
fn measure(case: &Case, device: &Device) -> Result<(f64, f64, f64)> {
    let (tape, store) = (Tape::new(), Store::new(device));
    (case.record)(&tape);
    let plan = Plan::compile(&tape, &store)?;
    for tensor in &plan.schedule().tensors {
        // Small numbers of both signs: no denormals, which would slow a processor down.
        let values: Vec<f32> = (0..tensor.shape.len()).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        store.write_f32(&tensor.name, &values)?;
    }
    let seconds = measure::median(Duration::from_millis(250), |runs| {
        Program::new(vec![Step::Repeat(runs, &plan)]).run()?;
        device.wait()
    })?;
    let bytes: u64 = plan.schedule().launches.iter().map(|launch| plan.schedule().bytes(launch)).sum();
    Ok((seconds, plan.schedule().flops() as f64, bytes as f64))
}

fn run() -> Result<()> {
    let filter = Filter::from_arguments();
    measure::print_machine("cargo bench --bench kernels");
    for subject in measure::subjects()? {
        let ceiling = Ceiling::of(subject.adapter.as_ref())?;
        println!(
            "\n## {}\n\nCeiling: {:.0} GFLOP/s in multiply-adds on registers, {:.1} GB/s in a copy of 64 MiB.\n",
            subject.device.describe(),
            ceiling.flops / 1e9,
            ceiling.bytes / 1e9
        );
        println!("| kernel | median | GFLOP/s | GB/s | share of ceiling |\n|---|--:|--:|--:|--:|");
        for case in cases().iter().filter(|case| filter.wants(&case.name)) {
            let (seconds, flops, bytes) = measure(case, &subject.device)?;
            let least = (flops / ceiling.flops).max(bytes / ceiling.bytes);
            println!(
                "| {} | {:.3} ms | {} | {:.1} | {:.0} % |",
                case.name,
                1e3 * seconds,
                if flops > 0.0 { format!("{:.1}", flops / seconds / 1e9) } else { "".into() },
                bytes / seconds / 1e9,
                100.0 * least / seconds
            );
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    measure::report(run())
}
