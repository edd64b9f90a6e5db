//! Folders of pictures.

use crate::assert_says;
use adamant::data::{self, Data, Examples};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::path::Path;

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

/// Red grows to the right, green downwards; blue is `blue`.
fn ramp(width: u32, height: u32, blue: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, blue]))
}

/// A folder with these files, and what loading it says.
fn load(files: &[(&str, Vec<u8>)], size: usize) -> adamant::Result<Data> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let before = count(folder.path());
    let result = data::load_sized(folder.path().to_str().unwrap(), size);
    assert_eq!(count(folder.path()), before, "something was written");
    result
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { count(&path) } else { 1 })
        .sum()
}

/// Two classes, two pictures to train on each and one to test on, of 12x8 pixels.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("train/cat/a.png", png(ramp(12, 8, 0))),
        ("train/cat/b.png", png(ramp(12, 8, 10))),
        ("train/dog/a.png", png(ramp(12, 8, 20))),
        ("train/dog/b.PNG", png(ramp(12, 8, 30))),
        ("test/dog/x.png", png(ramp(12, 8, 40))),
        ("train/.hidden", vec![1, 2, 3]),
    ]
}

fn error_with(name: &str, bytes: Vec<u8>, size: usize) -> String {
    let mut files = good();
    files.retain(|(have, _)| *have != name);
    files.push((name, bytes));
    let error = load(&files, size).unwrap_err().to_string();
    assert!(error.contains(name.rsplit('/').next().unwrap()), "{error}: does not name {name}");
    error
}

#[test]
fn pictures_as_they_are() {
    let data = load(&good(), 0).unwrap();
    assert_eq!((data.train.image, data.train.labels.as_slice()), ([8, 12, 3], &[0, 0, 1, 1][..]));
    assert_eq!((data.test.labels.as_slice(), data.train.class_names[1].as_str()), (&[1][..], "dog"));
    assert_eq!(data.train.image(3)[..6], [0, 0, 30, 21, 0, 30]);
    assert_eq!(data.test.image(0), ramp(12, 8, 40).as_raw().as_slice());
    // The same under `val`, as JPEG: close to it.
    let mut files = good();
    files[4] = ("val/dog/x.jpg", encoded(ramp(12, 8, 40), ImageFormat::Jpeg));
    let jpeg = load(&files, 0).unwrap();
    let far = jpeg.test.image(0).iter().zip(data.test.image(0)).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far.unwrap() < 40, "{far:?}");
    assert_ne!(jpeg.test.sha256, data.test.sha256);
}

#[test]
fn sizes_and_modes() {
    let mut files = good();
    files[2].1 = png(ramp(40, 20, 20));
    assert_says(&load(&files, 0).unwrap_err().to_string(), &["a.png", "40x20", "12x8", "--image-size"]);
    // The shorter side becomes 8, and the middle 8 of the longer one are kept: red in the middle is half.
    let data = load(&files, 8).unwrap();
    assert_eq!(data.train.image, [8, 8, 3]);
    for example in 0..4 {
        let image = data.train.image(example);
        let red = |x: usize| f64::from(image[(4 * 8 + x) * 3]);
        let middle = 0.5 * (red(3) + red(4));
        assert!((middle - 122.0).abs() < 12.0, "{example}: {middle}");
        // 12x8 keeps 2/3 of the range, 40x20 one half.
        let range = red(7) - red(0);
        let kept = if example == 2 { 0.5 } else { 2.0 / 3.0 };
        assert!((range - 255.0 * kept * 7.0 / 8.0).abs() < 16.0, "{example}: {range}");
    }

    // Grey ones alone stay grey; a transparent one, a palette of 16 bits among coloured ones become coloured.
    let grey = |value| png(GrayImage::from_pixel(4, 4, Luma([value])));
    let all_grey = [("train/a/1.png", grey(1)), ("train/b/1.png", grey(200)), ("test/a/1.png", grey(3))];
    let data = load(&all_grey, 0).unwrap();
    assert_eq!((data.train.image, data.train.image(1)[0]), ([4, 4, 1], 200));
    let mixed = [
        ("train/a/1.png", grey(7)),
        ("train/b/1.png", png(RgbaImage::from_pixel(4, 4, Rgba([9, 8, 7, 0])))),
        ("test/a/1.png", png(image::ImageBuffer::from_pixel(4, 4, Rgb([0x1234u16, 0xff00, 0])))),
    ];
    let data = load(&mixed, 0).unwrap();
    assert_eq!((data.train.image, &data.train.image(0)[..3]), ([4, 4, 3], &[7, 7, 7][..]));
    assert_eq!(data.train.image(1)[..3], [9, 8, 7]);
    assert_eq!(data.test.image(0)[..3], [0x12, 0xfe, 0]);
    let Examples::Images(pixels) = &data.train.examples else { panic!("no images") };
    assert_eq!(pixels.len(), 2 * 48);
}

#[test]
fn what_is_missing_or_no_picture() {
    let mut files = good();
    files.remove(4);
    assert_says(&load(&files, 0).unwrap_err().to_string(), &["none for testing", "val"]);
    let mut files = good();
    files.push(("test/bird/x.png", png(ramp(12, 8, 0))));
    let bird = load(&files, 0).unwrap_err().to_string();
    assert_says(&bird, &["test/bird", "none of the classes", "cat and dog"]);
    assert_says(&error_with("train/readme.txt", b"hello".to_vec(), 0), &["not a folder"]);
    assert_says(&error_with("train/cat/Thumbs.db", b"hello".to_vec(), 0), &["no picture", "Move it away"]);
    assert_says(&error_with("train/cat/c.gif", b"GIF89a".to_vec(), 0), &["no picture"]);
    assert_says(&error_with("train/cat/c.png", b"GIF89a..".to_vec(), 0), &["whatever its name says"]);
    assert_says(&error_with("train/cat/c.png", vec![], 0), &["no PNG or JPEG picture"]);
    assert_says(&load(&good()[..2], 0).unwrap_err().to_string(), &["none for testing"]);
    let one = [("train/a/1.png", png(ramp(4, 4, 0))), ("test/a/1.png", png(ramp(4, 4, 0)))];
    assert_says(&load(&one, 0).unwrap_err().to_string(), &["1 classes"]);
    let error = load(&good(), 100_000).unwrap_err().to_string();
    assert_says(&error, &["image size", "at most 4096"]);
    // Other formats are not resized.
    let error = data::load_sized("mnist", 32).unwrap_err().to_string();
    assert_says(&error, &["image size", "28x28", "leave it out"]);
    assert_eq!(data::load_sized("mnist", 28).unwrap().train.len(), 10_000);
}

/// A PNG whose header says so many pixels, with a right checksum.
fn lying_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(ramp(12, 8, 0));
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    bytes
}

#[test]
fn bombs_and_damage() {
    for (width, height) in [(60_000, 8), (8, 60_000), (16_000, 16_000), (u32::MAX, u32::MAX), (0, 8)] {
        error_with("train/cat/b.png", lying_png(width, height), 8);
    }
    // Within the limits of pixels, but there are none.
    let error = error_with("train/cat/b.png", lying_png(8000, 8000), 8);
    assert_says(&error, &["cut short or damaged"]);
    let whole = png(ramp(12, 8, 0));
    for length in [10, 30, 50, whole.len() - 13] {
        error_with("train/cat/b.png", whole[..length].to_vec(), 0);
    }
    let jpeg = encoded(ramp(64, 64, 0), ImageFormat::Jpeg);
    error_with("train/cat/c.jpg", jpeg[..200].to_vec(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is cut off or changed in a picture, loading ends with an answer.
    #[test]
    fn damaged_pictures_never_panic(
        jpeg in any::<bool>(),
        cut in 0.0f64..2.0,
        changes in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6),
    ) {
        let format = if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png };
        let mut bytes = encoded(ramp(40, 30, 7), format);
        if cut < 1.0 {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        for (place, value) in changes {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let mut files = good();
        files[1] = ("train/cat/b.jpg", bytes);
        if let Ok(data) = load(&files, 8) {
            prop_assert_eq!(data.train.image[..2].to_vec(), vec![8, 8]);
        }
    }
}
