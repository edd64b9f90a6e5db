//! Convolutions and both gradients, every family.

use crate::products::{check, check_variants, launch, noise};
use adamant::launch::{ConvShape, Kernel, Launch, Operand, Place, Stage};
use adamant::tape::{Binary, Conv2d, Unary};
use adamant::{Shape, Stretch};

/// `[n, h, w, c]` by a filter of `r` x `s` to `k` channels.
pub fn shape(input: [usize; 4], filter: [usize; 2], k: usize, attributes: Conv2d) -> ConvShape {
    let [n, h, w, c] = input;
    let [p, q] = attributes.output([h, w], filter).unwrap();
    let Conv2d { stride, padding, dilation, groups } = attributes;
    let [r, s] = filter;
    ConvShape { n, h, w, c, r, s, p, q, k, stride, padding, dilation, groups }
}

fn attributes(stride: usize, padding: usize, dilation: usize, groups: usize) -> Conv2d {
    Conv2d { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups }
}

/// The three launches of a convolution, each with its depth.
pub fn launches(z: ConvShape) -> [(Launch, usize); 3] {
    let cg = z.c / z.groups;
    [
        (launch(Kernel::Conv2d(z), &[z.n, z.p, z.q, z.k]), z.r * z.s * cg),
        (launch(Kernel::Conv2dInputGrad(z), &[z.n, z.h, z.w, z.c]), z.r * z.s * (z.k / z.groups)),
        (launch(Kernel::Conv2dWeightGrad(z), &[z.r, z.s, cg, z.k]), z.n * z.p * z.q),
    ]
}

pub fn tensors(z: ConvShape) -> [Vec<f32>; 3] {
    let x = noise(1, z.n * z.h * z.w * z.c);
    let w = noise(2, z.r * z.s * (z.c / z.groups) * z.k);
    let dy = noise(3, z.n * z.p * z.q * z.k);
    [x, w, dy]
}

fn check_all(z: ConvShape) {
    let [x, w, dy] = tensors(z);
    let [forward, input_grad, weight_grad] = launches(z);
    check(&forward.0, forward.1, &[x.clone(), w.clone()]);
    check(&input_grad.0, input_grad.1, &[dy.clone(), w]);
    check(&weight_grad.0, weight_grad.1, &[x, dy]);
}

#[test]
fn strides_paddings_and_dilations() {
    check_all(shape([1, 1, 1, 1], [1, 1], 1, Conv2d::default()));
    check_all(shape([2, 7, 5, 9], [3, 3], 11, attributes(1, 1, 1, 1)));
    check_all(shape([1, 8, 8, 12], [3, 3], 16, attributes(1, 0, 1, 1)));
    check_all(shape([2, 9, 8, 16], [3, 3], 12, attributes(2, 1, 1, 1)));
    check_all(shape([3, 11, 7, 10], [5, 3], 9, attributes(3, 2, 1, 1)));
    check_all(shape([2, 10, 11, 12], [3, 2], 20, attributes(1, 2, 2, 1)));
    check_all(shape([1, 13, 12, 12], [3, 3], 8, attributes(2, 2, 2, 1)));
    let odd = Conv2d { stride: [4, 3], padding: [2, 1], dilation: [2, 1], groups: 1 };
    check_all(shape([2, 15, 9, 12], [2, 3], 13, odd));
    // A stride that leaves phases of the input without a tap.
    check_all(shape([2, 9, 9, 12], [1, 1], 8, attributes(2, 0, 1, 1)));
    check_all(shape([2, 14, 14, 12], [2, 2], 8, attributes(3, 0, 1, 1)));
}

#[test]
fn channels_around_the_tiles() {
    for (c, k) in [(31, 63), (32, 64), (33, 65), (64, 128), (4, 10)] {
        check_all(shape([1, 6, 5, c], [3, 3], k, attributes(1, 1, 1, 1)));
    }
}

#[test]
fn first_layers() {
    check_all(shape([3, 12, 12, 1], [5, 5], 8, attributes(1, 2, 1, 1)));
    check_all(shape([2, 9, 9, 3], [3, 3], 24, attributes(1, 1, 1, 1)));
    check_all(shape([2, 13, 12, 3], [7, 7], 16, attributes(2, 3, 1, 1)));
    check_all(shape([2, 9, 9, 4], [4, 4], 6, attributes(2, 1, 1, 1)));
    // Channels in fours: some pixels an invocation.
    check_all(shape([3, 28, 27, 1], [3, 3], 32, attributes(1, 1, 1, 1)));
    check_all(shape([2, 5, 19, 2], [3, 5], 12, attributes(1, 0, 1, 1)));
    check_all(shape([2, 19, 18, 3], [4, 4], 20, attributes(2, 1, 1, 1)));
    check_all(shape([1, 33, 35, 3], [7, 7], 8, attributes(2, 3, 1, 1)));
    check_all(shape([2, 11, 9, 4], [2, 3], 4, attributes(3, 1, 1, 1)));
    check_all(shape([1, 17, 16, 1], [1, 1], 8, attributes(1, 0, 1, 1)));
    let uneven = Conv2d { stride: [1, 2], padding: [2, 0], dilation: [1, 1], groups: 1 };
    check_all(shape([2, 9, 21, 2], [3, 4], 8, uneven));
}

#[test]
fn groups_down_to_depthwise() {
    check_all(shape([2, 7, 6, 8], [3, 3], 8, attributes(1, 1, 1, 8)));
    check_all(shape([2, 9, 7, 6], [3, 3], 12, attributes(2, 1, 1, 6)));
    check_all(shape([1, 9, 7, 12], [3, 3], 10, attributes(2, 2, 2, 2)));
    check_all(shape([2, 6, 6, 32], [3, 3], 32, attributes(1, 1, 1, 2)));
    check_all(shape([2, 6, 6, 12], [3, 2], 24, attributes(3, 1, 1, 3)));
}

#[test]
fn long_sums_are_shared() {
    check_all(shape([1, 5, 4, 132], [3, 3], 140, attributes(2, 1, 1, 1)));
    // Dilation and stride with a common divisor: one phase has every tap, the others none.
    check_all(shape([1, 9, 9, 140], [3, 3], 132, attributes(2, 2, 2, 1)));
    check_all(shape([1, 4, 4, 260], [3, 3], 262, attributes(1, 1, 1, 2)));
    check_all(shape([5, 26, 26, 3], [3, 3], 9, attributes(1, 1, 1, 1)));
    check_all(shape([4, 33, 31, 6], [3, 3], 6, attributes(1, 1, 1, 6)));
}

#[test]
fn tiles_of_four_by_four() {
    let padded = |padding: [usize; 2]| Conv2d { padding, ..Conv2d::default() };
    // Edges in every place of a tile, images smaller than one, and (the last) a batch in two parts.
    for z in [
        shape([2, 7, 6, 8], [3, 3], 12, padded([1, 1])),
        shape([1, 3, 9, 4], [3, 3], 36, padded([0, 2])),
        shape([3, 1, 1, 20], [3, 3], 4, padded([1, 2])),
        shape([1, 12, 14, 64], [3, 3], 68, padded([2, 0])),
        shape([5, 4, 4, 132], [3, 3], 128, padded([1, 1])),
        shape([3, 64, 64, 320], [3, 3], 4, padded([1, 1])),
    ] {
        let [x, w, dy] = tensors(z);
        let [forward, input_grad, _] = launches(z);
        let large = z.n * z.h * z.w * z.c > 1 << 20;
        for ((launch, depth), inputs) in [(forward, [&x, &w]), (input_grad, [&dy, &w])] {
            let inputs = inputs.map(Vec::clone);
            check_variants(&launch, depth, &inputs, |_, name, _| {
                name.starts_with("Winograd") && !(large && name.contains("32x32"))
            });
        }
    }
}

#[test]
fn stages_end_convolutions() {
    for z in [
        shape([1, 7, 9, 32], [3, 3], 36, attributes(1, 1, 1, 1)),
        shape([2, 7, 6, 12], [3, 3], 18, attributes(2, 1, 1, 1)),
        shape([4, 20, 19, 3], [3, 3], 7, attributes(1, 1, 1, 1)),
        shape([2, 10, 9, 3], [3, 3], 8, attributes(1, 1, 1, 1)),
        shape([2, 17, 19, 6], [3, 3], 6, attributes(1, 1, 1, 6)),
    ] {
        let [x, w, dy] = tensors(z);
        for ((mut launch, depth), inputs) in launches(z).into_iter().zip([[&x, &w], [&dy, &w], [&x, &dy]]) {
            let channels = launch.shape[3];
            let between = |from: &Shape| Stretch::between(from, &launch.shape).unwrap();
            let bias =
                Operand::Buffer { place: Place::Tensor(2), stretch: between(&Shape::new(&[channels])) };
            let gate = Operand::Buffer { place: Place::Tensor(3), stretch: between(&launch.shape) };
            launch.stages = vec![
                Stage::Binary { op: Binary::Gate { slope: 0.0 }, swapped: false, operand: gate },
                Stage::Binary { op: Binary::Add, swapped: true, operand: bias },
                Stage::Unary(Unary::Relu),
                Stage::Binary { op: Binary::Sub, swapped: true, operand: Operand::Previous },
            ];
            let all =
                [inputs[0].clone(), inputs[1].clone(), noise(4, channels), noise(5, launch.shape.len())];
            check(&launch, depth, &all);
        }
    }
}
