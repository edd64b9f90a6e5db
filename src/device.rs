//! Where plans run: a GPU adapter, the CPU executor, or the f64 reference executor.
