//! Whether cooperative matrices can be trusted on a device: drivers have offered them and computed something else, so a
//! product of known result decides, once a process and adapter, on a device of its own.

use super::gemm::Family;
use super::{Compiled, Target, matmul};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::launch::{Kernel, Launch, Place};
use crate::shape::{DType, Shape};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Extents of the product: more than one tile, and not whole ones.
const M: usize = 150;
const N: usize = 140;
const K: usize = 84;

/// Integers from -2 to 2, which f16 and their sums of products f32 hold exactly.
fn integer(i: usize) -> i32 {
    (i * 7 + i / 5) as i32 % 5 - 2
}

/// The size of the cooperative matrices of a device if they compute what they should.
pub(super) fn proven(gpu: &Gpu) -> Option<u32> {
    static PROVEN: Mutex<Option<HashMap<String, bool>>> = Mutex::new(None);
    let size = gpu.cooperative()?;
    let summary = gpu.summary();
    let key = format!("{} {}", summary.name, summary.driver);
    let mut proven = PROVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let right = proven
        .get_or_insert_default()
        .entry(key)
        .or_insert_with(|| Gpu::open(summary).and_then(|gpu| prove(&gpu, size)).is_ok());
    right.then_some(size)
}

/// Every tile that would be used, on a product of known result.
fn prove(gpu: &Gpu, size: u32) -> Result<()> {
    let target = Target { software: false, cooperative: Some(size), ..Target::without_cooperative(gpu) };
    let launch = Launch {
        kernel: Kernel::MatMul { m: M, n: N, k: K, ta: false, tb: false },
        inputs: vec![Place::Tensor(0), Place::Tensor(1)],
        stages: Vec::new(),
        output: Place::Slot(0),
        also: Vec::new(),
        shape: Shape::new(&[M, N]),
        dtype: DType::F32,
        halves: vec![Place::Tensor(0), Place::Tensor(1)],
    };
    let (a, b): (Vec<i32>, Vec<i32>) = ((0..M * K).map(integer).collect(), (0..K * N).map(integer).collect());
    let upload = |values: &[i32]| {
        let halves: Vec<half::f16> = values.iter().map(|&v| half::f16::from_f32(v as f32)).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let buffer = gpu.allocate(bytes.len() as u64, "proof of cooperative matrices")?;
        gpu.write(&buffer, &bytes)?;
        Ok::<_, Error>(buffer)
    };
    let tensors = [upload(&a)?, upload(&b)?];
    let slots = [gpu.allocate(4 * (M * N) as u64, "proof of cooperative matrices")?];
    let dot = |i: usize| (0..K).map(|k| a[i / N * K + k] * b[k * N + i % N]).sum::<i32>() as f32;
    let want: Vec<f32> = (0..M * N).map(dot).collect();
    let families = matmul::families(&launch, &target);
    for family in families.into_iter().filter(|family| matches!(family, Family::Cooperative(_))) {
        let calls = matmul::calls(family, &launch, &target);
        let launches = std::slice::from_ref(&launch);
        let compiled = Compiled::with_calls(gpu, launches, &[calls], 0, &slots, &tensors)?;
        gpu.submit(|pass| compiled.encode(pass))?;
        let got = gpu.read(&[&slots[0]])?;
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&got[0]);
        if got != want {
            return Err(Error::Unsupported(format!("cooperative matrices of {size} give wrong products")));
        }
    }
    Ok(())
}
