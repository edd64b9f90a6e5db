//! A small network and images made of random numbers, as tools/drawn.py makes them, on which official attacks were run.

use adamant::attack::{Classifier, Inputs};
use adamant::nn::architectures::Mlp;
use adamant::nn::{Mode, Params};
use adamant::philox;
use adamant::plan::Precision;
use adamant::tape::Purpose;
use adamant::{Device, Host, Store};
use safetensors::SafeTensors;
use std::path::Path;

// As in tools/drawn.py.
pub const SEED: u64 = 11;
const HIDDEN: usize = 20;
pub const CLASSES: usize = 5;

/// The numbers of a file of tests/reference.
pub struct Numbers(Vec<u8>);

impl Numbers {
    pub fn load(name: &str) -> Numbers {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        Numbers(std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap())
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        self.bytes(name).chunks(8).map(number).collect()
    }

    pub fn u32(&self, name: &str) -> Vec<u32> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        self.bytes(name).chunks(4).map(number).collect()
    }
}

/// Uniform numbers, as `draw` of the tool.
fn draw(counter: [u32; 2], example: u32, count: usize) -> impl Iterator<Item = f64> {
    let key = [SEED as u32, 0];
    (0..count as u32).map(move |element| philox::uniform(key, Purpose::TEST, counter, example, element))
}

/// As `tensor` of the tool.
pub fn tensor(number: u32, count: usize, bound: f64) -> Vec<f32> {
    draw([0, 0], number, count).map(|u| ((2.0 * u - 1.0) * bound) as f32).collect()
}

/// The network and its images on the reference executor.
pub struct Drawn {
    pub architecture: Mlp,
    pub store: Store,
    batch: usize,
}

impl Drawn {
    /// First weights in [-bound, bound), and an image for each of the labels.
    pub fn new(image: [usize; 3], bound: f64, labels: &[u32]) -> Drawn {
        let (architecture, batch) = (Mlp::new(image, &[HIDDEN], CLASSES), labels.len());
        let store = Store::new(&Device::reference());
        let params = Params::of(&architecture).unwrap();
        for (number, (param, bound)) in params.iter().zip([bound, 0.3, 0.6, 0.3]).enumerate() {
            let values = tensor(number as u32, param.shape.len(), bound);
            store.put(&param.name, param.shape, &Host::F32(values)).unwrap();
        }
        let pixels = image.iter().product();
        let images: Vec<u8> =
            (0..batch as u32).flat_map(|i| draw([1, 0], i, pixels).map(|u| (u * 256.0) as u8)).collect();
        store.put("data.images", [batch, image[0], image[1], image[2]], &Host::U8(images)).unwrap();
        store.put("data.labels", [batch], &Host::U32(labels.to_vec())).unwrap();
        Drawn { architecture, store, batch }
    }

    pub fn on(&self) -> Classifier<'_> {
        Classifier {
            architecture: &self.architecture,
            mode: Mode::Eval,
            examples: self.batch,
            inputs: Inputs::Images,
            precision: Precision::F32,
        }
    }
}
