//! The Square attack (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via
//! random search", algorithms 1 to 3): it asks for logits and for no gradient.
//!
//! From stripes, the image changes in one window a query, whose side shrinks by a schedule; what lowers the margin (the
//! label's logit less the largest other one) stays. Constants are those AutoAttack calls it with: p 0.8, 5 000 queries,
//! the schedule not rescaled. Where the reference draws one window a query for its whole batch, each example here has
//! windows of its own, drawn by seed, example, restart and query: which images share a batch changes nothing. As in the
//! reference's code a window never lies at the last place along an axis; the paper's range, which has it, left 33 to 39 of
//! 100 MNIST images standing under L2 where the code's left 31 to 33.
//!
//! An image that is not square has windows of the same area: as high or as wide as it is where the square would not fit.
//! Of vectors of features a window is so many features in a row, of one sign.

use super::losses::margin;
use super::{Norm, Search, Site, ThreatModel, square_l2};
use crate::shape::Shape;
use crate::tape::{Purpose, Var};

/// Random search by windows, under Linf and L2 (square_l2.rs).
#[derive(Clone, Debug)]
pub struct Square {
    /// What it may do.
    pub threat: ThreatModel,
    /// Windows that are tried, each at a forward pass; the start is one pass more.
    pub queries: usize,
}

/// Share of the image that the first windows cover.
const P_INIT: f64 = 0.8;
/// The share is halved after each of these queries (Andriushchenko et al., section 4; of 10 000 queries).
const HALVED_AFTER: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
/// Queries between looks: what is broken early on is dropped, and a look costs as much as some ten queries.
const LOOK: usize = 250;

/// Rows and columns of the window of query `query` (from 0) in an image of `h` by `w`.
pub(super) fn window(query: usize, h: usize, w: usize) -> [usize; 2] {
    let halvings = HALVED_AFTER.iter().filter(|&&last| query > last).count();
    let area = P_INIT / 2f64.powi(halvings as i32) * (h * w) as f64;
    let side = (area.sqrt().round() as usize).max(1);
    let other = |extent: usize| ((area / extent as f64).round() as usize).max(1);
    match (side > h, side > w) {
        (true, _) => [h, other(h).min(w)],
        (_, true) => [other(w).min(h), w],
        _ => [side, side],
    }
}

/// Rows, columns and channels as windows have them: of vectors of features `[1,1,F]` the features are the columns.
fn extents([h, w, c]: [usize; 3]) -> [usize; 3] {
    if h * w == 1 { [1, c, 1] } else { [h, w, c] }
}

/// How many first rows and first columns a window may have: as in the reference one fewer than fit, and all where there
/// is one row, of which the last feature would never be changed.
pub(super) fn places([h, w]: [usize; 2], [rows, columns]: [usize; 2]) -> [f64; 2] {
    let all = usize::from(h == 1);
    [h - rows + all, w - columns + all].map(|places| places.max(1) as f64)
}

/// Stream of random numbers for a window's row. (The start has stream 0.)
const ROW: u32 = 1;
/// For its column.
const COLUMN: u32 = 2;
/// For its signs, one a channel.
const SIGN: u32 = 3;

impl Search for Square {
    fn name(&self) -> String {
        format!("Square-{}", self.queries)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("Square, {}, {} queries, p {P_INIT}", self.threat, self.queries)
    }

    fn steps(&self) -> usize {
        self.queries
    }

    fn steps_between_looks(&self) -> usize {
        LOOK
    }

    fn is_random(&self) -> bool {
        true
    }

    fn uses_gradients(&self) -> bool {
        false
    }

    fn constants(&self, image: [usize; 3]) -> Vec<(&'static str, Shape, Vec<f64>)> {
        let [h, w, _] = extents(image);
        let count = |n: usize| (0..n).map(|i| i as f64).collect();
        let mut constants =
            vec![("row", Shape::new(&[1, h, 1, 1]), count(h)), ("column", self.columns(image), count(w))];
        let windows: Vec<f64> = match self.threat.norm {
            Norm::Linf => (0..self.queries)
                .flat_map(|query| {
                    let [rows, columns] = window(query, h, w);
                    let [down, across] = places([h, w], [rows, columns]);
                    // Places of a window, and half its extent.
                    [down, rows as f64 / 2.0, across, columns as f64 / 2.0]
                })
                .collect(),
            Norm::L2 | Norm::L1 => {
                let [upright, turned] = square_l2::tiled(h, w);
                let shape = Shape::new(&[1, h, w, 1]);
                constants.extend([("upright", shape, upright), ("turned", shape, turned)]);
                (0..self.queries).flat_map(|query| square_l2::row_of(query, h, w)).collect()
            }
        };
        constants.push(("window", Shape::new(&[self.queries, windows.len() / self.queries.max(1)]), windows));
        constants
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let images = site.x().shape();
        let start = match self.threat.norm {
            Norm::Linf => {
                // A stripe is a column of one channel.
                let stripes = sign(site, Purpose::EVALUATION_START, images.with(1, 1)).broadcast_to(images);
                site.ball.project(site.ball.along(stripes * site.ball.radius) + site.x())
            }
            Norm::L2 | Norm::L1 => square_l2::start(site, extents([images[1], images[2], images[3]])),
        };
        let logits = site.logits(start);
        site.keep("margin", margin(site, logits) + site.needed(logits));
        site.keep_adversarial(start);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (best, lowest) = (site.adversarial(), site.state("margin", [site.batch, 1]));
        let images = best.shape();
        let moves = match self.threat.norm {
            Norm::Linf => Some(self.window(site)),
            Norm::L2 | Norm::L1 => None,
        };
        let candidate = match &moves {
            Some(window) => site.ball.project(window.inside(window.reach) * window.change + best),
            None => {
                square_l2::candidate(site, best, self.queries, extents([images[1], images[2], images[3]]))
            }
        };
        let logits = site.logits(candidate);
        let now = margin(site, logits) + site.needed(logits);
        // What is broken stays as it is.
        let nothing = site.tape.fill(now.shape(), 0.0);
        let better = lowest.greater(now) * lowest.greater_equal(nothing);
        site.keep("margin", better.select(now, lowest));
        let better = better.reshape(site.per_example());
        site.keep_adversarial(match &moves {
            // The candidate again where it is better, and the best as it was else: a launch that reads and writes the best
            // alone, where choosing between two images is two launches that read three.
            Some(window) => {
                let reach = better.broadcast_to(window.reach.shape()).select(window.reach, window.nowhere);
                site.ball.project(window.inside_again(reach) * window.change + best)
            }
            None => better.broadcast_to(images).select(candidate, best),
        });
    }
}

/// A window of each example, under Linf.
struct Window<'t> {
    /// How far from the middle column a pixel of each row may be, `[B,h,1,1]`: in other rows less than nothing.
    reach: Var<'t>,
    /// As far as no pixel is, of the shape of `reach`.
    nowhere: Var<'t>,
    /// The column of each pixel, as the images.
    column: Var<'t>,
    /// The middle column of the window, `[B,1,1,1]`.
    middle: Var<'t>,
    /// What is added in the window, `[B,1,1,c]`.
    change: Var<'t>,
}

impl<'t> Window<'t> {
    /// 1 for the pixels of the window, else 0.
    fn inside(&self, reach: Var<'t>) -> Var<'t> {
        reach.greater((self.column - self.middle).abs())
    }

    /// The same, written so that the planner does not keep what lies between for both.
    fn inside_again(&self, reach: Var<'t>) -> Var<'t> {
        reach.greater((self.middle - self.column).abs())
    }
}

impl Square {
    /// Shape of the numbers of all columns: those of features are along the last axis, where their values are.
    fn columns(&self, [h, w, c]: [usize; 3]) -> Shape {
        match self.threat.norm {
            Norm::Linf if h * w == 1 => Shape::new(&[1, 1, 1, c]),
            _ => Shape::new(&[1, 1, extents([h, w, c])[1], 1]),
        }
    }

    /// Records where the windows of a query are and what is added in them.
    fn window<'t>(&self, site: &Site<'_, 't>) -> Window<'t> {
        let image = [1, 2, 3].map(|axis| site.x().shape()[axis]);
        let [h, _, c] = extents(image);
        let purpose = |stream| Purpose::EVALUATION_START.stream(stream);
        let uniform = |stream| site.draw().uniform(purpose(stream), site.per_example());
        let window = site.row_of_constant("window", self.queries, 4);
        let [rows_free, half_rows, columns_free, half_columns] =
            [0, 1, 2, 3].map(|at| window.slice(1, at, 1).reshape(site.one()));
        // A window's first row is floor(v), v uniform in [0, places). There is no floor: row i is in it where
        // v - rows <= i - rows < v - rows + 1, that is, within half its rows of v + rows / 2 - 1, but for one v in 2^24.
        let centre = |stream, free: Var<'t>, half: Var<'t>| (uniform(stream) * free + half).affine(1.0, -1.0);
        let row = (site.constant("row", [1, h, 1, 1]) - centre(ROW, rows_free, half_rows)).abs();
        let nowhere = site.tape.fill(row.shape(), -1.0);
        Window {
            reach: half_rows.greater(row).select(half_columns.broadcast_to(row.shape()), nowhere),
            nowhere,
            // Of the images' shape from here on, so that one launch does the rest.
            column: site.constant("column", self.columns(image)).broadcast_to(site.x().shape()),
            middle: centre(COLUMN, columns_free, half_columns),
            change: sign(site, purpose(SIGN), Shape::new(&[site.batch, 1, 1, c]))
                * site.ball.radius.scale(2.0),
        }
    }
}

/// -1 or 1 with equal chance.
pub(super) fn sign<'t>(site: &Site<'_, 't>, purpose: Purpose, shape: Shape) -> Var<'t> {
    site.draw().uniform(purpose, shape).greater_equal(site.tape.fill(shape, 0.5)).affine(2.0, -1.0)
}
