//! What an evaluation finds, and who is told of it on the way.

use crate::error::Result;

/// What became of each example evaluated, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Class predicted for the clean image.
    pub clean: Vec<u32>,
    /// Class predicted for the adversarial image of the last run on the example.
    pub adversarial: Vec<u32>,
    /// Whether the clean image is classified right.
    pub correct: Vec<bool>,
    /// Whether the clean image and every adversarial one in ball and box are classified right: a clean mistake counts as
    /// broken. Under a targeted attack: whether none of them is classified as the attack wants it.
    pub robust: Vec<bool>,
    /// How far the nearest image that breaks each example is from its clean one, in the attack's norm, computed in f64
    /// from the bits: 0 for a clean mistake, infinite where none was found. A minimum-norm attack's may be beyond
    /// epsilon, any other's is not.
    pub distance: Vec<f64>,
    /// Misclassified images that were not counted because they leave ball or box, by exact arithmetic. Of a minimum-norm
    /// attack they are what it found too far away; of any other attack none may be.
    pub outside: usize,
}

impl Verdicts {
    /// Examples whose clean image is classified right.
    pub fn clean_count(&self) -> usize {
        self.correct.iter().filter(|&&x| x).count()
    }

    /// Examples that withstood every restart.
    pub fn robust_count(&self) -> usize {
        self.robust.iter().filter(|&&x| x).count()
    }
}

/// An image that breaks an example, as it was found.
pub struct Witness<'a> {
    /// Where the example stands among those that are evaluated.
    pub at: usize,
    /// The clean image, `[H,W,C]`.
    pub clean: &'a [f32],
    /// The adversarial image, `[H,W,C]`.
    pub adversarial: &'a [f32],
    /// Class predicted for it.
    pub prediction: u32,
    /// How far it is from the clean one, see [`Verdicts::distance`].
    pub distance: f64,
}

/// Who listens to an evaluation.
pub trait Observer {
    /// How many attacks on an example are done, and how many there may be.
    fn progress(&mut self, _done: usize, _all: usize) {}

    /// An image that breaks its example: the first of an ordinary attack, every one nearer than those before of a
    /// minimum-norm attack (also beyond epsilon).
    ///
    /// # Errors
    /// What is given here ends the evaluation.
    fn broken(&mut self, _witness: Witness<'_>) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(usize, usize)> Observer for F {
    fn progress(&mut self, done: usize, all: usize) {
        self(done, all);
    }
}

/// An adversarial image beside its clean one.
#[derive(Clone, Debug)]
pub struct Adversarial {
    /// The example's index in the data set.
    pub example: u32,
    /// Pixels `[H,W,C]` in [0, 1].
    pub clean: Vec<f32>,
    /// Pixels `[H,W,C]` in [0, 1].
    pub adversarial: Vec<f32>,
    /// Class predicted for the clean image, and its probability.
    pub clean_prediction: (u32, f32),
    /// Class predicted for the adversarial image, and its probability.
    pub adversarial_prediction: (u32, f32),
}
