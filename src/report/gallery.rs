//! A gallery of attacked images: clean image, perturbation and adversarial image, with what the network says.

use super::canvas::{Align, Canvas, FAINT, INK, MUTED, RGBColor, Type};
use super::compact;
use crate::files::write_atomically;
use crate::{Error, Result};
use std::path::Path;

/// Most examples in a row of the gallery, and the width it keeps to, in pixels, where captions are long.
const COLUMNS: usize = 10;
const WIDTH: u32 = 1500;

/// Width of the longest legend, in pixels.
const LEGEND_WIDTH: u32 = 940;

pub(super) const RIGHT: RGBColor = RGBColor(22, 128, 72);
pub(super) const WRONG: RGBColor = RGBColor(200, 40, 40);
const TITLE: Type = Type::bold(25.0, INK);
const SUBTITLE: Type = Type::new(16.0, MUTED);
const CAPTION: f64 = 14.0;

/// An image, what an attack made of it, and what the network said to both.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The image, \[H, W, C\], 0 to 1.
    pub clean: Vec<f32>,
    /// The image after the attack, \[H, W, C\], 0 to 1.
    pub adversarial: Vec<f32>,
    /// Its class.
    pub label: u32,
    /// What was predicted for the clean image.
    pub clean_prediction: Prediction,
    /// What was predicted for the image after the attack.
    pub adversarial_prediction: Prediction,
}

/// A predicted class and how sure the network was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The class.
    pub class: u32,
    /// Its softmax probability, 0 to 1.
    pub confidence: f32,
}

impl Prediction {
    /// The prediction that these logits, one a class, stand for; of equal ones the first.
    pub fn from_logits(logits: &[f32]) -> Prediction {
        let mut class = 0;
        for (i, &logit) in logits.iter().enumerate() {
            if logit > logits[class] {
                class = i;
            }
        }
        let total: f32 = logits.iter().map(|logit| (logit - logits[class]).exp()).sum();
        Prediction { class: class as u32, confidence: 1.0 / total.max(1.0) }
    }
}

/// Which change of a pixel is drawn in full colour.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// The attack's epsilon, 0 to 1, and how it is written ("8/255"): for attacks that bound each pixel (Linf).
    Epsilon(f32, String),
    /// The largest change of the examples shown: for other norms.
    Largest,
}

/// A gallery to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Gallery<'a> {
    /// What was attacked.
    pub title: &'a str,
    /// The attack line.
    pub attack: &'a str,
    /// Height, width and channels (1 or 3) of an image.
    pub image: [usize; 3],
    /// Name of each class.
    pub class_names: &'a [String],
    /// Which change is drawn in full colour.
    pub scale: Scale,
    /// What to show, in order; ten in a row.
    pub examples: &'a [Example],
}

/// Longest side of images that are shown, in pixels.
pub(super) const MOST_SIDE: usize = 1024;

impl Gallery<'_> {
    /// Draw the gallery as a PNG file.
    ///
    /// Perturbations of grey images go from blue (darker) over white (unchanged) to red (brighter); those of colour
    /// images are drawn in their own channels about a middle grey.
    ///
    /// # Errors
    /// [`Error::Argument`] for examples that do not fit the image's extents or the classes, or where there are none;
    /// [`Error::Unsupported`] where the picture cannot be drawn.
    pub fn draw(&self) -> Result<Vec<u8>> {
        self.check()?;
        let [height, width, channels] = self.image;
        // Up to 128 pixels a side, in whole pixels a pixel; images larger than that are shown as they are.
        let zoom = (128 / height.max(width)).max(1);
        let (shown_width, shown_height) = ((width * zoom) as u32, (height * zoom) as u32);
        let (left, top, row, gap) = (150, 116, shown_height, 14);
        let band = 34 + 3 * row + 3 * gap + 2 * 24 + 18;
        let cell = (shown_width + 18).max(self.caption_width() + 14);
        let in_row = ((WIDTH - left) / cell).clamp(1, COLUMNS as u32) as usize;
        let columns = self.examples.len().min(in_row) as u32;
        let bands = self.examples.len().div_ceil(in_row) as u32;
        let canvas_width = (left + columns * cell + 22).max(LEGEND_WIDTH);
        let mut canvas = Canvas::new(canvas_width, top + bands * band + 64);

        let room = f64::from(canvas_width) - 60.0;
        let title = canvas.shorten(self.title, room, TITLE);
        canvas.text(&title, 30.0, 40.0, Align::Left, TITLE);
        let attack = canvas.shorten(self.attack, room, SUBTITLE);
        canvas.text(&attack, 30.0, 72.0, Align::Left, SUBTITLE);

        let (scale, scale_name) = self.scale();
        for (b, examples) in self.examples.chunks(in_row).enumerate() {
            let y = top + b as u32 * band;
            let rows = [y + 34, y + 34 + row + 24 + gap, y + 34 + 2 * row + 24 + 2 * gap];
            for (name, detail, y) in [
                ("clean", "image x", rows[0]),
                ("perturbation", "change δ", rows[1]),
                ("adversarial", "x + δ", rows[2]),
            ] {
                let middle = f64::from(y + row / 2);
                canvas.text(name, 30.0, middle - 10.0, Align::Left, Type::bold(15.0, INK));
                canvas.text(detail, 30.0, middle + 12.0, Align::Left, Type::new(14.0, MUTED));
            }
            for (i, example) in examples.iter().enumerate() {
                let x = left + i as u32 * cell + (cell - shown_width) / 2;
                let centre = f64::from(x) + f64::from(shown_width) / 2.0;
                let label = format!("true {}", self.class_names[example.label as usize]);
                let label = canvas.shorten(&label, f64::from(cell) - 6.0, Type::bold(CAPTION, INK));
                canvas.text(&label, centre, f64::from(y + 16), Align::Centre, Type::bold(CAPTION, INK));

                let change: Vec<f32> =
                    example.adversarial.iter().zip(&example.clean).map(|(a, c)| a - c).collect();
                let pictures = [
                    example.clean.chunks(channels).map(pixel).collect::<Vec<_>>(),
                    change.chunks(channels).map(|change| diverging(change, scale)).collect(),
                    example.adversarial.chunks(channels).map(pixel).collect(),
                ];
                for (pixels, y) in pictures.iter().zip(rows) {
                    let (x, y, w, h) = (f64::from(x), f64::from(y), f64::from(shown_width), f64::from(row));
                    canvas.rect(x - 1.0, y - 1.0, w + 2.0, h + 2.0, FAINT);
                    canvas.image(x as u32, y as u32, width, zoom as u32, pixels);
                }
                for (prediction, y) in
                    [(example.clean_prediction, rows[0]), (example.adversarial_prediction, rows[2])]
                {
                    let color = if prediction.class == example.label { RIGHT } else { WRONG };
                    let kind = Type::new(CAPTION, color);
                    let says = canvas.shorten(&self.caption(prediction), f64::from(cell) - 4.0, kind);
                    canvas.text(&says, centre, f64::from(y + row + 16), Align::Centre, kind);
                }
            }
        }
        self.legend(&mut canvas, f64::from(top + bands * band), scale, &scale_name);
        canvas.png()
    }

    /// Draw the gallery into the file `path`; see [`Gallery::draw`].
    ///
    /// # Errors
    /// As [`Gallery::draw`], and [`Error::Io`] where the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, &self.draw()?)
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str, value: String, why: &str| {
            Err(Error::argument(format!("gallery {what}"), value, why))
        };
        let [height, width, channels] = self.image;
        if !matches!(channels, 1 | 3) || [height, width].iter().any(|side| !(1..=MOST_SIDE).contains(side)) {
            let why = "images of 1 or 3 channels and 1 to 1024 pixels a side can be shown";
            return refuse("image", format!("{:?}", self.image), why);
        }
        if self.examples.is_empty() || self.examples.len() > 100 {
            return refuse("examples", self.examples.len().to_string(), "1 to 100 can be shown");
        }
        for (i, example) in self.examples.iter().enumerate() {
            let elements = height * width * channels;
            if example.clean.len() != elements || example.adversarial.len() != elements {
                return refuse(
                    "example",
                    i.to_string(),
                    "its pixels do not fit the image's height, width and channels",
                );
            }
            let classes =
                [example.label, example.clean_prediction.class, example.adversarial_prediction.class];
            if classes.iter().any(|&class| class as usize >= self.class_names.len()) {
                return refuse("example", i.to_string(), "one of its classes has no name");
            }
        }
        Ok(())
    }

    fn caption(&self, prediction: Prediction) -> String {
        let name = &self.class_names[prediction.class as usize];
        format!("predicted {name} ({:.0} %)", 100.0 * prediction.confidence)
    }

    /// Width that the captions ask for, in pixels; no more than a class name of about 30 letters takes.
    fn caption_width(&self) -> u32 {
        let mut ruler = Canvas::new(1, 1);
        let captions = self.examples.iter().flat_map(|e| [e.clean_prediction, e.adversarial_prediction]);
        let widths =
            captions.map(|prediction| ruler.width_of(&self.caption(prediction), Type::new(CAPTION, INK)));
        widths.fold(0.0, f64::max).min(330.0).ceil() as u32
    }

    /// The change drawn in full colour, and how it is written.
    fn scale(&self) -> (f32, String) {
        let scale = match &self.scale {
            Scale::Epsilon(epsilon, name) => (*epsilon, name.clone()),
            Scale::Largest => {
                let changes = self.examples.iter().flat_map(|e| e.adversarial.iter().zip(&e.clean));
                let largest =
                    changes.map(|(a, c)| (a - c).abs()).filter(|d| d.is_finite()).fold(0.0, f32::max);
                (largest, compact(largest.into()))
            }
        };
        (scale.0.max(f32::MIN_POSITIVE), scale.1)
    }

    /// What colours of the perturbation mean, and what colours of the captions.
    fn legend(&self, canvas: &mut Canvas, y: f64, scale: f32, name: &str) {
        let channels = self.image[2];
        let kind = Type::new(14.0, MUTED);
        let mut x = 30.0;
        x += canvas.text("perturbation", x, y + 20.0, Align::Left, Type::bold(14.0, INK)) + 16.0;
        x += canvas.text(&format!("−{name}"), x, y + 20.0, Align::Left, kind) + 8.0;
        let bar = 160;
        for i in 0..bar {
            let change = scale * (2.0 * (i as f32 + 0.5) / bar as f32 - 1.0);
            let [r, g, b] = diverging(&[change; 3][..channels], scale);
            canvas.rect(x + f64::from(i), y + 12.0, 1.0, 16.0, RGBColor(r, g, b));
        }
        x += f64::from(bar) + 8.0;
        let what = match self.scale {
            Scale::Epsilon(..) => format!("+{name} = ε"),
            Scale::Largest => format!("+{name}, the largest change"),
        };
        let of = if channels == 1 { "(black is 0, white is 1)" } else { "in each colour channel (0 to 1)" };
        x += canvas.text(&format!("{what}  {of}"), x, y + 20.0, Align::Left, kind) + 44.0;
        for (text, color) in [("right", RIGHT), ("wrong", WRONG)] {
            canvas.disc(x + 5.0, y + 20.0, 5.0, color);
            x += 17.0 + canvas.text(text, x + 17.0, y + 20.0, Align::Left, Type::new(14.0, color)) + 18.0;
        }
    }
}

/// A pixel of 1 or 3 channels, 0 to 1, as RGB.
pub(super) fn pixel(channels: &[f32]) -> [u8; 3] {
    let byte = |i: usize| (channels.get(i).unwrap_or(&channels[0]).clamp(0.0, 1.0) * 255.0).round() as u8;
    [byte(0), byte(1), byte(2)]
}

/// The colour of a change of 1 or 3 channels, `scale` being the largest.
pub(super) fn diverging(change: &[f32], scale: f32) -> [u8; 3] {
    let [grey] = *change else {
        return pixel(&[0, 1, 2].map(|i| 0.5 + 0.5 * (change[i] / scale).clamp(-1.0, 1.0)));
    };
    // ColorBrewer's RdBu at both ends, through the near-white in its middle.
    const DARKER: [f32; 3] = [33.0, 102.0, 172.0];
    const SAME: [f32; 3] = [247.0, 247.0, 247.0];
    const BRIGHTER: [f32; 3] = [178.0, 24.0, 43.0];
    let t = (grey / scale).clamp(-1.0, 1.0);
    let end = if t < 0.0 { DARKER } else { BRIGHTER };
    [0, 1, 2].map(|i| (SAME[i] + (end[i] - SAME[i]) * t.abs()).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| class.to_string()).collect()
    }

    fn example(elements: usize) -> Example {
        let prediction = |class, confidence| Prediction { class, confidence };
        Example {
            clean: vec![0.25; elements],
            adversarial: vec![0.5; elements],
            label: 1,
            clean_prediction: prediction(1, 0.99),
            adversarial_prediction: prediction(2, 0.6),
        }
    }

    #[test]
    fn galleries_of_any_size() {
        let class_names = names(3);
        for (image, count) in [([28, 28, 1], 10), ([32, 32, 3], 1), ([1, 1, 1], 3), ([200, 3, 3], 11)] {
            let examples = vec![example(image.iter().product()); count];
            let scale = if count > 5 { Scale::Epsilon(0.3, "0.3".into()) } else { Scale::Largest };
            let gallery = Gallery {
                title: "t",
                attack: "a",
                image,
                class_names: &class_names,
                scale,
                examples: &examples,
            };
            let picture = image::load_from_memory(&gallery.draw().unwrap()).unwrap().to_rgb8();
            // The clean image of the first example, and right and wrong in the captions.
            assert!(picture.pixels().any(|p| p.0 == [64, 64, 64]), "{image:?}");
            assert!(
                picture.pixels().any(|p| p.0 == [22, 128, 72])
                    && picture.pixels().any(|p| p.0 == [200, 40, 40])
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let class_names = names(3);
        let draw = |image, examples: &[Example]| {
            let scale = Scale::Largest;
            Gallery { title: "", attack: "", image, class_names: &class_names, scale, examples }.draw()
        };
        let good = example(4);
        assert!(draw([2, 2, 1], std::slice::from_ref(&good)).is_ok());
        assert!(draw([2, 2, 1], &[]).is_err());
        assert!(draw([2, 3, 1], std::slice::from_ref(&good)).is_err());
        assert!(draw([2, 1, 2], std::slice::from_ref(&good)).is_err());
        assert!(draw([2, 2, 1], &[Example { label: 3, ..good.clone() }]).is_err());
        let broken = Example { clean: vec![f32::NAN; 4], adversarial: vec![f32::INFINITY; 4], ..good };
        assert!(draw([2, 2, 1], &[broken]).is_ok(), "pixels that are no numbers are drawn black");
    }

    #[test]
    fn colours() {
        assert_eq!(diverging(&[0.0], 0.3), [247, 247, 247]);
        assert_eq!(diverging(&[-0.3], 0.3), [33, 102, 172]);
        assert_eq!(diverging(&[9.0], 0.3), [178, 24, 43]);
        assert_eq!(diverging(&[0.1, -0.1, 0.0], 0.1), [255, 0, 128]);
        assert_eq!((pixel(&[0.5]), pixel(&[0.0, 2.0, f32::NAN])), ([128; 3], [0, 255, 0]));
    }

    #[test]
    fn predictions() {
        let prediction = Prediction::from_logits(&[1.0, 3.0, 3.0]);
        assert_eq!(prediction.class, 1);
        assert!((prediction.confidence - 1.0 / (2.0 + (-2f32).exp())).abs() < 1e-6);
        assert_eq!(Prediction::from_logits(&[f32::NAN, f32::NAN]).class, 0);
    }
}
