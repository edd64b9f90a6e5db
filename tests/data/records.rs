//! Records of CIFAR-10, CIFAR-100 and the traffic signs, in folders and archives.

use crate::{assert_says, error, gzip, load};
use adamant::data::{self, Data, Examples};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::path::Path;

/// A record of these labels, whose image says in every pixel which record, row, column and channel it is of.
fn record(labels: &[u8], number: usize) -> Vec<u8> {
    let plane =
        |channel: usize| (0..1024).map(move |i| (number * 50 + i / 32 * 2 + i % 32 + channel * 100) as u8);
    labels.iter().copied().chain((0..3).flat_map(plane)).collect()
}

/// A file of a record for each label.
fn records(labels: impl IntoIterator<Item = u8>) -> Vec<u8> {
    labels.into_iter().enumerate().flat_map(|(number, label)| record(&[label], number)).collect()
}

/// The six files of CIFAR-10 with four images each.
fn cifar10() -> Vec<(String, Vec<u8>)> {
    let train = (0..5).map(|batch| {
        (format!("data_batch_{}.bin", batch + 1), records([0, 1, 2, 3].map(|i| (2 * batch + i) % 10)))
    });
    train.chain([("test_batch.bin".to_string(), records([9, 8, 7, 6]))]).collect()
}

fn load_all(files: &[(String, Vec<u8>)]) -> adamant::Result<Data> {
    load(files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())))
}

/// A tar archive of these files in a folder.
fn tar(files: &[(String, Vec<u8>)], folder: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Written as it is: the crate would refuse a path that leaves the archive.
        let path = format!("{folder}{name}");
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Loads the file `name` with these contents.
fn load_file(name: &str, bytes: &[u8]) -> adamant::Result<Data> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let result = data::load(path.to_str().unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was written");
    result
}

/// Packed by the program of that name, where there is one.
fn packed(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = std::process::Command::new(program)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().ok()?;
    writer.join().unwrap().ok()?;
    output.status.success().then_some(output.stdout)
}

#[test]
fn cifar10_as_a_folder() {
    let data = load_all(&cifar10()).unwrap();
    assert_eq!((data.train.len(), data.test.len(), data.train.image), (20, 4, [32, 32, 3]));
    assert_eq!((data.train.name.as_str(), data.train.classes), ("cifar10", 10));
    assert_eq!(
        (data.train.class_names[0].as_str(), data.train.class_names[9].as_str()),
        ("airplane", "truck")
    );
    assert_eq!(data.train.labels[..8], [0, 1, 2, 3, 2, 3, 4, 5]);
    assert_eq!(data.test.labels, [9, 8, 7, 6]);
    // Planes became pixels.
    let image = data.train.image(2);
    let at = |y: usize, x: usize, c: usize| image[(y * 32 + x) * 3 + c];
    assert_eq!((at(0, 0, 0), at(0, 0, 1), at(0, 0, 2)), (100, 200, 44));
    assert_eq!((at(3, 5, 0), at(31, 31, 2)), (111, (100 + 62 + 31 + 200 - 256) as u8));
}

#[test]
fn archives_and_packed_files_are_the_same_data() {
    let files = cifar10();
    let plain = load_all(&files).unwrap();
    let archive = tar(&files, "cifar-10-batches-bin/");
    let mut ways = vec![
        load_file("cifar-10-binary.tar", &archive),
        load_file("cifar-10-binary.tar.gz", &gzip(&archive)),
        load_file("anything.tgz", &gzip(&tar(&files, "./"))),
        load(files.iter().map(|(name, bytes)| (name.as_str(), gzip(bytes)))),
    ];
    for (program, end) in [("xz", "tar.xz"), ("zstd", "tar.zst")] {
        match packed(program, &archive) {
            Some(bytes) => ways.push(load_file(&format!("cifar-10-binary.{end}"), &bytes)),
            None => eprintln!("{program} is not installed: not tested"),
        }
    }
    for way in ways {
        let way = way.unwrap();
        assert_eq!((&way.train.sha256, &way.test.sha256), (&plain.train.sha256, &plain.test.sha256));
        assert_eq!(way.train.class_names, plain.train.class_names);
    }
    // A folder that holds nothing but the folder, or nothing but the archive.
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(inner.join(name), bytes).unwrap());
    let load = || data::load(outer.path().to_str().unwrap());
    assert_eq!(load().unwrap().train.sha256, plain.train.sha256);
    fs::remove_dir_all(&inner).unwrap();
    fs::write(outer.path().join("cifar-10-binary.tar.gz"), gzip(&archive)).unwrap();
    assert_eq!(load().unwrap().train.sha256, plain.train.sha256);
}

#[test]
fn cifar100_is_told_by_its_records() {
    let file = |count: usize| {
        (0..count).flat_map(|i| record(&[i as u8 % 20, i as u8 % 100], i)).collect::<Vec<u8>>()
    };
    let data = load([("train.bin", file(200)), ("test.bin", file(7))]).unwrap();
    assert_eq!((data.train.name.as_str(), data.train.classes, data.train.len()), ("cifar100", 100, 200));
    assert_eq!((data.train.labels[99], data.train.class_names[99].as_str()), (99, "worm"));
    assert_eq!(data.test.image(1)[..3], [50, 150, 250]);
}

#[test]
fn traffic_signs_and_other_classes() {
    let signs = || records((0..43).chain([14, 2]));
    let folder = tempfile::tempdir().unwrap();
    let gtsrb = folder.path().join("gtsrb");
    fs::create_dir(&gtsrb).unwrap();
    fs::write(gtsrb.join("train-third.bin"), signs()).unwrap();
    fs::write(gtsrb.join("test.bin.gz"), gzip(&records([14, 1]))).unwrap();
    let data = data::load(gtsrb.to_str().unwrap()).unwrap();
    assert_eq!((data.train.name.as_str(), data.train.classes, data.train.len()), ("gtsrb", 43, 45));
    assert_eq!((data.test.class_names[14].as_str(), data.test.class_names[2].as_str()), ("stop", "50 km/h"));
    // Names beside the data win, and say how many classes there are.
    let names = (0..50).map(|i| format!("sign {i}\n")).collect::<String>();
    let files = |names: &str| {
        [("train.bin", signs()), ("test.bin", records([1])), ("classes.txt", names.as_bytes().to_vec())]
    };
    let data = load(files(&names)).unwrap();
    assert_eq!((data.train.classes, data.train.class_names[49].as_str()), (50, "sign 49"));
    let two = error(files("a\n\nb\n"));
    assert_says(&two, &["train.bin", "label 2 (record 2) is out of range", "2 classes"]);
    assert_says(&error(files("a\na\n")), &["classes.txt", "`a` twice"]);
    assert_says(&error(files("\n")), &["classes.txt", "names 0 classes"]);
    let mut bad = files("");
    bad[2].1 = vec![0xff, 0xfe, 0];
    assert_says(&error(bad), &["classes.txt", "UTF-8"]);
}

#[test]
fn missing_and_double_files() {
    let mut files = cifar10();
    files.remove(2);
    assert_says(&load_all(&files).unwrap_err().to_string(), &["lacks data_batch_3.bin.", "six files"]);
    let (archive, without) = (tar(&files, ""), tar(&[("readme.html".into(), vec![1])], ""));
    assert_says(&load_file("c.tar", &archive).unwrap_err().to_string(), &["c.tar", "lacks data_batch_3.bin"]);
    assert_says(&load_file("c.tar", &without).unwrap_err().to_string(), &["holds no .bin files"]);
    assert_says(&error([("train.bin", records([0, 1]))]), &["no file test.bin", "but train.bin"]);
    let [a, b] = [("train-a.bin", records([0, 1])), ("train-b.bin", records([0, 1]))];
    assert_says(&error([a, b, ("test.bin", records([0]))]), &["which is the train part"]);
    let [a, b] = [("train.bin", records([0, 1])), ("train.bin.gz", gzip(&records([0, 1])))];
    assert_says(&error([a, b, ("test.bin", records([0]))]), &["both", "leave one"]);
}

#[test]
fn truncated_and_foreign_records() {
    let with = |bytes: Vec<u8>| error([("train.bin", records([0, 1, 2])), ("test.bin", bytes)]);
    let whole = records([0, 1, 2]);
    assert_says(
        &with(whole[..whole.len() - 1].to_vec()),
        &["test.bin", "9218 bytes", "3073", "3072 are left over"],
    );
    assert_says(&with(vec![]), &["test.bin", "is empty"]);
    assert_says(&with(records([0, 3])), &["test.bin", "label 3 (image 1) is out of range", "0 to 2"]);
    let packed = gzip(&whole);
    assert_says(&with(packed[..packed.len() / 2].to_vec()), &["test.bin", "cut short", "gzip"]);
    assert_says(&with([packed, b"and then some garbage".to_vec()].concat()), &["test.bin", "damaged"]);

    let mut files = cifar10();
    files[3].1 = records([0, 11]);
    let error = load_all(&files).unwrap_err().to_string();
    assert_says(&error, &["data_batch_4.bin", "label 11 (record 1) is out of range", "10 classes"]);
}

#[test]
fn archives_with_paths_and_broken_ones() {
    for folder in ["../", "/tmp/", "a/../../"] {
        let error = load_file("c.tar", &tar(&cifar10(), folder)).unwrap_err().to_string();
        assert_says(&error, &["c.tar", "outside of it", "data_batch_1.bin"]);
    }
    let archive = tar(&cifar10(), "");
    let packed = gzip(&archive);
    for length in [0, 5, 600, 5000, archive.len() / 2] {
        assert!(load_file("c.tar", &archive[..length]).is_err(), "{length}");
        let error = load_file("c.tar.gz", &packed[..length.min(packed.len() - 9)]).unwrap_err().to_string();
        assert_says(&error, &["c.tar.gz"]);
    }
    assert!(load_file("c.tar.gz", b"<html>").unwrap_err().to_string().contains("not a whole tar archive"));
}

#[test]
fn bombs_are_not_unpacked() {
    // A MiB of zeros as one gzip member, over and over: 340 KiB that would be 340 MiB.
    let member = gzip(&vec![0; 1 << 20]);
    let bomb = member.repeat(340);
    let error = error([("train.bin", bomb.clone()), ("test.bin", records([0]))]);
    assert_says(&error, &["train.bin", "unpacks to more than 200 times its size"]);
    let error = load_file("c.tar.gz", &bomb).unwrap_err().to_string();
    assert_says(&error, &["c.tar.gz"]);
    for program in ["xz", "zstd"] {
        let Some(bomb) = packed(program, &vec![0; 280 << 20]) else { continue };
        assert!(bomb.len() < 1 << 17);
        let error = crate::error([("train.bin", bomb), ("test.bin", records([0]))]);
        assert_says(&error, &["train.bin", "200 times its size"]);
    }
    // An xz header that asks for a dictionary of 4 GiB.
    if let Some(mut lie) = packed("xz", b"short") {
        // Byte 16 of the file says how long the dictionary is; then comes the header's checksum.
        lie[16] = 40;
        assert!(load_file("c.tar.xz", &lie).is_err());
    }
}

/// The real data, where they are: `ADAMANT_DATA` names the folder with cifar10 and gtsrb in it.
#[test]
fn real_data_are_read_whole() {
    let Some(folder) = std::env::var_os("ADAMANT_DATA").filter(|folder| !folder.is_empty()) else { return };
    let load = |name: &str| data::load(Path::new(&folder).join(name).to_str().unwrap()).unwrap();
    let cifar = load("cifar10");
    assert_eq!((cifar.train.len(), cifar.test.len()), (50_000, 10_000));
    let count = |class| cifar.train.labels.iter().filter(|&&label| label == class).count();
    assert!((0..10).all(|class| count(class) == 5000));
    // The first training image is a frog, the first test image a cat.
    assert_eq!(cifar.train.class_names[cifar.train.labels[0] as usize], "frog");
    assert_eq!(cifar.test.class_names[cifar.test.labels[0] as usize], "cat");
    let signs = load("gtsrb");
    assert_eq!((signs.train.classes, signs.test.len()), (43, 12_630));
    let Examples::Images(pixels) = &signs.test.examples else { panic!("no images") };
    assert_eq!(pixels.len(), 12_630 * 3072);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is cut off or changed, loading ends with an answer, and writes nothing.
    #[test]
    fn damaged_archives_never_panic(
        way in 0usize..4,
        cut in 0.0f64..1.0,
        at in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..4),
    ) {
        static ARCHIVES: std::sync::OnceLock<Vec<(&str, Vec<u8>)>> = std::sync::OnceLock::new();
        let archives = ARCHIVES.get_or_init(|| {
            let archive = tar(&cifar10(), "c/");
            let mut all = vec![("a.tar.gz", gzip(&archive))];
            all.extend(packed("xz", &archive).map(|bytes| ("a.tar.xz", bytes)));
            all.extend(packed("zstd", &archive).map(|bytes| ("a.tar.zst", bytes)));
            all.push(("a.tar", archive));
            all
        });
        let (name, mut bytes) = archives[way % archives.len()].clone();
        // One in four is changed but not cut.
        if cut < 0.75 {
            bytes.truncate((bytes.len() as f64 * cut / 0.75) as usize);
        }
        for (place, value) in at {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let _ = load_file(name, &bytes);
    }
}
