//! Runs of the program: what they leave, and interrupting them.

use crate::tiny::{Ran, Tiny};
use adamant::report::evaluation::Log;
use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// A data set, and a network that is trained on it in the folder `net`.
pub fn trained() -> Tiny {
    let tiny = Tiny::new(400);
    tiny.runs(&tiny.short(&["--out", "net", "--epochs", "20"]));
    tiny
}

fn command(tiny: &Tiny, arguments: &[&str]) -> Command {
    tiny.program(env!("CARGO_BIN_EXE_evaluate"), arguments)
}

pub fn run(tiny: &Tiny, arguments: &[&str]) -> Ran {
    let output = command(tiny, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

pub fn runs(tiny: &Tiny, arguments: &[&str]) -> Ran {
    let ran = run(tiny, arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {}{}", ran.out, ran.err);
    ran
}

/// Refused with an error that says all of `words`.
fn refuses(tiny: &Tiny, arguments: &[&str], words: &[&str]) {
    let ran = run(tiny, arguments);
    assert_eq!(ran.code, Some(1), "{arguments:?}: {}{}", ran.out, ran.err);
    for word in words.iter().chain(&["error: "]) {
        assert!(ran.err.contains(word), "{arguments:?}: `{word}` is not in: {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{arguments:?}: {}", ran.err);
}

const ATTACKS: [&str; 6] = ["--attack", "fgsm,pgd-10", "--restarts", "2", "--batch", "9"];

#[test]
fn what_a_run_leaves_says_what_was_found_and_is_verified() {
    let tiny = trained();
    let ran = runs(&tiny, &[&["net", "--out", "found"][..], &ATTACKS].concat());
    for word in
        ["none (clean), 60 images", "FGSM, Linf 0.1, 60 images", "2 restarts", "worst case of the 2 attacks"]
    {
        assert!(ran.out.contains(word), "`{word}` is not in: {}", ran.out);
    }
    let results: serde_json::Value = serde_json::from_slice(&tiny.read("found/results.json")).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let (clean, worst) = (&results["clean"], &results["worst"]["robust"]);
    assert_eq!((number(&clean["total"]), number(&worst["total"])), (60, 60));
    assert!(number(&worst["correct"]) < number(&clean["correct"]), "nothing was broken: {}", ran.out);
    for attack in results["attacks"].as_array().unwrap() {
        assert!(number(&attack["robust"]["correct"]) >= number(&worst["correct"]));
        assert_eq!(number(&attack["outside"]), 0);
    }
    let confusion: Vec<Vec<u64>> = serde_json::from_value(results["confusion"].clone()).unwrap();
    assert_eq!(confusion.iter().flatten().sum::<u64>(), 60);
    assert_eq!((0..4).map(|class| confusion[class][class]).sum::<u64>(), number(&worst["correct"]));
    let examples = String::from_utf8(tiny.read("found/examples.csv")).unwrap();
    assert_eq!(examples.lines().count(), 61);

    let ran = runs(&tiny, &["--verify", "found"]);
    assert!(ran.out.contains("every one lies in ball and box"), "{}", ran.out);
    // Other weights, other data, another file.
    tiny.runs(&tiny.short(&["--out", "other", "--seed", "5"]));
    refuses(&tiny, &["other", "--verify", "found"], &["weights", "SHA-256"]);
    refuses(&tiny, &["--verify", "found/results.json"], &["is not the log of an evaluation"]);
    refuses(&tiny, &["--verify", "nowhere"], &["nowhere"]);
    // A changed byte.
    let mut log = tiny.read("found/evaluation.log");
    let at = log.len() - 60;
    log[at] ^= 1;
    std::fs::write(tiny.path("found/evaluation.log"), log).unwrap();
    refuses(&tiny, &["--verify", "found"], &["damaged or changed"]);
}

#[test]
fn neither_batch_nor_threads_change_a_verdict() {
    let tiny = trained();
    let found = |name: &str, flags: &[&str]| {
        runs(&tiny, &[&["net", "--attack", "pgd-10", "--out", name][..], flags].concat());
        tiny.read(&format!("{name}/examples.csv"))
    };
    let want = found("whole", &["--batch", "60"]);
    assert_eq!(found("seven", &["--batch", "7"]), want);
    assert_eq!(found("threads", &["--batch", "1", "--threads", "1"]), want);
    let witnesses = |name: &str| {
        let log = Log::read(&tiny.path(&format!("{name}/evaluation.log"))).unwrap();
        log.units.into_iter().flat_map(|unit| unit.witnesses).collect::<Vec<_>>()
    };
    found("seed", &["--seed", "1"]);
    assert_ne!(witnesses("seed"), witnesses("whole"), "PGD from another start finds other images");
    assert_eq!(witnesses("threads").len(), witnesses("whole").len());
}

#[test]
fn a_killed_evaluation_goes_on_to_the_same_bits() {
    let tiny = trained();
    let long = ["--attack", "fgsm,pgd-400,pgd-300", "--restarts", "3", "--batch", "2", "--epsilon", "0.03"];
    let whole = [&["net", "--out", "whole"][..], &long].concat();
    runs(&tiny, &whole);
    let size = tiny.read("whole/evaluation.log").len();
    let mut sizes = Vec::new();
    for round in 0..30 {
        let log = tiny.path("killed/evaluation.log");
        let next = match tiny.path("killed/evaluate.toml").exists() {
            false => {
                let _ = std::fs::remove_dir_all(tiny.path("killed"));
                [&["net", "--out", "killed"][..], &long].concat()
            }
            true => vec!["--resume", "killed"],
        };
        let mut child = command(&tiny, &next)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis([30, 75, 45, 120, 60, 95][round % 6]));
        child.kill().unwrap();
        child.wait().unwrap();
        sizes.push(std::fs::metadata(&log).map_or(0, |file| file.len() as usize));
        if sizes.last() == Some(&size) {
            break;
        }
    }
    assert!(sizes.iter().any(|&at| 0 < at && at < size), "never in the middle: {sizes:?} of {size}");
    runs(&tiny, &["--resume", "killed"]);
    for file in ["evaluation.log", "results.json", "results.csv", "examples.csv", "evaluate.toml"] {
        let read = |run: &str| tiny.read(&format!("{run}/{file}"));
        assert!(read("whole") == read("killed"), "{file} differs after kills at {sizes:?} of {size}");
    }
}

#[test]
fn every_accuracy_is_printed_with_its_attack_and_its_interval() {
    let tiny = trained();
    let curves = ["--sweep-epsilon", "0.02,0.05", "--sweep-steps", "1,5", "--corruptions"];
    let ran = runs(
        &tiny,
        &[&["net", "--attack", "fgsm", "--checks", "none", "--out", "found"][..], &curves].concat(),
    );
    // As it goes on, and in the tables.
    for attack in [
        "none (clean)",
        "FGSM, Linf 0.1",
        "APGD-CE, Linf 0.02",
        "APGD-CE, Linf 0.05",
        "PGD-1, Linf 0.1",
        "PGD-5",
    ] {
        let with = |line: &&str| line.contains(attack) && line.contains("60 images") && line.contains(" to ");
        assert_eq!(ran.out.lines().filter(with).count(), 1, "{attack}: {}", ran.out);
        let with = |line: &&str| line.contains(attack) && line.contains(" % (") && line.contains(" to ");
        assert_eq!(ran.err.lines().filter(with).count(), 1, "{attack}: {}", ran.err);
    }
    let noise = ran.out.lines().find(|line| line.contains("gaussian noise")).unwrap();
    assert_eq!(noise.matches(" to ").count(), 5, "{noise}");
    let results: serde_json::Value = serde_json::from_slice(&tiny.read("found/results.json")).unwrap();
    let lines = |curve: &serde_json::Value| -> Vec<String> {
        let points = curve["points"].as_array().unwrap();
        points.iter().map(|point| point["line"].as_str().unwrap().into()).collect()
    };
    // The tables say the same.
    let table = |name: &str| {
        let text = tiny.read(&format!("found/{name}.csv"));
        let mut reader = csv::Reader::from_reader(&text[..]);
        let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
        rows
    };
    let same = |row: &BTreeMap<String, String>, accuracy: &serde_json::Value| {
        for key in ["correct", "total"] {
            assert_eq!(row[key], accuracy[key].to_string(), "{row:?}");
        }
        let interval = [&accuracy["interval_95"][0], &accuracy["interval_95"][1]];
        for (key, want) in
            ["accuracy", "low", "high"].into_iter().zip([&accuracy["accuracy"], interval[0], interval[1]])
        {
            assert_eq!(row[key].parse::<f64>().unwrap(), want.as_f64().unwrap(), "{row:?}");
        }
    };
    let curves = table("curves");
    let points = ["epsilon_curves", "steps_curve"].map(|of| match of {
        "steps_curve" => results[of]["points"].as_array().unwrap().clone(),
        _ => results[of][0]["points"].as_array().unwrap().clone(),
    });
    assert_eq!(curves.len(), 5);
    for (row, point) in curves.iter().zip(points.iter().flatten()) {
        same(row, &point["robust"]);
        assert_eq!(row["attack"], point["line"].as_str().unwrap());
        assert_eq!(row["at"].parse::<f64>().unwrap(), point["at"].as_f64().unwrap());
    }
    let corrupted = table("corruptions");
    let of_each = results["corruptions"].as_array().unwrap().iter();
    let strengths: Vec<&serde_json::Value> =
        of_each.flat_map(|one| one["strengths"].as_array().unwrap()).collect();
    assert_eq!(corrupted.len(), strengths.len());
    corrupted.iter().zip(strengths).for_each(|(row, want)| same(row, want));
    let classes = results["classes"].as_array().unwrap();
    let by_class = table("classes");
    assert_eq!(by_class.len(), 2 * classes.len());
    for (rows, class) in by_class.chunks(2).zip(classes) {
        same(&rows[0], &class["clean"]);
        same(&rows[1], &class["worst"]);
    }
    let confusion = table("confusion");
    assert_eq!(confusion.len(), classes.len());
    for (row, counts) in confusion.iter().zip(results["confusion"].as_array().unwrap()) {
        for (class, count) in counts.as_array().unwrap().iter().enumerate() {
            assert_eq!(row[&class.to_string()], count.to_string());
        }
    }
    let epsilons = lines(&results["epsilon_curves"][0]);
    assert!(epsilons[1].starts_with("APGD-CE, Linf 0.02") && epsilons[2].starts_with("APGD-CE, Linf 0.05"));
    assert!(lines(&results["steps_curve"])[1].starts_with("PGD-5, Linf 0.1"));
}

#[test]
fn the_checks_say_how_many_images_they_attacked() {
    let tiny = trained();
    let said = |more: &[&str], out: &str| {
        let ran = runs(
            &tiny,
            &[&["net", "--attack", "pgd-40", "--epsilon", "0.02", "--out", out][..], more].concat(),
        );
        let results: serde_json::Value =
            serde_json::from_slice(&tiny.read(&format!("{out}/results.json"))).unwrap();
        (ran.out, results["checks"].clone())
    };
    let (out, checks) = said(&[], "all");
    assert!(out.contains("attacks on 60 of 60 images, where 3.33 points and more are told of"), "{out}");
    assert_eq!(checks["attacked"], 60);
    let (out, checks) = said(&["--check-images", "20"], "some");
    assert!(out.contains("attacks on 20 of 60 images, where 10.00 points and more are told of"), "{out}");
    assert_eq!((checks["attacked"].as_u64(), checks["told_from"].as_f64()), (Some(20), Some(0.1)));
    let (out, checks) = said(&["--checks", "quick"], "quick");
    assert!(!out.contains("attacks on") && !out.contains("no sign"), "{out}");
    assert_eq!(checks["attacked"], 0);
    let (out, checks) = said(&["--checks", "none"], "none");
    assert!(!out.contains("no sign") && checks.is_null(), "{out}");
    refuses(&tiny, &["net", "--check-images", "61"], &["check images", "60 images are evaluated"]);
    refuses(&tiny, &["net", "--check-images", "5", "--checks", "quick"], &["check images", "full"]);
}

#[test]
fn a_suite_keeps_images_within_epsilon_and_distances_beyond() {
    let tiny = trained();
    let distances = |attack: &str, out: &str| {
        let flags = ["net", "--attack", attack, "--images", "30", "--epsilon", "0.03", "--checks", "none"];
        runs(&tiny, &[&flags[..], &["--out", out]].concat());
        let log = Log::read(&tiny.path(out).join("evaluation.log")).unwrap();
        let found = |unit: &adamant::report::evaluation::Unit| {
            let far = |distance: f64| 0.03 < distance && distance.is_finite();
            let verdicts = unit.verdicts.iter().filter(|verdict| far(verdict.distance)).count();
            [verdicts, unit.witnesses.iter().filter(|witness| far(witness.distance)).count()]
        };
        let all: Vec<[usize; 2]> = log.units.iter().map(found).collect();
        [0, 1].map(|what| all.iter().map(|one| one[what]).sum::<usize>())
    };
    let [verdicts, witnesses] = distances("autoattack", "suite");
    assert!(verdicts > 5 && witnesses == 0, "{witnesses} images beyond epsilon, {verdicts} distances");
    let ran = runs(&tiny, &["--verify", "suite"]);
    let said = format!("{verdicts} distances beyond epsilon have no image kept, and were not checked");
    assert!(ran.out.contains(&said), "{}", ran.out);
    // Alone it is asked for its distances.
    let [verdicts, witnesses] = distances("fab-t", "alone");
    assert!(verdicts > 5 && witnesses == verdicts, "{witnesses} images beyond epsilon, {verdicts} distances");
    assert!(runs(&tiny, &["--verify", "alone"]).out.contains("images beyond epsilon: every one"));
}

#[test]
fn images_made_on_another_network_are_an_attack_of_their_own() {
    let tiny = trained();
    tiny.runs(&tiny.short(&["--out", "other", "--seed", "5", "--epochs", "10"]));
    let flags = |batch, out| {
        let attacks =
            ["net", "--attack", "fgsm", "--epsilon", "0.2", "--transfer", "other", "--checks", "quick"];
        [&attacks[..], &["--batch", batch, "--out", out]].concat()
    };
    let ran = runs(&tiny, &flags("9", "found"));
    assert!(ran.out.contains("transfer from other: PGD-40, Linf 0.2, step"), "{}", ran.out);
    assert!(ran.out.contains("worst case of the 2 attacks"), "{}", ran.out);
    let results: serde_json::Value = serde_json::from_slice(&tiny.read("found/results.json")).unwrap();
    let transfer = &results["attacks"][1];
    assert_eq!(transfer["name"], "transfer PGD-40");
    assert_eq!(transfer["tried"], results["clean"]["correct"]);
    assert_eq!((&transfer["outside"], &transfer["robust"]["total"]), (&0.into(), &60.into()));
    let correct = |row: &serde_json::Value| row["correct"].as_u64().unwrap();
    assert!(correct(&transfer["robust"]) < correct(&results["clean"]), "nothing was broken: {}", ran.out);
    assert!(correct(&results["worst"]["robust"]) <= correct(&transfer["robust"]));
    let log = Log::read(&tiny.path("found/evaluation.log")).unwrap();
    let broken = |unit: &&adamant::report::evaluation::Unit| unit.attack == 2;
    let units: Vec<_> = log.units.iter().filter(broken).collect();
    assert!(units.len() > 1, "one unit is too few to be gone on with");
    assert!(units.iter().any(|unit| !unit.witnesses.is_empty()));
    let ran = runs(&tiny, &["--verify", "found"]);
    assert!(ran.out.contains("every one lies in ball and box"), "{}", ran.out);

    // Cut before there was a log, in the middle of the attack, and in other batches, it is the same.
    let bytes = tiny.read("found/evaluation.log");
    for cut in [0, bytes.len() - 500] {
        match cut {
            0 => {
                std::fs::remove_file(tiny.path("found/evaluation.log")).unwrap();
                refuses(&tiny, &["--resume", "found"], &["holds results, but not the evaluation.log"]);
                std::fs::remove_file(tiny.path("found/results.json")).unwrap();
                std::fs::remove_file(tiny.path("found/environment.json")).unwrap();
            }
            _ => std::fs::write(tiny.path("found/evaluation.log"), &bytes[..cut]).unwrap(),
        }
        runs(&tiny, &["--resume", "found"]);
        assert!(tiny.read("found/evaluation.log") == bytes);
        assert!(!tiny.read("found/environment.json").is_empty());
    }
    let examples = tiny.read("found/examples.csv");
    runs(&tiny, &flags("60", "whole"));
    assert!(tiny.read("whole/examples.csv") == examples);
    // Another network in its place is not gone on with.
    std::fs::copy(tiny.path("net/best.safetensors"), tiny.path("other/best.safetensors")).unwrap();
    std::fs::write(tiny.path("found/evaluation.log"), &bytes[..bytes.len() - 500]).unwrap();
    refuses(&tiny, &["--resume", "found"], &["other networks"]);
}

#[test]
fn what_the_attacks_found_is_there_before_anything_else_is_measured() {
    let tiny = trained();
    let mut child = command(&tiny, &["net", "--attack", "fgsm", "--out", "found"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let file = tiny.path("found/results.json");
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without results");
        sleep(Duration::from_millis(1));
    }
    let results = || serde_json::from_slice::<serde_json::Value>(&tiny.read("found/results.json")).unwrap();
    let first = results();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first["margins"].is_null(), "written after the margins alone");
    assert_eq!(first["attacks"][0]["robust"]["total"], 60);
    runs(&tiny, &["--resume", "found"]);
    assert!(!results()["margins"].is_null());
    assert_eq!(first["attacks"], results()["attacks"]);
}

#[test]
fn what_is_asked_for_besides_is_looked_at_before_the_first_attack() {
    let tiny = trained();
    std::fs::write(tiny.path("empty.onnx"), b"").unwrap();
    for (other, words) in [("nonsense", "no such file"), ("empty.onnx", "empty.onnx")] {
        for checks in ["quick", "full"] {
            let flags =
                ["net", "--attack", "fgsm", "--checks", checks, "--transfer", other, "--out", "found"];
            refuses(&tiny, &flags, &["transfer", words, "[8, 8, 1] images in 4 classes"]);
            assert!(!tiny.path("found").exists(), "{other}: a folder was made");
        }
    }
    // A table of features has no pictures to corrupt.
    let rows: String = (0..80).map(|i| format!("0.{},0.{},{}\n", i % 7, i * i % 9, i % 2)).collect();
    std::fs::create_dir(tiny.path("table")).unwrap();
    for part in ["train", "test"] {
        std::fs::write(tiny.path("table").join(part).with_extension("csv"), format!("one,two,label\n{rows}"))
            .unwrap();
    }
    let on = [
        "--data",
        "table",
        "--model",
        "mlp-20-20",
        "--epsilon",
        "0.1",
        "--epochs",
        "1",
        "--validation",
        "10",
    ];
    tiny.runs(&[&on[..], &["--batch", "20", "--out", "of-features"]].concat());
    let flags = ["of-features", "--attack", "fgsm", "--corruptions", "--out", "found"];
    refuses(&tiny, &flags, &["corruptions", "grey and RGB"]);
    assert!(!tiny.path("found").exists(), "a folder was made");
}

#[test]
fn what_does_not_fit_is_refused() {
    let tiny = trained();
    refuses(&tiny, &["nett"], &["model", "`nett`", "no such file or folder here"]);
    refuses(&tiny, &["net", "--attack", "pgt"], &["attack", "did you mean"]);
    refuses(&tiny, &["net", "--attack", "pgd-0"], &["steps of pgd", "whole number from 1"]);
    refuses(&tiny, &["net", "--attack", "pgd:step=0"], &["step of pgd: `0`: must be"]);
    refuses(
        &tiny,
        &["net", "--norm", "l2", "--epsilon", "1", "--attack", "cw:rounds=0"],
        &["rounds of cw: `0`: must be"],
    );
    // What is listed is taken, and what is not taken is not listed.
    refuses(&tiny, &["net", "--attack", "pgd:class=1"], &["option of pgd: `class`", "train --turn"]);
    let listed = runs(&tiny, &["--list-attacks"]).out;
    assert!(listed.contains("pgd-STEPS; step, start=uniform|normal|none, passes, restarts\n"), "{listed}");
    refuses(&tiny, &["net", "--images", "61"], &["there are 60"]);
    refuses(&tiny, &["net", "--norm", "l2"], &["give --epsilon"]);
    refuses(&tiny, &["net", "--epsilon", "8"], &["epsilon", "8/255"]);
    refuses(&tiny, &["net", "--batch", "0"], &["batch", "at least 1"]);
    refuses(&tiny, &["--sweep-epsilon", "net"], &["sweep of epsilon: `net`", "before the flag"]);
    refuses(&tiny, &["--sweep-steps", "net"], &["sweep of steps: `net`", "before the flag"]);
    refuses(&tiny, &["net", "--sweep-epsilon", "0.1,2e7"], &["sweep of epsilon", "larger than any image"]);
    refuses(&tiny, &["net/best.safetensors"], &["--data"]);
    refuses(&tiny, &["net/best.safetensors", "--model", "mlp-16", "--data", "tiny"], &["--epsilon"]);
    refuses(
        &tiny,
        &["net/best.safetensors", "--model", "mlp-17", "--data", "tiny", "--epsilon", "0.1"],
        &["mlp-17"],
    );
    refuses(&tiny, &["--resume", "net"], &["net: holds no evaluate.toml"]);
    // A network that says itself what it computes, told by its first bytes or by its name in any case.
    let begins = [&[0x08, 8, 0x12][..], &[0; 40]].concat();
    std::fs::write(tiny.path("exported.bin"), begins).unwrap();
    std::fs::write(tiny.path("EXPORTED.ONNX"), [0; 40]).unwrap();
    for file in ["exported.bin", "EXPORTED.ONNX"] {
        refuses(&tiny, &[file, "--data", "tiny", "--epsilon", "0.1"], &[file, "ONNX file"]);
        refuses(&tiny, &[file, "--data", "tiny", "--model", "mlp"], &["model: `mlp`", "leave this out"]);
        let names = ["--weights-names", "names.toml"];
        refuses(
            &tiny,
            &[&[file, "--data", "tiny"], &names[..]].concat(),
            &["weights-names", "leave this out"],
        );
    }
    runs(&tiny, &["net", "--attack", "fgsm", "--images", "9", "--out", "found"]);
    refuses(&tiny, &["net", "--attack", "fgsm", "--out", "found"], &["holds files already"]);
    refuses(&tiny, &["--resume", "found", "--attack", "pgd"], &["--attack", "leave these out"]);
    // A log beside which nothing says what was evaluated.
    std::fs::copy(tiny.path("found/evaluation.log"), tiny.path("copy.log")).unwrap();
    refuses(
        &tiny,
        &["--verify", "copy.log"],
        &["error: .: holds no evaluate.toml", "MODEL --data DATA --verify"],
    );
    // Other weights in the place of those it began with.
    tiny.runs(&tiny.short(&["--out", "other", "--seed", "5"]));
    std::fs::copy(tiny.path("other/best.safetensors"), tiny.path("net/best.safetensors")).unwrap();
    refuses(&tiny, &["--resume", "found"], &["other weights"]);
}
