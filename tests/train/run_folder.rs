//! What a run leaves behind.

use crate::tiny::Tiny;
use adamant::train::Recipe;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn json(tiny: &Tiny, file: &str) -> Value {
    serde_json::from_slice(&tiny.read(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Names, types and extents in a safetensors file.
fn tensors(bytes: &[u8]) -> Vec<(String, Dtype, Vec<usize>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut all: Vec<_> =
        file.tensors().into_iter().map(|(name, t)| (name, t.dtype(), t.shape().to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn everything_a_person_wants_to_look_at() {
    let tiny = Tiny::new(300);
    let flags = ["--epochs", "2", "--epsilon-warmup", "0", "--test-steps", "7", "--test-restarts", "2"];
    let ran =
        tiny.runs(&tiny.short(&[&flags[..], &["--out", "run", "--logits", "logits.safetensors"]].concat()));
    let mut files: Vec<String> = std::fs::read_dir(tiny.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "best.safetensors",
        "config.toml",
        "curves.png",
        "environment.json",
        "gallery.png",
        "last.safetensors",
        "metrics.jsonl",
        "results.json",
        "resume.safetensors",
    ];
    assert_eq!(files, expected);

    let recipe = Recipe::read(&tiny.path("run/config.toml")).unwrap();
    assert_eq!((recipe.model.as_str(), recipe.epsilon.as_str(), recipe.epochs), ("mlp-16", "0.1", 2));

    let environment = json(&tiny, "run/environment.json");
    assert_eq!(
        (&environment["data"][0]["examples"], &environment["data"][0]["kind"]),
        (&300.into(), &"images".into())
    );
    assert_eq!(environment["data"][0]["sha256"].as_str().unwrap().len(), 64);
    assert!(environment["device"].as_str().unwrap().contains("CPU executor"));

    let metrics = String::from_utf8(tiny.read("run/metrics.jsonl")).unwrap();
    let records: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2);
    for (epoch, record) in (1..).zip(&records) {
        assert_eq!(record["epoch"], epoch);
        assert!(record["loss"].as_f64().unwrap() > 0.0);
        for share in ["train_robust", "validation_clean", "validation_robust"] {
            assert!((0.0..=1.0).contains(&record[share].as_f64().unwrap()), "{share} in {record}");
        }
        assert_eq!(record["train_clean"], Value::Null, "training saw attacked images alone");
        assert_eq!(record["epsilon"], 0.1);
    }

    // Each row has its attack line, is what the terminal said, and robust is no more than clean.
    let results = json(&tiny, "run/results.json");
    let rows = results["results"].as_array().unwrap();
    let lines: Vec<&str> = rows.iter().map(|row| row["attack"].as_str().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "none (clean), 60 images",
            "FGSM, Linf 0.1, 60 images",
            "PGD-7, Linf 0.1, step 0.019048, random start, 2 restarts, 60 images",
        ]
    );
    for row in rows {
        assert!(ran.out.contains(row["attack"].as_str().unwrap()), "{}", ran.out);
        let (correct, total) = (row["correct"].as_f64().unwrap(), row["total"].as_f64().unwrap());
        assert_eq!((row["accuracy"].as_f64().unwrap(), total), (correct / total, 60.0));
        assert!(correct <= rows[0]["correct"].as_f64().unwrap());
    }

    for picture in ["curves", "gallery"] {
        let image = image::load_from_memory(&tiny.read(&format!("run/{picture}.png"))).unwrap().to_rgb8();
        assert!(image.width() >= 800 && image.height() >= 300, "{picture}: {:?}", image.dimensions());
        let first = image.pixels().next().unwrap();
        assert!(image.pixels().filter(|pixel| *pixel != first).count() > 1000, "{picture} is empty");
    }

    let logits = tensors(&tiny.read("logits.safetensors"));
    assert_eq!(logits, [("logits".to_string(), Dtype::F32, vec![60, 4])]);
    let weights = tensors(&tiny.read("run/best.safetensors"));
    assert_eq!(weights, tensors(&tiny.read("run/last.safetensors")));
    let names: Vec<_> = weights.iter().map(|(name, _, shape)| (name.as_str(), shape.as_slice())).collect();
    // torch.nn.Sequential(Flatten, Linear, ReLU, Linear), outputs before inputs.
    let linear: [(&str, &[usize]); 4] =
        [("1.bias", &[16]), ("1.weight", &[16, 64]), ("3.bias", &[4]), ("3.weight", &[4, 16])];
    assert_eq!(names, linear);
}

#[test]
fn the_configuration_makes_the_same_weights() {
    let tiny = Tiny::new(300);
    let flags = ["--optimizer", "adamw", "--epsilon", "8/255", "--seed", "7", "--method", "fgsm-rs"];
    let all = [&["--data", "tiny", "--model", "mlp-16", "--epochs", "2", "--validation", "100"][..], &flags];
    tiny.runs(&[&all.concat()[..], &["--out", "one"]].concat());
    tiny.runs(&["--recipe", "one/config.toml", "--out", "two"]);
    for file in ["config.toml", "best.safetensors", "last.safetensors", "resume.safetensors", "results.json"]
    {
        let read = |run: &str| tiny.read(&format!("{run}/{file}"));
        assert!(read("one") == read("two"), "{file} differs");
    }
    // Another seed is another run.
    tiny.runs(&["--recipe", "one/config.toml", "--out", "three", "--seed", "8"]);
    assert!(tiny.read("one/last.safetensors") != tiny.read("three/last.safetensors"));
    // A number needs no quotes.
    std::fs::write(
        tiny.path("plain.toml"),
        "data = \"tiny\"\nmodel = \"mlp-16\"\nepsilon = 0.25\nstep_size = 1\n",
    )
    .unwrap();
    let recipe = Recipe::read(&tiny.path("plain.toml")).unwrap();
    assert_eq!((recipe.epsilon.as_str(), recipe.step_size.as_str()), ("0.25", "1"));
}

#[test]
fn every_method_and_norm_runs_to_its_end() {
    let tiny = Tiny::new(300);
    for (run, flags) in [
        ("standard", &["--method", "standard"][..]),
        ("fgsm", &["--method", "fgsm"]),
        ("fgsm-rs", &["--method", "fgsm-rs"]),
        ("l2", &["--norm", "l2", "--steps", "2"]),
        ("plain", &["--start", "none", "--validation", "0"]),
        ("zero", &["--epochs", "1", "--batch", "200", "--threads", "1"]),
    ] {
        let ran = tiny.runs(&tiny.short(&[flags, &["--out", run]].concat()));
        assert!(ran.out.contains("results in"), "{}", ran.out);
    }
    let standard = String::from_utf8(tiny.read("standard/metrics.jsonl")).unwrap();
    let record: Value = serde_json::from_str(standard.lines().next().unwrap()).unwrap();
    assert!(record["train_clean"].is_number() && record["train_robust"].is_null(), "{record}");
}

#[test]
fn batch_norms_carry_what_pytorch_wants() {
    let tiny = Tiny::new(60);
    let flags = ["--data", "tiny", "--model", "preact-resnet18-w4", "--batch", "10", "--validation", "20"];
    let short = ["--epochs", "1", "--steps", "1", "--test-steps", "1", "--out", "run"];
    tiny.runs(&[&flags[..], &short].concat());
    let bytes = tiny.read("run/last.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let conv = file.tensor("conv1.weight").unwrap();
    assert_eq!(conv.shape(), [4, 1, 3, 3], "outputs, inputs, rows, columns");
    let counts: Vec<_> =
        file.tensors().into_iter().filter(|(name, _)| name.ends_with("num_batches_tracked")).collect();
    let running = file.names().into_iter().filter(|name| name.ends_with("running_var")).count();
    assert!(running > 0 && counts.len() == running);
    for (name, tensor) in counts {
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::I64, &[][..]), "{name}");
        assert_eq!(tensor.data(), 4i64.to_le_bytes(), "{name}: 40 images in batches of 10");
    }
}

#[test]
fn the_tuner_remembers_in_the_users_cache_and_is_in_the_record() {
    let tiny = Tiny::new(300);
    let run = |flags: &[&str], out: &str| {
        let arguments = tiny.short(&[&["--device", "0", "--steps", "2", "--out", out], flags].concat());
        let output = tiny.command(&arguments).env("XDG_CACHE_HOME", tiny.path("cache")).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        (text(&output.stdout), json(&tiny, &format!("{out}/environment.json"))["tuner"].clone())
    };
    let (_, tuner) = run(&[], "plain");
    assert_eq!(tuner, Value::Null);
    assert!(
        !tiny.path("cache/adamant").exists(),
        "the driver has a cache of its own there, but the tuner was not asked"
    );
    let (out, first) = run(&["--tune"], "tuned");
    assert!(out.contains("measured now in"), "{out}");
    let files: Vec<_> = std::fs::read_dir(tiny.path("cache/adamant")).unwrap().collect();
    let file = files[0].as_ref().unwrap().path();
    assert!(files.len() == 1 && first.as_str().unwrap().contains("sha256"), "{first}");
    assert!(first.as_str().unwrap().starts_with(&*file.to_string_lossy()), "{first}");
    let (out, again) = run(&["--tune-cache", &file.to_string_lossy()], "again");
    assert!(out.contains("none measured now") && again == first, "{out}");
    assert_eq!(tiny.read("tuned/last.safetensors"), tiny.read("again/last.safetensors"));
    let ran = tiny.runs(&tiny.short(&["--tune", "--out", "cpu"]));
    assert!(ran.out.contains("nothing to tune"), "{}", ran.out);
}

#[test]
fn a_dry_run_and_a_profile_leave_nothing() {
    let tiny = Tiny::new(300);
    let plan = tiny.runs(&tiny.short(&["--dry-run"]));
    for words in
        ["a step of the attack", "matmul", "one training step: 1 submission", "memory of training:", "MFLOP"]
    {
        assert!(plan.out.contains(words), "`{words}` is not in: {}", plan.out);
    }
    let profile = tiny.runs(&tiny.short(&["--profile"]));
    assert!(profile.out.contains("GFLOP/s") && profile.out.contains("matmul"), "{}", profile.out);
    tiny.runs(&["--list-devices"]);
    assert!(tiny.runs(&["--help"]).out.contains("--epsilon"));
    let entries = std::fs::read_dir(tiny.path(".")).unwrap().count();
    assert_eq!(entries, 1, "only the data are there");
}
