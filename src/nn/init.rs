//! How parameters are drawn before training.

use crate::philox;
use crate::tape::Purpose;
use std::sync::Arc;

/// The distribution of a parameter's initial elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// The same everywhere.
    Constant(f32),
    /// These values; shared, as every recording of a forward pass takes a copy.
    Given(Arc<[f32]>),
    /// Uniform in [-bound, bound).
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal with mean 0, drawn again beyond two standard deviations (`tf.truncated_normal`). What is left has
    /// standard deviation 0.880 `std`.
    TruncatedNormal {
        /// Standard deviation before truncation.
        std: f64,
    },
}

impl Init {
    /// `len` initial elements: a pure function of the seed and of `stream` (below 2^24), which no two parameters of a
    /// network share.
    pub(super) fn draw(&self, len: usize, seed: u64, stream: u32) -> Vec<f32> {
        let key = [seed as u32, (seed >> 32) as u32];
        let purpose = Purpose::INIT.stream(stream);
        // Where a run counts steps, a parameter counts attempts.
        let normal = |attempt: u32, i: usize| philox::normal(key, purpose, [0, attempt], 0, i as u32);
        let each = |draw: &dyn Fn(usize) -> f64| (0..len).map(|i| draw(i) as f32).collect();
        match self {
            Init::Constant(value) => vec![*value; len],
            Init::Given(values) => values.to_vec(),
            Init::Uniform { bound } => {
                each(&|i| bound * (2.0 * philox::uniform(key, purpose, [0, 0], 0, i as u32) - 1.0))
            }
            Init::Normal { std } => each(&|i| std * normal(0, i)),
            Init::TruncatedNormal { std } => each(&|i| {
                // 4.6 % are drawn again; the bound only says that this ends.
                let kept = (0..100).map(|attempt| normal(attempt, i)).find(|z| z.abs() < 2.0);
                std * kept.unwrap_or(0.0)
            }),
        }
    }
}

/// A rule that gives layers their [`Init`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// PyTorch's default: weights and biases uniform within 1 / sqrt(fan_in), which is
    /// `kaiming_uniform_(a=sqrt(5))`.
    Torch,
    /// Madry et al. 2018, mnist_challenge/model.py: weights truncated normal with standard deviation 0.1, biases 0.1.
    Madry,
    /// Normal with variance 2 / n, biases 0; n is kernel rows * columns * filters for a convolution and the
    /// inputs for a linear layer (He et al. 2015; understanding-fast-adv-training/utils.py, the GradAlign code).
    HeNormal,
    /// Normal with variance 2 / fan_in, biases 0: `kaiming_normal_` (He et al. 2015; TRADES/models/small_cnn.py).
    KaimingNormal,
    /// Normal with standard deviation 0.02, biases 0 (torchvision's ConvNeXt: its truncation, at 100 deviations, takes
    /// nothing).
    SmallNormal,
    /// As [`Scheme::Torch`], but biases 0 (TRADES/models/wideresnet.py, its last layer).
    ZeroBias,
    /// Zero everywhere (TRADES/models/small_cnn.py, its last layer).
    Zero,
}

/// What an initial distribution may depend on.
#[derive(Clone, Copy)]
pub(super) struct Fan {
    /// Inputs that one output sums over.
    pub inputs: usize,
    /// What [`Scheme::HeNormal`] calls n.
    pub he: usize,
}

impl Scheme {
    pub(super) fn weight(self, fan: Fan) -> Init {
        match self {
            Scheme::Torch | Scheme::ZeroBias => Init::Uniform { bound: 1.0 / (fan.inputs as f64).sqrt() },
            Scheme::Madry => Init::TruncatedNormal { std: 0.1 },
            Scheme::HeNormal => Init::Normal { std: (2.0 / fan.he as f64).sqrt() },
            Scheme::KaimingNormal => Init::Normal { std: (2.0 / fan.inputs as f64).sqrt() },
            Scheme::SmallNormal => Init::Normal { std: 0.02 },
            Scheme::Zero => Init::Constant(0.0),
        }
    }

    pub(super) fn bias(self, fan: Fan) -> Init {
        match self {
            Scheme::Torch => Init::Uniform { bound: 1.0 / (fan.inputs as f64).sqrt() },
            Scheme::Madry => Init::Constant(0.1),
            Scheme::HeNormal
            | Scheme::KaimingNormal
            | Scheme::SmallNormal
            | Scheme::ZeroBias
            | Scheme::Zero => Init::Constant(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn distributions_have_their_moments_and_bounds() {
        let n = 100_000;
        // Standard deviation of N(0, 1) truncated to two: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
        for (init, std, bound) in [
            (Init::Uniform { bound: 0.3 }, 0.3 / 3f64.sqrt(), 0.3),
            (Init::Normal { std: 0.2 }, 0.2, 6.0 * 0.2),
            (Init::TruncatedNormal { std: 0.1 }, 0.1 * 0.879_626, 0.2),
        ] {
            let values = init.draw(n, 7, 3);
            let (mean, measured) = moments(&values);
            // Four standard errors.
            assert!(mean.abs() < 4.0 * std / (n as f64).sqrt(), "{init:?}: mean {mean}");
            assert!(
                (measured / std - 1.0).abs() < 4.0 / (n as f64).sqrt(),
                "{init:?}: {measured}, not {std}"
            );
            let largest = values.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(
                f64::from(largest) <= bound && f64::from(largest) > 0.9 * bound.min(4.0 * std),
                "{init:?}: {largest}"
            );
        }
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let init = Init::Normal { std: 1.0 };
        let draw = |seed, stream| init.draw(64, seed, stream);
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_eq!(draw(1, 0)[..10], init.draw(10, 1, 0), "an element does not depend on how many there are");
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(1 << 32, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
    }
}
