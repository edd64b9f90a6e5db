//! Every method of training: its loss falls, it goes on to the same bits, and what cannot be combined is refused.

use crate::resume::{arguments, assert_same, in_pieces, metrics};
use crate::tiny::Tiny;
use adamant::data;
use adamant::nn::architectures;
use adamant::train::{EpochRecord, METHODS, Observer, Recipe, Trainer};
use adamant::{Device, Result};
use std::sync::atomic::AtomicBool;

/// A method by name, and what else its recipe says.
type Case = (&'static str, Box<dyn Fn(&mut Recipe)>);

/// The losses of epochs.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.0.push(record.loss);
        Ok(())
    }
}

#[test]
fn the_loss_of_every_method_falls_on_the_embedded_sample() {
    let data = data::load("mnist").unwrap().train;
    let awp = |recipe: &mut Recipe| (recipe.awp_gamma, recipe.awp_warmup) = (0.005, 1);
    let cases: Vec<Case> = METHODS
        .iter()
        .map(|&method| (method, Box::new(|_: &mut Recipe| {}) as Box<dyn Fn(&mut Recipe)>))
        .chain([
            ("pgd", Box::new(awp) as Box<dyn Fn(&mut Recipe)>),
            ("trades", Box::new(awp)),
            ("mart", Box::new(awp)),
            ("pgd", Box::new(|recipe| (recipe.norm, recipe.epsilon) = ("l1".into(), "1".into()))),
            ("pgd", Box::new(|recipe| recipe.keep_clean = true)),
            ("fgsm-rs", Box::new(|recipe| recipe.adversarial_ratio = 0.3)),
            ("free", Box::new(|recipe| recipe.label_smoothing = 0.1)),
            ("pgd", Box::new(|recipe| (recipe.restarts, recipe.use_best) = (2, true))),
            ("grad-align", Box::new(|recipe| recipe.grad_align_form = "first-order".into())),
            ("trades", Box::new(|recipe| recipe.attack_precision = "f16".into())),
        ])
        .collect();
    for (method, change) in cases {
        let mut recipe = Recipe {
            method: method.into(),
            model: "mlp-32".into(),
            epsilon: "0.03".into(),
            step_size: "0.015".into(),
            steps: 3,
            replays: 3,
            epsilon_warmup: 0.0,
            epochs: 4,
            batch: 50,
            train_images: 2000,
            validation: 0,
            probe: 0,
            weight_average: 0.0,
            schedule: "constant".into(),
            ..Recipe::default()
        };
        change(&mut recipe);
        let network = recipe.network(data.image, data.classes).unwrap();
        let mut trainer = Trainer::new(recipe, network, &data, &Device::cpu()).unwrap();
        let mut losses = Losses::default();
        trainer.run(&mut losses, &AtomicBool::new(false)).unwrap();
        let (name, all) = (trainer.method().name(), losses.0);
        assert!(all[3] < 0.9 * all[0], "{name}: {all:?}");
    }
}

#[test]
fn what_a_method_carries_is_gone_on_with() {
    // 1 902 to train on, in batches of 4: the last one is short.
    let tiny = Tiny::new(2002);
    let free = ["--method", "free", "--replays", "3"];
    let awp = ["--method", "trades", "--awp-gamma", "0.01", "--awp-warmup", "2", "--beta", "3"];
    let ducat = ["--method", "ducat", "--dummy-start", "2"];
    for (name, flags) in [("free", &free[..]), ("awp", &awp[..]), ("ducat", &ducat[..])] {
        let pieces = format!("{name}-pieces");
        tiny.runs(&arguments(&tiny, flags, name));
        in_pieces(&tiny, flags, &pieces);
        assert_same(&tiny, name, &pieces);
    }
    let state = tiny.read("free/resume.safetensors");
    let state = safetensors::SafeTensors::deserialize(&state).unwrap();
    assert!(state.tensor("free.perturbation").unwrap().data().iter().any(|&byte| byte != 0));
}

#[test]
fn dummy_classes_are_judged_raw_and_collapsed() {
    let tiny = Tiny::new(600);
    let flags = ["--method", "ducat", "--epochs", "4", "--test-steps", "5", "--out", "run"];
    let ran = tiny.runs(&tiny.short(&flags));
    for words in ["collapsed: PGD-5", "raw: PGD-5", "over-report", "training  ducat: PGD-5"] {
        assert!(ran.out.contains(words), "`{words}` is not in: {}", ran.out);
    }
    assert!(ran.err.contains("(raw "), "{}", ran.err);
    for record in metrics(&tiny, "run") {
        assert!(record["validation_raw"].is_f64() && record["validation_robust"].is_f64(), "{record}");
    }
    // The weights have two outputs a class.
    let weights = tiny.read("run/best.safetensors");
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    assert_eq!(weights.tensor("3.bias").unwrap().shape(), [8]);
}

#[test]
fn every_method_is_in_the_help() {
    let help = Tiny::new(300).runs(&["--help"]).out;
    for method in METHODS {
        assert!(help.contains(method), "{method}");
    }
    for name in architectures::names() {
        assert!(help.contains(name), "{name}");
    }
}

#[test]
fn what_cannot_be_combined_is_refused_and_says_why() {
    let tiny = Tiny::new(300);
    let refuses = |flags: &[&str], words: &[&str]| tiny.refuses(&tiny.short(flags), words);
    refuses(&["--method", "tradse"], &["method: `tradse`", "did you mean `trades`?"]);
    refuses(
        &["--method", "free", "--awp-gamma", "0.01"],
        &["awp gamma: 0.01", "share one pass", "pgd, trades, mart"],
    );
    refuses(&["--method", "fgsm", "--awp-gamma", "0.01"], &["awp gamma", "`fgsm`"]);
    refuses(&["--awp-gamma", "-0.1"], &["awp gamma: -0.1", "from 0 to 1"]);
    refuses(&["--awp-warmup", "3"], &["awp warm-up: 3", "awp-gamma is 0"]);
    refuses(
        &["--method", "trades", "--keep-clean", "true"],
        &["keep-clean", "`trades`", "clean part of its own"],
    );
    refuses(&["--method", "mart", "--adversarial-ratio", "0.5"], &["adversarial ratio: 0.5", "`mart`"]);
    refuses(&["--method", "mart", "--label-smoothing", "0.1"], &["label smoothing: 0.1", "one right class"]);
    refuses(&["--method", "ducat", "--keep-clean", "true"], &["keep-clean", "as it is"]);
    refuses(&["--method", "ducat", "--dummy-start", "9"], &["dummy start: 9", "1 epochs"]);
    refuses(&["--method", "ducat", "--dummy-clean", "2"], &["dummy clean: 2", "from 0 to 1"]);
    refuses(&["--method", "standard", "--keep-clean", "true"], &["keep-clean", "no adversarial images"]);
    refuses(
        &["--adversarial-ratio", "0.5", "--keep-clean", "true"],
        &["adversarial ratio", "one of the two"],
    );
    refuses(&["--adversarial-ratio", "0"], &["adversarial ratio: 0", "`standard`"]);
    refuses(&["--label-smoothing", "1"], &["label smoothing: 1", "below 1"]);
    for method in ["free", "n-fgsm", "grad-align"] {
        refuses(&["--method", method, "--norm", "l2"], &["norm: L2", method, "pgd, trades and mart"]);
    }
    refuses(&["--method", "fgsm", "--restarts", "3"], &["restarts: 3", "`fgsm` does without"]);
    refuses(&["--method", "free", "--use-best", "true"], &["use-best", "`free` does without"]);
    refuses(&["--method", "fgsm-rs", "--start", "none"], &["start: `none`", "`fgsm-rs` does without"]);
    refuses(&["--start", "uniforn"], &["start: `uniforn`", "did you mean `uniform`?"]);
    refuses(&["--start", "none", "--restarts", "2"], &["restarts: 2", "same place"]);
    refuses(&["--restarts", "0"], &["restarts: 0", "at least 1"]);
    refuses(&["--method", "trades", "--steps", "0"], &["steps: 0", "trades takes at least 1"]);
    refuses(&["--method", "trades", "--beta", "-1"], &["beta: -1", "from 0"]);
    refuses(&["--method", "free", "--replays", "0"], &["replays: 0", "from 1"]);
    refuses(&["--method", "n-fgsm", "--noise", "nan"], &["noise: NaN", "from 0"]);
    refuses(
        &["--method", "grad-align", "--grad-align-form", "exat"],
        &["form: `exat`", "did you mean `exact`?"],
    );
    refuses(&["--norm", "l3"], &["norm: `l3`", "did you mean"]);
}
