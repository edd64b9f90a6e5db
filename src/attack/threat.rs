//! What an attacker may do: a norm, a radius, and the box pixels live in.

use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tape::{Draw, Purpose, Var};
use std::fmt;
use std::str::FromStr;

/// A number kept as it was given: "8/255" stays 8/255 and is not 0.031.
#[derive(Clone, Debug, PartialEq)]
pub struct Rational {
    text: String,
    value: f64,
}

impl Rational {
    /// Its value.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<f64> for Rational {
    fn from(value: f64) -> Rational {
        Rational { text: format!("{value}"), value }
    }
}

impl FromStr for Rational {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rational> {
        let refuse = |why: &str| Error::argument("number", format!("`{text}`"), why);
        let number = |part: &str| {
            let part = part.trim();
            part.parse::<f64>()
                .map_err(|_| refuse("not a number; write a decimal like 0.3 or a fraction like 8/255"))
        };
        let value = match text.split_once('/') {
            Some((over, under)) => number(over)? / number(under)?,
            None => number(text)?,
        };
        match value {
            v if !v.is_finite() => {
                Err(refuse("not finite; write a decimal like 0.3 or a fraction like 8/255"))
            }
            v if v < 0.0 => Err(refuse("negative; radii and step sizes are 0 or more")),
            value => Ok(Rational { text: text.trim().to_string(), value }),
        }
    }
}

impl fmt::Display for Rational {
    /// `8/255 = 0.03137`, or `0.3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.contains('/') {
            true => write!(f, "{} = {:.5}", self.text, self.value),
            false => f.write_str(&self.text),
        }
    }
}

/// The norm that measures a perturbation, over all pixels and channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// The largest change of a pixel.
    Linf,
    /// The Euclidean length.
    L2,
    /// The sum of the changes' magnitudes.
    L1,
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Norm> {
        match text.to_lowercase().as_str() {
            "linf" | "inf" | "l_inf" => Ok(Norm::Linf),
            "l2" | "2" => Ok(Norm::L2),
            "l1" | "1" => Ok(Norm::L1),
            _ => Err(Error::unknown("norm", text, &["linf", "l1", "l2"])),
        }
    }
}

impl Norm {
    /// How far `other` is from `x`, in f64 from the bits: exact under Linf, as differences of f32 are in f64 for all
    /// but the most unlike magnitudes.
    pub fn distance(self, x: &[f32], other: &[f32]) -> f64 {
        let changes = x.iter().zip(other).map(|(&x, &other)| (f64::from(other) - f64::from(x)).abs());
        match self {
            // A NaN is further than any distance.
            Norm::Linf => changes.fold(0.0, |most, change| if change <= most { most } else { change }),
            Norm::L2 => changes.map(|change| change * change).sum::<f64>().sqrt(),
            Norm::L1 => changes.sum(),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Norm::Linf => "Linf",
            Norm::L2 => "L2",
            Norm::L1 => "L1",
        })
    }
}

/// The set of perturbations allowed: all x' with |x' - x| <= epsilon in the norm, and pixels in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct ThreatModel {
    /// The norm.
    pub norm: Norm,
    /// The radius, in pixel values.
    pub epsilon: Rational,
}

impl fmt::Display for ThreatModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.norm, self.epsilon)
    }
}

impl ThreatModel {
    /// The radius that projections use for a radius of `epsilon`: smaller by more than f32 can err, so that the
    /// result is inside the true ball in exact arithmetic, bit for bit checkable.
    ///
    /// Linf: x + r is rounded to f32 with an error of at most 2^-25 (pixels lie in [0, 1]); r itself is rounded once
    /// more. L2: each of `elements` coordinates errs by at most 2^-25, the norm and the quotient by some 1e-6 of it.
    /// L1: coordinates err as in L2, and their sum by at most 1.6e-5 of it (a tree of blocks of up to 256). A radius of 0
    /// stays 0.
    pub fn projection_radius(&self, epsilon: f64, elements: usize) -> f64 {
        let ulp = 2f64.powi(-24);
        let inner = match self.norm {
            Norm::Linf => epsilon - ulp,
            Norm::L2 => epsilon * (1.0 - 4e-6) - (elements as f64).sqrt() * ulp,
            Norm::L1 => epsilon * (1.0 - 1.6e-5) - elements as f64 * ulp,
        };
        inner.max(0.0)
    }
}

/// The allowed set around a batch, recorded on a tape, with the radius and the step size as scalars there (so that
/// they may change from run to run).
#[derive(Clone, Copy)]
pub struct Ball<'t> {
    /// The norm.
    pub norm: Norm,
    /// The clean images, `[B,H,W,C]` in [0, 1].
    pub x: Var<'t>,
    /// Radius that projections use, see [`ThreatModel::projection_radius`]; a scalar.
    pub radius: Var<'t>,
    /// Length of a step of ascent; a scalar or `[B,1,1,1]`.
    pub step: Var<'t>,
    /// Least value allowed for each pixel or feature; as x. Under L2 the box's bound, and used for features alone.
    pub lower: Var<'t>,
    /// Greatest value allowed for each pixel or feature; as `lower`.
    pub upper: Var<'t>,
    /// Vectors of features: 1 for what may be changed and 0 for what may not, `[1,1,1,F]`. Of images all may be.
    pub changeable: Option<Var<'t>>,
}

/// What an attacker may do to vectors of features, on a tape; each `[1,1,1,F]`.
#[derive(Clone, Copy)]
pub struct Limits<'t> {
    /// Least value of each feature.
    pub least: Var<'t>,
    /// Greatest value of each feature.
    pub most: Var<'t>,
    /// 1 where a feature may be made smaller, else 0.
    pub down: Var<'t>,
    /// 1 where a feature may be made greater, else 0.
    pub up: Var<'t>,
}

impl<'t> Limits<'t> {
    /// 1 where a feature may be changed, else 0.
    pub fn changeable(self) -> Var<'t> {
        self.down.max(self.up)
    }
}

impl<'t> Ball<'t> {
    /// The ball around x; the bounds are recorded.
    pub fn new(norm: Norm, x: Var<'t>, radius: Var<'t>, step: Var<'t>) -> Ball<'t> {
        let (lower, upper) = ((x - radius).clamp(0.0, 1.0), (x + radius).clamp(0.0, 1.0));
        Ball { norm, x, radius, step, lower, upper, changeable: None }
    }

    /// The ball around vectors of features x `[B,1,1,F]` in their bounds. What may not be changed has x as both its
    /// bounds, so that it is x to the bit wherever a projection ends.
    pub fn of_features(
        norm: Norm,
        x: Var<'t>,
        radius: Var<'t>,
        step: Var<'t>,
        limits: Limits<'t>,
    ) -> Ball<'t> {
        let Limits { least, most, down, up } = limits;
        let within = |bound: Var<'t>| bound.max(least).min(most);
        let all = |of: Var<'t>| of.broadcast_to(x.shape());
        let (lower, upper) = match norm {
            Norm::Linf => (within(x - down * radius), within(x + up * radius)),
            Norm::L2 | Norm::L1 => (all(down).select(all(least), x), all(up).select(all(most), x)),
        };
        Ball { norm, x, radius, step, lower, upper, changeable: Some(limits.changeable()) }
    }

    /// What of `direction` leads along features that may be changed.
    pub(super) fn along(&self, direction: Var<'t>) -> Var<'t> {
        match self.changeable {
            Some(mask) => direction * mask,
            None => direction,
        }
    }

    /// A step of ascent along the gradient of the loss, projected into the ball and the box.
    ///
    /// Linf: step * sign(g). L2: step * g / |g| per example (the reference's 1e-10 in the denominator; Rice et al.). L1:
    /// the step shared evenly by the signs of the largest twentieth of |g| (SLIDE: Tramer and Boneh 2019; APGD-L1: Croce
    /// and Hein 2021).
    pub fn ascend(&self, current: Var<'t>, gradient: Var<'t>) -> Var<'t> {
        match self.norm {
            Norm::Linf => self.project(gradient.sign() * self.step + current),
            Norm::L2 => {
                let gradient = self.along(gradient);
                let length = gradient.norm_l2().affine(1.0, 1e-10);
                self.project(gradient * (self.step / length) + current)
            }
            Norm::L1 => {
                let elements = (gradient.shape().len() / gradient.shape()[0].max(1)) as f64;
                let count = gradient.tape().fill(Shape::scalar(), (L1_SHARE * elements).max(1.0));
                self.project(self.sparse_step(gradient, count) + current)
            }
        }
    }

    /// A step in L1: its length shared evenly by the signs of the `count` largest gradients (a scalar or a number an
    /// example, [B,1,1,1]).
    pub(super) fn sparse_step(&self, gradient: Var<'t>, count: Var<'t>) -> Var<'t> {
        let chosen = largest(self.along(gradient), count).sign();
        // Where there is no gradient there is nothing to divide by.
        let count = chosen.norm_l1().max(chosen.tape().fill(Shape::scalar(), 1.0));
        chosen * (self.step / count)
    }

    /// The nearest point of ball and box (L2: the nearest of the ball, then of the box; the box's projection moves no
    /// pixel away from x; L1: of what both allow, which matters there: Croce and Hein 2021, "Mind the box").
    pub fn project(&self, candidate: Var<'t>) -> Var<'t> {
        match self.norm {
            Norm::Linf => self.into_box(candidate),
            Norm::L2 => self.into_box(self.into_l2(candidate)),
            Norm::L1 => self.into_box(self.into_l1(candidate)),
        }
    }

    /// Between the least and the greatest values allowed: under Linf those of ball and box, under L2 and L1 those of the box.
    pub(super) fn into_box(self, candidate: Var<'t>) -> Var<'t> {
        match (self.norm, self.changeable) {
            (Norm::L2 | Norm::L1, None) => candidate.clamp(0.0, 1.0),
            _ => candidate.max(self.lower).min(self.upper),
        }
    }

    /// The perturbation d gives way to sign(d) min(max(|d| - t, 0), room), room being what the box leaves a pixel, with
    /// the least t >= 0 an example for which that is inside the ball. t is found by bisection: no sorting, and the end
    /// that is kept is the inner one.
    fn into_l1(self, candidate: Var<'t>) -> Var<'t> {
        let delta = candidate - self.x;
        let (length, up) = (delta.abs(), delta.greater(delta.tape().fill(delta.shape(), 0.0)));
        let room = match self.changeable {
            None => up.select(self.x.affine(-1.0, 1.0), self.x),
            Some(_) => up.select(self.upper - self.x, self.x - self.lower),
        };
        let kept = |t: Var<'t>| (length - t).relu().min(room);
        let outside = |t: Var<'t>| kept(t).sum_per_example().greater(self.radius);
        let nothing = length.tape().fill(Shape::new(&[delta.shape()[0], 1, 1, 1]), 0.0);
        let most = delta.norm_linf() * outside(nothing);
        let (_, t) = bisect(nothing, most, L1_BISECTIONS, outside);
        delta.sign() * kept(t) + self.x
    }

    fn into_l2(self, candidate: Var<'t>) -> Var<'t> {
        let delta = candidate - self.x;
        // radius / max(|delta|, radius) is 1 inside; the added 1e-30 keeps 0/0 from a radius of 0.
        let length = delta.norm_l2().max(self.radius).affine(1.0, 1e-30);
        delta * (self.radius / length) + self.x
    }

    /// A random point of the ball. Linf: uniform. L2 and L1: a uniform direction at a uniform distance (as torchattacks
    /// and Rice et al. for L2; on the L1 sphere directions are of the Laplace distribution). `clip` clips it to the box
    /// too; fgsm-rs on MNIST does not before its one gradient (spec 2.2). Vectors of features are always in their bounds.
    pub fn random_start(&self, draw: Draw<'t>, purpose: Purpose, clip: bool) -> Var<'t> {
        let shape = self.x.shape();
        let start = match self.norm {
            Norm::Linf => self.along(draw.uniform(purpose, shape).affine(2.0, -1.0) * self.radius) + self.x,
            Norm::L2 => {
                let direction = self.along(draw.normal(purpose, shape));
                let one = Shape::new(&[shape[0], 1, 1, 1]);
                let distance = draw.uniform(purpose.next(), one) * self.radius;
                direction * (distance / direction.norm_l2().affine(1.0, 1e-10)) + self.x
            }
            Norm::L1 => {
                let two_sided = draw.uniform(purpose, shape).affine(2.0, -1.0);
                // Kept from the logarithm of 0, which one number in 2^24 has.
                let tail = two_sided.abs().affine(-1.0, 1.0).clamp(2f64.powi(-24), 1.0);
                let direction = self.along(two_sided.sign() * tail.log().scale(-1.0));
                let one = Shape::new(&[shape[0], 1, 1, 1]);
                let distance = draw.uniform(purpose.next(), one) * self.radius;
                direction * (distance / direction.norm_l1().affine(1.0, 1e-10)) + self.x
            }
        };
        match clip || self.changeable.is_some() {
            true => self.into_box(start),
            false => start,
        }
    }
}

/// Share of the pixels that a step in L1 moves: the largest gradients.
const L1_SHARE: f64 = 0.05;
/// Halvings that find a threshold of gradients: a millionth of the largest.
const SHARE_BISECTIONS: usize = 20;
/// Halvings that find how far a perturbation is drawn back: to where f32 ends.
const L1_BISECTIONS: usize = 26;

/// Further than any gradient's or perturbation's threshold.
const FAR: f64 = 1e30;

/// x where its magnitude is among the `count` largest of its example (more where some are equal), else 0.
fn largest<'t>(x: Var<'t>, count: Var<'t>) -> Var<'t> {
    let (tape, length) = (x.tape(), x.abs());
    let one = Shape::new(&[x.shape()[0], 1, 1, 1]);
    let enough = |t| length.greater_equal(t).sum_per_example().greater_equal(count);
    let most = x.norm_linf();
    let (threshold, _) = bisect(tape.fill(one, 0.0), most, SHARE_BISECTIONS, enough);
    x * length.greater_equal(threshold)
}

/// Halves the stretch from `low` to `high` (`[B,1,1,1]`) so many times, towards where `goes_on`, 1 below and 0 above,
/// changes. Returns both ends.
pub(super) fn bisect<'t>(
    mut low: Var<'t>,
    mut high: Var<'t>,
    times: usize,
    goes_on: impl Fn(Var<'t>) -> Var<'t>,
) -> (Var<'t>, Var<'t>) {
    for _ in 0..times {
        let middle = (low + high).scale(0.5);
        let further = goes_on(middle);
        // What a choice between the two would give, to the bit, in three launches less.
        low = (further * middle).max(low);
        high = middle.add_scaled(further, FAR).min(high);
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_stays_a_fraction() {
        let epsilon: Rational = "8/255".parse().unwrap();
        assert_eq!(epsilon.value(), 8.0 / 255.0);
        assert_eq!(epsilon.to_string(), "8/255 = 0.03137");
        assert_eq!("0.3".parse::<Rational>().unwrap().to_string(), "0.3");
    }

    #[test]
    fn numbers_that_are_no_radius_are_refused() {
        for (text, why) in [
            ("-0.1", "negative"),
            ("nan", "finite"),
            ("1/0", "finite"),
            ("abc", "not a number"),
            ("", "not a number"),
            ("8/", "not a number"),
            ("-8/255", "negative"),
            ("inf", "finite"),
        ] {
            let error = text.parse::<Rational>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
