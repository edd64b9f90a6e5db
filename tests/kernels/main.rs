//! Kernels on every adapter of the machine, software Vulkan included.

mod elementwise;
mod harness;
