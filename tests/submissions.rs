//! How often host and device talk: a PGD-10 training step is one submission without a readback, and an epoch reads
//! back little more than its metrics.

use adamant::data::Dataset;
use adamant::nn::architectures;
use adamant::train::{Observer, Recipe, Silent, StepReport, Trainer};
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
            let [take, count] = trainer.feeding().unwrap();
            let launches = [1, 1, 10, 1, 1].iter().zip([&take, &load, &step, &update, &count]);
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
fn steps_send_nothing_and_read_nothing() {
    for device in devices() {
        let mut talk = Vec::new();
        for (batch, steps) in [(16, 4), (8, 8), (6, 11)] {
            let mut trainer = trainer(&device, "mlp-16", Recipe { batch, ..pgd10() }).unwrap();
            let before = device.counters();
            trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
            let after = device.counters();
            assert_eq!(after.submissions - before.submissions, steps, "{}", device.describe());
            talk.push((after.readbacks - before.readbacks, after.uploads - before.uploads));
        }
        // The state the epoch could be repeated from, and its weights; the epoch's tables, of which one is the order
        // of each size of batch. None of it grows with the steps.
        let [(readbacks, uploads), more_steps, with_a_short_batch] = talk[..] else { panic!("{talk:?}") };
        assert!(readbacks <= 3, "{readbacks} readbacks on {}", device.describe());
        assert!(uploads <= 12, "{uploads} uploads on {}", device.describe());
        assert_eq!(more_steps, (readbacks, uploads), "{}", device.describe());
        assert_eq!(with_a_short_batch, (readbacks, uploads + 1), "{}", device.describe());
    }
}

/// The loss of the steps, in the order that it comes back in.
#[derive(Default)]
struct Losses(Vec<(usize, f64)>, usize);

impl Observer for Losses {
    fn step(&mut self, report: &StepReport) {
        self.1 += 1;
        self.0.extend(report.loss.map(|loss| (self.1, loss)));
    }
}

#[test]
fn losses_come_back_while_training_goes_on_and_all_by_the_end() {
    for device in devices() {
        let mut trainer = trainer(&device, "mnist-fast", Recipe { batch: 2, ..pgd10() }).unwrap();
        let mut losses = Losses::default();
        trainer.run(&mut losses, &AtomicBool::new(false)).unwrap();
        let Losses(losses, steps) = losses;
        assert_eq!(steps, 32);
        // Three steps may be under way beside the one handed over, so that every fourth brings a loss at the latest.
        let heard: Vec<usize> = [0].into_iter().chain(losses.iter().map(|(step, _)| *step)).collect();
        assert!(heard.windows(2).all(|pair| pair[1] - pair[0] <= 4), "{heard:?} on {}", device.describe());
        assert_eq!(losses.last().unwrap().0, 32, "the last step's is waited for");
        assert!(losses.iter().all(|(_, loss)| loss.is_finite() && *loss > 0.0));
    }
}
