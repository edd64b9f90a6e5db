//! Vectors of features under attack: what may not be changed never changes, bounds hold, to the bit.

use adamant::attack::{
    Attack, Classifier, Evaluation, Fgsm, FgsmRs, Inputs, Norm, Pgd, Rational, ThreatModel, by_name, logits,
};
use adamant::data::{Change, Dataset, Limits};
use adamant::nn::{Mode, Params, architectures};
use adamant::philox;
use adamant::plan::Precision;
use adamant::tape::Purpose;
use adamant::train::{Recipe, Silent, Trainer, examples};
use adamant::{Device, Host, Store};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

const ROWS: usize = 23;

fn uniform(stream: u32, i: usize) -> f32 {
    philox::uniform([7, 8], Purpose::TEST, [0, 0], stream, i as u32) as f32
}

/// Features of every kind, with bounds from 0 to 1 times `scale`, two of a kind; some rows lie on their bounds.
fn dataset(scale: f32, rows: usize) -> Dataset {
    let kinds = [Change::Fixed, Change::Free, Change::Up, Change::Down];
    let changes: Vec<Change> = kinds.iter().chain(&kinds).chain(&[Change::Free]).copied().collect();
    let features = changes.len();
    let least: Vec<f32> = (0..features).map(|f| scale * (0.1 * f as f32 - 0.4)).collect();
    let mut most: Vec<f32> = least.iter().map(|least| least + scale).collect();
    // A feature that has one value alone.
    most[8] = least[8];
    let labels: Vec<u32> = (0..rows).map(|row| (uniform(1, row) * 3.0) as u32).collect();
    let values = (0..rows * features)
        .map(|i| {
            let (row, f) = (i / features, i % features);
            let share = (0.3 * labels[row] as f32 + 0.4 * uniform(2, i)) * 1.4 - 0.2;
            (least[f] + (most[f] - least[f]) * share.clamp(0.0, 1.0)).clamp(least[f], most[f])
        })
        .collect();
    let names = (0..features).map(|f| format!("feature {f}")).collect();
    let limits = Limits { names, least, most, changes };
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Dataset::of_features("table", "made here", values, limits, labels, classes).unwrap()
}

fn attacks(norm: Norm, epsilon: f64) -> Vec<Box<dyn Attack>> {
    let threat = || ThreatModel { norm, epsilon: Rational::from(epsilon) };
    let pgd =
        |random_start| Pgd { threat: threat(), steps: 7, step_size: (epsilon / 3.0).into(), random_start };
    vec![
        Box::new(Fgsm { threat: threat() }),
        Box::new(FgsmRs { threat: threat(), step_size: (1.25 * epsilon).into(), clip_start: false }),
        Box::new(pgd(true)),
        Box::new(pgd(false)),
    ]
}

/// Attacks by name, short.
const SEARCHES: [&str; 15] = [
    "noise-3",
    "r-fgsm",
    "tpgd-4",
    "mi-fgsm-4",
    "ni-fgsm-4",
    "apgd-ce-9",
    "apgd-dlr-9",
    "apgd-t-9",
    "square-12",
    "fab-t-4",
    "fab-4",
    "deepfool-4",
    "ddn-6",
    "fmn-6",
    "cw-6",
];

/// Those that are run on a GPU too, which compiles each of them anew.
const ON_GPU: [&str; 4] = ["apgd-ce-5", "apgd-t-5", "square-6", "fab-t-3"];

#[test]
fn what_may_not_be_changed_never_changes_and_bounds_hold() {
    let adapter = Device::adapters().into_iter().next().expect("a GPU adapter, a software one will do");
    for device in [Device::cpu(), Device::gpu(&adapter).unwrap()] {
        for (scale, epsilons) in [(1.0, [0.0, 0.1, 0.9]), (50.0, [1.0, 20.0, 1000.0])] {
            let data = dataset(scale, ROWS);
            let adamant::data::Examples::Features(_, limits) = &data.examples else { unreachable!() };
            let architecture = architectures::by_name("mlp-8", data.image, data.classes).unwrap();
            let params = Params::of(architecture.as_ref()).unwrap();
            let store = Store::new(&device);
            for (param, values) in params.iter().zip(params.initial(3)) {
                store.put(&param.name, param.shape, &Host::F32(values)).unwrap();
            }
            examples::put(&store, "data", &data).unwrap();
            let on = Classifier {
                architecture: architecture.as_ref(),
                mode: Mode::Eval,
                examples: ROWS,
                inputs: examples::inputs(&data),
                precision: Precision::F32,
            };
            assert_eq!(on.inputs, Inputs::Features { magnitude: limits.magnitude() });
            let all: Vec<u32> = (0..ROWS as u32).collect();
            // Every row is right as it is: an attack leaves wrong ones alone.
            let logits = logits(&store, on, "data", &all, ROWS).unwrap();
            let says = |row: &[f32]| (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
            let labels: Vec<u32> = logits.chunks(3).map(says).collect();
            store.write_u32("data.labels", &labels).unwrap();
            for norm in [Norm::Linf, Norm::L2, Norm::L1] {
                for attack in epsilons.iter().flat_map(|&epsilon| attacks(norm, epsilon)) {
                    let judge = Evaluation::compile(&store, attack.as_ref(), on, "data", 10).unwrap();
                    let line = format!("{} on {}", attack.line(), device.describe());
                    let mut moved = 0;
                    for found in judge.images(&all, 5).unwrap() {
                        check(&found.clean, &found.adversarial, limits, attack.threat(), &line);
                        moved += usize::from(found.clean != found.adversarial);
                    }
                    let epsilon = attack.threat().epsilon.value();
                    assert!((moved > ROWS / 2) == (epsilon > 0.0), "{line}: {moved} rows were changed");
                }
                let middle = &epsilons[1..2];
                let searches = match device.is_gpu() {
                    true => named(&ON_GPU, middle),
                    // All that AutoAttack is made of, as it is run there.
                    false => {
                        [named(&SEARCHES, &epsilons), named(&["autoattack:version=plus"], middle)].concat()
                    }
                };
                let mut moved = BTreeMap::new();
                for (epsilon, name) in searches {
                    let threat = ThreatModel { norm, epsilon: Rational::from(epsilon) };
                    let suite = match by_name(name, &threat, data.classes) {
                        Ok(suite) => suite,
                        // Some are made for one norm.
                        Err(error) => {
                            assert!(error.to_string().contains("is made for"), "{name}: {error}");
                            continue;
                        }
                    };
                    for search in suite.attacks.iter().map(|attack| attack.search.as_ref()) {
                        let judge = Evaluation::compile_search(&store, search, on, "data", 10).unwrap();
                        // A minimum-norm attack may leave the ball, and never the bounds.
                        let far = ThreatModel { norm, epsilon: Rational::from(1e30) };
                        let threat = if search.is_minimum_norm() { &far } else { &threat };
                        let line = format!("{} on {}", search.line(), device.describe());
                        let mut changed = 0;
                        for found in judge.images(&all, 5).unwrap() {
                            check(&found.clean, &found.adversarial, limits, threat, &line);
                            changed += usize::from(found.clean != found.adversarial);
                        }
                        // One for the nearest image changes nothing where it finds none.
                        if !search.is_minimum_norm() {
                            *moved.entry(search.name()).or_insert(0) += changed;
                        }
                    }
                }
                for (name, moved) in moved {
                    assert!(moved > 0, "{name} changed nothing under {norm} on {}", device.describe());
                }
            }
        }
    }
}

/// Each of these names at each of these radii.
fn named(names: &[&'static str], epsilons: &[f64]) -> Vec<(f64, &'static str)> {
    epsilons.iter().flat_map(|&epsilon| names.iter().map(move |&name| (epsilon, name))).collect()
}

/// Holds one attacked row against every law.
fn check(clean: &[f32], attacked: &[f32], limits: &Limits, threat: &ThreatModel, line: &str) {
    let epsilon = threat.epsilon.value();
    let (mut square, mut sum) = (0.0, 0.0);
    for (f, (&x, &y)) in clean.iter().zip(attacked).enumerate() {
        let change = limits.changes[f];
        let name = &limits.names[f];
        assert!(y >= limits.least[f] && y <= limits.most[f], "{line}: {name} is {y}, outside of its bounds");
        match change {
            Change::Fixed => assert_eq!(x.to_bits(), y.to_bits(), "{line}: {name} was changed"),
            Change::Up => assert!(y >= x, "{line}: {name} fell from {x} to {y}"),
            Change::Down => assert!(y <= x, "{line}: {name} rose from {x} to {y}"),
            Change::Free => {}
        }
        let difference = (f64::from(y) - f64::from(x)).abs();
        assert!(difference <= epsilon, "{line}: {name} moved by {difference}");
        square += difference * difference;
        sum += difference;
    }
    let length = match threat.norm {
        Norm::Linf => 0.0,
        Norm::L2 => square.sqrt(),
        Norm::L1 => sum,
    };
    assert!(length <= epsilon, "{line}: moved by {length}");
}

#[test]
fn training_on_features_learns_and_refuses_what_is_for_images() {
    let data = dataset(1.0, 300);
    let trainer = |augment: Vec<String>| {
        let recipe = Recipe {
            augment,
            model: "mlp-32".into(),
            epsilon: "0.05".into(),
            step_size: "0.02".into(),
            batch: 32,
            epochs: 12,
            learning_rate: 0.02,
            weight_average: 0.0,
            validation: 60,
            ..Recipe::default()
        };
        let architecture = architectures::by_name(&recipe.model, data.image, data.classes)?;
        Trainer::new(recipe, architecture, &data, &Device::cpu())
    };
    let mut trained = trainer(vec![]).unwrap();
    trained.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    // The labels shift most features by 0.4: even under attack most rows are told apart.
    let (score, epoch) = trained.position().best.unwrap();
    assert!(score > 0.6, "{score} in epoch {epoch}");
    let Err(error) = trainer(vec!["flip".into()]) else { panic!("features were mirrored") };
    assert!(error.to_string().contains("feature vectors"), "{error}");
}

#[test]
fn rows_are_held_against_their_bounds() {
    let limits = |least: f32, most: f32| Limits {
        names: vec!["size".into(), "age".into()],
        least: vec![least, 0.0],
        most: vec![most, 1.0],
        changes: vec![Change::Free, Change::Fixed],
    };
    let classes = || vec!["no".to_string(), "yes".to_string()];
    let of = |values: Vec<f32>, limits: Limits| {
        let labels = vec![0; values.len() / 2];
        Dataset::of_features("t", "here", values, limits, labels, classes())
            .map_err(|error| error.to_string())
    };
    let good = of(vec![0.5, 0.0, 2.0, 1.0], limits(0.0, 2.0)).unwrap();
    assert_eq!((good.image, good.image_len(), good.kind()), ([1, 1, 2], 2, "feature vectors"));
    let part = good.subset(&[1]).unwrap();
    assert_ne!(part.sha256, good.sha256);
    // The same numbers under other limits are other data.
    assert_ne!(of(vec![0.5, 0.0, 2.0, 1.0], limits(0.0, 3.0)).unwrap().sha256, good.sha256);
    for (values, bounds, words) in [
        (
            vec![0.5, 0.0, 2.0, 1.5],
            (0.0, 2.0),
            "feature `age` of row 1 is 1.5, outside of its bounds, 0 to 1",
        ),
        (vec![f32::NAN, 0.0], (0.0, 2.0), "feature `size` of row 0 is NaN, not a number"),
        (vec![f32::INFINITY, 0.0], (0.0, 2.0), "not a number"),
        (vec![0.5, 0.0], (2.0, 0.0), "not two numbers in order"),
        (vec![0.5, 0.0], (0.0, f32::INFINITY), "not two numbers in order"),
        (vec![0.5, 0.0], (f32::NAN, 1.0), "not two numbers in order"),
        (vec![0.5], (0.0, 2.0), "1 numbers do not make 0 examples"),
    ] {
        let error = of(values, limits(bounds.0, bounds.1)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}
