//! The works on every device here, without peers and without Python: times, and each adapter's results held against
//! the CPU executor's.

use crate::measure::{Filter, Subject, median, print_machine, subjects};
use crate::overhead::{self, Own};
use crate::tensors::{Tensor, Tensors};
use crate::work::{Loaded, What, Work, network};
use adamant::Result;
use adamant::nn::Params;
use adamant::plan::Precision;
use std::time::Duration;

/// A row: its name, the work, and whether it is too much for software Vulkan.
type Row = (String, Work, bool);

fn works() -> Vec<Row> {
    let train = |net: &str, batch, epsilon: &str, step_size: &str| Work::Train {
        net: net.into(),
        batch,
        steps: 10,
        epsilon: epsilon.into(),
        step_size: step_size.into(),
        learning_rate: 1e-3,
    };
    let net = || "resnet18".to_string();
    let mut works = vec![
        ("W1 PGD-10 training step, MNIST CNN, batch 128".into(), train("cnn", 128, "0.3", "0.05"), false),
        ("W2a forward, ResNet-18, batch 128".into(), Work::Logits { net: net(), batch: 128 }, false),
        (
            "W2b forward and input gradient, ResNet-18, batch 128".into(),
            Work::Gradient { net: net(), batch: 128 },
            false,
        ),
        (
            "W2c PGD-10 training step, ResNet-18, batch 32".into(),
            train("resnet18", 32, "8/255", "2/255"),
            true,
        ),
        (
            "W2c PGD-10 training step, ResNet-18, batch 128".into(),
            train("resnet18", 128, "8/255", "2/255"),
            true,
        ),
    ];
    for (name, what) in [
        ("forward", What::Forward),
        ("input gradient", What::InputGradient),
        ("weight gradient", What::WeightGradient),
    ] {
        for (size, inputs, outputs) in
            [(32, 64, 64), (16, 128, 128), (8, 256, 256), (4, 512, 512), (32, 3, 64)]
        {
            let name = format!("W3 {name}, {inputs}-{outputs} at {size}x{size}, batch 32");
            works.push((name, Work::Convolution { what, batch: 32, size, inputs, outputs }, false));
        }
    }
    works.push(("W3 GEMM 1024^3".into(), Work::Product { size: 1024 }, false));
    works
}

/// Floating-point operations of a convolution or product.
fn flops(work: &Work) -> Option<f64> {
    match *work {
        Work::Convolution { batch, size, inputs, outputs, .. } => {
            Some((2 * batch * size * size * 9 * inputs * outputs) as f64)
        }
        Work::Product { size } => Some(2.0 * (size as f64).powi(3)),
        _ => None,
    }
}

/// Numbers in [-1, 1), the same for the same tensor and extents (SplitMix64).
fn made(number: u64, shape: &[usize]) -> Tensor {
    let value = |i: usize| {
        let x = ((number << 32) + i as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 40) as f32 * 2f32.powi(-23) - 1.0
    };
    Tensor { shape: shape.to_vec(), values: (0..shape.iter().product()).map(value).collect() }
}

/// Weights and inputs of a work, in PyTorch's layout.
fn inputs(work: &Work) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    match work {
        Work::Product { size } => {
            for (number, name) in ["a", "b"].into_iter().enumerate() {
                tensors.insert(name.into(), made(number as u64, &[*size, *size]));
            }
        }
        &Work::Convolution { batch, size, inputs, outputs, .. } => {
            tensors.insert("x".into(), made(0, &[batch, inputs, size, size]));
            tensors.insert("dy".into(), made(1, &[batch, outputs, size, size]));
            tensors.insert("filter".into(), made(2, &[outputs, inputs, 3, 3]));
        }
        Work::Logits { net, batch } | Work::Gradient { net, batch } | Work::Train { net, batch, .. } => {
            let network = network(net)?;
            let params = Params::of(network.as_ref())?;
            for (param, values) in params.iter().zip(params.initial(0)) {
                let (shape, values) = param.to_torch(&values)?;
                tensors.insert(format!("weights.{}", param.name), Tensor { shape, values });
            }
            let [rows, columns, channels] = network.input();
            let mut images = made(0, &[*batch, channels, rows, columns]);
            images.values.iter_mut().for_each(|x| *x = ((*x + 1.0) * 127.5).round() / 255.0);
            tensors.insert("images".into(), images);
            let labels = (0..*batch).map(|i| (i % 10) as f32).collect();
            tensors.insert("labels".into(), Tensor { shape: vec![*batch], values: labels });
        }
    }
    Ok(tensors)
}

/// The largest difference as a share of the largest magnitude.
fn difference(got: &Tensor, want: &Tensor) -> f32 {
    let most = |values: &mut dyn Iterator<Item = f32>| {
        values.fold(0f32, |a, b| if b > a || b.is_nan() { b } else { a })
    };
    let error = most(&mut got.values.iter().zip(&want.values).map(|(a, b)| (a - b).abs()));
    error / most(&mut want.values.iter().map(|x| x.abs())).max(f32::MIN_POSITIVE)
}

/// Times the works that the command line names on every device, and prints a table.
pub fn run() -> Result<()> {
    let filter = Filter::from_arguments();
    print_machine("cargo bench --bench compare");
    println!(
        "\nDifference: of logits or results from the CPU executor's, as a share of their largest magnitude.\n"
    );
    println!("| work | device | median | GFLOP/s | difference |\n|---|---|--:|--:|--:|");
    let subjects = subjects()?;
    for (name, work, heavy) in works().into_iter().filter(|(name, ..)| filter.wants(name)) {
        let mut expected = None;
        let precisions =
            if work.can_be_half() { &[Precision::F32, Precision::F16][..] } else { &[Precision::F32] };
        for (Subject { device, adapter, name: on }, &precision) in
            subjects.iter().flat_map(|subject| precisions.iter().map(move |precision| (subject, precision)))
        {
            if heavy && adapter.as_ref().is_some_and(|adapter| adapter.is_software()) {
                continue;
            }
            // A device that cannot do a work is no end of the others.
            let done = Loaded::new(work.clone(), precision, inputs(&work)?, device).and_then(|loaded| {
                let result = if work.is_training() { None } else { loaded.results()?.pop_last() };
                Ok((median(Duration::from_secs(2), |times| loaded.run(times))?, result))
            });
            match done {
                Ok((seconds, result)) => {
                    let rate = flops(&work).map(|flops| format!("{:.1}", flops / seconds / 1e9));
                    let result = result.map(|(_, result)| result);
                    let error = result.as_ref().zip(expected.as_ref());
                    let error = error.map(|(got, want)| format!("{:.1e}", difference(got, want)));
                    let (rate, error) = (rate.unwrap_or_default(), error.unwrap_or_default());
                    println!("| {name} | {on}, {precision} | {:.3} ms | {rate} | {error} |", 1e3 * seconds);
                    expected = expected.or(result);
                }
                Err(error) => println!("| {name} | {on}, {precision} | {error} | | |"),
            }
        }
    }
    Ok(())
}

/// Times every launch of the training steps that the command line names on every device: those first that take most.
pub fn launches() -> Result<()> {
    let filter = Filter::from_arguments();
    print_machine("cargo bench --bench compare -- launches");
    let subjects = subjects()?;
    let wanted = |(name, work, _): &Row| work.is_training() && filter.wants(name);
    for (name, work, heavy) in works().into_iter().filter(wanted) {
        for Subject { device, adapter, name: on } in &subjects {
            if heavy && adapter.as_ref().is_some_and(|adapter| adapter.is_software()) {
                continue;
            }
            let loaded = Loaded::new(work.clone(), Precision::F32, inputs(&work)?, device)?;
            let (step, mut launches) = (overhead::of(&loaded)?, overhead::launches(&loaded)?);
            println!(
                "\n## {name}, {on}: {:.2} ms, {:.2} ms of it in the kernels of {} launches\n\nEach many times in a row:\n\n\
                 | launch | times | mean | GFLOP/s | share |\n|---|--:|--:|--:|--:|",
                1e3 * step.step,
                1e3 * step.kernels,
                step.launches
            );
            let total = |launch: &Own| launch.times as f64 * launch.seconds;
            launches.sort_by(|a, b| total(b).total_cmp(&total(a)));
            let all: f64 = launches.iter().map(total).sum();
            for launch in &launches {
                let rate = match launch.flops {
                    0 => String::new(),
                    flops => format!("{:.1}", flops as f64 / launch.seconds / 1e9),
                };
                println!(
                    "| {} | {} | {:.3} ms | {rate} | {:.1} % |",
                    launch.name,
                    launch.times,
                    1e3 * launch.seconds,
                    100.0 * total(launch) / all
                );
            }
        }
    }
    Ok(())
}
