//! Kernels on every adapter of the machine, software Vulkan included.

mod device;
mod elementwise;
mod harness;
mod kernels;
mod shaders;
