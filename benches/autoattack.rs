//! AutoAttack on a trained network: adamant's side of `tools/compare_autoattack`, which holds it against the official one.
//!
//!     cargo bench --bench autoattack -- --model mnist-fast --weights models/mnist-fast-fgsm-rs/weights.safetensors \
//!         --data mnist --epsilon 0.3 --images 200 --attack standard
//!     ... --attack apgd-ce --launches           # what each launch of a step takes
//!     ... --write FILE                          # the images and labels, for others to attack
//!
//! An attack is a version of AutoAttack or one of its attacks. It answers with one line of JSON a suite: for each attack
//! its line, the robust images after it and the seconds it took, and at the end what stood.

#[path = "measure/mod.rs"]
mod measure;

use adamant::attack::{
    AutoAttack, Classifier, Evaluation, Inputs, Norm, Standing, Subject, Suite, SuiteObserver, ThreatModel,
};
use adamant::data::Dataset;
use adamant::nn::{Mode, Params, architectures};
use adamant::plan::{Plan, Precision, Program, Step};
use adamant::train::{checkpoint, examples};
use adamant::{Device, Error, Result, Store, data, files};
use clap::Parser;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// Architecture.
    #[arg(long, default_value = "mnist-fast")]
    model: String,
    /// Its weights.
    #[arg(long, default_value = "models/mnist-fast-fgsm-rs/weights.safetensors")]
    weights: PathBuf,
    /// Data set: a name or a path; its test images are attacked.
    #[arg(long, default_value = "mnist")]
    data: String,
    /// The first so many of them.
    #[arg(long, default_value_t = 200)]
    images: usize,
    /// Norm.
    #[arg(long, default_value = "linf")]
    norm: Norm,
    /// Radius.
    #[arg(long, default_value = "0.3")]
    epsilon: String,
    /// Versions of AutoAttack, or attacks of its standard version, one after another on all images each.
    #[arg(long, default_value = "standard", value_delimiter = ',')]
    attack: Vec<String>,
    /// Images at once, at most.
    #[arg(long, default_value_t = 128)]
    batch: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device, as `train` takes it.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Writes images (u8 [N,H,W,C]) and labels (u32 [N]) to this file, and attacks nothing.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Shows what each launch of a step takes, and attacks nothing else.
    #[arg(long)]
    launches: bool,
    // What cargo gives every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds when the clean images were judged, and at the end of each attack.
struct Clock(Instant, Vec<f64>);

impl SuiteObserver for Clock {
    fn stands(&mut self, standing: &Standing) -> Result<()> {
        // Between the runs of an attack it is told of too.
        if standing.runs == 0 {
            self.1.resize(standing.robust.len() + 1, 0.0);
            self.1[standing.robust.len()] = self.0.elapsed().as_secs_f64();
        }
        Ok(())
    }
}

/// The suite that a name asks for: a version, or an attack of the standard one with its restarts there.
fn suite(name: &str, threat: &ThreatModel, classes: usize) -> Result<Suite> {
    if let Ok(version) = name.parse::<AutoAttack>() {
        return Ok(version.suite(threat, classes));
    }
    let mut suite = AutoAttack::Standard.suite(threat, classes);
    // Square's name has its number of queries.
    suite.attacks.retain(|entry| entry.search.name().to_lowercase().starts_with(name));
    match suite.attacks.is_empty() {
        true => Err(Error::unknown("attack", name, &["apgd-ce", "apgd-t", "fab-t", "square"])),
        false => Ok(suite),
    }
}

fn main() -> ExitCode {
    measure::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let test = data::load(&arguments.data)?.test;
    let images = arguments.images.min(test.len());
    if let Some(file) = &arguments.write {
        return write(file, &test, images);
    }
    let threat = ThreatModel { norm: arguments.norm, epsilon: arguments.epsilon.parse()? };
    let architecture = architectures::by_name(&arguments.model, test.image, test.classes)?;
    let params = Params::of(architecture.as_ref())?;
    let weights = checkpoint::load_weights(&arguments.weights, architecture.as_ref(), &params)?;
    let (device, _) = Device::select(&arguments.device)?;
    let store = Store::new(&device);
    checkpoint::put_weights(&store, &params, &weights)?;
    examples::put(&store, "test", &test)?;
    let on = Classifier {
        architecture: architecture.as_ref(),
        mode: Mode::Eval,
        examples: test.len(),
        inputs: Inputs::Images,
        precision: Precision::F32,
    };
    let ids: Vec<u32> = (0..images as u32).collect();
    let (batch, labels) = (arguments.batch, &test.labels[..images]);
    let subject = Subject { store: &store, on, data: "test", batch, examples: &ids, labels };
    for name in &arguments.attack {
        let suite = suite(name, &threat, test.classes)?;
        if arguments.launches {
            launches(&suite, subject)?;
            continue;
        }
        let mut clock = Clock(Instant::now(), Vec::new());
        let end = suite.run(subject, arguments.seed, Standing::default(), &mut clock)?;
        let attacks: Vec<_> = suite
            .attacks
            .iter()
            .enumerate()
            .map(|(at, entry)| {
                let since = if at == 0 { 0.0 } else { clock.1[at] };
                json!({
                    "name": entry.search.name(),
                    "line": entry.line(),
                    "robust": end.robust[at],
                    "seconds": clock.1[at + 1] - since,
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "attack": name,
                "device": device.describe(),
                "images": images,
                "clean": end.verdicts.clean_count(),
                "robust": end.verdicts.robust_count(),
                "outside": end.verdicts.outside,
                "seconds": clock.0.elapsed().as_secs_f64(),
                "attacks": attacks,
                "stands": end.verdicts.robust,
            })
        );
    }
    Ok(())
}

/// Images and labels as a file of tensors.
fn write(file: &std::path::Path, test: &Dataset, images: usize) -> Result<()> {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let [rows, columns, channels] = test.image;
    let labels: Vec<u8> = test.labels[..images].iter().flat_map(|label| label.to_le_bytes()).collect();
    let bytes: Vec<u8> = (0..images).flat_map(|i| test.image(i).to_vec()).collect();
    let view = |dtype, shape, bytes| {
        TensorView::new(dtype, shape, bytes).map_err(|error| Error::Unsupported(error.to_string()))
    };
    let tensors = [
        ("images", view(Dtype::U8, vec![images, rows, columns, channels], &bytes)?),
        ("labels", view(Dtype::U32, vec![images], &labels)?),
    ];
    let bytes = serialize(tensors, None).map_err(|error| Error::Unsupported(error.to_string()))?;
    files::write_atomically(file, &bytes)
}

/// What each launch of a step takes, the longest first, in microseconds an image.
fn launches(suite: &Suite, subject: Subject<'_>) -> Result<()> {
    const TIMES: usize = 50;
    for entry in &suite.attacks {
        let batch = subject.batch.min(subject.examples.len());
        // Compiled once as evaluation does, which fills the tensors that a step reads.
        let search = entry.search.as_ref();
        let judge = Evaluation::compile_search(subject.store, search, subject.on, subject.data, batch)?;
        judge.go_on(
            &subject.examples[..batch],
            &subject.labels[..batch],
            [0, 1],
            0,
            &mut judge.clean(
                &subject.examples[..batch],
                &subject.labels[..batch],
                0,
                &mut |_: usize, _: usize| {},
            )?,
            &mut |_: usize, _: usize| {},
        )?;
        let [_, _, step, _, _] = Evaluation::schedules_of(search, subject.on, subject.data, batch)?;
        let plan = Plan::of(step, subject.store)?;
        let mut timings = Program::new(vec![Step::Repeat(TIMES, &plan)]).profile()?;
        let each = |seconds: f64| 1e6 * seconds / (TIMES * batch) as f64;
        let all: f64 = timings.iter().map(|timing| timing.time.as_secs_f64()).sum();
        println!("{}: {:.2} us an image and step, batches of {batch}", entry.line(), each(all));
        timings.sort_by_key(|timing| std::cmp::Reverse(timing.time));
        for timing in timings {
            println!("{:8.3}  {}", each(timing.time.as_secs_f64()), timing.name);
        }
    }
    Ok(())
}
