//! Training curves: accuracy, loss, epsilon and learning rate over the epochs.

use super::canvas::{Align, Canvas, FAINT, INK, MUTED, RGBColor, Type};
use super::compact;
use crate::files::write_atomically;
use crate::train::EpochRecord;
use crate::{Error, Result};
use std::path::Path;

const WIDTH: u32 = 1400;
const HEIGHT: u32 = 900;

// Okabe and Ito's colours, told apart with any colour vision.
pub(super) const CLEAN: RGBColor = RGBColor(0, 114, 178);
pub(super) const ROBUST: RGBColor = RGBColor(213, 94, 0);
pub(super) const OTHER: RGBColor = RGBColor(0, 130, 100);
const COLLAPSED: RGBColor = RGBColor(160, 30, 60);
const CHOSEN: RGBColor = RGBColor(250, 236, 196);
const CHOSEN_INK: RGBColor = RGBColor(138, 104, 10);

const DASH: Option<(f64, f64)> = Some((7.0, 5.0));
const DOTS: Option<(f64, f64)> = Some((2.0, 5.0));
pub(super) const TITLE: Type = Type::bold(27.0, INK);
pub(super) const SUBTITLE: Type = Type::new(17.0, MUTED);
pub(super) const HEADING: Type = Type::bold(18.0, INK);
pub(super) const TICK: Type = Type::new(15.0, MUTED);

/// Draw the curves of a run as a PNG file of 1400x900 pixels.
///
/// `title` says what was trained, `attack` is the attack line that the robust accuracies were measured with, `said` what
/// happened ([`super::overfitting::words`]). The chosen epoch is the last with `best` set. The training images' clean
/// accuracy is that of the probe images where training saw attacked ones alone.
///
/// # Errors
/// [`Error::Argument`] without a record; [`Error::Unsupported`] where the picture cannot be drawn.
pub fn draw(title: &str, attack: &str, said: &[String], records: &[EpochRecord]) -> Result<Vec<u8>> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(Error::argument(
            "curves",
            "no epochs",
            "there is nothing to draw before an epoch has ended",
        ));
    };
    let epochs = (f64::from(first.epoch), f64::from(last.epoch));
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let title = canvas.shorten(title, 1300.0, TITLE);
    canvas.text(&title, 48.0, 46.0, Align::Left, TITLE);
    let attack = canvas.shorten(attack, 1300.0, SUBTITLE);
    canvas.text(&attack, 48.0, 80.0, Align::Left, SUBTITLE);
    let said = canvas.shorten(&said.join(". "), 1300.0, SUBTITLE);
    canvas.text(&said, 48.0, 107.0, Align::Left, SUBTITLE);

    let series = |name, color, dash, value: fn(&EpochRecord) -> Option<f64>, scale: f64| Series {
        name,
        color,
        dash,
        points: records
            .iter()
            .filter_map(|r| Some((f64::from(r.epoch), scale * value(r)?)))
            .filter(|(_, y)| y.is_finite())
            .collect(),
    };
    let chosen = records.iter().rev().find(|record| record.best);
    let accuracy = Panel {
        heading: "Accuracy",
        x: 104.0,
        y: 182.0,
        width: 670.0,
        height: 650.0,
        epochs,
        percent: true,
        series: vec![
            series("training, clean", CLEAN, DASH, |r| r.train_clean.or(r.probe_clean), 100.0),
            series("training, robust", ROBUST, DASH, |r| r.train_robust, 100.0),
            series("test, clean", CLEAN, DOTS, |r| r.test_clean, 100.0),
            series("test, robust", ROBUST, DOTS, |r| r.test_robust, 100.0),
            series("validation, clean", CLEAN, None, |r| r.validation_clean, 100.0),
            series("validation, robust", ROBUST, None, |r| r.validation_robust, 100.0),
        ],
    };
    let small = [
        ("Training loss", series("", OTHER, None, |r| Some(r.loss), 1.0)),
        ("Gradient alignment in the ball (cosine)", series("", OTHER, None, |r| r.alignment, 1.0)),
        ("Epsilon trained with", series("", OTHER, None, |r| Some(r.epsilon), 1.0)),
        ("Learning rate", series("", OTHER, None, |r| Some(r.learning_rate), 1.0)),
    ];
    let alignment = records.iter().any(|record| record.alignment.is_some());
    let (pitch, height) = if alignment { (182.0, 104.0) } else { (250.0, 150.0) };
    let small = small.into_iter().filter(|(_, series)| alignment || !series.points.is_empty());
    let small = small.enumerate().map(|(row, (heading, series))| Panel {
        heading,
        x: 990.0,
        y: 182.0 + pitch * row as f64,
        width: 320.0,
        height,
        epochs,
        percent: false,
        series: vec![series],
    });
    for panel in std::iter::once(accuracy).chain(small) {
        panel.draw(&mut canvas, chosen);
        for record in records.iter().filter(|record| record.collapse.is_some()) {
            panel.mark(&mut canvas, record.epoch.into());
        }
    }
    canvas.png()
}

/// Draw the curves into the file `path`; see [`draw`].
///
/// # Errors
/// As [`draw`], and [`Error::Io`] where the file cannot be written.
pub fn write(
    path: impl AsRef<Path>,
    title: &str,
    attack: &str,
    said: &[String],
    records: &[EpochRecord],
) -> Result<()> {
    write_atomically(path, &draw(title, attack, said, records)?)
}

/// One line of a panel.
struct Series {
    name: &'static str,
    color: RGBColor,
    dash: Option<(f64, f64)>,
    /// Epoch and value.
    points: Vec<(f64, f64)>,
}

/// One diagram over the epochs; `x`, `y`, `width` and `height` are those of its axes.
struct Panel {
    heading: &'static str,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    epochs: (f64, f64),
    percent: bool,
    series: Vec<Series>,
}

impl Panel {
    fn draw(&self, canvas: &mut Canvas, chosen: Option<&EpochRecord>) {
        let (low, high, step) = self.range();
        let bottom = self.y + self.height;
        // Half an epoch of room on either side, so that points do not sit on the axes and one epoch has a width.
        let (first, last) = (self.epochs.0 - 0.5, self.epochs.1 + 0.5);
        let to_x = |epoch: f64| self.x + (epoch - first) / (last - first) * self.width;
        let to_y = |value: f64| bottom - (value - low) / (high - low) * self.height;

        if let Some(chosen) = chosen {
            let width = (self.width / (last - first)).clamp(3.0, 26.0);
            canvas.rect(to_x(chosen.epoch.into()) - width / 2.0, self.y, width, self.height, CHOSEN);
        }
        canvas.text(self.heading, self.x - 56.0, self.y - 40.0, Align::Left, HEADING);
        for i in 0..=((high - low) / step).round() as usize {
            let value = low + i as f64 * step;
            let y = to_y(value);
            let color = if i == 0 { MUTED } else { FAINT };
            canvas.line(&[(self.x, y), (self.x + self.width, y)], 1.0, color, None);
            let label = if self.percent { format!("{value:.0} %") } else { tick(value, step) };
            canvas.text(&label, self.x - 10.0, y, Align::Right, TICK);
        }
        let every = nice_step(last - first, if self.percent { 20.0 } else { 8.0 }).max(1.0).round();
        let mut epoch = (self.epochs.0 / every).ceil() * every;
        if self.epochs.0 == 1.0 && every > 2.0 {
            canvas.text("1", to_x(1.0), bottom + 20.0, Align::Centre, TICK);
        }
        while epoch <= self.epochs.1 {
            canvas.text(&format!("{epoch:.0}"), to_x(epoch), bottom + 20.0, Align::Centre, TICK);
            epoch += every;
        }
        canvas.text("epoch", self.x + self.width + 24.0, bottom + 20.0, Align::Left, TICK);

        let few = last - first <= 40.0;
        for series in &self.series {
            let points: Vec<(f64, f64)> = series.points.iter().map(|&(x, y)| (to_x(x), to_y(y))).collect();
            canvas.line(&points, 2.6, series.color, series.dash);
            for &(x, y) in points.iter().filter(|_| few || points.len() == 1) {
                canvas.disc(x, y, if series.dash.is_some() { 2.4 } else { 4.0 }, series.color);
            }
        }
        self.name_ends(canvas, to_y);
        if self.percent
            && let Some(chosen) = chosen
        {
            let mut text = format!("chosen on validation: epoch {}", chosen.epoch);
            let shown = [("clean", chosen.validation_clean), ("robust", chosen.validation_robust)];
            for (name, accuracy) in shown.into_iter().filter_map(|(name, a)| Some((name, a?))) {
                text += &format!(", {name} {:.1} %", 100.0 * accuracy);
            }
            let half = canvas.width_of(&text, TICK) / 2.0;
            let x = to_x(chosen.epoch.into()).clamp(self.x + half, self.x + self.width - half);
            canvas.text(&text, x, self.y - 14.0, Align::Centre, Type { color: CHOSEN_INK, ..TICK });
        }
    }

    /// Mark an epoch of catastrophic overfitting.
    fn mark(&self, canvas: &mut Canvas, epoch: f64) {
        let (first, last) = (self.epochs.0 - 0.5, self.epochs.1 + 0.5);
        let x = self.x + (epoch - first) / (last - first) * self.width;
        canvas.line(&[(x, self.y), (x, self.y + self.height)], 1.6, COLLAPSED, DASH);
        if self.percent {
            let (text, kind) = ("catastrophic overfitting", Type { color: COLLAPSED, ..TICK });
            let right = x + 8.0 + canvas.width_of(text, kind) < self.x + self.width;
            let (at, align) = if right { (x + 8.0, Align::Left) } else { (x - 8.0, Align::Right) };
            // Half-way up: curves crowd at the top and the bottom.
            canvas.text(text, at, self.y + 0.45 * self.height, align, kind);
        }
    }

    /// Write the last value (and the name) of each line beside its end, moved apart where they would overlap.
    fn name_ends(&self, canvas: &mut Canvas, to_y: impl Fn(f64) -> f64) {
        let mut ends: Vec<(f64, &Series, f64)> = self
            .series
            .iter()
            .filter_map(|s| s.points.last().map(|&(_, value)| (to_y(value), s, value)))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Two lines beside the last value must not run into the line below the axis.
        let lowest = self.y + self.height - if self.percent { 16.0 } else { 0.0 };
        let wanted: Vec<f64> = ends.iter().map(|end| end.0.min(lowest)).collect();
        let x = self.x + self.width + 12.0;
        for ((_, series, value), y) in ends.iter().zip(spread(&wanted, 44.0)) {
            let weight = |bold| Type { size: 15.0, color: series.color, bold };
            if self.percent {
                canvas.text(&format!("{value:.1} %"), x, y - 9.0, Align::Left, weight(series.dash.is_none()));
                canvas.text(series.name, x, y + 9.0, Align::Left, weight(false));
            } else {
                canvas.text(&compact(*value), x, y, Align::Left, weight(true));
            }
        }
    }

    /// Lowest value, highest value and distance of the grid lines.
    fn range(&self) -> (f64, f64, f64) {
        let values = || self.series.iter().flat_map(|series| series.points.iter().map(|point| point.1));
        let (low, high) = values().fold((f64::MAX, f64::MIN), |(l, h), value| (l.min(value), h.max(value)));
        if self.percent {
            // From the next ten below everything.
            let low = (low.clamp(0.0, 99.0) / 10.0).floor() * 10.0;
            return (low, 100.0, nice_step(100.0 - low, 10.0).max(2.0));
        }
        let low = low.min(0.0);
        if high.is_nan() || high <= low {
            return (0.0, 1.0, 0.5);
        }
        let step = nice_step(high - low, 4.0);
        ((low / step).floor() * step, (high / step - 1e-9).ceil() * step, step)
    }
}

/// The label of a grid line, written like its neighbours `step` away.
pub(super) fn tick(value: f64, step: f64) -> String {
    if step >= 1e-3 || value == 0.0 {
        return compact(value);
    }
    let exponent = value.abs().log10().floor();
    // Steps are 1, 2 or 5 of something: two digits tell them apart.
    let mantissa = format!("{:.1}", value / 10f64.powf(exponent));
    format!("{}e{exponent:.0}", mantissa.trim_end_matches(".0"))
}

/// The smallest of 1, 2, 5, 10, ... that divides `length` into no more than about `parts`.
pub(super) fn nice_step(length: f64, parts: f64) -> f64 {
    let rough = length / parts;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|&step| step >= rough * 0.999)
        .unwrap_or(rough)
}

/// Positions near the `wanted` ones (ascending) that are `apart` from each other: neighbours that are too close move
/// as one block about their mean.
pub(super) fn spread(wanted: &[f64], apart: f64) -> Vec<f64> {
    // Blocks of (sum of what its members want less their place in it, number of members).
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    let start = |&(sum, members): &(f64, usize)| sum / members as f64;
    for &position in wanted {
        blocks.push((position, 1));
        while let [.., before, last] = blocks.as_slice()
            && start(before) + apart * before.1 as f64 > start(last)
        {
            let shift = apart * before.1 as f64 * last.1 as f64;
            let merged = (before.0 + last.0 - shift, before.1 + last.1);
            blocks.truncate(blocks.len() - 2);
            blocks.push(merged);
        }
    }
    blocks.iter().flat_map(|block| (0..block.1).map(move |i| start(block) + apart * i as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::tests::records;

    #[test]
    fn steps_are_round() {
        let near =
            |length, parts, want: f64| assert!((nice_step(length, parts) - want).abs() < 1e-9, "{length}");
        near(2.3, 4.0, 1.0);
        near(0.3, 4.0, 0.1);
        near(0.002, 4.0, 5e-4);
        near(15.0, 12.0, 2.0);
    }

    #[test]
    fn ticks_of_one_axis_are_written_alike() {
        assert_eq!([0.0, 5e-4, 1e-3, 1.5e-3].map(|value| tick(value, 5e-4)), ["0", "5e-4", "1e-3", "1.5e-3"]);
        assert_eq!([0.1, 0.30000000000000004].map(|value| tick(value, 0.1)), ["0.1", "0.3"]);
    }

    #[test]
    fn labels_move_apart() {
        assert_eq!(spread(&[0.0, 100.0], 10.0), [0.0, 100.0]);
        assert_eq!(spread(&[0.0, 0.0], 10.0), [-5.0, 5.0]);
        assert_eq!(
            spread(&[0.0, 2.0, 50.0, 50.0, 55.0], 10.0),
            [-4.0, 6.0, 125.0 / 3.0, 155.0 / 3.0, 185.0 / 3.0]
        );
    }

    #[test]
    fn curves_of_any_run() {
        let draw = |records: &[EpochRecord]| {
            draw("a title", "an attack line", &["what happened".into()], records).map(|file| file.len())
        };
        assert!(draw(&[]).is_err());
        let size = |file: Vec<u8>| image::load_from_memory(&file).unwrap().to_rgb8().dimensions();
        let attack = "PGD-10, Linf 0.3, step 0.075, 1 000 validation images";
        assert_eq!(size(super::draw("mnist", attack, &[], &records(15)).unwrap()), (1400, 900));
        // One epoch; hundreds; nothing but the loss; values that are not finite or far out.
        draw(&records(1)).unwrap();
        draw(&records(300)).unwrap();
        let mut odd = records(3);
        odd[1].collapse = Some(crate::train::Collapse::Fell { from: 0.5, to: 0.1 });
        for record in &mut odd {
            (record.train_clean, record.train_robust) = (None, None);
            (record.validation_clean, record.validation_robust) = (None, None);
            (record.epsilon, record.learning_rate, record.best) = (0.0, 0.0, false);
        }
        draw(&odd).unwrap();
        (odd[0].loss, odd[1].loss, odd[2].loss) = (f64::NAN, 1e30, f64::INFINITY);
        draw(&odd).unwrap();
    }
}
