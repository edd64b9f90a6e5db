//! Vectors of features and images in NumPy archives, and tables.

use crate::{assert_says, error, gzip, load};
use adamant::data::{self, Change, Data, Dataset, Examples, Limits};
use proptest::prelude::*;
use std::fs;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;

/// An array in NumPy's format.
fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(elements);
    bytes
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (at, (name, bytes)) in arrays.iter().enumerate() {
        // As np.savez and as np.savez_compressed write them.
        let method =
            if at % 2 == 0 { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        let options = SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn load_npz(bytes: &[u8]) -> adamant::Result<Data> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("malware.npz");
    fs::write(&path, bytes).unwrap();
    let result = data::load(path.to_str().unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was written");
    result
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Four rows to train on and two to test on, of three features.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let train = [0.0, 5.0, 1.0, 1.0, 7.5, 0.5, 0.25, 10.0, 0.0, 0.5, 5.0, 1.0];
    vec![
        ("x_train", npy("<f4", "(4, 3)", &floats(&train))),
        ("y_train", npy("<i8", "(4,)", &longs(&[0, 1, 1, 0]))),
        ("x_test", npy("<f4", "(2, 3)", &floats(&train[3..9]))),
        ("y_test", npy("<i8", "(2, 1)", &longs(&[1, 0]))),
        (
            "lower",
            npy("<f8", "(3,)", &[0f64, 5.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        ),
        (
            "upper",
            npy(">f4", "(3,)", &[1f32, 10.0, 1.0].iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<_>>()),
        ),
        ("mask", npy("|b1", "(3,)", &[1, 1, 0])),
        ("direction", npy("|i1", "(3,)", &[0, 1, 0])),
        ("feature_names", npy("<U4", "(3,)", &letters(&["age", "size", "kind"]))),
        ("class_names", npy("|S7", "(2,)", b"benign\0malware")),
    ]
}

/// Texts of up to four letters as UTF-32.
fn letters(texts: &[&str]) -> Vec<u8> {
    let padded = texts.iter().flat_map(|text| text.chars().chain(std::iter::repeat('\0')).take(4));
    padded.flat_map(|letter| u32::from(letter).to_le_bytes()).collect()
}

fn features(data: &Dataset) -> (&[f32], &Limits) {
    match &data.examples {
        Examples::Features(values, limits) => (values, limits),
        Examples::Images(_) => panic!("no features"),
    }
}

fn npz_error_with(name: &'static str, bytes: Option<Vec<u8>>) -> String {
    let mut arrays = good();
    arrays.retain(|(have, _)| *have != name);
    arrays.extend(bytes.map(|bytes| (name, bytes)));
    load_npz(&npz(&arrays)).unwrap_err().to_string()
}

#[test]
fn features_with_limits_from_numpy() {
    let data = load_npz(&npz(&good())).unwrap();
    assert_eq!((data.train.name.as_str(), data.train.image, data.train.len()), ("malware", [1, 1, 3], 4));
    assert_eq!(data.train.class_names, ["benign", "malware"]);
    assert_eq!((data.train.labels.as_slice(), data.test.labels.as_slice()), (&[0, 1, 1, 0][..], &[1, 0][..]));
    let (values, limits) = features(&data.test);
    assert_eq!(values, [1.0, 7.5, 0.5, 0.25, 10.0, 0.0]);
    assert_eq!((&limits.least[..], &limits.most[..]), (&[0.0, 5.0, 0.0][..], &[1.0, 10.0, 1.0][..]));
    assert_eq!(limits.changes, [Change::Free, Change::Up, Change::Fixed]);
    assert_eq!((limits.names[1].as_str(), limits.changeable(), limits.magnitude()), ("size", 2, 10.0));

    let mut scaled = good();
    scaled.push(("scale", npy("<i8", "()", &longs(&[1]))));
    let scaled = load_npz(&npz(&scaled)).unwrap();
    let (values, limits) = features(&scaled.test);
    assert_eq!(values, [1.0, 0.5, 0.5, 0.25, 1.0, 0.0]);
    assert_eq!((&limits.least[..], &limits.most[..]), (&[0.0; 3][..], &[1.0; 3][..]));
    assert!(scaled.test.source.contains("scaled to 0 to 1 by its bounds"), "{}", scaled.test.source);
    assert_ne!(scaled.test.sha256, data.test.sha256);

    // Left out, bounds are 0 and 1 and everything may be changed; whole numbers are features too.
    let bits = npy("|u1", "(4, 2)", &[0, 1, 1, 0, 1, 1, 0, 0]);
    let plain = [("x_train", bits.clone()), ("y_train", npy("|u1", "(4,)", &[0, 1, 0, 1]))];
    let test = [
        ("x_test", bits),
        ("y_test", npy("<f8", "(4,)", &[0f64, 1.0, 1.0, 0.0].map(f64::to_le_bytes).concat())),
    ];
    let data = load_npz(&npz(&[plain, test].concat())).unwrap();
    assert_eq!(features(&data.train).1.changes, [Change::Free; 2]);
    assert_eq!(features(&data.train).0[..4], [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(data.train.class_names, ["0", "1"]);
}

#[test]
fn images_from_numpy() {
    let pixels: Vec<u8> = (0..2 * 24).collect();
    let labels = || npy("|u1", "(2,)", &[0, 1]);
    let of = |shape: &str| {
        let images = npy("|u1", shape, &pixels);
        let (y, z) = (labels(), labels());
        load_npz(&npz(&[
            ("train_images", images.clone()),
            ("train_labels", y),
            ("test_images", images),
            ("test_labels", z),
        ]))
    };
    assert_eq!(of("(2, 4, 6)").unwrap().train.image, [4, 6, 1]);
    let interleaved = of("(2, 4, 2, 3)").unwrap();
    assert_eq!((interleaved.train.image, &interleaved.train.image(1)[..3]), ([4, 2, 3], &[24, 25, 26][..]));
    let planes = of("(2, 3, 4, 2)").unwrap();
    assert_eq!((planes.train.image, &planes.train.image(1)[..4]), ([4, 2, 3], &[24, 32, 40, 25][..]));
    assert_says(&of("(2, 4, 3, 2)").unwrap_err().to_string(), &["train_images", "1 or 3 channels"]);
    assert_says(&of("(48,)").unwrap_err().to_string(), &["train_images"]);
}

#[test]
fn bad_numpy_archives() {
    let with = |name, bytes| npz_error_with(name, Some(bytes));
    assert_says(&npz_error_with("y_train", None), &["no array `y_train` or `train_labels`", "x_test.npy"]);
    assert_says(&with("y_train", npy("<i8", "(3,)", &longs(&[0, 1, 1]))), &["float32 [4, 3]", "3 labels"]);
    assert_says(
        &with("y_train", npy("<i8", "(4,)", &longs(&[0, 1, -1, 0]))),
        &["y_train", "label -1 (example 2)"],
    );
    assert_says(&with("y_test", npy("<i8", "(2,)", &longs(&[0, 2]))), &["y_test", "label 2", "2 names"]);
    assert_says(&with("y_train", npy("<i8", "(4, 2)", &longs(&[0; 8]))), &["np.argmax"]);
    assert_says(&with("y_train", npy("|O", "(4,)", &[0; 32])), &["'|O'", "pickle", "never read"]);
    assert_says(&with("x_test", npy("<f4", "(2, 2)", &floats(&[0.0; 4]))), &["x_test", "3 features"]);
    let nan = floats(&[f32::NAN, 5.0, 0.0, 0.0, 5.0, 0.0]);
    assert_says(&with("x_test", npy("<f4", "(2, 3)", &nan)), &["x_test", "`age` of row 0 is NaN"]);
    let far = floats(&[0.0, 5.0, 0.0, 0.0, 50.0, 0.0]);
    assert_says(&with("x_test", npy("<f4", "(2, 3)", &far)), &["x_test", "`size` of row 1 is 50, outside"]);
    let infinite = f64::INFINITY.to_le_bytes();
    assert_says(&with("upper", npy("<f8", "()", &infinite)), &["bounds of feature `age` are 0 to inf"]);
    assert_says(&with("mask", npy("|u1", "(3,)", &[1, 2, 0])), &["mask", "2 for feature 1"]);
    assert_says(&with("mask", npy("|u1", "(2,)", &[1, 0])), &["mask", "3 features"]);
    assert_says(&with("direction", npy("|i1", "(3,)", &[3, 0, 0])), &["direction", "3 for feature 0"]);
    assert_says(
        &with("feature_names", npy("<U4", "(2,)", &letters(&["a", "b"]))),
        &["feature_names", "3 texts"],
    );
    assert_says(&with("class_names", npy("|u1", "(2,)", &[1, 2])), &["class_names", "no array of texts"]);

    // Headers that lie, and files that are cut short.
    for shape in ["(99999999999, 3)", "(18446744073709551615, 18446744073709551615)", "(2, -3)", "2"] {
        assert!(load_npz(&npz(&[("x_train", npy("<f4", shape, &[0; 8]))])).is_err(), "{shape}");
    }
    assert_says(
        &with("x_test", npy("<f4", "(2, 3)", &[0; 23])),
        &["x_test", "cut short", "24 bytes", "23 bytes follow"],
    );
    assert_says(&with("x_test", npy("<f4", "(2, 3)", &[0; 25])), &["x_test", "goes on after"]);
    let fortran = String::from_utf8_lossy(&npy("<f4", "(2, 3)", &[])).replace("False", "True ").into_bytes();
    assert!(with("x_test", fortran).contains("x_test"));
    assert_says(&load_npz(b"hello").unwrap_err().to_string(), &["malware.npz", "not a whole .npz"]);

    // A GiB of zeros, which packs to a MiB.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.npz");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    archive.start_file("x_train.npy", SimpleFileOptions::default()).unwrap();
    let start = npy("|u1", "(1024, 1024, 1024)", &[]);
    archive.write_all(&start).unwrap();
    let zeros = vec![0; 1 << 20];
    // Not all of it is written: the promise alone is refused.
    (0..16).for_each(|_| archive.write_all(&zeros).unwrap());
    archive.finish().unwrap();
    let error = data::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert_says(&error, &["bomb.npz", "more than is taken"]);
}

#[test]
fn archives_with_paths_are_only_looked_into() {
    let mut archive = zip::ZipWriter::new(Cursor::new(npz(&good())));
    archive.start_file("../../evil.npy", SimpleFileOptions::default()).unwrap();
    archive.write_all(b"evil").unwrap();
    let _ = load_npz(&archive.finish().unwrap().into_inner());
}

fn tables(train: &str, test: &str, toml: Option<&str>) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = vec![("train.csv", train.as_bytes().to_vec()), ("test.csv", test.as_bytes().to_vec())];
    files.extend(toml.map(|text| ("features.toml", text.as_bytes().to_vec())));
    files
}

const TRAIN: &str = "age,label,size,id\n0.5,malware,100,x1\n0.25 , benign,\"50\",x2\n1,malware,0,x3\n";
const TEST: &str = "age,label,size,id\n0,benign,7,y1\n";
const TOML: &str = "ignore = [\"id\"]\n[feature.size]\nupper = 100\nchange = \"up\"\n";

#[test]
fn tables_with_a_description() {
    let data = load(tables(TRAIN, TEST, Some(TOML))).unwrap();
    assert_eq!((data.train.image, data.train.labels.as_slice()), ([1, 1, 2], &[1, 0, 1][..]));
    assert_eq!(data.train.class_names, ["benign", "malware"]);
    let (values, limits) = features(&data.train);
    assert_eq!(values, [0.5, 100.0, 0.25, 50.0, 1.0, 0.0]);
    assert_eq!(limits.names, ["age", "size"]);
    assert_eq!((&limits.most[..], &limits.changes[..]), (&[1.0, 100.0][..], &[Change::Free, Change::Up][..]));

    let packed = tables(TRAIN, TEST, Some(TOML)).into_iter().map(|(name, bytes)| match name {
        "train.csv" => ("train.csv.gz", gzip(&bytes)),
        _ => (name, bytes),
    });
    assert_eq!(load(packed).unwrap().train.sha256, data.train.sha256);
    let scaled = load(tables(TRAIN, TEST, Some(&format!("scale = \"bounds\"\n{TOML}")))).unwrap();
    assert_eq!(features(&scaled.train).0, [0.5, 1.0, 0.25, 0.5, 1.0, 0.0]);

    // Without a description: columns of numbers from 0 to 1, and labels that are numbers, with or without names.
    let plain = |toml| load(tables("a,b,label\n0,1,1\n0.5,0,0\n", "a,b,label\n1,1,0\n", toml)).unwrap();
    assert_eq!(plain(None).train.class_names, ["0", "1"]);
    let named = plain(Some("classes = [\"good\", \"bad\"]"));
    assert_eq!(
        (&named.train.class_names[..], &named.train.labels[..]),
        (&["good".to_string(), "bad".into()][..], &[1, 0][..])
    );
    let other =
        load(tables("a,b\n0,1\n0.5,0\n", "a,b\n1,1\n", Some("label = \"b\"\nchange = \"fixed\""))).unwrap();
    assert_eq!((other.train.image, features(&other.train).1.changeable()), ([1, 1, 1], 0));
}

#[test]
fn bad_tables() {
    let with = |train: &str, test: &str, toml: &str| error(tables(train, test, Some(toml)));
    assert_says(&with(TRAIN, TEST, ""), &["train.csv", "`x1` in row 0, column `id`", "ignore"]);
    assert_says(
        &with(&TRAIN.replace("100", "many"), TEST, TOML),
        &["train.csv", "`many` in row 0, column `size`"],
    );
    assert_says(&with(&TRAIN.replace("100", ""), TEST, TOML), &["`` in row 0, column `size`"]);
    assert_says(
        &with(&TRAIN.replace("100", "101"), TEST, TOML),
        &["train.csv", "`size` of row 0 is 101, outside"],
    );
    assert_says(&with(&TRAIN.replace("100", "NaN"), TEST, TOML), &["`size` of row 0 is NaN, not a number"]);
    assert_says(&with(&TRAIN.replace("100", "1e99"), TEST, TOML), &["`size` of row 0 is inf, not a number"]);
    assert_says(
        &with(TRAIN, &TEST.replace("benign", "worm"), TOML),
        &["test.csv", "`worm` of row 0", "benign and malware"],
    );
    assert_says(&with(&TRAIN.replace("100,x1", "100"), TEST, TOML), &["train.csv", "no table", "every name"]);
    assert_says(&with(TRAIN, &TEST.replace("age", "old"), TOML), &["test.csv", "`old` where"]);
    assert_says(&with(&TRAIN.replace("age", "size"), TEST, TOML), &["two columns `size`"]);
    assert_says(&with(&TRAIN.replace("label", "class"), TEST, TOML), &["no column `label`", "age, class"]);
    assert_says(&with("age,label,size,id\n", TEST, TOML), &["train.csv", "no rows"]);
    assert_says(&with("", TEST, TOML), &["train.csv", "no column `label`"]);
    assert_says(&with(TRAIN, TEST, "ignore = [\"age\", \"size\", \"id\"]"), &["no columns beside the label"]);
    assert_says(&with(TRAIN, TEST, "lables = \"x\""), &["features.toml", "lables"]);
    assert_says(&with(TRAIN, TEST, "scale = \"bound\""), &["features.toml", "did you mean `bounds`"]);
    assert_says(&with(TRAIN, TEST, &format!("{TOML}[feature.sice]\nlower = 0")), &["did you mean `size`"]);
    assert_says(
        &with(TRAIN, TEST, &TOML.replace("\"up\"", "\"upp\"")),
        &["change of `size`", "did you mean `up`"],
    );
    assert_says(&with(TRAIN, TEST, &format!("classes = [\"a\", \"a\"]\n{TOML}")), &["`a` twice"]);
    let gap = "a,label\n0,0\n1,2\n";
    assert_says(&error(tables(gap, gap, None)), &["label 2 (image 1) is out of range", "class 1"]);
    assert_says(&error(tables(TRAIN, TEST, None).into_iter().take(1)), &["no test.csv"]);
    let files = [("train.csv", vec![0xff, 0xfe, 0, 1, 2]), ("test.csv", TEST.as_bytes().to_vec())];
    assert_says(&error(files), &["train.csv"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is cut off or changed, loading ends with an answer.
    #[test]
    fn damaged_archives_and_tables_never_panic(
        table in any::<bool>(),
        cut in 0.0f64..2.0,
        changes in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6),
    ) {
        let mut bytes = if table { TRAIN.as_bytes().to_vec() } else { npz(&good()) };
        if cut < 1.0 {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        for (place, value) in changes {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let _ = match table {
            true => load([("train.csv", bytes), ("test.csv", TEST.into()), ("features.toml", TOML.into())]),
            false => load_npz(&bytes),
        };
    }
}
