//! Interrupting a run at any moment, and going on to the same bits.

use crate::tiny::Tiny;
use adamant::train::{Position, checkpoint};
use std::fs;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A run that takes a second or so: 475 steps an epoch.
const LONG: [&str; 10] =
    ["--batch", "4", "--epochs", "12", "--validation", "100", "--test-steps", "3", "--steps", "3"];

pub fn arguments<'a>(tiny: &Tiny, flags: &[&'a str], out: &'a str) -> Vec<&'a str> {
    tiny.short(&[&LONG[..], flags, &["--out", out]].concat())
}

/// Metrics without the columns that tell the time.
pub fn metrics(tiny: &Tiny, run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(tiny.read(&format!("{run}/metrics.jsonl"))).unwrap();
    text.lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            for time in ["seconds", "examples_per_second"] {
                assert!(record.as_object_mut().unwrap().remove(time).is_some());
            }
            record
        })
        .collect()
}

/// Both runs ended in the same bits.
pub fn assert_same(tiny: &Tiny, one: &str, other: &str) {
    for file in ["last", "best", "resume"] {
        let read = |run: &str| tiny.read(&format!("{run}/{file}.safetensors"));
        assert!(read(one) == read(other), "{file}.safetensors of {one} and {other} differ");
    }
    assert_eq!(metrics(tiny, one), metrics(tiny, other));
    let read = |run: &str| tiny.read(&format!("{run}/results.json"));
    assert_eq!(read(one), read(other));
}

pub fn position(tiny: &Tiny, run: &str) -> Position {
    checkpoint::load_resume(&tiny.path(&format!("{run}/resume.safetensors"))).unwrap().position
}

/// Waits until `done`, for at most a minute.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never happened");
        sleep(Duration::from_millis(2));
    }
}

/// Epochs that a run has told of.
fn epochs(tiny: &Tiny, run: &str) -> usize {
    fs::read_to_string(tiny.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default().lines().count()
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// Interrupts the run three times, each time after another epoch, and goes on to its end. Returns where it stood.
pub fn in_pieces(tiny: &Tiny, flags: &[&str], run: &str) -> Vec<Position> {
    let mut stood = Vec::new();
    let mut next: Vec<String> = arguments(tiny, flags, run).into_iter().map(String::from).collect();
    for _ in 0..3 {
        let checkpoint = tiny.path(&format!("{run}/resume.safetensors"));
        let epoch = || checkpoint::load_resume(&checkpoint).map_or(0, |checkpoint| checkpoint.position.epoch);
        let before = epoch();
        let child = tiny.start(&next.iter().map(String::as_str).collect::<Vec<_>>());
        wait_until("an epoch", || epoch() > before);
        sleep(Duration::from_millis(7));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(130), "{out}{}", String::from_utf8_lossy(&output.stderr));
        assert!(out.contains(&format!("--resume {run}")), "does not say how to go on: {out}");
        stood.push(position(tiny, run));
        next = vec!["--resume".into(), run.into(), "--test-steps".into(), "3".into()];
    }
    tiny.runs(&next.iter().map(String::as_str).collect::<Vec<_>>());
    stood
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let tiny = Tiny::new(2000);
    tiny.runs(&arguments(&tiny, &[], "whole"));
    let stood = in_pieces(&tiny, &[], "pieces");
    assert!(stood.iter().any(|at| at.step > 0), "never in the middle of an epoch: {stood:?}");
    assert!(stood.windows(2).all(|pair| pair[0].steps < pair[1].steps), "{stood:?}");
    assert_same(&tiny, "whole", "pieces");

    // A finished run that is resumed is only tested again.
    let before = tiny.read("whole/metrics.jsonl");
    fs::remove_file(tiny.path("whole/results.json")).unwrap();
    let ran = tiny.runs(&["--resume", "whole", "--test-steps", "3"]);
    assert!(!ran.err.contains("epoch "), "{}", ran.err);
    assert_eq!(tiny.read("whole/metrics.jsonl"), before);
    assert_same(&tiny, "whole", "pieces");
}

#[test]
fn every_optimiser_averaged_weights_and_mixed_images_too() {
    let tiny = Tiny::new(2000);
    let sgd = ["--optimizer", "sgd", "--nesterov", "true", "--learning-rate", "0.01", "--schedule", "cyclic"];
    let augment = "crop:2,flip,cutout:5,brightness:0.2,contrast:0.2,mixup:1.4,cutmix:1";
    let adamw =
        ["--optimizer", "adamw", "--weight-decay", "0.01", "--weight-average", "0.9", "--augment", augment];
    let swa = [
        "--swa-start",
        "0.2",
        "--swa-every",
        "step",
        "--weight-average-buffers",
        "average",
        "--clip-gradient",
        "0.5",
        "--micro-batch",
        "2",
    ];
    for (name, flags) in [("sgd", &sgd[..]), ("adamw", &adamw[..]), ("swa", &swa[..])] {
        let pieces = format!("{name}-pieces");
        tiny.runs(&arguments(&tiny, flags, name));
        in_pieces(&tiny, flags, &pieces);
        assert_same(&tiny, name, &pieces);
    }
}

#[test]
fn half_precision_and_measured_kernels_stay_with_a_run() {
    let tiny = Tiny::new(2000);
    for device in ["cpu", "0"] {
        let flags = ["--device", device, "--attack-precision", "f16", "--epochs", "6", "--steps", "3"];
        let mut flags = [&flags[..], &["--validation", "100", "--test-steps", "3"]].concat();
        if device != "cpu" {
            flags.extend(["--tune", "--tune-cache", "cache.json"]);
        }
        let (whole, pieces) = (format!("whole-{device}"), format!("pieces-{device}"));
        let ran = tiny.runs(&tiny.short(&[&flags[..], &["--out", &whole]].concat()));
        assert!(ran.out.contains("in f16 ("), "{}", ran.out);

        let child = tiny.start(&tiny.short(&[&flags[..], &["--out", &pieces]].concat()));
        wait_until("an epoch", || epochs(&tiny, &pieces) > 0);
        interrupt(&child);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
        // Another precision or another choice of kernels would be another run.
        for other in [&["--attack-precision", "f32"][..], &["--tune"], &["--tune-cache", "other.json"]] {
            let resume = [&["--resume", &pieces, "--device", device][..], other].concat();
            tiny.refuses(&resume, &["resume", other[0], "leave these flags out"]);
        }
        // The tuner's own file is not what the run goes by.
        let _ = fs::remove_file(tiny.path("cache.json"));
        let ran = tiny.runs(&["--resume", &pieces, "--device", device, "--test-steps", "3"]);
        assert!(ran.out.contains("in f16 ("), "{}", ran.out);
        if device != "cpu" {
            assert!(ran.out.contains("none measured now"), "{}", ran.out);
            assert!(!ran.out.contains("left at the default"), "{}", ran.out);
            assert_eq!(tiny.read(&format!("{pieces}/tuner.json")), tiny.read(&format!("{whole}/tuner.json")));
        }
        assert_same(&tiny, &whole, &pieces);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let tiny = Tiny::new(2000);
    for (threads, run) in [("1", "one"), ("2", "two"), ("5", "five")] {
        let flags =
            ["--batch", "50", "--epochs", "3", "--validation", "100", "--threads", threads, "--out", run];
        tiny.runs(&tiny.short(&flags));
    }
    assert_same(&tiny, "one", "two");
    assert_same(&tiny, "one", "five");
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    let tiny = Tiny::new(2000);
    tiny.runs(&arguments(&tiny, &[], "whole"));
    let often = ["--checkpoint-every", "40"];
    let mut stood = Vec::new();
    for round in 0..6 {
        let next = match round {
            0 => arguments(&tiny, &often, "killed"),
            _ => [&["--resume", "killed", "--test-steps", "3"][..], &often].concat(),
        };
        let mut child = tiny.start(&next);
        wait_until("the first checkpoint", || tiny.path("killed/resume.safetensors").exists());
        sleep(Duration::from_millis([3, 60, 31, 150, 11, 90][round]));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever is there is whole.
        stood.push(position(&tiny, "killed"));
        for file in ["last", "best"] {
            let path = tiny.path(&format!("killed/{file}.safetensors"));
            assert!(
                !path.exists() || safetensors::SafeTensors::deserialize(&fs::read(path).unwrap()).is_ok()
            );
        }
    }
    assert!(stood.iter().all(|at| at.step % 40 == 0), "{stood:?}");
    assert!(stood.iter().any(|at| at.step > 0), "never in the middle of an epoch: {stood:?}");
    tiny.runs(&["--resume", "killed", "--test-steps", "3"]);
    assert_same(&tiny, "whole", "killed");
}

#[test]
fn a_kill_between_the_files_of_a_checkpoint_is_mended() {
    let tiny = Tiny::new(2000);
    tiny.runs(&arguments(&tiny, &[], "whole"));
    let child = tiny.start(&arguments(&tiny, &[], "run"));
    wait_until("two epochs", || epochs(&tiny, "run") > 1);
    interrupt(&child);
    child.wait_with_output().unwrap();
    // The history and the weights are those of the end, the checkpoint is older, and a line is cut short.
    let mut history = tiny.read("whole/metrics.jsonl");
    history.truncate(history.len() - 9);
    fs::write(tiny.path("run/metrics.jsonl"), history).unwrap();
    for file in ["best", "last"] {
        let name = |run: &str| tiny.path(&format!("{run}/{file}.safetensors"));
        fs::copy(name("whole"), name("run")).unwrap();
    }
    tiny.runs(&["--resume", "run", "--test-steps", "3"]);
    assert_eq!(metrics(&tiny, "run"), metrics(&tiny, "whole"));
    let read = |run: &str| tiny.read(&format!("{run}/last.safetensors"));
    assert!(read("run") == read("whole"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_runs_full_leaves_the_checkpoint_before_whole() {
    let tiny = Tiny::new(2000);
    tiny.runs(&arguments(&tiny, &[], "whole"));
    let child = tiny.start(&arguments(&tiny, &[], "run"));
    wait_until("an epoch", || epochs(&tiny, "run") > 0);
    interrupt(&child);
    child.wait_with_output().unwrap();
    let before = position(&tiny, "run");
    for file in ["last", "resume"] {
        // The kernel's own full device stands where the new contents would grow.
        let partial = tiny.path(&format!("run/{file}.safetensors.partial"));
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        let ran = tiny.run(&["--resume", "run"]);
        assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
        for words in ["disk is full", &format!("{file}.safetensors"), "free some space", "--resume run"] {
            assert!(ran.err.contains(words), "`{words}` is not in: {}", ran.err);
        }
        assert!(!partial.exists(), "{partial:?} is left");
        assert_eq!(position(&tiny, "run"), before);
    }
    tiny.runs(&["--resume", "run", "--test-steps", "3"]);
    assert_same(&tiny, "whole", "run");
}
