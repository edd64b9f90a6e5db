//! Attacks against what torchattacks, Foolbox and the authors' FAB find on the same network and images
//! (tools/make_attack_reference.py), image by image, in f64; minimum norms against the exact ones of a linear model.

use crate::house::{House, named};
use crate::reference::Reference;
use adamant::attack::{Classifier, Evaluation, Inputs, Norm, Search, Verdicts, towards_hyperplane};
use adamant::nn::Mode;
use adamant::nn::architectures::Mlp;
use adamant::plan::Precision;
use adamant::tape::Purpose;
use adamant::{DType, Device, Host, Plan, Store, Tape, data, philox};

/// The images the reference was computed on, in f64, and what it found.
struct Reported {
    file: Reference,
    house: House,
}

impl Reported {
    fn new() -> Reported {
        let file = Reference::open("attacks");
        let examples = file.get("examples").1.into_iter().map(|example| example as u32).collect();
        Reported { file, house: House::of(&Device::reference(), examples) }
    }

    fn compiled(&self, name: &str, norm: Norm, epsilon: &str) -> Evaluation {
        self.house.judge(&*named(name, norm, epsilon), self.house.examples.len()).unwrap()
    }

    /// How far the nearest image that breaks each example is. The radius is 0, so that none is dropped for being near.
    fn distances(&self, name: &str, norm: Norm) -> Vec<f64> {
        self.house.verdicts(&*named(name, norm, "0"), self.house.examples.len()).distance
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn attacks_in_a_ball_end_at_torchattacks_images() {
    let reported = Reported::new();
    for (name, stored) in [("bim-7", "bim"), ("mi-fgsm-7", "mi-fgsm"), ("ni-fgsm-7", "ni-fgsm")] {
        let evaluation = reported.compiled(&format!("{name}:step=0.02"), Norm::Linf, "0.1");
        let found = evaluation.images(&reported.house.examples, 1).unwrap();
        let (_, want) = reported.file.get(stored);
        let mut compared = 0;
        for (found, want) in found.iter().zip(want.chunks(28 * 28)) {
            // Here what is broken stays as it is; there it goes on.
            if found.adversarial_prediction.0 != reported.house.data.labels[found.example as usize] {
                continue;
            }
            compared += 1;
            let far = found.adversarial.iter().zip(want).filter(|(a, b)| (f64::from(**a) - **b).abs() > 1e-6);
            assert_eq!(far.count(), 0, "{name}, example {}", found.example);
        }
        assert!(compared * 4 > found.len() * 3, "{name}: {compared} images stand");
    }
}

#[test]
fn ten_steps_of_deepfool_lead_where_torchattacks_steps_lead() {
    let reported = Reported::new();
    let found = reported.compiled("deepfool-10", Norm::L2, "0").images(&reported.house.examples, 1).unwrap();
    let (_, want) = reported.file.get("deepfool.l2");
    for (found, want) in found.iter().zip(want) {
        let distance = Norm::L2.distance(&found.clean, &found.adversarial);
        assert!((distance - want).abs() <= 1e-6 * want, "example {}: {distance}, not {want}", found.example);
    }
}

#[test]
fn minimum_norm_attacks_find_what_the_packages_find() {
    let reported = Reported::new();
    // How far a median may be off, and how many images may differ by more than a thousandth: a search that goes up and
    // down for a hundred steps tells apart images whose gradients differ in the last bit.
    let mut wrong = Vec::new();
    for (name, stored, norm, off, differ) in [
        ("ddn", "ddn.l2", Norm::L2, 1e-4, 1),
        ("cw-200:c=10,rate=0.05", "cw.l2", Norm::L2, 1e-4, 1),
        // A radius goes a hundred-thousandth farther here.
        ("fmn", "fmn.l2", Norm::L2, 1e-3, 2),
        ("fmn", "fmn.linf", Norm::Linf, 1e-3, 2),
        ("fab-20", "fab.linf", Norm::Linf, 1e-4, 1),
        ("fab-20", "fab.l2", Norm::L2, 1e-4, 1),
        ("fab-20", "fab.l1", Norm::L1, 1e-4, 1),
    ] {
        let found = reported.distances(name, norm);
        // Where nothing was found the reference has NaN and we infinity.
        let (_, want) = reported.file.get(stored);
        let want: Vec<f64> = want.iter().map(|&x| if x.is_nan() { f64::INFINITY } else { x }).collect();
        let far = |a: f64, b: f64| a != b && ((a - b).abs() > 1e-3 * a.min(b) || a.is_nan() || b.is_nan());
        let count = found.iter().zip(&want).filter(|(a, b)| far(**a, **b)).count();
        let (here, there) = (median(&found), median(&want));
        println!("{stored}: median {here} here, {there} there; {count} of {} differ", want.len());
        let near = here == there || (here - there).abs() <= off * there;
        if !near || count > differ {
            wrong.push(format!("{stored}: {found:?} here, {want:?} there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Foolbox projects into the L1 ball and then into the box, which can leave it short (Croce and Hein 2021, "Mind the
    // box"): more images are broken here.
    let (found, want) = (reported.distances("fmn", Norm::L1), reported.file.get("fmn.l1").1);
    println!("fmn.l1: {found:?} here, {want:?} there");
    assert!(found.iter().filter(|x| x.is_finite()).count() >= want.iter().filter(|x| x.is_finite()).count());
}

/// A linear model of two classes on images that epsilon keeps away from the box: margin and weights of each image.
struct Linear {
    architecture: Mlp,
    store: Store,
    labels: Vec<u32>,
    difference: Vec<f64>,
    margins: Vec<f64>,
}

const IMAGES: usize = 12;
const ELEMENTS: usize = 36;

impl Linear {
    fn new(device: &Device) -> Linear {
        let uniform = |stream: u32, len: usize| {
            (0..len as u32).map(move |i| philox::uniform([2, 3], Purpose::TEST, [0, 0], stream, i))
        };
        let architecture = Mlp::new([6, 6, 1], &[], 2);
        // Weights are [inputs, classes].
        let weights: Vec<f32> = uniform(1, 2 * ELEMENTS).map(|u| (u - 0.5) as f32).collect();
        let difference: Vec<f64> =
            weights.chunks(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0])).collect();
        let images: Vec<u8> = uniform(2, IMAGES * ELEMENTS).map(|u| 90 + (75.0 * u) as u8).collect();
        let value = |image: &[u8]| -> f64 {
            image.iter().zip(&difference).map(|(&x, d)| f64::from(x) / 255.0 * d).sum()
        };
        // The bias puts the boundary in their midst.
        let values: Vec<f64> = images.chunks(ELEMENTS).map(value).collect();
        let bias = f64::from(-values.iter().sum::<f64>() as f32 / IMAGES as f32);
        let labels = values.iter().map(|value| u32::from(value + bias > 0.0)).collect();
        let margins = values.iter().map(|value| (value + bias).abs()).collect();
        let store = Store::new(device);
        store.put("1.weight", [ELEMENTS, 2], &Host::F32(weights)).unwrap();
        store.put("1.bias", [2], &Host::F64(vec![0.0, bias])).unwrap();
        store.put("data.images", [IMAGES, 6, 6, 1], &Host::U8(images)).unwrap();
        let labels: Vec<u32> = labels;
        store.put("data.labels", [IMAGES], &Host::U32(labels.clone())).unwrap();
        Linear { architecture, store, labels, difference, margins }
    }

    fn verdicts(&self, search: &dyn Search) -> Verdicts {
        let on = Classifier {
            architecture: &self.architecture,
            mode: Mode::Eval,
            examples: IMAGES,
            inputs: Inputs::Images,
            precision: Precision::F32,
        };
        let judge = Evaluation::compile_search(&self.store, search, on, "data", IMAGES).unwrap();
        let all: Vec<u32> = (0..IMAGES as u32).collect();
        judge.run(&all, &self.labels, 1, 1, |_, _| {}).unwrap()
    }
}

#[test]
fn on_a_linear_model_minimum_norm_attacks_find_margin_over_dual_norm() {
    for device in [Device::cpu(), Device::gpu(&Device::adapters()[0]).unwrap()] {
        let linear = Linear::new(&device);
        let each = linear.difference.iter().map(|d| d.abs());
        let dual = |norm: Norm| match norm {
            Norm::Linf => each.clone().sum::<f64>(),
            Norm::L2 => each.clone().map(|d| d * d).sum::<f64>().sqrt(),
            Norm::L1 => each.clone().fold(0.0, f64::max),
        };
        // How much farther than the nearest image an attack may end: what its steps leave.
        let mut wrong = Vec::new();
        for (name, norm, farther) in [
            ("fab", Norm::Linf, 0.006),
            ("fab", Norm::L2, 0.006),
            ("fab", Norm::L1, 0.006),
            ("fab-t", Norm::Linf, 0.006),
            ("deepfool", Norm::L2, 0.0201),
            ("deepfool", Norm::Linf, 0.0201),
            ("ddn", Norm::L2, 0.02),
            ("fmn", Norm::L2, 1e-4),
            ("fmn", Norm::Linf, 1e-4),
            ("fmn", Norm::L1, 2e-4),
            ("cw-300:rounds=6,c=0.1", Norm::L2, 0.01),
        ] {
            // A software adapter compiles every attack for long.
            if device.is_gpu() && !["fab", "deepfool", "cw-300:rounds=6,c=0.1"].contains(&name) {
                continue;
            }
            let search = named(name, norm, "0");
            let found = linear.verdicts(&*search);
            assert_eq!(found.clean_count(), IMAGES);
            let excess = found.distance.iter().zip(&linear.margins).map(|(d, m)| d * dual(norm) / m - 1.0);
            let excess: Vec<f64> = excess.collect();
            let most = excess.iter().copied().fold(f64::MIN, f64::max);
            let least = excess.iter().copied().fold(f64::MAX, f64::min);
            println!("{name}, {norm}, {}: {least:.2e} to {most:.2e} farther", device.describe());
            // Nearer than can be, but for rounding, or too far.
            if least < -1e-4 || most > farther {
                wrong.push(format!("{name}, {norm}: {excess:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}: {}", device.describe(), wrong.join("\n"));
    }
}

/// The change of each point (a row) that brings it to its hyperplane within [0, 1], by the tape.
fn projected(device: &Device, norm: Norm, points: &[f64], weights: &[f64], excess: &[f64]) -> Vec<f64> {
    let (rows, columns) = (excess.len(), points.len() / excess.len());
    let (tape, store) = (Tape::new(), Store::new(device));
    let source = |name: &str, shape: [usize; 5]| tape.source(name, shape, DType::F32);
    let point = source("points", [1, rows, columns, 1, 1]);
    let normal = source("weights", [1, rows, columns, 1, 1]);
    let room = [point, point.affine(-1.0, 1.0)];
    tape.assign("change", towards_hyperplane(norm, normal, source("excess", [1, rows, 1, 1, 1]), room));
    let plan = Plan::compile(&tape, &store).unwrap();
    for (name, values) in [("points", points), ("weights", weights), ("excess", excess)] {
        store.write_f64(name, values).unwrap();
    }
    plan.run().unwrap();
    store.read_f64("change").unwrap()
}

/// The same by sorting, for one point: plain.
fn sorted(norm: Norm, point: &[f64], weight: &[f64], excess: f64) -> Vec<f64> {
    let up = |w: f64| (w < 0.0) == (excess >= 0.0);
    // Under L2 and L1 what has next to no weight stays.
    let least = if norm == Norm::Linf { 0.0 } else { 1e-8 };
    let weight: Vec<f64> = weight.iter().map(|&w| if w.abs() > least { w } else { 0.0 }).collect();
    let room: Vec<f64> = point.iter().zip(&weight).map(|(x, &w)| if up(w) { 1.0 - x } else { *x }).collect();
    let used = |part: &dyn Fn(usize) -> f64| (0..room.len()).map(|i| weight[i].abs() * part(i)).sum::<f64>();
    let lengths: Vec<f64> = match norm {
        Norm::L1 => {
            let mut order: Vec<usize> = (0..room.len()).collect();
            order.sort_by(|&a, &b| weight[b].abs().total_cmp(&weight[a].abs()));
            let (mut left, mut lengths) = (excess.abs(), vec![0.0; room.len()]);
            for i in order.into_iter().filter(|&i| weight[i] != 0.0) {
                lengths[i] = room[i].min(left / weight[i].abs());
                left -= lengths[i] * weight[i].abs();
            }
            lengths
        }
        Norm::Linf | Norm::L2 => {
            let share = |i: usize| if norm == Norm::Linf { 1.0 } else { weight[i].abs() };
            let mut ends: Vec<f64> =
                (0..room.len()).filter(|&i| weight[i] != 0.0).map(|i| room[i] / share(i)).collect();
            ends.push(0.0);
            ends.sort_by(f64::total_cmp);
            let at = |t: f64| used(&|i| room[i].min(t * share(i)));
            // Linear between the two ends that hold the root.
            let above = ends.iter().position(|&end| at(end) >= excess.abs());
            let t = match above {
                None => f64::INFINITY,
                Some(0) => 0.0,
                Some(k) => {
                    let (a, b) = (ends[k - 1], ends[k]);
                    let (low, high) = (at(a), at(b));
                    if high > low { a + (b - a) * (excess.abs() - low) / (high - low) } else { a }
                }
            };
            let length = |i: usize| if weight[i] == 0.0 { 0.0 } else { room[i].min(t * share(i)) };
            (0..room.len()).map(length).collect()
        }
    };
    (0..room.len()).map(|i| if up(weight[i]) { lengths[i] } else { -lengths[i] }).collect()
}

/// The largest difference of two changes, and by how much more the first misses its hyperplane, relative to what all
/// weights can do.
fn compare(got: &[f64], want: &[f64], weight: &[f64]) -> [f64; 2] {
    let differ = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let reaches = |change: &[f64]| change.iter().zip(weight).map(|(d, w)| d * w).sum::<f64>();
    let all: f64 = weight.iter().map(|w| w.abs()).sum();
    [differ, (reaches(got) - reaches(want)).abs() / all]
}

#[test]
fn projections_are_those_of_a_plain_sort_and_of_the_authors() {
    let file = Reference::open("attacks");
    let [points, weights, heights] =
        ["points", "weights", "heights"].map(|name| file.get(&format!("projection.{name}")).1);
    let columns = points.len() / heights.len();
    let rows = || points.chunks(columns).zip(weights.chunks(columns));
    let excess: Vec<f64> = rows()
        .zip(&heights)
        .map(|((x, w), height)| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() - height)
        .collect();
    for (norm, name) in [(Norm::Linf, "linf"), (Norm::L2, "l2"), (Norm::L1, "l1")] {
        let theirs = file.get(&format!("projection.{name}")).1;
        for (device, bound) in [(Device::reference(), 1e-6), (Device::cpu(), 2e-4)] {
            let got = projected(&device, norm, &points, &weights, &excess);
            for (row, (x, w)) in rows().enumerate() {
                let got = &got[row * columns..][..columns];
                let plain = sorted(norm, x, w, excess[row]);
                for (who, want) in
                    [("a sort", &plain[..]), ("the authors", &theirs[row * columns..][..columns])]
                {
                    let differ = compare(got, want, w);
                    let line = format!("{name}, row {row}, {who}, {}", device.describe());
                    assert!(differ[0] <= bound && differ[1] <= bound, "{line}: {differ:?}");
                }
            }
        }
    }
}

#[test]
fn projections_of_images_and_of_weights_of_every_size_are_those_of_a_plain_sort() {
    // Images of the data set, and weights from a uniform to one that spans six orders of magnitude.
    let test = data::load("mnist").unwrap().test;
    let adamant::data::Examples::Images(bytes) = &test.examples else { unreachable!() };
    let (rows, columns) = (40, 28 * 28);
    let uniform = |stream: u32, i: usize| philox::uniform([4, 4], Purpose::TEST, [0, 0], stream, i as u32);
    let points: Vec<f64> = bytes[..rows * columns].iter().map(|&byte| f64::from(byte) / 255.0).collect();
    let weights: Vec<f64> = (0..rows * columns)
        .map(|i| {
            (2.0 * uniform(0, i) - 1.0) * 10f64.powf(-6.0 * (i / columns % 4) as f64 / 3.0 * uniform(1, i))
        })
        .collect();
    let reach = |w: &[f64]| w.iter().map(|w| w.abs()).sum::<f64>();
    let excess: Vec<f64> = weights
        .chunks(columns)
        .enumerate()
        .map(|(row, w)| (2.0 * uniform(2, row) - 1.0) * reach(w) * 0.6 * uniform(3, row))
        .collect();
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let got = projected(&Device::reference(), norm, &points, &weights, &excess);
        for (row, w) in weights.chunks(columns).enumerate() {
            let at = row * columns..(row + 1) * columns;
            let want = sorted(norm, &points[at.clone()], w, excess[row]);
            let differ = compare(&got[at], &want, w);
            assert!(differ[0] <= 1e-6 && differ[1] <= 1e-6, "{norm}, row {row}: {differ:?}");
        }
    }
}
