//! Kernels on every adapter of the machine, software Vulkan included.

mod conv2d;
mod cooperative;
mod device;
mod elementwise;
mod half;
mod harness;
mod kernels;
mod matmul;
mod products;
mod shaders;
