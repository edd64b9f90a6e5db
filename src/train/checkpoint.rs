//! Weights on disk, and everything a run needs to go on to the same bits.
//!
//! `last.safetensors` and `best.safetensors` hold weights under PyTorch's names in PyTorch's layout.
//! `resume.safetensors` holds weights, optimiser state, running metrics and the position, in our layout and to the
//! bit, with the recipe as metadata. Each is written beside, synced and renamed.
//!
//! The same contents give the same bytes, and each file carries the SHA-256 of all it says, so that a flipped bit is
//! an error and not a different result ([`crate::weights`]).

use super::{Recipe, Stopped};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Params, Role};
use crate::shape::Shape;
use crate::tensor::{Host, Store};
use crate::weights::safetensors::{parse, write};
use crate::weights::{self, Taking, Weights};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// Robust accuracy on the probe images after the last epoch.
    #[serde(default)]
    pub probe: Option<f64>,
    /// Whether the network is in a catastrophic overfitting that has been told of.
    #[serde(default)]
    pub collapsed: bool,
    /// Why the run ended before its last epoch, where it did.
    #[serde(default)]
    pub stopped: Option<Stopped>,
}

/// Tensors of a store by name: all that the steps to come depend on.
pub type State = Vec<(String, Host)>;

/// Everything that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its recipe.
    pub recipe: Recipe,
    /// SHA-256 of the training data, as [`crate::data::Dataset::sha256`].
    pub data: String,
    /// Where it stands.
    pub position: Position,
    /// Tensors of the store by name, in our layout.
    pub state: State,
}

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
    // What PyTorch's own tools write into and look for in a safetensors file.
    let format = ("format".to_string(), "pt".to_string());
    write(path, tensors, BTreeMap::from([format, ("model".to_string(), model.to_string())]))
}

/// Writes logits `[images, classes]` as the tensor `logits`, to compare with another program's.
///
/// # Errors
/// [`Error::Io`].
pub fn save_logits(path: &Path, logits: &[f32], classes: usize) -> Result<()> {
    let dims = vec![logits.len() / classes.max(1), classes];
    let tensor = ("logits".to_string(), Dtype::F32, dims, bytemuck::cast_slice(logits).to_vec());
    write(path, vec![tensor], BTreeMap::new())
}

/// The weights of an architecture in a file or in the folder of a run: [`weights::load`], names read by the built-in table.
///
/// # Errors
/// As [`weights::load`].
pub fn load_weights(path: &Path, architecture: &dyn Architecture, params: &Params) -> Result<Weights> {
    weights::load(path, architecture, params, &Taking::default())
}

/// Writes `resume.safetensors`.
///
/// # Errors
/// [`Error::Io`].
pub fn save_resume(path: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let tensors = checkpoint
        .state
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
    let metadata = BTreeMap::from([
        ("recipe".to_string(), json(serde_json::to_string(&checkpoint.recipe))?),
        ("position".to_string(), json(serde_json::to_string(&checkpoint.position))?),
        ("data".to_string(), checkpoint.data.clone()),
    ]);
    write(path, tensors, metadata)
}

/// Reads what [`save_resume`] wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] when it is damaged or something else.
pub fn load_resume(path: &Path) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "could not read the checkpoint", e))?;
    let (file, metadata) = parse(path, &bytes)?;
    let entry = |key: &str| {
        metadata.get(key).ok_or_else(|| {
            Error::file(path, format!("has no `{key}`: it is not the resume.safetensors of a run"))
        })
    };
    let read = |e: serde_json::Error| Error::file(path, format!("is of another version of adamant: {e}"));
    let recipe: Recipe = serde_json::from_str(entry("recipe")?).map_err(read)?;
    recipe.check().map_err(|e| Error::file(path, e.to_string()))?;
    let position = serde_json::from_str(entry("position")?).map_err(read)?;
    let mut state = Vec::new();
    for (name, tensor) in file.tensors() {
        let data = tensor.data();
        let host = match tensor.dtype() {
            Dtype::F32 => Host::F32(bytemuck::pod_collect_to_vec(data)),
            Dtype::F64 => Host::F64(bytemuck::pod_collect_to_vec(data)),
            Dtype::U32 => Host::U32(bytemuck::pod_collect_to_vec(data)),
            Dtype::U8 => Host::U8(data.to_vec()),
            other => return Err(Error::file(path, format!("`{name}` is {other:?}, which no run has"))),
        };
        state.push((name, host));
    }
    Ok(Checkpoint { recipe, data: entry("data")?.clone(), position, state })
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
