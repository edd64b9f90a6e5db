//! The tape: computations as data.

mod op;

pub use op::{Axes, Binary, Conv2d, Distribution, Op, Pool, Purpose, Reduction, Unary};
