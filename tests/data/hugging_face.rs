//! Parquet files as the Hugging Face hub has them (cargo feature `parquet`).

use crate::{assert_says, load};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use std::io::Cursor;
use std::sync::Arc;

fn png(value: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(6, 4, |x, y| Rgb([value, x as u8, y as u8]));
    DynamicImage::from(picture).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

const NAMES: &str = r#"{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;

/// A file of these pictures and labels, as the hub writes them.
fn file(pictures: &[Vec<u8>], labels: &[i64], names: Option<&str>) -> Vec<u8> {
    let schema = "message schema { optional group image { optional binary bytes; optional binary path (UTF8); } \
                  optional int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let written = names.map(|text| vec![KeyValue::new("huggingface".to_string(), text.to_string())]);
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_key_value_metadata(written)
        .build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let levels = vec![2; pictures.len()];
    let arrays: Vec<ByteArray> = pictures.iter().map(|bytes| bytes.clone().into()).collect();
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&arrays, Some(&levels), None).unwrap();
    column.close().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    // No paths.
    column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; pictures.len()]), None).unwrap();
    column.close().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(labels, Some(&vec![1; labels.len()]), None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}

fn good() -> [(&'static str, Vec<u8>); 3] {
    [
        ("train-00000-of-00002.parquet", file(&[png(1), png(2)], &[0, 1], Some(NAMES))),
        ("train-00001-of-00002.parquet", file(&[png(3)], &[1], Some(NAMES))),
        ("test-00000-of-00001.parquet", file(&[png(4)], &[0], None)),
    ]
}

#[test]
fn pictures_in_parquet() {
    let data = load(good()).unwrap();
    assert_eq!((data.train.image, data.train.labels.as_slice()), ([4, 6, 3], &[0, 1, 1][..]));
    assert_eq!(
        (data.test.image(0)[..6].to_vec(), data.test.class_names[1].as_str()),
        (vec![4, 0, 0, 4, 1, 0], "dog")
    );
    // Without names, by numbers.
    let plain = [
        ("train-0.parquet", file(&[png(1), png(2)], &[0, 1], None)),
        ("validation-0.parquet", file(&[png(3)], &[1], None)),
    ];
    assert_eq!(load(plain).unwrap().train.class_names, ["0", "1"]);
}

#[test]
fn bad_parquet() {
    let with = |bytes: Vec<u8>| {
        let mut files = good();
        files[1].1 = bytes;
        load(files).unwrap_err().to_string()
    };
    assert_says(&with(file(&[png(1)], &[2], None)), &["label 2", "2 names"]);
    assert_says(&with(file(&[png(1)], &[-1], None)), &["train-00001", "label -1", "row 0"]);
    assert_says(&with(file(&[b"GIF89a".to_vec()], &[1], None)), &["train-00001", "PNG or JPEG"]);
    assert_says(&with(file(&[png(1)[..40].to_vec()], &[1], None)), &["train-00001"]);
    assert_says(&with(b"PAR1 and no more".to_vec()), &["train-00001", "no whole parquet file"]);
    assert_says(&with(vec![]), &["train-00001", "no whole parquet file"]);
    assert_says(&load(good().into_iter().take(2)).unwrap_err().to_string(), &["no rows in files test"]);
}

#[test]
fn columns_that_begin_before_the_file_are_refused() {
    // The least bit of a number in the footer is its sign: each in turn.
    let whole = good()[0].1.clone();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
    let mut found = 0;
    for at in whole.len() - 8 - footer..whole.len() - 8 {
        let mut files = good();
        files[0].1[at] ^= 1;
        if let Err(error) = load(files) {
            found += usize::from(error.to_string().contains("a column begins before the file does"));
        }
    }
    // Three columns, of which each has an offset at least.
    assert!(found >= 3, "{found}");
}

/// Found by fuzzing.
#[test]
fn pages_that_end_too_early_and_more_rows_than_bytes_are_refused() {
    let with = |bytes: &[u8]| {
        let mut files = good();
        files[0].1 = bytes.to_vec();
        load(files).unwrap_err().to_string()
    };
    // The crate that reads pages panics at this one.
    assert_says(&with(include_bytes!("hostile-pages.parquet")), &["no whole parquet file"]);
    // Reading this one took the better part of a minute.
    assert_says(&with(include_bytes!("hostile-rows.parquet")), &["parquet"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is cut off or changed, loading ends with an answer.
    #[test]
    fn damaged_files_never_panic(cut in 0.0f64..3.0, changes in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6)) {
        let mut files = good();
        let bytes = &mut files[0].1;
        if cut < 1.0 {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        for (place, value) in changes {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let _ = load(files);
    }
}
