//! What a run's history says about overfitting, in words.
//!
//! Robust overfitting (Rice et al. 2020): robust accuracy on images held out falls while that on training images goes on
//! rising. Catastrophic overfitting (Wong et al. 2020): within an epoch the network learns to blind the attack that it is
//! trained with, and withstands no other.

use crate::train::{COLLAPSE, EpochRecord, PROBE_STEPS, Recipe, Stopped};

/// A fall of the validation accuracy from the best epoch to the last that is called overfitting.
pub const OVERFITTING: f64 = 0.03;

/// What happened in a run of these epochs, a sentence each; `stopped` is why it ended before its last epoch, if it did.
pub fn words(recipe: &Recipe, records: &[EpochRecord], stopped: Option<Stopped>) -> Vec<String> {
    let mut said = Vec::new();
    let adversarial = records.iter().any(|record| record.train_robust.is_some());
    let validation = |record: &EpochRecord| match adversarial {
        true => record.validation_robust,
        false => record.validation_clean,
    };
    let name = if adversarial { "robust overfitting" } else { "overfitting" };
    let measured = |record: &EpochRecord| Some((validation(record)?, record.epoch));
    let best = records.iter().rev().find(|record| record.best).and_then(measured);
    let collapses: Vec<String> = records
        .iter()
        .filter_map(|record| Some(format!("in epoch {}: {}", record.epoch, record.collapse?)))
        .collect();
    if let (Some((best, epoch)), Some((last, end))) = (best, records.last().and_then(measured)) {
        let (percent, left) = (100.0 * best, 100.0 * last);
        // What a collapse broke is no robust overfitting; it is told of below.
        let called = if collapses.is_empty() { format!("{name}: ") } else { String::new() };
        said.push(match best - last {
            fall if fall >= OVERFITTING => format!(
                "{called}validation fell from best {percent:.1} % (epoch {epoch}) to {left:.1} % at the end (epoch \
                 {end}); the best weights are kept"
            ),
            _ => format!(
                "no {name} seen: validation is {left:.1} % at the end, {percent:.1} % at best (epoch {epoch})"
            ),
        });
    }
    if !collapses.is_empty() {
        said.push(format!("catastrophic overfitting seen {}", collapses.join("; ")));
    } else if records.iter().any(|record| record.probe_robust.is_some()) {
        said.push(format!(
            "no catastrophic overfitting seen: PGD-{PROBE_STEPS} on {} probe images never fell by more than {:.0} \
             points in an epoch",
            recipe.probe,
            100.0 * COLLAPSE
        ));
    }
    let epoch = records.last().map_or(0, |record| record.epoch);
    match stopped {
        Some(Stopped::Patience) => said.push(format!(
            "stopped after epoch {epoch} of {}: no better validation accuracy for {} epochs",
            recipe.epochs, recipe.patience
        )),
        Some(Stopped::Collapse) => {
            said.push(format!("stopped after epoch {epoch} of {} for that", recipe.epochs));
        }
        Some(Stopped::WentBack) => said.push(format!(
            "stopped after epoch {epoch} of {} for that, and went back: the last weights are those from before it",
            recipe.epochs
        )),
        None => {}
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::metrics::tests::records;
    use crate::train::Collapse;

    #[test]
    fn what_happened_is_said() {
        let recipe = Recipe { epochs: 9, patience: 3, ..Recipe::default() };
        let mut run = records(4);
        for (record, robust) in run.iter_mut().zip([0.3, 0.521, 0.5, 0.47]) {
            record.validation_robust = Some(robust);
            record.best = robust >= 0.521 || record.epoch == 1;
            record.probe_robust = Some(robust);
        }
        let said = words(&recipe, &run, None);
        assert_eq!(
            said[0],
            "robust overfitting: validation fell from best 52.1 % (epoch 2) to 47.0 % at the end (epoch 4); the best \
             weights are kept"
        );
        assert!(
            said[1].starts_with("no catastrophic overfitting seen: PGD-5 on 128 probe images"),
            "{said:?}"
        );
        assert_eq!(said.len(), 2);

        run[3].validation_robust = Some(0.5);
        run[2].collapse = Some(Collapse::Fell { from: 0.5, to: 0.0 });
        let said = words(&recipe, &run, Some(Stopped::WentBack));
        assert!(said[0].starts_with("no robust overfitting seen: validation is 50.0 %"), "{said:?}");
        assert_eq!(
            said[1],
            "catastrophic overfitting seen in epoch 3: robust accuracy on the probe images fell from 50.0 to 0.0 %"
        );
        assert!(said[2].contains("after epoch 4 of 9") && said[2].contains("went back"), "{said:?}");
        assert!(words(&recipe, &run, Some(Stopped::Patience))[2].contains("for 3 epochs"));
        run[3].validation_robust = Some(0.1);
        let said = words(&recipe, &run, None);
        assert!(said[0].starts_with("validation fell from best 52.1 % (epoch 2) to 10.0 %"), "{said:?}");

        // Standard training has no robust accuracy to lose, and nothing is said of what was not measured.
        run.iter_mut().for_each(|record| {
            (record.train_robust, record.probe_robust, record.collapse) = (None, None, None);
            record.validation_clean = Some(0.9);
        });
        assert!(words(&recipe, &run, None)[0].starts_with("no overfitting seen"));
        run.iter_mut().for_each(|record| record.validation_clean = None);
        assert!(words(&recipe, &run, None).is_empty());
        assert!(words(&recipe, &[], None).is_empty());
    }
}
