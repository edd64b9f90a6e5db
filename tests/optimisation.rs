//! What surrounds an update: batches in parts, clipped gradients, averages of weights, weights to begin from.

use adamant::data::Dataset;
use adamant::nn::{Mode, Net, Params, architectures};
use adamant::tensor::Host;
use adamant::train::{Recipe, Silent, Trainer};
use adamant::weights::{self, Taking};
use adamant::{DType, Device, Error, Plan, Store, Tape};
use safetensors::tensor::{Dtype, TensorView};
use std::sync::atomic::AtomicBool;

const IMAGE: [usize; 3] = [12, 12, 1];
const IMAGES: usize = 31;

fn bytes() -> Vec<u8> {
    (0..IMAGES * 144).map(|i| (i * i * 31 % 251) as u8).collect()
}

fn data() -> Dataset {
    let classes = (0..10).map(|class| class.to_string()).collect();
    let labels = (0..IMAGES as u32).map(|i| i * 7 % 10).collect();
    Dataset::new("test", "made here", IMAGE, bytes(), labels, classes).unwrap()
}

fn trainer(device: &Device, recipe: &Recipe) -> Result<Trainer, Error> {
    let architecture = architectures::by_name(&recipe.model, IMAGE, 10)?;
    Trainer::new(recipe.clone(), architecture, &data(), device)
}

/// Two steps of PGD, SGD with momentum, batches of 12, 12 and 7.
fn recipe() -> Recipe {
    Recipe {
        model: "mlp-16".into(),
        steps: 2,
        batch: 12,
        epochs: 2,
        validation: 0,
        optimizer: "sgd".into(),
        learning_rate: 0.1,
        epsilon: "0.1".into(),
        weight_average: 0.0,
        ..Recipe::default()
    }
}

/// The CPU executors and the first GPU adapter, software ones included, with what each may differ by.
fn devices() -> Vec<(Device, f64)> {
    let adapters = Device::adapters();
    let adapter = adapters.first().expect("there is no GPU adapter to test with; a software one will do");
    vec![(Device::reference(), 1e-9), (Device::cpu(), 1e-5), (Device::gpu(adapter).unwrap(), 1e-5)]
}

/// Elements of all trained weights.
fn weights(trainer: &Trainer, prefix: &str) -> Vec<f64> {
    let read = |name: &str| trainer.store().read_f64(&format!("{prefix}{name}")).unwrap();
    trainer.params().trained().flat_map(|param| read(&param.name)).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn trained(device: &Device, recipe: &Recipe) -> Trainer {
    let mut trainer = trainer(device, recipe).unwrap();
    trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    trainer
}

/// The same images, the same random numbers, one update: only the order of sums is another. (A short last batch of 7
/// is cut into 4 and 3.)
#[test]
fn a_batch_in_parts_is_the_batch() {
    for (device, tolerance) in devices() {
        for (model, clip, average) in [("mlp-16", 0.0, 0.0), ("mnist-fast", 0.05, 0.9)] {
            let whole = Recipe {
                model: model.into(),
                clip_gradient: clip,
                weight_average: average,
                augment: vec!["flip".into()],
                ..recipe()
            };
            let parts = Recipe { micro_batch: 4, ..whole.clone() };
            let (whole, parts) = (trained(&device, &whole), trained(&device, &parts));
            for prefix in if average > 0.0 { &["", "average/"][..] } else { &[""] } {
                let difference = largest_difference(&weights(&whole, prefix), &weights(&parts, prefix));
                assert!(difference <= tolerance, "{model} on {}: {difference}", device.describe());
            }
        }
    }
}

#[test]
fn batch_norm_in_parts_moves_running_statistics_with_every_part() {
    let device = Device::reference();
    let recipe = Recipe { model: "preact-resnet18-w1".into(), epochs: 1, batch: 31, steps: 1, ..recipe() };
    let moved = |micro_batch| {
        let trainer = trained(&device, &Recipe { micro_batch, ..recipe.clone() });
        let variance = trainer.store().read_f64("bn.running_var").unwrap();
        assert!(variance.iter().all(|v| v.is_finite()));
        variance
    };
    // 31 images at once, and 31 times one, whose last maps of 2x2 pixels still have statistics.
    assert_ne!(moved(0), moved(1));
}

/// Running statistics after two batches of `torch.nn.BatchNorm1d(2, momentum=0.01, dtype=torch.float64)`, and of one with
/// its usual momentum of 0.1.
#[test]
fn batch_norm_moves_running_statistics_by_its_momentum_as_pytorch_does() {
    let after = |momentum: Option<f64>| {
        let store = Store::new(&Device::reference());
        for (name, value) in
            [("bn.running_mean", 0.0), ("bn.running_var", 1.0), ("bn.weight", 1.0), ("bn.bias", 0.0)]
        {
            store.put(name, [2], &Host::F64(vec![value; 2])).unwrap();
        }
        for (name, values) in
            [("first", [1.0, 2.0, 3.0, -1.0, 5.0, 0.5]), ("second", [0.5, 4.0, 2.0, -3.0, -1.0, 1.0])]
        {
            store.put(name, [3, 2], &Host::F64(values.to_vec())).unwrap();
        }
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Train);
        let both = || {
            for batch in ["first", "second"] {
                net.batch_norm("bn", tape.source(batch, [3, 2], DType::F32));
            }
        };
        match momentum {
            Some(momentum) => net.at_momentum(momentum, both),
            None => both(),
        }
        net.updates().iter().for_each(|(name, value)| tape.assign(name, *value));
        Plan::compile(&tape, &store).unwrap().run().unwrap();
        ["bn.running_mean", "bn.running_var"].map(|name| store.read_f64(name).unwrap()).concat()
    };
    let close = |ours: &[f64], theirs: [f64; 4]| {
        assert!(largest_difference(ours, &theirs) < 1e-15, "{ours:?} for {theirs:?}");
    };
    close(&after(Some(0.01)), [0.0347, 0.011616666666666668, 1.0422, 1.1257083333333333]);
    close(&after(None), [0.32, 0.11166666666666666, 1.395, 2.2458333333333336]);
    assert_eq!(after(Some(0.1)), after(None));
}

/// A recipe's momentum holds for every pass that moves running statistics: the update's, and in an attack that takes the
/// batch's statistics, the attack's.
#[test]
fn a_recipe_names_the_momentum_of_batch_norm() {
    let device = Device::reference();
    let statistics = |batch_norm_momentum: f64, attack: &str| {
        let recipe = Recipe {
            model: "preact-resnet18-w1".into(),
            method: "pgd".into(),
            attack_batch_norm: attack.into(),
            batch_norm_momentum,
            ..recipe()
        };
        let network = recipe.network(IMAGE, 10).unwrap();
        let trainer = Trainer::new(recipe, network, &data(), &device).unwrap();
        let read = || trainer.store().read_f64("layer1.0.bn1.running_mean").unwrap();
        let before = read();
        trainer.next_step().unwrap().run().unwrap();
        read().iter().zip(before).map(|(after, before)| after - before).collect::<Vec<f64>>()
    };
    let (usual, slow) = (statistics(0.1, "eval"), statistics(0.01, "eval"));
    assert!(usual.iter().all(|moved| moved.abs() > 1e-6), "{usual:?}");
    let tenth: Vec<f64> = usual.iter().map(|moved| moved / 10.0).collect();
    assert!(largest_difference(&slow, &tenth) < 1e-12, "{slow:?} for {tenth:?}");
    assert_ne!(statistics(0.1, "train"), usual, "the attack moves them too");
    assert!(statistics(0.0, "train").iter().all(|moved| *moved == 0.0));
    let error = Recipe { batch_norm_momentum: 1.5, ..recipe() }.check().unwrap_err().to_string();
    assert!(error.contains("batch norm's momentum") && error.contains("from 0 to 1"), "{error}");
}

#[test]
fn gradients_are_clipped_to_a_norm_of_all_of_them_together() {
    let device = Device::reference();
    let step = |clip_gradient: f64| {
        let recipe = Recipe {
            clip_gradient,
            momentum: 0.0,
            learning_rate: 1.0,
            schedule: "constant".into(),
            ..recipe()
        };
        let trainer = trainer(&device, &recipe).unwrap();
        let before = weights(&trainer, "");
        trainer.next_step().unwrap().run().unwrap();
        weights(&trainer, "").iter().zip(before).map(|(after, before)| after - before).collect::<Vec<f64>>()
    };
    let norm = |moved: &[f64]| moved.iter().map(|x| x * x).sum::<f64>().sqrt();
    let free = step(0.0);
    let length = norm(&free);
    let clipped = step(0.25 * length);
    // As PyTorch: the factor is the bound over norm + 1e-6. The clipped step was stored once more.
    let factor = 0.25 * length / (length + 1e-6);
    let scaled: Vec<f64> = free.iter().map(|x| x * factor).collect();
    assert!(largest_difference(&clipped, &scaled) <= 1e-12 * length, "{} of {length}", norm(&clipped));
    // A bound that is not reached changes nothing.
    assert!(largest_difference(&step(2.0 * length), &free) <= 1e-15);
}

/// Averages as their shares say, of the weights as they were after each step: what runs of one to six steps end with.
#[test]
fn averages_are_those_of_the_weights_after_each_step() {
    let ramp = |since: usize| ((1 + since) as f64 / (10 + since) as f64).min(0.9);
    let steady = Recipe { batch: IMAGES, schedule: "constant".into(), epsilon_warmup: 0.0, ..recipe() };
    for (device, tolerance) in devices() {
        let after = |epochs| weights(&trained(&device, &Recipe { epochs, ..steady.clone() }), "");
        let after: Vec<Vec<f64>> = (1..=6).map(after).collect();
        // For each of the six steps the share of its weights in their average.
        for (recipe, shares) in [
            (Recipe { weight_average: 0.9, ..steady.clone() }, vec![0.1; 6]),
            (
                Recipe { weight_average: 0.9, weight_average_warmup: 0.5, ..steady.clone() },
                (0..6).map(|s: usize| s.checked_sub(3).map_or(1.0, |since| 1.0 - ramp(since))).collect(),
            ),
            (Recipe { swa_start: 0.5, ..steady.clone() }, vec![1.0, 1.0, 1.0, 1.0, 1.0 / 2.0, 1.0 / 3.0]),
            (
                Recipe { swa_start: 4.0, swa_every: "step".into(), micro_batch: 1, ..steady.clone() },
                vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0 / 2.0],
            ),
        ] {
            let recipe = Recipe { epochs: 6, ..recipe };
            let trainer = trained(&device, &recipe);
            let mut average = weights(&self::trainer(&device, &recipe).unwrap(), "");
            for (now, share) in after.iter().zip(shares) {
                average.iter_mut().zip(now).for_each(|(average, now)| *average += share * (now - *average));
            }
            let difference = largest_difference(&average, &weights(&trainer, "average/"));
            let (device, start) = (device.describe(), recipe.swa_start);
            // The device is told shares as f32.
            assert!(
                difference <= tolerance.max(1e-7),
                "{start} {} on {device}: {difference}",
                recipe.weight_average
            );
            // What is judged and saved.
            let saved: Vec<f64> =
                trainer.weights().unwrap().into_iter().flat_map(|(_, v)| v).map(f64::from).collect();
            assert!(largest_difference(&average, &saved) <= tolerance.max(1e-6));
        }
    }
}

/// What PyTorch's update_bn leaves: statistics of the averaged weights on the training images, here of one batch of all.
#[test]
fn statistics_are_recomputed_by_the_averaged_weights() {
    let device = Device::reference();
    let recipe = Recipe {
        model: "preact-resnet18-w1".into(),
        batch: IMAGES,
        steps: 1,
        swa_start: 1.0,
        weight_average_buffers: "recompute".into(),
        ..recipe()
    };
    let trainer = trained(&device, &recipe);
    let (store, tape) = (Store::new(&device), Tape::new());
    for (param, (name, values)) in trainer.params().iter().zip(trainer.weights().unwrap()) {
        // From statistics of zero, a tenth of the batch's is what a pass leaves.
        let running = name.contains("running");
        let values = if running { vec![0.0; values.len()] } else { values };
        store.put(&name, param.shape, &Host::F32(values)).unwrap();
    }
    let shape = [IMAGES, IMAGE[0], IMAGE[1], IMAGE[2]];
    let pixels = bytes().iter().map(|&byte| f64::from(byte) / 255.0).collect();
    store.put("x", shape, &Host::F64(pixels)).unwrap();
    let net = Net::new(&tape, Mode::Train);
    trainer.architecture().forward(&net, tape.source("x", shape, DType::F32));
    net.updates().iter().for_each(|(name, value)| tape.assign(name, *value));
    Plan::compile(&tape, &store).unwrap().run().unwrap();
    for (name, values) in trainer.weights().unwrap().iter().filter(|(name, _)| name.contains("running")) {
        let want = store.read_f64(name).unwrap();
        let largest = values.iter().fold(0f64, |m, &x| m.max(f64::from(x).abs()));
        for (got, want) in values.iter().zip(want) {
            assert!(
                (f64::from(*got) - 10.0 * want).abs() <= 1e-5 * largest,
                "{name}: {got}, not {}",
                10.0 * want
            );
        }
        assert!(trainer.store().read_f32(name).unwrap() != *values, "{name} is that of the trained weights");
    }
}

#[test]
fn methods_of_whole_batches_and_odd_parts_are_refused() {
    let error = |recipe: &Recipe| trainer(&Device::cpu(), recipe).err().unwrap().to_string();
    assert!(error(&Recipe { micro_batch: 5, ..recipe() }).contains("must divide the batch of 12"));
    assert!(error(&Recipe { weights_head: "keeep".into(), ..recipe() }).contains("did you mean `keep`?"));
}

/// What does not fit says which parts would.
#[test]
fn a_batch_that_does_not_fit_is_told_the_parts_that_do() {
    let whole = Recipe { model: "resnet18-w2".into(), batch: 28, ..recipe() };
    let parts = Recipe { micro_batch: 7, ..whole.clone() };
    let needs = |recipe: &Recipe| {
        let (tensors, temporaries) = trainer(&Device::cpu(), recipe).unwrap().memory();
        tensors + temporaries
    };
    let device = Device::cpu();
    device.set_memory_budget((needs(&whole) + needs(&parts)) / 2);
    let error = trainer(&device, &whole).err().unwrap().to_string();
    assert!(error.contains("use --batch ") && error.contains("--micro-batch "), "{error}");
    trained(&device, &Recipe { epochs: 1, ..parts });
}

/// Begins from a file of other classes, of PyTorch's `DataParallel`, with tensors that nothing needs.
#[test]
fn weights_of_others_are_taken_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.safetensors");
    let ten = architectures::by_name("wide-resnet-10-1", [8, 8, 3], 10).unwrap();
    let four = architectures::by_name("wide-resnet-10-1-normalized", [8, 8, 3], 4).unwrap();
    let (params, fewer) = (Params::of(ten.as_ref()).unwrap(), Params::of(four.as_ref()).unwrap());
    let redraw = Taking { redraw_last: Some(9), ..Taking::default() };
    let initial = params.initial(5);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (param, values) in params.iter().zip(&initial) {
        let (dims, values) = param.to_torch(values).unwrap();
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push((format!("module.{}", param.name), dims, bytes));
    }
    tensors.push(("module.sub_block1.layer.0.bn1.weight".into(), vec![1], vec![0; 4]));
    let write = |tensors: &[(String, Vec<usize>, Vec<u8>)]| {
        let views = tensors
            .iter()
            .map(|(name, dims, bytes)| (name, TensorView::new(Dtype::F32, dims.clone(), bytes).unwrap()));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    };
    write(&tensors);

    let loaded = weights::load(&path, ten.as_ref(), &params, &Taking::default()).unwrap();
    assert!(loaded.iter().map(|(_, values)| values).eq(&initial));
    let error = weights::load(&path, four.as_ref(), &fewer, &Taking::default()).unwrap_err().to_string();
    assert!(
        error.contains("`fc.weight` (`module.fc.weight`) is [10, 64]")
            && error.contains("--weights-head redraw"),
        "{error}"
    );
    let loaded = weights::load(&path, four.as_ref(), &fewer, &redraw).unwrap();
    for ((name, values), (param, drawn)) in loaded.iter().zip(fewer.iter().zip(fewer.initial(9))) {
        assert_eq!(*name, param.name);
        match params.iter().zip(&initial).find(|(theirs, _)| theirs.name == *name) {
            Some((_, theirs)) if !name.starts_with("fc.") => assert_eq!(values, theirs, "{name}"),
            // The last layer, and the constants that the file lacks.
            _ => assert_eq!(*values, drawn, "{name}"),
        }
    }

    tensors[3].0 = "module.block1.layer.0.conv9.weight".into();
    write(&tensors);
    let error = weights::load(&path, ten.as_ref(), &params, &Taking::default()).unwrap_err().to_string();
    for word in ["it lacks block1", "block1.layer.0.conv9.weight besides", "Use the architecture"] {
        assert!(error.contains(word), "{error}");
    }
    let error = weights::find(folder.path()).unwrap_err().to_string();
    assert!(error.contains("holds none of best.safetensors"), "{error}");
}
