//! How often host and device talk: a PGD-10 training step is one submission without a readback, and an epoch reads
//! back little more than its metrics.

use adamant::data::Dataset;
use adamant::trace::{Event, Trace};
use adamant::train::{METHODS, Observer, Recipe, Silent, StepReport, Trainer};
use adamant::{Device, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The CPU executor and the first GPU adapter, software ones included.
fn devices() -> Vec<Device> {
    let adapters = Device::adapters();
    let adapter = adapters.first().expect(
        "there is no GPU adapter to test with. A software one will do: on Debian and Ubuntu install \
         mesa-vulkan-drivers, on Fedora mesa-vulkan-drivers, on Arch vulkan-swrast",
    );
    vec![Device::cpu(), Device::gpu(adapter).unwrap()]
}

fn trainer(device: &Device, model: &str, recipe: Recipe) -> Result<Trainer> {
    let image = [12, 12, 1];
    let images = (0..64 * 144).map(|i| (i * 31 % 256) as u8).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    let data = Dataset::new("test", "made here", image, images, (0..64).map(|i| i % 10).collect(), classes)?;
    let recipe = Recipe { model: model.into(), ..recipe };
    let network = recipe.network(image, 10)?;
    Trainer::new(recipe, network, &data, device)
}

fn pgd10() -> Recipe {
    Recipe { steps: 10, batch: 16, epochs: 1, validation: 0, probe: 0, ..Recipe::default() }
}

#[test]
fn a_pgd_10_training_step_is_one_submission_and_no_readback() {
    for device in devices() {
        for model in ["mlp-16", "mnist-fast"] {
            let trainer = trainer(&device, model, pgd10()).unwrap();
            let [load, step, update] = trainer.schedules(16).unwrap();
            let [take, count] = trainer.feeding().unwrap();
            let launches = [1, 1, 10, 1, 1].iter().zip([&take, &load, &step, &update, &count]);
            let launches: usize = launches.map(|(times, plan)| plan.launch_count(*times)).sum();
            for _ in 0..3 {
                let before = device.counters();
                let program = trainer.next_step().unwrap();
                assert_eq!(program.len(), launches);
                program.run().unwrap();
                device.wait().unwrap();
                let after = device.counters();
                let talk = (after.submissions - before.submissions, after.readbacks - before.readbacks);
                assert_eq!(talk, (1, 0), "submissions and readbacks of {model} on {}", device.describe());
            }
        }
    }
}

#[test]
fn a_step_of_every_method_is_one_submission_and_no_readback() {
    for device in devices() {
        for method in METHODS {
            let awp = if method == "mart" { 0.01 } else { 0.0 };
            let recipe = Recipe { method: method.into(), awp_gamma: awp, replays: 3, ..pgd10() };
            let trainer = trainer(&device, "mlp-16", recipe).unwrap();
            for _ in 0..2 {
                let program = trainer.next_step().unwrap();
                let before = device.counters();
                program.run().unwrap();
                device.wait().unwrap();
                let after = device.counters();
                let talk = (after.submissions - before.submissions, after.readbacks - before.readbacks);
                assert_eq!(talk, (1, 0), "of {method} on {}", device.describe());
                assert_eq!(after.uploads, before.uploads, "of {method} on {}", device.describe());
            }
        }
    }
}

#[test]
fn steps_send_nothing_and_read_nothing() {
    for device in devices() {
        let mut talk = Vec::new();
        for (batch, steps) in [(16, 4), (8, 8), (6, 11)] {
            let mut trainer = trainer(&device, "mlp-16", Recipe { batch, ..pgd10() }).unwrap();
            let before = device.counters();
            trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
            let after = device.counters();
            assert_eq!(after.submissions - before.submissions, steps, "{}", device.describe());
            talk.push((after.readbacks - before.readbacks, after.uploads - before.uploads));
        }
        // The state the epoch could be repeated from, and its weights; the epoch's tables, of which one is the order
        // of each size of batch. None of it grows with the steps.
        let [(readbacks, uploads), more_steps, with_a_short_batch] = talk[..] else { panic!("{talk:?}") };
        assert!(readbacks <= 3, "{readbacks} readbacks on {}", device.describe());
        assert!(uploads <= 12, "{uploads} uploads on {}", device.describe());
        assert_eq!(more_steps, (readbacks, uploads), "{}", device.describe());
        assert_eq!(with_a_short_batch, (readbacks, uploads + 1), "{}", device.describe());
    }
}

/// The loss of the steps, in the order that it comes back in.
#[derive(Default)]
struct Losses(Vec<(usize, f64)>, usize);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) {
        self.1 += 1;
        self.0.extend(report.loss.map(|loss| (self.1, loss)));
    }
}

#[test]
fn losses_come_back_while_training_goes_on_and_all_by_the_end() {
    for device in devices() {
        let mut trainer = trainer(&device, "mnist-fast", Recipe { batch: 2, ..pgd10() }).unwrap();
        let mut losses = Losses::default();
        trainer.run(&mut losses, &AtomicBool::new(false)).unwrap();
        let Losses(losses, steps) = losses;
        assert_eq!(steps, 32);
        // Three steps may be under way beside the one handed over, so that every fourth brings a loss at the latest.
        let heard: Vec<usize> = [0].into_iter().chain(losses.iter().map(|(step, _)| *step)).collect();
        assert!(heard.windows(2).all(|pair| pair[1] - pair[0] <= 4), "{heard:?} on {}", device.describe());
        assert_eq!(losses.last().unwrap().0, 32, "the last step's is waited for");
        assert!(losses.iter().all(|(_, loss)| loss.is_finite() && *loss > 0.0));
    }
}

/// An epoch of `steps` PGD-10 steps of the small CNN, traced.
fn traced(device: &Device, steps: usize) -> Arc<Trace> {
    let recipe = Recipe { batch: 64 / steps, ..pgd10() };
    let mut trainer = trainer(device, "mnist-fast", recipe).unwrap();
    let trace = Arc::new(Trace::default());
    device.start_trace(&trace);
    trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    device.end_trace().unwrap();
    trace
}

#[test]
fn the_queue_never_runs_dry_between_steps() {
    let device = devices().pop().unwrap();
    let events = traced(&device, 16).events();
    let at = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).expect("is recorded");
    let submitted =
        |n: u64| at(&|event| matches!(event, Event::Submitted { submission, .. } if *submission == n));
    let done = |n: u64| at(&|event| matches!(event, Event::Done { submission, .. } if *submission == n));
    for step in 0..15 {
        assert!(submitted(step + 1) < done(step), "step {step} was done before the next one was handed over");
    }
    // Nor does the host run ahead without bound.
    for step in 0..12 {
        assert!(done(step) < submitted(step + 4), "step {} was handed over too early", step + 4);
    }
}

#[test]
fn a_trace_is_a_file_that_viewers_open() {
    for device in devices() {
        let trace = traced(&device, 4);
        let summary = trace.summary().unwrap();
        assert_eq!(summary.submissions, 4);
        assert!(summary.queued > 0.0 && summary.queued <= 1.0, "{summary}");
        let json: serde_json::Value = serde_json::from_str(&trace.to_json()).unwrap();
        let events = json["traceEvents"].as_array().unwrap();
        let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
        let spans = of("X");
        for span in &spans {
            assert!(span["ts"].as_f64().unwrap() >= 0.0 && span["dur"].as_f64().unwrap() >= 0.0, "{span}");
        }
        let count = |name: &str| spans.iter().filter(|span| span["name"] == name).count();
        assert_eq!((count("begin the epoch"), count("collect"), count("judge and save")), (1, 4, 1));
        // lavapipe has timestamps, and so has every card that training is fast on.
        for part in ["feed", "load", "attack", "update", "count"] {
            assert_eq!(count(part), 4, "{part} on {}", device.describe());
        }
        let ends = |phase| of(phase).iter().map(|event| event["id"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!((ends("b"), ends("e")), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
        // The parts of each submission in their order. How they lie between its begin and end, which the host's clock
        // tells, is left open: on a busy machine clocks of two kinds differ by milliseconds.
        for submission in 0..4 {
            let mut parts = spans.clone();
            parts.retain(|span| span["tid"] == 2 && span["args"]["submission"] == submission);
            parts.sort_by(|a, b| a["ts"].as_f64().unwrap().total_cmp(&b["ts"].as_f64().unwrap()));
            let names: Vec<&str> = parts.iter().map(|span| span["name"].as_str().unwrap()).collect();
            assert_eq!(names, ["feed", "load", "attack", "update", "count"], "on {}", device.describe());
        }
    }
}
