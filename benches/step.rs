//! Whole steps: what replaying as one submission saves, and what adversarial training costs.
//!
//!     cargo bench --bench step                     # everything
//!     cargo bench --bench step -- replay           # parts whose name contains one of these words:
//!                                                  # replay, cost of PGD-10, cost a launch, tuner, half
//!
//! Two ways are always timed in turn within one run, and their medians are compared.

mod measure;

use adamant::attack::RecordedAttack;
use adamant::launch::Launch;
use adamant::nn::architectures;
use adamant::plan::Schedule;
use adamant::train::{Recipe, Trainer};
use adamant::{DType, Device, Plan, Program, Result, Step, Store, Tape, data};
use measure::{Filter, Subject, Way, in_turn, seconds};
use std::process::ExitCode;
use std::rc::Rc;

/// A training run of `model` by `method` (PGD of 10 steps where it is `pgd`) on the MNIST sample, its first step
/// prepared.
fn trainer(model: &str, method: &str, batch: usize, device: &Device) -> Result<Trainer> {
    trainer_of(recipe(model, method, batch), device)
}

fn recipe(model: &str, method: &str, batch: usize) -> Recipe {
    Recipe {
        model: model.into(),
        method: method.into(),
        steps: 10,
        step_size: "0.05".into(),
        // The full radius at once, and the weights alone.
        epsilon_warmup: 0.0,
        weight_average: 0.0,
        batch,
        ..Recipe::default()
    }
}

fn trainer_of(recipe: Recipe, device: &Device) -> Result<Trainer> {
    let data = data::load(&recipe.data)?.train;
    let architecture = architectures::by_name(&recipe.model, data.image, data.classes)?;
    let trainer = Trainer::new(recipe, architecture, &data, device)?;
    trainer.next_step()?;
    Ok(trainer)
}

/// A run of `program`, waited for.
fn once<'a>(program: &'a Program<'a>, device: &'a Device) -> Way<'a> {
    Box::new(|| seconds(|| program.run().and_then(|()| device.wait())))
}

/// As [`once`], a submission a launch.
fn launch_by_launch<'a>(program: &'a Program<'a>, device: &'a Device) -> Way<'a> {
    Box::new(|| seconds(|| program.run_launch_by_launch().and_then(|()| device.wait())))
}

/// A run of `plan`, of many in a row in one submission.
fn in_a_row<'a>(plan: &'a Plan, device: &'a Device) -> Way<'a> {
    const RUNS: usize = 50;
    let program = Program::new(vec![Step::Repeat(RUNS, plan)]);
    Box::new(move || Ok(seconds(|| program.run().and_then(|()| device.wait()))? / RUNS as f64))
}

/// One PGD step and one training step of the small CNN: one submission against a submission a launch.
fn replay(subjects: &[Subject]) -> Result<()> {
    println!("\n## replay: one submission against one a launch (mnist-fast, batch 64)\n");
    println!(
        "| device | what | launches | one submission | one a launch | ratio |\n|---|---|--:|--:|--:|--:|"
    );
    for Subject { device, name, .. } in subjects {
        let trainer = trainer("mnist-fast", "pgd", 64, device)?;
        let [_, step, _] = trainer.schedules(64)?;
        let step = Plan::of(step, trainer.store())?;
        for (what, program) in [
            ("PGD step", Program::new(vec![Step::Run(&step)])),
            ("PGD-10 training step", trainer.next_step()?),
        ] {
            let times = in_turn(21, &[once(&program, device), launch_by_launch(&program, device)])?;
            println!(
                "| {name} | {what} | {} | {:.2} ms | {:.2} ms | {:.2} |",
                program.len(),
                1e3 * times[0],
                1e3 * times[1],
                times[1] / times[0]
            );
        }
    }
    Ok(())
}

/// A PGD-10 training step over a standard one, small CNN.
fn cost_of_pgd(subjects: &[Subject]) -> Result<()> {
    println!("\n## cost of PGD-10: a training step over a standard one (mnist-fast, batch 64)\n");
    println!(
        "| device | standard | PGD-10 | ratio | ratio of the products' operations |\n|---|--:|--:|--:|--:|"
    );
    for Subject { device, name, .. } in subjects {
        let standard = trainer("mnist-fast", "standard", 64, device)?;
        let pgd = trainer("mnist-fast", "pgd", 64, device)?;
        let (short, long) = (standard.next_step()?, pgd.next_step()?);
        let times = in_turn(61, &[once(&short, device), once(&long, device)])?;
        let [_, step, update] = pgd.schedules(64)?;
        println!(
            "| {name} | {:.2} ms | {:.2} ms | {:.2} | {:.2} |",
            1e3 * times[0],
            1e3 * times[1],
            times[1] / times[0],
            (10 * step.flops() + update.flops()) as f64 / update.flops() as f64
        );
    }
    Ok(())
}

/// A plan of each launch of a schedule alone.
fn each_alone(schedule: &Schedule, store: &Store) -> Result<Vec<Plan>> {
    let alone = |(launch, scope): (&Launch, &Rc<str>)| {
        let (launches, scopes) = (vec![launch.clone()], vec![scope.clone()]);
        let (tensors, slots) = (schedule.tensors.clone(), schedule.slots.clone());
        Plan::of(Schedule { launches, prologue: 0, scopes, tensors, slots }, store)
    };
    schedule.launches.iter().zip(&schedule.scopes).map(alone).collect()
}

/// What a launch costs beyond its kernel: an MLP, batch 1, attacked by PGD-10.
fn cost_a_launch(subjects: &[Subject]) -> Result<()> {
    println!("\n## cost a launch beyond the kernel's own time (mlp, batch 1, PGD-10)\n");
    println!(
        "The attack (loading, start, ten steps) as one submission and as one submission a launch, each waited for at\n\
         its end. A kernel's own time is what the launch takes 50 times in a row in one submission, less what a\n\
         launch that moves one number takes so, all measured in turn. (Timestamps will not do: software Vulkan\n\
         drains its queue for each.) Beyond = (time - kernels) / launches. Software Vulkan wakes its worker threads\n\
         for every dispatch, some 45 us on an idle virtual machine, however it is submitted: LP_NUM_THREADS=0 in the\n\
         environment lets it work without them, and shows what a launch costs beside that.\n"
    );
    println!(
        "| device | launches | kernels | one submission | one a launch | beyond, one submission | beyond, one a launch | ratio |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for Subject { device, name, .. } in subjects.iter().filter(|subject| subject.adapter.is_some()) {
        let trainer = trainer("mlp", "pgd", 1, device)?;
        let [load, step, _] = trainer.schedules(1)?;
        let tape = Tape::new();
        tape.assign("moved", tape.source("one number", [], DType::F32));
        let nothing = Plan::compile(&tape, trainer.store())?;
        let (loading, stepping) = (each_alone(&load, trainer.store())?, each_alone(&step, trainer.store())?);
        let attack = RecordedAttack::of(load, step, 10, trainer.store())?;
        let program = Program::new(attack.program());

        let mut ways = vec![once(&program, device), launch_by_launch(&program, device)];
        ways.extend(
            [&nothing].into_iter().chain(&loading).chain(&stepping).map(|plan| in_a_row(plan, device)),
        );
        let times = in_turn(51, &ways)?;
        let (one, many, empty) = (times[0], times[1], times[2]);
        let own = |times: &[f64]| times.iter().map(|time| (time - empty).max(0.0)).sum::<f64>();
        let kernels = own(&times[3..3 + loading.len()]) + 10.0 * own(&times[3 + loading.len()..]);
        let beyond = |time: f64| (time - kernels) / program.len() as f64;
        println!(
            "| {name} | {} | {:.3} ms | {:.3} ms | {:.3} ms | {:.1} us | {:.1} us | {:.1} |",
            program.len(),
            1e3 * kernels,
            1e3 * one,
            1e3 * many,
            1e6 * beyond(one),
            1e6 * beyond(many),
            beyond(many) / beyond(one)
        );
    }
    Ok(())
}

/// What measured kernels gain over the fixed choice: a PGD-10 training step on two openings of the same adapter.
fn gain_of_tuning(subjects: &[Subject]) -> Result<()> {
    println!("\n## tuner: a PGD-10 training step with measured kernels and with the fixed ones, in turn\n");
    println!(
        "| device | network | batch | fixed | measured | ratio | launches, changed | measuring |\n\
         |---|---|--:|--:|--:|--:|--:|--:|"
    );
    for Subject { device, name, adapter, .. } in subjects {
        let Some(adapter) = adapter else { continue };
        let tuned = Device::gpu(adapter)?;
        // The file is never there: everything is measured.
        let file = std::env::temp_dir().join(format!("adamant-bench-{}.json", std::process::id()));
        for (model, batch) in [("mnist-fast", 128), ("preact-resnet18-w16", 16)] {
            let tuner = tuned.tune(&file, Some(std::time::Duration::from_secs(60)));
            let (fixed, measured) =
                (trainer(model, "pgd", batch, device)?, trainer(model, "pgd", batch, &tuned)?);
            let programs = (fixed.next_step()?, measured.next_step()?);
            let times = in_turn(5, &[once(&programs.0, device), once(&programs.1, &tuned)])?;
            let did = tuner.map(|tuner| tuner.tuned()).unwrap_or_default();
            println!(
                "| {name} | {model} | {batch} | {:.0} ms | {:.0} ms | {:.2} | {}, {} | {:.0} s |",
                1e3 * times[0],
                1e3 * times[1],
                times[0] / times[1],
                did.launches,
                did.changed,
                did.time.as_secs_f64()
            );
        }
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// A PGD-10 training step with the attack in half precision against one in f32.
fn gain_of_half(subjects: &[Subject]) -> Result<()> {
    println!("\n## half precision: a PGD-10 training step with the attack in f16 and in f32, in turn\n");
    println!("| device | network | batch | f32 | f16 | f32 / f16 |\n|---|---|--:|--:|--:|--:|");
    for Subject { device, name, .. } in subjects {
        for (model, batch) in [("mnist-fast", 128), ("mnist-madry", 64), ("mlp-1024-1024", 128)] {
            let [single, half] = ["f32", "f16"].map(|attack_precision| {
                let recipe =
                    Recipe { attack_precision: attack_precision.into(), ..recipe(model, "pgd", batch) };
                trainer_of(recipe, device)
            });
            let (single, half) = (single?, half?);
            let programs = (single.next_step()?, half.next_step()?);
            let rounds = if device.is_gpu() { 5 } else { 31 };
            let times = in_turn(rounds, &[once(&programs.0, device), once(&programs.1, device)])?;
            let ratio = times[0] / times[1];
            println!(
                "| {name} | {model} | {batch} | {:.2} ms | {:.2} ms | {ratio:.2} |",
                1e3 * times[0],
                1e3 * times[1]
            );
        }
    }
    Ok(())
}

fn run() -> Result<()> {
    let filter = Filter::from_arguments();
    measure::print_machine("cargo bench --bench step");
    let subjects = measure::subjects()?;
    if filter.wants("replay") {
        replay(&subjects)?;
    }
    if filter.wants("cost of PGD-10") {
        cost_of_pgd(&subjects)?;
    }
    if filter.wants("cost a launch") {
        cost_a_launch(&subjects)?;
    }
    if filter.wants("tuner") {
        gain_of_tuning(&subjects)?;
    }
    if filter.wants("half precision") {
        gain_of_half(&subjects)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    measure::report(run())
}
