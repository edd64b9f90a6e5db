//! The reference numbers of this folder: README.md says what they are, tools/make_reference.py made them.
//!
//! Weights and inputs are not stored but given by a formula, which this module repeats to the same bits. Everything
//! here is in PyTorch's layout (NCHW, OIHW); [`permute`] takes it to another.

// Each test that includes this module uses its own part of it.
#![allow(dead_code)]

use adamant::device::Device;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;
use std::sync::OnceLock;

/// Hash vectors a digest projects on.
const PROJECTIONS: u64 = 4;

/// Finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The hash of element `i` of tensor `number`.
fn hash(number: u64, i: usize) -> u64 {
    splitmix64((number << 32) + i as u64)
}

/// A multiple of 2^-24 in [0, 1) for element `i` of tensor `number`; f32 holds it exactly.
fn uniform(number: u64, i: usize) -> f64 {
    (hash(number, i) >> 40) as f64 * (-24f64).exp2()
}

/// Tensor `number` of a state dict: each element computed in f64 and rounded once.
///
/// With u uniform: `(2u - 1) * sqrt(3 / fan_in)` for two axes or more, fan_in being the product of all extents but
/// the first; `0.5 + u` for a batch norm's weight and running variance; `(2u - 1) * 0.1` for biases and running means.
fn formula(name: &str, number: u64, shape: &[usize]) -> Vec<f32> {
    let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
    let value = |u: f64| match shape.len() {
        1 if name.ends_with("weight") || name.ends_with("running_var") => 0.5 + u,
        1 => (u * 2.0 - 1.0) * 0.1,
        _ => (u * 2.0 - 1.0) * bound,
    };
    (0..shape.iter().product()).map(|i| value(uniform(number, i)) as f32).collect()
}

/// A named tensor in PyTorch's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name in the state dict.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

/// Weights and inputs of a model's file.
pub struct Inputs {
    /// Parameters and running statistics in the order of PyTorch's state dict (without `num_batches_tracked`).
    pub state: Vec<Tensor>,
    /// Images in [0, 1], NCHW.
    pub images: Tensor,
    /// Where PGD starts: `clip(images + epsilon * (2u - 1), 0, 1)`, rounded to f32.
    pub start: Tensor,
    /// Classes.
    pub labels: Vec<u32>,
}

/// One file of reference numbers.
pub struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    /// The file of `name`: a model (`mlp`, `mnist-fast`, `mnist-madry`, `preact-resnet18`, `resnet18`) or `ops`.
    pub fn open(name: &str) -> Reference {
        // As cargo says it now, not where this was built: tools/bundle takes tests to other machines.
        let root =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let path = Path::new(&root).join("tests/reference").join(format!("{name}.safetensors"));
        Reference { bytes: std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a safetensors file")
    }

    /// Names of everything stored.
    pub fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(String::from).collect()
    }

    /// Weights and inputs of a model, by the formula; `epsilon` is the attack's ([`epsilon_and_step`]).
    pub fn inputs(&self, epsilon: f64) -> Inputs {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).expect("a safetensors file");
        let rows = &header.metadata().as_ref().expect("metadata")["tensors"];
        let mut tensors: Vec<(&str, Vec<usize>)> = rows
            .lines()
            .map(|row| row.split_once(' ').expect("a name and a shape"))
            .map(|(name, shape)| (name, shape.split('x').map(|extent| extent.parse().unwrap()).collect()))
            .collect();
        let batch = tensors.pop().expect("labels").1[0];
        let shape = tensors.pop().expect("start").1;
        tensors.pop().expect("images");
        let count = tensors.len() as u64;
        let images: Vec<f32> = (0..shape.iter().product()).map(|i| uniform(count, i) as f32).collect();
        let start = images.iter().enumerate().map(|(i, &x)| {
            let noise = uniform(count + 1, i) * 2.0 - 1.0;
            (f64::from(x) + epsilon * noise).clamp(0.0, 1.0) as f32
        });
        let start = Tensor { name: "start".into(), shape: shape.clone(), values: start.collect() };
        let state = tensors.into_iter().enumerate().map(|(number, (name, shape))| {
            let values = formula(name, number as u64, &shape);
            Tensor { name: name.into(), shape, values }
        });
        Inputs {
            state: state.collect(),
            images: Tensor { name: "images".into(), shape, values: images },
            start,
            labels: (0..batch).map(|i| (hash(count + 2, i) % 10) as u32).collect(),
        }
    }

    /// Shape and elements of a stored tensor.
    pub fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = self.file();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match tensor.dtype() {
            Dtype::F64 => {
                tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
            }
            Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                .collect(),
            Dtype::I64 => tensor
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect(),
            other => panic!("{name} is {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    /// Holds `got` (PyTorch's layout) against the tensor `name`, whether that is stored whole or as a digest.
    ///
    /// Element by element the difference may be `tolerance` times the largest magnitude of the reference; for a digest
    /// the projections, which every element enters, may differ by `tolerance` times its L2 norm.
    ///
    /// # Errors
    /// What differs most, and by how much.
    pub fn check(&self, name: &str, got: &[f64], tolerance: f64) -> Result<(), String> {
        // What is stored in f32 is known to half a unit in the last place.
        const ROUNDING: f64 = 6e-8;
        let compare = |i: usize, got: f64, want: f64, bound: f64| match (got - want).abs() <= bound {
            true => Ok(()),
            false => Err(format!("{name}[{i}] is {got}, the reference {want}, allowed difference {bound:e}")),
        };
        let digest = self.file().tensor(&format!("{name}#stats")).is_ok();
        if !digest {
            let (shape, want) = self.get(name);
            if got.len() != want.len() {
                return Err(format!("{name} has {} elements, the reference is {shape:?}", got.len()));
            }
            let largest = want.iter().fold(0f64, |m, x| m.max(x.abs()));
            let rounding =
                if self.file().tensor(name).unwrap().dtype() == Dtype::F32 { ROUNDING } else { 0.0 };
            return (0..want.len()).try_for_each(|i| {
                compare(i, got[i], want[i], tolerance * largest + rounding * want[i].abs())
            });
        }
        let (_, sample) = self.get(&format!("{name}#sample"));
        let (_, stats) = self.get(&format!("{name}#stats"));
        let (largest, norm) = (stats[0], stats[1]);
        for (j, &want) in sample.iter().enumerate() {
            let i = j * got.len() / sample.len();
            compare(i, got[i], want, tolerance * largest + ROUNDING * want.abs())?;
        }
        for k in 0..PROJECTIONS {
            let number = 1_000_000 + k;
            let projection: f64 =
                got.iter().enumerate().map(|(i, x)| (2.0 * uniform(number, i) - 1.0) * x).sum();
            let want = stats[2 + k as usize];
            let bound = (tolerance + 1e-12) * norm;
            if (projection - want).abs().is_nan() || (projection - want).abs() > bound {
                return Err(format!(
                    "{name}: projection {k} is {projection}, the reference {want}, allowed {bound:e}"
                ));
            }
        }
        Ok(())
    }
}

/// The reference executor and the CPU executor, each with what it may differ by from a reference number.
pub fn cpus(double: f64, single: f64) -> Vec<(Device, f64)> {
    vec![(Device::reference(), double), (Device::cpu(), single)]
}

/// Every GPU adapter there is, software Vulkan included, with what it may differ by. The tests of a binary share
/// them, and so the pipelines, which software Vulkan takes long to compile.
pub fn gpus(single: f64) -> Vec<(Device, f64)> {
    static OPENED: OnceLock<Vec<Device>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        let adapters = Device::adapters();
        adapters.iter().map(|a| Device::gpu(a).unwrap_or_else(|e| panic!("{a}: {e}"))).collect()
    });
    opened.iter().map(|device| (device.clone(), single)).collect()
}

/// Epsilon and step size of a model's five steps of PGD.
pub fn epsilon_and_step(model: &str) -> (f64, f64) {
    match model {
        "mlp" | "mnist-fast" | "mnist-madry" | "lenet5" | "small-cnn" => (0.3, 0.1),
        _ => (8.0 / 255.0, 2.0 / 255.0),
    }
}

/// `values` of extents `shape` with axes permuted: axis `i` of the result is axis `perm[i]`.
///
/// NCHW to NHWC is `[0, 2, 3, 1]`, OIHW to HWIO `[2, 3, 1, 0]`; back they are `[0, 3, 1, 2]` and `[3, 2, 0, 1]`.
pub fn permute<T: Copy>(values: &[T], shape: &[usize], perm: &[usize]) -> Vec<T> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let mut indices = vec![0];
    for &axis in perm {
        let steps = |base: usize| (0..shape[axis]).map(move |k| base + k * stride(axis));
        indices = indices.into_iter().flat_map(steps).collect();
    }
    indices.into_iter().map(|i| values[i]).collect()
}
