//! adamant: neural networks that stay right under attack, trained and tested on any GPU.

pub mod attack;
pub mod cpu;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod gpu;
pub mod kernels;
pub mod launch;
pub mod nn;
pub mod philox;
pub mod plan;
pub mod report;
pub mod shape;
pub mod tape;
pub mod tensor;
pub mod trace;
pub mod train;
pub mod weights;

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use device::Device;
pub use error::{Error, Result};
pub use plan::{Plan, Program, Step};
pub use shape::{DType, Shape, Stretch};
pub use tape::{Tape, Var};
pub use tensor::{Host, Reading, Store, Tensor};
