//! Every kernel as the plainest loop over the result's elements, in f64.

use crate::cases::Case;
use adamant::cpu::Data;
use adamant::launch::{ConvShape, Kernel, Operand, Place, PoolShape, Stage};
use adamant::tape::{Augment, Binary, Distribution, Reduction, Unary};
use adamant::{Stretch, philox};

fn floats(data: &Data<f64>) -> &[f64] {
    match data {
        Data::Float(x) => x,
        _ => panic!("not floats"),
    }
}

fn integers(data: &Data<f64>) -> &[u32] {
    match data {
        Data::U32(x) => x,
        _ => panic!("not integers"),
    }
}

/// The kernel, then each stage on each element.
pub fn run(case: &Case) -> Vec<f64> {
    if case.launch.kernel == Kernel::Update {
        return stages(case, case.previous.clone());
    }
    let inputs: Vec<&Data<f64>> = case.launch.inputs.iter().map(|&place| tensor(case, place)).collect();
    let before = |i: usize, x: f64| chain(case, case.launch.before(), i, x);
    stages(case, kernel(&case.launch.kernel, case.launch.shape.dims(), &inputs, &before))
}

/// Each stage on each element.
fn stages(case: &Case, mut values: Vec<f64>) -> Vec<f64> {
    for (i, v) in values.iter_mut().enumerate() {
        *v = chain(case, &case.launch.stages, i, *v);
    }
    values
}

/// Each of these stages on element `i`, which is `v`.
fn chain(case: &Case, stages: &[Stage], i: usize, mut v: f64) -> f64 {
    for stage in stages {
        v = match *stage {
            Stage::Unary(f) => unary(f, v),
            Stage::Binary { op, swapped, operand } => {
                let other = match operand {
                    Operand::Previous => case.previous[i],
                    Operand::Bits { place, .. } => {
                        f64::from(integers(tensor(case, place))[i / 32] >> (i % 32) & 1)
                    }
                    Operand::Buffer { place, stretch: Stretch { div, modulo } } => {
                        floats(tensor(case, place))[i / div % modulo]
                    }
                };
                if swapped { binary(op, other, v) } else { binary(op, v, other) }
            }
        };
    }
    v
}

fn tensor(case: &Case, place: Place) -> &Data<f64> {
    match place {
        Place::Tensor(i) => &case.tensors[i],
        Place::Slot(_) => panic!("cases read tensors"),
    }
}

pub fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Affine { scale, shift } => scale * x + shift,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Square => x * x,
        Unary::Abs => x.abs(),
        Unary::Sign if x == 0.0 => 0.0,
        Unary::Sign => x.signum(),
        Unary::Relu => x.max(0.0),
        Unary::LeakyRelu { slope } if x <= 0.0 => slope * x,
        Unary::LeakyRelu { .. } => x,
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Gelu => x * 0.5 * (1.0 + libm::erf(x / 2f64.sqrt())),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Erf => libm::erf(x),
        Unary::Clamp { lo, hi } => x.max(lo).min(hi),
    }
}

fn binary(f: Binary, x: f64, y: f64) -> f64 {
    let truth = |yes: bool| f64::from(u8::from(yes));
    match f {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::AddScaled { scale } => x + scale * y,
        Binary::Gate { .. } if y > 0.0 => x,
        Binary::Gate { slope } => slope * x,
        Binary::Greater => truth(x > y),
        Binary::GreaterEqual => truth(x >= y),
        Binary::Equal => truth(x == y),
    }
}

/// Input position of a window's tap along an axis, if it lies in the image.
fn tap(
    out: usize,
    tap: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    extent: usize,
) -> Option<usize> {
    let at = (out * stride + tap * dilation) as isize - padding as isize;
    (0..extent as isize).contains(&at).then_some(at as usize)
}

/// Calls `f(index in x, index in w, index in y)` for every product of a convolution.
fn each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let (cg, kg) = (s.c / s.groups, s.k / s.groups);
    for n in 0..s.n {
        for p in 0..s.p {
            for q in 0..s.q {
                for k in 0..s.k {
                    for r in 0..s.r {
                        for t in 0..s.s {
                            let y = tap(p, r, s.stride[0], s.padding[0], s.dilation[0], s.h);
                            let x = tap(q, t, s.stride[1], s.padding[1], s.dilation[1], s.w);
                            let (Some(y), Some(x)) = (y, x) else { continue };
                            for c in 0..cg {
                                f(
                                    ((n * s.h + y) * s.w + x) * s.c + k / kg * cg + c,
                                    ((r * s.s + t) * cg + c) * s.k + k,
                                    ((n * s.p + p) * s.q + q) * s.k + k,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Bits of a position in a window: the least power of two that numbers them all.
fn bits_of(s: &PoolShape) -> usize {
    let positions = s.window.kernel[0] * s.window.kernel[1];
    [1, 2, 4, 8, 16].into_iter().find(|bits| positions <= 1 << bits).unwrap_or(32)
}

/// The position packed for pooled element `o`.
fn position_of(s: &PoolShape, words: &[u32], o: usize) -> usize {
    let bits = bits_of(s);
    let word = u64::from(words[o / (32 / bits)]);
    (word / (1 << (bits * (o % (32 / bits)))) % (1 << bits)) as usize
}

/// Calls `f(index in y, window position, index in x)` for every position of every window inside the image.
fn each_position(s: &PoolShape, mut f: impl FnMut(usize, usize, usize)) {
    let w = s.window;
    for n in 0..s.n {
        for p in 0..s.p {
            for q in 0..s.q {
                for c in 0..s.c {
                    for r in 0..w.kernel[0] {
                        for t in 0..w.kernel[1] {
                            let y = tap(p, r, w.stride[0], w.padding[0], 1, s.h);
                            let x = tap(q, t, w.stride[1], w.padding[1], 1, s.w);
                            if let (Some(y), Some(x)) = (y, x) {
                                f(
                                    ((n * s.p + p) * s.q + q) * s.c + c,
                                    r * w.kernel[1] + t,
                                    ((n * s.h + y) * s.w + x) * s.c + c,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
    row.iter().map(|x| (x - max).exp() / sum).collect()
}

fn first_largest(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// The kernel's values before the stages; integers as floats. `before` is what a reduction does to element i of its
/// input.
fn kernel(
    kernel: &Kernel,
    shape: &[usize],
    inputs: &[&Data<f64>],
    before: &dyn Fn(usize, f64) -> f64,
) -> Vec<f64> {
    let len: usize = shape.iter().product();
    let mut out = vec![0.0; len];
    let x = |i: usize| floats(inputs[i]);
    match kernel {
        Kernel::Map { start } => (0..len).for_each(|i| out[i] = x(0)[i / start.div % start.modulo]),
        Kernel::Update => panic!("reads its output"),
        Kernel::Fill { value } => out.fill(*value),
        Kernel::Reduce { kind, outer, extent, inner, .. } => {
            for o in 0..*outer {
                for i in 0..*inner {
                    let terms = (0..*extent).map(|e| {
                        let at = (o * extent + e) * inner + i;
                        before(at, x(0)[at])
                    });
                    out[o * inner + i] = match kind {
                        Reduction::Sum => terms.sum(),
                        Reduction::Max => terms.fold(f64::NEG_INFINITY, f64::max),
                    };
                }
            }
        }
        Kernel::Mask { .. } => {
            for (w, word) in x(0).chunks(32).enumerate() {
                let bits = word.iter().enumerate().map(|(b, &x)| u32::from(x > 0.0) << b);
                out[w] = f64::from(bits.sum::<u32>());
            }
        }
        Kernel::ArgMax { columns, .. } => {
            for (out, row) in out.iter_mut().zip(x(0).chunks(*columns)) {
                *out = first_largest(row) as f64;
            }
        }
        Kernel::Copy { offset, strides, lo, hi } => {
            for (i, out) in out.iter_mut().enumerate() {
                let index: Vec<usize> = (0..shape.len())
                    .map(|axis| i / shape[axis + 1..].iter().product::<usize>() % shape[axis])
                    .collect();
                if (0..shape.len()).all(|axis| lo[axis] <= index[axis] && index[axis] < hi[axis]) {
                    let at: usize = (0..shape.len()).map(|axis| index[axis] * strides[axis]).sum();
                    *out = x(0)[(at as isize + offset) as usize];
                }
            }
        }
        Kernel::Concat { outer, columns } => {
            out.clear();
            for o in 0..*outer {
                for (i, &c) in columns.iter().enumerate() {
                    out.extend_from_slice(&x(i)[o * c..(o + 1) * c]);
                }
            }
        }
        &Kernel::MatMul { m, n, k, ta, tb } => {
            for i in 0..m {
                for j in 0..n {
                    for l in 0..k {
                        let a = x(0)[if ta { l * m + i } else { i * k + l }];
                        let b = x(1)[if tb { j * k + l } else { l * n + j }];
                        out[i * n + j] += a * b;
                    }
                }
            }
        }
        Kernel::Conv2d(s) => each_product(s, |i, j, o| out[o] += x(0)[i] * x(1)[j]),
        Kernel::Conv2dInputGrad(s) => each_product(s, |i, j, o| out[i] += x(0)[o] * x(1)[j]),
        Kernel::Conv2dWeightGrad(s) => each_product(s, |i, j, o| out[j] += x(0)[i] * x(1)[o]),
        Kernel::MaxPoolIndex(s) => {
            let mut best = vec![f64::NEG_INFINITY; s.n * s.p * s.q * s.c];
            let mut positions = vec![None; best.len()];
            each_position(s, |o, position, i| {
                if positions[o].is_none() || x(0)[i] > best[o] {
                    (best[o], positions[o]) = (x(0)[i], Some(position));
                }
            });
            let bits = bits_of(s);
            for (word, positions) in out.iter_mut().zip(positions.chunks(32 / bits)) {
                let digit = |position: &Option<usize>| position.unwrap() as f64;
                let shifted = |(k, position)| digit(position) * 2f64.powi((bits * k) as i32);
                *word = positions.iter().enumerate().map(shifted).sum();
            }
        }
        Kernel::PoolGather(s) => each_position(s, |o, position, i| {
            if position_of(s, integers(inputs[1]), o) == position {
                out[o] = x(0)[i];
            }
        }),
        Kernel::PoolScatter(s) => each_position(s, |o, position, i| {
            if position_of(s, integers(inputs[1]), o) == position {
                out[i] += x(0)[o];
            }
        }),
        Kernel::AvgPool(s) => {
            let size = (s.window.kernel[0] * s.window.kernel[1]) as f64;
            each_position(s, |o, _, i| out[o] += x(0)[i] / size);
        }
        Kernel::AvgPoolGrad(s) => {
            let size = (s.window.kernel[0] * s.window.kernel[1]) as f64;
            each_position(s, |o, _, i| out[i] += x(0)[o] / size);
        }
        &Kernel::Softmax { columns, log, .. } => {
            let f = |p: f64| if log { p.ln() } else { p };
            out = x(0).chunks(columns).flat_map(softmax).map(f).collect();
        }
        &Kernel::CrossEntropy { columns, .. } => {
            for (r, out) in out.iter_mut().enumerate() {
                let p = softmax(&x(0)[r * columns..(r + 1) * columns]);
                *out = -p[(integers(inputs[1])[r] as usize).min(columns - 1)].ln();
            }
        }
        kernel @ (&Kernel::CrossEntropyGrad { rows, columns }
        | &Kernel::CrossEntropyDirection { rows, columns }) => {
            for r in 0..rows {
                let p = softmax(&x(0)[r * columns..(r + 1) * columns]);
                let label = (integers(inputs[1])[r] as usize).min(columns - 1);
                let row = &mut out[r * columns..(r + 1) * columns];
                for c in 0..columns {
                    row[c] = p[c] - f64::from(u8::from(c == label));
                }
                let largest = |row: &[f64]| row.iter().fold(0.0, |best: f64, x| best.max(x.abs()));
                if matches!(kernel, Kernel::CrossEntropyDirection { .. }) && largest(row) > 0.0 {
                    while largest(row) < 0.5 {
                        row.iter_mut().for_each(|x| *x *= 2.0);
                    }
                }
            }
        }
        &Kernel::Correct { columns, .. } => {
            for (r, out) in out.iter_mut().enumerate() {
                let best = first_largest(&x(0)[r * columns..(r + 1) * columns]);
                *out = f64::from(u8::from(best == integers(inputs[1])[r] as usize));
            }
        }
        &Kernel::OneHot { rows, columns } => {
            for r in 0..rows {
                for c in 0..columns {
                    out[r * columns + c] = f64::from(u8::from(integers(inputs[0])[r] as usize == c));
                }
            }
        }
        &Kernel::GatherRows { rows, row, table, .. } => {
            for r in 0..rows {
                let from = (integers(inputs[1])[r] as usize).min(table - 1);
                for i in 0..row {
                    out[r * row + i] = match inputs[0] {
                        Data::Float(x) => x[from * row + i],
                        Data::U32(x) => f64::from(x[from * row + i]),
                        Data::U8(x) => f64::from(x[from * row + i]) / 255.0,
                    };
                }
            }
        }
        &Kernel::Augment { rows, table, image: [h, w, c], augment } => {
            let (bytes, index, uniform) = (inputs[0], integers(inputs[1]), floats(inputs[2]));
            let Data::U8(bytes) = bytes else { panic!("not bytes") };
            let p = augment.padding;
            // PyTorch's RandomCrop(padding) and RandomHorizontalFlip, on an image that is really padded.
            for r in 0..rows {
                let from = (index[r] as usize).min(table - 1) * h * w * c;
                let sixteen = |i: usize| (uniform[Augment::DRAWS * r + i] * 65536.0).floor();
                let factor = |i: usize, most: u32| {
                    let (one, most) = (f64::from(Augment::ONE), f64::from(most));
                    (one - most + (sixteen(i) * (2.0 * most + 1.0) / 65536.0).floor()) / one
                };
                let mut padded = vec![vec![vec![0.0; c]; w + 2 * p]; h + 2 * p];
                for (y, line) in padded.iter_mut().enumerate() {
                    for (x, pixel) in line.iter_mut().enumerate() {
                        let mirrored = |i: usize, extent: usize| match i {
                            i if i < p => p - i,
                            i if i >= p + extent => 2 * (extent - 1) - (i - p),
                            i => i - p,
                        };
                        let inside = (p..p + h).contains(&y) && (p..p + w).contains(&x);
                        if inside || augment.reflect {
                            let at = from + (mirrored(y, h) * w + mirrored(x, w)) * c;
                            for (value, byte) in pixel.iter_mut().zip(&bytes[at..at + c]) {
                                // Rounded to bytes after each, as PIL's images are.
                                let bright =
                                    (f64::from(*byte) * factor(5, augment.brightness)).clamp(0.0, 255.0);
                                let bright = (bright + 0.5).floor().min(255.0);
                                let far = (bright - 128.0) * factor(6, augment.contrast);
                                *value = (128.0 + (far + 0.5).floor()).clamp(0.0, 255.0) / 255.0;
                            }
                        }
                    }
                }
                let place = |i: usize| (sixteen(i) * (2 * p + 1) as f64 / 65536.0).floor() as usize;
                let (top, left) = (place(0), place(1));
                let flip = augment.flip && sixteen(2) >= 32768.0;
                for y in 0..h {
                    for x in 0..w {
                        let pixel = &padded[top + y][left + if flip { w - 1 - x } else { x }];
                        out[((r * h + y) * w + x) * c..][..c].copy_from_slice(pixel);
                    }
                }
                let hole = |i: usize, extent: usize| {
                    (sixteen(i) * (extent + 1 - augment.cutout) as f64 / 65536.0).floor() as usize
                };
                let (y0, x0) = (hole(3, h), hole(4, w));
                for y in y0..y0 + augment.cutout {
                    for x in x0..x0 + augment.cutout {
                        out[((r * h + y) * w + x) * c..][..c].fill(0.0);
                    }
                }
            }
        }
        &Kernel::Random { distribution, purpose, rows, row } => {
            let pair = |i: usize| [integers(inputs[i])[0], integers(inputs[i])[1]];
            let (key, counter) = (pair(0), pair(1));
            for r in 0..rows {
                let example = integers(inputs[2])[r];
                let u = |element: usize| {
                    let word = philox::word(key, purpose, counter, example, element as u32);
                    f64::from(word >> 8) / 16_777_216.0
                };
                for e in 0..row {
                    let first = e - e % 2;
                    out[r * row + e] = match distribution {
                        Distribution::Uniform => u(e),
                        Distribution::Normal => {
                            let radius = (-2.0 * (1.0 - u(first)).ln()).sqrt();
                            let angle = std::f64::consts::TAU * u(first + 1);
                            radius * if e % 2 == 0 { angle.cos() } else { angle.sin() }
                        }
                    };
                }
            }
        }
    }
    out
}
