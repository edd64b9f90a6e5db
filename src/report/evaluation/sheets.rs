//! What an evaluation found as comma-separated tables, a file each: docs/evaluation.md names their columns.

use super::Results;
use super::extras::{Curve, epsilon_curves, steps_curve};
use super::log::Part;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::report::Accuracy;
use std::path::Path;

/// A table: its columns, and its rows of as many fields.
type Sheet = (Vec<String>, Vec<Vec<String>>);

/// What an accuracy is in a table.
const ACCURACY: [&str; 5] = ["correct", "total", "accuracy", "low", "high"];

/// Writes every table of which there is anything.
///
/// # Errors
/// Of the disk.
pub(super) fn write(results: &Results<'_>, folder: &Path) -> Result<()> {
    for (name, (columns, rows)) in [
        ("results.csv", table(results)),
        ("examples.csv", examples(results)),
        ("classes.csv", classes(results)),
        ("confusion.csv", confusion(results)),
        ("curves.csv", curves(results)),
        ("corruptions.csv", corruptions(results)),
        ("margins.csv", margins(results)),
    ] {
        if rows.is_empty() {
            continue;
        }
        let file = folder.join(name);
        let failed = |error: csv::Error| Error::file(&file, error.to_string());
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in std::iter::once(&columns).chain(&rows) {
            writer.write_record(row).map_err(failed)?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.into_error().into()))?;
        write_atomically(&file, &bytes)?;
    }
    Ok(())
}

/// Names of columns.
fn columns<const A: usize, const B: usize>(before: [&str; A], after: [&str; B]) -> Vec<String> {
    before.into_iter().chain(after).map(String::from).collect()
}

/// The columns [`ACCURACY`]; the last three are empty where there is nothing to be right of.
fn fields(accuracy: Accuracy) -> [String; 5] {
    let (low, high) = accuracy.interval();
    let Accuracy { correct, total } = accuracy;
    let shares = [accuracy.fraction(), low, high];
    let [share, low, high] = shares.map(|x| if total > 0 { x.to_string() } else { String::new() });
    [correct.to_string(), total.to_string(), share, low, high]
}

fn with<const N: usize>(first: [String; N], accuracy: Accuracy) -> Vec<String> {
    first.into_iter().chain(fields(accuracy)).collect()
}

/// The table that is printed.
fn table(results: &Results<'_>) -> Sheet {
    let rows = results.rows().into_iter().map(|row| with([row.attack], row.accuracy));
    (columns(["attack"], ACCURACY), rows.collect())
}

/// A row an example.
fn examples(results: &Results<'_>) -> Sheet {
    let (header, outcomes) = (results.header, results.outcomes);
    let attacks: Vec<usize> = header.part(Part::Attack).skip(1).collect();
    let mut columns = columns(["example", "label", "clean"], ["stands", "distance", "prediction"]);
    for &attack in &attacks {
        let (name, number) = (header.attacks[attack].within_suite(), columns.len());
        // No two columns have one name.
        let taken = columns.contains(&name);
        columns.push(if taken { format!("{name}, column {}", number + 1) } else { name });
    }
    let row = |(at, (&example, &label)): (usize, (&u32, &u32))| {
        let standing = |of: &[bool]| u8::from(of[at]).to_string();
        let distance = match outcomes.worst.distance[at] {
            distance if distance.is_finite() => distance.to_string(),
            _ => String::new(),
        };
        let mut row = vec![
            example.to_string(),
            label.to_string(),
            outcomes.attacks[0].prediction[at].to_string(),
            standing(&outcomes.worst.standing),
            distance,
            outcomes.worst.prediction[at].to_string(),
        ];
        row.extend(attacks.iter().map(|&attack| standing(&outcomes.attacks[attack].standing)));
        row
    };
    let rows = header.examples.iter().zip(&results.labels).enumerate().map(row).collect();
    (columns, rows)
}

/// Clean and worst-case accuracy of each class.
fn classes(results: &Results<'_>) -> Sheet {
    let mut rows = Vec::new();
    let classes = results.by_class().into_iter().zip(&results.data.class_names).enumerate();
    for (class, ((clean, worst), name)) in classes {
        for (what, accuracy) in [("clean", clean), ("worst", worst)] {
            rows.push(with([class.to_string(), name.clone(), what.into()], accuracy));
        }
    }
    (columns(["class", "name", "under"], ACCURACY), rows)
}

/// What examples of each class are read as: a row and a column a class.
fn confusion(results: &Results<'_>) -> Sheet {
    let matrix = results.confusion();
    let classes = 0..matrix.len();
    let columns = std::iter::once("class".into()).chain(classes.map(|class| class.to_string())).collect();
    let row = |(class, counts): (usize, &Vec<u64>)| {
        std::iter::once(class.to_string()).chain(counts.iter().map(u64::to_string)).collect()
    };
    (columns, matrix.iter().enumerate().map(row).collect())
}

/// Accuracy against epsilon and against steps, a row a point.
fn curves(results: &Results<'_>) -> Sheet {
    let (header, outcomes) = (results.header, results.outcomes);
    let rows = |against: &str, curve: &Curve| -> Vec<Vec<String>> {
        let row = |point: &super::extras::Point| {
            let line = results.row(point.attack).attack;
            with([against.into(), curve.name.clone(), point.at.to_string(), line], point.robust)
        };
        curve.points.iter().map(row).collect()
    };
    let epsilon = epsilon_curves(header, outcomes).into_iter().map(|curve| ("epsilon", curve));
    let steps = steps_curve(header, outcomes).into_iter().map(|curve| ("steps", curve));
    let all = epsilon.chain(steps).flat_map(|(against, curve)| rows(against, &curve)).collect();
    (columns(["against", "curve", "at", "attack"], ACCURACY), all)
}

/// Accuracy on corrupted images, a row a corruption and strength.
fn corruptions(results: &Results<'_>) -> Sheet {
    let mut rows = Vec::new();
    for one in &results.extras.corrupted {
        for (before, &accuracy) in one.accuracies.iter().enumerate() {
            rows.push(with([one.corruption.name().into(), (before + 1).to_string()], accuracy));
        }
    }
    (columns(["corruption", "strength"], ACCURACY), rows)
}

/// Margins and losses, a row an example.
fn margins(results: &Results<'_>) -> Sheet {
    let mut rows = Vec::new();
    if let Some(margins) = &results.extras.margins {
        let (clean, attacked) = (&margins.clean, &margins.attacked);
        for (at, example) in margins.examples.iter().enumerate() {
            let numbers = [clean.margins[at], clean.losses[at], attacked.margins[at], attacked.losses[at]];
            rows.push(std::iter::once(example.to_string()).chain(numbers.map(|x| x.to_string())).collect());
        }
    }
    (columns(["example", "clean_margin", "clean_loss"], ["attacked_margin", "attacked_loss"]), rows)
}
