//! What replaying a training step costs beyond its kernels.

use crate::measure::{means_in_turn, seconds};
use crate::work::Loaded;
use adamant::launch::{Launch, Place};
use adamant::plan::{Schedule, Slot};
use adamant::{Error, Plan, Program, Result, Step, Tape};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Seconds of a training step, and of its kernels alone.
pub struct Overhead {
    /// The step: one submission, waited for. A mean.
    pub step: f64,
    /// The sum of its kernels' own times, each a mean.
    pub kernels: f64,
    /// Launches of the step.
    pub launches: usize,
}

/// Rounds in which step and kernels are measured in turn.
const ROUNDS: usize = 5;
/// Seconds that a kernel is run for in a round.
const ENOUGH: f64 = 0.01;

/// A launch of a step.
pub struct Own {
    /// What it is: stages, result, the layer it was recorded in.
    pub name: String,
    /// How often the step runs it.
    pub times: usize,
    /// Its kernel's own time in seconds, a mean.
    pub seconds: f64,
    /// Its floating-point operations.
    pub flops: u64,
}

/// Measures a training work: the step, and what each of its launches takes. A kernel's own time is what its launch
/// takes many times in a row in one submission, less what a launch that moves one number takes so. (Timestamps will
/// not do: software Vulkan drains its queue for each.)
///
/// By means, which add up: what else the machine does falls into every step of a second, but into few runs of a kernel
/// of a millisecond, and is lost with medians. That takes the bias away, not the scatter: on a busy machine (load 6 to 9 on
/// 2 cores, W1 on software Vulkan) three runs gave 10.5, 14.7 and 3.2 % by medians, 6.6, 35.6 and 2.3 % by means, and
/// 1.1, 4.5 and -0.1 % by processor time. Only a quiet machine's figure counts.
pub fn of(loaded: &Loaded) -> Result<(Overhead, Vec<Own>)> {
    let trainer = loaded
        .trainer()
        .ok_or_else(|| Error::Unsupported("only a training step has an overhead here".into()))?;
    let (store, device) = (trainer.store(), trainer.store().device());
    let steps = trainer.method().attack().steps();
    let tape = Tape::new();
    tape.assign("moved", tape.source("one number", [], adamant::DType::F32));
    let empty = Plan::compile(&tape, store)?;
    let (mut plans, mut launches) = (vec![empty], Vec::new());
    for (times, schedule) in [1, steps, 1].into_iter().zip(trainer.schedules(loaded.batch())?) {
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
    let mut ways: Vec<crate::measure::Way> = vec![Box::new(|| seconds(|| loaded.run(1)))];
    for plan in &plans {
        many(plan, 1)?;
        let runs = (ENOUGH / many(plan, 10)? * 10.0).ceil().clamp(10.0, 200.0) as usize;
        ways.push(Box::new(move || Ok(many(plan, runs)? / runs as f64)));
    }
    let times = means_in_turn(ROUNDS, &ways)?;
    let (step, empty) = (times[0], times[1]);
    for (launch, time) in launches.iter_mut().zip(&times[2..]) {
        launch.seconds = (time - empty).max(0.0);
    }
    let kernels = launches.iter().map(|launch| launch.times as f64 * launch.seconds).sum();
    Ok((Overhead { step, kernels, launches: trainer.next_step()?.len() }, launches))
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
