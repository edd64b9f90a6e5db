//! Square under L2 on RGB images against the official one in f64, with the same random numbers: after so many queries each
//! example's image and margin (tools/make_square_reference.py).

use crate::drawn::{Drawn, Numbers, SEED};
use adamant::attack::{Evaluation, Norm, Search as _, Square, ThreatModel};

// As in tools/make_square_reference.py.
const BATCH: usize = 16;
const IMAGE: [usize; 3] = [10, 10, 3];
const NUMBERS: usize = 300;
const QUERIES: [usize; 5] = [1, 2, 12, 60, 300];

#[test]
fn windows_under_l2_are_the_references_in_every_channel() {
    let numbers = Numbers::load("square");
    let labels = numbers.u32("labels");
    let examples: Vec<u32> = (0..BATCH as u32).collect();
    let drawn = Drawn::new(IMAGE, 0.3, &labels);
    let (store, on) = (&drawn.store, drawn.on());
    let (mut compared, mut worst) = (0, 0f64);
    for queries in QUERIES {
        let threat = ThreatModel { norm: Norm::L2, epsilon: "0.6".parse().unwrap() };
        let attack = Square { threat, queries };
        let judge = Evaluation::compile_search(store, &attack, on, "data", BATCH).unwrap();
        let quiet = &mut |_: usize, _: usize| {};
        let mut verdicts = judge.clean(&examples, &labels, SEED, quiet).unwrap();
        assert_eq!(verdicts.clean, labels);
        judge.go_on(&examples, &labels, [0, 1], SEED, &mut verdicts, quiet).unwrap();
        let margins = numbers.f64(&format!("{queries}.margin"));
        let stands: Vec<bool> = margins.iter().map(|&margin| margin > 0.0).collect();
        assert_eq!(verdicts.robust, stands, "{queries} queries");
        // Of all of them at once, in the order they were given: nothing is looked at, and moved, before 250 queries.
        if queries > 250 {
            continue;
        }
        let of =
            |name: &str| store.read_f64(&format!("evaluate {} {BATCH} data.{name}", attack.line())).unwrap();
        let (margin, image) = (of("state/margin"), of("adversarial"));
        let expected = numbers.bytes(&format!("{queries}.image"));
        let expected = expected.chunks(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap())));
        let expected: Vec<f64> = expected.collect();
        for i in (0..BATCH).filter(|&i| stands[i]) {
            let pixels = i * NUMBERS..(i + 1) * NUMBERS;
            let apart = image[pixels.clone()].iter().zip(&expected[pixels]);
            let apart = apart.map(|(have, want)| (have - want).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-4, "{queries} queries, example {i}: {apart}");
            assert!((margin[i] - margins[i]).abs() < 1e-4, "{queries} queries, example {i}");
            (compared, worst) = (compared + 1, worst.max(apart));
        }
    }
    println!("{compared} images compared, pixels at most {worst:.1e} apart");
    assert!(compared > 50, "{compared}");
}
