//! Weights of others: files as other programs write them, against PyTorch's logits; and files made to do harm.

#[path = "../reference/mod.rs"]
mod reference;

mod foreign;
mod hostile;
mod nested;
mod shipped;
mod torchvision;
