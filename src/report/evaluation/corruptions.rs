//! Accuracy on corrupted images: what happens to pictures by accident, not by intent.
//!
//! Five strengths each, with the constants of Hendrycks and Dietterich 2019 ("Benchmarking Neural Network Robustness to
//! Common Corruptions and Perturbations"): those of CIFAR-10-C for images of up to 64 pixels a side, those of ImageNet-C
//! above. Results are rounded to bytes, as pictures are. JPEG is a real encoder's, without the subsampling of colours that
//! theirs has.

use super::{Passes, Subject, argmax};
use crate::data::{Dataset, Examples};
use crate::error::{Error, Result};
use crate::philox;
use crate::report::Accuracy;
use crate::tape::Purpose;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{ExtendedColorType, ImageDecoder};
use std::io::Cursor;

/// Strengths of a corruption.
pub const STRENGTHS: usize = 5;

/// Side up to which images are small.
const SMALL: usize = 64;

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// Normal noise on every number.
    GaussianNoise,
    /// The noise of counting photons: Poisson.
    ShotNoise,
    /// A Gaussian blur.
    GaussianBlur,
    /// Less contrast about each channel's mean.
    Contrast,
    /// More brightness (the value of HSV).
    Brightness,
    /// Compression.
    Jpeg,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Corruption; 6] = [
        Corruption::GaussianNoise,
        Corruption::ShotNoise,
        Corruption::GaussianBlur,
        Corruption::Contrast,
        Corruption::Brightness,
        Corruption::Jpeg,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Corruption::GaussianNoise => "gaussian noise",
            Corruption::ShotNoise => "shot noise",
            Corruption::GaussianBlur => "gaussian blur",
            Corruption::Contrast => "contrast",
            Corruption::Brightness => "brightness",
            Corruption::Jpeg => "jpeg",
        }
    }

    /// The constant of strength 1 to 5 (from index 0) for images of these extents: a deviation, photons, a deviation in
    /// pixels, a factor, what is added, a quality.
    fn constant(self, [height, width, _]: [usize; 3], strength: usize) -> f64 {
        let (small, large) = match self {
            Corruption::GaussianNoise => ([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
            Corruption::ShotNoise => ([500.0, 250.0, 100.0, 75.0, 50.0], [60.0, 25.0, 12.0, 5.0, 3.0]),
            Corruption::GaussianBlur => ([0.4, 0.6, 0.7, 0.8, 1.0], [1.0, 2.0, 3.0, 4.0, 6.0]),
            Corruption::Contrast => ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
            Corruption::Brightness => ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
            Corruption::Jpeg => ([80.0, 65.0, 58.0, 50.0, 40.0], [25.0, 18.0, 15.0, 10.0, 7.0]),
        };
        if height.max(width) <= SMALL { small[strength] } else { large[strength] }
    }

    /// The image `[H,W,C]` (0 to 1) at a strength of 0 to 4, rounded to bytes. Noise is a function of `seed` and `example`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a picture cannot be encoded.
    pub fn apply(
        self,
        pixels: &[f32],
        image: [usize; 3],
        strength: usize,
        seed: u64,
        example: u32,
    ) -> Result<Vec<f32>> {
        let constant = self.constant(image, strength);
        let key = [seed as u32, (seed >> 32) as u32];
        // A stream of its own for each corruption and strength.
        let purpose = Purpose::EVALUATION_START.stream(1000 + 10 * self as u32 + strength as u32);
        let new: Vec<f64> = match self {
            Corruption::GaussianNoise => {
                let noise = |at: usize| philox::normal(key, purpose, [0, 0], example, at as u32);
                pixels.iter().enumerate().map(|(at, &x)| f64::from(x) + constant * noise(at)).collect()
            }
            Corruption::ShotNoise => pixels
                .iter()
                .enumerate()
                .map(|(at, &x)| {
                    let draw = |i: u32| philox::uniform(key, purpose, [i, 0], example, at as u32);
                    let normal = || philox::normal(key, purpose, [0, 1], example, at as u32);
                    poisson(f64::from(x) * constant, draw, normal) / constant
                })
                .collect(),
            Corruption::GaussianBlur => blur(pixels, image, constant),
            Corruption::Contrast => contrast(pixels, image[2], constant),
            Corruption::Brightness => brighter(pixels, image[2], constant),
            Corruption::Jpeg => return jpeg(pixels, image, constant as u8),
        };
        Ok(new.into_iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as f32 / 255.0).collect())
    }
}

/// A Poisson number of this mean: exactly by multiplying uniform numbers (Knuth) for small means, by the normal
/// distribution from 30 on, where the two can hardly be told apart after rounding to bytes.
fn poisson(mean: f64, draw: impl Fn(u32) -> f64, normal: impl Fn() -> f64) -> f64 {
    if mean >= 30.0 {
        return (mean + mean.sqrt() * normal()).round().max(0.0);
    }
    let (least, mut product) = ((-mean).exp(), 1.0);
    for count in 0..1000 {
        product *= draw(count);
        if product <= least {
            return f64::from(count);
        }
    }
    1000.0
}

/// A Gaussian blur, rows then columns, edges repeated, cut off at four deviations (as scikit-image's).
fn blur(pixels: &[f32], [height, width, channels]: [usize; 3], deviation: f64) -> Vec<f64> {
    let radius = (4.0 * deviation + 0.5) as i64;
    let weight = |i: i64| (-0.5 * (i as f64 / deviation).powi(2)).exp();
    let total: f64 = (-radius..=radius).map(weight).sum();
    let pass = |from: &[f64], extent: usize, stride: usize| -> Vec<f64> {
        let place = |at: usize| (at / stride % extent) as i64;
        (0..from.len())
            .map(|at| {
                let blurred: f64 = (-radius..=radius)
                    .map(|i| {
                        let to = (place(at) + i).clamp(0, extent as i64 - 1);
                        let source = (at as i64 + (to - place(at)) * stride as i64) as usize;
                        weight(i) * from[source]
                    })
                    .sum();
                blurred / total
            })
            .collect()
    };
    let wide: Vec<f64> = pixels.iter().map(|&x| f64::from(x)).collect();
    pass(&pass(&wide, height, width * channels), width, channels)
}

fn contrast(pixels: &[f32], channels: usize, factor: f64) -> Vec<f64> {
    let count = (pixels.len() / channels) as f64;
    let means: Vec<f64> = (0..channels)
        .map(|channel| {
            pixels.iter().skip(channel).step_by(channels).map(|&x| f64::from(x)).sum::<f64>() / count
        })
        .collect();
    pixels
        .iter()
        .enumerate()
        .map(|(at, &x)| (f64::from(x) - means[at % channels]) * factor + means[at % channels])
        .collect()
}

/// Adds to the value of HSV, which is the largest channel: hue and saturation stay.
fn brighter(pixels: &[f32], channels: usize, more: f64) -> Vec<f64> {
    pixels
        .chunks(channels)
        .flat_map(|pixel| {
            let value = f64::from(pixel.iter().fold(0.0f32, |most, &x| most.max(x)));
            let wanted = (value + more).min(1.0);
            pixel
                .iter()
                .map(move |&x| if value > 0.0 { f64::from(x) * wanted / value } else { wanted })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn jpeg(pixels: &[f32], [height, width, channels]: [usize; 3], quality: u8) -> Result<Vec<f32>> {
    let refuse = |error: image::ImageError| Error::Unsupported(format!("JPEG compression: {error}"));
    let color = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(Error::Unsupported(format!("JPEG compression of {channels} channels"))),
    };
    let bytes: Vec<u8> = pixels.iter().map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    let mut file = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut file, quality);
    encoder.encode(&bytes, width as u32, height as u32, color).map_err(refuse)?;
    let decoder = JpegDecoder::new(Cursor::new(&file)).map_err(refuse)?;
    let mut decoded = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut decoded).map_err(refuse)?;
    if decoded.len() != pixels.len() {
        return Err(Error::Unsupported("JPEG compression changed the number of channels".into()));
    }
    Ok(decoded.into_iter().map(|byte| f32::from(byte) / 255.0).collect())
}

/// Accuracy on images with one corruption, by strength.
#[derive(Clone, Debug, PartialEq)]
pub struct Corrupted {
    /// What happened to them.
    pub corruption: Corruption,
    /// Accuracy at strengths 1 to 5.
    pub accuracies: Vec<Accuracy>,
}

/// Refuses data that cannot be corrupted.
///
/// # Errors
/// [`Error::Argument`] for data that are no images of 1 or 3 channels.
pub fn check(data: &Dataset) -> Result<()> {
    match matches!(data.examples, Examples::Images(_)) && matches!(data.image[2], 1 | 3) {
        true => Ok(()),
        false => {
            let what = format!("of {:?} {}", data.image, data.kind());
            Err(Error::argument("corruptions", what, "only grey and RGB images can be corrupted"))
        }
    }
}

/// Accuracy on `examples` under every corruption at every strength. `progress` hears how many images are done, and of how
/// many.
///
/// # Errors
/// As [`check`]; of the device.
pub fn corrupted(
    subject: &Subject<'_>,
    passes: &Passes,
    examples: &[u32],
    seed: u64,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Corrupted>> {
    let data = subject.data;
    check(data)?;
    let all = Corruption::ALL.len() * STRENGTHS * examples.len();
    let mut done = 0;
    let mut measured = Vec::new();
    for corruption in Corruption::ALL {
        let mut accuracies = Vec::new();
        for strength in 0..STRENGTHS {
            let mut accuracy = Accuracy::new(0, examples.len() as u64);
            for chunk in examples.chunks(CHUNK) {
                let mut images = Vec::with_capacity(chunk.len() * data.image_len());
                for &example in chunk {
                    images.extend(corruption.apply(
                        &subject.clean(example),
                        data.image,
                        strength,
                        seed,
                        example,
                    )?);
                }
                let logits = passes.logits(&images)?;
                let right = chunk
                    .iter()
                    .zip(logits.chunks(passes.classes()))
                    .filter(|(example, logits)| argmax(logits) == data.labels[**example as usize]);
                accuracy.correct += right.count() as u64;
                done += chunk.len();
                progress(done, all);
            }
            accuracies.push(accuracy);
        }
        measured.push(Corrupted { corruption, accuracies });
    }
    Ok(measured)
}

/// Images that are corrupted before they are classified.
const CHUNK: usize = 250;

/// Mean accuracy over all corruptions and strengths, 0 to 1.
pub fn mean(measured: &[Corrupted]) -> f64 {
    let all: Vec<f64> =
        measured.iter().flat_map(|one| one.accuracies.iter().map(|accuracy| accuracy.fraction())).collect();
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: [usize; 3] = [16, 12, 3];

    fn picture() -> Vec<f32> {
        (0..IMAGE.iter().product()).map(|i| (i * 37 % 256) as f32 / 255.0).collect()
    }

    fn change(corruption: Corruption, strength: usize) -> f64 {
        let (before, after) = (picture(), corruption.apply(&picture(), IMAGE, strength, 1, 5).unwrap());
        assert_eq!(after.len(), before.len());
        for x in &after {
            assert!((0.0..=1.0).contains(x) && (x * 255.0).fract().abs() < 1e-4, "{x} is no byte");
        }
        before.iter().zip(&after).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / before.len() as f64
    }

    #[test]
    fn every_corruption_changes_more_at_every_strength_and_the_same_in_every_run() {
        for corruption in Corruption::ALL {
            let changes: Vec<f64> = (0..STRENGTHS).map(|strength| change(corruption, strength)).collect();
            assert!(changes[0] > 0.0, "{corruption:?}");
            assert!(changes.windows(2).all(|pair| pair[0] < pair[1]), "{corruption:?}: {changes:?}");
            assert_eq!(changes[2], change(corruption, 2));
        }
    }

    #[test]
    fn noise_has_the_deviation_it_says() {
        // In the middle of the range nothing is clipped.
        let image = [64, 64, 1];
        let grey = vec![0.5; 64 * 64];
        let deviation = |corruption: Corruption, strength: usize| {
            let noisy = corruption.apply(&grey, image, strength, 3, 9).unwrap();
            let sum: f64 = noisy.iter().map(|x| (f64::from(*x) - 0.5).powi(2)).sum();
            (sum / grey.len() as f64).sqrt()
        };
        let near = |have: f64, want: f64| assert!((have / want - 1.0).abs() < 0.05, "{have}, not {want}");
        near(deviation(Corruption::GaussianNoise, 4), 0.10);
        // Poisson of mean 25, and of mean 250.
        near(deviation(Corruption::ShotNoise, 4), 5.0 / 50.0);
        near(deviation(Corruption::ShotNoise, 0), 250f64.sqrt() / 500.0);
    }

    #[test]
    fn a_blur_keeps_the_mean_and_a_constant() {
        let flat = blur(&[0.25; 48], [4, 4, 3], 1.0);
        assert!(flat.iter().all(|x| (x - 0.25).abs() < 1e-12));
        let mut point = vec![0.0; 225];
        point[112] = 1.0;
        let spread = blur(&point, [15, 15, 1], 1.0);
        assert!((spread.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((spread[112] - 0.1592).abs() < 1e-3, "{}", spread[112]);
        assert!((spread[111] - spread[113]).abs() < 1e-15 && (spread[97] - spread[111]).abs() < 1e-15);
    }

    #[test]
    fn brightness_keeps_the_hue() {
        let new = brighter(&[0.2, 0.1, 0.0, 0.0, 0.0, 0.0], 3, 0.2);
        for (have, want) in new.iter().zip([0.4, 0.2, 0.0, 0.2, 0.2, 0.2]) {
            assert!((have - want).abs() < 1e-6, "{new:?}");
        }
    }
}
