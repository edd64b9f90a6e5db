//! How often host and device talk: a PGD-10 training step is one submission without a readback, and an epoch reads
//! back little more than its metrics.

use adamant::data::Dataset;
use adamant::nn::architectures;
use adamant::train::{Recipe, Silent, Trainer};
use adamant::{Device, Result};
use std::sync::atomic::AtomicBool;

/// The CPU executor and the first GPU adapter, software ones included.
fn devices() -> [Device; 2] {
    let adapters = Device::adapters();
    let adapter = adapters.first().expect(
        "there is no GPU adapter to test with. A software one will do: on Debian and Ubuntu install \
         mesa-vulkan-drivers, on Fedora mesa-vulkan-drivers, on Arch vulkan-swrast",
    );
    [Device::cpu(), Device::gpu(adapter).unwrap()]
}

fn trainer(device: &Device, model: &str, recipe: Recipe) -> Result<Trainer> {
    let image = [12, 12, 1];
    let images = (0..64 * 144).map(|i| (i * 31 % 256) as u8).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    let data = Dataset::new("test", "made here", image, images, (0..64).map(|i| i % 10).collect(), classes)?;
    Trainer::new(recipe, architectures::by_name(model, image, 10)?, &data, device)
}

fn pgd10() -> Recipe {
    Recipe { steps: 10, batch: 16, epochs: 1, validation: 0, ..Recipe::default() }
}

#[test]
fn a_pgd_10_training_step_is_one_submission_and_no_readback() {
    for device in devices() {
        for model in ["mlp-16", "mnist-fast"] {
            let trainer = trainer(&device, model, pgd10()).unwrap();
            let [load, step, update] = trainer.schedules(16).unwrap();
            let launches = [1, 10, 1].iter().zip([&load, &step, &update]);
            let launches: usize = launches.map(|(times, plan)| plan.launch_count(*times)).sum();
            for _ in 0..3 {
                let before = device.counters();
                let program = trainer.next_step().unwrap();
                assert_eq!(program.len(), launches);
                program.run().unwrap();
                device.wait().unwrap();
                let after = device.counters();
                let talk = (after.submissions - before.submissions, after.readbacks - before.readbacks);
                assert_eq!(talk, (1, 0), "submissions and readbacks of {model} on {}", device.describe());
            }
        }
    }
}

#[test]
fn an_epoch_is_a_submission_a_step_and_a_few_readbacks() {
    for device in devices() {
        let mut trainer = trainer(&device, "mlp-16", pgd10()).unwrap();
        let before = device.counters();
        trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
        let after = device.counters();
        assert_eq!(after.submissions - before.submissions, 4, "{}", device.describe());
        // The state the epoch could be repeated from, its metrics, its weights: none of it grows with the steps.
        let readbacks = after.readbacks - before.readbacks;
        assert!(readbacks <= 4, "{readbacks} readbacks on {}", device.describe());
    }
}
