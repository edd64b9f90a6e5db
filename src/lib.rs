//! adamant: neural networks that stay right under attack, trained and tested on any GPU.

pub mod cpu;
pub mod data;
pub mod error;
pub mod files;
pub mod gpu;
pub mod kernels;
pub mod launch;
pub mod nn;
pub mod philox;
pub mod report;
pub mod shape;
pub mod tape;

pub use error::{Error, Result};
pub use shape::{DType, Shape, Stretch};
