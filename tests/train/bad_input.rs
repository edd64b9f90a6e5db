//! Bad input: an error that says what, where, why and what to do; nothing lost, nothing half written.

use crate::tiny::{CLASSES, SIDE, Tiny, idx_file};
use adamant::Device;
use adamant::nn::{Params, architectures};
use adamant::train::checkpoint;
use std::fs;

#[test]
fn data_that_is_not_what_it_should_be() {
    let images = "tiny/train-images-idx3-ubyte";
    let labels = "tiny/train-labels-idx1-ubyte";
    let refuses_with = |file: &str, bytes: Option<Vec<u8>>, words: &[&str]| {
        let tiny = Tiny::new(300);
        match bytes {
            Some(bytes) => fs::write(tiny.path(file), bytes).unwrap(),
            None => fs::remove_file(tiny.path(file)).unwrap(),
        }
        tiny.refuses(&tiny.short(&["--out", "run"]), words);
    };
    let whole = Tiny::new(300).read(images);
    refuses_with(images, None, &["tiny", "lacks train-images-idx3-ubyte"]);
    refuses_with(
        images,
        Some(whole[..1000].to_vec()),
        &[images, "is cut short", "download or copy it again"],
    );
    let mut swapped = whole.clone();
    swapped[3] = 1;
    refuses_with(images, Some(swapped), &[images, "is not an IDX file of images", "swapped"]);
    refuses_with(labels, Some(idx_file(&[299], &[0; 299])), &[labels, "holds 299 labels", "300 images"]);
    refuses_with(labels, Some(Vec::new()), &[labels, "is empty"]);
    refuses_with(images, Some(idx_file(&[300, 9, 8], &[0; 300 * 72])), &["t10k-images", "8x8", "9x8"]);

    let tiny = Tiny::new(300);
    tiny.refuses(&["--data", "mnits"], &["data", "`mnits`", "did you mean `mnist`?", "four IDX files"]);
    tiny.refuses(&["--data", "./no/where"], &["there is no such folder", "train-images-idx3-ubyte"]);
    tiny.refuses(&["--data", images], &["is a file; give the folder"]);
}

#[test]
fn names_that_are_not_known() {
    let tiny = Tiny::new(300);
    let refuses = |flags: &[&str], words: &[&str]| tiny.refuses(&tiny.short(flags), words);
    refuses(&["--method", "pdg"], &["method", "`pdg`", "did you mean `pgd`?", "fgsm-rs"]);
    refuses(&["--norm", "l3"], &["norm", "`l3`", "did you mean `l1`?"]);
    refuses(&["--optimizer", "adma"], &["optimizer", "did you mean `adam`?", "sgd"]);
    refuses(&["--schedule", "cosin"], &["schedule", "did you mean `cosine`?"]);
    refuses(&["--weight-decay-on", "weight"], &["weight decay", "did you mean `weights`?", "no-norm-bias"]);
    refuses(&["--schedule-at", "begin"], &["schedule at", "`begin`", "start"]);
    refuses(&["--schedule", "multistep"], &["milestones", "needs them", "0.5,0.75"]);
    refuses(&["--milestones", "0.5"], &["milestones", "only `multistep`"]);
    refuses(&["--beta2", "1"], &["beta2", "below 1"]);
    refuses(&["--optimizer", "sgd", "--momentum", "0", "--nesterov", "true"], &["nesterov", "momentum"]);
    refuses(&["--micro-batch", "3"], &["micro-batch", "must divide the batch of 20"]);
    refuses(&["--swa-start", "0.5", "--weight-average", "0.9"], &["swa start", "two kinds"]);
    refuses(&["--weights", "tiny"], &["tiny", "holds none of best.safetensors", "the folder of a run"]);
    refuses(&["--weights", "no.safetensors"], &["no.safetensors", "could not read the weights"]);
    refuses(&["--weights-head", "redrew"], &["head", "did you mean `redraw`?"]);
    refuses(&["--attack-batch-norm", "evl"], &["batch norm", "did you mean `eval`?", "train-frozen"]);
    refuses(&["--attack-precision", "fp16"], &["attack precision", "`fp16`", "did you mean `f16`?", "f32"]);
    refuses(&["--device", "nonsense"], &["device `nonsense`", "`auto`, `cpu`, `gpu`"]);
    refuses(&["--epoch", "3"], &["--epoch", "--epochs"]);
    tiny.refuses(&["--data", "tiny", "--model", "mnist-fats"], &["model", "did you mean `mnist-fast`?"]);
    tiny.refuses(&["--data", "tiny", "--model", "mlp-x"], &["model", "`mlp-x`", "not a width"]);
}

#[test]
fn numbers_that_are_refused() {
    let tiny = Tiny::new(300);
    for (flag, what) in
        [("--epsilon", "epsilon"), ("--step-size", "step size"), ("--test-step-size", "test step size")]
    {
        let base = ["--data", "tiny", "--model", "mlp-16", "--validation", "100"];
        for (value, why) in [
            ("-0.1", "negative"),
            ("-1/255", "negative"),
            ("nan", "not finite"),
            ("inf", "not finite"),
            ("-inf", "not finite"),
            ("1/0", "not finite"),
            ("0/0", "not finite"),
            ("eight", "not a number"),
            ("8/", "not a number"),
            ("", "not a number"),
            ("1e300", "larger than"),
        ] {
            let all = [&base[..], &[flag, value]].concat();
            tiny.refuses(&all, &[&format!("error: {what}: `{value}`"), why]);
        }
    }
    let refuses = |flags: &[&str], words: &[&str]| tiny.refuses(&tiny.short(flags), words);
    tiny.refuses(&["--epsilon", "8"], &["epsilon", "larger than 1", "did you mean 8/255?"]);
    let error = tiny.refuses(&["--epsilon", "300/255"], &["epsilon", "larger than 1"]);
    assert!(!error.contains("did you mean"), "{error}");
    refuses(&["--validation-group", "0"], &["validation group: 0", "at least 1"]);
    refuses(&["--validation-group", "18446744073709551615"], &["nothing of class 0", "smaller groups"]);
    refuses(&["--validation-gap", "18446744073709551615"], &["nothing of class 0", "smaller groups"]);
    refuses(&["--batch-norm-momentum", "nan"], &["batch norm's momentum: NaN", "from 0 to 1"]);
    refuses(&["--batch", "0"], &["batch: 0", "at least 1"]);
    refuses(&["--batch", "201"], &["batch: 201", "200 training images"]);
    refuses(&["--batch", "many"], &["--batch", "many"]);
    refuses(&["--epochs", "0"], &["epochs: 0", "at least 1"]);
    refuses(&["--steps", "0"], &["steps: 0", "`standard`"]);
    refuses(&["--validation", "300"], &["validation images: 300", "300 images"]);
    refuses(&["--test-steps", "0"], &["test steps: 0", "at least 1"]);
    refuses(&["--test-restarts", "0"], &["test restarts: 0", "at least 1"]);
    refuses(&["--threads", "0"], &["threads: 0", "at least 1"]);
    refuses(&["--learning-rate", "-1"], &["learning rate: -1", "from 0"]);
    refuses(&["--learning-rate", "nan"], &["learning rate: NaN", "from 0"]);
    refuses(&["--momentum", "1.5"], &["momentum: 1.5", "from 0 to 1"]);
    refuses(&["--epsilon-warmup", "-0.5"], &["warm-up: -0.5", "from 0 to 1"]);
    refuses(&["--memory", "lots"], &["memory", "`lots`", "512MiB"]);
}

#[test]
fn a_gpu_where_there_is_none() {
    if Device::adapters().iter().any(|adapter| !adapter.is_software()) {
        return;
    }
    let tiny = Tiny::new(300);
    tiny.refuses(&tiny.short(&["--device", "gpu"]), &["device `gpu`", "no hardware GPU", "--device cpu"]);
}

#[test]
fn output_folders_that_cannot_be_used() {
    let tiny = Tiny::new(300);
    fs::create_dir(tiny.path("full")).unwrap();
    fs::write(tiny.path("full/precious"), "thesis").unwrap();
    let refuses = |out: &str, words: &[&str]| tiny.refuses(&tiny.short(&["--out", out]), words);
    refuses("full", &["full", "holds files already", "--resume"]);
    refuses("full/precious", &["is a file", "choose another path"]);
    refuses("no/such/place", &["does not exist"]);
    tiny.refuses(&tiny.short(&["--logits", "no/such/file"]), &["no/such", "--logits"]);
    tiny.refuses(&tiny.short(&["--logits", "full"]), &["full", "is a folder", "--logits"]);
    tiny.refuses(&tiny.short(&["--trace", "full"]), &["full", "is a folder", "--trace"]);
    // Not even root writes here.
    #[cfg(target_os = "linux")]
    refuses("/proc/run", &["/proc/run", "could not make the output folder"]);
}

#[test]
fn recipes_that_are_not() {
    let tiny = Tiny::new(300);
    let refuses = |recipe: &str, words: &[&str]| {
        fs::write(tiny.path("recipe.toml"), recipe).unwrap();
        tiny.refuses(&["--recipe", "recipe.toml", "--out", "run"], &[words, &["recipe.toml"]].concat());
    };
    refuses("data = \"tiny\"\nepsilom = \"0.1\"\n", &["line 2", "`epsilom`", "did you mean `epsilon`?"]);
    refuses("epochs = \"three\"\n", &["line 1", "invalid type", "epochs"]);
    refuses("epsilon = true\n", &["line 1", "8/255"]);
    refuses("epochs = \n", &["line 1"]);
    refuses("method = \"pdg\"\n", &["method", "did you mean `pgd`?"]);
    refuses("batch = 0\n", &["batch: 0"]);
    let no_such = ["recipe", "`mnist-fast-pdg`", "did you mean `mnist-fast-pgd`?", "--list-recipes"];
    tiny.refuses(&["--recipe", "mnist-fast-pdg"], &no_such);
    fs::write(tiny.path("recipe.toml"), "data = \"tiny\"\nmodel = \"mlp-16\"\nclasses = 10\n").unwrap();
    tiny.refuses(
        &["--recipe", "recipe.toml"],
        &["the recipe is for 10 classes", "`tiny` has 4 classes", "--data"],
    );
    fs::write(tiny.path("recipe.toml"), "data = \"tiny\"\nimage = [28, 28, 1]\n").unwrap();
    tiny.refuses(&["--recipe", "recipe.toml"], &["images of 28x28x1", "`tiny` has images of 8x8x1"]);
    refuses("image = [28, 28]\n", &["image: [28, 28]", "height, width and channels"]);
    fs::remove_file(tiny.path("recipe.toml")).unwrap();
    tiny.refuses(&["--recipe", "nowhere.toml"], &["nowhere.toml", "could not read the recipe"]);
    tiny.refuses(&["--recipe", "tiny"], &["tiny", "could not read the recipe"]);
    fs::write(tiny.path("large.toml"), " ".repeat((1 << 20) + 1)).unwrap();
    tiny.refuses(&["--recipe", "large.toml"], &["large.toml", "at most 1048576 bytes"]);
    #[cfg(unix)]
    tiny.refuses(&["--recipe", "/dev/zero"], &["/dev/zero", "could not read the recipe"]);
}

#[test]
fn checkpoints_that_are_damaged_or_foreign() {
    let tiny = Tiny::new(300);
    tiny.runs(&tiny.short(&["--out", "run"]));
    let whole = tiny.read("run/resume.safetensors");
    let refuses_with = |file: &str, bytes: &[u8], words: &[&str]| {
        let path = tiny.path(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        tiny.refuses(&["--resume", "run"], &[words, &[file]].concat());
        fs::write(&path, good).unwrap();
    };
    let resume = "run/resume.safetensors";
    refuses_with(resume, &whole[..whole.len() / 2], &["not a whole safetensors file"]);
    refuses_with(resume, &whole[..5], &["not a whole safetensors file"]);
    refuses_with(resume, b"", &["not a whole safetensors file"]);
    refuses_with(resume, &[0x5a; 4096], &["not a whole safetensors file"]);
    // One bit: in the header's length, in its text, in the position it says, in a weight.
    let position = whole.windows(8).position(|window| window == b"position").unwrap();
    for at in [0, 7, 20, position + 15, whole.len() - 3] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refuses_with(resume, &flipped, &["not a whole safetensors file"]);
    }
    refuses_with(resume, &tiny.read("run/last.safetensors"), &["has no `recipe`", "resume.safetensors"]);

    // Weights of another architecture beside a good checkpoint, and a folder without one.
    tiny.runs(&[&tiny.short(&["--out", "other"])[..], &["--seed", "3"]].concat());
    let model =
        ["--data", "tiny", "--model", "mlp-8-8", "--epochs", "1", "--validation", "100", "--batch", "20"];
    tiny.runs(&[&model[..], &["--out", "deep"]].concat());
    let deep = tiny.read("deep/best.safetensors");
    refuses_with("run/best.safetensors", &deep, &["of `mlp-8-8`", "not of `mlp-16`"]);
    refuses_with("run/best.safetensors", &deep[..99], &["not a whole safetensors file"]);
    tiny.refuses(&["--resume", "tiny"], &["tiny", "no resume.safetensors"]);
    tiny.refuses(&["--resume", "nowhere"], &["nowhere", "is no folder"]);

    // Through the library too: the same names but other widths.
    let image = [SIDE, SIDE, 1];
    let wide = architectures::by_name("mlp-32", image, CLASSES).unwrap();
    let params = Params::of(wide.as_ref()).unwrap();
    let error =
        checkpoint::load_weights(&tiny.path("run/best.safetensors"), wide.as_ref(), &params).unwrap_err();
    assert!(error.to_string().contains("another architecture"), "{error}");

    // What would have no effect, or leave a hole in the history.
    let config = String::from_utf8(tiny.read("run/config.toml")).unwrap();
    let words = ["epochs differ", "--weights run"];
    refuses_with("run/config.toml", config.replace("epochs = 1\n", "epochs = 5\n").as_bytes(), &words);
    refuses_with("run/config.toml", format!("{config}\nbogus = 1\n").as_bytes(), &["`bogus`"]);
    refuses_with("run/metrics.jsonl", b"", &["lacks the record of epoch 1"]);
    refuses_with("run/metrics.jsonl", b"{nonsense", &["lacks the record of epoch 1"]);

    // Nothing of all this has harmed the run.
    tiny.runs(&["--resume", "run"]);
}

#[test]
fn resuming_with_flags_that_would_change_the_run_or_with_other_data() {
    let tiny = Tiny::new(300);
    tiny.runs(&tiny.short(&["--out", "run"]));
    for flags in [["--seed", "0"], ["--epsilon", "-1"], ["--out", "elsewhere"], ["--recipe", "r.toml"]] {
        let words = ["resume", flags[0], "leave these flags out"];
        tiny.refuses(&[&["--resume", "run"][..], &flags].concat(), &words);
    }
    let images = tiny.path("tiny/train-images-idx3-ubyte");
    let mut changed = fs::read(&images).unwrap();
    changed[100] ^= 1;
    fs::write(&images, changed).unwrap();
    tiny.refuses(&["--resume", "run"], &["training data in `tiny`", "SHA-256"]);
}

/// The number after `the largest batch that fits is` in an error.
fn largest(error: &str) -> usize {
    let number = error.split("the largest batch that fits is ").nth(1).unwrap_or_else(|| panic!("{error}"));
    number.split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{error}"))
}

#[test]
fn a_batch_larger_than_memory() {
    let tiny = Tiny::new(300);
    let software = Device::adapters().into_iter().find(|adapter| adapter.is_software());
    let mut devices = vec!["cpu".to_string()];
    devices.extend(software.map(|adapter| adapter.index.to_string()));
    for device in &devices {
        let flags = |batch: &str| -> Vec<String> {
            let all =
                tiny.short(&["--batch", batch, "--memory", "300KiB", "--out", "run", "--device", device]);
            all.into_iter().map(String::from).collect()
        };
        let refuses = |batch: usize| {
            let flags = flags(&batch.to_string());
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            tiny.refuses(
                &flags,
                &[&format!("training `mlp-16` in batches of {batch}"), "bytes", "use --batch"],
            )
        };
        let fits = largest(&refuses(200));
        assert!((1..200).contains(&fits), "{fits} of 200 on {device}");
        if device == "cpu" {
            assert_eq!(largest(&refuses(fits + 1)), fits);
        }
        let flags = flags(&fits.to_string());
        tiny.runs(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        fs::remove_dir_all(tiny.path("run")).unwrap();
    }
    let all = [&tiny.short(&[])[..], &["--memory", "24KiB"]].concat();
    tiny.refuses(&all, &["not even a batch of 1 fits"]);
}

#[test]
fn a_loss_that_turns_nan_names_its_origin_and_keeps_the_last_good_weights() {
    let tiny = Tiny::new(300);
    let ran = tiny.run(&tiny.short(&["--learning-rate", "1e30", "--epochs", "3", "--out", "run"]));
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    for words in ["epoch", "the first launch that made one is", "last.safetensors", "lower learning rate"] {
        assert!(ran.err.contains(words), "`{words}` is not in: {}", ran.err);
    }
    // It names a kernel and where in the network it is.
    let launch = ran.err.split("the first launch that made one is ").nth(1).unwrap();
    assert!(launch.contains(" at ") && !launch.starts_with("none"), "{launch}");
    assert!(!ran.err.contains("panicked"), "{}", ran.err);

    let architecture = architectures::by_name("mlp-16", [SIDE, SIDE, 1], CLASSES).unwrap();
    let params = Params::of(architecture.as_ref()).unwrap();
    let last = checkpoint::load_weights(&tiny.path("run/last.safetensors"), architecture.as_ref(), &params);
    assert!(last.unwrap().iter().all(|(_, values)| values.iter().all(|x| x.is_finite())));
    // The checkpoint is whole, and the same thing happens again from there.
    let again = tiny.run(&["--resume", "run"]);
    assert_eq!(again.code, Some(1), "{}{}", again.out, again.err);
    assert!(again.err.contains(launch), "{}\nis not the error of\n{}", again.err, ran.err);
}
