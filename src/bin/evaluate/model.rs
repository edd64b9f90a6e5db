//! The network that is evaluated: where its weights, its recipe and its data are.

use super::request::Request;
use adamant::data::{self, Data};
use adamant::nn::{Architecture, Params, architectures};
use adamant::train::checkpoint::{self, Weights};
use adamant::train::{Recipe, method};
use adamant::{Error, Result};
use std::path::{Path, PathBuf};

/// A network as it was found.
pub(crate) struct Model {
    /// The file of weights.
    pub(crate) file: PathBuf,
    /// How it was trained, where that is known.
    pub(crate) recipe: Option<Recipe>,
    pub(crate) network: Box<dyn Architecture>,
    pub(crate) params: Params,
    pub(crate) weights: Weights,
    /// Whether each class has a second output, and the network is judged by what they collapse to.
    pub(crate) dummies: bool,
    pub(crate) data: Data,
}

impl Model {
    /// Finds what a request names, and loads it.
    pub(crate) fn load(request: &Request) -> Result<Model> {
        let place = place(&request.subject)?;
        let recipe = match place.is_dir() {
            true => ["config.toml", "recipe.toml"]
                .iter()
                .map(|name| place.join(name))
                .find(|file| file.is_file())
                .map(|file| Recipe::read(&file))
                .transpose()?,
            false => None,
        };
        let file = checkpoint::find_weights(&place)?;
        let name = request.model.as_ref().or(recipe.as_ref().map(|recipe| &recipe.model)).ok_or_else(|| {
            let why = "is weights alone: say by --model NAME what network they are of (train --help lists them)";
            Error::file(&file, why)
        })?;
        let spec = request.data.as_ref().or(recipe.as_ref().map(|recipe| &recipe.data)).ok_or_else(|| {
            Error::argument("data", "none", "say by --data what the network is to be tested on")
        })?;
        let size = request.image_size.or(recipe.as_ref().map(|recipe| recipe.image_size)).unwrap_or(0);
        let data = data::load_sized(spec, size)?;
        let (image, classes) = (data.test.image, data.test.classes);
        let (network, dummies) = match &recipe {
            Some(recipe) => {
                let recipe = Recipe { model: name.clone(), ..recipe.clone() };
                (recipe.network(image, classes)?, method(&recipe)?.has_dummies())
            }
            None => (architectures::by_name(name, image, classes)?, false),
        };
        let params = Params::of(network.as_ref())?;
        let weights = checkpoint::load_weights(&file, network.as_ref(), &params)?;
        Ok(Model { file, recipe, network, params, weights, dummies, data })
    }
}

/// What is meant: a path, or a name under models/.
fn place(subject: &str) -> Result<PathBuf> {
    let path = PathBuf::from(subject);
    if path.exists() {
        return Ok(path);
    }
    let named = Path::new("models").join(subject);
    if !subject.contains(['/', '\\']) && named.is_dir() {
        return Ok(named);
    }
    let folders = std::fs::read_dir("models").into_iter().flatten().flatten();
    let mut names: Vec<String> = folders
        .filter(|entry| entry.path().join("weights.safetensors").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut error = Error::unknown("model", subject, &names);
    if let Error::Argument { why, .. } = &mut error {
        why.push_str("; or the folder of a run, or a file of weights, and there is none of this name here");
    }
    Err(error)
}
