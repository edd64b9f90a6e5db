//! What every Rust peer needs: the conversation with tools/compare (benches/compare/worker.rs lists what is asked and
//! answered), tensor files, and the networks, written once over the few operations a peer offers.

mod networks;

pub use networks::{Engine, forward};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A work; benches/compare/work.rs says what each is.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Work {
    Logits { net: String },
    Gradient { net: String },
    Train { net: String, steps: usize, epsilon: String, step_size: String, learning_rate: f64 },
    Convolution { what: What, batch: usize, size: usize, inputs: usize, outputs: usize },
    Product,
}

/// What of a convolution is computed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The result.
    Forward,
    /// The gradient by the input.
    InputGradient,
    /// The gradient by the filter.
    WeightGradient,
}

/// A number given as a decimal or a fraction.
pub fn number(text: &str) -> Result<f64, String> {
    let parse = |part: &str| part.parse::<f64>().map_err(|e| format!("{text}: {e}"));
    match text.split_once('/') {
        Some((over, under)) => Ok(parse(over)? / parse(under)?),
        None => parse(text),
    }
}

/// A tensor in PyTorch's layout.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

/// Named tensors.
pub type Tensors = BTreeMap<String, Tensor>;

fn read(path: &Path) -> Result<Tensors, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let read = |(name, view): (&str, TensorView)| {
        let values = bytemuck::pod_collect_to_vec(view.data());
        (name.to_string(), Tensor { shape: view.shape().to_vec(), values })
    };
    Ok(file.iter().map(read).collect())
}

fn write(path: &Path, tensors: &Tensors) -> Result<(), String> {
    let view = |tensor| {
        let Tensor { shape, values }: &Tensor = tensor;
        TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).map_err(|e| e.to_string())
    };
    let views = tensors.iter().map(|(name, tensor)| Ok((name, view(tensor)?)));
    let views = views.collect::<Result<Vec<_>, String>>()?;
    let bytes = safetensors::serialize(views, None).map_err(|e| e.to_string())?;
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// A contestant.
pub trait Peer {
    /// What it runs on, and versions.
    fn hello(&mut self) -> Result<(String, Value), String>;
    /// Gets a work ready, or says why it cannot.
    fn load(&mut self, work: Work, tensors: Tensors) -> Result<(), String>;
    /// What the work computes.
    fn results(&mut self) -> Result<Tensors, String>;
    /// Does the work so many times and waits for the end.
    fn run(&mut self, runs: usize) -> Result<(), String>;
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request {
    Hello,
    Load { work: Work, file: PathBuf },
    Check { file: PathBuf },
    Round { runs: usize },
    Quit,
}

fn answer(peer: &mut dyn Peer, line: &str) -> Result<Option<Value>, String> {
    Ok(Some(match serde_json::from_str(line).map_err(|e| format!("not a request for a peer: {e}"))? {
        Request::Hello => {
            let (name, versions) = peer.hello()?;
            json!({ "name": name, "versions": versions })
        }
        Request::Load { work, file } => {
            peer.load(work, read(&file)?)?;
            json!({})
        }
        Request::Check { file } => {
            write(&file, &peer.results()?)?;
            json!({})
        }
        Request::Round { runs } => {
            let start = Instant::now();
            peer.run(runs)?;
            json!({ "seconds": start.elapsed().as_secs_f64() })
        }
        Request::Quit => return Ok(None),
    }))
}

/// Answers requests from standard input until the end of it.
pub fn serve(peer: &mut dyn Peer) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        // A library's panic is its answer, as an error is.
        let answered = catch_unwind(AssertUnwindSafe(|| answer(peer, &line))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            Err(format!("panic: {}", text.lines().next().unwrap_or_default()))
        });
        let answer = match answered {
            Ok(None) => break,
            Ok(Some(answer)) => answer,
            Err(error) => json!({ "error": error }),
        };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}
