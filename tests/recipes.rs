//! The recipes under models/: built in, whole, and made of what there is.

use adamant::nn::Params;
use adamant::train::recipes::{self, BUILT_IN};
use adamant::train::{Optimizer, Recipe, Schedule, method};
use std::path::{Path, PathBuf};

/// Keys that every recipe has to name: what they are without it is right for the main job alone.
const NAMED: [&str; 25] = [
    "data",
    "classes",
    "image",
    "model",
    "method",
    "norm",
    "epsilon",
    "steps",
    "step_size",
    "start",
    "attack_batch_norm",
    "epsilon_warmup",
    "epochs",
    "batch",
    "optimizer",
    "learning_rate",
    "schedule",
    "momentum",
    "nesterov",
    "weight_decay",
    "weight_average",
    "validation",
    "validation_steps",
    "augment",
    "seed",
];

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// Folders under models/ that hold a recipe.
fn folders() -> Vec<String> {
    let entries = std::fs::read_dir(models()).unwrap().map(|entry| entry.unwrap());
    let recipes = entries.filter(|entry| entry.path().join("recipe.toml").is_file());
    let mut names: Vec<String> = recipes.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_recipe_is_built_in() {
    let mut built_in: Vec<&str> = BUILT_IN.iter().map(|recipe| recipe.name).collect();
    built_in.sort();
    assert_eq!(built_in, folders());
}

#[test]
fn every_recipe_is_whole_and_what_it_names_is_there() {
    for built_in in BUILT_IN {
        let (name, recipe) = (built_in.name, built_in.recipe().unwrap_or_else(|e| panic!("{e}")));
        let table: toml::Table = toml::from_str(built_in.text).unwrap();
        for key in NAMED {
            assert!(table.contains_key(key), "{name} does not say its {key}");
        }
        let image = <[usize; 3]>::try_from(recipe.image.clone()).unwrap();
        let architecture = recipe.network(image, recipe.classes).unwrap();
        assert!(Params::of(architecture.as_ref()).unwrap().count() > 1000, "{name}");
        method(&recipe).unwrap();
        Optimizer::of(&recipe).unwrap();
        Schedule::of(&recipe).unwrap();
        assert!(built_in.about().len() > 20, "{name}: {}", built_in.about());
        // What is resolved is what a run saves, and is read again as the same.
        let saved = recipe.to_toml().unwrap();
        assert_eq!(Recipe::parse(&saved, Path::new("config.toml")).unwrap(), recipe, "{name}");
        assert_eq!(recipes::find(name).unwrap(), recipe);

        let card = std::fs::read_to_string(models().join(name).join("card.md")).unwrap();
        assert!(card.starts_with(&format!("# {name}\n")), "the card of {name} begins with another name");
        assert!(card.contains(&format!("--recipe {name}")), "{name}: no command that measures it");
        let measured =
            card.contains("not measured yet") || (card.contains("PGD-") && card.contains("restart"));
        assert!(measured, "{name}: neither figures with their attack nor that there are none");
    }
}

#[test]
fn a_name_that_is_none_is_told_of() {
    let error = recipes::find("mnist-fast-pdg").unwrap_err().to_string();
    assert!(error.contains("did you mean `mnist-fast-pgd`?") && error.contains("--list-recipes"), "{error}");
    let error = recipes::find("nowhere/recipe.toml").unwrap_err().to_string();
    assert!(error.contains("could not read"), "{error}");
}
