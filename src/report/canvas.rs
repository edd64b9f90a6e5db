//! A canvas for pictures: shapes and text in plotters' rasteriser at several times the size, averaged down, which
//! smooths every edge alike.

use crate::{Error, Result};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use plotters::backend::{BitMapBackend, DrawingBackend};
pub use plotters::style::RGBColor;
use plotters::style::{FontStyle, IntoTextStyle, register_font};
use std::fmt::Display;
use std::sync::Once;

/// Pixels drawn for each pixel kept, along each axis.
const OVERSAMPLING: u32 = 3;

/// Embedded through the `dejavu` crate, so that pictures look the same everywhere; Bitstream Vera licence.
const FONT: &str = "DejaVu Sans";

/// Text and axis titles.
pub const INK: RGBColor = RGBColor(31, 41, 51);
/// Less important text.
pub const MUTED: RGBColor = RGBColor(107, 119, 133);
/// Grid lines and frames.
pub const FAINT: RGBColor = RGBColor(226, 230, 234);

/// Size, colour and weight of text.
#[derive(Clone, Copy)]
pub struct Type {
    /// Height of a line, in pixels.
    pub size: f64,
    /// Its colour.
    pub color: RGBColor,
    /// Whether it is bold.
    pub bold: bool,
}

impl Type {
    pub const fn new(size: f64, color: RGBColor) -> Type {
        Type { size, color, bold: false }
    }

    pub const fn bold(size: f64, color: RGBColor) -> Type {
        Type { size, color, bold: true }
    }
}

/// Where text lies from its x.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Centre,
    Right,
}

/// A picture being drawn. Coordinates are pixels of the finished picture, from its top left corner; what lies outside
/// is not drawn.
pub struct Canvas {
    width: u32,
    height: u32,
    /// RGB, oversampled.
    pixels: Vec<u8>,
    /// What plotters refused first; reported by [`Canvas::png`].
    failure: Option<String>,
}

impl Canvas {
    /// An empty sheet of paper.
    pub fn new(width: u32, height: u32) -> Canvas {
        static FONTS: Once = Once::new();
        FONTS.call_once(|| {
            // A font that did not register would be reported where text is drawn.
            let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
            let _ = register_font(FONT, FontStyle::Bold, dejavu::sans::bold());
        });
        let pixels = vec![255; (width * height * OVERSAMPLING * OVERSAMPLING * 3) as usize];
        Canvas { width, height, pixels, failure: None }
    }

    fn draw<T, E: Display>(
        &mut self,
        shape: impl FnOnce(&mut BitMapBackend<'_>) -> std::result::Result<T, E>,
    ) -> Option<T> {
        let size = (self.width * OVERSAMPLING, self.height * OVERSAMPLING);
        let mut backend = BitMapBackend::with_buffer(&mut self.pixels, size);
        shape(&mut backend)
            .map_err(|error| {
                self.failure.get_or_insert_with(|| error.to_string());
            })
            .ok()
    }

    /// A filled rectangle.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, color: RGBColor) {
        self.draw(|backend| backend.draw_rect(at(x, y), at(x + width, y + height), &color, true));
    }

    /// A filled disc.
    pub fn disc(&mut self, x: f64, y: f64, radius: f64, color: RGBColor) {
        let radius = (radius * f64::from(OVERSAMPLING)).round() as u32;
        self.draw(|backend| backend.draw_circle(at(x, y), radius, &color, true));
    }

    /// A line through `points` with round joins. `dash` is the length of a dash and of the gap after it, where the
    /// line is not solid.
    pub fn line(&mut self, points: &[(f64, f64)], width: f64, color: RGBColor, dash: Option<(f64, f64)>) {
        for stroke in strokes(points, dash) {
            for pair in stroke.windows(2) {
                let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
                let length = (x1 - x0).hypot(y1 - y0).max(1e-9);
                let (nx, ny) = ((y0 - y1) / length * width / 2.0, (x1 - x0) / length * width / 2.0);
                let corners =
                    [(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)];
                self.draw(|backend| backend.fill_polygon(corners.map(|(x, y)| at(x, y)), &color));
            }
            for &(x, y) in stroke.get(1..stroke.len() - 1).unwrap_or_default() {
                self.disc(x, y, width / 2.0, color);
            }
        }
    }

    /// Text on one line whose capitals are centred on `y`; returns its width.
    pub fn text(&mut self, text: &str, x: f64, y: f64, align: Align, kind: Type) -> f64 {
        let size = kind.size * f64::from(OVERSAMPLING);
        let weight = if kind.bold { FontStyle::Bold } else { FontStyle::Normal };
        let style = (FONT, size, weight, &kind.color).into_text_style(&(self.width, self.height));
        let width = self.width_of(text, kind);
        let x = match align {
            Align::Left => x,
            Align::Centre => x - width / 2.0,
            Align::Right => x - width,
        };
        // plotters puts the baseline half a size below the position it is given; DejaVu's capitals are 0.73 em high,
        // and a size is 1.164 em.
        let (x, y) = at(x, y + kind.size * (0.73 / 1.164 / 2.0 - 0.5));
        self.draw(|backend| backend.draw_text(text, &style, (x, y)));
        width
    }

    /// Width of `text` on one line.
    pub fn width_of(&mut self, text: &str, kind: Type) -> f64 {
        let size = kind.size * f64::from(OVERSAMPLING);
        let weight = if kind.bold { FontStyle::Bold } else { FontStyle::Normal };
        let style = (FONT, size, weight, &kind.color).into_text_style(&(self.width, self.height));
        let width =
            self.draw(|backend| backend.estimate_text_size(text, &style)).map_or(0, |(width, _)| width);
        f64::from(width) / f64::from(OVERSAMPLING)
    }

    /// `text` with its end cut off ("...") where it is wider than `width`.
    pub fn shorten(&mut self, text: &str, width: f64, kind: Type) -> String {
        let mut kept: Vec<char> = text.chars().collect();
        if self.width_of(text, kind) <= width {
            return text.into();
        }
        while kept.pop().is_some() {
            let short = kept.iter().collect::<String>().trim_end().to_string() + "…";
            if self.width_of(&short, kind) <= width {
                return short;
            }
        }
        String::new()
    }

    /// An image of RGB pixels \[height, width\], each drawn as a square of `zoom` pixels.
    pub fn image(&mut self, x: u32, y: u32, width: usize, zoom: u32, pixels: &[[u8; 3]]) {
        for (i, &[r, g, b]) in pixels.iter().enumerate() {
            let (column, row) = ((i % width) as u32, (i / width) as u32);
            let (x, y, side) = (f64::from(x + column * zoom), f64::from(y + row * zoom), f64::from(zoom));
            self.rect(x, y, side, side, RGBColor(r, g, b));
        }
    }

    /// The finished picture as a PNG file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where something could not be drawn or encoded.
    pub fn png(self) -> Result<Vec<u8>> {
        if let Some(failure) = self.failure {
            return Err(Error::Unsupported(format!("the picture could not be drawn: {failure}")));
        }
        let (width, n) = (self.width as usize, OVERSAMPLING as usize);
        let mut small = Vec::with_capacity(self.pixels.len() / (n * n));
        for rows in self.pixels.chunks_exact(width * n * 3 * n) {
            for column in 0..width {
                for channel in 0..3 {
                    let total: usize = (0..n * n)
                        .map(|i| rows[(i / n * width * n + column * n + i % n) * 3 + channel] as usize)
                        .sum();
                    small.push(((total + n * n / 2) / (n * n)) as u8);
                }
            }
        }
        let mut file = Vec::new();
        PngEncoder::new_with_quality(&mut file, CompressionType::Default, FilterType::Adaptive)
            .write_image(&small, self.width, self.height, ExtendedColorType::Rgb8)
            .map_err(|error| Error::Unsupported(format!("the picture could not be encoded: {error}")))?;
        Ok(file)
    }
}

/// A position on the oversampled canvas.
fn at(x: f64, y: f64) -> (i32, i32) {
    let scale = |v: f64| (v * f64::from(OVERSAMPLING)).round() as i32;
    (scale(x), scale(y))
}

/// The strokes of a line: one where it is solid, else its dashes.
fn strokes(points: &[(f64, f64)], dash: Option<(f64, f64)>) -> Vec<Vec<(f64, f64)>> {
    let Some((on, off)) = dash else { return vec![points.to_vec()] };
    let mut strokes = Vec::new();
    let mut stroke = Vec::new();
    // Where in the pattern of dash and gap the line is.
    let mut phase = 0.0;
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let length = (x1 - x0).hypot(y1 - y0);
        let mut done = 0.0;
        while done < length {
            let drawing = phase < on;
            let piece = (if drawing { on - phase } else { on + off - phase }).min(length - done);
            let point = |s: f64| (x0 + (x1 - x0) * s / length, y0 + (y1 - y0) * s / length);
            if drawing {
                if stroke.is_empty() {
                    stroke.push(point(done));
                }
                stroke.push(point(done + piece));
            }
            done += piece;
            phase += piece;
            if phase >= on - 1e-9 {
                strokes.extend((!stroke.is_empty()).then(|| std::mem::take(&mut stroke)));
            }
            if phase >= on + off - 1e-9 {
                phase = 0.0;
            } else if (phase - on).abs() < 1e-9 {
                phase = on;
            }
        }
    }
    strokes.extend((!stroke.is_empty()).then_some(stroke));
    strokes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_follow_the_line_around_corners() {
        let strokes = strokes(&[(0.0, 0.0), (4.0, 0.0), (4.0, 6.0)], Some((3.0, 2.0)));
        assert_eq!(
            strokes,
            [vec![(0.0, 0.0), (3.0, 0.0)], vec![(4.0, 1.0), (4.0, 4.0)], vec![(4.0, 6.0), (4.0, 6.0)]][..2]
        );
    }

    #[test]
    fn what_is_drawn_is_in_the_file() {
        let mut canvas = Canvas::new(40, 20);
        canvas.rect(10.0, 5.0, 10.0, 10.0, RGBColor(200, 0, 0));
        canvas.image(30, 5, 1, 2, &[[1, 2, 3], [4, 5, 6]]);
        let file = canvas.png().unwrap();
        let picture = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (40, 20));
        for (x, y, want) in [
            (9, 5, [255; 3]),
            (10, 5, [200, 0, 0]),
            (19, 14, [200, 0, 0]),
            (20, 14, [255; 3]),
            (31, 6, [1, 2, 3]),
            (30, 7, [4, 5, 6]),
        ] {
            assert_eq!(picture.get_pixel(x, y).0, want, "at {x}, {y}");
        }
    }

    #[test]
    fn text_is_centred_and_shortened() {
        let kind = Type::bold(20.0, INK);
        let mut canvas = Canvas::new(200, 60);
        let width = canvas.text("HIE", 100.0, 30.0, Align::Centre, kind);
        assert!((30.0..70.0).contains(&width), "{width}");
        let short = canvas.shorten("automobile and truck", 100.0, kind);
        assert!(
            short.ends_with('…') && short.starts_with("auto") && canvas.width_of(&short, kind) <= 100.0,
            "{short}"
        );
        assert_eq!(canvas.shorten("cat", 100.0, kind), "cat");

        let picture = image::load_from_memory(&canvas.png().unwrap()).unwrap().to_luma8();
        let dark = |f: &dyn Fn(u32, u32) -> u32| -> Vec<u32> {
            picture.enumerate_pixels().filter(|(_, _, p)| p.0[0] < 128).map(|(x, y, _)| f(x, y)).collect()
        };
        let middle = |v: Vec<u32>| f64::from(*v.iter().min().unwrap() + *v.iter().max().unwrap() + 1) / 2.0;
        assert!((middle(dark(&|x, _| x)) - 100.0).abs() <= 1.5);
        assert!((middle(dark(&|_, y| y)) - 30.0).abs() <= 1.0);
    }
}
