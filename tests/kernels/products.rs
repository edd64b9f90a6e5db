//! Products of matrices and convolutions against the f64 executor, by every variant of their kernels: on software
//! Vulkan both families, on hardware GPUs theirs.

use crate::harness::{Host, plain, reference, run_calls, ways};
use adamant::DType;
use adamant::cpu::Data;
use adamant::kernels::{calls, variants};
use adamant::launch::{Kernel, Launch};
use std::collections::BTreeSet;

/// Floats in [-1, 1) that look random: a hash of seed and position.
pub fn noise(seed: u32, len: usize) -> Vec<f32> {
    let hash = |i: usize| {
        let mut x = (i as u32).wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b);
        for _ in 0..2 {
            x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
            x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        }
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(hash).collect()
}

/// What the f64 executor makes of `launch`.
fn expected(launch: &Launch, tensors: &[Host], before: &Host) -> Vec<f64> {
    let Data::Float(result) = reference(launch, tensors, before) else { unreachable!() };
    result
}

/// Runs `launch` (inputs and operands `Place::Tensor(i)`, output `Place::Slot(0)`, stages of slope at most 1) on
/// every way and holds it against the f64 executor. With u = 2^-24, a sum of `depth` products may be wrong by
/// `(4 + 2 sqrt(depth)) u` of the sum of their absolute values (rounding errors of a sum in order grow like a random
/// walk), by Winograd's tiles of the largest such sum, and what stages make of it by 8 u of the largest intermediate
/// more, for which 4 times the largest operand and result are taken.
pub fn check(launch: &Launch, depth: usize, tensors: &[Vec<f32>]) {
    // The default and one of the others, in turn over the shapes: each is a pipeline to compile.
    let other = |all: usize| 1 + (depth + launch.shape.len() / 7) % (all - 1).max(1);
    check_variants(launch, depth, tensors, |i, _, all| i == 0 || i == other(all));
}

/// As [`check`], by the variants for which `wanted(its number, its name, how many there are)`.
pub fn check_variants(
    launch: &Launch,
    depth: usize,
    tensors: &[Vec<f32>],
    wanted: impl Fn(usize, &str, usize) -> bool,
) {
    let before = Host::Float(noise(99, launch.shape.len()));
    let floats = |f: fn(f32) -> f32| -> Vec<Host> {
        tensors.iter().map(|x| Host::Float(x.iter().map(|&v| f(v)).collect())).collect()
    };
    let inputs = floats(|v| v);
    let want = expected(launch, &inputs, &before);
    let bare = Launch { stages: Vec::new(), ..launch.clone() };
    let sizes = expected(&bare, &floats(f32::abs), &before);
    let largest = sizes.iter().fold(0.0, |a: f64, &b| a.max(b));
    let u = 2f64.powi(-24);
    let stages = if launch.stages.is_empty() { 0.0 } else { 8.0 * 4.0 * u };
    for way in ways() {
        let all = variants(launch, &way.target).unwrap();
        assert_eq!(format!("{:?}", all[0].calls), format!("{:?}", calls(launch, &way.target).unwrap()));
        let names: BTreeSet<&String> = all.iter().map(|variant| &variant.name).collect();
        assert_eq!(names.len(), all.len(), "{launch}: {names:?} do not tell {} variants apart", all.len());
        let count = all.len();
        let chosen = all.into_iter().enumerate().filter(|(i, variant)| wanted(*i, &variant.name, count));
        for (_, variant) in chosen {
            let name = variant.name;
            let Host::Float(got) = run_calls(way, launch, variant.calls, &inputs, &before) else {
                unreachable!()
            };
            for (i, ((&got, &want), &size)) in got.iter().zip(&want).zip(&sizes).enumerate() {
                // Each result of a tile has the errors of all its inputs.
                let size = if name.starts_with("Winograd") { largest } else { size };
                let bound =
                    (4.0 + 2.0 * (depth as f64).sqrt()) * u * size + stages * want.abs().max(1.0) + 1e-37;
                let error = (f64::from(got) - want).abs();
                assert!(
                    error <= bound,
                    "{launch} ({name}) {:?} on {}: element {i} is {got}, not {want}: {error:.2e} > {bound:.2e}",
                    launch.kernel,
                    way.name
                );
            }
        }
    }
}

/// The launch of a kernel on tensors 0 and 1.
pub fn launch(kernel: Kernel, shape: &[usize]) -> Launch {
    plain(kernel, 2, shape, DType::F32)
}
