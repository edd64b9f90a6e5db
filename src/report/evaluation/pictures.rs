//! Pictures of an evaluation.

use super::extras::{Curve, Gradient, Margins, Sure, epsilon_curves, steps_curve};
use super::{Corrupted, Extras, Header, Outcomes, Results};
use crate::data::{Dataset, Examples};
use crate::error::Result;
use crate::files::write_atomically;
use crate::report::Accuracy;
use crate::report::canvas::{Align, Canvas, FAINT, INK, MUTED, RGBColor, Type};
use crate::report::chart::{Histogram, Line, Lines, Sample, Scale};
use crate::report::curves::{CLEAN, OTHER, ROBUST, SUBTITLE, TICK, TITLE};
use crate::report::gallery::{self, Gallery, RIGHT, diverging, pixel};
use std::path::Path;

/// Colours of lines, told apart with any colour vision (Okabe and Ito).
const COLORS: [RGBColor; 6] =
    [CLEAN, ROBUST, OTHER, RGBColor(204, 121, 167), RGBColor(150, 110, 0), RGBColor(86, 150, 200)];

/// Classes of which a confusion matrix is drawn.
const MOST_CLASSES: usize = 64;

/// What the pictures are titled with.
struct Titles<'a> {
    title: &'a str,
    line: &'a str,
}

impl Titles<'_> {
    fn draw(&self, canvas: &mut Canvas, width: f64) {
        let title = canvas.shorten(self.title, width - 96.0, TITLE);
        canvas.text(&title, 48.0, 46.0, Align::Left, TITLE);
        let line = canvas.shorten(self.line, width - 96.0, SUBTITLE);
        canvas.text(&line, 48.0, 80.0, Align::Left, SUBTITLE);
    }
}

/// Writes the pictures there is something for into a folder.
///
/// # Errors
/// Of drawing or of the disk.
pub fn write(
    folder: &Path,
    header: &Header,
    outcomes: &Outcomes,
    results: &Results<'_>,
    extras: &Extras,
    data: &Dataset,
) -> Result<()> {
    let title = format!("{} on {}", header.model, header.data);
    let line = results.rows().last().map(|row| row.attack.clone()).unwrap_or_default();
    let titles = Titles { title: &title, line: &line };
    let file = |name: &str, picture: Vec<u8>| write_atomically(folder.join(name), &picture);
    if data.classes <= MOST_CLASSES {
        file("classes.png", classes(&titles, results, data)?)?;
    }
    let (epsilons, steps) = (epsilon_curves(header, outcomes), steps_curve(header, outcomes));
    if !epsilons.is_empty() || steps.is_some() {
        file("curves.png", curves(&titles, header, &epsilons, steps.as_ref())?)?;
    }
    if let Some(margins) = &extras.margins {
        file("margins.png", histograms(&title, margins)?)?;
    }
    if !extras.corrupted.is_empty() {
        file("corruptions.png", corruptions(&title, outcomes, &extras.corrupted)?)?;
    }
    let [height, width, channels] = data.image;
    let shown = matches!(data.examples, Examples::Images(_)) && matches!(channels, 1 | 3);
    if !shown || height.max(width) > gallery::MOST_SIDE {
        return Ok(());
    }
    if !extras.gradients.is_empty() {
        file("gradients.png", gradients(&title, &extras.gradients, data)?)?;
    }
    if !extras.broken.is_empty() {
        let threat = header.attacks[0].threat()?;
        Gallery {
            title: &title,
            attack: &line,
            image: data.image,
            class_names: &data.class_names,
            scale: crate::report::results::scale(&threat),
            examples: &extras.broken,
        }
        .write(folder.join("gallery.png"))?;
    }
    Ok(())
}

/// Accuracy against epsilon and against steps.
fn curves(
    titles: &Titles<'_>,
    header: &Header,
    epsilons: &[Curve],
    steps: Option<&Curve>,
) -> Result<Vec<u8>> {
    let panels = usize::from(!epsilons.is_empty()) + usize::from(steps.is_some());
    let width = if panels == 2 { 1500 } else { 860 };
    let mut canvas = Canvas::new(width, 620);
    titles.draw(&mut canvas, width.into());
    let lines = |curves: &[&Curve]| -> Vec<Line> {
        curves.iter().zip(COLORS.iter().cycle()).map(|(curve, &color)| line(curve, color)).collect()
    };
    let mut x = 110.0;
    if !epsilons.is_empty() {
        let epsilon = header.attacks[0].threat()?.epsilon;
        Lines {
            heading: "Robust accuracy against epsilon",
            below: &format!(
                "epsilon ({}){}",
                header.attacks[0].norm,
                match epsilons.iter().any(is_dense) {
                    true if epsilons.iter().all(is_dense) => "; 95 % intervals are in curves.csv",
                    true => ", with 95 % intervals where points are few",
                    false => ", with 95 % intervals",
                }
            ),
            x,
            y: 160.0,
            width: 500.0,
            height: 370.0,
            scale: Scale::Linear,
            mark: Some((epsilon.value(), format!("ε = {}", epsilon.text()))),
            lines: &lines(&epsilons.iter().collect::<Vec<_>>()),
        }
        .draw(&mut canvas);
        x += 730.0;
    }
    if let Some(steps) = steps {
        Lines {
            heading: "Robust accuracy against steps",
            below: "steps, with 95 % intervals",
            x,
            y: 160.0,
            width: 500.0,
            height: 370.0,
            scale: Scale::Log,
            mark: None,
            lines: &lines(&[steps]),
        }
        .draw(&mut canvas);
    }
    canvas.png()
}

/// Whether a curve has so many points that their intervals would be a band of strokes.
fn is_dense(curve: &Curve) -> bool {
    curve.points.len() > 20
}

fn line(curve: &Curve, color: RGBColor) -> Line {
    Line {
        name: curve.name.clone(),
        color,
        points: curve.points.iter().map(|point| (point.at, point.robust.percent())).collect(),
        intervals: match is_dense(curve) {
            true => Vec::new(),
            false => curve.points.iter().map(|point| interval(point.robust)).collect(),
        },
    }
}

/// The 95 % interval in percent.
fn interval(accuracy: Accuracy) -> (f64, f64) {
    let (low, high) = accuracy.interval();
    (100.0 * low, 100.0 * high)
}

/// Accuracy by strength of corruption.
fn corruptions(title: &str, outcomes: &Outcomes, corrupted: &[Corrupted]) -> Result<Vec<u8>> {
    let mut canvas = Canvas::new(980, 620);
    let images = corrupted[0].accuracies[0].total;
    let line = format!("accuracy on {images} corrupted images, mean {:.2} %", 100.0 * super::mean(corrupted));
    Titles { title, line: &line }.draw(&mut canvas, 980.0);
    let clean = outcomes.attacks[0].accuracy();
    let lines: Vec<Line> = corrupted
        .iter()
        .zip(COLORS)
        .map(|(one, color)| {
            let all = || std::iter::once(&clean).chain(&one.accuracies);
            Line {
                name: one.corruption.name().into(),
                color,
                points: all().enumerate().map(|(strength, a)| (strength as f64, a.percent())).collect(),
                intervals: all().map(|a| interval(*a)).collect(),
            }
        })
        .collect();
    Lines {
        heading: "Accuracy on corrupted images",
        below: "strength (0: clean), with 95 % intervals",
        x: 110.0,
        y: 160.0,
        width: 560.0,
        height: 370.0,
        scale: Scale::Linear,
        mark: None,
        lines: &lines,
    }
    .draw(&mut canvas);
    canvas.png()
}

/// Margins and losses, clean and attacked.
fn histograms(title: &str, margins: &Margins) -> Result<Vec<u8>> {
    let mut canvas = Canvas::new(1400, 560);
    let line = format!("{}, {} images", margins.attack, margins.examples.len());
    Titles { title, line: &line }.draw(&mut canvas, 1400.0);
    let panels = [
        ("Margin: logit of the right class less the next", "margin; below 0 is misclassified", true),
        ("Loss (cross-entropy)", "logarithm of the loss in nats (base 10)", false),
    ];
    for (place, (heading, below, zero)) in panels.into_iter().enumerate() {
        let logarithm = |loss: &f64| loss.max(1e-12).log10();
        // What is no number is not drawn.
        let values = |sure: &Sure| -> Vec<f64> {
            match zero {
                true => sure.margins.iter().copied().filter(|margin| margin.is_finite()).collect(),
                false => sure.losses.iter().filter(|loss| loss.is_finite()).map(logarithm).collect(),
            }
        };
        let (clean, attacked) = (values(&margins.clean), values(&margins.attacked));
        Histogram {
            heading,
            below,
            x: 110.0 + 680.0 * place as f64,
            y: 180.0,
            width: 540.0,
            height: 290.0,
            zero,
            samples: &[
                Sample { name: "clean", color: CLEAN, values: &clean },
                Sample { name: "attacked", color: ROBUST, values: &attacked },
            ],
        }
        .draw(&mut canvas);
    }
    canvas.png()
}

/// Accuracy by class, and what the broken images of each class are read as.
fn classes(titles: &Titles<'_>, results: &Results<'_>, data: &Dataset) -> Result<Vec<u8>> {
    let count = data.classes;
    let cell = (560 / count).clamp(12, 46) as f64;
    let row = cell.max(18.0);
    let (left, top) = (290.0, 170.0);
    let bars = 260.0;
    let matrix = left + bars + 240.0;
    let width = (matrix + cell * count as f64 + 60.0).max(900.0);
    let height = top + row * count as f64 + 120.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    titles.draw(&mut canvas, width);
    let head = Type::bold(16.0, INK);
    canvas.text("Accuracy by class: clean, and worst case", left - 230.0, 136.0, Align::Left, head);
    canvas.text("Read as (rows: the class)", matrix - 60.0, 136.0, Align::Left, head);
    let confusion = results.confusion();
    let small = Type::new(if count > 20 { 11.0 } else { 14.0 }, INK);
    for (class, ((clean, worst), counts)) in results.by_class().into_iter().zip(&confusion).enumerate() {
        let y = top + row * class as f64;
        // Where columns are too narrow for names they have numbers.
        let numbered = format!("{class}  {}", data.class_names[class]);
        let (name, short) = match count > 20 {
            true => (&numbered, &class.to_string()),
            false => (&data.class_names[class], &data.class_names[class]),
        };
        let name = canvas.shorten(name, 220.0, small);
        canvas.text(&name, left - 10.0, y + row / 2.0, Align::Right, small);
        canvas.rect(left, y + 2.0, bars * clean.fraction(), row / 2.0 - 2.0, CLEAN);
        canvas.rect(left, y + row / 2.0, bars * worst.fraction(), row / 2.0 - 2.0, ROBUST);
        let text = match clean.total {
            0 => "none".to_string(),
            _ => format!("{:.1} / {:.1} %", clean.percent(), worst.percent()),
        };
        canvas.text(&text, left + bars + 10.0, y + row / 2.0, Align::Left, Type::new(small.size, MUTED));
        let short = canvas.shorten(short, 52.0, small);
        canvas.text(&short, matrix - 8.0, y + row / 2.0, Align::Right, small);
        let all = counts.iter().sum::<u64>().max(1) as f64;
        for (read, &times) in counts.iter().enumerate() {
            let x = matrix + cell * read as f64;
            let share = times as f64 / all;
            let color = if read == class { RIGHT } else { ROBUST };
            canvas.rect(x, y, cell - 1.0, row - 1.0, blend(color, share));
            if times > 0 && count <= 20 {
                let ink = if share > 0.5 { RGBColor(255, 255, 255) } else { INK };
                canvas.text(
                    &times.to_string(),
                    x + cell / 2.0,
                    y + row / 2.0,
                    Align::Centre,
                    Type::new(13.0, ink),
                );
            }
        }
    }
    for read in 0..count {
        let (name, kind) = match count <= 20 {
            true => (canvas.shorten(&data.class_names[read], cell - 2.0, TICK), TICK),
            false => (read.to_string(), Type::new(9.0, MUTED)),
        };
        let x = matrix + cell * (read as f64 + 0.5);
        canvas.text(&name, x, top + row * count as f64 + 16.0, Align::Centre, kind);
    }
    let y = top + row * count as f64 + 60.0;
    let mut x = left;
    for (name, color) in [("clean", CLEAN), ("worst case of the attacks", ROBUST), ("withstands", RIGHT)] {
        canvas.disc(x + 5.0, y, 5.0, color);
        x += 17.0 + canvas.text(name, x + 17.0, y, Align::Left, Type::new(14.0, color)) + 24.0;
    }
    canvas.png()
}

/// A colour on white, by share.
fn blend(RGBColor(r, g, b): RGBColor, share: f64) -> RGBColor {
    let mix = |channel: u8| (246.0 + (f64::from(channel) - 246.0) * share.sqrt()).round() as u8;
    RGBColor(mix(r), mix(g), mix(b))
}

/// Images beside the gradients of their losses.
fn gradients(title: &str, shown: &[Gradient], data: &Dataset) -> Result<Vec<u8>> {
    let [height, width, channels] = data.image;
    let zoom = (112 / height.max(width)).max(1);
    let (shown_width, shown_height) = ((width * zoom) as u32, (height * zoom) as u32);
    let cell = shown_width + 18;
    let (left, top) = (150, 150);
    let all = (left + cell * shown.len() as u32 + 30).max(760);
    let mut canvas = Canvas::new(all, top + 2 * (shown_height + 18) + 50);
    let line = "gradient of the loss by the pixels; a network that withstands looks at the object itself";
    Titles { title, line }.draw(&mut canvas, all.into());
    let rows = [top, top + shown_height + 18];
    for (name, y) in ["image", "gradient"].into_iter().zip(rows) {
        canvas.text(name, 48.0, f64::from(y + shown_height / 2), Align::Left, Type::bold(15.0, INK));
    }
    for (i, one) in shown.iter().enumerate() {
        let x = left + i as u32 * cell;
        let middle = f64::from(x) + f64::from(shown_width) / 2.0;
        let kind = Type::bold(14.0, INK);
        let name = canvas.shorten(&data.class_names[one.label as usize], f64::from(cell) - 4.0, kind);
        canvas.text(&name, middle, f64::from(top) - 18.0, Align::Centre, kind);
        // Full colour at three deviations: a few large numbers would hide all others.
        let deviation = (one.gradient.iter().map(|g| g * g).sum::<f64>() / one.gradient.len() as f64).sqrt();
        let scale = (3.0 * deviation).max(1e-30);
        let change: Vec<f32> = one.gradient.iter().map(|g| (g / scale) as f32).collect();
        let pictures: [Vec<[u8; 3]>; 2] = [
            one.image.chunks(channels).map(pixel).collect(),
            change.chunks(channels).map(|change| diverging(change, 1.0)).collect(),
        ];
        for (pixels, y) in pictures.iter().zip(rows) {
            let (w, h) = (f64::from(shown_width), f64::from(shown_height));
            canvas.rect(f64::from(x) - 1.0, f64::from(y) - 1.0, w + 2.0, h + 2.0, FAINT);
            canvas.image(x, y, width, zoom as u32, pixels);
        }
    }
    canvas.png()
}
