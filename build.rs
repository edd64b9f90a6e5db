//! Tells the program which compiler and target it is built with, for the record that every run leaves.

use std::env;
use std::process::Command;

fn main() {
    // Cargo runs this again by itself when the compiler or the target changes.
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    println!("cargo::rustc-env=ADAMANT_RUSTC={}", version.unwrap_or_else(|_| "unknown".into()));
    println!("cargo::rustc-env=ADAMANT_TARGET={}", env::var("TARGET").unwrap_or_else(|_| "unknown".into()));
}
