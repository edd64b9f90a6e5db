//! The main job as a person meets it: the program `train` itself, on a small data set.

mod bad_input;
#[cfg(unix)]
mod methods;
mod onnx;
#[cfg(unix)]
mod resume;
mod run_folder;
mod tiny;
#[cfg(unix)]
mod watch;
