//! What replaying a training step costs beyond its kernels.

use crate::measure::{Way, in_turn, means_in_turn, seconds};
use crate::work::Loaded;
use adamant::launch::{Launch, Place};
use adamant::plan::{Schedule, Slot};
use adamant::train::{Phase, Trainer};
use adamant::{Error, Plan, Program, Result, Step, Tape};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Seconds of a training step, and of its kernels alone.
pub struct Overhead {
    /// The step: one submission, waited for. A median.
    pub step: f64,
    /// The sum of its kernels' times in the step, by the device's timestamps, less what as many launches that move one
    /// number take so. A median.
    pub kernels: f64,
    /// Launches of the step.
    pub launches: usize,
}

/// Rounds in which launches are measured in turn.
const ROUNDS: usize = 5;
/// Seconds that a kernel is run for in a round.
const ENOUGH: f64 = 0.01;

/// A launch of a step.
pub struct Own {
    /// What it is: stages, result, the layer it was recorded in.
    pub name: String,
    /// How often the step runs it.
    pub times: usize,
    /// Its kernel's time in seconds, run many times in a row, a mean.
    pub seconds: f64,
    /// Its floating-point operations.
    pub flops: u64,
}

/// Rounds in which a step, and the step with timestamps, are measured in turn.
const STEPS: usize = 9;

/// Measures what a training step takes and what its kernels take in it.
///
/// A kernel's time is taken in the step, between timestamps around its launch: there it finds in the caches what the
/// launch before it left. Kernels that run many times in a row ([`launches`]) find more: their sum was 4 to 6 % less
/// than the step of W1 on software Vulkan, which is no cost of replaying. The two sums are of whole steps, disturbed
/// alike by what else the machine does, so medians do.
pub fn of(loaded: &Loaded) -> Result<Overhead> {
    let trainer = trainer(loaded)?;
    let launches = trainer.next_step()?.len();
    let empty = empty(trainer)?;
    let sum = |program: &Program| {
        Ok::<f64, Error>(program.profile()?.iter().map(|timing| timing.time.as_secs_f64()).sum())
    };
    let ways: Vec<Way> = vec![
        Box::new(|| seconds(|| loaded.run(1))),
        Box::new(|| sum(&trainer.next_step()?)),
        Box::new(|| sum(&Program::new(vec![Step::Run(&empty); launches]))),
    ];
    // Once for what a first run compiles and touches.
    in_turn(1, &ways)?;
    let times = in_turn(STEPS, &ways)?;
    Ok(Overhead { step: times[0], kernels: times[1] - times[2], launches })
}

fn trainer(loaded: &Loaded) -> Result<&Trainer> {
    loaded.trainer().ok_or_else(|| Error::Unsupported("only a training step has an overhead here".into()))
}

/// A plan of one launch, which moves one number.
fn empty(trainer: &Trainer) -> Result<Plan> {
    let tape = Tape::new();
    tape.assign("moved", tape.source("one number", [], adamant::DType::F32));
    Plan::compile(&tape, trainer.store())
}

/// What each launch of a training step takes, many times in a row in one submission, less what a launch that moves one
/// number takes so. By means, which add up.
pub fn launches(loaded: &Loaded) -> Result<Vec<Own>> {
    let trainer = trainer(loaded)?;
    let (store, device) = (trainer.store(), trainer.store().device());
    let (mut plans, mut launches) = (vec![empty(trainer)?], Vec::new());
    for Phase { times, schedule, .. } in trainer.phases(loaded.batch())? {
        for (at, (launch, scope)) in schedule.launches.iter().zip(&schedule.scopes).enumerate() {
            plans.push(Plan::of(alone(&schedule, launch, scope), store)?);
            launches.push(Own {
                name: format!("{scope}: {launch} -> {} {}", launch.dtype, launch.shape),
                times: if at < schedule.prologue { 1 } else { times },
                seconds: 0.0,
                flops: launch.kernel.flops(),
            });
        }
    }
    let many = |plan: &Plan, runs: usize| {
        let program = Program::new(vec![Step::Run(plan); runs]);
        seconds(|| program.run().and_then(|()| device.wait()))
    };
    let mut ways: Vec<Way> = Vec::new();
    for plan in &plans {
        many(plan, 1)?;
        let runs = (ENOUGH / many(plan, 10)? * 10.0).ceil().clamp(10.0, 200.0) as usize;
        ways.push(Box::new(move || Ok(many(plan, runs)? / runs as f64)));
    }
    let times = means_in_turn(ROUNDS, &ways)?;
    for (launch, time) in launches.iter_mut().zip(&times[1..]) {
        launch.seconds = (time - times[0]).max(0.0);
    }
    Ok(launches)
}

/// The schedule of one launch; slots that it does not touch shrink to nothing, so that a plan a launch fits.
fn alone(schedule: &Schedule, launch: &Launch, scope: &Rc<str>) -> Schedule {
    let touched: BTreeSet<usize> = launch
        .inputs
        .iter()
        .copied()
        .chain(launch.operands().iter().map(|(place, _)| *place))
        .chain(launch.outputs())
        .filter_map(|place| if let Place::Slot(slot) = place { Some(slot) } else { None })
        .collect();
    let slots = schedule.slots.iter().enumerate();
    let slots = slots.map(|(i, slot)| Slot { len: if touched.contains(&i) { slot.len } else { 1 }, ..*slot });
    Schedule {
        launches: vec![launch.clone()],
        scopes: vec![scope.clone()],
        tensors: schedule.tensors.clone(),
        slots: slots.collect(),
        prologue: 0,
    }
}
