//! What both benches measure with: medians, the devices there are, and what those can do at most.
//!
//! An own loop and not a framework: the benches need two ways timed in turn within one run (so that a drifting clock
//! or a busy neighbour hits both), and a time set against the device's measured ceiling.

// Each bench uses its part of this.
#![allow(dead_code)]

use adamant::gpu::{AdapterSummary, Gpu};
use adamant::report::Environment;
use adamant::{Device, Error, Result};
use std::time::{Duration, Instant};

/// The middle of some numbers.
pub fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Median seconds a call. `run(n)` calls n times in a row and waits. Once to warm up; then samples of at least 5 ms
/// each, 3 to 25 of them, for `budget` at most where 3 allow it.
pub fn median(budget: Duration, mut run: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    run(1)?;
    let calls = (5e-3 / seconds(|| run(1))?).ceil().clamp(1.0, 1000.0) as usize;
    let start = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || (samples.len() < 25 && start.elapsed() < budget) {
        samples.push(seconds(|| run(calls))? / calls as f64);
    }
    Ok(middle(samples))
}

/// Seconds that `run` takes.
pub fn seconds(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// A way of doing something; it says how many seconds it took.
pub type Way<'a> = Box<dyn Fn() -> Result<f64> + 'a>;

/// The middle of each way's samples, each asked once to warm up and then in turn `rounds` times.
pub fn in_turn(rounds: usize, ways: &[Way]) -> Result<Vec<f64>> {
    Ok(samples_in_turn(rounds, ways)?.into_iter().map(middle).collect())
}

/// As [`in_turn`], the means: what adds up. Disturbances only ever lengthen a sample, so that the middle of a sum lies above
/// the sum of the middles of its short parts, most of which met none.
pub fn means_in_turn(rounds: usize, ways: &[Way]) -> Result<Vec<f64>> {
    let mean = |samples: Vec<f64>| samples.iter().sum::<f64>() / samples.len() as f64;
    Ok(samples_in_turn(rounds, ways)?.into_iter().map(mean).collect())
}

fn samples_in_turn(rounds: usize, ways: &[Way]) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for (way, samples) in ways.iter().zip(&mut samples) {
            let seconds = way()?;
            if round > 0 {
                samples.push(seconds);
            }
        }
    }
    Ok(samples)
}

/// The filter of the command line: words, one of which must be part of a row's name; without words every row is.
pub struct Filter(Vec<String>);

impl Filter {
    /// What `cargo bench --bench NAME -- WORD ...` gives.
    pub fn from_arguments() -> Filter {
        Filter(std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect())
    }

    /// Whether a row of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }
}

/// A device to measure.
pub struct Subject {
    /// The device.
    pub device: Device,
    /// Its adapter, unless it is the CPU executor.
    pub adapter: Option<AdapterSummary>,
    /// A short name.
    pub name: String,
}

/// The CPU executor and every adapter.
pub fn subjects() -> Result<Vec<Subject>> {
    let mut subjects =
        vec![Subject { device: Device::cpu(), adapter: None, name: "CPU executor".to_string() }];
    for adapter in Device::adapters() {
        let (device, name) = (Device::gpu(&adapter)?, adapter.name.clone());
        subjects.push(Subject { device, adapter: Some(adapter), name });
    }
    Ok(subjects)
}

/// Prints the machine, and a warning when it is busy with something else.
pub fn print_machine(bench: &str) {
    let environment = Environment::capture("", Vec::new());
    println!("# {bench}\n");
    println!("- processor: {}, {} threads", environment.cpu, environment.threads);
    println!("- compiler: {}, {}", environment.rustc, environment.target);
    println!("- commit: {}", environment.commit.as_deref().unwrap_or("unknown"));
    println!("- date: {}", environment.started);
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    match load {
        Some(load) if load > 0.5 => {
            println!(
                "- **the machine was busy** when this began (load average {load}): trust ratios, not times"
            )
        }
        Some(load) => println!("- load average when this began: {load}"),
        None => {}
    }
}

/// What a device can do at most, as measured here and now.
pub struct Ceiling {
    /// Floating-point operations a second: fused multiply-adds on registers, two operations each, on all cores.
    pub flops: f64,
    /// Bytes a second: a copy of 64 MiB, read and written bytes counted.
    pub bytes: f64,
}

const COPIED: usize = 64 << 20;

impl Ceiling {
    /// Measures it: by a kernel each for an adapter, natively for the CPU.
    pub fn of(adapter: Option<&AdapterSummary>) -> Result<Ceiling> {
        match adapter {
            Some(adapter) => Ceiling::of_gpu(&Gpu::open(adapter)?),
            None => Ceiling::of_cpu(),
        }
    }

    fn of_cpu() -> Result<Ceiling> {
        let adds = || pulp::Arch::new().dispatch(MultiplyAdds { turns: 200_000 });
        let seconds = median(Duration::from_millis(300), |calls| {
            (0..calls).for_each(|_| {
                rayon::broadcast(|_| adds());
            });
            Ok(())
        })?;
        let flops = (adds() * rayon::current_num_threads()) as f64 / seconds;
        let (from, mut to) = (vec![1u8; COPIED], vec![0u8; COPIED]);
        let seconds = median(Duration::from_millis(300), |calls| {
            for _ in 0..calls {
                let chunk = COPIED.div_ceil(rayon::current_num_threads());
                rayon::scope(|scope| {
                    for (to, from) in to.chunks_mut(chunk).zip(from.chunks(chunk)) {
                        scope.spawn(|_| to.copy_from_slice(from));
                    }
                });
            }
            Ok(())
        })?;
        Ok(Ceiling { flops, bytes: 2.0 * COPIED as f64 / seconds })
    }

    fn of_gpu(gpu: &Gpu) -> Result<Ceiling> {
        const GROUPS: u32 = 4096;
        let out = gpu.allocate(4 * 64 * u64::from(GROUPS), "multiply-adds")?;
        // Eight independent chains, sixteen links a turn.
        let links: String = (0..128).map(|i| format!("        v{0} = fma(v{0}, a, b);\n", i % 8)).collect();
        let starts: String = (0..8).map(|i| format!("    var v{i} = f32(id.x) + {i}.0;\n")).collect();
        let text = |turns: u32| {
            format!(
                "@group(0) @binding(1) var<storage, read_write> out: array<f32>;\n\
                 @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
                 {starts}    let a = 0.999 - f32(id.y);\n    let b = 0.001 + f32(id.y);\n\
                     for (var i = 0u; i < {turns}u; i++) {{\n{links}    }}\n\
                 out[id.x] = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7;\n}}\n"
            )
        };
        // As many turns as take 10 ms.
        let mut turns = 4;
        let flops = loop {
            let pipeline = gpu.pipeline(&text(turns), "main", "multiply-adds")?;
            let dispatch = gpu.bind(&pipeline, &[(1, &out)], &[], [GROUPS, 1, 1])?;
            let seconds = median(Duration::from_millis(200), |calls| {
                gpu.submit(|pass| (0..calls).for_each(|_| pass.dispatch(&dispatch)))?;
                gpu.wait()
            })?;
            if seconds > 0.01 || turns > 1 << 20 {
                break f64::from(turns) * 256.0 * 64.0 * f64::from(GROUPS) / seconds;
            }
            turns *= 4;
        };
        let (from, to) = (gpu.allocate(COPIED as u64, "from")?, gpu.allocate(COPIED as u64, "to")?);
        let pipeline = gpu.pipeline(
            "@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;\n\
             @group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;\n\
             @compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n\
                 y[id.x] = x[id.x];\n}\n",
            "main",
            "copy",
        )?;
        let groups = (COPIED / 16 / 256) as u32;
        let dispatch = gpu.bind(&pipeline, &[(1, &from), (2, &to)], &[], [groups, 1, 1])?;
        let seconds = median(Duration::from_millis(300), |calls| {
            gpu.submit(|pass| (0..calls).for_each(|_| pass.dispatch(&dispatch)))?;
            gpu.wait()
        })?;
        Ok(Ceiling { flops, bytes: 2.0 * COPIED as f64 / seconds })
    }
}

/// Fused multiply-adds on registers, enough chains to hide their latency. Gives the operations done.
struct MultiplyAdds {
    turns: usize,
}

impl pulp::WithSimd for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) -> usize {
        const CHAINS: usize = 12;
        // What the compiler can neither foresee nor find equal.
        let [a, b] = std::hint::black_box([0.999, 0.001]).map(|x| simd.splat_f32s(x));
        let mut v = std::hint::black_box([1.0; CHAINS]).map(|x| simd.splat_f32s(x));
        for _ in 0..self.turns {
            for x in &mut v {
                *x = simd.mul_add_e_f32s(*x, a, b);
            }
        }
        std::hint::black_box(v.map(|x| simd.reduce_sum_f32s(x)));
        2 * self.turns * CHAINS * S::F32_LANES
    }
}

/// The end of a bench's main: an error in words.
pub fn report(outcome: Result<()>) -> std::process::ExitCode {
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> std::process::ExitCode {
    eprintln!("error: {error}");
    std::process::ExitCode::FAILURE
}
