//! The recipes under models/, by name, as part of the program: they are there wherever it runs.

use super::Recipe;
use crate::error::{Error, Result};
use std::path::Path;

/// A recipe that is built in.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name: that of its folder under models/.
    pub name: &'static str,
    /// The file models/NAME/recipe.toml.
    pub text: &'static str,
}

/// The recipes of these folders under models/.
macro_rules! built_in {
    ($($name:literal)*) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../../models/", $name, "/recipe.toml")) }),*]
    };
}

/// Every folder under models/ with a recipe (`tests/recipes.rs` holds that none is left out).
pub const BUILT_IN: &[BuiltIn] = built_in! {
    "cifar10-at-awp"
    "cifar10-ducat"
    "cifar10-fast-fgsm-rs"
    "cifar10-free"
    "cifar10-grad-align"
    "cifar10-mart"
    "cifar10-n-fgsm"
    "cifar10-n-fgsm-w16"
    "cifar10-rice-pgd"
    "cifar10-trades"
    "cifar10-trades-awp"
    "fashion-mnist-fast-pgd"
    "gtsrb-fgsm-rs"
    "mnist-fast-fgsm-rs"
    "mnist-fast-pgd"
    "mnist-fast-pgd40"
    "mnist-madry-pgd"
    "mnist-trades"
};

impl BuiltIn {
    /// The recipe itself.
    ///
    /// # Errors
    /// As [`Recipe::parse`]: never for those that the tests have read.
    pub fn recipe(&self) -> Result<Recipe> {
        Recipe::parse(self.text, Path::new(&format!("models/{}/recipe.toml", self.name)))
    }

    /// What it is, in its own words: the comment that the file begins with.
    pub fn about(&self) -> String {
        let comment = self.text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        comment.collect::<Vec<_>>().join(" ")
    }
}

/// The recipe that `spec` names: a file, or a folder's name under models/.
///
/// # Errors
/// As [`Recipe::read`] for a file; [`Error::Argument`] with the names there are for what is neither.
pub fn find(spec: &str) -> Result<Recipe> {
    let path = Path::new(spec);
    if path.exists() || spec.contains(['/', '\\']) || spec.ends_with(".toml") {
        return Recipe::read(path);
    }
    if let Some(found) = BUILT_IN.iter().find(|recipe| recipe.name == spec) {
        return found.recipe();
    }
    let names: Vec<&str> = BUILT_IN.iter().map(|recipe| recipe.name).collect();
    let mut error = Error::unknown("recipe", spec, &names);
    if let Error::Argument { why, .. } = &mut error {
        why.push_str(
            "; or the path of a recipe file, and there is no such file here (--list-recipes tells of each)",
        );
    }
    Err(error)
}
