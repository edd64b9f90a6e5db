//! Weights on disk, and everything a run needs to go on to the same bits.
//!
//! `last.safetensors` and `best.safetensors` hold weights under PyTorch's names in PyTorch's layout.
//! `resume.safetensors` holds weights, optimiser state, running metrics and the position, in our layout and to the
//! bit, with the recipe as metadata. Each is written beside, synced and renamed.

use super::Recipe;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::{Architecture, Params, Role};
use crate::shape::Shape;
use crate::tensor::{Host, Store};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs that are done.
    pub epoch: u32,
    /// Steps that are done of the next one.
    pub step: u32,
    /// Steps that are done since the run began.
    pub steps: u64,
    /// Seconds spent on the epoch that is under way.
    pub seconds: f64,
    /// Robust (or, for standard training, clean) validation accuracy of the best weights so far, and their epoch.
    pub best: Option<(f64, u32)>,
}

/// Weights by name in our layout, for all of a network's parameters.
pub type Weights = Vec<(String, Vec<f32>)>;

/// Tensors of a store by name: all that the steps to come depend on.
pub type State = Vec<(String, Host)>;

/// Writes weights under PyTorch's names and in its layout. `batches` is what PyTorch's batch norms count
/// (`num_batches_tracked`): training steps.
///
/// # Errors
/// [`Error::Io`].
pub fn save_weights(
    path: &Path,
    model: &str,
    params: &Params,
    weights: &Weights,
    batches: u64,
) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, values) in weights {
        let (dims, values) = params.to_torch(name, values)?;
        tensors.push((name.clone(), Dtype::F32, dims, bytemuck::cast_slice(&values).to_vec()));
        if let Some(param) = params.get(name)
            && param.role == Role::RunningVar
        {
            let count = name.replace("running_var", "num_batches_tracked");
            tensors.push((count, Dtype::I64, vec![], (batches as i64).to_le_bytes().to_vec()));
        }
    }
    let metadata = HashMap::from([("format".into(), "pt".into()), ("model".into(), model.into())]);
    write(path, &tensors, metadata)
}

/// Reads weights in PyTorch's names and layout for an architecture.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] when it is no safetensors file, or its tensors are not the architecture's.
pub fn load_weights(path: &Path, architecture: &dyn Architecture, params: &Params) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "reading weights", e))?;
    let file = parse(path, &bytes)?;
    let model = architecture.name();
    let known = |name: &str| params.get(name).is_some() || name.ends_with("num_batches_tracked");
    let foreign: Vec<&str> = file.names().into_iter().filter(|name| !known(name)).collect();
    let missing: Vec<&str> =
        params.iter().map(|p| p.name.as_str()).filter(|name| file.tensor(name).is_err()).collect();
    if !foreign.is_empty() || !missing.is_empty() {
        return Err(Error::file(
            path,
            format!(
                "these are not weights of `{model}`: it lacks {}, and has {} besides. Name the architecture they \
                 were trained with by --model",
                list(&missing),
                list(&foreign)
            ),
        ));
    }
    let mut weights = Vec::new();
    for param in params {
        let tensor = file.tensor(&param.name).map_err(|e| Error::file(path, e.to_string()))?;
        let values = floats(path, &param.name, &tensor)?;
        let wrong = |_| {
            Error::file(
                path,
                format!(
                    "`{}` is {:?}, but in `{model}` it is {:?}: the weights of another architecture, or of another \
                     width, input or number of classes",
                    param.name,
                    tensor.shape(),
                    param.torch_shape()
                ),
            )
        };
        weights.push((param.name.clone(), param.from_torch(tensor.shape(), &values).map_err(wrong)?));
    }
    Ok(weights)
}

/// Writes tensors of the store, the position and the recipe.
///
/// # Errors
/// [`Error::Io`].
pub fn save_resume(
    path: &Path,
    recipe: &Recipe,
    position: &Position,
    state: &[(String, Host)],
) -> Result<()> {
    let tensors: Vec<_> = state
        .iter()
        .map(|(name, host)| {
            let (dtype, bytes) = match host {
                Host::F32(v) => (Dtype::F32, bytemuck::cast_slice(v).to_vec()),
                Host::F64(v) => (Dtype::F64, bytemuck::cast_slice(v).to_vec()),
                Host::U32(v) => (Dtype::U32, bytemuck::cast_slice(v).to_vec()),
                Host::U8(v) => (Dtype::U8, v.clone()),
            };
            (name.clone(), dtype, vec![bytes.len() / (dtype.bitsize() / 8)], bytes)
        })
        .collect();
    let json = |what: std::result::Result<String, serde_json::Error>| {
        what.map_err(|e| Error::Unsupported(format!("checkpoint metadata: {e}")))
    };
    let metadata = HashMap::from([
        ("recipe".to_string(), json(serde_json::to_string(recipe))?),
        ("position".to_string(), json(serde_json::to_string(position))?),
    ]);
    write(path, &tensors, metadata)
}

/// Reads what [`save_resume`] wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] when it is corrupt.
pub fn load_resume(path: &Path) -> Result<(Recipe, Position, State)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "reading the checkpoint", e))?;
    let file = parse(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(path, &e.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let entry = |key: &str| {
        metadata
            .get(key)
            .ok_or_else(|| corrupt(path, &format!("it has no `{key}`; is it a resume.safetensors?")))
    };
    let recipe = serde_json::from_str(entry("recipe")?).map_err(|e| corrupt(path, &e.to_string()))?;
    let position = serde_json::from_str(entry("position")?).map_err(|e| corrupt(path, &e.to_string()))?;
    let mut state = Vec::new();
    for (name, tensor) in file.tensors() {
        let data = tensor.data();
        let host = match tensor.dtype() {
            Dtype::F32 => Host::F32(bytemuck::pod_collect_to_vec(data)),
            Dtype::F64 => Host::F64(bytemuck::pod_collect_to_vec(data)),
            Dtype::U32 => Host::U32(bytemuck::pod_collect_to_vec(data)),
            Dtype::U8 => Host::U8(data.to_vec()),
            other => return Err(corrupt(path, &format!("`{name}` is {other:?}"))),
        };
        state.push((name, host));
    }
    Ok((recipe, position, state))
}

/// Puts weights into a store by their names.
///
/// # Errors
/// As [`Store::put`].
pub fn put_weights(store: &Store, params: &Params, weights: &Weights) -> Result<()> {
    for (name, values) in weights {
        let shape = params.get(name).map_or(Shape::new(&[values.len()]), |param| param.shape);
        store.put(name, shape, &Host::F32(values.clone()))?;
    }
    Ok(())
}

fn write(
    path: &Path,
    tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let refuse = |e: safetensors::SafeTensorError| Error::file(path, format!("cannot be written: {e}"));
    let views = tensors
        .iter()
        .map(|(name, dtype, dims, bytes)| Ok((name.as_str(), TensorView::new(*dtype, dims.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(refuse)?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(refuse)?;
    files::write_atomically(path, &bytes)
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| corrupt(path, &e.to_string()))
}

fn corrupt(path: &Path, why: &str) -> Error {
    Error::file(
        path,
        format!("not a whole safetensors file ({why}): damaged, or not a checkpoint; use another one"),
    )
}

fn floats(path: &Path, name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>> {
    match tensor.dtype() {
        Dtype::F32 => Ok(bytemuck::pod_collect_to_vec(tensor.data())),
        other => Err(Error::file(path, format!("`{name}` is {other:?}, but f32 is needed"))),
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "nothing".into(),
        names if names.len() > 4 => format!("{} and {} more", names[..4].join(", "), names.len() - 4),
        names => names.join(", "),
    }
}
