//! Host side of shaders/matmul.wgsl.

use super::{Calls, Shader, Target};
use crate::error::{Error, Result};
use crate::launch::Launch;

/// The shader files of this family.
pub fn shaders() -> Vec<&'static Shader> {
    Vec::new()
}

/// The dispatches of a launch of this family.
///
/// # Errors
/// [`Error::Unsupported`] for every launch so far.
pub fn calls(launch: &Launch, _target: &Target) -> Result<Calls> {
    Err(Error::Unsupported(format!("{launch} has no kernel on GPUs")))
}
