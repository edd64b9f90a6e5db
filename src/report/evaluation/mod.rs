//! The evaluation of a network that somebody else trained, or a run of ours left: attacks one after the other, a log that
//! can be gone on with and verified, and what follows from it.

mod assess;
mod claims;
pub mod corruptions;
pub mod extras;
mod log;
mod outcomes;
mod passes;
pub mod pictures;
mod results;
mod sheets;
mod transfer;
mod unit;
mod verify;
mod writer;

pub use assess::{Assessment, Attempt, Listener, Silent, Standing};
pub use corruptions::{Corrupted, Corruption, STRENGTHS, corrupted, mean};
pub use extras::Extras;
pub use log::{Attacked, Header, Log, MAGIC, Origin, Part};
pub use outcomes::{Outcome, Outcomes};
pub use passes::Passes;
pub use results::{Results, SCHEMA};
pub use unit::{Found, Unit, Verdict};
pub use verify::{Failure, Verified, verify};
pub use writer::Writer;

use crate::attack::Classifier;
use crate::data::{Dataset, Examples};
use crate::error::Result;
use crate::nn::{Architecture, Mode, Params};
use crate::plan::Precision;
use crate::tensor::Store;
use crate::train::checkpoint;
use crate::train::examples;
use crate::weights::Weights;
use sha2::{Digest, Sha256};

/// What is evaluated: a network with its weights, and test data.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What weights alone do not say of it: the architecture's name, or what else tells two networks of the same weights
    /// apart.
    pub identity: &'a str,
    /// The network.
    pub architecture: &'a dyn Architecture,
    /// Its parameters.
    pub params: &'a Params,
    /// Their values.
    pub weights: &'a Weights,
    /// The test data.
    pub data: &'a Dataset,
    /// What batch norm does: running statistics, unless it is to be seen what a network does that was left in training.
    pub mode: Mode,
}

/// What the tensors of the test data begin with in a store.
pub(in crate::report) const TEST: &str = "test";

impl Subject<'_> {
    /// SHA-256, in hexadecimal, of the network's identity and all parameters by name and bits: the same for the same
    /// weights, whatever file they came in.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(self.identity.as_bytes());
        for (name, values) in self.weights {
            add(name.as_bytes());
            add(bytemuck::cast_slice(values));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Puts weights and test data into a store.
    ///
    /// # Errors
    /// Of the device.
    pub fn put(&self, store: &Store) -> Result<()> {
        checkpoint::put_weights(store, self.params, self.weights)?;
        examples::put(store, TEST, self.data)
    }

    /// The network as an attack on the test data sees it.
    pub fn classifier(&self) -> Classifier<'_> {
        Classifier {
            architecture: self.architecture,
            mode: self.mode,
            examples: self.data.len(),
            inputs: examples::inputs(self.data),
            precision: Precision::F32,
        }
    }

    /// An example as the network sees it, `[H,W,C]`: the bits that it has on a device.
    pub fn clean(&self, example: u32) -> Vec<f32> {
        let len = self.data.image_len();
        let row = example as usize * len..(example as usize + 1) * len;
        match &self.data.examples {
            Examples::Images(pixels) => pixels[row].iter().map(|&byte| f32::from(byte) / 255.0).collect(),
            Examples::Features(values, _) => values[row].to_vec(),
        }
    }
}

/// Index of the largest, the first of equals.
pub(in crate::report) fn argmax(logits: &[f64]) -> u32 {
    let mut class = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[class] {
            class = i;
        }
    }
    class as u32
}
