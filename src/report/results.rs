//! What a trained network is worth on test images: clean accuracy and accuracy under attacks, with pictures.

use super::gallery::{Example, Prediction, Scale};
use super::table::Row;
use super::{Accuracy, Gallery, gallery, grouped, table};
use crate::attack::{Adversarial, Attack, Classifier, Evaluation, Fgsm, Norm, Pgd, ThreatModel, Verdicts};
use crate::data::{Dataset, Examples};
use crate::error::Result;
use crate::files::write_atomically;
use crate::nn::{Architecture, Mode};
use crate::plan::Precision;
use crate::tensor::Store;
use crate::train::{EVALUATION_BATCH, examples};
use serde_json::json;
use std::path::Path;

/// Examples a gallery shows.
const GALLERY: usize = 10;

/// A network's test results.
pub struct Results {
    rows: Vec<Row>,
    verdicts: Verdicts,
    examples: Vec<Adversarial>,
    attack: String,
}

/// Why a network with dummy classes is judged by what it collapses to.
pub const WHY_COLLAPSED: &str = "judged by the C-class network that the 2C outputs collapse to, logsumexp of each class \
     and its dummy; attacks on the raw outputs spend themselves on moving an image from a class to its own dummy, which \
     changes nothing: they over-report robustness, and stand beside for comparison";

/// An attack's line with restarts and the number of examples, which are of this kind ([`Dataset::kind`]): what every robust
/// accuracy is printed with.
pub fn line(attack: &dyn Attack, restarts: u32, examples: usize, kind: &str) -> String {
    let restarts = match restarts {
        _ if !attack.is_random() => String::new(),
        1 => ", 1 restart".into(),
        restarts => format!(", {restarts} restarts"),
    };
    format!("{}{restarts}, {} {kind}", attack.line(), grouped(examples as u64))
}

impl Results {
    /// Attacks the network whose weights are in `store` on all images of `data`: FGSM, then `pgd` with `restarts`.
    /// `progress` hears what is being done, how much of it is done and how much there is.
    ///
    /// # Errors
    /// Of the device.
    pub fn measure(
        store: &Store,
        architecture: &dyn Architecture,
        data: &Dataset,
        pgd: &Pgd,
        restarts: u32,
        seed: u64,
        mut progress: impl FnMut(&str, usize, usize),
    ) -> Result<Results> {
        examples::put(store, "test", data)?;
        let on = Classifier {
            architecture,
            mode: Mode::Eval,
            examples: data.len(),
            inputs: examples::inputs(data),
            precision: Precision::F32,
        };
        let batch = EVALUATION_BATCH.min(data.len());
        let all: Vec<u32> = (0..data.len() as u32).collect();
        let fgsm = Fgsm { threat: pgd.threat.clone() };
        let row = |attack: String, correct: usize| Row {
            attack,
            accuracy: Accuracy::new(correct as u64, data.len() as u64),
        };
        let mut rows = Vec::new();

        let verdicts = Evaluation::compile(store, &fgsm, on, "test", batch)?.run(
            &all,
            &data.labels,
            1,
            seed,
            |done, of| progress("FGSM", done, of),
        )?;
        rows.push(row(
            format!("none (clean), {} {}", grouped(data.len() as u64), data.kind()),
            verdicts.clean_count(),
        ));
        rows.push(row(line(&fgsm, 1, data.len(), data.kind()), verdicts.robust_count()));

        let judge = Evaluation::compile(store, pgd, on, "test", batch)?;
        let name = pgd.name();
        let verdicts = judge.run(&all, &data.labels, restarts, seed, |done, of| progress(&name, done, of))?;
        let attack = line(pgd, restarts, data.len(), data.kind());
        rows.push(row(attack.clone(), verdicts.robust_count()));

        let chosen = choose(&verdicts, &data.labels, data.classes);
        let examples = judge.images(&chosen, seed)?;
        Ok(Results { rows, verdicts, examples, attack })
    }

    /// Adds the rows of a network with dummy classes whose raw outputs were attacked, marked as that.
    pub fn beside(&mut self, raw: &Results) {
        for row in &mut self.rows {
            row.attack = format!("collapsed: {}", row.attack);
        }
        let raw = raw.rows.iter().map(|row| Row { attack: format!("raw: {}", row.attack), ..row.clone() });
        self.rows.extend(raw);
    }

    /// The table, for a terminal.
    pub fn text(&self) -> String {
        table::text(&self.rows)
    }

    /// The table, for a model's card.
    pub fn markdown(&self) -> String {
        table::markdown(&self.rows)
    }

    /// The rows of the table.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The verdicts under the last attack.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Why these results on `data` get no gallery, where they get none.
    pub fn no_gallery(&self, data: &Dataset) -> Option<String> {
        let [height, width, _] = data.image;
        match data.examples {
            Examples::Features(..) => Some(format!("{} are no pictures", data.kind())),
            Examples::Images(_) if height.max(width) > gallery::MOST_SIDE => {
                Some(format!("images of {height}x{width} pixels are too large for it"))
            }
            Examples::Images(_) => None,
        }
    }

    /// Writes `results.json` and `gallery.png` into a run folder; `said` is what happened in training
    /// ([`super::overfitting::words`]). See [`Results::no_gallery`].
    ///
    /// # Errors
    /// Of drawing or of the disk.
    pub fn write(
        &self,
        folder: &Path,
        title: &str,
        said: &[String],
        data: &Dataset,
        pgd: &Pgd,
    ) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let (low, high) = row.accuracy.interval();
                json!({
                    "attack": row.attack,
                    "correct": row.accuracy.correct,
                    "total": row.accuracy.total,
                    "accuracy": row.accuracy.fraction(),
                    "interval_95": [low, high],
                })
            })
            .collect();
        let text = format!(
            "{:#}\n",
            json!({ "model": title, "data": data.name, "training": said, "results": rows })
        );
        write_atomically(folder.join("results.json"), text.as_bytes())?;
        if self.no_gallery(data).is_some() {
            return Ok(());
        }
        let examples: Vec<Example> =
            self.examples.iter().map(|found| example(found, data.labels[found.example as usize])).collect();
        Gallery {
            title,
            attack: &self.attack,
            image: data.image,
            class_names: &data.class_names,
            scale: scale(&pgd.threat),
            examples: &examples,
        }
        .write(folder.join("gallery.png"))
    }
}

/// Which change of a pixel a gallery draws in full colour.
pub(super) fn scale(threat: &ThreatModel) -> Scale {
    match threat.norm == Norm::Linf {
        true => Scale::Epsilon(threat.epsilon.value() as f32, threat.epsilon.text().into()),
        false => Scale::Largest,
    }
}

/// What a gallery shows of an image of class `label`.
pub(super) fn example(found: &Adversarial, label: u32) -> Example {
    let prediction = |(class, confidence)| Prediction { class, confidence };
    Example {
        clean: found.clean.clone(),
        adversarial: found.adversarial.clone(),
        label,
        clean_prediction: prediction(found.clean_prediction),
        adversarial_prediction: prediction(found.adversarial_prediction),
    }
}

/// Examples worth a look: of each class one that withstood the attack, or one that did not, in turn, so that the
/// gallery shows both as far as there are both; the first of its kind in the data set. Classes without an image that is
/// classified right are passed over; where that leaves none at all, the first images are shown as they are.
fn choose(verdicts: &Verdicts, labels: &[u32], classes: usize) -> Vec<u32> {
    let mut chosen = Vec::new();
    for turn in 0..classes.max(GALLERY) {
        let class = (turn % classes) as u32;
        let fits = |i: &usize, robust: Option<bool>| {
            labels[*i] == class
                && verdicts.correct[*i]
                && robust.is_none_or(|robust| verdicts.robust[*i] == robust)
                && !chosen.contains(&(*i as u32))
        };
        let wanted = chosen.len() % 2 == 0;
        let found = (0..labels.len())
            .find(|i| fits(i, Some(wanted)))
            .or_else(|| (0..labels.len()).find(|i| fits(i, None)));
        chosen.extend(found.map(|i| i as u32));
        if chosen.len() == GALLERY {
            break;
        }
    }
    if chosen.is_empty() {
        chosen.extend(0..labels.len().min(GALLERY) as u32);
    }
    chosen
}
