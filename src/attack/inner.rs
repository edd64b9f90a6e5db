//! PGD with all that training methods vary of it.

use super::{Ascent, Attack, Ball, Rational, ThreatModel};
use crate::error::{Error, Result};
use crate::tape::{Draw, Purpose, Var};
use std::str::FromStr;

/// Where an attack inside training starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At a random point of the ball, clipped to the box.
    Uniform,
    /// At the image and 0.001 times standard normal noise, not clipped (TRADES, MART); features stay in their bounds.
    Normal,
    /// At the image.
    None,
}

impl Start {
    /// The names they go by.
    pub const NAMES: [&str; 3] = ["uniform", "normal", "none"];
}

impl FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Start> {
        match text {
            "uniform" => Ok(Start::Uniform),
            "normal" => Ok(Start::Normal),
            "none" => Ok(Start::None),
            _ => Err(Error::unknown("start", text, &Start::NAMES)),
        }
    }
}

/// PGD by its start, what it climbs, its restarts, and whether the best iterate is what it ends with.
#[derive(Clone, Debug)]
pub struct InnerPgd {
    /// What it may do.
    pub threat: ThreatModel,
    /// Number of steps.
    pub steps: usize,
    /// Length of a step.
    pub step_size: Rational,
    /// Where it starts.
    pub start: Start,
    /// What it climbs.
    pub ascends: Ascent,
    /// Runs, the worst end of which is kept; at least 1.
    pub restarts: u32,
    /// Whether the worst of all iterates is kept.
    pub keeps_best: bool,
}

/// Standard deviation of the normal start.
const NORMAL: f64 = 0.001;

impl Attack for InnerPgd {
    fn name(&self) -> String {
        format!("PGD-{}", self.steps)
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn ascends(&self) -> Ascent {
        self.ascends
    }

    fn keeps_best(&self) -> bool {
        self.keeps_best
    }

    fn restarts(&self) -> u32 {
        self.restarts
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn step_size(&self) -> f64 {
        self.step_size.value()
    }

    fn is_random(&self) -> bool {
        self.start != Start::None
    }

    fn start<'t>(&self, ball: &Ball<'t>, draw: Draw<'t>, purpose: Purpose) -> Var<'t> {
        match self.start {
            Start::Uniform => ball.random_start(draw, purpose, true),
            Start::Normal => {
                let start = ball.x.add_scaled(ball.along(draw.normal(purpose, ball.x.shape())), NORMAL);
                if ball.changeable.is_some() { ball.into_box(start) } else { start }
            }
            Start::None => ball.x,
        }
    }

    fn line(&self) -> String {
        let start = match self.start {
            Start::Uniform => "random start",
            Start::Normal => "normal start 0.001",
            Start::None => "no random start",
        };
        let mut line = format!("{}, {}, step {}, {start}", self.name(), self.threat, self.step_size);
        if self.ascends == Ascent::Kl {
            line += ", on KL";
        }
        if self.restarts > 1 {
            line += &format!(", {} restarts", self.restarts);
        }
        if self.keeps_best {
            line += ", best iterate";
        }
        line
    }
}
