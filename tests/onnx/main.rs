//! ONNX files: read as onnxruntime reads them, with PyTorch's gradients; what is hostile or not supported is refused.
//! tests/reference/README.md says what the numbers are, tools/make_onnx_reference.py made them.

#[path = "../reference/mod.rs"]
mod reference;

mod export;
mod hostile;
mod import;
mod memory;
mod real;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
