//! Files that hold more than a state dict: which part of them is taken, and that it is said.

use super::hostile::{pt, storage, tensor, text};
use adamant::weights::StateDict;
use std::io::Cursor;
use std::path::Path;

/// A dict in a pickle.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, value)| [text(key), value.clone()].concat());
    [b"}(".to_vec(), entries.collect::<Vec<_>>().concat(), b"u".to_vec()].concat()
}

fn floats(dims: &[i32]) -> Vec<u8> {
    tensor(storage("FloatStorage", "0", 4), 0, dims, &vec![1; dims.len()])
}

/// Two weights.
fn network() -> Vec<u8> {
    dict(&[("0.weight", floats(&[1, 4])), ("0.bias", floats(&[1]))])
}

/// What is taken of a file with these entries: keys that lead there, keys beside, names.
fn taken(entries: &[(&str, Vec<u8>)], open: &str) -> Result<[String; 3], String> {
    let file = pt(&[vec![0x80, 2], dict(entries), b".".to_vec()].concat());
    let file = StateDict::of(Box::new(Cursor::new(file)), Path::new("FILE"), open);
    let file = file.map_err(|error| error.to_string())?;
    let names: Vec<&str> = file.tensors().map(|(name, _)| name).collect();
    Ok([file.opened().join("."), file.beside().join(" "), names.join(" ")])
}

#[test]
fn tensors_beside_a_state_dict_do_not_hide_it() {
    let accuracy = || floats(&[]);
    let random = || tensor(storage("ByteStorage", "0", 16), 0, &[16], &[1]);
    let names = "0.weight 0.bias";
    for (entries, want) in [
        (vec![("state_dict", network()), ("best_acc", accuracy())], ["state_dict", "", names]),
        (vec![("rng", random()), ("model", network()), ("acc", accuracy())], ["model", "", names]),
        // Weights of classes, of a loss: a tensor with an axis.
        (vec![("class_weights", floats(&[4])), ("net", network())], ["net", "", names]),
        (
            vec![("mean", floats(&[3])), ("model", dict(&[("state_dict", network()), ("acc", accuracy())]))],
            ["model.state_dict", "", names],
        ),
        // The weights are on top, and a few figures lie under a usual name.
        (
            vec![
                ("0.weight", floats(&[4])),
                ("0.bias", floats(&[1])),
                ("best", dict(&[("acc", floats(&[1]))])),
            ],
            ["", "", names],
        ),
        (vec![("model", network()), ("ema", network()), ("lr", accuracy())], ["model", "ema", names]),
        (
            vec![("a", network()), ("model", dict(&[("ema", network()), ("net", network())]))],
            ["model.net", "a model.ema", names],
        ),
    ] {
        assert_eq!(taken(&entries, ""), Ok(want.map(String::from)));
    }
    let asked = taken(&[("model", network()), ("ema", network())], "ema");
    assert_eq!(asked, Ok(["ema", "", names].map(String::from)));
}

#[test]
fn a_state_dict_under_another_name_is_asked_for() {
    for beside in [floats(&[]), tensor(storage("ByteStorage", "0", 16), 0, &[16], &[1])] {
        let error = taken(&[("best_acc", beside), ("student", network())], "").unwrap_err();
        assert!(error.contains("keys there are best_acc, student") && error.contains("open ="), "{error}");
    }
}
