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
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Norm> {
        match text.to_lowercase().as_str() {
            "linf" | "inf" | "l_inf" => Ok(Norm::Linf),
            "l2" | "2" => Ok(Norm::L2),
            _ => Err(Error::unknown("norm", text, &["linf", "l2"])),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Norm::Linf => "Linf",
            Norm::L2 => "L2",
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
    /// A radius of 0 stays 0.
    pub fn projection_radius(&self, epsilon: f64, elements: usize) -> f64 {
        let ulp = 2f64.powi(-24);
        let inner = match self.norm {
            Norm::Linf => epsilon - ulp,
            Norm::L2 => epsilon * (1.0 - 4e-6) - (elements as f64).sqrt() * ulp,
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
    /// Linf: least value allowed for each pixel; as x.
    pub lower: Var<'t>,
    /// Linf: greatest value allowed for each pixel; as x.
    pub upper: Var<'t>,
}

impl<'t> Ball<'t> {
    /// The ball around x; the bounds are recorded.
    pub fn new(norm: Norm, x: Var<'t>, radius: Var<'t>, step: Var<'t>) -> Ball<'t> {
        let (lower, upper) = ((x - radius).clamp(0.0, 1.0), (x + radius).clamp(0.0, 1.0));
        Ball { norm, x, radius, step, lower, upper }
    }

    /// A step of ascent along the gradient of the loss, projected into the ball and the box.
    ///
    /// Linf: step * sign(g). L2: step * g / |g| per example (the reference's 1e-10 in the denominator; Rice et al.).
    pub fn ascend(&self, current: Var<'t>, gradient: Var<'t>) -> Var<'t> {
        match self.norm {
            Norm::Linf => self.project(gradient.sign() * self.step + current),
            Norm::L2 => {
                let length = gradient.norm_l2().affine(1.0, 1e-10);
                self.project(gradient * (self.step / length) + current)
            }
        }
    }

    /// The nearest point of ball and box (L2: the nearest of the ball, then of the box; the box's projection moves no
    /// pixel away from x).
    pub fn project(&self, candidate: Var<'t>) -> Var<'t> {
        match self.norm {
            Norm::Linf => candidate.max(self.lower).min(self.upper),
            Norm::L2 => self.into_l2(candidate).clamp(0.0, 1.0),
        }
    }

    fn into_l2(self, candidate: Var<'t>) -> Var<'t> {
        let delta = candidate - self.x;
        // radius / max(|delta|, radius) is 1 inside; the added 1e-30 keeps 0/0 from a radius of 0.
        let length = delta.norm_l2().max(self.radius).affine(1.0, 1e-30);
        delta * (self.radius / length) + self.x
    }

    /// A random point of the ball. Linf: uniform. L2: a uniform direction at a uniform distance (as torchattacks and
    /// Rice et al.). `clip` clips it to the box too; fgsm-rs on MNIST does not before its one gradient (spec 2.2).
    pub fn random_start(&self, draw: Draw<'t>, purpose: Purpose, clip: bool) -> Var<'t> {
        let shape = self.x.shape();
        let start = match self.norm {
            Norm::Linf => draw.uniform(purpose, shape).affine(2.0, -1.0) * self.radius + self.x,
            Norm::L2 => {
                let direction = draw.normal(purpose, shape);
                let one = Shape::new(&[shape[0], 1, 1, 1]);
                let distance = draw.uniform(purpose.next(), one) * self.radius;
                direction * (distance / direction.norm_l2().affine(1.0, 1e-10)) + self.x
            }
        };
        match (clip, self.norm) {
            (false, _) => start,
            (true, Norm::Linf) => start.max(self.lower).min(self.upper),
            (true, Norm::L2) => start.clamp(0.0, 1.0),
        }
    }
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
