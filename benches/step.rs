//! Whole steps: what replaying as one submission saves, and what adversarial training costs.
//!
//!     cargo bench --bench step                     # everything
//!     cargo bench --bench step -- replay           # parts whose name contains one of these words:
//!                                                  # replay, cost of PGD-10, cost a launch
//!
//! Two ways are always timed in turn within one run, and their medians are compared.

mod measure;

use adamant::attack::RecordedAttack;
use adamant::nn::architectures;
use adamant::train::{Recipe, Trainer};
use adamant::{Device, Plan, Program, Result, Step, data};
use measure::{Filter, in_turn};
use std::process::ExitCode;
use std::time::Duration;

/// A training run of `model` by `method` (PGD of 10 steps where it is `pgd`) on the MNIST sample, its first step
/// prepared.
fn trainer(model: &str, method: &str, batch: usize, device: &Device) -> Result<Trainer> {
    let recipe = Recipe {
        model: model.into(),
        method: method.into(),
        steps: 10,
        step_size: "0.05".into(),
        // The full radius at once.
        epsilon_warmup: 0.0,
        batch,
        ..Recipe::default()
    };
    let data = data::load(&recipe.data)?.train;
    let architecture = architectures::by_name(&recipe.model, data.image, data.classes)?;
    let trainer = Trainer::new(recipe, architecture, &data, device)?;
    trainer.next_step()?;
    Ok(trainer)
}

/// Runs `program` and waits for it.
fn once(program: &Program, device: &Device) -> Result<()> {
    program.run()?;
    device.wait()
}

/// As [`once`], a submission a launch.
fn launch_by_launch(program: &Program, device: &Device) -> Result<()> {
    program.run_launch_by_launch()?;
    device.wait()
}

/// One PGD step and one training step of the small CNN: one submission against a submission a launch.
fn replay(devices: &[Device]) -> Result<()> {
    println!("\n## replay: one submission against one a launch (mnist-fast, batch 64)\n");
    println!(
        "| device | what | launches | one submission | one a launch | ratio |\n|---|---|--:|--:|--:|--:|"
    );
    for device in devices {
        let trainer = trainer("mnist-fast", "pgd", 64, device)?;
        let [_, step, _] = trainer.schedules(64)?;
        let step = Plan::of(step, trainer.store())?;
        for (what, program) in [
            ("PGD step", Program::new(vec![Step::Run(&step)])),
            ("PGD-10 training step", trainer.next_step()?),
        ] {
            let [one, many] = in_turn(21, || once(&program, device), || launch_by_launch(&program, device))?;
            println!(
                "| {} | {what} | {} | {:.2} ms | {:.2} ms | {:.2} |",
                device.describe(),
                program.len(),
                1e3 * one,
                1e3 * many,
                many / one
            );
        }
    }
    Ok(())
}

/// A PGD-10 training step over a standard one, small CNN.
fn cost_of_pgd(devices: &[Device]) -> Result<()> {
    println!("\n## cost of PGD-10: a training step over a standard one (mnist-fast, batch 64)\n");
    println!(
        "| device | standard | PGD-10 | ratio | ratio of the products' operations |\n|---|--:|--:|--:|--:|"
    );
    for device in devices {
        let (standard, pgd) =
            (trainer("mnist-fast", "standard", 64, device)?, trainer("mnist-fast", "pgd", 64, device)?);
        let [plain, attacked] =
            in_turn(61, || once(&standard.next_step()?, device), || once(&pgd.next_step()?, device))?;
        let [_, step, update] = pgd.schedules(64)?;
        println!(
            "| {} | {:.2} ms | {:.2} ms | {:.2} | {:.2} |",
            device.describe(),
            1e3 * plain,
            1e3 * attacked,
            attacked / plain,
            (10 * step.flops() + update.flops()) as f64 / update.flops() as f64
        );
    }
    Ok(())
}

/// What a launch costs beyond its kernel: an MLP, batch 1, attacked by PGD-10.
fn cost_a_launch(devices: &[Device]) -> Result<()> {
    println!("\n## cost a launch beyond the kernel's own time (mlp, batch 1, PGD-10)\n");
    println!(
        "| device | launches | kernels | one submission | one a launch | beyond: one submission | beyond: one a launch | ratio |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for device in devices.iter().filter(|device| device.is_gpu()) {
        let trainer = trainer("mlp", "pgd", 1, device)?;
        let [load, step, _] = trainer.schedules(1)?;
        let attack = RecordedAttack::of(load, step, 10, trainer.store())?;
        let program = Program::new(attack.program());
        let [one, many] = in_turn(101, || once(&program, device), || launch_by_launch(&program, device))?;
        let mut kernels = Vec::new();
        for _ in 0..21 {
            let times = program.profile()?;
            kernels.push(times.iter().map(|timing| timing.time).sum::<Duration>().as_secs_f64());
        }
        let kernels = measure::middle(kernels);
        let beyond = |seconds: f64| 1e6 * (seconds - kernels) / program.len() as f64;
        println!(
            "| {} | {} | {:.3} ms | {:.3} ms | {:.3} ms | {:.1} us | {:.1} us | {:.1} |",
            device.describe(),
            program.len(),
            1e3 * kernels,
            1e3 * one,
            1e3 * many,
            beyond(one),
            beyond(many),
            beyond(many) / beyond(one)
        );
    }
    Ok(())
}

fn run() -> Result<()> {
    let filter = Filter::from_arguments();
    measure::print_machine("cargo bench --bench step");
    let devices: Vec<Device> = measure::devices()?.into_iter().map(|(device, _)| device).collect();
    if filter.wants("replay") {
        replay(&devices)?;
    }
    if filter.wants("cost of PGD-10") {
        cost_of_pgd(&devices)?;
    }
    if filter.wants("cost a launch") {
        cost_a_launch(&devices)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    measure::report(run())
}
