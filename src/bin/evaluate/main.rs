//! `evaluate`: says how robust a network is, so that nobody has to doubt the answer.

#[path = "../common/mod.rs"]
mod common;

mod attacks;
mod flags;
mod measure;
mod model;
mod request;
mod watch;

use adamant::attack::{ThreatModel, names};
use adamant::data::Dataset;
use adamant::report::evaluation::{
    Assessment, Attempt, Extras, Log, Outcomes, Part, Results, Subject, Writer, corruptions, pictures, verify,
};
use adamant::report::{Environment, Progress, environment::DataSource, results};
use adamant::{Device, Error, Result, Store, files};
use clap::Parser;
use common::{Machine, say};
use flags::Flags;
use measure::Measure;
use model::Model;
use request::Request;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use watch::Watch;

/// Names in a folder of results: of the log, of what is read off it, and of what says on what it was made.
const LOG: &str = "evaluation.log";
const RESULTS: &str = "results.json";
const ENVIRONMENT: &str = "environment.json";

fn main() -> ExitCode {
    let start = Instant::now();
    // SAFETY: nothing else runs yet: this is the first thing the program does.
    unsafe { common::quieten_vulkan() };
    let flags = Flags::parse();
    common::end(run(&flags, start))
}

/// Does what the flags ask for; `start` is when the program began.
fn run(flags: &Flags, start: Instant) -> Result<ExitCode> {
    flags.machine.start_threads()?;
    if flags.machine.list_devices {
        Machine::list();
        return Ok(ExitCode::SUCCESS);
    }
    if flags.list_attacks {
        names().iter().for_each(|(name, what)| say!("{name:<12} {what}"));
        say!(
            "\nNAME-N takes N steps (queries, draws); options stand behind a colon: pgd-40:step=2/255,restarts=5\n\
             --transfer MODEL: images made on another network"
        );
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &flags.verify {
        return check(flags, file);
    }
    let request = match &flags.resume {
        Some(folder) => {
            flags.alone("resume", &[])?;
            Request::read(folder)?
        }
        None => flags.request()?,
    };
    let model = Model::load(&request)?;
    // What is asked for besides is looked at before the first attack: a mistake is not to be found after hours.
    let other = request.transfer.as_ref().map(|other| model.beside(other, &request)).transpose()?;
    if request.corruptions {
        corruptions::check(&model.data.test)?;
    }
    evaluate(flags, &request, &model, other.as_ref(), start)
}

/// The evaluation itself.
fn evaluate(
    flags: &Flags,
    request: &Request,
    model: &Model,
    other: Option<&Model>,
    start: Instant,
) -> Result<ExitCode> {
    let collapsed = (model.collapsed(), other.and_then(Model::collapsed));
    let subject = model.subject(&collapsed.0);
    let threat = request.threat(model.recipe.as_ref())?;
    let (cheap, costly) = request.checks()?;
    let data = subject.data;
    let attempts = attempts(request, &threat, subject.architecture.classes())?;
    let assessment = Assessment {
        subject,
        other: other.map(|other| Subject {
            name: request.transfer.as_deref().unwrap_or(&other.name),
            ..other.subject(&collapsed.1)
        }),
        attempts,
        examples: chosen(request, data.len(), |count| {
            let all: Vec<u32> = (0..data.len() as u32).collect();
            data.choose(&all, count, request.seed).1
        })?,
        seed: request.seed,
        batch: request.batch,
    };
    if let Some(images) = request.check_images.filter(|&images| images > assessment.examples.len()) {
        let why = format!("{} {} are evaluated", assessment.examples.len(), data.kind());
        return Err(Error::argument("check images", images, why));
    }
    let header = assessment.header()?;
    let device = flags.machine.device()?;
    say!("data      {}: {} of {} test {}", data.name, assessment.examples.len(), data.len(), data.kind());
    say!("model     {}, {} parameters, from {}", subject.name, subject.params.count(), model.file.display());
    model.said.iter().for_each(|line| say!("          {line}"));
    if model.dummies {
        say!("          {}", results::WHY_COLLAPSED);
    }
    let (folder, (mut writer, known)) = match &flags.resume {
        Some(folder) => {
            if !folder.join(LOG).exists() && folder.join(RESULTS).exists() {
                let why = format!(
                    "holds results, but not the {LOG} that they come from: put it back, or start another"
                );
                return Err(Error::file(folder, why));
            }
            let (writer, log) = Writer::resume(&folder.join(LOG), &header)?;
            if !folder.join(ENVIRONMENT).exists() {
                write_environment(folder, &device, data)?;
            }
            if log.complete {
                say!("          this evaluation was complete; its reports are written again");
            } else if let Some(before) = begun_on(folder).filter(|before| *before != device.describe()) {
                say!(
                    "note: this evaluation was begun on {before}, where last digits may be others than here"
                );
            }
            (folder.clone(), (writer, log.units))
        }
        None => {
            let folder = flags.out.clone().unwrap_or_else(|| free(&header.model));
            files::create_run_folder(&folder)?;
            request.write(&folder)?;
            write_environment(&folder, &device, data)?;
            (folder.clone(), (Writer::create(&folder.join(LOG), &header)?, Vec::new()))
        }
    };
    say!("results   {}", folder.display());
    let resume = format!("cargo run --release --bin evaluate -- --resume {}", folder.display());
    let note = format!("\ninterrupted; what is done is saved, go on with\n  {resume}");
    // Without a handler Ctrl-C just ends the program, and the log is whole.
    let _ = ctrlc::set_handler(move || {
        eprintln!("{note}");
        std::process::exit(130);
    });
    let store = Store::new(&device);
    subject.put(&store)?;
    let mut watch = Watch::new();
    let units = assessment.run(&store, &mut writer, known, &mut watch);
    watch.finish();
    let units = units.inspect_err(|_| {
        eprintln!("what was evaluated is saved; when that is mended, go on with\n  {resume}");
    })?;
    let outcomes = Outcomes::of(&header, &units);
    let measure = Measure {
        request,
        subject,
        store: &store,
        header: &header,
        attempts: &assessment.attempts,
        outcomes: &outcomes,
        threat: &threat,
    };
    // Nothing that goes wrong from here on is to lose what the attacks found.
    let none = Extras::default();
    let attacked = Results::of(&header, &outcomes, &none, data);
    attacked.write(&folder)?;
    say!("\n{}", attacked.text());
    let extras = measure.extras(&units, cheap, costly).inspect_err(|_| {
        eprintln!(
            "the results of the attacks are in {}; when that is mended, go on with\n  {resume}",
            folder.display()
        );
    })?;
    let results = Results::of(&header, &outcomes, &extras, data);
    if !extras.corrupted.is_empty() {
        say!("{}", results.corruptions_text());
    }
    extras.flags.iter().for_each(|flag| say!("{}", flag.text()));
    say!("{}", results.checks_text());
    results.write(&folder)?;
    pictures::write(&folder, &header, &outcomes, &results, &extras, data)?;
    say!("{:.1} s in all; results in {}", start.elapsed().as_secs_f64(), folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes down on what an evaluation is made.
fn write_environment(folder: &Path, device: &Device, data: &Dataset) -> Result<()> {
    let sources = vec![DataSource::of("test", data)];
    let environment = Environment::capture(device.describe(), sources).to_json();
    files::write_atomically(folder.join(ENVIRONMENT), environment.as_bytes())
}

/// The device on which the evaluation in a folder was begun.
fn begun_on(folder: &Path) -> Option<String> {
    let environment = std::fs::read(folder.join(ENVIRONMENT)).ok()?;
    let environment: serde_json::Value = serde_json::from_slice(&environment).ok()?;
    environment["device"].as_str().map(str::to_string)
}

/// All attacks that a request asks for, those of the curves among them.
fn attempts(request: &Request, threat: &ThreatModel, classes: usize) -> Result<Vec<Attempt>> {
    let mut all: Vec<Attempt> = Vec::new();
    for name in &request.attacks {
        all.extend(attacks::attempts(name, threat, request.restarts, classes, Part::Attack)?);
    }
    if request.restarts > 1 && all.iter().all(|attempt| attempt.suite.is_some()) {
        let why = "suites have the restarts of the reference: name single attacks beside them, as autoattack,apgd-ce";
        return Err(Error::argument("restarts", request.restarts, why));
    }
    if request.transfer.is_some() {
        all.push(Attempt::by_transfer(threat));
    }
    for (place, epsilon) in request.radii(threat)?.into_iter().enumerate() {
        let threat = ThreatModel { epsilon, ..threat.clone() };
        let swept = attacks::attempts("apgd-ce", &threat, request.restarts, classes, Part::Epsilon)?;
        all.extend(swept.into_iter().map(|one| Attempt { goes_on: place > 0, ..one }));
    }
    for steps in request.steps()? {
        let name = format!("pgd-{steps}");
        all.extend(attacks::attempts(&name, threat, request.restarts, classes, Part::Steps)?);
    }
    Ok(all)
}

/// Which of `all` test examples are evaluated; `stratified` chooses so many of each class their share.
fn chosen(request: &Request, all: usize, stratified: impl Fn(usize) -> Vec<u32>) -> Result<Vec<u32>> {
    match request.images {
        0 => Ok((0..all as u32).collect()),
        count if count > all => {
            let why = format!("there are {all} test images; 0 takes all");
            Err(Error::argument("images", count, why))
        }
        count if request.stratified => Ok(stratified(count)),
        count => Ok((0..count as u32).collect()),
    }
}

/// The first folder runs/MODEL-evaluated-N that is free.
fn free(model: &str) -> PathBuf {
    let plain = model.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-");
    let name = |n: usize| Path::new("runs").join(format!("{plain}-evaluated-{n}"));
    (1..).map(name).find(|folder| !folder.exists()).unwrap_or_else(|| name(0))
}

/// Re-checks the witnesses of a log.
fn check(flags: &Flags, file: &Path) -> Result<ExitCode> {
    let path = if file.is_dir() { file.join(LOG) } else { file.to_path_buf() };
    let log = Log::read(&path)?;
    // What was evaluated is named by the file beside the log, unless it is named here.
    let request = match &flags.subject {
        Some(_) => {
            flags.alone("verify", &["MODEL", "model", "weights_names", "data", "image_size"])?;
            flags.request()?
        }
        None => {
            flags.alone("verify", &[])?;
            let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Request::read(beside.unwrap_or(Path::new(".")))?
        }
    };
    let model = Model::load(&request)?;
    let header = &log.header;
    say!("log       {}: {} examples of {}", path.display(), header.examples.len(), header.data);
    say!("model     {}, weights of SHA-256 {}", header.model, header.model_sha256);
    header.attacks.iter().skip(1).for_each(|attack| say!("attack    {}", attack.line));
    match (log.complete, log.rest()) {
        (true, 0) => say!("complete, and every record has the SHA-256 it says"),
        (true, rest) => say!("complete, but {rest} bytes follow that are no record"),
        (false, 0) => say!("not complete: the evaluation was interrupted (--resume goes on with it)"),
        (false, rest) => {
            say!("not complete: it ends in {rest} bytes of a record that was cut short (--resume goes on)")
        }
    }
    let bar = Progress::new(0, 1);
    let collapsed = model.collapsed();
    let verified = verify(&model.subject(&collapsed), &log, |done, all| {
        bar.working("re-checking witnesses", done as u64, all as u64)
    })?;
    bar.finish();
    verified.lines(header).iter().for_each(|line| say!("{line}"));
    let good = verified.failures.is_empty() && (!log.complete || log.rest() == 0);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
