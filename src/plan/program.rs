//! Plans and repeats of plans as one submission.

use super::{Backend, Plan};
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::gpu::Pass;
use crate::tensor::{Reading, Tensor, gpu_buffers};
use crate::trace::Event;
use std::time::{Duration, Instant};

/// A part of a program.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// A plan, once.
    Run(&'a Plan),
    /// A plan, this many times in a row. What is frozen in it ([`super::Schedule::prologue`]) is computed once.
    Repeat(usize, &'a Plan),
}

impl<'a> Step<'a> {
    fn parts(self) -> (usize, &'a Plan) {
        match self {
            Step::Run(plan) => (1, plan),
            Step::Repeat(times, plan) => (times, plan),
        }
    }
}

/// How long a launch took, over a program.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The launch: kernel, stages, shape, place in the network.
    pub name: String,
    /// Times it ran.
    pub runs: usize,
    /// Time it took in all runs: GPU time by timestamps, or the CPU's clock.
    pub time: Duration,
    /// Floating-point operations of all runs.
    pub flops: u64,
    /// Bytes read and written in all runs.
    pub bytes: u64,
}

/// Plans in a row on one device. One run is one submission, with no word back to the host.
pub struct Program<'a> {
    steps: Vec<Step<'a>>,
    names: Vec<&'static str>,
}

impl<'a> Program<'a> {
    /// The program of these steps, all on the same device.
    pub fn new(steps: Vec<Step<'a>>) -> Program<'a> {
        Program { steps, names: Vec::new() }
    }

    /// With names for its steps, in order, as a trace shows them.
    pub fn named(self, names: Vec<&'static str>) -> Program<'a> {
        Program { names, ..self }
    }

    fn name(&self, step: usize) -> &'static str {
        self.names.get(step).copied().unwrap_or("plan")
    }

    fn device(&self) -> Option<&'a Device> {
        self.steps.first().map(|step| &step.parts().1.device)
    }

    /// Every launch of a run in order: the plan and the launch's number.
    fn launches(&self) -> impl Iterator<Item = (&'a Plan, usize)> + '_ {
        self.steps.iter().flat_map(|step| {
            let (times, plan) = step.parts();
            let (prologue, all) = (plan.schedule.prologue, plan.schedule.launches.len());
            (0..times).flat_map(move |time| {
                let first = if time == 0 { 0 } else { prologue };
                (first..all).map(move |index| (plan, index))
            })
        })
    }

    /// Launches of one run.
    pub fn len(&self) -> usize {
        let len = |step: &Step<'_>| step.parts().1.schedule.launch_count(step.parts().0);
        self.steps.iter().map(len).sum()
    }

    /// Whether a run launches nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs it: one submission. On a GPU it returns as soon as the work is handed over.
    ///
    /// # Errors
    /// Of the device, also of earlier work.
    pub fn run(&self) -> Result<()> {
        match self.device().map(|device| &device.kind) {
            None => Ok(()),
            Some(Kind::Gpu(gpu)) => gpu.submit(|pass| self.encode(pass)),
            Some(_) => self.run_on_cpu(),
        }
    }

    /// As [`Program::run`]; what `tensors` hold after it comes back with the same submission, and can be taken when
    /// it is there: a loss a step without a wait a step. The tensors are of the program's device.
    ///
    /// # Errors
    /// As [`Program::run`]; [`Error::Unsupported`] for a program of no plans.
    pub fn run_reading(&self, tensors: &[Tensor]) -> Result<Reading> {
        match self.device().map(|device| &device.kind) {
            None => Err(Error::Unsupported("reading from a program of no plans".into())),
            Some(Kind::Gpu(gpu)) => {
                let readback = gpu.submit_reading(&gpu_buffers(tensors), |pass| self.encode(pass))?;
                Ok(Reading::of_gpu(readback, tensors))
            }
            Some(_) => self.run_on_cpu().map(|()| Reading::of_cpu(tensors)),
        }
    }

    fn encode(&self, pass: &mut Pass<'_>) {
        for (index, step) in self.steps.iter().enumerate() {
            let (times, plan) = step.parts();
            if let Backend::Gpu(compiled) = &plan.backend
                && times > 0
            {
                pass.part(self.name(index));
                compiled.encode_begin(pass);
                (0..times).for_each(|_| compiled.encode(pass));
            }
        }
    }

    fn run_on_cpu(&self) -> Result<()> {
        let Some(device) = self.device() else { return Ok(()) };
        let submission = device.count_submission();
        let trace = device.trace();
        let record = |event: &dyn Fn(f64) -> Event| {
            if let Some(trace) = &trace {
                trace.push(event(trace.now()));
            }
        };
        record(&|at| Event::Submitted { submission, at });
        for (index, step) in self.steps.iter().enumerate() {
            let start = trace.as_ref().map_or(0.0, |trace| trace.now());
            let (times, plan) = step.parts();
            match &plan.backend {
                Backend::F32(executor) => executor.borrow_mut().repeat(times),
                Backend::F64(executor) => executor.borrow_mut().repeat(times),
                Backend::Gpu(_) => {}
            }
            record(&|end| Event::Device { submission, name: self.name(index), start, end });
        }
        record(&|at| Event::Done { submission, at });
        Ok(())
    }

    /// Runs it with a submission a launch: what replaying as one submission is measured against.
    ///
    /// # Errors
    /// Of the device.
    pub fn run_launch_by_launch(&self) -> Result<()> {
        self.launches().try_for_each(|(plan, index)| plan.run_launch(index))
    }

    /// Runs it once and times every launch.
    ///
    /// # Errors
    /// Of the device.
    pub fn profile(&self) -> Result<Vec<Timing>> {
        let Some(device) = self.device() else { return Ok(Vec::new()) };
        let times: Vec<Duration> = match &device.kind {
            Kind::Gpu(gpu) => {
                let launches: Vec<(&Plan, usize)> = self.launches().collect();
                gpu.timed(launches.len(), |at, pass| {
                    if let (plan, index) = launches[at]
                        && let Backend::Gpu(compiled) = &plan.backend
                    {
                        compiled.encode_launch(index, pass);
                    }
                })?
            }
            _ => self
                .launches()
                .map(|(plan, index)| {
                    let start = Instant::now();
                    plan.run_launch(index).map(|()| start.elapsed())
                })
                .collect::<Result<_>>()?,
        };
        let mut timings: Vec<Timing> = Vec::new();
        let mut by_plan: Vec<(*const Plan, usize)> = Vec::new();
        for ((plan, index), time) in self.launches().zip(times) {
            let start = match by_plan.iter().find(|(have, _)| std::ptr::eq(*have, plan)) {
                Some((_, start)) => *start,
                None => {
                    let start = timings.len();
                    by_plan.push((plan, start));
                    timings.extend((0..plan.schedule.launches.len()).map(|i| Timing {
                        name: plan.launch_name(i),
                        runs: 0,
                        time: Duration::ZERO,
                        flops: 0,
                        bytes: 0,
                    }));
                    start
                }
            };
            let timing = &mut timings[start + index];
            let launch = &plan.schedule.launches[index];
            timing.runs += 1;
            timing.time += time;
            timing.flops += launch.kernel.flops();
            timing.bytes += plan.schedule.bytes(launch);
        }
        Ok(timings)
    }

    /// Runs it launch by launch and reads back each result: the name of the first launch that writes a NaN or an
    /// infinity, if one does. Slow, and for finding the cause of a loss that is not finite; the tensors of the store
    /// change as by a run.
    ///
    /// # Errors
    /// Of the device.
    pub fn first_not_finite(&self) -> Result<Option<String>> {
        for (plan, index) in self.launches() {
            plan.run_launch(index)?;
            if plan.output(index)?.to_f64().iter().any(|x| !x.is_finite()) {
                return Ok(Some(plan.launch_name(index)));
            }
        }
        Ok(None)
    }
}

impl Plan {
    /// Runs one of its launches as a submission of its own.
    fn run_launch(&self, index: usize) -> Result<()> {
        match (&self.backend, &self.device.kind) {
            (Backend::F32(executor), _) => {
                self.device.count_submission();
                executor.borrow_mut().run_launch(index);
                Ok(())
            }
            (Backend::F64(executor), _) => {
                self.device.count_submission();
                executor.borrow_mut().run_launch(index);
                Ok(())
            }
            (Backend::Gpu(compiled), Kind::Gpu(gpu)) => {
                gpu.submit(|pass| compiled.encode_launch(index, pass))
            }
            (Backend::Gpu(_), _) => Err(Error::Unsupported("a GPU plan on another device".into())),
        }
    }
}
