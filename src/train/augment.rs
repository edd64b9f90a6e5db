//! Random changes of the training images, as a recipe names them, and what an example is mixed with.

use crate::error::{Error, Result};
use crate::philox;
use crate::tape::{Augment, Purpose};

/// What changes go by, for errors.
const KNOWN: &str = "known are crop:4, crop:4:reflect, flip, cutout:14, brightness:0.2, contrast:0.2, mixup:1.4 and \
    cutmix:1, each once, or none alone";

/// Random changes of the training images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augmentation {
    /// What becomes of each image by itself.
    pub image: Augment,
    /// What it is mixed with others by.
    pub mixing: Mixing,
}

/// Mixing of training images with one another, and of what they are in the same shares: an attack climbs the loss against
/// the mixed target, and the update descends it (Rice et al. 2020, "Overfitting in adversarially robust deep learning").
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mixing {
    /// Mixup: `x = s x1 + (1 - s) x2`, s drawn from Beta(a, a), of which this is a (Zhang et al. 2018, "mixup: Beyond
    /// Empirical Risk Minimization"); 0 does without.
    pub mixup: f64,
    /// CutMix: a box of x1 is replaced by that of x2; 1 less its share of the image is drawn from Beta(a, a), of which
    /// this is a (Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers"); 0 does without. With
    /// both, an example gets the one or the other, each in one of two cases.
    pub cutmix: f64,
}

/// What one image is mixed with another by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Share of its own pixels where it is not in the box.
    pub keep: f64,
    /// First row and the one after the last of the box that is the other's.
    pub rows: [usize; 2],
    /// First column and the one after the last of it.
    pub columns: [usize; 2],
    /// How much the image is of its own class.
    pub share: f64,
}

impl Augmentation {
    /// The changes of these names: `crop:4`, `crop:4:reflect`, `flip`, `cutout:14`, `brightness:0.2`, `contrast:0.2`,
    /// `mixup:1.4`, `cutmix:1`, or `none` alone.
    ///
    /// # Errors
    /// [`Error::Argument`] for the first that is not known, is there twice or has a number that is refused.
    pub fn of(changes: &[String]) -> Result<Augmentation> {
        let Augmentation { mut image, mut mixing } = Augmentation::default();
        for change in changes {
            let refuse = |why: &str| Err(Error::argument("augment", format!("`{change}`"), why));
            let parts: Vec<&str> = change.split(':').map(str::trim).collect();
            let pixels = |text: &str| text.parse().ok().filter(|pixels| (1..1usize << 15).contains(pixels));
            let number = |text: &str, most: f64| text.parse().ok().filter(|x: &f64| *x > 0.0 && *x <= most);
            match parts[..] {
                ["none"] if changes.len() == 1 => {}
                ["flip"] if !image.flip => image.flip = true,
                ["crop", padding] | ["crop", padding, "reflect"] if image.padding == 0 => {
                    image.reflect = parts.len() == 3;
                    match pixels(padding) {
                        Some(pixels) => image.padding = pixels,
                        None => {
                            return refuse("the padding is a whole number of pixels from 1 up, as in crop:4");
                        }
                    }
                }
                ["cutout", side] if image.cutout == 0 => match pixels(side) {
                    Some(pixels) => image.cutout = pixels,
                    None => return refuse("the side is a whole number of pixels from 1 up, as in cutout:14"),
                },
                [name @ ("brightness" | "contrast"), most] => {
                    let field =
                        if name == "brightness" { &mut image.brightness } else { &mut image.contrast };
                    match number(most, 1.0).map(|x| (x * f64::from(Augment::ONE)).round() as u32) {
                        Some(parts) if *field == 0 && parts > 0 => *field = parts,
                        Some(_) if *field > 0 => return refuse(KNOWN),
                        _ => return refuse("the most it changes by is a number above 0 and up to 1, as 0.2"),
                    }
                }
                [name @ ("mixup" | "cutmix"), alpha] => {
                    let field = if name == "mixup" { &mut mixing.mixup } else { &mut mixing.cutmix };
                    match number(alpha, 1e3) {
                        Some(alpha) if *field == 0.0 && alpha >= 1e-3 => *field = alpha,
                        Some(_) if *field > 0.0 => return refuse(KNOWN),
                        _ => return refuse("Beta's parameter is a number from 0.001 to 1000, as 1"),
                    }
                }
                _ => return refuse(KNOWN),
            }
        }
        Ok(Augmentation { image, mixing })
    }

    /// Whether nothing is changed.
    pub fn is_none(self) -> bool {
        self.image.is_none() && self.mixing.is_none()
    }
}

impl Mixing {
    /// Whether nothing is mixed.
    pub fn is_none(self) -> bool {
        self == Mixing::default()
    }

    /// What `example` of images of height and width `sides` is mixed by in an epoch: a pure function of these and the
    /// seed in `key`, the same on every platform.
    pub fn draw(self, key: [u32; 2], epoch: u32, example: u32, sides: [usize; 2]) -> Mix {
        let mut drawn = Drawn { key, epoch, example, next: 0 };
        let cuts = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => drawn.uniform() < 0.5,
            (_, cutmix) => cutmix,
        };
        let keep = drawn.beta(if cuts { self.cutmix } else { self.mixup });
        if !cuts {
            // As the device has it: target and image are mixed by the same number.
            let keep = f64::from(keep as f32);
            return Mix { keep, rows: [0, 0], columns: [0, 0], share: keep };
        }
        // A box of the image's form round any pixel, as far as it is inside.
        let side = libm::sqrt(1.0 - keep);
        let [rows, columns] = sides.map(|extent| {
            let length = (extent as f64 * side) as usize;
            let middle = (extent as f64 * drawn.uniform()) as usize;
            let start = middle.saturating_sub(length / 2);
            [start, (middle + length - length / 2).min(extent)]
        });
        let area = (rows[1] - rows[0]) * (columns[1] - columns[0]);
        Mix { keep: 1.0, rows, columns, share: 1.0 - area as f64 / (sides[0] * sides[1]) as f64 }
    }
}

/// The random numbers of one example, one after the other.
struct Drawn {
    key: [u32; 2],
    epoch: u32,
    example: u32,
    next: u32,
}

impl Drawn {
    /// In [0, 1).
    fn uniform(&mut self) -> f64 {
        self.next += 1;
        philox::uniform(self.key, Purpose::MIXING, [self.epoch, 0], self.example, self.next - 1)
    }

    /// From Beta(a, a).
    fn beta(&mut self, alpha: f64) -> f64 {
        let (one, other) = (self.log_gamma(alpha), self.log_gamma(alpha));
        // The gammas of a small alpha may be too small for an f64: their logarithms are not.
        1.0 / (1.0 + libm::exp(other - one))
    }

    /// Logarithm of a number from Gamma(alpha, 1): Marsaglia and Tsang 2000, "A simple method for generating gamma
    /// variables".
    fn log_gamma(&mut self, alpha: f64) -> f64 {
        let boost = if alpha < 1.0 { libm::log(1.0 - self.uniform()) / alpha } else { 0.0 };
        let d = if alpha < 1.0 { alpha + 1.0 } else { alpha } - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            // Box and Muller 1958.
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
            let x = radius * libm::cos(std::f64::consts::TAU * self.uniform());
            let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
            if v > 0.0 && libm::log(1.0 - self.uniform()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return libm::log(d * v) + boost;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixes(mixing: Mixing) -> Vec<Mix> {
        (0..20_000).map(|example| mixing.draw([1, 2], 3, example, [32, 24])).collect()
    }

    #[test]
    fn shares_are_distributed_as_beta() {
        // Mean 1/2 and variance 1 / (4 (2 a + 1)), to four standard errors or so.
        for alpha in [0.2, 0.5, 1.0, 1.4, 8.0] {
            let shares: Vec<f64> =
                mixes(Mixing { mixup: alpha, cutmix: 0.0 }).iter().map(|mix| mix.keep).collect();
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
            let mean = shares.iter().sum::<f64>() / 2e4;
            let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 2e4;
            let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 4.0 * (want / 2e4).sqrt(), "{alpha}: mean {mean}");
            assert!((variance / want - 1.0).abs() < 0.05, "{alpha}: variance {variance}, not {want}");
        }
        // Beta(1, 1) is uniform: a tenth in each tenth, to four standard deviations.
        for tenth in 0..10 {
            let inside = |mix: &&Mix| (mix.keep * 10.0) as usize == tenth;
            let count = mixes(Mixing { mixup: 1.0, cutmix: 0.0 }).iter().filter(inside).count();
            assert!(count.abs_diff(2000) < 170, "{tenth}: {count}");
        }
    }

    #[test]
    fn boxes_are_inside_and_what_they_cover_is_the_share() {
        let both = mixes(Mixing { mixup: 1.0, cutmix: 1.0 });
        let cut = both.iter().filter(|mix| mix.keep == 1.0).count();
        assert!(cut.abs_diff(10_000) < 300, "{cut} of 20 000 were cut");
        for mix in mixes(Mixing { mixup: 0.0, cutmix: 1.0 }) {
            let ([top, bottom], [left, right]) = (mix.rows, mix.columns);
            assert!(top <= bottom && bottom <= 32 && left <= right && right <= 24, "{mix:?}");
            let share = 1.0 - ((bottom - top) * (right - left)) as f64 / 768.0;
            assert_eq!((mix.keep, mix.share), (1.0, share));
        }
    }
}
