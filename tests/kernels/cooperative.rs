//! Products by cooperative matrices: as text everywhere, and run where an adapter offers them.

use crate::conv2d::{launches, shape, tensors};
use crate::harness::{Host, reference, run_calls, ways, with_stages};
use crate::products::{launch, noise};
use adamant::cpu::Data;
use adamant::kernels::{calls, shaders, variants};
use adamant::launch::{Kernel, Launch, Place};
use adamant::tape::Conv2d;

#[test]
fn texts_for_both_sizes_become_spirv() {
    let cooperative = shaders().into_iter().filter(|shader| shader.path.ends_with("_cooperative.wgsl"));
    for (shader, size) in cooperative.flat_map(|shader| [(shader, 16), (shader, 8)]) {
        let text = shader.plain().unwrap().replace("coop_mat16x16", &format!("coop_mat{size}x{size}"));
        let text = text.replace("const SIZE = 16u;", &format!("const SIZE = {size}u;"));
        let module =
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        let (flags, all) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        let info = naga::valid::Validator::new(flags, all).validate(&module).unwrap();
        let words = naga::back::spv::write_vec(&module, &info, &Default::default(), None).unwrap();
        // Operation codes stand in the low half of the first word of an instruction.
        let mut at = 5;
        let mut operations = Vec::new();
        while at < words.len() {
            operations.push(words[at] & 0xffff);
            at += (words[at] >> 16) as usize;
        }
        // OpCooperativeMatrixLoadKHR, StoreKHR and MulAddKHR.
        let count = |code: u32| operations.iter().filter(|&&operation| operation == code).count();
        assert_eq!([4457, 4458, 4459].map(count), [4, 4, 4], "{} of size {size}", shader.path);
    }
}

/// Holds a product whose operands hold f16, both or the first alone, against the f64 executor by every variant with
/// cooperative matrices; how many there were. The products of two f16 are exact in f32, and only their sum errs.
fn check(launch: &Launch, depth: usize, inputs: [&[f32]; 2], both: bool) -> usize {
    let halved = inputs.map(|x| Host::Float(x.to_vec()).halved());
    let widened = halved.clone().map(|host| {
        let Host::Half(bits) = host else { unreachable!() };
        Host::Float(bits.into_iter().map(|x| half::f16::from_bits(x).to_f32()).collect())
    });
    let [first, second] = halved;
    // An operand in f32 of values that f16 holds: rounding it changes nothing.
    let second = if both { second } else { widened[1].clone() };
    let places = [Place::Tensor(0), Place::Tensor(1)];
    let launch = Launch { halves: places[..1 + usize::from(both)].to_vec(), ..launch.clone() };
    let before = Host::Float(noise(99, launch.shape.len()));
    let mut run = 0;
    let mut plain = vec![first, second];
    let mut wide = widened.to_vec();
    for launch in [launch.clone(), with_stages(launch, &mut plain)] {
        wide.extend(plain[wide.len()..].iter().cloned());
        let Data::Float(want) = reference(&launch, &wide, &before) else { unreachable!() };
        for way in ways().iter().filter(|way| !way.target.software && way.target.cooperative.is_some()) {
            let all = variants(&launch, &way.target).unwrap();
            for variant in all.into_iter().filter(|variant| variant.name.starts_with("cooperative")) {
                let name = variant.name.clone();
                let Host::Float(got) = run_calls(way, &launch, variant.calls, &plain, &before) else {
                    unreachable!()
                };
                for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
                    let error = (f64::from(got) - want).abs();
                    let bound =
                        (4.0 + depth as f64) * 2f64.powi(-24) * (depth as f64).sqrt() + 1e-6 * want.abs();
                    let bound = if launch.stages.is_empty() { bound } else { 8.0 * bound + 1e-5 };
                    assert!(error <= bound, "{launch} ({name}) on {}: [{i}] is {got}, not {want}", way.name);
                }
                run += 1;
            }
        }
    }
    run
}

#[test]
fn products_are_right_where_an_adapter_has_them() {
    let mut run = 0;
    for (m, n, k) in [(65, 130, 33), (128, 64, 64), (31, 20, 300), (64, 70, 8)] {
        let product = launch(Kernel::MatMul { m, n, k, ta: false, tb: true }, &[m, n]);
        run += check(&product, k, [&noise(1, m * k), &noise(2, k * n)], n != 20);
    }
    for z in [
        shape([2, 9, 8, 16], [3, 3], 36, Conv2d { padding: [1, 1], ..Conv2d::default() }),
        shape([1, 11, 7, 20], [3, 2], 34, Conv2d { stride: [2, 2], padding: [1, 1], ..Conv2d::default() }),
    ] {
        let [x, w, dy] = tensors(z);
        let inputs = [[&x, &w], [&dy, &w], [&x, &dy]];
        for ((launch, depth), [a, b]) in launches(z).into_iter().zip(inputs) {
            run += check(&launch, depth, [a, b], depth % 2 == 0);
        }
    }
    if run == 0 {
        println!("no adapter here has cooperative matrices: nothing was run");
    }
}

#[test]
fn products_in_f32_never_take_them() {
    for way in ways() {
        let product = launch(Kernel::MatMul { m: 256, n: 256, k: 256, ta: false, tb: false }, &[256, 256]);
        let all = variants(&product, &way.target).unwrap();
        assert!(all.iter().all(|variant| !variant.name.starts_with("cooperative")), "{}", way.name);
        let mut half = product;
        half.halves = vec![Place::Tensor(0)];
        let first = format!("{:?}", calls(&half, &way.target).unwrap().list[0].shader.path);
        let proven = way.target.cooperative.is_some() && !way.target.software;
        assert_eq!(first.contains("cooperative"), proven, "{}", way.name);
    }
}
