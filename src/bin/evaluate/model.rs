//! The network that is evaluated: where its weights, its recipe and its data are.

use super::request::Request;
use adamant::data::{self, Data, Examples};
use adamant::nn::{Architecture, Collapsed, Mode, Onnx, Params, architectures};
use adamant::report::evaluation::Subject;
use adamant::train::{Recipe, method};
use adamant::weights::{self, Names, StateDict, Taking, Weights};
use adamant::{Error, Result, files};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A network as it was found.
pub(crate) struct Model {
    /// The file of weights.
    pub(crate) file: PathBuf,
    /// What it is called.
    pub(crate) name: String,
    /// What its weights alone do not say: the architecture's name, or the SHA-256 of a file that holds the network itself.
    pub(crate) identity: String,
    /// How it was trained, where that is known.
    pub(crate) recipe: Option<Recipe>,
    pub(crate) network: Box<dyn Architecture>,
    pub(crate) params: Params,
    pub(crate) weights: Weights,
    /// Whether each class has a second output, and the network is judged by what they collapse to.
    pub(crate) dummies: bool,
    pub(crate) data: Rc<Data>,
    /// What is to be known of how it was read, a line each: where in the file the weights were, what pixels it takes, what it
    /// does otherwise than it was exported.
    pub(crate) said: Vec<String>,
}

impl Model {
    /// What it is judged by: a network with dummy classes by what they collapse to.
    pub(crate) fn collapsed(&self) -> Option<Collapsed<'_>> {
        self.dummies.then(|| Collapsed(self.network.as_ref()))
    }

    /// What is evaluated.
    pub(crate) fn subject<'a>(&'a self, collapsed: &'a Option<Collapsed<'a>>) -> Subject<'a> {
        Subject {
            name: &self.name,
            identity: &self.identity,
            architecture: collapsed.as_ref().map_or(self.network.as_ref(), |collapsed| collapsed),
            params: &self.params,
            weights: &self.weights,
            data: &self.data.test,
            mode: Mode::Eval,
        }
    }

    /// Finds what a request names, and loads it.
    pub(crate) fn load(request: &Request) -> Result<Model> {
        let place = place(&request.subject)?;
        let recipe = recipe(&place)?;
        let spec = request.data.as_ref().or(recipe.as_ref().map(|recipe| &recipe.data)).ok_or_else(|| {
            Error::argument("data", "none", "say by --data what the network is to be tested on")
        })?;
        let size = request.image_size.or(recipe.as_ref().map(|recipe| recipe.image_size)).unwrap_or(0);
        let data = data::load_sized(spec, size).map_err(|error| match error {
            Error::Argument { what, value, why } if request.data.is_none() => {
                let why =
                    format!("{why}. The network's recipe names it: say by --data where those data are here");
                Error::Argument { what, value, why }
            }
            other => other,
        });
        let data = Rc::new(data?);
        if !place.is_dir() && Onnx::is_file(&place)? {
            for (flag, given) in [("model", &request.model), ("weights-names", &request.weights_names)] {
                if let Some(given) = given {
                    let why = "an ONNX file says itself what it computes: leave this out";
                    return Err(Error::argument(flag, format!("`{given}`"), why));
                }
            }
            return Model::onnx(place, data);
        }
        Model::read(place, recipe, request.model.as_deref(), request.weights_names.as_deref(), data)
    }

    /// Finds another network, that sees the same data: by its recipe where it has one, else as its file tells of itself.
    /// Names in its file are read by the same table.
    pub(crate) fn beside(&self, other: &str, request: &Request) -> Result<Model> {
        let read = || {
            let place = place(other)?;
            if !place.is_dir() && Onnx::is_file(&place)? {
                return Model::onnx(place, self.data.clone());
            }
            let recipe = recipe(&place)?;
            Model::read(place, recipe, None, request.weights_names.as_deref(), self.data.clone())
        };
        read().map_err(|error| {
            let why = format!(
                "{error}; another network has to take {:?} {} in {} classes, and a file of weights has to tell its \
                 architecture: else give the folder of its run, or an ONNX file",
                self.data.test.image,
                self.data.test.kind(),
                self.data.test.classes
            );
            Error::argument("transfer", format!("`{other}`"), why)
        })
    }

    /// The network whose weights are at `place`, of this recipe, else of the architecture `given`, else of what the file tells.
    fn read(
        place: PathBuf,
        recipe: Option<Recipe>,
        given: Option<&str>,
        table: Option<&str>,
        data: Rc<Data>,
    ) -> Result<Model> {
        let (image, classes) = (data.test.image, data.test.classes);
        let table = table.map(Path::new);
        let taking =
            Taking { names: table.map_or_else(|| Ok(Names::default()), Names::read)?, redraw_last: None };
        let file = weights::find(&place)?;
        let mut dict = weights::open(&file, &taking.names)?;
        let name = match given.or(recipe.as_ref().map(|recipe| recipe.model.as_str())) {
            Some(name) => name.to_string(),
            None => weights::told(&dict, &taking.names, image, classes)?,
        };
        let (network, dummies) = match &recipe {
            Some(recipe) => {
                let recipe = Recipe { model: name, ..recipe.clone() };
                (recipe.network(image, classes)?, method(&recipe)?.has_dummies())
            }
            None => (architectures::by_name(&name, image, classes)?, false),
        };
        let params = Params::of(network.as_ref())?;
        let weights = weights::take(&mut dict, network.as_ref(), &params, &taking).map_err(|error| {
            let ([rows, columns, channels], kind) = (image, data.test.kind());
            match error {
                Error::File { path, why } => {
                    let why = format!(
                        "{why}. (It is to take the {kind} of `{}`: {rows}x{columns} with {channels} channels, in {classes} \
                         classes)",
                        data.test.name
                    );
                    Error::File { path, why }
                }
                other => other,
            }
        })?;
        let name = network.name();
        let identity = name.clone();
        let images = matches!(data.test.examples, Examples::Images(_));
        let pixels = (images && recipe.is_none()).then(|| pixels(&dict, &name, &weights)).flatten();
        let said = opened(&dict).into_iter().chain(pixels).collect();
        Ok(Model { file, identity, name, recipe, network, params, weights, dummies, data, said })
    }

    /// The network in an ONNX file, which says all of it.
    fn onnx(file: PathBuf, data: Rc<Data>) -> Result<Model> {
        let network = Onnx::open_for(&file, Some(data.test.image))?;
        if network.classes() != data.test.classes {
            let why =
                format!("has {} classes, `{}` {}", network.classes(), data.test.name, data.test.classes);
            return Err(Error::file(&file, why));
        }
        let params = Params::of(&network)?;
        let values = params.initial(0);
        let weights = params.iter().map(|param| param.name.clone()).zip(values).collect();
        let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, "could not read the network", e))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let identity = format!("ONNX {}", files::sha256(&bytes));
        let said = match network.exported_in_training() {
            [] => Vec::new(),
            [first, ..] => vec![format!(
                "note: {} of its nodes were exported as in training (`{first}`): they are evaluated as in use, batch norms by \
                 their running statistics, dropout without dropping",
                network.exported_in_training().len()
            )],
        };
        let network = Box::new(network);
        let (recipe, dummies) = (None, false);
        Ok(Model { file, identity, name, recipe, network, params, weights, dummies, data, said })
    }
}

/// What pixels a network of this name takes that was trained elsewhere: normalisation is often no part of a file of weights, and
/// then is guessed or left out.
fn pixels(dict: &StateDict, name: &str, weights: &Weights) -> Option<String> {
    let of = |what: &str| weights.iter().find(|(name, _)| name.ends_with(what)).map(|(_, values)| values);
    match (of("normalize.mean"), of("normalize.std")) {
        _ if dict.tensors().any(|(name, _)| name.ends_with("normalize.mean")) => None,
        (Some(mean), Some(std)) => Some(format!(
            "note: pixels are normalised by mean {mean:?} and deviation {std:?}, the usual ones of such images: the file has none"
        )),
        _ => Some(format!(
            "note: pixels go in as they are, from 0 to 1: where the network was trained on normalised ones, say --model \
             {name}-normalized"
        )),
    }
}

/// Where in a file that holds more its weights were.
fn opened(dict: &StateDict) -> Option<String> {
    if dict.opened().is_empty() {
        return None;
    }
    let others: Vec<String> = dict.beside().iter().map(|key| format!("`{key}`")).collect();
    let rest = match dict.beside() {
        [] => String::new(),
        [first, ..] => format!(
            "; it has weights in {} too (--weights-names FILE with open = \"{first}\" takes those)",
            others.join(", ")
        ),
    };
    Some(format!("taken from `{}` in it{rest}", dict.opened().join(".")))
}

/// How the network in a folder was trained, where that is said.
fn recipe(place: &Path) -> Result<Option<Recipe>> {
    let files = ["config.toml", "recipe.toml"].map(|name| place.join(name));
    files.iter().find(|file| file.is_file()).map(|file| Recipe::read(file)).transpose()
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
    let what = "the folder of a run, or a file of weights or of a network (ONNX)";
    if names.is_empty() {
        let why = format!("there is no such file or folder here; give {what}");
        return Err(Error::argument("model", format!("`{subject}`"), why));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut error = Error::unknown("model", subject, &names);
    if let Error::Argument { why, .. } = &mut error {
        why.push_str(&format!("; or give {what}: there is none of this name here"));
    }
    Err(error)
}
