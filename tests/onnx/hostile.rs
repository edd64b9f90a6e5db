//! Files that are not what they should be: each refused with a sentence that says what and where, within bounded memory.

use super::import::{cases, model, names};
use super::memory;
use adamant::nn::{Architecture, Mode, Net, Onnx, Tape};
use adamant::{DType, Error};
use safetensors::SafeTensors;

/// A protobuf field with a length.
fn field(number: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(body.len() as u64));
    bytes.extend(body);
    bytes
}

/// A protobuf field with a number.
fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value as u64)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// An attribute of integers.
fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|&value| number(8, value)).collect();
    field(5, &[field(1, name.as_bytes()), values, number(20, 7)].concat())
}

/// An attribute of an integer.
fn int(name: &str, value: i64) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), number(3, value), number(20, 2)].concat())
}

/// A node called `the-node`.
fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let names = |number, names: &[&str]| -> Vec<u8> {
        names.iter().flat_map(|name| field(number, name.as_bytes())).collect()
    };
    let head = [names(1, inputs), names(2, outputs), field(3, b"the-node"), field(4, op.as_bytes())];
    field(1, &[head.concat(), attributes.concat()].concat())
}

/// A constant; floats are of type 1, integers of 64 bits 7.
fn tensor(name: &str, dims: &[i64], kind: i64, raw: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&dim| number(1, dim)).collect();
    field(5, &[dims, number(2, kind), field(8, name.as_bytes()), field(9, raw)].concat())
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Vec<u8> {
    tensor(name, dims, 1, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn longs(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, &[values.len() as i64], 7, &raw)
}

/// An input (11) or output (12) of floats; -1 for an extent that is open.
fn value(which: u64, name: &str, dims: &[i64]) -> Vec<u8> {
    let extent = |&dim: &i64| field(1, &if dim < 0 { field(2, b"N") } else { number(1, dim) });
    let shape: Vec<u8> = dims.iter().flat_map(extent).collect();
    let kind = field(1, &[number(1, 1), field(2, &shape)].concat());
    field(which, &[field(1, name.as_bytes()), field(2, &kind)].concat())
}

/// A file of this opset with a graph of these parts.
fn file(opset: i64, parts: &[Vec<u8>]) -> Vec<u8> {
    [number(1, 8), field(7, &parts.concat()), field(8, &number(2, opset))].concat()
}

/// A file of images `x` [N,2,4,4] to `y`, with these parts between.
fn between(parts: &[Vec<u8>]) -> Vec<u8> {
    let ends = [value(11, "x", &[-1, 2, 4, 4]), value(12, "y", &[-1, -1])];
    file(13, &[parts, &ends].concat())
}

/// Why a file is refused.
fn why(bytes: &[u8]) -> String {
    match Onnx::from_bytes(bytes) {
        Err(error @ Error::Argument { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("was not refused"),
    }
}

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    let why = why(bytes);
    for word in words {
        assert!(why.contains(word), "`{why}` does not say `{word}`");
    }
}

fn relu(from: &str, to: &str) -> Vec<u8> {
    node("Relu", &[from], &[to], &[])
}

fn flatten(from: &str) -> Vec<u8> {
    node("Flatten", &[from], &["y"], &[])
}

#[test]
fn what_is_made_here_is_a_file() {
    let network = Onnx::from_bytes(&between(&[relu("x", "r"), flatten("r")])).unwrap();
    assert_eq!((network.input(), network.classes(), network.last_operator()), ([4, 4, 2], 32, "Relu"));
}

#[test]
fn nodes_that_were_exported_as_in_training_are_told() {
    let vectors: Vec<Vec<u8>> =
        ["g", "b", "m", "v"].iter().map(|name| floats(name, &[2], &[1.0, 2.0])).collect();
    let norm = |mode: &[Vec<u8>]| node("BatchNormalization", &["x", "g", "b", "m", "v"], &["r"], mode);
    let drops = |rate: f32, on: u8| {
        let constants = [floats("rate", &[], &[rate]), tensor("on", &[], 9, &[on])];
        [constants.concat(), node("Dropout", &["r", "rate", "on"], &["d"], &[])].concat()
    };
    let told = |mode: &[Vec<u8>], dropout: Vec<u8>| {
        let file = between(&[vectors.concat(), norm(mode), dropout, flatten("d")]);
        Onnx::from_bytes(&file).unwrap().exported_in_training().len()
    };
    assert_eq!(told(&[], drops(0.5, 0)), 0);
    assert_eq!(told(&[int("training_mode", 0)], drops(0.0, 1)), 0);
    assert_eq!(told(&[int("training_mode", 1)], drops(0.5, 0)), 1);
    assert_eq!(told(&[int("training_mode", 1)], drops(0.5, 1)), 2);
}

#[test]
fn what_is_no_onnx_file_is_refused() {
    refused(b"", &["opset"]);
    refused(b"PK\x03\x04 hello, this is something else", &["not a whole ONNX file"]);
    refused(&[0xff; 40], &["not a whole ONNX file"]);
    refused(&file(13, &[]), &["no input"]);
    refused(&number(1, 8), &["opset"]);
    refused(&field(8, &number(2, 13)), &["no graph"]);
    for opset in [-1, 0, 8, 22, i64::MAX] {
        refused(&file(opset, &[relu("x", "y")]), &[&format!("opset {opset}"), "9 to 21"]);
    }
    // Groups, which would nest without a length.
    refused(&[0x0b; 10_000], &["wire type 3"]);
    let error = Onnx::open("/no/such/file.onnx").err().unwrap().to_string();
    assert!(error.contains("/no/such/file.onnx"), "{error}");
}

#[test]
fn operators_and_attributes_that_are_missing_are_named() {
    let flat = flatten("r");
    let one =
        |op: &str, attributes: &[Vec<u8>]| between(&[node(op, &["x"], &["r"], attributes), flat.clone()]);
    refused(&one("Det", &[]), &["`the-node` (Det)", "not supported", "supported are", "Softmax"]);
    refused(&one("If", &[field(5, &[field(1, b"then_branch"), field(6, &[0; 999])].concat())]), &["(If)"]);
    refused(&one("Relu", &[int("slope", 1)]), &["(Relu)", "attribute `slope`"]);
    refused(&one("MaxPool", &[int("kernel_shape", 2)]), &["kernel_shape", "kind"]);
    refused(&one("MaxPool", &[ints("kernel_shape", &[2])]), &["kernel_shape = [2]"]);
    refused(&one("MaxPool", &[ints("kernel_shape", &[0, 2])]), &["kernel_shape"]);
    refused(&one("MaxPool", &[ints("kernel_shape", &[2, 2]), ints("strides", &[0, 1])]), &["strides"]);
    refused(&one("MaxPool", &[ints("kernel_shape", &[9, 9])]), &["larger than its padded input"]);
    refused(&one("MaxPool", &[ints("kernel_shape", &[2, 2]), ints("dilations", &[2, 2])]), &["dilations"]);
    let twice = [int("axis", 1), int("axis", 1)];
    refused(&one("Softmax", &twice), &["`axis` twice"]);
    refused(&one("Softmax", &[int("axis", i64::MIN)]), &["axis"]);
    refused(&one("Transpose", &[ints("perm", &[0, 1, 1, 2])]), &["perm"]);
    let custom =
        field(1, &[field(1, b"x"), field(2, b"r"), field(4, b"Relu"), field(7, b"com.else")].concat());
    refused(&between(&[custom, flat.clone()]), &["com.else"]);
    let pads = longs("p", &[0, 0, 1, 1, 0, 0, 1, 1]);
    let mode = field(5, &[field(1, b"mode"), field(4, b"reflect"), number(20, 3)].concat());
    refused(&between(&[pads, node("Pad", &["x", "p"], &["r"], &[mode]), flat]), &["reflect"]);
}

#[test]
fn messages_in_messages_are_no_deeper_than_a_network_needs() {
    // Graphs in attributes of nodes of graphs, and types of sequences of sequences: nothing follows them down.
    let (mut graph, mut sequence) = (node("Relu", &["x"], &["y"], &[]), Vec::new());
    for _ in 0..3000 {
        let branch = field(5, &[field(1, b"then_branch"), field(6, &graph), number(20, 5)].concat());
        graph = node("If", &["x"], &["y"], &[branch]);
        sequence = field(4, &field(1, &sequence));
    }
    refused_within(&between(&[graph]), &["(If)"], 1 << 20);
    let input = field(11, &[field(1, b"x"), field(2, &sequence)].concat());
    refused_within(&file(13, &[input, flatten("x"), value(12, "y", &[-1])]), &["`x`"], 1 << 20);
    // A network of a thousand layers is not deep in that sense.
    let layers: Vec<Vec<u8>> = (0..1000).map(|i| relu(&format!("r{i}"), &format!("r{}", i + 1))).collect();
    assert!(survive(&between(&[vec![relu("x", "r0")], layers, vec![flatten("r1000")]].concat())));
}

#[test]
fn a_path_in_a_file_leads_nowhere() {
    for path in ["../../../../etc/passwd", "/etc/passwd", "w.bin"] {
        let location = field(13, &[field(1, b"location"), field(2, path.as_bytes())].concat());
        let dims = [number(1, 1), number(1, 2), number(1, 1), number(1, 1)].concat();
        let w = field(5, &[dims, number(2, 1), field(8, b"w"), location, number(14, 1)].concat());
        let conv = node("Conv", &["x", "w"], &["r"], &[]);
        refused(&between(&[w, conv, flatten("r")]), &["`w`", "external data", "not read"]);
    }
}

#[test]
fn graphs_that_dangle_or_go_in_circles_are_refused() {
    refused(&between(&[flatten("r")]), &["(Flatten)", "`r`", "nothing makes"]);
    refused(&between(&[relu("b", "a"), relu("a", "b"), flatten("b")]), &["`b`", "circle"]);
    refused(&between(&[relu("a", "a"), flatten("a")]), &["`a`", "circle"]);
    refused(&between(&[flatten("r"), relu("x", "r")]), &["not in order"]);
    refused(&between(&[relu("x", "r"), relu("x", "r"), flatten("r")]), &["two values named `r`"]);
    refused(&between(&[relu("x", "x"), flatten("x")]), &["two values named `x`"]);
    let c = floats("c", &[1], &[1.0]);
    refused(&between(&[c.clone(), c.clone(), flatten("x")]), &["two constants named `c`"]);
    refused(&between(&[c.clone(), relu("x", "c"), flatten("c")]), &["two values named `c`"]);
    refused(&between(&[c, node("Relu", &["c"], &["y"], &[])]), &["constant"]);
    let pool = node("MaxPool", &["x"], &["r", "index"], &[ints("kernel_shape", &[2, 2])]);
    refused(&between(&[pool, flatten("index")]), &["output 2", "(MaxPool)"]);
    refused(&between(&[relu("x", "y")]), &["`y`", "one number a class"]);
    refused(&between(&[flatten("x"), value(12, "z", &[-1])]), &["2 outputs"]);
    refused(&between(&[flatten("x"), value(11, "z", &[-1, 2])]), &["several inputs"]);
    refused(&between(&[]), &["does not depend on the images"]);
    refused(&between(&[node("Add", &["x"], &["r"], &[]), flatten("r")]), &["(Add)", "two"]);
    refused(&between(&[node("Flatten", &[], &["y"], &[])]), &["(Flatten)", "lacks input 1"]);
}

#[test]
fn graphs_that_mix_the_images_of_a_batch_are_refused() {
    let through =
        |op: &str, attributes: &[Vec<u8>]| between(&[node(op, &["x"], &["r"], attributes), flatten("r")]);
    refused(&through("Transpose", &[ints("perm", &[1, 0, 2, 3])]), &["mix"]);
    refused(&through("ReduceMean", &[ints("axes", &[0])]), &["mix"]);
    refused(&through("ReduceMean", &[]), &["mix"]);
    refused(&through("Softmax", &[int("axis", 0)]), &["mix"]);
    refused(&through("Flatten", &[int("axis", 2)]), &["mix"]);
    refused(&between(&[node("Concat", &["x", "x"], &["r"], &[int("axis", 0)]), flatten("r")]), &["mix"]);
    let reshape = |to: &[i64]| between(&[longs("s", to), node("Reshape", &["x", "s"], &["y"], &[])]);
    refused(&reshape(&[-1]), &["mix"]);
    refused(&reshape(&[32, -1]), &["mix"]);
    refused(&reshape(&[-1, 7]), &["cannot give"]);
    refused(&reshape(&[-1, -1]), &["cannot give"]);
}

#[test]
fn weights_that_are_none_are_refused() {
    let conv = |w: Vec<u8>| between(&[w, node("Conv", &["x", "w"], &["r"], &[]), flatten("r")]);
    refused(&conv(floats("w", &[1, 2, 1, 1], &[1.0, f32::NAN])), &["`w`", "element 1 is NaN"]);
    refused(&conv(floats("w", &[1, 2, 1, 1], &[f32::INFINITY, 0.0])), &["element 0 is inf"]);
    refused(&conv(floats("w", &[1, 2, 1, 1], &[1.0])), &["`w`", "1 elements instead of 2"]);
    refused(&conv(floats("w", &[1, 2, 1], &[1.0, 2.0])), &["4 axes"]);
    refused(&conv(floats("w", &[1, 3, 1, 1], &[1.0; 3])), &["does not fit"]);
    refused(&conv(floats("w", &[0, 2, 1, 1], &[])), &["does not fit"]);
    refused(&conv(longs("w", &[1, 2])), &["axes"]);
    refused(&conv(tensor("w", &[1, 2, 1, 1], 7, &[0; 16])), &["integers"]);
    refused(&conv(tensor("w", &[1, 2, 1, 1], 8, &[0; 16])), &["type 8"]);
    refused(&conv(tensor("w", &[i64::MAX, 4, 1, 1], 1, &[0; 8])), &["extents"]);
    refused(&conv(tensor("w", &[1 << 40, 2, 1, 1], 1, &[0; 8])), &["instead of"]);
    refused(&conv(tensor("w", &[-1, 2, 1, 1], 1, &[0; 8])), &["extents"]);
    refused(&conv(tensor("w", &[1; 5000], 1, &[0; 4])), &["5000 axes"]);
    let location = [number(2, 1), field(8, b"w"), number(14, 1)].concat();
    refused(&conv(field(5, &location)), &["`w`", "external data", "external_data=False", "dynamo=False"]);
    let vectors: Vec<Vec<u8>> = ["g", "b", "m"].iter().map(|name| floats(name, &[2], &[1.0, 2.0])).collect();
    let norm = node("BatchNormalization", &["x", "g", "b", "m", "v"], &["r"], &[]);
    let normed = |v: Vec<u8>| between(&[vectors.concat(), v, norm.clone(), flatten("r")]);
    refused(&normed(floats("v", &[2], &[1.0, -1.0])), &["variance"]);
    refused(&normed(floats("v", &[3], &[1.0; 3])), &["2 channels"]);
    let by = |op: &str, c: f32| {
        between(&[floats("c", &[], &[c]), node(op, &["x", "c"], &["r"], &[]), flatten("r")])
    };
    refused(&by("Div", 0.0), &["(Div)"]);
    refused(&by("Add", f32::NAN), &["(Add)", "NaN"]);
    let many = [vec![1.0; 31], vec![f32::NAN]].concat();
    let parts = [floats("c", &[2, 4, 4], &many), node("Mul", &["x", "c"], &["r"], &[]), flatten("r")];
    refused(&between(&parts), &["(Mul)", "element"]);
}

#[test]
fn inputs_that_are_no_images_are_refused() {
    let taking = |dims: &[i64]| file(13, &[value(11, "x", dims), flatten("x"), value(12, "y", &[-1, -1])]);
    refused(&taking(&[]), &["0 axes"]);
    refused(&taking(&[-1, 3, 4]), &["3 axes"]);
    refused(&taking(&[-1, 3, -1, 4]), &["extent 2", "export"]);
    refused(&taking(&[-1, 3, 1 << 30, 4]), &["extent 2"]);
    refused(&taking(&[-1, 1 << 20, 1 << 20, 1 << 20]), &["larger"]);
    refused(&taking(&[-1, 0]), &["extent 1"]);
    let doubles = field(1, &[number(1, 11), field(2, &[])].concat());
    let input = field(11, &[field(1, b"x"), field(2, &doubles)].concat());
    refused(&file(13, &[input, flatten("x"), value(12, "y", &[-1])]), &["type 11"]);
    let network = Onnx::from_bytes(&taking(&[-1, 7])).unwrap();
    assert_eq!((network.input(), network.classes()), ([1, 1, 7], 7));
}

/// That a file is refused while no more is held than a multiple of its size and a little.
fn refused_within(bytes: &[u8], words: &[&str], most: usize) {
    let ((), held) = memory::most(|| refused(bytes, words));
    assert!(held <= most, "{held} bytes were held for a file of {}", bytes.len());
}

#[test]
fn small_files_do_not_take_large_memory() {
    const MIB: usize = 1 << 20;
    // Two million empty nodes.
    let nodes: Vec<u8> = field(1, b"").repeat(2_000_000);
    refused_within(&between(&[nodes]), &["messages"], 16 * MIB);
    let shape = longs("s", &[1 << 31, 1 << 31]);
    let large = node("ConstantOfShape", &["s"], &["c"], &[]);
    refused_within(
        &between(&[shape, large, node("Add", &["x", "c"], &["r"], &[]), flatten("r")]),
        &["(ConstantOfShape)", "larger"],
        MIB,
    );
    let mut doubled = vec![floats("c0", &[1024], &[1.0; 1024])];
    for i in 0..40 {
        let (from, to) = (format!("c{i}"), format!("c{}", i + 1));
        doubled.push(node("Concat", &[&from, &from], &[&to], &[int("axis", 0)]));
    }
    doubled.push(node("Add", &["x", "c40"], &["r"], &[]));
    doubled.push(flatten("r"));
    refused_within(&between(&doubled), &["(Concat)", "larger"], 32 * MIB);
    // An activation of 2^27 elements an image is recorded and not held; more is refused where it is made.
    let padded = |rows: i64| {
        let pads = longs("p", &[0, 0, 0, 0, 0, 0, rows - 4, (1 << 13) - 4]);
        between(&[
            pads,
            node("Pad", &["x", "p"], &["r"], &[]),
            node("GlobalAveragePool", &["r"], &["y"], &[]),
        ])
    };
    assert!(survive(&padded(1 << 13)));
    let words = ["node `the-node` (Pad)", "[2, 8193, 8192]", "larger than 134217728"];
    refused_within(&padded((1 << 13) + 1), &words, MIB);
    // Many of them together: what a pass back would keep.
    let mut many = vec![longs("p", &[0, 0, 0, 0, 0, 0, (1 << 13) - 4, (1 << 13) - 4])];
    many.push(node("Pad", &["x", "p"], &["r0"], &[]));
    many.extend((0..16).map(|i| relu(&format!("r{i}"), &format!("r{}", i + 1))));
    many.push(node("GlobalAveragePool", &["r16"], &["y"], &[]));
    refused_within(&between(&many), &["(Relu)", "[2, 8192, 8192]", "more than 2147483648"], MIB);
    let long = relu(&"n".repeat(100_000), "y");
    assert!(why(&between(&[long])).len() < 300_000);
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Reads a file that may be anything; what is taken can be recorded for any batch.
fn survive(bytes: &[u8]) -> bool {
    let (network, held) = memory::most(|| Onnx::from_bytes(bytes));
    assert!(held <= 64 * bytes.len() + (32 << 20), "{held} bytes were held for a file of {}", bytes.len());
    let Ok(network) = network else { return false };
    for batch in [1, 3] {
        let tape = Tape::new();
        let [rows, columns, channels] = network.input();
        let x = tape.source("images", [batch, rows, columns, channels], DType::F32);
        let y = network.forward(&Net::new(&tape, Mode::Eval), x);
        tape.check().unwrap();
        assert_eq!(y.shape().dims(), [batch, network.classes()]);
    }
    true
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = model("viewed.traced");
    for length in 0..whole.len() {
        // What ends where a field does is a file without the rest: refused all the same.
        assert!(!survive(&whole[..length]), "{length} of {} bytes", whole.len());
    }
    assert!(survive(&whole));
}

#[test]
fn files_changed_at_random_never_do_harm() {
    let bytes = cases();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let models: Vec<Vec<u8>> = names(&file)
        .iter()
        .map(|name| file.tensor(&format!("{name}.model")).unwrap().data().to_vec())
        .collect();
    let (mut state, mut taken, mut tried) = (1, 0, 0);
    for round in 0..60 {
        for whole in &models {
            let mut changed = whole.clone();
            for _ in 0..1 + round % 4 {
                let at = random(&mut state) as usize % changed.len();
                match random(&mut state) % 5 {
                    0 => changed[at] ^= 1 << (random(&mut state) % 8),
                    1 => changed[at] = random(&mut state) as u8,
                    2 => changed[at] = [0, 1, 0x7f, 0x80, 0xff][random(&mut state) as usize % 5],
                    3 => {
                        let to = (at + random(&mut state) as usize % 16).min(changed.len());
                        changed.drain(at..to);
                    }
                    _ => {
                        let other = &models[random(&mut state) as usize % models.len()];
                        let from = random(&mut state) as usize % other.len();
                        let to = (from + random(&mut state) as usize % 32).min(other.len());
                        changed.splice(at..at, other[from..to].iter().copied());
                    }
                }
                if changed.is_empty() {
                    changed.push(0);
                }
            }
            taken += usize::from(survive(&changed));
            tried += 1;
        }
    }
    // Changes of weights are taken, of most else they are not: both must occur, or nothing is tried here.
    assert!(taken > tried / 20 && taken < tried * 19 / 20, "{taken} of {tried} were taken");
}
