//! Networks in ONNX files: read at run time as an [`Architecture`], so that a classifier of other people can be
//! attacked, evaluated and trained on by everything there is here; and written by [`to_onnx`].
//!
//! A file is read into steps that each record what a node does (`build.rs` leads, `ops/` has the operators). Weights
//! become parameters that begin from the file's values, running statistics of batch norms too. The border is NCHW:
//! inside, an image is NHWC, and each value of the graph knows how it lies (`value.rs`), so that nothing is transposed
//! that need not be. Integers that shapes are computed from are worked out while the file is read (`constant.rs`).
//!
//! Opsets 9 to 21. A file may fix its batch or leave it open; here the batch is what is asked for, and a graph that
//! mixes the images of a batch is refused. What is not supported is an error that names operator and node. Files are
//! not trusted: what they may take of memory is bounded by their own size.

mod build;
mod call;
mod constant;
mod export;
mod ops;
mod proto;
mod value;

pub use export::to_onnx;

use super::{Architecture, Net, Params, Var};
use crate::error::{Error, Result};
use prost::bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Why a file is refused: a sentence without its subject, which is the node or the file.
type Why = String;

/// Largest file, which is also the most that protobuf can hold.
const MAX_BYTES: u64 = 1 << 31;

/// Oldest and newest version of ONNX's operators that is read.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=21;

/// Records what a node does, given its inputs.
type Run = Box<dyn for<'t> Fn(&Net<'t>, &[Var<'t>]) -> Var<'t> + Send + Sync>;

/// A node, translated.
struct Step {
    /// Its name, for launch lists and error messages.
    scope: String,
    /// What it takes: 0 for the images, `i + 1` for the result of step `i`.
    inputs: Vec<usize>,
    run: Run,
}

/// A network from an ONNX file.
///
/// ```no_run
/// use adamant::nn::{Architecture, Onnx, Params};
/// # fn main() -> adamant::Result<()> {
/// let network = Onnx::open("classifier.onnx")?;
/// let params = Params::of(&network)?;
/// let weights = params.initial(0);
/// println!("{:?} to {} classes, {} weights", network.input(), network.classes(), params.count());
/// # Ok(()) }
/// ```
///
/// Its parameters begin from the file's values whatever the seed: [`Params::initial`] gives the weights as
/// `checkpoint::put_weights` takes them, and a trainer fine-tunes from them. Convolutions, matrix products, batch norms and
/// what is added to a product are trained, other constants are not.
pub struct Onnx {
    name: String,
    input: [usize; 3],
    classes: usize,
    steps: Vec<Step>,
    /// Which step's result is the logits, as in [`Step::inputs`].
    output: usize,
    last: String,
    training: Vec<String>,
}

impl Onnx {
    /// The network in a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] when it is damaged, or holds what is not supported, with the node.
    pub fn open(path: impl AsRef<Path>) -> Result<Onnx> {
        Onnx::open_for(path, None)
    }

    /// The network in a file, for images of these rows, columns and channels where the file leaves them open, or takes
    /// them flattened.
    ///
    /// # Errors
    /// As [`Onnx::open`], and when the network takes other images.
    pub fn open_for(path: impl AsRef<Path>, image: Option<[usize; 3]>) -> Result<Onnx> {
        let path = path.as_ref();
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| Error::io(path, "could not read the network", e))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::file(path, "is larger than 2 GiB, which no ONNX file can be"));
        }
        let mut network = Onnx::parse(bytes.into(), image).map_err(|why| Error::file(path, why))?;
        network.name = path.to_string_lossy().into_owned();
        Ok(network)
    }

    /// The network in the bytes of a file.
    ///
    /// # Errors
    /// [`Error::Argument`], as [`Onnx::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Onnx> {
        Onnx::parse(Bytes::copy_from_slice(bytes), None)
            .map_err(|why| Error::argument("ONNX model", format!("of {} bytes", bytes.len()), why))
    }

    fn parse(bytes: Bytes, image: Option<[usize; 3]>) -> std::result::Result<Onnx, Why> {
        let network = build::network(bytes, image)?;
        Params::of(&network).map_err(|e| format!("does not fit together: {e}"))?;
        Ok(network)
    }

    /// Whether a file is ONNX as far as its name or its first bytes say: it ends in `.onnx`, whatever the case, or begins
    /// as protobuf writes a model, with its version and then one of its other fields.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_file(path: &Path) -> Result<bool> {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx")) {
            return Ok(true);
        }
        // A pipe would be waited for.
        if !path.is_file() {
            return Ok(false);
        }
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
        read.map_err(|e| Error::io(path, "could not read the network", e))?;
        // A header of safetensors, behind its length, which may be any number.
        let is_safetensors = matches!(start[..], [_, _, _, _, _, _, 0, 0, b'{', ..]);
        Ok(!is_safetensors && proto::begins(&start))
    }

    /// Names of the nodes that the file was exported with as in training: batch norms by the statistics of the batch, dropout
    /// that drops. Here each does what the network that is built with it does ([`crate::nn::Mode`]).
    pub fn exported_in_training(&self) -> &[String] {
        &self.training
    }

    /// The operator that makes the output, past those that only give it another shape. `Softmax` says that what this
    /// network calls logits are probabilities: gradients of a loss on top of them vanish where it is sure.
    pub fn last_operator(&self) -> &str {
        &self.last
    }
}

impl Architecture for Onnx {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn through_softmax(&self) -> bool {
        self.last == "Softmax"
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let mut values = vec![net.images(x, self.input)];
        for step in &self.steps {
            let inputs: Vec<Var<'t>> = step.inputs.iter().map(|&i| values[i]).collect();
            values.push(net.tape().scope(&step.scope, || (step.run)(net, &inputs)));
        }
        values[self.output]
    }
}
