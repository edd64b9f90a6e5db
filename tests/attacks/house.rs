//! The hardened network of the house, and test images of its sample.

use adamant::attack::{
    Classifier, Evaluation, Inputs, Norm, Observer, Search, Subject, ThreatModel, Verdicts, by_name,
};
use adamant::data::{self, Dataset};
use adamant::nn::{Architecture, Mode, Net, Params, Var, architectures};
use adamant::plan::Precision;
use adamant::tape::Purpose;
use adamant::train::{checkpoint, examples};
use adamant::{Device, Result, Store};
use std::path::Path;

/// A network that drops one pixel in five at random, always.
struct Dropping(Box<dyn Architecture>);

impl Architecture for Dropping {
    fn name(&self) -> String {
        "dropping".into()
    }

    fn input(&self) -> [usize; 3] {
        self.0.input()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let drawn = net.draw().unwrap().uniform(Purpose::TEST, x.shape());
        self.0.forward(net, x * drawn.greater(net.tape().fill(x.shape(), 0.2)))
    }
}

pub struct House {
    pub store: Store,
    pub architecture: Box<dyn Architecture>,
    pub data: Dataset,
    /// What is attacked: indices into the data, and their classes.
    pub examples: Vec<u32>,
    pub labels: Vec<u32>,
}

impl House {
    /// With the first so many images.
    pub fn new(device: &Device, images: usize) -> House {
        House::of(device, (0..images as u32).collect())
    }

    /// With these examples.
    pub fn of(device: &Device, examples: Vec<u32>) -> House {
        let data = data::load("mnist").unwrap().test;
        let architecture = architectures::by_name("mnist-fast", data.image, data.classes).unwrap();
        let params = Params::of(architecture.as_ref()).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mnist-fast-pgd/weights.safetensors");
        let weights = checkpoint::load_weights(&file, architecture.as_ref(), &params).unwrap();
        let store = Store::new(device);
        checkpoint::put_weights(&store, &params, &weights).unwrap();
        examples::put(&store, "test", &data).unwrap();
        let labels = examples.iter().map(|&example| data.labels[example as usize]).collect();
        House { store, architecture, data, examples, labels }
    }

    /// From here on the network drops pixels at random, also when it is judged.
    pub fn drop_pixels(&mut self) {
        let plain = architectures::by_name("mnist-fast", self.data.image, self.data.classes).unwrap();
        self.architecture = Box::new(Dropping(plain));
    }

    pub fn on(&self) -> Classifier<'_> {
        Classifier {
            architecture: self.architecture.as_ref(),
            mode: Mode::Eval,
            examples: self.data.len(),
            inputs: Inputs::Images,
            precision: Precision::F32,
        }
    }

    pub fn subject(&self, batch: usize) -> Subject<'_> {
        let (examples, labels) = (&self.examples, &self.labels);
        Subject { store: &self.store, on: self.on(), data: "test", batch, examples, labels }
    }

    pub fn judge(&self, search: &dyn Search, batch: usize) -> Result<Evaluation> {
        Evaluation::compile_search(&self.store, search, self.on(), "test", batch)
    }

    /// Verdicts of so many restarts.
    pub fn observed(
        &self,
        search: &dyn Search,
        batch: usize,
        restarts: u32,
        observer: impl Observer,
    ) -> Result<Verdicts> {
        self.judge(search, batch)?.run(&self.examples, &self.labels, restarts, 3, observer)
    }

    /// Verdicts of one run.
    pub fn verdicts(&self, search: &dyn Search, batch: usize) -> Verdicts {
        self.observed(search, batch, 1, |_, _| {}).unwrap()
    }
}

pub fn threat(norm: Norm, epsilon: &str) -> ThreatModel {
    ThreatModel { norm, epsilon: epsilon.parse().unwrap() }
}

/// A single attack of the registry.
pub fn named(name: &str, norm: Norm, epsilon: &str) -> Box<dyn Search> {
    by_name(name, &threat(norm, epsilon), 10).unwrap().attacks.remove(0).search
}
