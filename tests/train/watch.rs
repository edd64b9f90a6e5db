//! What a run looks out for: validation that gets no better, and catastrophic overfitting.

use crate::resume::{metrics, position};
use crate::tiny::Tiny;
use adamant::train::Stopped;

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let tiny = Tiny::new(300);
    let flags =
        ["--optimizer", "sgd", "--learning-rate", "0", "--epochs", "50", "--patience", "3", "--out", "run"];
    let ran = tiny.runs(&tiny.short(&flags));
    assert_eq!(metrics(&tiny, "run").len(), 4, "the first epoch is the best, and three are waited for");
    let said = "stopped after epoch 4 of 50: no better validation accuracy for 3 epochs";
    assert!(ran.out.contains(said), "{}", ran.out);
    assert!(String::from_utf8(tiny.read("run/results.json")).unwrap().contains(said));
    assert_eq!(position(&tiny, "run").stopped, Some(Stopped::Patience));
    // Going on with it is testing it again.
    let ran = tiny.runs(&["--resume", "run"]);
    assert!(ran.out.contains(said) && metrics(&tiny, "run").len() == 4, "{}", ran.out);
}
