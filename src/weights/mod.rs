//! Weights on disk: safetensors and what `torch.save` writes, under the names of many programs, onto the networks here.
//!
//! ```text
//! file --dict.rs--> StateDict --names.rs--> parameters of a network --take--> Weights, in our layout
//!        safetensors.rs            names.toml, a user's table
//!        torch.rs, pickle/
//! ```
//!
//! What a file is, is told from its contents. Nothing in it is run (`pickle`), nothing it says of sizes is believed
//! before it is seen (`dict`). Which network it is of is known by its metadata, or told from names and shapes
//! ([`told`]).

mod dict;
mod names;
mod pickle;
pub(crate) mod safetensors;
mod told;
mod torch;

pub use dict::{Bytes, DType, StateDict};
pub use names::Names;
pub use told::told;

use crate::error::{Error, Result};
use crate::nn::{Architecture, Init, Param, Params, Role};
use names::Meaning;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Weights by name in our layout, for all of a network's parameters.
pub type Weights = Vec<(String, Vec<f32>)>;

/// How weights are taken from a file.
#[derive(Clone, Debug, Default)]
pub struct Taking {
    /// What its names mean.
    pub names: Names,
    /// Draws the last layer anew by this seed, and does not look at the file's: for other classes than it was trained
    /// with.
    pub redraw_last: Option<u64>,
}

/// The weights of an architecture in a file, or in the folder of a run: [`open`] and [`take`].
///
/// # Errors
/// Of those.
pub fn load(
    path: &Path,
    architecture: &dyn Architecture,
    params: &Params,
    taking: &Taking,
) -> Result<Weights> {
    take(&mut open(path, &taking.names)?, architecture, params, taking)
}

/// Opens a file of weights (safetensors, or `.pt` and `.pth` of PyTorch), or the weights in the folder of a run.
///
/// # Errors
/// As [`StateDict::open`] and [`find`].
pub fn open(path: &Path, names: &Names) -> Result<StateDict> {
    StateDict::open(&find(path)?, names.open())
}

/// The weights in the folder of a run, the best before the last ones; or the file itself.
///
/// # Errors
/// [`Error::File`] when there are none.
pub fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let names = ["best.safetensors", "weights.safetensors", "last.safetensors"];
    names.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        Error::file(
            path,
            format!("holds none of {}: give a file of weights, or the folder of a run", names.join(", ")),
        )
    })
}

/// Which tensor of a file is which parameter.
struct Fit {
    /// Names in the file, one for each parameter.
    tensors: Vec<Option<String>>,
    /// Names that mean nothing to the network.
    foreign: Vec<String>,
    /// A parameter, and two names that both mean it.
    twice: Option<[String; 3]>,
}

impl Fit {
    fn of(dict: &StateDict, names: &Names, architecture: &dyn Architecture, params: &Params) -> Fit {
        let places: HashMap<&str, usize> =
            params.iter().enumerate().map(|(at, param)| (param.name.as_str(), at)).collect();
        let mut fit = Fit { tensors: vec![None; params.len()], foreign: Vec::new(), twice: None };
        let wanted = |name: &str| places.contains_key(name) || architecture.unused(name);
        for (name, _) in dict.tensors() {
            match names.meaning(name, wanted) {
                Meaning::Parameter(means) => {
                    // Not a parameter's: of no use, as the architecture knows.
                    let Some(&at) = places.get(means.as_str()) else { continue };
                    if let Some(other) = fit.tensors[at].replace(name.to_string()) {
                        fit.twice = Some([means, other, name.to_string()]);
                    }
                }
                Meaning::LeftOut => {}
                Meaning::Unknown => fit.foreign.push(name.to_string()),
            }
        }
        fit
    }

    /// Parameters whose tensors have other extents, and what these are and would be.
    fn misshapen<'a>(
        &'a self,
        dict: &'a StateDict,
        params: &'a Params,
    ) -> impl Iterator<Item = (&'a Param, String)> {
        params.iter().zip(&self.tensors).filter_map(|(param, tensor)| {
            let name = tensor.as_ref()?;
            let dims = dict.get(name).map_or(&[][..], |(dims, _)| dims);
            let also = match *name == param.name {
                true => String::new(),
                false => format!(" (`{}`)", pickle::shown(name)),
            };
            let want = param.torch_shape();
            let text = || format!("`{}`{also} is {dims:?} instead of {want:?}", param.name);
            (!fits(param, dims)).then(|| (param, text()))
        })
    }

    /// Parameters that have to be there and are not. Constants, as the mean that pixels are normalised by, may be missing.
    fn missing<'a>(&self, params: &'a Params) -> Vec<&'a str> {
        let without = params.iter().zip(&self.tensors).filter(|(_, tensor)| tensor.is_none());
        without
            .filter(|(param, _)| param.role != Role::Constant)
            .map(|(param, _)| param.name.as_str())
            .collect()
    }
}

/// Extents of a tensor for a parameter, where they fit: its own in PyTorch, or for a constant with axes of extent 1 more.
fn fits(param: &Param, dims: &[usize]) -> bool {
    let want = param.torch_shape();
    let long = |dims: &[usize]| dims.iter().copied().filter(|&extent| extent != 1).collect::<Vec<_>>();
    dims == want || param.role == Role::Constant && long(dims) == long(&want)
}

/// The weights of an architecture out of a state dict under whatever names. Tensors that the architecture knows to be of
/// no use, and what the table leaves out, are left out; constants as the mean that pixels are normalised by may be
/// missing, and are then the architecture's own.
///
/// # Errors
/// [`Error::File`] when its tensors are not the architecture's: missing, surplus and misshapen ones are named; when they
/// are no numbers, or not finite. [`Error::Io`].
pub fn take(
    dict: &mut StateDict,
    architecture: &dyn Architecture,
    params: &Params,
    taking: &Taking,
) -> Result<Weights> {
    let path = dict.path().to_path_buf();
    let model = architecture.name();
    let drawn = taking.redraw_last.map(|seed| params.initial(seed));
    let last = params.iter().rev().find(|param| param.role == Role::Weight);
    let last = last.map_or("", |param| param.name.trim_end_matches("weight"));
    let is_last = |name: &str| name.strip_prefix(last).is_some_and(|rest| rest == "weight" || rest == "bias");
    let fit = Fit::of(dict, &taking.names, architecture, params);
    if let Some([param, one, other]) = &fit.twice {
        let why = format!(
            "has both `{}` and `{}` for `{param}`: say which by a table of names (one of them = \"\")",
            pickle::shown(one),
            pickle::shown(other)
        );
        return Err(Error::file(path, why));
    }
    let mut missing = fit.missing(params);
    missing.retain(|name| drawn.is_none() || !is_last(name));
    if !fit.foreign.is_empty() || !missing.is_empty() {
        let theirs = match dict.model() {
            Some(name) if name != model => format!("of `{}`, ", pickle::shown(name)),
            _ => String::new(),
        };
        let foreign: Vec<String> = fit.foreign.iter().map(|name| pickle::shown(name)).collect();
        let foreign: Vec<&str> = foreign.iter().map(String::as_str).collect();
        let hint = match told(dict, &taking.names, architecture.input(), architecture.classes()) {
            Ok(told) if told != model => format!(" (by their names and shapes that is `{told}`)"),
            _ => String::new(),
        };
        return Err(Error::file(
            path,
            format!(
                "holds weights {theirs}not of `{model}`: it lacks {} and has {} besides. Use the architecture that \
                 they were trained with{hint}, or the file that belongs here, or say by a table of names what they are",
                list(&missing, 4),
                list(&foreign, 8)
            ),
        ));
    }
    let redrawn = |param: &Param| drawn.is_some() && is_last(&param.name);
    let misshapen: Vec<(&Param, String)> =
        fit.misshapen(dict, params).filter(|(param, _)| !redrawn(param)).collect();
    if !misshapen.is_empty() {
        let hint = match misshapen.iter().all(|(param, _)| is_last(&param.name)) {
            true => {
                "; to train on another number of classes draw the last layer anew (train --weights-head redraw)"
            }
            false => "",
        };
        let what: Vec<&str> = misshapen.iter().map(|(_, text)| text.as_str()).collect();
        let why = format!(
            "holds weights of another architecture than `{model}`, or of another width, input or number of classes: {}{hint}",
            list(&what, 4)
        );
        return Err(Error::file(path, why));
    }
    let mut weights = Vec::with_capacity(params.len());
    for (at, (param, tensor)) in params.iter().zip(&fit.tensors).enumerate() {
        let name = param.name.clone();
        let tensor = match (tensor, &drawn, &param.init) {
            (_, Some(drawn), _) if is_last(&name) => {
                weights.push((name, drawn[at].clone()));
                continue;
            }
            (Some(tensor), _, _) => tensor,
            (None, _, Init::Given(values)) => {
                weights.push((name, values.to_vec()));
                continue;
            }
            (None, _, _) => return Err(Error::file(path, format!("`{name}` is missing"))),
        };
        let values = dict.read(tensor)?;
        weights.push((name, param.from_torch(&param.torch_shape(), &values)?));
    }
    Ok(weights)
}

/// "a, b and 3 more", with at most so many names.
fn list(names: &[&str], most: usize) -> String {
    match names {
        [] => "nothing".into(),
        names if names.len() > most => {
            format!("{} and {} more", names[..most].join(", "), names.len() - most)
        }
        names => names.join(", "),
    }
}
