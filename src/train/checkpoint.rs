//! Weights on disk, and everything a run needs to go on to the same bits.
//!
//! `last.safetensors` and `best.safetensors` hold weights under PyTorch's names in PyTorch's layout.
//! `resume.safetensors` holds weights, optimiser state, running metrics and the position, in our layout and to the
//! bit, with the recipe as metadata. Each is written beside, synced and renamed.
//!
//! The same contents give the same bytes, and each file carries the SHA-256 of all it says, so that a flipped bit is
//! an error and not a different result.

use super::{Recipe, Stopped};
use crate::error::{Error, Result};
use crate::files;
use crate::nn::{Architecture, Init, Params, Role};
use crate::shape::Shape;
use crate::tensor::{Host, Store};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Weights by name in our layout, for all of a network's parameters.
pub type Weights = Vec<(String, Vec<f32>)>;

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

/// A tensor to be written: name, type, extents, little-endian bytes.
type Written = (String, Dtype, Vec<usize>, Vec<u8>);

/// What PyTorch's `DataParallel` puts before every name.
const PARALLEL: &str = "module.";

/// Metadata key of the SHA-256 of everything else in a file.
const SHA256: &str = "sha256";

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

/// Reads weights in PyTorch's names and layout for an architecture. What `DataParallel` puts before names (`module.`)
/// is taken off; tensors that the architecture knows to be of no use, and counters of batch norm, are left out; constants
/// as the mean that pixels are normalised by may be missing.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] when it is no safetensors file, or its tensors are not the architecture's: missing,
/// surplus and misshapen ones are named.
pub fn load_weights(path: &Path, architecture: &dyn Architecture, params: &Params) -> Result<Weights> {
    load(path, architecture, params, None)
}

/// As [`load_weights`], but the last layer is drawn anew, by this seed, and the file's is not looked at: for other
/// classes than it was trained with.
///
/// # Errors
/// As [`load_weights`].
pub fn load_weights_but_last(
    path: &Path,
    architecture: &dyn Architecture,
    params: &Params,
    seed: u64,
) -> Result<Weights> {
    load(path, architecture, params, Some(seed))
}

/// The weights in the folder of a run, the best before the last ones; or the file itself.
///
/// # Errors
/// [`Error::File`] when there are none.
pub fn find_weights(path: &Path) -> Result<PathBuf> {
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

fn load(
    path: &Path,
    architecture: &dyn Architecture,
    params: &Params,
    redraw: Option<u64>,
) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "could not read the weights", e))?;
    let (file, metadata) = parse(path, &bytes)?;
    let model = architecture.name();
    let theirs = file.names();
    let parallel = !theirs.is_empty() && theirs.iter().all(|name| name.starts_with(PARALLEL));
    let bare =
        |name: &str| -> String { if parallel { name.replacen(PARALLEL, "", 1) } else { name.to_string() } };
    let stored = |name: &str| {
        let full = if parallel { format!("{PARALLEL}{name}") } else { name.to_string() };
        file.tensor(&full)
    };
    let drawn = redraw.map(|seed| params.initial(seed));
    let last = params.iter().rev().find(|param| param.role == Role::Weight);
    let last = last.map_or("", |param| param.name.trim_end_matches("weight"));
    let is_last = |name: &str| name.strip_prefix(last).is_some_and(|rest| rest == "weight" || rest == "bias");
    let given = |name: &str| drawn.is_some() && is_last(name);
    let known = |name: &str| {
        params.get(name).is_some() || name.ends_with("num_batches_tracked") || architecture.unused(name)
    };
    let names: Vec<String> = theirs.into_iter().map(bare).collect();
    let foreign: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !known(name) && !given(name)).collect();
    let missing: Vec<&str> = params
        .iter()
        .filter(|param| param.role != Role::Constant && !given(&param.name))
        .map(|param| param.name.as_str())
        .filter(|name| stored(name).is_err())
        .collect();
    if !foreign.is_empty() || !missing.is_empty() {
        let theirs = match metadata.get("model") {
            Some(name) if *name != model => format!("of `{name}`, "),
            _ => String::new(),
        };
        return Err(Error::file(
            path,
            format!(
                "holds weights {theirs}not of `{model}`: it lacks {} and has {} besides. Use the architecture that \
                 they were trained with, or the file that belongs here",
                list(&missing),
                list(&foreign)
            ),
        ));
    }
    let mut weights = Vec::new();
    for (at, param) in params.iter().enumerate() {
        if let Some(drawn) = drawn.as_ref().filter(|_| is_last(&param.name)) {
            weights.push((param.name.clone(), drawn[at].clone()));
            continue;
        }
        let tensor = match (stored(&param.name), &param.init) {
            (Err(_), Init::Given(values)) if param.role == Role::Constant => {
                weights.push((param.name.clone(), values.to_vec()));
                continue;
            }
            (tensor, _) => tensor.map_err(|e| Error::file(path, e.to_string()))?,
        };
        let values = floats(path, &param.name, &tensor)?;
        let wrong = |_| {
            let hint = match is_last(&param.name) {
                true => "; for another number of classes draw the last layer anew (--weights-head redraw)",
                false => "",
            };
            Error::file(
                path,
                format!(
                    "`{}` is {:?}, but in `{model}` it is {:?}: the weights of another architecture, or of another \
                     width, input or number of classes{hint}",
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

/// Writes a safetensors file. The library's own writer orders metadata differently in every run.
fn write(path: &Path, mut tensors: Vec<Written>, mut metadata: BTreeMap<String, String>) -> Result<()> {
    // Elements that need the widest alignment first: the data part starts at a multiple of 8.
    tensors.sort_by(|a, b| b.1.bitsize().cmp(&a.1.bitsize()).then_with(|| a.0.cmp(&b.0)));
    let contents = tensors.iter().map(|(name, _, _, bytes)| (name.as_str(), bytes.as_slice())).collect();
    metadata.insert(SHA256.into(), digest(&metadata, contents));
    let mut header = BTreeMap::from([("__metadata__".to_string(), json!(metadata))]);
    let mut end = 0;
    for (name, dtype, dims, bytes) in &tensors {
        let start = end;
        end += bytes.len();
        let entry = json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = json!(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    files::write_atomically_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, _, _, bytes)| file.write_all(bytes))
    })
}

/// SHA-256, in hexadecimal, over metadata and tensors in the order of their names.
fn digest(metadata: &BTreeMap<String, String>, mut tensors: Vec<(&str, &[u8])>) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in metadata.iter().filter(|(key, _)| *key != SHA256) {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    tensors.sort_unstable_by_key(|(name, _)| *name);
    for (name, bytes) in tensors {
        add(name.as_bytes());
        add(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A safetensors file and its metadata. Files of other programs carry no SHA-256, and are taken without.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<(SafeTensors<'a>, BTreeMap<String, String>)> {
    let damaged = |why: String| {
        Error::file(
            path,
            format!(
                "is not a whole safetensors file ({why}): it is damaged, or something else; use another copy"
            ),
        )
    };
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    let metadata: BTreeMap<String, String> =
        header.metadata().clone().unwrap_or_default().into_iter().collect();
    if let Some(sha256) = metadata.get(SHA256) {
        let tensors = file.tensors();
        let contents = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.data())).collect();
        if *sha256 != digest(&metadata, contents) {
            return Err(damaged("its contents do not have the SHA-256 it says".into()));
        }
    }
    Ok((file, metadata))
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
