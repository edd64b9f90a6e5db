//! `train`: adversarially trains a network and tells the truth about the robustness it reached.

use adamant::attack::{Pgd, Rational};
use adamant::data::{self, Data};
use adamant::nn::architectures;
use adamant::report::environment::DataSource;
use adamant::report::{Environment, Metrics, Progress, Results, curves, results};
use adamant::train::{EpochRecord, Observer, Outcome, Recipe, StepReport, Trainer, checkpoint};
use adamant::{Device, Error, Program, Result, files};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Adversarially trains a network, and measures what it withstands.
///
/// With no arguments: PGD adversarial training (Linf, epsilon 0.3) of a small CNN on an embedded sample of MNIST, in
/// about a minute, on the GPU if there is one, else on the CPU. Results go into a new folder under runs/.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Flags {
    /// A recipe file (TOML) to begin from, as models/NAME/recipe.toml; flags override it
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Data set: `mnist` (the embedded sample), or a folder with the four IDX files, plain or .gz
    #[arg(long)]
    data: Option<String>,
    /// Architecture: mlp, mnist-fast, mnist-madry or preact-resnet18; mlp-256-128 names hidden widths,
    /// preact-resnet18-w16 the width
    #[arg(long)]
    model: Option<String>,
    /// Training method: standard, fgsm, fgsm-rs or pgd
    #[arg(long)]
    method: Option<String>,
    /// Norm of the perturbation: linf or l2
    #[arg(long)]
    norm: Option<String>,
    /// Radius of the perturbation in pixel values (0 to 1): a fraction as 8/255, or a decimal
    #[arg(long, allow_hyphen_values = true)]
    epsilon: Option<String>,
    /// Steps of the attack inside training (pgd)
    #[arg(long)]
    steps: Option<usize>,
    /// Length of a step, as epsilon is given [default: 1.25 epsilon for fgsm-rs, else 5/3 epsilon / steps]
    #[arg(long, allow_hyphen_values = true)]
    step_size: Option<String>,
    /// Start the attack at a random point (pgd)
    #[arg(long, value_name = "BOOL")]
    random_start: Option<bool>,
    /// Batch norm inside the attack: eval (running statistics), train (the batch's, updating the running ones) or
    /// train-frozen (the batch's)
    #[arg(long, value_name = "MODE")]
    attack_batch_norm: Option<String>,
    /// Share of the run over which epsilon and step size grow from 0
    #[arg(long, value_name = "SHARE")]
    epsilon_warmup: Option<f64>,
    /// Passes over the training images
    #[arg(long)]
    epochs: Option<u32>,
    /// Images in a batch
    #[arg(long)]
    batch: Option<usize>,
    /// Optimiser: sgd, adam or adamw
    #[arg(long)]
    optimizer: Option<String>,
    /// Largest learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Learning rate over the run: constant, linear, cosine, cyclic or piecewise
    #[arg(long)]
    schedule: Option<String>,
    /// Momentum of sgd
    #[arg(long)]
    momentum: Option<f64>,
    /// Nesterov's form of momentum
    #[arg(long, value_name = "BOOL")]
    nesterov: Option<bool>,
    /// Weight decay, on all parameters
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// Decay of averaged weights (EMA), which are then what is validated and saved; 0 does without
    #[arg(long, value_name = "DECAY")]
    weight_average: Option<f64>,
    /// Images held out of the training set to choose the checkpoint by
    #[arg(long, value_name = "IMAGES")]
    validation: Option<usize>,
    /// Seed of everything random
    #[arg(long)]
    seed: Option<u64>,
    /// Where to run: auto (a hardware GPU, else the CPU), cpu, gpu, an adapter's index, or part of its name (also a
    /// software adapter's, as llvmpipe)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of the CPU executor [default: all cores]; they never change a result
    #[arg(long)]
    threads: Option<usize>,
    /// Folder for the results; must not hold files yet [default: a new one under runs/]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the interrupted run in this folder, to the same bits as if it had not stopped
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["out", "recipe"])]
    resume: Option<PathBuf>,
    /// Steps of the PGD attack on the test images
    #[arg(long, default_value_t = 40, value_name = "STEPS")]
    test_steps: usize,
    /// Step size of the PGD attack on the test images [default: epsilon / 30]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    test_step_size: Option<String>,
    /// Restarts of the PGD attack on the test images
    #[arg(long, default_value_t = 1, value_name = "RESTARTS")]
    test_restarts: u32,
    /// Print the plan of a training step (every launch with shape, bytes and flops; memory) and stop
    #[arg(long)]
    dry_run: bool,
    /// Time every launch of one training step on the device, print the table and stop
    #[arg(long)]
    profile: bool,
    /// List the GPU adapters there are, with limits and features, and stop
    #[arg(long)]
    list_devices: bool,
}

impl Flags {
    /// Lays the flags over a recipe. A step size that is not given follows from epsilon, steps and method where one
    /// of those is.
    fn over(&self, mut recipe: Recipe) -> Result<Recipe> {
        macro_rules! take {
            ($($field:ident)*) => {$(if let Some(value) = &self.$field { recipe.$field = value.clone(); })*};
        }
        take!(data model method norm epsilon steps step_size random_start attack_batch_norm epsilon_warmup epochs
              batch optimizer learning_rate schedule momentum nesterov weight_decay weight_average validation seed);
        let follows = self.epsilon.is_some() || self.steps.is_some() || self.method.is_some();
        if self.step_size.is_none() && follows {
            let epsilon = recipe.threat()?.epsilon.value();
            let step = match recipe.method.as_str() {
                "fgsm-rs" => 1.25 * epsilon,
                _ => 5.0 / 3.0 * epsilon / recipe.steps.max(1) as f64,
            };
            // Six digits: what is meant, not what binary fractions make of it.
            recipe.step_size = ((step * 1e6).round() / 1e6).to_string();
        }
        recipe.check()?;
        Ok(recipe)
    }

    fn changes_recipe(&self) -> bool {
        Recipe::default() != self.over(Recipe::default()).unwrap_or_default()
    }

    /// The attack on the test images.
    fn test_attack(&self, recipe: &Recipe) -> Result<Pgd> {
        let threat = recipe.threat()?;
        let step_size: Rational = match &self.test_step_size {
            Some(text) => text.parse()?,
            None => Rational::from((threat.epsilon.value() / 30.0 * 1e6).round() / 1e6),
        };
        Ok(Pgd { threat, steps: self.test_steps, step_size, random_start: true })
    }
}

/// Hears of steps and epochs: shows them, and writes the metrics file and the curves.
struct Watcher {
    progress: Progress,
    metrics: Metrics,
    records: Vec<EpochRecord>,
    adversarial: bool,
}

impl Observer for Watcher {
    fn step(&mut self, report: &StepReport) {
        self.progress.step(report.epoch, report.images as u64);
        if let (Some(loss), Some(accuracy)) = (report.loss, report.accuracy) {
            let last = self.records.last();
            let clean = if self.adversarial { last.and_then(|r| r.validation_clean) } else { Some(accuracy) };
            let robust =
                if self.adversarial { Some(accuracy) } else { last.and_then(|r| r.validation_robust) };
            self.progress.measured(loss, clean, robust);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.progress.epoch(record);
        self.records.push(record.clone());
        self.metrics.append(record)
    }
}

fn main() -> ExitCode {
    let start = Instant::now();
    let flags = Flags::parse();
    match run(&flags, start) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, start: Instant) -> Result<ExitCode> {
    if let Some(threads) = flags.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|e| Error::argument("threads", threads, e.to_string()))?;
    }
    if flags.list_devices {
        let adapters = Device::adapters();
        if adapters.is_empty() {
            println!("no GPU adapter was found; the CPU executor is always there");
        }
        adapters.iter().for_each(|adapter| println!("{adapter:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let recipe = match (&flags.resume, &flags.recipe) {
        (Some(_), _) if flags.changes_recipe() => {
            let why = "a resumed run goes on with its own recipe; leave the other training flags out";
            return Err(Error::argument("resume", "with training flags", why));
        }
        (Some(folder), _) => checkpoint::load_resume(&folder.join("resume.safetensors"))?.0,
        (None, Some(file)) => flags.over(Recipe::read(file)?)?,
        (None, None) => flags.over(Recipe::default())?,
    };
    let test_attack = flags.test_attack(&recipe)?;
    let data = data::load(&recipe.data)?;
    let architecture = architectures::by_name(&recipe.model, data.train.image, data.train.classes)?;
    let (device, why) = Device::select(&flags.device)?;
    println!("device    {} ({why})", device.describe());
    let mut trainer = Trainer::new(recipe.clone(), architecture, &data.train, &device)?;
    let (train, held) = trainer.sizes();
    println!(
        "data      {}: {train} to train on, {held} held out, {} to test on",
        data.train.name,
        data.test.len()
    );
    println!(
        "model     {}, {} parameters, {} on batches of {}",
        recipe.model,
        trainer.params().count(),
        recipe.optimizer,
        recipe.batch
    );
    println!("training  {}: {}", recipe.method, trainer.method().attack().line());
    if flags.dry_run {
        return dry_run(&trainer).map(|()| ExitCode::SUCCESS);
    }
    if flags.profile {
        return profile(&trainer).map(|()| ExitCode::SUCCESS);
    }

    let folder = match (&flags.resume, &flags.out) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.clone(),
        (None, None) => free_folder(&recipe),
    };
    let mut watcher = open_folder(&folder, flags, &mut trainer, &data, &device)?;
    println!("results   {}", folder.display());
    let stop = stop_on_interrupt();
    let outcome = trainer.run(&mut watcher, &stop);
    watcher.progress.finish();
    if outcome? == Outcome::Interrupted {
        println!(
            "interrupted and saved; go on with\n  cargo run --release --bin train -- --resume {}",
            folder.display()
        );
        return Ok(ExitCode::from(130));
    }
    finish(&trainer, &watcher, &folder, &data, &test_attack, flags)?;
    println!("{:.1} s in all; results in {}", start.elapsed().as_secs_f64(), folder.display());
    Ok(ExitCode::SUCCESS)
}

/// The first folder runs/MODEL-METHOD-N that is free.
fn free_folder(recipe: &Recipe) -> PathBuf {
    let name = |n: usize| Path::new("runs").join(format!("{}-{}-{n}", recipe.model, recipe.method));
    (1..).map(name).find(|folder| !folder.exists()).unwrap_or_else(|| name(0))
}

/// Makes or reopens the run folder: configuration, environment, metrics.
fn open_folder(
    folder: &Path,
    flags: &Flags,
    trainer: &mut Trainer,
    data: &Data,
    device: &Device,
) -> Result<Watcher> {
    let (total, epochs) = (trainer.total_steps(), trainer.recipe().epochs);
    let adversarial = trainer.method().is_adversarial();
    let (metrics, records) = if flags.resume.is_some() {
        trainer.resume(folder)?;
        Metrics::resume(folder.join("metrics.jsonl"), trainer.position().epoch)?
    } else {
        files::create_run_folder(folder)?;
        files::write_atomically(folder.join("config.toml"), trainer.recipe().to_toml()?.as_bytes())?;
        let sources = vec![DataSource::of("train", &data.train), DataSource::of("test", &data.test)];
        let environment = Environment::capture(device.describe(), sources).to_json();
        files::write_atomically(folder.join("environment.json"), environment.as_bytes())?;
        (Metrics::create(folder.join("metrics.jsonl"))?, Vec::new())
    };
    trainer.save_into(folder);
    let progress = Progress::resumed(total, trainer.position().steps, epochs);
    Ok(Watcher { progress, metrics, records, adversarial })
}

/// A flag that the first Ctrl-C sets; the second ends the program at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // Without a handler Ctrl-C just ends the program, and the last epoch's checkpoint is whole.
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nfinishing the step and saving; once more to stop at once");
    });
    stop
}

/// Measures the best weights on the test images and writes what is left to write.
fn finish(
    trainer: &Trainer,
    watcher: &Watcher,
    folder: &Path,
    data: &Data,
    attack: &Pgd,
    flags: &Flags,
) -> Result<()> {
    let recipe = trainer.recipe();
    if let Some((weights, epoch)) = trainer.best() {
        checkpoint::put_weights(trainer.store(), trainer.params(), weights)?;
        println!("\ntesting the weights of epoch {epoch}, the best on the validation images");
    }
    let bar = Progress::new(0, 1);
    let results = Results::measure(
        trainer.store(),
        trainer.architecture(),
        &data.test,
        attack,
        flags.test_restarts,
        recipe.seed,
        |what, done, of| bar.working(what, done as u64, of as u64),
    )?;
    bar.finish();
    println!("\n{}", results.text());
    let title = format!("{} on {}, trained by {}", recipe.model, data.test.name, recipe.method);
    results.write(folder, &title, &data.test, attack)?;
    let validation = results::line(&trainer.validation_attack()?, 1, trainer.sizes().1);
    curves::write(folder.join("curves.png"), &title, &validation, &watcher.records)
}

/// Prints every launch of a training step, and memory.
fn dry_run(trainer: &Trainer) -> Result<()> {
    let steps = trainer.method().attack().steps();
    let [load, step, update] = trainer.schedules(trainer.recipe().batch)?;
    println!("\nloading a batch and starting the attack\n{load}");
    println!("a step of the attack, {steps} times a batch\n{step}");
    println!("the update of the weights\n{update}");
    let flops = load.flops() + steps as u64 * step.flops() + update.flops();
    let launches = load.launches.len() + steps * step.launches.len() + update.launches.len();
    println!(
        "one training step: 1 submission, {launches} launches, {:.1} MFLOP in products",
        flops as f64 / 1e6
    );
    let (tensors, temporaries) = trainer.memory();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "memory: {:.1} MiB of tensors (data set, weights, optimiser, batch), {:.1} MiB of temporaries; {:.1} MiB at most",
        mib(tensors),
        mib(temporaries),
        mib(tensors + temporaries)
    );
    Ok(())
}

/// Times every launch of a training step.
fn profile(trainer: &Trainer) -> Result<()> {
    // The first run builds pipelines and warms caches.
    trainer.next_step()?.run()?;
    let program: Program<'_> = trainer.next_step()?;
    let mut timings = program.profile()?;
    timings.sort_by_key(|timing| std::cmp::Reverse(timing.time));
    let total: Duration = timings.iter().map(|timing| timing.time).sum();
    println!("\n{:>9} {:>6} {:>5}  {:>8} {:>7}  launch", "time", "share", "runs", "GFLOP/s", "GB/s");
    for timing in timings {
        let seconds = timing.time.as_secs_f64().max(1e-12);
        println!(
            "{:>6.3} ms {:>5.1}% {:>5}  {:>8.1} {:>7.1}  {}",
            1e3 * seconds,
            100.0 * seconds / total.as_secs_f64().max(1e-12),
            timing.runs,
            timing.flops as f64 / seconds / 1e9,
            timing.bytes as f64 / seconds / 1e9,
            timing.name
        );
    }
    println!("{:>6.3} ms in all launches of one training step", 1e3 * total.as_secs_f64());
    Ok(())
}
