//! The program `evaluate` as a person meets it, on a small data set and a network trained on it in a second.

// What `train`'s own tests need besides is not used here.
#[allow(dead_code)]
#[path = "../train/tiny.rs"]
mod tiny;

mod program;
mod witnesses;
