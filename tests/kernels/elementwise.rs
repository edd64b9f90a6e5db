//! Maps, fills, updates and chains of stages.

use crate::harness::{Host, gpus, run};
use adamant::launch::{Kernel, Launch, Operand, Place, Stage};
use adamant::tape::{Binary, Unary};
use adamant::{DType, Shape, Stretch};

#[test]
fn a_chain_reads_operands_and_the_old_output() {
    let stretch = Stretch { div: 2, modulo: 3 };
    let operand = Operand::Buffer { place: Place::Tensor(1), stretch };
    let launch = Launch {
        kernel: Kernel::Map { start: Stretch { div: 1, modulo: 5 } },
        inputs: vec![Place::Tensor(0)],
        stages: vec![
            Stage::Unary(Unary::Affine { scale: 2.0, shift: 1.0 }),
            Stage::Binary { op: Binary::Sub, swapped: true, operand },
            Stage::Binary {
                op: Binary::AddScaled { scale: 0.5 },
                swapped: false,
                operand: Operand::Previous,
            },
            Stage::Unary(Unary::Clamp { lo: -3.0, hi: f64::INFINITY }),
        ],
        output: Place::Slot(0),
        shape: Shape::new(&[131]),
        dtype: DType::F32,
    };
    let x = [1f32, -2.0, 3.0, -4.0, 5.0];
    let y = [10f32, 20.0, 30.0];
    let before: Vec<f32> = (0..131).map(|i| i as f32).collect();
    let want: Vec<f32> =
        (0..131).map(|i| (y[i / 2 % 3] - (2.0 * x[i % 5] + 1.0) + 0.5 * before[i]).max(-3.0)).collect();
    for gpu in gpus() {
        let tensors = [Host::Float(x.to_vec()), Host::Float(y.to_vec())];
        assert_eq!(run(gpu, &launch, &tensors, &Host::Float(before.clone())), Host::Float(want.clone()));
    }
}
