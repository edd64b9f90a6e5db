//! What comes after training: the test, and the files that tell of it.

use super::Watcher;
use super::common::say;
use super::flags::Flags;
use super::onnx;
use adamant::attack::{Classifier, Pgd, logits};
use adamant::data::Data;
use adamant::nn::{Architecture, Collapsed, Mode};
use adamant::plan::Precision;
use adamant::report::{Progress, Results, Turn, Turned, curves, overfitting, results};
use adamant::train::examples::inputs;
use adamant::train::{EVALUATION_BATCH, Trainer, checkpoint, method};
use adamant::{Result, Store};
use std::path::Path;

/// Measures the best weights on the test images and writes what is left to write.
pub(crate) fn finish(
    trainer: Trainer,
    watcher: &Watcher,
    folder: &Path,
    data: &Data,
    (attack, turn): (&Pgd, Option<&Turn>),
    flags: &Flags,
) -> Result<()> {
    let recipe = trainer.recipe().clone();
    let said = overfitting::words(&recipe, &watcher.records, trainer.position().stopped);
    if !said.is_empty() {
        say!();
    }
    said.iter().for_each(|sentence| say!("{sentence}"));
    let store = Store::new(trainer.store().device());
    if let Some(file) = &flags.export_onnx {
        let weights = trainer.best().map_or_else(|| trainer.weights(), |(weights, _)| Ok(weights.clone()))?;
        onnx::write(file, &recipe, (data.test.image, data.test.classes), &weights)?;
    }
    if let Some((weights, epoch)) = trainer.best() {
        checkpoint::put_weights(&store, trainer.params(), weights)?;
        let held = trainer.sizes().1;
        match held {
            0 => say!("\ntesting the weights of epoch {epoch}"),
            _ => say!(
                "\ntesting the weights of epoch {epoch}, the best on the {held} validation {}",
                data.train.kind()
            ),
        }
    }
    let mut measured = Vec::new();
    let kind = data.test.kind();
    if trainer.sizes().1 > 0 {
        measured.push(format!(
            "validation: {}",
            results::line(&trainer.validation_attack()?, 1, trainer.sizes().1, kind)
        ));
    }
    if trainer.watched_test_images() > 0 {
        measured.push(format!(
            "test: {}",
            results::line(&trainer.validation_attack()?, 1, trainer.watched_test_images(), kind)
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
    let network = recipe.network(data.test.image, data.test.classes)?;
    let dummies = method(&recipe)?.has_dummies();
    let collapsed = dummies.then(|| Collapsed(network.as_ref()));
    let architecture = collapsed.as_ref().map_or(network.as_ref(), |collapsed| collapsed);
    let bar = Progress::new(0, 1);
    let measure = |architecture: &dyn Architecture| {
        Results::measure(
            &store,
            architecture,
            &data.test,
            attack,
            flags.test_restarts,
            recipe.seed,
            |what, done, of| bar.working(what, done as u64, of as u64),
        )
    };
    let mut results = measure(architecture)?;
    if dummies {
        results.beside(&measure(network.as_ref())?);
    }
    bar.finish();
    say!("\n{}", results.text());
    if dummies {
        say!("{}", results::WHY_COLLAPSED);
    }
    let title = format!("{} on {}, trained by {}", recipe.model, data.test.name, recipe.method);
    results.write(folder, &title, &said, &data.test, attack)?;
    if let Some(why) = results.no_gallery(&data.test) {
        say!("no gallery.png: {why}");
    }
    curves::write(folder.join("curves.png"), &title, &measured, &said, &watcher.records)?;
    let on = Classifier {
        architecture,
        mode: Mode::Eval,
        examples: data.test.len(),
        inputs: inputs(&data.test),
        precision: Precision::F32,
    };
    if let Some(turn) = turn {
        let bar = Progress::new(0, 1);
        let how = (attack, flags.test_restarts, recipe.seed);
        let turned = Turned::measure(&store, on, &data.test, turn, how, |what, done, of| {
            bar.working(what, done as u64, of as u64);
        })?;
        bar.finish();
        say!("{}\n", turned.text(&data.test));
        turned.write(folder, &title, &data.test, attack)?;
    }
    if let Some(path) = &flags.logits {
        let examples: Vec<u32> = (0..data.test.len() as u32).collect();
        let batch = EVALUATION_BATCH.min(examples.len());
        let logits = logits(&store, on, "test", &examples, batch)?;
        checkpoint::save_logits(path, &logits, data.test.classes)?;
    }
    Ok(())
}
