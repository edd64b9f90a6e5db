//! IDX files and the embedded sample.

use crate::{assert_says, gzip, load};
use adamant::data::{self, Dataset, Groups, idx};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// An IDX file of unsigned bytes.
fn idx_file(extents: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, extents.len() as u8];
    file.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
    file.extend_from_slice(elements);
    file
}

/// Contents of the four files: 6 training and 3 test images of 4x5 in 3 classes.
fn good() -> [(&'static str, Vec<u8>); 4] {
    let pixels = |count: usize| (0..count * 20).map(|i| (i * 7 % 256) as u8).collect::<Vec<u8>>();
    [
        ("train-images-idx3-ubyte", idx_file(&[6, 4, 5], &pixels(6))),
        ("train-labels-idx1-ubyte", idx_file(&[6], &[0, 1, 2, 0, 1, 2])),
        ("t10k-images-idx3-ubyte", idx_file(&[3, 4, 5], &pixels(3))),
        ("t10k-labels-idx1-ubyte", idx_file(&[3], &[2, 0, 1])),
    ]
}

/// The error of a folder that is good but for `file`, which holds `bytes`; the error has to name the file.
fn error_with(file: &str, bytes: Vec<u8>) -> String {
    let files = good().map(|(name, good)| (name, if name == file { bytes.clone() } else { good }));
    let error = load(files).unwrap_err().to_string();
    assert!(error.contains(file), "{error}: does not name {file}");
    error
}

#[test]
fn the_embedded_sample_is_what_its_readme_says() {
    let data = data::load("mnist").unwrap();
    assert_eq!((data.train.len(), data.test.len()), (10_000, 2_000));
    for part in [&data.train, &data.test] {
        assert_eq!((part.name.as_str(), part.image, part.classes), ("mnist", [28, 28, 1], 10));
        assert_eq!(part.class_names[7], "7");
        assert!(part.source.contains("CC BY-SA 3.0"));
    }
    let count = |part: &Dataset| -> Vec<usize> {
        (0..10).map(|class| part.labels.iter().filter(|&&label| label == class).count()).collect()
    };
    assert_eq!(count(&data.train), [941, 1132, 1032, 1022, 958, 925, 997, 1026, 978, 989]);
    assert_eq!(count(&data.test), [189, 222, 212, 242, 196, 186, 158, 215, 193, 187]);
    assert_eq!(data.train.sha256, "f51456962fcfe19f341c2c67ab8a68c44e941090adf14e432064838c2183a5f7");
    assert_eq!(data.test.sha256, "65a769f820d972d39f0e7ec5cd7bcf04700a13b7f36c0cd02cd8da9141bb2287");
    // The first training image of MNIST is the well-known 5 of 28x28; ink is bright, paper 0.
    assert_eq!(data.train.labels[0], 5);
    let first = data.train.image(0);
    assert_eq!(
        (first.len(), first[0], first[5 * 28 + 12..5 * 28 + 16].to_vec()),
        (784, 0, vec![3, 18, 18, 18])
    );
}

#[test]
fn plain_and_gzipped_files_under_all_names_are_the_same_data() {
    let plain = load(good()).unwrap();
    assert_eq!((plain.train.len(), plain.test.len()), (6, 3));
    assert_eq!((plain.train.image, plain.train.classes), ([4, 5, 1], 3));
    assert_eq!(plain.train.labels, [0, 1, 2, 0, 1, 2]);
    assert_eq!(plain.train.image(1)[..3], [140, 147, 154]);

    let gz: Vec<(String, Vec<u8>)> =
        good().iter().map(|(name, bytes)| (format!("{name}.gz"), gzip(bytes))).collect();
    let dotted: Vec<(String, Vec<u8>)> =
        good().iter().map(|(name, bytes)| (name.replace("-idx", ".idx"), bytes.clone())).collect();
    // Compressed without the ending that says so, and in two members.
    let hidden = good().map(|(name, bytes)| (name, [gzip(&bytes[..7]), gzip(&bytes[7..])].concat()));
    let others = [
        load(gz.iter().map(|(name, bytes)| (name.as_str(), bytes.clone()))),
        load(dotted.iter().map(|(name, bytes)| (name.as_str(), bytes.clone()))),
        load(hidden),
    ];
    for other in others {
        let other = other.unwrap();
        assert_eq!(other.train.examples, plain.train.examples);
        assert_eq!((&other.train.sha256, &other.test.sha256), (&plain.train.sha256, &plain.test.sha256));
    }
}

#[test]
fn missing_files_and_folders() {
    let error = load(good().into_iter().skip(1)).unwrap_err().to_string();
    assert_says(&error, &["lacks train-images-idx3-ubyte.", "four files", ".gz", "t10k-labels-idx1-ubyte"]);
    let error = load([]).unwrap_err().to_string();
    assert_says(&error, &["train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and"]);

    let unknown = |spec: &str| data::load(spec).unwrap_err().to_string();
    assert_says(&unknown("minst"), &["`minst`", "did you mean `mnist`?", "four IDX files"]);
    assert_says(&unknown("cifar10"), &["unknown", "mnist"]);
    assert_says(&unknown("./no/such/folder"), &["no such folder", "train-images-idx3-ubyte"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train-images-idx3-ubyte");
    fs::write(&file, "").unwrap();
    assert_says(&unknown(file.to_str().unwrap()), &["is a file", "folder"]);
}

#[test]
fn truncated_files() {
    let [images, labels, ..] = good().map(|(_, bytes)| bytes);
    let error = error_with("train-images-idx3-ubyte", images[..100].to_vec());
    assert_says(&error, &["cut short", "6 images of 4x5 (120 bytes)", "only 84 bytes"]);
    let error = error_with("train-labels-idx1-ubyte", labels[..labels.len() - 1].to_vec());
    assert_says(&error, &["cut short", "6 labels", "only 5 bytes"]);
    assert_says(
        &error_with("t10k-images-idx3-ubyte", images[..9].to_vec()),
        &["header", "16 bytes", "9 found"],
    );
    assert_says(&error_with("t10k-images-idx3-ubyte", vec![0, 0]), &["header", "2 found"]);
    assert_says(&error_with("t10k-images-idx3-ubyte", vec![]), &["is empty"]);

    let packed = gzip(&images);
    for length in [2, 9, 15, packed.len() / 2, packed.len() - 1] {
        let error = error_with("train-images-idx3-ubyte", packed[..length].to_vec());
        assert_says(&error, &["cut short", "gzip", "download or copy it again"]);
    }
    let mut damaged = packed.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 1; // in the checksum
    assert_says(&error_with("train-images-idx3-ubyte", damaged), &["damaged", "gzip"]);
    assert_says(
        &error_with("train-images-idx3-ubyte", gzip(&images[..100])),
        &["after unpacking", "only 84 bytes"],
    );
}

#[test]
fn files_of_another_kind() {
    let [images, labels, ..] = good().map(|(_, bytes)| bytes);
    let cases: [(Vec<u8>, &str); 10] = [
        (labels.clone(), "these are labels"),
        (gzip(&labels), "these are labels"),
        (gzip(&gzip(&images)), "gzipped twice"),
        (b"<!DOCTYPE html><html>Not found</html>".to_vec(), "a web page"),
        (b"\n<html>".to_vec(), "a web page"),
        (b"PK\x03\x04...".to_vec(), "a zip archive"),
        (idx_file(&[6, 4, 5, 3], &[0; 360]), "4 axes instead of 3"),
        ([&[0, 0, 13, 3], &images[4..]].concat(), "another element type"),
        (vec![3, 8, 0, 0, 6, 0, 0, 0], "wrong byte order"),
        (b"hello, world".to_vec(), "not a known format"),
    ];
    for (bytes, words) in cases {
        let error = error_with("train-images-idx3-ubyte", bytes);
        assert_says(&error, &["not an IDX file of images", "00 00 08 03", words]);
    }
    let error = error_with("t10k-labels-idx1-ubyte", images);
    assert_says(&error, &["not an IDX file of labels", "00 00 08 01", "these are images", "swapped"]);
}

#[test]
fn counts_that_do_not_match() {
    let error = error_with("train-labels-idx1-ubyte", idx_file(&[5], &[0, 1, 2, 0, 1]));
    assert_says(&error, &["5 labels", "train-images-idx3-ubyte holds 6 images"]);
    let error = error_with("t10k-images-idx3-ubyte", idx_file(&[3, 5, 4], &[0; 60]));
    assert_says(&error, &["5x4", "4x5", "do not belong together"]);

    let [images, labels, ..] = good().map(|(_, bytes)| bytes);
    let error = error_with("train-images-idx3-ubyte", [images.clone(), vec![0]].concat());
    assert_says(&error, &["goes on after the 6 images", "120 bytes"]);
    let error =
        error_with("train-images-idx3-ubyte", [gzip(&images), b"and then some garbage".to_vec()].concat());
    assert_says(&error, &["damaged"]);
    assert_says(
        &error_with("train-labels-idx1-ubyte", [labels, vec![0]].concat()),
        &["goes on after the 6 labels"],
    );
}

#[test]
fn headers_that_ask_for_too_much_or_nothing() {
    let huge = u32::MAX;
    let error = error_with("train-images-idx3-ubyte", idx_file(&[huge, 10_000, 10_000], &[]));
    assert_says(&error, &["more than the 4 GiB"]);
    let error = error_with("train-images-idx3-ubyte", idx_file(&[6, huge, 5], &[0; 120]));
    assert_says(&error, &["side of 4294967295 pixels"]);
    assert_says(&error_with("train-images-idx3-ubyte", idx_file(&[6, 0, 5], &[])), &["side of 0 pixels"]);
    assert_says(&error_with("train-images-idx3-ubyte", idx_file(&[0, 4, 5], &[])), &["holds no images"]);
    assert_says(&error_with("train-labels-idx1-ubyte", idx_file(&[0], &[])), &["holds no labels"]);
    // Just under the limit, and a lie: found out by reading, not by allocating 4 GiB.
    let error = error_with("train-images-idx3-ubyte", idx_file(&[1 << 20, 64, 64], &[0; 9]));
    assert_says(&error, &["cut short", "only 9 bytes"]);
    // A stream that inflates a thousandfold is cut off one byte after what its header promised.
    let bomb = gzip(&idx_file(&[1, 2, 2], &vec![0; 1 << 26]));
    assert!(bomb.len() < 1 << 17);
    assert_says(&error_with("train-images-idx3-ubyte", bomb), &["goes on after the 1 images of 2x2"]);
}

#[test]
fn labels_out_of_range() {
    let error = error_with("t10k-labels-idx1-ubyte", idx_file(&[3], &[0, 3, 1]));
    assert_says(&error, &["label 3 (image 1) is out of range", "0 to 2"]);
    let error = error_with("train-labels-idx1-ubyte", idx_file(&[6], &[0, 1, 2, 0, 200, 2]));
    assert_says(&error, &["label 200 (image 4) is out of range", "class 3"]);
    let error = error_with("train-labels-idx1-ubyte", idx_file(&[6], &[1, 2, 3, 1, 2, 3]));
    assert_says(&error, &["no image is of class 0", "renumbered"]);
    let error = error_with("train-labels-idx1-ubyte", idx_file(&[6], &[0; 6]));
    assert_says(&error, &["at least two classes"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_is_named() {
    // A folder reads as an error even for root.
    let folder = tempfile::tempdir().unwrap();
    let error = idx::read_images(folder.path()).unwrap_err().to_string();
    assert_says(&error, &["could not read", folder.path().to_str().unwrap()]);
    let error = idx::read_labels(Path::new("/no/such/file")).unwrap_err().to_string();
    assert_says(&error, &["could not open", "/no/such/file"]);
}

#[test]
fn validation_images_are_held_out_by_class() {
    let train = data::load("mnist").unwrap().train;
    let (rest, held_out) = train.split_validation(1000, Groups::default(), 0).unwrap();
    assert_eq!((rest.len(), held_out.len()), (9000, 1000));
    let mut all: Vec<u32> = rest.iter().chain(&held_out).copied().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..10_000), "every image is in exactly one part");
    assert!(held_out.is_sorted() && rest.is_sorted());
    // Exact shares are 94.1, 113.2, 103.2, 102.2, 95.8, 92.5, 99.7, 102.6, 97.8, 98.9.
    let counts: Vec<usize> = (0..10)
        .map(|class| held_out.iter().filter(|&&i| train.labels[i as usize] == class).count())
        .collect();
    assert_eq!(counts, [94, 113, 103, 102, 96, 92, 100, 103, 98, 99]);

    assert_eq!(
        train.split_validation(1000, Groups::default(), 0).unwrap(),
        (rest, held_out.clone()),
        "the seed decides"
    );
    assert_ne!(train.split_validation(1000, Groups::default(), 1).unwrap().1, held_out);
    assert!(train.split_validation(0, Groups::default(), 0).unwrap().1.is_empty());
    assert_eq!(train.split_validation(9_999, Groups::default(), 0).unwrap().0.len(), 1);
    let error = train.split_validation(10_000, Groups::default(), 0).unwrap_err().to_string();
    assert_says(&error, &["10000", "left to train on"]);
}

#[test]
fn subsets() {
    let train = load(good()).unwrap().train;
    let part = train.subset(&[4, 0]).unwrap();
    assert_eq!((part.len(), part.labels.as_slice(), part.classes), (2, &[1, 0][..], 3));
    assert_eq!((part.image(0), part.image(1)), (train.image(4), train.image(0)));
    assert_ne!(part.sha256, train.sha256);
    assert_says(&train.subset(&[6]).unwrap_err().to_string(), &["6", "has 6 images"]);
    assert!(train.subset(&[]).is_err());
}

#[test]
fn datasets_from_vectors_are_checked() {
    let names = || vec!["cat".to_string(), "dog".to_string()];
    let dataset = |image, images, labels| Dataset::new("pets", "a test", image, images, labels, names());
    assert_eq!(dataset([1, 2, 3], vec![0; 12], vec![0, 1]).unwrap().image_len(), 6);
    assert!(dataset([1, 2, 3], vec![0; 11], vec![0, 1]).is_err());
    assert!(dataset([1, 2, 3], vec![], vec![]).is_err());
    assert!(dataset([0, 2, 3], vec![], vec![0]).is_err());
    assert!(dataset([usize::MAX, 2, 3], vec![0; 6], vec![0]).is_err());
    let error = dataset([1, 2, 3], vec![0; 12], vec![0, 2]).unwrap_err().to_string();
    assert_says(&error, &["label 2 of image 1", "2 classes"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the bytes, reading ends with an answer.
    #[test]
    fn arbitrary_bytes_never_panic(
        start in prop_oneof![
            Just(vec![]),
            Just(vec![0, 0, 8, 3]),
            Just(vec![0, 0, 8, 1]),
            Just(vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0]),
            Just(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
        ],
        rest in prop::collection::vec(any::<u8>(), 0..200),
        packed in any::<bool>(),
    ) {
        let mut bytes = [start, rest].concat();
        if packed {
            bytes = gzip(&bytes);
        }
        let path = Path::new("bytes");
        if let Ok(images) = idx::parse_images(&bytes[..], path) {
            prop_assert_eq!(images.pixels.len(), images.count * images.height * images.width);
        }
        let _ = idx::parse_labels(&bytes[..], path);
    }

    /// What is written as IDX is read back, and no change to one byte of the header goes unnoticed.
    #[test]
    fn what_is_written_is_read(
        (extents, pixels) in (1u32..5, 1u32..6, 1u32..6).prop_flat_map(|(n, h, w)| {
            (Just([n, h, w]), prop::collection::vec(any::<u8>(), (n * h * w) as usize))
        }),
        at in 0usize..16,
        flip in 1u8..=255,
    ) {
        let mut file = idx_file(&extents, &pixels);
        let images = idx::parse_images(&file[..], Path::new("file")).unwrap();
        prop_assert_eq!([images.count, images.height, images.width], extents.map(|extent| extent as usize));
        prop_assert_eq!(images.pixels, pixels);
        file[at] ^= flip;
        prop_assert!(idx::parse_images(&file[..], Path::new("file")).is_err());
    }
}
