//! Broken defences: networks round a network.

use adamant::Shape;
use adamant::nn::{Architecture, Net, Var};
use adamant::tape::Purpose;

/// What a defence does.
#[derive(Clone, Copy, Debug)]
pub enum Defence {
    /// Pixels are rounded to four levels, by comparisons that have no gradient.
    Quantised,
    /// The same for all pixels but black and white ones: only there, where images begin, is there a gradient.
    InteriorQuantised,
    /// Pixels are taken by their sign about the middle.
    Detached,
    /// Logits are multiplied by a thousand.
    Saturated,
    /// Logits go through a steep sigmoid.
    Steep,
    /// Probabilities instead of logits.
    Softmax,
    /// The logarithm of something negative.
    Logarithm,
    /// Noise is added to the pixels.
    Noise,
    /// The image is moved two pixels down, or not.
    Shifted,
    /// Pixels are as they are, and their gradient is that of the negative image.
    AnothersGradient,
    /// Every image is mixed with the mean of its batch.
    BatchMean,
}

/// A network behind a defence.
pub struct Broken {
    pub of: Box<dyn Architecture>,
    pub defence: Defence,
}

impl Architecture for Broken {
    fn name(&self) -> String {
        format!("{} behind {:?}", self.of.name(), self.defence)
    }

    fn input(&self) -> [usize; 3] {
        self.of.input()
    }

    fn classes(&self) -> usize {
        self.of.classes()
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let logits = self.of.forward(net, self.before(net, x));
        match self.defence {
            Defence::Saturated => logits.scale(1000.0),
            Defence::Steep => logits.scale(50.0).sigmoid(),
            Defence::Softmax => logits.softmax(),
            Defence::Logarithm => logits.log(),
            _ => logits,
        }
    }
}

impl Broken {
    /// What the network sees of x.
    fn before<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let (tape, shape) = (net.tape(), x.shape());
        let above = |level: f64| x.greater(tape.fill(shape, level));
        let quantised = || (above(0.2) + above(0.5) + above(0.8)).scale(1.0 / 3.0);
        // A scratch recording draws nothing.
        let Some(draw) = net.draw() else { return x };
        match self.defence {
            Defence::Quantised => quantised(),
            Defence::InteriorQuantised => {
                let inside = above(0.0) * tape.fill(shape, 1.0).greater(x);
                inside.select(quantised(), x)
            }
            Defence::Detached => x.affine(1.0, -0.5).sign().affine(0.5, 0.5),
            Defence::AnothersGradient => detached(x).scale(2.0) - x,
            Defence::BatchMean => {
                let mean = x.sum(&[0]).scale(0.4 / shape[0] as f64);
                x.scale(0.6) + mean.broadcast_to(shape)
            }
            Defence::Noise => x + draw.normal(Purpose::TEST, shape).scale(0.3),
            Defence::Shifted => {
                let [batch, height, width, channels] = [shape[0], shape[1], shape[2], shape[3]];
                let moved = x.slice(1, 0, height - 2).pad(&[0, 2, 0, 0], [batch, height, width, channels]);
                let one = Shape::new(&[batch, 1, 1, 1]);
                let coin = draw.uniform(Purpose::TEST, one);
                let heads = coin.greater(tape.fill(one, 0.5)).broadcast_to(shape);
                heads.select(moved, x)
            }
            _ => x,
        }
    }
}

/// The numbers of x in 0 to 1 without their gradient. The direction of a cross-entropy has none: that of the two logits z
/// and 0, by the first, is (-p, p) with p = sigmoid(-z), times the power of two that brings it into 1/2 to 1. For z from 0.05
/// to 0.95 that is always 2, and z is ln((1 - p) / p) again.
fn detached(x: Var<'_>) -> Var<'_> {
    let (tape, count) = (x.tape(), x.shape().len());
    let logits = x.affine(0.9, 0.05).reshape([count, 1]).pad(&[0, 0], [count, 2]);
    let first = tape.fill([count, 2], 0.0).argmax();
    let p = logits.cross_entropy_direction(first).slice(1, 1, 1).scale(0.5);
    let z = (p.affine(-1.0, 1.0) / p).log();
    z.affine(1.0 / 0.9, -0.05 / 0.9).reshape(x.shape())
}
