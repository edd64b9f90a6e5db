//! Runs launches on every adapter of the machine.

use adamant::gpu::{Gpu, adapters};
use adamant::kernels::Compiled;
use adamant::launch::Launch;
use std::sync::OnceLock;

/// Contents of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    Float(Vec<f32>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

impl Host {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Host::Float(x) => bytemuck::cast_slice(x),
            Host::U32(x) => bytemuck::cast_slice(x),
            Host::U8(x) => x,
        }
    }

    /// The same type with other contents.
    fn like(&self, bytes: &[u8]) -> Host {
        match self {
            Host::Float(_) => Host::Float(bytemuck::pod_collect_to_vec(bytes)),
            Host::U32(_) => Host::U32(bytemuck::pod_collect_to_vec(bytes)),
            Host::U8(_) => Host::U8(bytes.to_vec()),
        }
    }
}

/// Every adapter of this machine, opened once.
pub fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let found = adapters();
        assert!(
            !found.is_empty(),
            "there is no GPU adapter to test kernels on. A software one will do: on Debian and Ubuntu install \
             mesa-vulkan-drivers, on Fedora mesa-vulkan-drivers, on Arch vulkan-swrast; Windows brings one along"
        );
        found
            .iter()
            .map(|summary| {
                println!("{summary:#}");
                Gpu::open(summary).unwrap()
            })
            .collect()
    })
}

/// What `launch`, whose inputs and operands are `Place::Tensor(i)` and whose output is `Place::Slot(0)`, leaves in
/// the output when it held `before`.
pub fn run(gpu: &Gpu, launch: &Launch, tensors: &[Host], before: &Host) -> Host {
    let upload = |host: &Host| {
        let buffer = gpu.allocate(host.bytes().len() as u64, "test tensor").unwrap();
        gpu.write(&buffer, host.bytes()).unwrap();
        buffer
    };
    let slots = [upload(before)];
    let tensors: Vec<_> = tensors.iter().map(upload).collect();
    let compiled = Compiled::new(gpu, std::slice::from_ref(launch), &slots, &tensors)
        .unwrap_or_else(|error| panic!("{launch}: {error}"));
    gpu.submit(|pass| compiled.encode(pass)).unwrap();
    before.like(&gpu.read(&[&slots[0]]).unwrap()[0])
}
