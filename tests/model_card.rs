//! The hardened models under models/: their recipes are whole, their weights do what the card says, and every device
//! gives the same verdicts.

use adamant::attack::{Classifier, Evaluation, Inputs, Norm, Pgd, Rational, ThreatModel, Verdicts};
use adamant::nn::{Mode, Params, architectures};
use adamant::plan::Precision;
use adamant::train::{Recipe, checkpoint, examples};
use adamant::{Device, Store, data};
use std::path::Path;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd")
}

#[test]
fn the_main_job_is_the_recipe_of_its_model() {
    let recipe = Recipe::read(&folder().join("recipe.toml")).unwrap();
    // The recipe says what data it is for, which the main job takes as they come.
    assert_eq!(Recipe { classes: 0, image: Vec::new(), ..recipe }, Recipe::default());
}

#[test]
fn every_model_has_a_whole_recipe_a_card_and_weights_that_fit() {
    let models = std::fs::read_dir(folder().parent().unwrap()).unwrap();
    let models = models.map(|entry| entry.unwrap().path());
    for model in models.filter(|model| model.join("weights.safetensors").is_file()) {
        let recipe = Recipe::read(&model.join("recipe.toml")).unwrap();
        let architecture =
            architectures::by_name(&recipe.model, recipe.image.clone().try_into().unwrap(), recipe.classes)
                .unwrap();
        let params = Params::of(architecture.as_ref()).unwrap();
        checkpoint::load_weights(&model.join("weights.safetensors"), architecture.as_ref(), &params).unwrap();
        let card = std::fs::read_to_string(model.join("card.md")).unwrap();
        assert!(
            card.contains("PGD-") && card.contains("restart"),
            "{}: an accuracy without its attack",
            model.display()
        );
    }
}

/// PGD-40 (step 0.01, random start) on the 2 000 test images of the sample.
fn attack(device: &Device) -> Verdicts {
    let data = data::load("mnist").unwrap().test;
    let architecture = architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let weights =
        checkpoint::load_weights(&folder().join("weights.safetensors"), architecture.as_ref(), &params);
    let store = Store::new(device);
    checkpoint::put_weights(&store, &params, &weights.unwrap()).unwrap();
    examples::put(&store, "test", &data).unwrap();
    let threat = ThreatModel { norm: Norm::Linf, epsilon: Rational::from(0.3) };
    let pgd = Pgd { threat, steps: 40, step_size: Rational::from(0.01), random_start: true };
    let on = Classifier {
        architecture: architecture.as_ref(),
        mode: Mode::Eval,
        examples: data.len(),
        inputs: Inputs::Images,
        precision: Precision::F32,
    };
    let judge = Evaluation::compile(&store, &pgd, on, "test", 250).unwrap();
    let all: Vec<u32> = (0..data.len() as u32).collect();
    judge.run(&all, &data.labels, 1, 0, |_, _| {}).unwrap()
}

#[test]
fn the_card_is_true_and_every_device_agrees() {
    let cpu = attack(&Device::cpu());
    // The card's figures, to the few images by which the order of sums may differ between processors.
    assert!(cpu.clean_count().abs_diff(1964) <= 2, "clean: {} of 2 000", cpu.clean_count());
    assert!(cpu.robust_count().abs_diff(1773) <= 4, "PGD-40: {} of 2 000", cpu.robust_count());
    let adapters = Device::adapters();
    assert!(
        !adapters.is_empty(),
        "no GPU adapter: install one, on Debian `apt-get install mesa-vulkan-drivers`"
    );
    for adapter in &adapters {
        let gpu = attack(&Device::gpu(adapter).unwrap());
        let agree = cpu.robust.iter().zip(&gpu.robust).filter(|(a, b)| a == b).count();
        println!("{adapter}: {agree} of {} verdicts agree with the CPU executor", cpu.robust.len());
        assert!(agree * 1000 >= cpu.robust.len() * 995, "{adapter}: only {agree} verdicts agree");
    }
}
