//! What is shown while attacks run.

use adamant::report::Progress;
use adamant::report::evaluation::{Listener, Standing};
use adamant::report::table::Row;

/// A bar with the attack, time left and the robust accuracy so far; where there is no terminal, a line an attack.
pub(crate) struct Watch(Progress);

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch(Progress::new(0, 1))
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish();
    }
}

impl Listener for Watch {
    fn progress(&mut self, standing: &Standing<'_>) {
        let (number, of) = standing.number;
        let what = format!("{} ({number}/{})", standing.attack.name, of - 1);
        self.0.working(&what, standing.done as u64, standing.all as u64);
        self.0.beside(format!("robust {} so far", standing.robust.with_interval()));
    }

    fn attacked(&mut self, row: &Row) {
        self.0.note(&format!("{}   {}", row.accuracy.with_interval(), row.attack));
    }
}
