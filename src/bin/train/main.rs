//! `train`: adversarially trains a network and tells the truth about the robustness it reached.

#[path = "../common/mod.rs"]
mod common;
mod finish;
mod flags;
mod folder;
mod interrupt;
mod mpi;
mod onnx;
mod show;
mod tuner;

use adamant::data;
use adamant::report::{Metrics, Progress, Turn};
use adamant::trace::Trace;
use adamant::train::{
    Checkpoint, EpochRecord, Observer, Outcome, Recipe, Silent, StepReport, Trainer, recipes,
};
use adamant::{Error, Result, files};
use clap::Parser;
use common::{Machine, QUIET, say};
use finish::finish;
use flags::Flags;
use interrupt::Interrupt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn main() -> ExitCode {
    let start = Instant::now();
    // SAFETY: nothing else runs yet: this is the first thing the program does.
    unsafe { common::quieten_vulkan() };
    let flags = Flags::parse();
    common::end(run(&flags, start))
}

/// Does what the flags ask for; `start` is when the program began.
fn run(flags: &Flags, start: Instant) -> Result<ExitCode> {
    flags.check()?;
    flags.machine.start_threads()?;
    if flags.machine.list_devices {
        Machine::list();
        return Ok(ExitCode::SUCCESS);
    }
    if flags.list_recipes {
        return show::recipes().map(|()| ExitCode::SUCCESS);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let peers = if flags.mpi { Some(mpi::start(stop.clone())?) } else { None };
    let (rank, processes) = peers.as_ref().map_or((0, 1), |peers| (peers.rank(), peers.count()));
    QUIET.store(rank > 0, Ordering::Relaxed);
    flags.machine.memory()?;
    let (recipe, checkpoint) = match (&flags.resume, &flags.recipe) {
        (Some(folder), _) => {
            let checkpoint = folder::read_checkpoint(folder)?;
            (checkpoint.recipe.clone(), Some(checkpoint))
        }
        (None, Some(spec)) => (flags.over(recipes::find(spec)?)?, None),
        (None, None) => (flags.over(Recipe::default())?, None),
    };
    let test_attack = flags.test_attack(&recipe)?;
    let turn: Option<Turn> = flags.turn.as_deref().map(str::parse).transpose()?;
    let data = data::load_sized(&recipe.data, recipe.image_size)?;
    turn.iter().try_for_each(|turn| turn.check(&data.test))?;
    recipe.check_data(&data.train.name, data.train.image, data.train.classes)?;
    let architecture = recipe.network(data.train.image, data.train.classes)?;
    if let (Some(file), Some(folder), Some(checkpoint)) = (&flags.export_onnx, &flags.resume, &checkpoint)
        && onnx::is_over(&checkpoint.position, &recipe)
    {
        let of = (data.train.image, data.train.classes);
        return onnx::write_finished(file, folder, &recipe, of).map(|()| ExitCode::SUCCESS);
    }
    let device = flags.machine.device()?;
    tuner::start(flags, &device)?;
    let mut trainer = Trainer::with_peers(recipe.clone(), architecture, &data.train, &device, peers)?;
    trainer.watch_test(&data.test)?;
    trainer.checkpoint_every(flags.checkpoint_every);
    if let Some(tuner) = device.tuner() {
        say!("tuner     {tuner}");
        tuner.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    show::heading(&trainer, &data)?;
    if processes > 1 {
        say!("together  {processes} processes, each on its share of every batch");
    }
    if checkpoint.is_none()
        && let Some(file) = trainer.begin_from_recipe()?
    {
        say!("weights   from {}", file.display());
    }
    if flags.dry_run {
        return show::dry_run(&trainer).map(|()| ExitCode::SUCCESS);
    }
    if flags.profile {
        return show::profile(&trainer).map(|()| ExitCode::SUCCESS);
    }

    if rank > 0 {
        return follow(trainer, flags, checkpoint, stop);
    }
    let (folder, (metrics, records)) = match (&flags.resume, checkpoint) {
        (Some(folder), Some(checkpoint)) => {
            (folder.clone(), folder::reopen(folder, &mut trainer, checkpoint)?)
        }
        _ => {
            let folder = flags.out.clone().unwrap_or_else(|| folder::free(&recipe));
            let metrics = folder::open(&folder, &mut trainer, &data, &device)?;
            (folder, (metrics, Vec::new()))
        }
    };
    say!("results   {}", folder.display());
    let progress = Progress::resumed(trainer.total_steps(), trainer.position().steps, recipe.epochs);
    let adversarial = trainer.method().is_adversarial();
    let mut watcher = Watcher { progress, metrics, records, adversarial };
    let resume = format!("cargo run --release --bin train -- --resume {}", folder.display());
    let interrupt = Interrupt::new(&resume, stop);
    let trace = flags.trace.as_ref().map(|file| (file, Arc::new(Trace::default())));
    trace.iter().for_each(|(_, trace)| device.start_trace(trace));
    tuner::record(&folder, &device)?;
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
    mpi::done();
    trainer.leave_peers();
    // Testing may have had kernels of its own to choose.
    let finished = finish(trainer, &watcher, &folder, &data, (&test_attack, turn.as_ref()), flags);
    if let Err(error) = finished.and_then(|()| tuner::record(&folder, &device)) {
        eprintln!("error: {error}");
        eprintln!("the weights are saved; when that is mended, test them again with\n  {resume}");
        return Ok(ExitCode::FAILURE);
    }
    say!("{:.1} s in all; results in {}", start.elapsed().as_secs_f64(), folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Trains as one of several processes that is not the first: without a folder, and without a word.
fn follow(
    mut trainer: Trainer,
    flags: &Flags,
    checkpoint: Option<Checkpoint>,
    stop: Arc<AtomicBool>,
) -> Result<ExitCode> {
    if let (Some(folder), Some(checkpoint)) = (&flags.resume, checkpoint) {
        trainer.resume(folder, checkpoint)?;
    }
    Interrupt::quietly(stop.clone());
    match trainer.run(&mut Silent, &stop)? {
        Outcome::Interrupted => Ok(ExitCode::from(130)),
        Outcome::Finished => {
            mpi::done();
            trainer.leave_peers();
            Ok(ExitCode::SUCCESS)
        }
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
        if let Some(collapse) = &record.collapse {
            let what = "warning: catastrophic overfitting in epoch";
            self.progress.note(&format!("{what} {}: {collapse}", record.epoch));
        }
        self.records.push(record.clone());
        self.metrics.append(record)
    }
}
