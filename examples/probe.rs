use adamant::gpu::{Gpu, Options, adapters};
use adamant::kernels::{Compiled, Target, variants};
use adamant::launch::*;
use adamant::tape::{Binary, Conv2d, Unary};
use adamant::{DType, Shape, Stretch};
use std::time::Instant;

fn cpu_ns() -> u64 {
    let mut sum = 0;
    for t in std::fs::read_dir("/proc/self/task").unwrap() {
        if let Ok(s) = std::fs::read_to_string(t.unwrap().path().join("schedstat")) {
            sum += s.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

fn plain(kernel: Kernel, inputs: usize, shape: &[usize]) -> Launch {
    Launch {
        kernel,
        inputs: (0..inputs).map(Place::Tensor).collect(),
        stages: vec![],
        output: Place::Slot(0),
        shape: Shape::new(shape),
        dtype: DType::F32,
        halves: Vec::new(),
    }
}

fn conv(
    cases: &mut Vec<(String, Launch, Vec<usize>)>,
    n: usize,
    side: usize,
    c: usize,
    size: usize,
    k: usize,
    stride: usize,
    pad: usize,
) {
    let a = Conv2d { stride: [stride; 2], padding: [pad; 2], ..Conv2d::default() };
    let [p, q] = a.output([side, side], [size, size]).unwrap();
    let z = ConvShape {
        n,
        h: side,
        w: side,
        c,
        r: size,
        s: size,
        p,
        q,
        k,
        stride: [stride; 2],
        padding: [pad; 2],
        dilation: [1, 1],
        groups: 1,
    };
    let (x, w, y) = (n * side * side * c, size * size * c * k, n * p * q * k);
    let name = |d: &str| format!("{d} {size}x{size} s{stride} {c}->{k} at {side}, b{n}");
    cases.push((name("fwd"), plain(Kernel::Conv2d(z), 2, &[n, p, q, k]), vec![x, w]));
    cases.push((name("igrad"), plain(Kernel::Conv2dInputGrad(z), 2, &[n, side, side, c]), vec![y, w]));
    cases.push((name("wgrad"), plain(Kernel::Conv2dWeightGrad(z), 2, &[size, size, c, k]), vec![x, y]));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let hardware = args.iter().any(|a| a == "--hw");
    let words: Vec<&String> = args.iter().filter(|a| !a.starts_with("--")).collect();
    let mut cases = vec![];
    conv(&mut cases, 64, 28, 1, 4, 16, 2, 1);
    conv(&mut cases, 64, 14, 16, 4, 32, 2, 1);
    conv(&mut cases, 64, 28, 1, 5, 32, 1, 2);
    conv(&mut cases, 128, 28, 1, 3, 32, 1, 1);
    conv(&mut cases, 128, 28, 32, 3, 64, 2, 1);
    conv(&mut cases, 128, 14, 64, 3, 64, 2, 1);
    conv(&mut cases, 32, 32, 3, 3, 64, 1, 1);
    for (side, c) in [(32, 64), (16, 128), (8, 256), (4, 512)] {
        conv(&mut cases, 32, side, c, 3, c, 1, 1);
    }
    for (m, n, k) in [(128, 128, 3136), (128, 3136, 128), (512, 512, 512), (1024, 1024, 1024)] {
        cases.push((
            format!("matmul {m}x{n}x{k}"),
            plain(Kernel::MatMul { m, n, k, ta: false, tb: false }, 2, &[m, n]),
            vec![m * k, k * n],
        ));
    }
    let len = 1 << 24;
    let mut l = plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len]);
    l.stages = vec![
        Stage::Binary {
            op: Binary::Add,
            swapped: false,
            operand: Operand::Buffer { place: Place::Tensor(1), stretch: Stretch { div: 1, modulo: len } },
        },
        Stage::Unary(Unary::Relu),
    ];
    cases.push(("map relu(x+y)".into(), l.clone(), vec![len, len]));
    l.stages.pop();
    l.stages.pop();
    cases.push(("map copy".into(), l, vec![len]));
    let odd = (1usize << 20) - 1;
    cases.push((
        "map odd".into(),
        plain(Kernel::Map { start: Stretch { div: 1, modulo: odd } }, 1, &[odd]),
        vec![odd],
    ));
    for len in [1usize << 12, 1 << 14, 1 << 16, 1 << 18] {
        cases.push((
            format!("map len {len}"),
            plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len]),
            vec![len],
        ));
    }
    let red = |outer, extent, inner| Kernel::Reduce {
        kind: adamant::tape::Reduction::Sum,
        outer,
        extent,
        inner,
        before: vec![],
    };
    cases.push(("reduce all".into(), plain(red(1, len, 1), 1, &[1]), vec![len]));
    cases.push(("reduce rows".into(), plain(red(1, len / 64, 64), 1, &[64]), vec![len]));
    cases.push(("reduce columns".into(), plain(red(len / 64, 64, 1), 1, &[len / 64]), vec![len]));
    let summary = adapters().into_iter().find(|a| a.is_software()).unwrap();
    let gpu =
        Gpu::open_with(&summary, Options { checked: false, bake: if hardware { Some(false) } else { None } })
            .unwrap();
    let mut target = Target::of(&gpu);
    if hardware {
        target.software = false;
    }
    for (name, launch, lens) in cases {
        if !words.is_empty() && !words.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        let bytes: u64 = 4 * (lens.iter().sum::<usize>() + launch.shape.len()) as u64;
        let tensors: Vec<_> = lens
            .iter()
            .map(|&n| {
                let b = gpu.allocate(4 * n as u64, "t").unwrap();
                let v: Vec<f32> = (0..n).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
                gpu.write(&b, bytemuck::cast_slice(&v)).unwrap();
                b
            })
            .collect();
        let slots = [gpu.allocate(4 * launch.shape.len() as u64, "o").unwrap()];
        let all = variants(&launch, &target).unwrap();
        for mut variant in all {
            if let Ok(v) = std::env::var("SET") {
                for kv in v.split(',') {
                    let (k, v) = kv.split_once('=').unwrap();
                    let v: u32 = v.parse().unwrap();
                    let call = &mut variant.calls.list[0];
                    if k == "GRID" {
                        call.grid = target.grid(v as usize);
                        continue;
                    }
                    let k: &'static str = k.to_string().leak();
                    match call.constants.iter_mut().find(|(n, _)| *n == k) {
                        Some(c) => c.1 = v,
                        None => call.constants.push((k, v)),
                    }
                }
            }
            let start = Instant::now();
            let compiled =
                Compiled::with_calls(&gpu, &[launch.clone()], &[variant.calls.clone()], 0, &slots, &tensors)
                    .unwrap();
            gpu.submit(|p| compiled.encode(p)).unwrap();
            gpu.wait().unwrap();
            let first = start.elapsed().as_secs_f64();
            let mut best = (f64::MAX, f64::MAX);
            let t = Instant::now();
            gpu.submit(|p| compiled.encode(p)).unwrap();
            gpu.wait().unwrap();
            let per = (0.03 / t.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
            for _ in 0..7 {
                let (c, t) = (cpu_ns(), Instant::now());
                gpu.submit(|p| (0..per).for_each(|_| compiled.encode(p))).unwrap();
                gpu.wait().unwrap();
                best.0 = f64::min(best.0, (cpu_ns() - c) as f64 * 1e-9 / per as f64);
                best.1 = f64::min(best.1, t.elapsed().as_secs_f64() / per as f64);
            }
            let f = launch.kernel.flops() as f64;
            println!(
                "{name:32} {:28} cpu/2 {:8.3} ms wall {:8.3} ms  {:6.1} | {:6.1} GFLOP/s {:5.1} GB/s  first {first:.2} s ({} calls, grid {:?})",
                variant.name,
                best.0 * 5e2,
                best.1 * 1e3,
                f / best.0 * 2e-9,
                f / best.1 * 1e-9,
                bytes as f64 / best.1 * 1e-9,
                variant.calls.list.len(),
                variant.calls.list[0].grid
            );
        }
    }
}
