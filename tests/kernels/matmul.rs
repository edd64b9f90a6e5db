//! Matrix products in all transpositions, every family.

use crate::products::{check, launch, noise};
use adamant::launch::{Kernel, Operand, Place, Stage};
use adamant::tape::{Binary, Unary};
use adamant::{Shape, Stretch};

fn product(m: usize, n: usize, k: usize, ta: bool, tb: bool) -> adamant::launch::Launch {
    launch(Kernel::MatMul { m, n, k, ta, tb }, &[m, n])
}

#[test]
fn all_transpositions_of_awkward_extents() {
    // 1, primes, a tile less one, a tile, a tile and one; depths around the blocks of 4 and 16.
    let extents = [
        (1, 1, 1),
        (1, 10, 33),
        (7, 13, 5),
        (31, 63, 15),
        (32, 64, 16),
        (33, 65, 17),
        (4, 68, 128),
        (64, 64, 64),
        (65, 67, 20),
        (127, 12, 3),
        (132, 36, 8),
    ];
    for (m, n, k) in extents {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            check(&product(m, n, k, ta, tb), k, &[noise(1, m * k), noise(2, k * n)]);
        }
    }
}

#[test]
fn deep_products_are_shared_and_the_larger_tile_is_right() {
    for (m, n, k) in [(3, 10, 5000), (16, 12, 2048), (1, 130, 1031)] {
        check(&product(m, n, k, false, false), k, &[noise(3, m * k), noise(4, k * n)]);
        check(&product(m, n, k, true, true), k, &[noise(3, m * k), noise(4, k * n)]);
    }
    // 512 tiles of 128 x 64 and more.
    check(&product(16_385, 257, 4, false, false), 4, &[noise(5, 16_385 * 4), noise(6, 257 * 4)]);
    check(&product(16_388, 257, 4, true, true), 4, &[noise(5, 16_388 * 4), noise(6, 257 * 4)]);
}

#[test]
fn stages_end_products() {
    let (m, n) = (37, 66);
    for k in [19, 3000] {
        let mut launch = product(m, n, k, false, true);
        let place = Place::Tensor(2);
        let bias =
            Operand::Buffer { place, stretch: Stretch::between(&Shape::new(&[n]), &launch.shape).unwrap() };
        let place = Place::Tensor(3);
        let gate =
            Operand::Buffer { place, stretch: Stretch::between(&launch.shape, &launch.shape).unwrap() };
        launch.stages = vec![
            Stage::Binary { op: Binary::Add, swapped: false, operand: bias },
            Stage::Unary(Unary::Relu),
            Stage::Binary { op: Binary::Gate { slope: 0.25 }, swapped: false, operand: gate },
            Stage::Binary {
                op: Binary::AddScaled { scale: -0.5 },
                swapped: false,
                operand: Operand::Previous,
            },
        ];
        check(&launch, k, &[noise(7, m * k), noise(8, k * n), noise(9, n), noise(10, m * n)]);
    }
}
