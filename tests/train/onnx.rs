//! Networks out as ONNX, and in again.

use crate::tiny::Tiny;
use adamant::nn::{Architecture, Onnx};

#[test]
fn a_network_leaves_as_onnx_and_is_trained_on_from_there() {
    let tiny = Tiny::new(300);
    let ran = tiny.runs(&tiny.short(&["--out", "run", "--export-onnx", "network.onnx", "--test-steps", "2"]));
    assert!(ran.out.contains("network.onnx"), "{}", ran.out);
    let network = Onnx::open(tiny.path("network.onnx")).unwrap();
    assert_eq!((network.input(), network.classes(), network.through_softmax()), ([8, 8, 1], 4, false));

    // Of a run that is over, the same again, and nothing else.
    let ran = tiny.runs(&["--resume", "run", "--export-onnx", "again.onnx"]);
    assert!(!ran.out.contains("robust"), "{}", ran.out);
    assert_eq!(tiny.read("again.onnx"), tiny.read("network.onnx"));

    let more =
        ["--data", "tiny", "--model", "network.onnx", "--epsilon", "0.1", "--epochs", "1", "--out", "more"];
    tiny.runs(&[&more[..], &["--test-steps", "2", "--validation", "100"]].concat());
    let wide = ["--data", "mnist", "--model", "network.onnx", "--out", "wide"];
    tiny.refuses(&wide, &["network.onnx", "takes images of 8x8 with 1 channels, not of 28x28"]);
    tiny.refuses(&tiny.short(&["--export-onnx", "network.pt"]), &["must end in .onnx"]);
    tiny.refuses(&tiny.short(&["--export-onnx", "nowhere/network.onnx"]), &["nowhere", "--export-onnx"]);
}
