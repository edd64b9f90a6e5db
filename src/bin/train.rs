//! `train`: adversarially trains a network and tells the truth about the robustness it reached.

use adamant::attack::{Classifier, Pgd, Rational, logits};
use adamant::data::{self, Data};
use adamant::nn::{Mode, architectures};
use adamant::plan::Precision;
use adamant::report::environment::DataSource;
use adamant::report::{Environment, Metrics, Progress, Results, curves, results};
use adamant::trace::Trace;
use adamant::train::{
    Checkpoint, EVALUATION_BATCH, EpochRecord, Observer, Outcome, Recipe, StepReport, Trainer, checkpoint,
    rational,
};
use adamant::{Device, Error, Program, Result, Store, files};
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prints a line to standard output. Where nobody listens any more (`train | head`), the run goes on.
macro_rules! say {
    ($($line:tt)*) => {{ let _ = writeln!(std::io::stdout(), $($line)*); }};
}

/// Adversarially trains a network, and measures what it withstands.
///
/// With no arguments: PGD adversarial training (Linf, epsilon 0.3) of a small CNN on an embedded sample of MNIST, in
/// half a minute on two cores, on the GPU if there is one, else on the CPU. Results go into a new folder under runs/.
#[derive(Parser)]
#[command(version, about, max_term_width = 110, allow_negative_numbers = true)]
struct Flags {
    /// A recipe file (TOML) to begin from, as models/NAME/recipe.toml; flags override it
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Data set: `mnist` (the embedded sample), or a folder with the four IDX files, plain or .gz
    #[arg(long)]
    data: Option<String>,
    /// Random changes of the training images: crop:4, crop:4:reflect, flip; none
    #[arg(long, value_name = "CHANGES", value_delimiter = ',')]
    augment: Option<Vec<String>>,
    /// Architecture: mlp, mnist-fast, mnist-madry, preact-resnet18 or resnet18; mlp-256-128 names hidden widths,
    /// resnet18-w16 the width
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
    /// What the attack inside training is computed in: f32, or f16 for half precision (on the CPU bf16, where the
    /// processor has it); the weight update stays in f32
    #[arg(long, value_name = "PRECISION")]
    attack_precision: Option<String>,
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
    #[arg(long, value_name = "FOLDER")]
    resume: Option<PathBuf>,
    /// Steps of the PGD attack on the test images
    #[arg(long, default_value_t = 40, value_name = "STEPS")]
    test_steps: usize,
    /// Step size of the PGD attack on the test images [default: epsilon / 30, or 4/3 epsilon / steps where that is
    /// more]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    test_step_size: Option<String>,
    /// Restarts of the PGD attack on the test images
    #[arg(long, default_value_t = 1, value_name = "RESTARTS")]
    test_restarts: u32,
    /// Also write the logits of the clean test images, to compare with another program's (safetensors, `logits`)
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Record what host and device do while training, for ui.perfetto.dev or chrome://tracing (JSON)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Measure the kernels' variants on this GPU once, for a minute at most, and remember which are fastest. Off by
    /// default: another kernel adds in another order, so that results depend on what was measured
    #[arg(long)]
    tune: bool,
    /// The file in which the tuner remembers [default with --tune: one for this GPU in the user's cache folder]; without
    /// --tune nothing is measured, and what the file does not know takes the default kernels. A resumed run goes by the
    /// copy in its own folder
    #[arg(long, value_name = "FILE")]
    tune_cache: Option<PathBuf>,
    /// Most memory that tensors may take on the device, as 512MiB or 8GiB [default: 9/10 of a card's, half of one that
    /// shares the machine's, what is free on the CPU]
    #[arg(long, value_name = "BYTES")]
    memory: Option<String>,
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

/// Calls a macro with the flags that change a recipe, by the recipe's names of them.
macro_rules! recipe_flags {
    ($call:ident) => {
        $call!(data augment model method norm epsilon steps step_size random_start attack_batch_norm attack_precision
               epsilon_warmup epochs
               batch optimizer learning_rate schedule momentum nesterov weight_decay weight_average validation seed)
    };
}

impl Flags {
    /// Lays the flags over a recipe. A step size that is not given follows from epsilon, steps and method where one
    /// of those is.
    fn over(&self, mut recipe: Recipe) -> Result<Recipe> {
        macro_rules! take {
            ($($field:ident)*) => {$(if let Some(value) = &self.$field { recipe.$field = value.clone(); })*};
        }
        recipe_flags!(take);
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

    /// Refuses values that are wrong whatever the recipe and the data are.
    fn check(&self) -> Result<()> {
        let zero = |what: &str| Err(Error::argument(what, 0, "must be at least 1"));
        if self.threads == Some(0) {
            return zero("threads");
        }
        if self.test_steps == 0 {
            return zero("test steps");
        }
        if self.test_restarts == 0 {
            return zero("test restarts");
        }
        if self.resume.is_some() {
            let mut given = Vec::new();
            macro_rules! name {
                ($($field:ident)*) => {$(if self.$field.is_some() { given.push(stringify!($field)); })*};
            }
            recipe_flags!(name);
            name!(recipe out tune_cache);
            if self.tune {
                given.push("tune");
            }
            if !given.is_empty() {
                let given: Vec<String> =
                    given.iter().map(|name| format!("--{}", name.replace('_', "-"))).collect();
                let why = "a resumed run goes on in its folder with its own recipe and its own choice of kernels: leave \
                           these flags out";
                return Err(Error::argument("resume", format!("with {}", given.join(", ")), why));
            }
        }
        for (flag, file) in [("--logits", &self.logits), ("--trace", &self.trace)] {
            if let Some(folder) = file.as_deref().and_then(Path::parent)
                && !folder.as_os_str().is_empty()
                && !folder.is_dir()
            {
                let why = format!("is no folder, but {flag} is to write a file into it: make it first");
                return Err(Error::file(folder, why));
            }
        }
        Ok(())
    }

    /// The attack on the test images.
    fn test_attack(&self, recipe: &Recipe) -> Result<Pgd> {
        let threat = recipe.threat()?;
        let step_size = match &self.test_step_size {
            Some(text) => rational("test step size", text)?,
            None => {
                // Few steps have to be long to cross the ball.
                let steps = (0.75 * self.test_steps as f64).min(30.0);
                Rational::from((threat.epsilon.value() / steps * 1e6).round() / 1e6)
            }
        };
        Ok(Pgd { threat, steps: self.test_steps, step_size, random_start: true })
    }
}

/// "512MiB", "8GiB" or a number of bytes.
fn bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let found = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
        number.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
    });
    let why = "write a whole number with KiB, MiB or GiB after it, as 512MiB, or a number of bytes";
    found.ok_or_else(|| Error::argument("memory", format!("`{text}`"), why))
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
    quieten_vulkan();
    let flags = Flags::parse();
    match run(&flags, start) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps Mesa's device-select layer out where there is no desktop session: it puts the adapters into the order that a
/// desktop wants, which is of no use here, and for that asks a Wayland server, whose library prints "error:
/// XDG_RUNTIME_DIR is invalid or not set in the environment" twice. The variable is the one that the layer's own
/// manifest declares for switching it off.
fn quieten_vulkan() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: nothing else runs yet: this is the first thing `main` does.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

fn run(flags: &Flags, start: Instant) -> Result<ExitCode> {
    flags.check()?;
    if let Some(threads) = flags.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|e| Error::argument("threads", threads, e.to_string()))?;
    }
    if flags.list_devices {
        let adapters = Device::adapters();
        if adapters.is_empty() {
            say!("no GPU adapter was found");
        }
        for adapter in &adapters {
            say!("{adapter:#}");
            if let Some(line) = Device::gpu(adapter).ok().and_then(|device| device.cooperative_matrices()) {
                say!("   {line}");
            }
        }
        say!("cpu: {}", Device::cpu().describe());
        return Ok(ExitCode::SUCCESS);
    }
    let memory = flags.memory.as_deref().map(bytes).transpose()?;
    let (recipe, checkpoint) = match (&flags.resume, &flags.recipe) {
        (Some(folder), _) => {
            let checkpoint = read_checkpoint(folder)?;
            (checkpoint.recipe.clone(), Some(checkpoint))
        }
        (None, Some(file)) => (flags.over(Recipe::read(file)?)?, None),
        (None, None) => (flags.over(Recipe::default())?, None),
    };
    let test_attack = flags.test_attack(&recipe)?;
    let data = data::load(&recipe.data)?;
    let architecture = architectures::by_name(&recipe.model, data.train.image, data.train.classes)?;
    let (device, why) = Device::select(&flags.device)?;
    if let Some(bytes) = memory {
        device.set_memory_budget(bytes);
    }
    say!("device    {} ({why})", device.describe());
    start_tuner(flags, &device)?;
    let mut trainer = Trainer::new(recipe.clone(), architecture, &data.train, &device)?;
    if let Some(tuner) = device.tuner() {
        say!("tuner     {tuner}");
        tuner.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    let (train, held) = trainer.sizes();
    say!(
        "data      {}: {train} to train on, {held} held out, {} to test on",
        data.train.name,
        data.test.len()
    );
    say!(
        "model     {}, {} parameters, {} on batches of {}",
        recipe.model,
        trainer.params().count(),
        recipe.optimizer,
        recipe.batch
    );
    match trainer.method().is_adversarial() {
        true => say!("training  {}: {}", recipe.method, trainer.attack_line()?),
        false => say!("training  {}: on clean images", recipe.method),
    }
    if flags.dry_run {
        return dry_run(&trainer).map(|()| ExitCode::SUCCESS);
    }
    if flags.profile {
        return profile(&trainer).map(|()| ExitCode::SUCCESS);
    }

    let (folder, (metrics, records)) = match (&flags.resume, checkpoint) {
        (Some(folder), Some(checkpoint)) => (folder.clone(), reopen(folder, &mut trainer, checkpoint)?),
        _ => {
            let folder = flags.out.clone().unwrap_or_else(|| free_folder(&recipe));
            let metrics = open(&folder, &mut trainer, &data, &device)?;
            (folder, (metrics, Vec::new()))
        }
    };
    say!("results   {}", folder.display());
    let progress = Progress::resumed(trainer.total_steps(), trainer.position().steps, recipe.epochs);
    let adversarial = trainer.method().is_adversarial();
    let mut watcher = Watcher { progress, metrics, records, adversarial };
    let resume = format!("cargo run --release --bin train -- --resume {}", folder.display());
    let interrupt = Interrupt::new(&resume);
    let trace = flags.trace.as_ref().map(|file| (file, Arc::new(Trace::default())));
    trace.iter().for_each(|(_, trace)| device.start_trace(trace));
    record_tuner(&folder, &device)?;
    let outcome = trainer.run(&mut watcher, &interrupt.stop);
    watcher.progress.finish();
    if let Some((file, trace)) = trace {
        // After an error there is less to see; the error is what is reported.
        let ended = device.end_trace();
        files::write_atomically(file, trace.to_json().as_bytes())?;
        if outcome.is_ok() {
            ended?;
        }
        let summary = trace.summary().map(|summary| format!(": {summary}")).unwrap_or_default();
        say!("trace     {}{summary}", file.display());
    }
    match outcome {
        Ok(Outcome::Finished) => {}
        Ok(Outcome::Interrupted) => {
            say!("interrupted and saved; go on with\n  {resume}");
            return Ok(ExitCode::from(130));
        }
        Err(error @ Error::NotFinite { .. }) => return Err(error),
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!(
                "the run is whole up to its last checkpoint; when that is mended, go on with\n  {resume}"
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    interrupt.all_is_saved();
    // Testing may have had kernels of its own to choose.
    let finished = finish(trainer, &watcher, &folder, &data, &test_attack, flags);
    if let Err(error) = finished.and_then(|()| record_tuner(&folder, &device)) {
        eprintln!("error: {error}");
        eprintln!("the weights are saved; when that is mended, test them again with\n  {resume}");
        return Ok(ExitCode::FAILURE);
    }
    say!("{:.1} s in all; results in {}", start.elapsed().as_secs_f64(), folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Most time that measuring kernels may take.
const TUNING: Duration = Duration::from_secs(60);

/// The file in a run's folder by which its kernels are chosen, where a tuner chooses them: what the tuner knew, so that
/// a resumed run takes the same ones whatever became of the tuner's own file.
const KERNELS: &str = "tuner.json";

/// Gives the device a tuner, where the flags ask for one, or the run that goes on had one.
fn start_tuner(flags: &Flags, device: &Device) -> Result<()> {
    let of_run = flags.resume.as_ref().map(|folder| folder.join(KERNELS));
    if let Some(file) = of_run.filter(|file| file.is_file()) {
        if device.tune(&file, None).is_none() {
            eprintln!(
                "warning: the run began on a GPU by measured kernels; on the CPU it does not come to the same bits"
            );
        }
        return Ok(());
    }
    if !flags.tune && flags.tune_cache.is_none() {
        return Ok(());
    }
    let Some(name) = device.tuner_file_name() else {
        say!("tuner     the CPU executor has one way for each shape: nothing to tune");
        return Ok(());
    };
    let file = match (&flags.tune_cache, cache_folder()) {
        (Some(file), _) => file.clone(),
        (None, Some(folder)) => folder.join("adamant").join(name),
        (None, None) => {
            let why =
                "there is no cache folder to remember in (HOME is not set): name a file by --tune-cache";
            return Err(Error::argument("tune", "without --tune-cache", why));
        }
    };
    if flags.tune {
        say!("tuner     measuring kernels that {} does not know, for a minute at most", file.display());
    }
    device.tune(&file, flags.tune.then_some(TUNING));
    Ok(())
}

/// Writes into the run's record which choices its kernels are by, where there is a tuner.
fn record_tuner(folder: &Path, device: &Device) -> Result<()> {
    let Some(tuner) = device.tuner() else { return Ok(()) };
    let kernels = folder.join(KERNELS);
    if tuner.file() != kernels {
        tuner.keep_copy(&kernels)?;
    }
    let path = folder.join("environment.json");
    let text = std::fs::read(&path).map_err(|e| Error::io(&path, "could not read the record", e))?;
    let record = Environment::tuned_by(&text, tuner.file(), &tuner.hash());
    files::write_atomically(&path, record.map_err(|why| Error::file(&path, why))?.as_bytes())
}

/// The user's folder for what can be made again, by the custom of the system.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        // XDG Base Directory Specification.
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    }
}

/// The checkpoint in the folder of a run.
fn read_checkpoint(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join("resume.safetensors");
    if !path.is_file() {
        let why = match folder.is_dir() {
            true => {
                "holds no resume.safetensors, so there is no run in it to go on with; give the folder of a run"
            }
            false => "is no folder, but --resume takes the folder of a run, as runs/mnist-fast-pgd-1",
        };
        return Err(Error::file(folder, why));
    }
    checkpoint::load_resume(&path)
}

/// The first folder runs/MODEL-METHOD-N that is free.
fn free_folder(recipe: &Recipe) -> PathBuf {
    let name = |n: usize| Path::new("runs").join(format!("{}-{}-{n}", recipe.model, recipe.method));
    (1..).map(name).find(|folder| !folder.exists()).unwrap_or_else(|| name(0))
}

/// Makes the folder of a new run: configuration, environment, an empty history, and a checkpoint to resume from at any
/// time. What was made is removed where this fails.
fn open(folder: &Path, trainer: &mut Trainer, data: &Data, device: &Device) -> Result<Metrics> {
    let existed = folder.exists();
    files::create_run_folder(folder)?;
    let path = |name: &str| folder.join(name);
    trainer.save_into(folder);
    let filled = (|| {
        files::write_atomically(path("config.toml"), trainer.recipe().to_toml()?.as_bytes())?;
        let sources = vec![DataSource::of("train", &data.train), DataSource::of("test", &data.test)];
        let environment = Environment::capture(device.describe(), sources).to_json();
        files::write_atomically(path("environment.json"), environment.as_bytes())?;
        let metrics = Metrics::create(path("metrics.jsonl"))?;
        trainer.save()?;
        Ok(metrics)
    })();
    filled.inspect_err(|_| {
        // Best effort: the error to report is the first one. The folder goes only where it is empty.
        for name in
            ["config.toml", "environment.json", "metrics.jsonl", "last.safetensors", "resume.safetensors"]
        {
            let _ = std::fs::remove_file(path(name));
        }
        if !existed {
            let _ = std::fs::remove_dir(folder);
        }
    })
}

/// Goes on in the folder of a run; gives its history.
fn reopen(
    folder: &Path,
    trainer: &mut Trainer,
    checkpoint: Checkpoint,
) -> Result<(Metrics, Vec<EpochRecord>)> {
    trainer.resume(folder, checkpoint)?;
    trainer.save_into(folder);
    Metrics::resume(folder.join("metrics.jsonl"), trainer.position().epoch)
}

/// What Ctrl-C does: while training, the first one asks for a stop after the step, and the second ends the program at
/// once; when training is done there is nothing left to save.
struct Interrupt {
    stop: Arc<AtomicBool>,
    saved: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on; `resume` is the command that goes on with the run.
    fn new(resume: &str) -> Interrupt {
        let interrupt = Interrupt { stop: Arc::default(), saved: Arc::default() };
        let (stop, saved, resume) = (interrupt.stop.clone(), interrupt.saved.clone(), resume.to_string());
        // Without a handler Ctrl-C just ends the program, and the last checkpoint is whole.
        let _ = ctrlc::set_handler(move || {
            if saved.load(Ordering::Relaxed) {
                eprintln!("\ninterrupted; the weights are saved, test them again with\n  {resume}");
                std::process::exit(130);
            }
            if stop.swap(true, Ordering::Relaxed) {
                eprintln!("stopped at once; go on from the last checkpoint with\n  {resume}");
                std::process::exit(130);
            }
            eprintln!("\nfinishing the step and saving; once more to stop at once");
        });
        interrupt
    }

    fn all_is_saved(&self) {
        self.saved.store(true, Ordering::Relaxed);
    }
}

/// Measures the best weights on the test images and writes what is left to write.
fn finish(
    trainer: Trainer,
    watcher: &Watcher,
    folder: &Path,
    data: &Data,
    attack: &Pgd,
    flags: &Flags,
) -> Result<()> {
    let recipe = trainer.recipe().clone();
    let store = Store::new(trainer.store().device());
    if let Some((weights, epoch)) = trainer.best() {
        checkpoint::put_weights(&store, trainer.params(), weights)?;
        let held = trainer.sizes().1;
        match held {
            0 => say!("\ntesting the weights of epoch {epoch}"),
            _ => say!("\ntesting the weights of epoch {epoch}, the best on the {held} validation images"),
        }
    }
    let mut measured = Vec::new();
    if trainer.sizes().1 > 0 {
        measured.push(format!(
            "validation: {}",
            results::line(&trainer.validation_attack()?, 1, trainer.sizes().1)
        ));
    }
    if trainer.method().is_adversarial() {
        measured.push(format!("training: {}", trainer.attack_line()?));
    }
    let measured = match measured.is_empty() {
        true => "clean accuracy alone".to_string(),
        false => format!("robust in {}", measured.join("; in ")),
    };
    // What training took on the device is free for testing.
    drop(trainer);
    let architecture = architectures::by_name(&recipe.model, data.test.image, data.test.classes)?;
    let bar = Progress::new(0, 1);
    let results = Results::measure(
        &store,
        architecture.as_ref(),
        &data.test,
        attack,
        flags.test_restarts,
        recipe.seed,
        |what, done, of| bar.working(what, done as u64, of as u64),
    )?;
    bar.finish();
    say!("\n{}", results.text());
    let title = format!("{} on {}, trained by {}", recipe.model, data.test.name, recipe.method);
    results.write(folder, &title, &data.test, attack)?;
    curves::write(folder.join("curves.png"), &title, &measured, &watcher.records)?;
    if let Some(path) = &flags.logits {
        let examples: Vec<u32> = (0..data.test.len() as u32).collect();
        let on = Classifier {
            architecture: architecture.as_ref(),
            mode: Mode::Eval,
            examples: examples.len(),
            precision: Precision::F32,
        };
        let batch = EVALUATION_BATCH.min(examples.len());
        let logits = logits(&store, on, "test", &examples, batch)?;
        checkpoint::save_logits(path, &logits, data.test.classes)?;
    }
    Ok(())
}

/// Prints every launch of a training step, and memory.
fn dry_run(trainer: &Trainer) -> Result<()> {
    let steps = trainer.method().attack().steps();
    let [load, step, update] = trainer.schedules(trainer.recipe().batch)?;
    let [take, count] = trainer.feeding()?;
    say!("\nwhat the step is, out of the epoch's tables\n{take}");
    say!("loading a batch and starting the attack\n{load}");
    say!("a step of the attack, {steps} times a batch\n{step}");
    say!("the update of the weights\n{update}");
    say!("counting on\n{count}");
    let flops = load.flops() + steps as u64 * step.flops() + update.flops();
    let launches = load.launch_count(1) + step.launch_count(steps) + update.launch_count(1);
    say!("one training step: 1 submission, {launches} launches, {:.1} MFLOP in products", flops as f64 / 1e6);
    let (tensors, temporaries) = trainer.memory();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say!(
        "memory of training: {:.1} MiB of tensors (data set, weights, optimiser, batch), {:.1} MiB of temporaries; \
         {:.1} MiB at most",
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
    say!("\n{:>9} {:>6} {:>5}  {:>8} {:>7}  launch", "time", "share", "runs", "GFLOP/s", "GB/s");
    for timing in timings {
        let seconds = timing.time.as_secs_f64().max(1e-12);
        say!(
            "{:>6.3} ms {:>5.1}% {:>5}  {:>8.1} {:>7.1}  {}",
            1e3 * seconds,
            100.0 * seconds / total.as_secs_f64().max(1e-12),
            timing.runs,
            timing.flops as f64 / seconds / 1e9,
            timing.bytes as f64 / seconds / 1e9,
            timing.name
        );
    }
    say!("{:>6.3} ms in all launches of one training step", 1e3 * total.as_secs_f64());
    Ok(())
}
