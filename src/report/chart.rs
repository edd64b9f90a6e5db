//! Diagrams of an evaluation: lines over a number, and histograms, each with its axes, several to a picture.

use super::canvas::{Align, Canvas, FAINT, MUTED, RGBColor, Type};
use super::curves::{HEADING, TICK, nice_step, spread, tick};

/// What the values along an axis are.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// Equal differences are equally long.
    Linear,
    /// Equal ratios are; values are above 0.
    Log,
}

/// One line of a diagram.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: RGBColor,
    pub(super) points: Vec<(f64, f64)>,
    /// 95 % intervals at the points: lowest and highest.
    pub(super) intervals: Vec<(f64, f64)>,
}

/// A diagram of accuracies in percent over a number; `x`, `y`, `width` and `height` are those of its axes.
pub(super) struct Lines<'a> {
    pub(super) heading: &'a str,
    /// What stands under the axis.
    pub(super) below: &'a str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) scale: Scale,
    /// A value that is marked, and what it is.
    pub(super) mark: Option<(f64, String)>,
    pub(super) lines: &'a [Line],
}

impl Lines<'_> {
    pub(super) fn draw(&self, canvas: &mut Canvas) {
        let values = || self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
        let low = values().fold(f64::MAX, f64::min);
        let high = values().fold(f64::MIN, f64::max).max(low + 1e-12);
        let place = |value: f64| match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value / low).ln() / (high / low).ln(),
        };
        let to_x = |value: f64| self.x + 8.0 + place(value) * (self.width - 16.0);
        let bottom = self.y + self.height;
        let to_y = |percent: f64| bottom - percent / 100.0 * self.height;

        canvas.text(self.heading, self.x - 56.0, self.y - 40.0, Align::Left, HEADING);
        for percent in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
            let color = if percent == 0.0 { MUTED } else { FAINT };
            let y = to_y(percent);
            canvas.line(&[(self.x, y), (self.x + self.width, y)], 1.0, color, None);
            canvas.text(&format!("{percent:.0} %"), self.x - 10.0, y, Align::Right, TICK);
        }
        for value in self.ticks(low, high) {
            let text = match self.scale {
                Scale::Linear => tick(value, nice_step(high - low, 6.0)),
                Scale::Log => format!("{value}"),
            };
            canvas.text(&text, to_x(value), bottom + 20.0, Align::Centre, TICK);
        }
        canvas.text(self.below, self.x + self.width / 2.0, bottom + 46.0, Align::Centre, TICK);
        if let Some((value, name)) = self.mark.as_ref().filter(|(value, _)| (low..=high).contains(value)) {
            let x = to_x(*value);
            canvas.line(&[(x, self.y), (x, bottom)], 1.2, MUTED, Some((5.0, 5.0)));
            canvas.text(name, x + 6.0, self.y + 8.0, Align::Left, TICK);
        }
        for line in self.lines {
            for (&(value, _), &(low, high)) in line.points.iter().zip(&line.intervals) {
                let x = to_x(value);
                canvas.line(&[(x, to_y(low)), (x, to_y(high))], 1.2, line.color, None);
            }
            let points: Vec<(f64, f64)> = line.points.iter().map(|&(x, y)| (to_x(x), to_y(y))).collect();
            canvas.line(&points, 2.4, line.color, None);
            points.iter().for_each(|&(x, y)| canvas.disc(x, y, 3.6, line.color));
        }
        self.name_ends(canvas, to_y);
    }

    /// Values that are written under the axis: round ones, or those of the points where the scale is of ratios.
    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice_step(high - low, 6.0);
                let first = (low / step).ceil() as i64;
                (first..).map(|i| i as f64 * step).take_while(|&value| value <= high + 1e-9 * step).collect()
            }
            Scale::Log => {
                let mut values: Vec<f64> =
                    self.lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
                values.sort_by(f64::total_cmp);
                values.dedup();
                values
            }
        }
    }

    /// Writes the name and the last value of each line beside its end.
    fn name_ends(&self, canvas: &mut Canvas, to_y: impl Fn(f64) -> f64) {
        let mut ends: Vec<(f64, &Line, f64)> = self
            .lines
            .iter()
            .filter_map(|line| line.points.last().map(|&(_, value)| (to_y(value), line, value)))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted: Vec<f64> = ends.iter().map(|end| end.0).collect();
        for ((_, line, value), y) in ends.iter().zip(spread(&wanted, 20.0)) {
            let kind = Type { size: 15.0, color: line.color, bold: false };
            let text = format!("{value:.1} %  {}", line.name);
            canvas.text(&text, self.x + self.width + 12.0, y, Align::Left, kind);
        }
    }
}

/// One set of numbers of a histogram.
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) color: RGBColor,
    pub(super) values: &'a [f64],
}

/// Histograms of several samples over the same bins; `x`, `y`, `width` and `height` are those of its axes.
pub(super) struct Histogram<'a> {
    pub(super) heading: &'a str,
    /// What stands under the axis.
    pub(super) below: &'a str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    /// Whether a line marks 0.
    pub(super) zero: bool,
    pub(super) samples: &'a [Sample<'a>],
}

/// Bins of a histogram.
const BINS: usize = 40;

impl Histogram<'_> {
    pub(super) fn draw(&self, canvas: &mut Canvas) {
        let (low, high) = self.range();
        let bottom = self.y + self.height;
        let to_x = |value: f64| self.x + (value - low) / (high - low) * self.width;
        let counts: Vec<Vec<f64>> =
            self.samples.iter().map(|sample| shares(sample.values, low, high)).collect();
        // With room above for what the samples are called.
        let most = 1.15 * counts.iter().flatten().fold(0.0, |most: f64, &share| most.max(share)).max(1e-9);
        canvas.text(self.heading, self.x - 56.0, self.y - 40.0, Align::Left, HEADING);
        let step = nice_step(100.0 * most, 4.0);
        for i in 0..=(100.0 * most / step) as usize {
            let percent = i as f64 * step;
            let y = bottom - percent / 100.0 / most * self.height;
            canvas.line(
                &[(self.x, y), (self.x + self.width, y)],
                1.0,
                if i == 0 { MUTED } else { FAINT },
                None,
            );
            canvas.text(&format!("{} %", tick(percent, step)), self.x - 10.0, y, Align::Right, TICK);
        }
        let step = nice_step(high - low, 6.0);
        // In whole steps: a sum of steps would miss 0 by a rounding.
        for i in (low / step).ceil() as i64..=(high / step + 1e-9).floor() as i64 {
            let value = i as f64 * step;
            canvas.text(&tick(value, step), to_x(value), bottom + 20.0, Align::Centre, TICK);
        }
        canvas.text(self.below, self.x + self.width / 2.0, bottom + 46.0, Align::Centre, TICK);
        if self.zero && (low..=high).contains(&0.0) {
            canvas.line(&[(to_x(0.0), self.y), (to_x(0.0), bottom)], 1.2, MUTED, Some((5.0, 5.0)));
        }
        for (row, (sample, shares)) in self.samples.iter().zip(&counts).enumerate() {
            // As steps: bars of two samples would hide each other.
            let bin = self.width / BINS as f64;
            let mut outline = vec![(self.x, bottom)];
            for (i, share) in shares.iter().enumerate() {
                let y = bottom - share / most * self.height;
                outline.extend([(self.x + i as f64 * bin, y), (self.x + (i + 1) as f64 * bin, y)]);
            }
            outline.push((self.x + self.width, bottom));
            canvas.line(&outline, 2.2, sample.color, None);
            let kind = Type { size: 15.0, color: sample.color, bold: false };
            let mut values = sample.values.to_vec();
            values.sort_by(f64::total_cmp);
            let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
            let mut text = format!("{}, median {}", sample.name, super::compact(median));
            if self.zero {
                let below = values.iter().filter(|&&value| value < 0.0).count() as f64;
                text += &format!(", {:.1} % below 0", 100.0 * below / values.len().max(1) as f64);
            }
            canvas.text(&text, self.x + self.width, self.y - 14.0 + 20.0 * row as f64, Align::Right, kind);
        }
    }

    /// What the axis spans: all but the hundredth of the values at either end, which are counted in the last bins.
    fn range(&self) -> (f64, f64) {
        let mut all: Vec<f64> = self
            .samples
            .iter()
            .flat_map(|sample| sample.values.iter().copied())
            .filter(|v| v.is_finite())
            .collect();
        all.sort_by(f64::total_cmp);
        let (Some(&first), Some(&last)) =
            (all.get(all.len() / 100), all.get(all.len().saturating_sub(1 + all.len() / 100)))
        else {
            return (0.0, 1.0);
        };
        let (low, high) = if last > first { (first, last) } else { (first - 0.5, first + 0.5) };
        match self.zero && low < 0.0 && high > 0.0 {
            true => around_zero(low, high),
            false => (low, high),
        }
    }
}

/// A little more than from `low` to `high`, so that 0 is between two bins and not in one.
fn around_zero(low: f64, high: f64) -> (f64, f64) {
    let bin = (high - low) / (BINS - 1) as f64;
    let low = (low / bin).floor() * bin;
    (low, low + BINS as f64 * bin)
}

/// Share of the values in each bin; those beyond an end, and what is no number, in the nearest.
fn shares(values: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut counts = vec![0.0; BINS];
    for value in values {
        let bin = ((value - low) / (high - low) * BINS as f64) as usize;
        counts[bin.min(BINS - 1)] += 1.0 / values.len() as f64;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_whatever_the_values() {
        let values = [f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, 7.0, f64::INFINITY, f64::NAN];
        let shares = shares(&values, 0.0, 1.0);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!((shares[0], shares[BINS / 2], shares[BINS - 1]), (0.5, 0.125, 0.375));
    }

    #[test]
    fn no_bin_has_values_on_both_sides_of_0() {
        for (low, high) in [(-1.0, 2.0), (-0.013, 7.9), (-30.0, 0.2), (-1e-3, 1e-3)] {
            let (from, to) = around_zero(low, high);
            let bin = (to - from) / BINS as f64;
            assert!(
                from <= low && to >= high && to - from < 1.1 * (high - low),
                "{low} to {high}: {from} to {to}"
            );
            assert!(
                (from / bin - (from / bin).round()).abs() < 1e-9,
                "{low} to {high}: {from}, bins of {bin}"
            );
        }
    }
}
