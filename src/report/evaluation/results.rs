//! What an evaluation found, as a table and as JSON; as CSV in sheets.rs.

use super::extras::{Curve, Extras, Point, epsilon_curves, steps_curve};
use super::log::{Header, Part};
use super::outcomes::{Outcome, Outcomes};
use super::sheets;
use super::verify::row;
use crate::data::Dataset;
use crate::error::Result;
use crate::files::write_atomically;
use crate::report::table::{self, Row};
use crate::report::{Accuracy, grouped, honesty};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Version of what `results.json` looks like: another where something in it changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What an evaluation found. The files are described in docs/evaluation.md.
pub struct Results<'a> {
    pub(super) header: &'a Header,
    pub(super) outcomes: &'a Outcomes,
    pub(super) data: &'a Dataset,
    pub(super) extras: &'a Extras,
    /// Class of each example.
    pub(super) labels: Vec<u32>,
}

impl<'a> Results<'a> {
    /// Of a log of this header on these test data, and what was measured besides.
    pub fn of(
        header: &'a Header,
        outcomes: &'a Outcomes,
        extras: &'a Extras,
        data: &'a Dataset,
    ) -> Results<'a> {
        let labels = header.examples.iter().map(|&example| data.labels[example as usize]).collect();
        Results { header, outcomes, data, extras, labels }
    }

    /// Rows of the table: clean, by attack, and the worst case where there are several attacks.
    pub fn rows(&self) -> Vec<Row> {
        let attacks: Vec<usize> = self.header.part(Part::Attack).collect();
        let mut rows: Vec<Row> = attacks.iter().map(|&attack| self.row(attack)).collect();
        if attacks.len() > 2 {
            rows.push(Row { attack: self.worst_line(), accuracy: self.outcomes.worst.accuracy() });
        }
        rows
    }

    pub(super) fn row(&self, attack: usize) -> Row {
        row(self.header, attack, self.outcomes, self.data.kind())
    }

    /// The attack line of the worst case.
    fn worst_line(&self) -> String {
        let images = format!("{} {}", grouped(self.header.examples.len() as u64), self.data.kind());
        let attacks: Vec<usize> = self.header.part(Part::Attack).skip(1).collect();
        let Some(first) = attacks.first().map(|&at| &self.header.attacks[at]) else { return images };
        let one_suite =
            first.suite.is_some() && attacks.iter().all(|&at| self.header.attacks[at].suite == first.suite);
        let what = match &first.suite {
            Some(suite) if one_suite => suite.clone(),
            _ if attacks.len() == 1 => {
                return self.row(attacks[0]).attack;
            }
            _ => format!("worst case of the {} attacks", attacks.len()),
        };
        let epsilon =
            first.threat().map_or_else(|_| first.epsilon.clone(), |threat| threat.epsilon.to_string());
        format!("{what}, {} {epsilon}, {images}", first.norm)
    }

    /// The table and curves, for a terminal.
    pub fn text(&self) -> String {
        let mut text = table::text(&self.rows());
        for (part, heading) in [
            (Part::Epsilon, "accuracy against epsilon, each attack on what those before left standing"),
            (Part::Steps, "accuracy against steps"),
        ] {
            let rows: Vec<Row> = self.header.part(part).map(|attack| self.row(attack)).collect();
            if !rows.is_empty() {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n{heading}\n{}", table::text(&rows));
            }
        }
        text
    }

    /// Accuracy on corrupted images, where it was measured, for a terminal.
    pub fn corruptions_text(&self) -> String {
        let Some(first) = self.extras.corrupted.first() else { return String::new() };
        let images = grouped(first.accuracies[0].total);
        let mut text =
            format!("accuracy in % (and 95 % interval) on {images} corrupted images, strengths 1 to 5\n");
        for one in &self.extras.corrupted {
            let cell = |accuracy: &Accuracy| {
                let (low, high) = accuracy.interval();
                format!("{:>6.2} ({:>5.1} to {:>5.1})", accuracy.percent(), 100.0 * low, 100.0 * high)
            };
            let all: Vec<String> = one.accuracies.iter().map(cell).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:<15}{}", one.corruption.name(), all.join("  "));
        }
        let _ = writeln!(text, "  mean           {:>6.2}", 100.0 * super::mean(&self.extras.corrupted));
        text
    }

    /// What the checks of the evaluation itself looked at, and whether they found nothing, for a terminal.
    pub fn checks_text(&self) -> String {
        let images = match self.extras.checked {
            None | Some(0) => return String::new(),
            Some(images) => images,
        };
        let of = format!(
            "attacks on {} of {} {}, where {:.2} points and more are told of",
            grouped(images as u64),
            grouped(self.header.examples.len() as u64),
            self.data.kind(),
            honesty::told(images)
        );
        match self.extras.flags.iter().any(|flag| flag.kind.is_warning()) {
            true => format!("looked for by {of}\n"),
            false => format!("no sign that these figures flatter the network, by {of}\n"),
        }
    }

    /// Clean and worst-case accuracy of each class.
    pub fn by_class(&self) -> Vec<(Accuracy, Accuracy)> {
        let share = |outcome: &Outcome, class: u32| {
            let of_class = || (0..self.labels.len()).filter(move |&at| self.labels[at] == class);
            let standing = of_class().filter(|&at| outcome.standing[at]).count();
            Accuracy::new(standing as u64, of_class().count() as u64)
        };
        (0..self.data.classes as u32)
            .map(|class| (share(&self.outcomes.attacks[0], class), share(&self.outcomes.worst, class)))
            .collect()
    }

    /// How many examples of each class (rows) are read as each class (columns) where the attacks broke them, or as their
    /// own where they stand.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let mut matrix = vec![vec![0; self.data.classes]; self.data.classes];
        for (&label, &prediction) in self.labels.iter().zip(&self.outcomes.worst.prediction) {
            matrix[label as usize][prediction as usize] += 1;
        }
        matrix
    }

    fn json(&self) -> Value {
        let attack = |index: usize| {
            let (attacked, outcome) = (&self.header.attacks[index], &self.outcomes.attacks[index]);
            let epsilon = attacked.threat().map_or(f64::NAN, |threat| threat.epsilon.value());
            json!({
                "name": attacked.name,
                "suite": attacked.suite,
                "line": self.row(index).attack,
                "norm": attacked.norm,
                "epsilon": epsilon,
                "epsilon_text": attacked.epsilon,
                "restarts": attacked.restarts,
                "minimum_norm": attacked.minimum_norm,
                "goes_on": attacked.goes_on,
                "from": attacked.from,
                "tried": outcome.tried,
                "outside": outcome.outside,
                "robust": accuracy(outcome.accuracy()),
            })
        };
        let classes: Vec<Value> = self
            .by_class()
            .into_iter()
            .zip(&self.data.class_names)
            .enumerate()
            .map(|(class, ((clean, worst), name))| {
                json!({ "class": class, "name": name, "clean": accuracy(clean), "worst": accuracy(worst) })
            })
            .collect();
        json!({
            "schema": SCHEMA,
            "program": self.header.program,
            "model": { "name": self.header.model, "sha256": self.header.model_sha256 },
            "data": {
                "name": self.header.data,
                "sha256": self.header.data_sha256,
                "examples": self.header.examples.len(),
                "of": self.data.len(),
            },
            "seed": self.header.seed,
            "clean": accuracy(self.outcomes.attacks[0].accuracy()),
            "attacks": self.header.part(Part::Attack).skip(1).map(attack).collect::<Vec<_>>(),
            "worst": { "line": self.worst_line(), "robust": accuracy(self.outcomes.worst.accuracy()) },
            "classes": classes,
            "confusion": self.confusion(),
            "epsilon_curves": epsilon_curves(self.header, self.outcomes)
                .iter()
                .map(|curve| self.curve(curve))
                .collect::<Vec<_>>(),
            "steps_curve": steps_curve(self.header, self.outcomes).as_ref().map(|curve| self.curve(curve)),
            "corruptions": self.extras.corrupted.iter().map(|one| json!({
                "name": one.corruption.name(),
                "strengths": one.accuracies.iter().map(|&a| accuracy(a)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "margins": self.extras.margins.as_ref().map(|margins| json!({
                "attack": margins.attack,
                "examples": margins.examples.len(),
                "clean": { "margin": quantiles(&margins.clean.margins), "loss": quantiles(&margins.clean.losses) },
                "attacked": {
                    "margin": quantiles(&margins.attacked.margins),
                    "loss": quantiles(&margins.attacked.losses),
                },
            })),
            "checks": self.extras.checked.map(|images| json!({
                "attacked": images,
                "told_from": (images > 0).then(|| honesty::told(images) / 100.0),
            })),
            "flags": self.extras.flags.iter().map(|flag| json!({
                "name": flag.kind.name(),
                "warning": flag.kind.is_warning(),
                "measured": flag.measured,
                "advice": flag.advice,
            })).collect::<Vec<_>>(),
        })
    }

    /// Points of a curve.
    fn curve(&self, curve: &Curve) -> Value {
        let point = |point: &Point| {
            let line = self.row(point.attack).attack;
            json!({ "at": point.at, "line": line, "robust": accuracy(point.robust) })
        };
        json!({ "name": curve.name, "points": curve.points.iter().map(point).collect::<Vec<_>>() })
    }

    /// Writes `results.json`, and the tables of sheets.rs.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(folder.join("results.json"), format!("{:#}\n", self.json()).as_bytes())?;
        sheets::write(self, folder)
    }
}

/// The values below which 5, 25, 50, 75 and 95 % of them lie.
fn quantiles(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    let at = |share: f64| sorted.get((share * last).round() as usize).copied();
    [0.05, 0.25, 0.5, 0.75, 0.95].into_iter().filter_map(at).collect()
}

/// An accuracy with its interval, both null where there is nothing to be right of.
fn accuracy(accuracy: Accuracy) -> Value {
    let (low, high) = accuracy.interval();
    let any = accuracy.total > 0;
    json!({
        "correct": accuracy.correct,
        "total": accuracy.total,
        "accuracy": any.then(|| accuracy.fraction()),
        "interval_95": any.then_some([low, high]),
    })
}
