//! What is printed: devices, what is trained, what a training step is and what its launches take.

use super::common::say;
use adamant::data::{Data, Examples};
use adamant::report::results;
use adamant::train::{Trainer, recipes};
use adamant::{Program, Result};
use std::time::Duration;

/// Prints the recipes there are.
pub(crate) fn recipes() -> Result<()> {
    for built_in in recipes::BUILT_IN {
        let recipe = built_in.recipe()?;
        say!("{}\n    {}", built_in.name, built_in.about());
        say!(
            "    {} on {}, {}, epsilon {} ({}), {} epochs of batches of {}",
            recipe.model,
            recipe.data,
            recipe.method,
            recipe.epsilon,
            recipe.norm,
            recipe.epochs,
            recipe.batch
        );
    }
    Ok(())
}

/// Prints what is trained on what, and how.
pub(crate) fn heading(trainer: &Trainer, data: &Data) -> Result<()> {
    let recipe = trainer.recipe();
    let (train, held) = trainer.sizes();
    say!(
        "data      {}: {train} to train on, {held} held out, {} to test on",
        data.train.name,
        data.test.len()
    );
    if let Examples::Features(_, limits) = &data.train.examples {
        say!("          {} features, {} of which an attacker may change", limits.len(), limits.changeable());
    }
    say!(
        "model     {}, {} parameters, {} on batches of {}",
        recipe.model,
        trainer.params().count(),
        recipe.optimizer,
        recipe.batch
    );
    match trainer.method().is_adversarial() {
        true => say!("training  {}: {}", trainer.method().name(), trainer.attack_line()?),
        false => say!("training  {}: on clean images", trainer.method().name()),
    }
    if trainer.method().has_dummies() {
        say!("          {}", results::WHY_COLLAPSED);
    }
    Ok(())
}

/// Prints every launch of a training step, and memory.
pub(crate) fn dry_run(trainer: &Trainer) -> Result<()> {
    let (phases, passes) = (trainer.phases(trainer.pass())?, trainer.passes() as usize);
    let [take, count] = trainer.feeding()?;
    let replays = trainer.method().replays() as usize;
    say!("\nwhat the step is, out of the epoch's tables\n{take}");
    let (mut flops, mut launches) = (0, 0);
    for phase in phases {
        let times = phase.times * passes * if phase.replayed { replays } else { 1 };
        let what = match phase.name {
            "load" => "loading a batch and starting the attack",
            "restart" => "starting the attack again",
            "attack" => "a step of the attack",
            "keep" => "keeping the worst of what the attack found",
            "prepare" => "what the method does before the update",
            _ if passes > 1 => "summing up gradients",
            _ => "the update of the weights",
        };
        let often = if times == 1 { String::new() } else { format!(", {times} times a batch") };
        let when = match (phase.epochs.start + 1, phase.epochs.end) {
            (1, end) if end == trainer.recipe().epochs => String::new(),
            (start, end) => format!(", in epochs {start} to {end}"),
        };
        say!("{what}{often}{when}\n{}", phase.schedule);
        // The last epoch is counted.
        if phase.epochs.end == trainer.recipe().epochs {
            flops += phase.schedule.flops_of(times);
            launches += phase.schedule.launch_count(times);
        }
    }
    if let Some(update) = trainer.late_update()? {
        say!("the update of the weights\n{update}");
        flops += update.flops();
        launches += update.launch_count(1);
    }
    say!("counting on\n{count}");
    say!("one training step: 1 submission, {launches} launches, {:.1} MFLOP in products", flops as f64 / 1e6);
    let (tensors, temporaries) = trainer.memory();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    say!(
        "memory of training: {:.1} MiB of tensors (data set, weights, optimiser, batch), {:.1} MiB of temporaries; \
         {:.1} MiB at most",
        mib(tensors),
        mib(temporaries),
        mib(tensors + temporaries)
    );
    Ok(())
}

/// Times every launch of a training step.
pub(crate) fn profile(trainer: &Trainer) -> Result<()> {
    // The first run builds pipelines and warms caches.
    trainer.next_step()?.run()?;
    let program: Program<'_> = trainer.next_step()?;
    let mut timings = program.profile()?;
    timings.sort_by_key(|timing| std::cmp::Reverse(timing.time));
    let total: Duration = timings.iter().map(|timing| timing.time).sum();
    say!("\n{:>9} {:>6} {:>5}  {:>8} {:>7}  launch", "time", "share", "runs", "GFLOP/s", "GB/s");
    for timing in timings {
        let seconds = timing.time.as_secs_f64().max(1e-12);
        say!(
            "{:>6.3} ms {:>5.1}% {:>5}  {:>8.1} {:>7.1}  {}",
            1e3 * seconds,
            100.0 * seconds / total.as_secs_f64().max(1e-12),
            timing.runs,
            timing.flops as f64 / seconds / 1e9,
            timing.bytes as f64 / seconds / 1e9,
            timing.name
        );
    }
    say!("{:>6.3} ms in all launches of one training step", 1e3 * total.as_secs_f64());
    Ok(())
}
