//! Nearest points of a hyperplane within a box, under Linf, L2 and L1, without sorting (Croce and Hein 2020, "Minimally
//! distorted Adversarial Attacks with a fast Adaptive Boundary Attack", section 2.2 and appendix A, sort).
//!
//! Of the change d each part goes the way that lowers the excess w.x - b, which is brought to 0: d_i = -sign(w_i) m_i
//! with 0 <= m_i <= room_i, what the box leaves. With |w| in place of w the excess is used up by sum |w_i| m_i.
//!
//! Linf: m_i = min(t, room_i). L2: m_i = min(t |w_i|, room_i). Both sums are concave in t, piecewise linear and 0 at 0, so
//! that Newton's steps from 0 never pass the root and reach it once they are on its piece: two sums a step, and the step
//! itself rides along with them. (Bisection takes some thirty, of one sum and the halving.)
//!
//! L1: the largest |w_i| are used up one after the other. Which is the last is found by bisection, and those that f32
//! cannot tell from it share what is left.

use super::Norm;
use super::threat::bisect;
use crate::tape::Var;

/// Newton's steps for t under Linf. Gradients of the MNIST networks here and random weights over six orders of magnitude
/// took up to 8, and 3 on average; what is not reached is fallen short of. Each is two launches.
const NEWTON_LINF: usize = 8;
/// Under L2, where they took up to 13, and 5 on average.
const NEWTON_L2: usize = 13;
/// Halvings that find the last |w_i| under L1, to 2^-26 of the largest.
const HALVINGS: usize = 26;
/// Weights up to here are taken for 0 under L2 and L1.
const NEGLIGIBLE: f64 = 1e-8;
/// Kept from dividing by 0.
const TINY: f64 = 1e-20;

/// A change d of each point that brings it to its hyperplane, the nearest within the box: all `[P,B,H,W,C]`, P points for
/// each of B hyperplanes. `normal` are those' normals `[1,B,H,W,C]`, `excess` what normal.point is above the hyperplane
/// (below, where it is negative) `[P,B,1,1,1]`, `room` what the box leaves below and above each point, `[P,B,H,W,C]` each
/// and at least 0. A hyperplane that does not meet the box is come as near as the box allows.
pub fn towards_hyperplane<'t>(
    norm: Norm,
    normal: Var<'t>,
    excess: Var<'t>,
    [below, above]: [Var<'t>; 2],
) -> Var<'t> {
    let tape = normal.tape();
    let points = below.shape();
    // The authors' code leaves what has next to no weight where it is, but for Linf. It matters where the hyperplane does not
    // meet the box: every other part goes all the way then.
    let normal = match norm {
        Norm::Linf => normal,
        Norm::L2 | Norm::L1 => normal * normal.abs().greater(tape.fill(normal.shape(), NEGLIGIBLE)),
    };
    let sum = |x: Var<'t>| x.sum(&[2, 3, 4]);
    let zeros = tape.fill(excess.shape(), 0.0);
    // 1 where d goes up along the normal, else -1.
    let along = excess.greater_equal(zeros).affine(-2.0, 1.0);
    let way = (normal.sign().broadcast_to(points)) * along;
    let room = way.greater(tape.fill(points, 0.0)).select(above, below);
    // In units of the largest weight, so that numbers stay in range whatever the network's scale is.
    let largest = normal.abs().amax(&[2, 3, 4]).affine(1.0, f64::from(f32::MIN_POSITIVE));
    let (weight, excess) = (normal.abs() / largest, excess.abs() / largest);
    let length = match norm {
        Norm::Linf | Norm::L2 => {
            let share = |t: Var<'t>| if norm == Norm::Linf { t } else { weight * t };
            let mut t = zeros;
            for _ in 0..if norm == Norm::Linf { NEWTON_LINF } else { NEWTON_L2 } {
                let free = room.greater(share(t)) * weight;
                let slope = sum(if norm == Norm::Linf { free } else { free * weight });
                let used = sum(room.min(share(t)) * weight);
                t = (excess - used).relu() / slope.affine(1.0, TINY) + t;
            }
            room.min(share(t))
        }
        Norm::L1 => {
            let worth = weight * room;
            let goes_on = |t: Var<'t>| sum(weight.greater(t) * worth).greater(excess);
            let (low, high) = bisect(zeros, tape.fill(zeros.shape(), 1.0), HALVINGS, goes_on);
            let above = weight.greater(high);
            let last = weight.greater(low) - above;
            let left = (excess - sum(above * worth)).relu() / sum(last * worth).affine(1.0, TINY);
            room * (last * left.min(tape.fill(left.shape(), 1.0)) + above)
        }
    };
    way * length
}
