//! What a plan launches, read off its launch list.

use crate::memory::lives;
use crate::models::{classifier, pgd};
use adamant::attack::{Names, Norm, RecordedAttack};
use adamant::launch::{Kernel, Place};
use adamant::nn::{Mode, Net, architectures};
use adamant::plan::Schedule;
use adamant::tape::Conv2d;
use adamant::{DType, Tape};
use std::path::Path;

/// Whether a launch computes the gradient of a weight: of a filter, or of a matrix as x^T g.
fn is_weight_gradient(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Conv2dWeightGrad(_) | Kernel::MatMul { ta: true, .. })
}

/// Launches whose results the forward pass makes and the backward pass reads: activations that are kept.
fn kept(schedule: &Schedule) -> Vec<usize> {
    let backward = |launch: usize| schedule.scopes[launch].ends_with('\'');
    let lives = lives(schedule);
    let kept =
        lives.iter().filter(|life| !backward(life.writer) && life.readers.iter().any(|&r| backward(r)));
    kept.map(|life| life.writer).collect()
}

/// The loss of a network, differentiated by its input and, with `weights`, by these too.
fn gradients(model: &str, input: [usize; 3], weights: bool) -> Schedule {
    let architecture = architectures::by_name(model, input, 10).unwrap();
    let tape = Tape::new();
    let images = classifier(architecture.as_ref(), Mode::Eval).images(8);
    let (x, labels, _) = Names::new("batch", "train").batch(&tape, images);
    let net = Net::new(&tape, Mode::Eval);
    let loss = tape.scope("loss", || architecture.forward(&net, x).cross_entropy(labels));
    let mut vars = vec![x];
    if weights {
        vars.extend(net.weights().into_iter().map(|(_, var)| var));
    }
    for (i, gradient) in tape.grad(loss, &vars).into_iter().enumerate() {
        tape.assign(&format!("gradient{i}"), gradient);
    }
    Schedule::new(&tape, true).unwrap()
}

#[test]
fn the_inputs_gradient_alone_launches_nothing_for_weights() {
    // Convolutions and linear layers of each network.
    for (model, input, layers) in [
        ("mlp-32-16", [28, 28, 1], 3),
        ("mnist-fast", [28, 28, 1], 4),
        ("mnist-madry", [28, 28, 1], 4),
        ("preact-resnet18-w4", [32, 32, 3], 21),
    ] {
        let (alone, both) = (gradients(model, input, false), gradients(model, input, true));
        let count = |s: &Schedule| s.launches.iter().filter(|l| is_weight_gradient(&l.kernel)).count();
        assert_eq!((count(&alone), count(&both)), (0, layers), "{model}\n{alone}");
        assert!(alone.flops() < both.flops());
        assert!(alone.launches.len() < both.launches.len());
        assert!(alone.temporary_bytes() <= both.temporary_bytes(), "{model}");
    }
}

#[test]
fn the_inputs_gradient_alone_keeps_no_input_of_a_layer() {
    // Two convolutions without a nonlinearity between them: only the filters' gradients need what they read.
    let record = |weights: bool| {
        let tape = Tape::new();
        let x = tape.source("x", [2, 8, 8, 3], DType::F32);
        let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
        let filters = [("w1", [3, 3, 3, 4]), ("w2", [3, 3, 4, 5])]
            .map(|(name, shape)| tape.source(name, shape, DType::F32));
        let normalised = tape.scope("normalise", || (x - tape.source("mean", [3], DType::F32)).scale(4.0));
        let y = tape.scope("conv1", || normalised.conv2d(filters[0], conv));
        let z = tape.scope("conv2", || y.conv2d(filters[1], conv).tanh());
        let mut vars = vec![x];
        if weights {
            vars.extend(filters);
        }
        for (i, gradient) in tape.grad(z, &vars).into_iter().enumerate() {
            tape.assign(&format!("gradient{i}"), gradient);
        }
        Schedule::new(&tape, true).unwrap()
    };
    let scopes = |s: &Schedule| kept(s).iter().map(|&at| s.scopes[at].to_string()).collect::<Vec<_>>();
    // tanh's derivative is of its result.
    assert_eq!(scopes(&record(false)), ["conv2"], "\n{}", record(false));
    assert_eq!(scopes(&record(true)), ["normalise", "conv1", "conv2"], "\n{}", record(true));
    assert!(record(false).temporary_bytes() < record(true).temporary_bytes());
}

#[test]
fn batch_norm_in_training_keeps_what_went_in_and_goes_through_memory_six_times() {
    let tape = Tape::new();
    let x = tape.source("x", [4, 16, 16, 3], DType::F32);
    let net = Net::new(&tape, Mode::Train);
    let conv = Conv2d { padding: [1, 1], ..Conv2d::default() };
    let mut y = x;
    for i in 0..3 {
        y = net.conv(&format!("conv{i}"), y, 8, [3, 3], conv, false);
        y = net.batch_norm(&format!("bn{i}"), y).relu();
    }
    let weights = net.weights();
    let vars: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
    for ((name, var), gradient) in weights.iter().zip(tape.grad(y.square(), &vars)) {
        tape.assign(name, *var - gradient);
    }
    for (name, value) in net.updates() {
        tape.assign(&name, value);
    }
    let schedule = Schedule::new(&tape, true).unwrap();
    let len = 4 * 16 * 16 * 8;
    // All activations that the backward pass reads are results of convolutions; the last relu it reads at once.
    let kept: Vec<String> = kept(&schedule)
        .into_iter()
        .filter(|&at| schedule.launches[at].shape.len() == len)
        .map(|at| schedule.launches[at].to_string())
        .collect();
    assert_eq!(kept[..3], ["conv2d.forward"; 3], "{schedule}");
    assert!(kept.len() <= 4, "{schedule}");
    // Of the second batch norm: two sums and the result in the forward pass; in the backward pass the result again,
    // two sums (the gate is the convolution's), and the gradient.
    let passes = |scope: &str| -> Vec<String> {
        let large = |launch: &&adamant::launch::Launch| {
            let stretches = launch.operands();
            launch.shape.len() == len
                || stretches.iter().any(|(_, s)| s.modulo == len)
                || launch.to_string() == "sum"
        };
        let scoped = schedule.launches.iter().zip(&schedule.scopes).filter(|(_, at)| &***at == scope);
        scoped.map(|(launch, _)| launch).filter(large).map(|launch| launch.to_string()).collect()
    };
    assert_eq!(passes("bn1"), ["sub + mul + mul + add + relu"], "{schedule}");
    let backward = ["sub + mul + sum + mul", "sum", "sub + mul + add + add_scaled + mul"];
    assert_eq!(passes("bn1'"), backward, "{schedule}");
    let sums = schedule.launches.iter().filter(|launch| launch.to_string() == "sub + square + sum + affine");
    assert_eq!(sums.count(), 3, "{schedule}");
}

#[test]
fn loss_right_answers_and_gradient_are_one_launch() {
    // How often the logits are read, and whether all is one launch.
    let launches = |record: &dyn for<'t> Fn(&'t Tape, adamant::Var<'t>, adamant::Var<'t>)| {
        let tape = Tape::new();
        let logits = tape.source("logits", [6, 10], DType::F32);
        record(&tape, logits, tape.source("labels", [6], DType::U32));
        // Else all would be frozen.
        tape.assign("logits", logits.scale(0.5));
        let schedule = Schedule::new(&tape, true).unwrap();
        lives(&schedule);
        let reads =
            |place: &Place| matches!(place, Place::Tensor(at) if schedule.tensors[*at].name == "logits");
        let readers = schedule.launches.iter().filter(|launch| launch.inputs.iter().any(reads));
        let names: Vec<String> = readers
            .flat_map(|l| l.also.iter().map(|(what, _)| what.name().into()).chain([l.to_string()]))
            .collect();
        names.join(", ")
    };
    // As training asks for them.
    let update = launches(&|tape, logits, labels| {
        let losses = logits.cross_entropy(labels);
        tape.assign("loss", losses.sum_all() + tape.source("loss", [], DType::F32));
        tape.assign("correct", logits.correct(labels).sum_all());
        tape.assign("gradient", tape.grad(losses.scale(0.125), &[logits])[0].square().sum(&[0]));
    });
    assert_eq!(update, "loss, correct, cross_entropy.input_grad + affine + square");
    // Right answers alone, as an attack that lets broken images be asks for them.
    let step = launches(&|tape, logits, labels| {
        let right = logits.correct(labels).reshape([6, 1]);
        let gradient = tape.grad(logits.cross_entropy(labels), &[logits])[0];
        tape.assign("x", gradient.sum(&[1]).reshape([6, 1]) * right);
    });
    assert_eq!(step, "correct, cross_entropy.input_grad");
    // A gradient that is made of the losses comes after them; right answers could come with either.
    let weighted = launches(&|tape, logits, labels| {
        let losses = logits.cross_entropy(labels);
        let gradient = tape.weighted_grad(losses, losses, &[logits])[0];
        tape.assign("gradient", gradient.sum(&[0]));
    });
    assert_eq!(weighted, "cross_entropy.forward, cross_entropy.input_grad + mul");
    // Labels of another name are other labels.
    let others = launches(&|tape, logits, labels| {
        let gradient = tape.grad(logits.cross_entropy(labels), &[logits])[0];
        let right = logits.correct(tape.source("others", [6], DType::U32));
        tape.assign("x", gradient.sum(&[1]));
        tape.assign("right", right.sum_all());
    });
    assert_eq!(others, "cross_entropy.input_grad, correct");
}

#[test]
fn a_network_that_normalises_its_images_keeps_them_for_the_weights_alone() {
    let stem_input_is_kept = |weights: bool| {
        let schedule = gradients("preact-resnet18-w4-normalized", [32, 32, 3], weights);
        let stem =
            schedule.launches.iter().position(|launch| matches!(launch.kernel, Kernel::Conv2d(_))).unwrap();
        let Place::Slot(_) = schedule.launches[stem].inputs[0] else {
            panic!("the images are not normalised")
        };
        let lives = lives(&schedule);
        let input = lives.iter().find(|life| life.readers.contains(&stem)).unwrap();
        kept(&schedule).contains(&input.writer)
    };
    assert!(!stem_input_is_kept(false));
    assert!(stem_input_is_kept(true));
}

/// Holds text against a file under tests/snapshots; with UPDATE_SNAPSHOTS set it writes the file.
pub fn assert_snapshot(name: &str, text: &str) {
    // As cargo says it now, not where this was built: tools/bundle takes tests to other machines.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&root).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = want.lines().zip(text.lines()).position(|(want, have)| want != have);
    assert!(
        want == text,
        "{} is not what is launched, from line {} on. If the change is meant, run the test again with \
         UPDATE_SNAPSHOTS=1 and look at the difference. What is launched:\n{text}",
        path.display(),
        1 + differs.unwrap_or(want.lines().count().min(text.lines().count()))
    );
}

#[test]
fn the_launches_of_a_pgd_step() {
    for (model, batch) in [("mnist-fast", 64), ("preact-resnet18-w8", 16)] {
        let architecture = architectures::by_name(model, [28, 28, 1], 10).unwrap();
        let on = classifier(architecture.as_ref(), Mode::Eval);
        let names = Names::new("batch", "train");
        let tape = RecordedAttack::record_step(&pgd(Norm::Linf), on, &names, batch, false);
        let schedule = Schedule::new(&tape, true).unwrap();
        assert_snapshot(&format!("pgd_step_{model}.txt"), &schedule.to_string());
        // Scale and shift of each batch norm come from weights and statistics: once an attack.
        let frozen: Vec<String> =
            schedule.launches[..schedule.prologue].iter().map(|l| l.to_string()).collect();
        let scales = if model == "mnist-fast" { 0 } else { 17 };
        assert_eq!(frozen.iter().filter(|l| *l == "affine + sqrt + div").count(), scales, "{schedule}");
        assert_eq!(frozen.iter().filter(|l| *l == "mul + sub").count(), scales, "{schedule}");
        assert_eq!(schedule.prologue, 2 * scales, "{schedule}");
        // Sign, step and projection ride on the first layer's input gradient.
        let last = schedule.launches.last().unwrap();
        assert!(matches!(last.kernel, Kernel::Conv2dInputGrad(_)), "{last}");
        assert!(last.to_string().ends_with("sign + mul + add + max + min"), "{last}");
    }
}
