//! Progress of a training run on the terminal.

use super::{compact, grouped};
use crate::train::EpochRecord;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Shows how far a training run is, on standard error.
///
/// On a terminal: a bar with epoch, time left, rate, loss, clean and robust accuracy, and above it one line for each
/// epoch that ended. Elsewhere: exactly that one line an epoch, and nothing else.
pub struct Progress {
    /// The bar, where there is a terminal.
    bar: Option<ProgressBar>,
    /// Where lines go without one.
    lines: RefCell<Box<dyn Write>>,
    epochs: u32,
    start: Instant,
    images: Cell<u64>,
}

impl Progress {
    /// For a run of `total_steps` steps in `epochs` epochs.
    pub fn new(total_steps: u64, epochs: u32) -> Progress {
        Progress::resumed(total_steps, 0, epochs)
    }

    /// For a run that goes on after `done_steps` of its steps; they do not count into rate and time left.
    pub fn resumed(total_steps: u64, done_steps: u64, epochs: u32) -> Progress {
        let mut progress = Progress::to_lines(Box::new(std::io::stderr()), epochs);
        if std::io::stderr().is_terminal() {
            let style = "{prefix} {wide_bar:.cyan/black.bright} {eta} left  {msg}";
            // The template is a constant; a bar in another style is better than none.
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(total_steps), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style.progress_chars("━╸─"));
            bar.set_position(done_steps);
            bar.reset_eta();
            progress.bar = Some(bar);
        }
        progress
    }

    /// One line an epoch into `lines`, and no bar.
    pub fn to_lines(lines: Box<dyn Write>, epochs: u32) -> Progress {
        Progress {
            bar: None,
            lines: RefCell::new(lines),
            epochs,
            start: Instant::now(),
            images: Cell::new(0),
        }
    }

    /// A step of `epoch` (counted from 1) over `images` images has been handed to the device.
    pub fn step(&self, epoch: u32, images: u64) {
        self.images.set(self.images.get() + images);
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
            bar.inc(1);
        }
    }

    /// Loss and accuracies (0 to 1) of the latest steps whose numbers have come back from the device.
    pub fn measured(&self, loss: f64, clean: Option<f64>, robust: Option<f64>) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.message(loss, clean, robust));
        }
    }

    fn message(&self, loss: f64, clean: Option<f64>, robust: Option<f64>) -> String {
        let rate = self.images.get() as f64 / self.start.elapsed().as_secs_f64().max(1e-3);
        let mut message = format!("{} img/s  loss {loss:.3}", grouped(rate as u64));
        for (name, accuracy) in [("clean", clean), ("robust", robust)] {
            if let Some(accuracy) = accuracy {
                message += &format!("  {name} {:.1} %", 100.0 * accuracy);
            }
        }
        message
    }

    /// An epoch ended: prints its line.
    pub fn epoch(&self, record: &EpochRecord) {
        self.note(&line(record, self.epochs));
    }

    /// Something other than training goes on: `done` of `total`.
    pub fn working(&self, what: &str, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_prefix(what.to_string());
        }
    }

    /// Says something beside the bar.
    pub fn beside(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    /// Print a line without tearing the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            // Nothing better can be done where standard error is closed than to go on training.
            None => drop(writeln!(self.lines.borrow_mut(), "{text}")),
        }
    }

    /// The run ended, whether complete or not: takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The line of an epoch.
fn line(record: &EpochRecord, epochs: u32) -> String {
    let pair = |name: &str, clean: Option<f64>, robust: Option<f64>| {
        let mut text = String::new();
        for (kind, accuracy) in [("clean", clean), ("robust", robust)] {
            if let Some(accuracy) = accuracy {
                text += &format!(" {kind} {:.1} %", 100.0 * accuracy);
            }
        }
        if text.is_empty() { text } else { format!("  {name}{text}") }
    };
    let width = epochs.to_string().len();
    let alignment = record.alignment.map(|cosine| format!("  alignment {cosine:.2}")).unwrap_or_default();
    format!(
        "epoch {:>width$}/{epochs}  {:.1} s  {} img/s  loss {:.4}{}{}{}{alignment}  epsilon {}  lr {}{}",
        record.epoch,
        record.seconds,
        grouped(record.examples_per_second as u64),
        record.loss,
        pair("train", record.train_clean, record.train_robust),
        pair("validation", record.validation_clean, record.validation_robust)
            + &record.validation_raw.map(|raw| format!(" (raw {:.1} %)", 100.0 * raw)).unwrap_or_default(),
        pair("test", record.test_clean, record.test_robust),
        compact(record.epsilon),
        compact(record.learning_rate),
        if record.best { "  best" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::tests::records;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_there_is_one_line_an_epoch() {
        let out = Shared::default();
        let progress = Progress::to_lines(Box::new(out.clone()), 10);
        for record in records(10) {
            for _ in 0..20 {
                progress.step(record.epoch, 64);
                progress.measured(0.5, Some(0.9), None);
            }
            progress.epoch(&record);
        }
        progress.finish();
        let text = String::from_utf8(out.0.take()).unwrap();
        assert_eq!(text.lines().count(), 10);
        assert_eq!(
            text.lines().next().unwrap(),
            "epoch  1/10  2.2 s  4 321 img/s  loss 1.9192  train clean 70.1 % robust 46.4 %  \
             validation clean 81.6 % robust 49.7 %  alignment 0.88  epsilon 0.06  lr 0.0018  best"
        );
        assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let mut record = records(1).remove(0);
        (record.train_robust, record.validation_clean, record.validation_robust) = (None, None, None);
        record.alignment = None;
        let line = line(&record, 1);
        assert!(
            !line.contains("robust") && !line.contains("validation") && !line.contains("alignment"),
            "{line}"
        );
        let progress = Progress::to_lines(Box::new(Vec::new()), 1);
        progress.step(1, 64);
        let message = progress.message(0.25, Some(0.5), None);
        assert!(message.ends_with("img/s  loss 0.250  clean 50.0 %"), "{message}");
    }
}
