//! What random numbers are: their distributions, and what each stream of them is for.

/// Distributions of counter-based random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Uniform in [0, 1), a multiple of 2^-24.
    Uniform,
    /// Standard normal (Box-Muller).
    Normal,
}

/// What a stream of random numbers is for: part of Philox's key, so that two uses never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purpose(pub u32);

impl Purpose {
    /// Initial weights.
    pub const INIT: Purpose = Purpose(1);
    /// The order of the examples.
    pub const SHUFFLE: Purpose = Purpose(2);
    /// Random start of an attack in training.
    pub const ATTACK_START: Purpose = Purpose(3);
    /// Random start of an attack in evaluation.
    pub const EVALUATION_START: Purpose = Purpose(4);
    /// Dropout masks.
    pub const DROPOUT: Purpose = Purpose(5);
    /// Augmentation of training images.
    pub const AUGMENT: Purpose = Purpose(7);
    /// What a training method draws besides the attack's start.
    pub const METHOD: Purpose = Purpose(9);
    /// What images are mixed by.
    pub const MIXING: Purpose = Purpose(10);
    /// Tests and benches.
    pub const TEST: Purpose = Purpose(6);

    /// Stream `n` of this purpose (below 2^24): one for each layer that drops, each weight that is drawn.
    pub fn stream(self, n: u32) -> Purpose {
        Purpose(self.0 & 0xff | n << 8)
    }

    /// The stream after this one.
    pub fn next(self) -> Purpose {
        self.stream((self.0 >> 8) + 1)
    }
}
