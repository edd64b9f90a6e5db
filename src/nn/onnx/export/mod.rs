//! ONNX out: a network's forward pass in evaluation, as PyTorch would write it.
//!
//! The pass is recorded on a tape, and what the tape holds is read back: a convolution or product with what is added to
//! it becomes a `Conv` or `Gemm` with its bias, what evaluation makes of a batch norm a `BatchNormalization` (`form.rs`).
//! Images turn to NCHW at once, and everything between is written in that order (`write.rs`).

mod form;
mod write;

use super::proto::{Extent, Extents, Graph, Model, Opset, TensorType, TypeOf, ValueInfo, types};
use crate::error::{Error, Result};
use crate::nn::{Architecture, Mode, Net};
use crate::shape::DType;
use crate::tape::Tape;
use form::Forms;
use prost::Message;
use std::collections::HashMap;
use write::Writer;

/// Version of the operators that are written: known to every runtime of the last years.
const OPSET: i64 = 17;

/// Version of the format that goes with it.
const IR_VERSION: i64 = 8;

/// Images in the recording; any number that is not 1, which extents of other axes are.
const BATCH: usize = 2;

/// Names of what enters and leaves.
const IMAGES: &str = "images";
const LOGITS: &str = "logits";

/// The bytes of an ONNX file of a network with these weights (by name, in our layout): images `[batch, channels, rows,
/// columns]` in [0, 1] (vectors of features: `[batch, features]`) to logits `[batch, classes]`, normalisation and all that
/// belongs to the network included. The batch is open. Weights bear PyTorch's names.
///
/// For a network with dummy classes give the classifier that it amounts to, [`crate::nn::Collapsed`].
///
/// # Errors
/// [`Error::Shape`] as recording has it; [`Error::Unsupported`] when a weight is missing, or the network computes what
/// is not written.
pub fn to_onnx(architecture: &dyn Architecture, weights: &[(String, Vec<f32>)]) -> Result<Vec<u8>> {
    let refuse = |why: String| Error::Unsupported(format!("`{}` as ONNX: {why}", architecture.name()));
    let tape = Tape::new();
    let [rows, columns, channels] = architecture.input();
    let x = tape.source(IMAGES, [BATCH, rows, columns, channels], DType::F32);
    let logits = architecture.forward(&Net::new(&tape, Mode::Eval), x);
    tape.check()?;
    let weights: HashMap<&str, &[f32]> =
        weights.iter().map(|(name, w)| (name.as_str(), w.as_slice())).collect();
    let nodes = tape.nodes();
    let forms = Forms::new(&nodes, x.id(), &weights);
    let features = (rows * columns == 1).then_some(channels);
    let mut writer = Writer::new(&forms, x.id(), IMAGES, features);
    for id in forms.needed(logits.id()).map_err(refuse)? {
        writer
            .write(id)
            .map_err(|why| refuse(format!("{} in `{}`: {why}", nodes[id].op.name(), nodes[id].scope)))?;
    }
    let (node, initializer) = writer.finish(logits.id(), LOGITS).map_err(refuse)?;
    let graph = Graph {
        node,
        name: architecture.name(),
        initializer,
        input: vec![match features {
            Some(count) => info(IMAGES, &[count]),
            None => info(IMAGES, &[channels, rows, columns]),
        }],
        output: vec![info(LOGITS, &[architecture.classes()])],
    };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![Opset { domain: String::new(), version: OPSET }],
    };
    if model.encoded_len() as u64 > super::MAX_BYTES {
        return Err(refuse("more than 2 GiB, which no ONNX file can hold".into()));
    }
    Ok(model.encode_to_vec())
}

/// Floats of these extents behind an open batch.
fn info(name: &str, dims: &[usize]) -> ValueInfo {
    let batch = Extent { value: None, param: Some("batch".into()) };
    let fixed = dims.iter().map(|&dim| Extent { value: Some(dim as i64), param: None });
    let shape = Some(Extents { dim: std::iter::once(batch).chain(fixed).collect() });
    let tensor = Some(TensorType { element: types::FLOAT, shape });
    ValueInfo { name: name.into(), kind: Some(TypeOf { tensor }) }
}
