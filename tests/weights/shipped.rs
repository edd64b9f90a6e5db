//! The weights under models/: each file carries the digest of what it says, and is refused where it does not fit.

use adamant::weights::{self, StateDict};
use std::fs;
use std::io::Cursor;
use std::path::Path;

#[test]
fn a_flipped_bit_in_weights_that_come_along_is_refused() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut files = 0;
    for folder in fs::read_dir(models).unwrap() {
        let file = folder.unwrap().path().join("weights.safetensors");
        let Ok(good) = fs::read(&file) else { continue };
        weights::open(&file, &weights::Names::default()).unwrap();
        files += 1;
        // The sign of a weight, the last bit of one, and the name of the architecture.
        let name = good.windows(9).position(|bytes| bytes == b"\"model\":\"").unwrap() + 9;
        for (at, bit) in [(good.len() - 1, 0x80), ((good.len() / 2) & !3, 1), (name, 1)] {
            let mut changed = good.clone();
            changed[at] ^= bit;
            let error = StateDict::of(Box::new(Cursor::new(changed)), &file, "").err();
            let error = error.unwrap_or_else(|| panic!("{}: byte {at} is taken", file.display())).to_string();
            assert!(error.contains("SHA-256") && error.contains("use another copy"), "{error}");
        }
    }
    assert!(files >= 6, "{files}");
}
