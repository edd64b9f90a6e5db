//! The reference files themselves: the formula gives the same bits here as in the script that made them, and a
//! network of plain loops on those weights gets PyTorch's numbers.

mod reference;

use reference::{Inputs, Reference, epsilon_and_step, permute};

const MODELS: [&str; 5] = ["mlp", "mnist-fast", "mnist-madry", "preact-resnet18-w4", "resnet18-w4"];

#[test]
fn the_formula_repeats_the_script_bit_for_bit() {
    for model in MODELS {
        let file = Reference::open(model);
        let Inputs { state, images, start, labels } = file.inputs(epsilon_and_step(model).0);
        let (shape, known) = file.get("formula");
        assert_eq!(shape, [state.len() + 2, 3]);
        for (tensor, known) in state.iter().chain([&images, &start]).zip(known.chunks(3)) {
            let values = &tensor.values;
            let here = [values[0], values[values.len() / 2], values[values.len() - 1]];
            assert_eq!(here.map(f64::from), known, "{model}: {}", tensor.name);
        }
        assert_eq!(labels.iter().map(|&label| f64::from(label)).collect::<Vec<_>>(), file.get("labels").1);
    }
}

/// y = x w^T + b for rows of x.
fn linear(x: &[f64], w: &[f32], b: &[f32]) -> Vec<f64> {
    let inputs = w.len() / b.len();
    let row = |x: &[f64]| -> Vec<f64> {
        w.chunks(inputs)
            .zip(b)
            .map(|(w, &b)| f64::from(b) + x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>())
            .collect()
    };
    x.chunks(inputs).flat_map(row).collect()
}

#[test]
fn an_mlp_of_plain_loops_gets_pytorchs_numbers() {
    let file = Reference::open("mlp");
    let Inputs { state, images, labels, .. } = file.inputs(epsilon_and_step("mlp").0);
    let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|i| state[i].values.as_slice());
    let x: Vec<f64> = images.values.iter().map(|&x| x.into()).collect();
    let hidden: Vec<f64> = linear(&x, w1, b1).into_iter().map(|h| h.max(0.0)).collect();
    let logits = linear(&hidden, w2, b2);
    file.check("eval.logits", &logits, 1e-14).unwrap();

    // By hand: d loss / d logits = (softmax - onehot) / batch, and back through the layers.
    let mut loss = 0.0;
    let mut d_logits = Vec::new();
    for (z, &label) in logits.chunks(10).zip(&labels) {
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        loss += (total.ln() - z[label as usize]) / labels.len() as f64;
        let onehot = |c: usize| if c == label as usize { 1.0 } else { 0.0 };
        d_logits.extend((0..10).map(|c| (z[c].exp() / total - onehot(c)) / labels.len() as f64));
    }
    file.check("eval.loss", &[loss], 1e-14).unwrap();
    let mut d_w1 = vec![0.0; w1.len()];
    for example in 0..labels.len() {
        for j in (0..100).filter(|j| hidden[example * 100 + j] > 0.0) {
            let d_hidden: f64 =
                (0..10).map(|c| d_logits[example * 10 + c] * f64::from(w2[c * 100 + j])).sum();
            for i in 0..784 {
                d_w1[j * 784 + i] += d_hidden * x[example * 784 + i];
            }
        }
    }
    file.check("eval.grad.1.weight", &d_w1, 1e-14).unwrap();

    // One wrong element outside the sample is noticed, through the projections.
    d_w1[1] += 1e-3;
    file.check("eval.grad.1.weight", &d_w1, 1e-6).unwrap_err();
}

#[test]
fn permute_is_a_transpose() {
    assert_eq!(permute(&[1, 2, 3, 4, 5, 6], &[2, 3], &[1, 0]), [1, 4, 2, 5, 3, 6]);
    let nchw: Vec<usize> = (0..120).collect();
    let nhwc = permute(&nchw, &[2, 3, 4, 5], &[0, 2, 3, 1]);
    assert_eq!(nhwc[..4], [0, 20, 40, 1]);
    assert_eq!(permute(&nhwc, &[2, 4, 5, 3], &[0, 3, 1, 2]), nchw);
}
