//! What follows from a log: what became of every example under every attack.

use super::log::{Header, Part};
use super::unit::{Found, Unit};
use crate::report::Accuracy;

/// What became of the examples under one attack (and those before it in its suite).
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether each example stands: classified right, and not broken.
    pub standing: Vec<bool>,
    /// Class predicted for the image that breaks it; its own class where it stands, and the clean prediction where that is
    /// wrong.
    pub prediction: Vec<u32>,
    /// Distance of the nearest image that was found to break it (0 where the clean image does), in the attack's norm.
    pub distance: Vec<f64>,
    /// Examples that it was run on.
    pub tried: usize,
    /// Misclassified images that were not counted, for they leave ball or box.
    pub outside: u64,
}

impl Outcome {
    /// Robust accuracy; clean mistakes are broken.
    pub fn accuracy(&self) -> Accuracy {
        let standing = self.standing.iter().filter(|&&standing| standing).count();
        Accuracy::new(standing as u64, self.standing.len() as u64)
    }
}

/// What became of the examples under each attack of a log, and under all.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// By attack; the first is none.
    pub attacks: Vec<Outcome>,
    /// Under all attacks that were asked for together: the worst case of each example.
    pub worst: Outcome,
}

impl Outcomes {
    /// Of the units of a log of this header; what an attack was not run on yet stands, if it stood before.
    pub fn of(header: &Header, units: &[Unit]) -> Outcomes {
        let count = header.examples.len();
        let mut attacks: Vec<Outcome> = Vec::with_capacity(header.attacks.len());
        for (index, attacked) in header.attacks.iter().enumerate() {
            let before = match index {
                0 => None,
                _ if attacked.goes_on => attacks.last(),
                _ => attacks.first(),
            };
            let mut outcome = match before {
                Some(before) => Outcome { tried: 0, outside: 0, ..before.clone() },
                None => Outcome {
                    standing: vec![true; count],
                    prediction: vec![0; count],
                    distance: vec![f64::INFINITY; count],
                    tried: 0,
                    outside: 0,
                },
            };
            for unit in units.iter().filter(|unit| unit.attack == index) {
                outcome.add(unit);
            }
            attacks.push(outcome);
        }
        let mut worst = attacks[0].clone();
        for (outcome, _) in attacks.iter().zip(&header.attacks).filter(|(_, a)| a.part == Part::Attack) {
            worst.tried = worst.tried.max(outcome.tried);
            worst.outside += outcome.outside;
            for at in 0..count {
                if worst.standing[at] && !outcome.standing[at] {
                    worst.standing[at] = false;
                    worst.prediction[at] = outcome.prediction[at];
                }
                worst.distance[at] = worst.distance[at].min(outcome.distance[at]);
            }
        }
        Outcomes { attacks, worst }
    }

    /// What the next run of an attack is on: the places of the examples that stand after these units.
    pub(super) fn tried(header: &Header, units: &[Unit], attack: usize) -> Vec<u32> {
        // The last's own verdicts come in with its second run.
        let now = Outcomes::of(header, units).attacks.swap_remove(attack);
        (0..header.examples.len() as u32).filter(|&at| now.standing[at as usize]).collect()
    }
}

impl Outcome {
    /// Adds what a unit found.
    fn add(&mut self, unit: &Unit) {
        self.tried += if unit.run == 0 { unit.verdicts.len() } else { 0 };
        self.outside += unit.outside;
        for verdict in &unit.verdicts {
            let at = verdict.at as usize;
            self.standing[at] &= verdict.robust && verdict.correct;
            self.distance[at] = self.distance[at].min(verdict.distance);
            if unit.attack == 0 {
                self.prediction[at] = verdict.clean;
            }
        }
        for Found { at, prediction, .. } in &unit.witnesses {
            // Of a minimum-norm attack a witness may be out of reach.
            if !self.standing[*at as usize] {
                self.prediction[*at as usize] = *prediction;
            }
        }
    }
}
