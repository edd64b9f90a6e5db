//! Products in half precision: f64 over operands rounded to bf16, within what sums in f32 err.

use crate::cases::{Case, cases, large_cases};
use crate::{difference, numbers, reference, run};
use adamant::cpu::Data;
use adamant::launch::Kernel;

/// Whether the executor multiplies bf16 on this processor.
fn rounds() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// To bf16 (the upper half of f32's bits), to nearest even.
fn rounded(x: f64) -> f64 {
    let bits = (x as f32).to_bits();
    f64::from(f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000))
}

/// The products that have a half form, told to use it.
fn products(cases: Vec<Case>) -> impl Iterator<Item = Case> {
    let products = cases.into_iter().filter(|case| {
        matches!(
            case.launch.kernel,
            Kernel::MatMul { ta: false, .. } | Kernel::Conv2d(_) | Kernel::Conv2dInputGrad(_)
        )
    });
    products.map(|mut case| {
        case.launch.halves = case.launch.inputs.clone();
        case
    })
}

/// With both operands of the product rounded.
fn with_rounded_operands(case: &Case) -> Case {
    let mut case = case.clone();
    for tensor in &mut case.tensors[..2] {
        if let Data::Float(x) = tensor {
            x.iter_mut().for_each(|x| *x = rounded(*x));
        }
    }
    case
}

#[test]
fn products_are_those_of_rounded_operands() {
    let (mut all, mut differ) = (0, 0);
    for case in products(cases()).chain(products(large_cases())) {
        let have = numbers(&run::<f32>(&case));
        let (rounded, plain) = (reference::run(&with_rounded_operands(&case)), reference::run(&case));
        let errors = [&rounded, &plain].map(|want| difference(&have, want));
        let bound = if case.launch.stages.is_empty() { 2e-5 } else { 2e-4 };
        // Where f32 is faster (narrow groups, short sums, Winograd's tiles), a convolution may stay in it.
        let may = match &case.launch.kernel {
            Kernel::Conv2d(s) | Kernel::Conv2dInputGrad(s) => {
                s.groups > 1 || s.c.min(s.k) < 8 || s.stride == [1, 1] || s.r * s.s * s.c < 32
            }
            _ => false,
        };
        let error = match rounds() {
            true if may => errors[0].min(errors[1]),
            true => errors[0],
            false => errors[1],
        };
        assert!(error < bound, "{}: {error:e}", case.name);
        // In f64 nothing is ever rounded.
        assert!(difference(&numbers(&run::<f64>(&case)), &plain) < 1e-11, "{}", case.name);
        all += 1;
        differ += usize::from(difference(&rounded, &plain) > 1e-4);
    }
    // The two can be told apart.
    assert!(2 * differ > all, "rounding shows in {differ} of {all} products");
}

#[test]
fn bits_do_not_depend_on_threads() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = |case: Case| numbers(&pool.install(|| run::<f32>(&case)));
        products(large_cases()).map(run).collect::<Vec<_>>()
    };
    let one = with(1);
    for threads in [2, 3, 5] {
        assert!(with(threads) == one, "other bits with {threads} threads");
    }
}
