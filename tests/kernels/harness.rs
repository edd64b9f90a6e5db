//! Runs launches on every adapter of the machine and holds them against the f64 executor.
//!
//! The convention of a test's launch: inputs and operands are `Place::Tensor(i)`, the output is `Place::Slot(0)`.

use adamant::cpu::{self, Data, Executor, Workspace};
use adamant::gpu::{Gpu, Options, adapters};
use adamant::kernels::{Calls, Compiled, Target, calls};
use adamant::launch::{Kernel, Launch, Operand, Place, Stage};
use adamant::tape::{Binary, Unary};
use adamant::{DType, Shape, Stretch};
use half::f16;
use std::sync::{Arc, OnceLock, RwLock};

/// Contents of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    Float(Vec<f32>),
    /// The bits of f16.
    Half(Vec<u16>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

impl Host {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Host::Float(x) => bytemuck::cast_slice(x),
            Host::Half(x) => bytemuck::cast_slice(x),
            Host::U32(x) => bytemuck::cast_slice(x),
            Host::U8(x) => x,
        }
    }

    /// Floats rounded to f16.
    pub fn halved(&self) -> Host {
        match self {
            Host::Float(x) => Host::Half(x.iter().map(|&x| f16::from_f32(x).to_bits()).collect()),
            other => other.clone(),
        }
    }

    /// The same type with other contents.
    fn like(&self, bytes: &[u8]) -> Host {
        match self {
            Host::Float(_) => Host::Float(bytemuck::pod_collect_to_vec(bytes)),
            Host::Half(x) => Host::Half(bytemuck::pod_collect_to_vec(&bytes[..2 * x.len()])),
            Host::U32(_) => Host::U32(bytemuck::pod_collect_to_vec(bytes)),
            Host::U8(_) => Host::U8(bytes.to_vec()),
        }
    }

    fn to_reference(&self) -> cpu::Buffer<f64> {
        Arc::new(RwLock::new(match self {
            Host::Float(x) => Data::Float(x.iter().map(|&x| f64::from(x)).collect()),
            Host::Half(x) => Data::Float(x.iter().map(|&x| f64::from(f16::from_bits(x))).collect()),
            Host::U32(x) => Data::U32(x.clone()),
            Host::U8(x) => Data::U8(x.clone()),
        }))
    }
}

/// Numbers for tests, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// Floats in [-2, 2), a few of them exactly 0, most with few bits so that equal ones occur.
    pub fn floats(&mut self, len: usize) -> Host {
        Host::Float((0..len).map(|_| (self.word() >> 20) as f32 / 1024.0 - 2.0).collect())
    }

    /// Floats in [0.25, 4.25).
    pub fn positive(&mut self, len: usize) -> Host {
        Host::Float((0..len).map(|_| (self.word() >> 20) as f32 / 1024.0 + 0.25).collect())
    }

    /// Integers below `bound`.
    pub fn below(&mut self, len: usize, bound: u32) -> Host {
        Host::U32((0..len).map(|_| self.word() % bound).collect())
    }

    pub fn bytes(&mut self, len: usize) -> Host {
        Host::U8((0..len).map(|_| self.word() as u8).collect())
    }
}

/// A way to run launches.
pub struct Way {
    pub gpu: Gpu,
    pub target: Target,
    pub name: String,
}

/// Every adapter of this machine, opened once: as it is used, and, for software adapters, with the kernels a hardware
/// GPU would get and parameters in uniforms.
pub fn ways() -> &'static [Way] {
    static WAYS: OnceLock<Vec<Way>> = OnceLock::new();
    WAYS.get_or_init(|| {
        let found = adapters();
        assert!(
            !found.is_empty(),
            "there is no GPU adapter to test kernels on. A software one will do: on Debian and Ubuntu install \
             mesa-vulkan-drivers, on Fedora mesa-vulkan-drivers, on Arch vulkan-swrast; Windows brings one along"
        );
        let mut ways = Vec::new();
        for summary in &found {
            println!("{summary:#}");
            let gpu = Gpu::open(summary).unwrap();
            let target = Target::of(&gpu);
            ways.push(Way { gpu, target, name: summary.name.clone() });
            let options = Options { bake: Some(!summary.is_software()), checked: true };
            let gpu = Gpu::open_with(summary, options).unwrap();
            let target = Target { software: false, ..Target::of(&gpu) };
            ways.push(Way { gpu, target, name: format!("{}, other form", summary.name) });
        }
        ways
    })
}

/// What `launch` leaves in the output when it held `before`.
pub fn run(way: &Way, launch: &Launch, tensors: &[Host], before: &Host) -> Host {
    let calls = calls(launch, &way.target).unwrap_or_else(|error| panic!("{launch}: {error}"));
    run_calls(way, launch, calls, tensors, before)
}

/// As [`run`], by the calls of one of the launch's variants.
pub fn run_calls(way: &Way, launch: &Launch, calls: Calls, tensors: &[Host], before: &Host) -> Host {
    run_slots(way, launch, calls, tensors, std::slice::from_ref(before)).remove(0)
}

/// As [`run_calls`], what the launch leaves in each slot.
pub fn run_slots(way: &Way, launch: &Launch, calls: Calls, tensors: &[Host], before: &[Host]) -> Vec<Host> {
    let upload = |host: &Host| {
        let buffer = way.gpu.allocate(host.bytes().len() as u64, "test tensor").unwrap();
        way.gpu.write(&buffer, host.bytes()).unwrap();
        buffer
    };
    let slots: Vec<_> = before.iter().map(upload).collect();
    let tensors: Vec<_> = tensors.iter().map(upload).collect();
    let launches = std::slice::from_ref(launch);
    let compiled = Compiled::with_calls(&way.gpu, launches, &[calls], 0, &slots, &tensors)
        .unwrap_or_else(|error| panic!("{launch}: {error}"));
    way.gpu.submit(|pass| compiled.encode(pass)).unwrap();
    let left = way.gpu.read(&slots.iter().collect::<Vec<_>>()).unwrap();
    before.iter().zip(&left).map(|(before, bytes)| before.like(bytes)).collect()
}

/// What the f64 executor makes of it.
pub fn reference(launch: &Launch, tensors: &[Host], before: &Host) -> Data<f64> {
    let slot = before.to_reference();
    let tensors = tensors.iter().map(Host::to_reference).collect();
    Executor::<f64>::new(vec![launch.clone()], 0, vec![slot.clone()], tensors, Workspace::default()).run();
    slot.read().unwrap().clone()
}

/// A launch without stages.
pub fn plain(kernel: Kernel, inputs: usize, shape: &[usize], dtype: DType) -> Launch {
    Launch {
        kernel,
        inputs: (0..inputs).map(Place::Tensor).collect(),
        stages: Vec::new(),
        output: Place::Slot(0),
        also: Vec::new(),
        shape: Shape::new(shape),
        dtype,
        halves: Vec::new(),
    }
}

/// The launch with a chain of stages that reads two operands, appended to `tensors`, and the old output.
pub fn with_stages(mut launch: Launch, tensors: &mut Vec<Host>) -> Launch {
    let len = launch.shape.len();
    let mut numbers = Numbers::new(len as u64);
    let last = launch.shape.dims().last().copied().unwrap_or(1);
    let operand = |i: usize, div: usize, modulo: usize| Operand::Buffer {
        place: Place::Tensor(i),
        stretch: Stretch { div, modulo },
    };
    let channel = operand(tensors.len(), 1, last);
    let full = operand(tensors.len() + 1, 1, len);
    tensors.push(numbers.positive(last));
    tensors.push(numbers.floats(len));
    let binary = |op: Binary, operand: Operand| Stage::Binary { op, swapped: false, operand };
    launch.stages = vec![
        binary(Binary::Mul, channel),
        binary(Binary::Add, full),
        binary(Binary::AddScaled { scale: -0.25 }, Operand::Previous),
        Stage::Unary(Unary::LeakyRelu { slope: 0.125 }),
        Stage::Binary { op: Binary::Sub, swapped: true, operand: channel },
    ];
    launch
}

/// Holds every way's result against the f64 executor: floats within `tolerance * max(1, |expected|)`, integers exactly.
/// Kernels that take stages are checked without and with a chain of them.
#[track_caller]
pub fn check(launch: &Launch, tensors: &[Host], tolerance: f64) {
    check_once(launch, tensors, tolerance);
    if launch.stages.is_empty() && launch.kernel.takes_stages() && launch.dtype == DType::F32 {
        let mut tensors = tensors.to_vec();
        check_once(&with_stages(launch.clone(), &mut tensors), &tensors, tolerance * 8.0);
    }
}

#[track_caller]
fn check_once(launch: &Launch, tensors: &[Host], tolerance: f64) {
    let len = launch.shape.len();
    let before = match launch.dtype {
        DType::U32 => Host::U32(vec![7; len]),
        _ => Numbers::new(77).floats(len),
    };
    let want = reference(launch, tensors, &before);
    for way in ways() {
        let got = run(way, launch, tensors, &before);
        let at = || format!("{launch}: {:?} -> {} on {}", launch.kernel, launch.shape, way.name);
        match (&got, &want) {
            (Host::Float(got), Data::Float(want)) => {
                for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                    let close = (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0);
                    assert!(close || f64::from(got) == want, "{}: [{i}] is {got}, not {want}", at());
                }
            }
            (Host::U32(got), Data::U32(want)) => {
                let wrong = got.iter().zip(want).position(|(got, want)| got != want);
                assert!(wrong.is_none(), "{}: {wrong:?} differs", at());
            }
            _ => panic!("{}: the types differ", at()),
        }
    }
}
