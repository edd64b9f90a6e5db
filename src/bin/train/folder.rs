//! The folder of a run: where it is, what is made in a new one, how an old one is gone on with.

use adamant::data::Data;
use adamant::report::environment::DataSource;
use adamant::report::{Environment, Metrics, metrics};
use adamant::train::{Checkpoint, EpochRecord, Recipe, Trainer, checkpoint};
use adamant::{Device, Error, Result, files};
use std::path::{Path, PathBuf};

/// The checkpoint in the folder of a run.
pub(crate) fn read_checkpoint(folder: &Path) -> Result<Checkpoint> {
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
    let checkpoint = checkpoint::load_resume(&path)?;
    // What was written into the configuration since would have no effect.
    let config = folder.join("config.toml");
    if config.is_file() {
        let changed = Recipe::read(&config)?.differing_keys(&checkpoint.recipe)?;
        if !changed.is_empty() {
            let why = format!(
                "is not the recipe that the run began with, which it goes on with: {} differ. Put it back; or begin a new run \
                 by this recipe, if need be from these weights (--recipe {} --weights {})",
                changed.join(", "),
                config.display(),
                folder.display()
            );
            return Err(Error::file(config, why));
        }
    }
    Ok(checkpoint)
}

/// The first folder runs/MODEL-METHOD-N that is free.
pub(crate) fn free(recipe: &Recipe) -> PathBuf {
    // A network of a file is called by the file's name alone.
    let model =
        Path::new(&recipe.model).file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    let model = model.replace(".onnx", "");
    let name = |n: usize| Path::new("runs").join(format!("{model}-{}-{n}", recipe.method));
    (1..).map(name).find(|folder| !folder.exists()).unwrap_or_else(|| name(0))
}

/// Makes the folder of a new run: configuration, environment, an empty history, and a checkpoint to resume from at any
/// time. What was made is removed where this fails.
pub(crate) fn open(folder: &Path, trainer: &mut Trainer, data: &Data, device: &Device) -> Result<Metrics> {
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
pub(crate) fn reopen(
    folder: &Path,
    trainer: &mut Trainer,
    checkpoint: Checkpoint,
) -> Result<(Metrics, Vec<EpochRecord>)> {
    let (history, done) = (folder.join("metrics.jsonl"), checkpoint.position.epoch);
    // A record is written before its epoch's checkpoint: where one is missing, the file is not the run's own.
    let records = metrics::read(&history)?;
    if let Some(missing) =
        (1..=done).find(|epoch| records.get(*epoch as usize - 1).is_none_or(|r| r.epoch != *epoch))
    {
        let why = format!(
            "lacks the record of epoch {missing}, though the run has done {done}: put its own file back"
        );
        return Err(Error::file(history, why));
    }
    trainer.resume(folder, checkpoint)?;
    trainer.save_into(folder);
    Metrics::resume(history, done)
}
