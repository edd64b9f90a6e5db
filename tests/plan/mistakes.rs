//! Every op used wrongly: the mistake sticks to the tape, and compiling returns it with the op's name, the extents
//! and the caller's place.

use adamant::tape::{Augment, Conv2d, Draw, Pool, Purpose};
use adamant::{DType, Device, Error, Plan, Shape, Store, Tape, Var};
use std::panic::Location;

struct Case<'t> {
    tape: &'t Tape,
}

impl<'t> Case<'t> {
    fn float(&self, shape: &[usize]) -> Var<'t> {
        self.tape.source(&format!("float {shape:?}"), Shape::new(shape), DType::F32)
    }

    fn integer(&self, shape: &[usize]) -> Var<'t> {
        self.tape.source(&format!("integer {shape:?}"), Shape::new(shape), DType::U32)
    }
}

/// Records the mistake, goes on recording, compiles, and looks for `op`, each of `words`, and this call's lines.
#[track_caller]
fn mistake(op: &str, words: &[&str], record: impl for<'t> Fn(&Case<'t>) -> Var<'t>) {
    let caller = Location::caller();
    let tape = Tape::new();
    let wrong = record(&Case { tape: &tape });
    // What follows a mistake may be anything; the first one is reported.
    let more = wrong.matmul(tape.source("other", [7, 9], DType::F32)).flatten().softmax().sum_all();
    tape.assign("out", more + tape.grad(more, &[wrong])[0]);
    let error = match Plan::compile(&tape, &Store::new(&Device::cpu())) {
        Err(error) => error,
        Ok(_) => panic!("{op} at {caller} was accepted"),
    };
    let text = error.to_string();
    let Error::Shape { op: named, location, .. } = error else { panic!("{op}: another error: {text}") };
    assert_eq!(named, op, "{text}");
    assert!(text.contains("mistakes.rs:") && location.file() == caller.file(), "{text}");
    let lines = caller.line()..caller.line() + 8;
    assert!(lines.contains(&location.line()), "{text} is not at line {}", caller.line());
    for word in words {
        assert!(text.contains(word), "`{text}` does not say `{word}`");
    }
}

#[test]
fn elementwise() {
    mistake("add", &["[2x3]", "[4]"], |c| c.float(&[2, 3]) + c.float(&[4]));
    mistake("sub", &["[2x3]", "[2]"], |c| c.float(&[2, 3]) - c.float(&[2]));
    mistake("mul", &["[5]", "[6]"], |c| c.float(&[5]) * c.float(&[6]));
    mistake("div", &["[5]", "[6]"], |c| c.float(&[5]) / c.float(&[6]));
    mistake("max", &["[5]", "[6]"], |c| c.float(&[5]).max(c.float(&[6])));
    mistake("add", &["u32", "floats"], |c| c.float(&[5]) + c.integer(&[5]));
    mistake("relu", &["u32", "floats"], |c| c.integer(&[5]).relu());
    mistake("exp", &["u32", "floats"], |c| c.integer(&[5]).exp());
    mistake("source", &["`float [5]`", "f32 [5]", "[6]"], |c| {
        c.float(&[5]);
        c.tape.source("float [5]", [6], DType::F32)
    });
}

#[test]
fn views() {
    mistake("reshape", &["[2x3]", "6 elements", "[4]"], |c| c.float(&[2, 3]).reshape([4]));
    mistake("transpose", &["[0, 0]", "[2x3]"], |c| c.float(&[2, 3]).transpose(&[0, 0]));
    mistake("transpose", &["[2x3]"], |c| c.float(&[2, 3]).transpose(&[1, 0, 2]));
    mistake("broadcast", &["[2x3]", "[2x4]"], |c| c.float(&[2, 3]).broadcast_to([2, 4]));
    mistake("slice", &["[2x3]", "axis 2"], |c| c.float(&[2, 3]).slice(2, 0, 1));
    mistake("slice", &["[2x3]", "[2x2]", "[0, 2]"], |c| c.float(&[2, 3]).slice(1, 2, 2));
    mistake("slice", &["[2x0]", "empty"], |c| c.float(&[2, 3]).slice(1, 2, 0));
    mistake("pad", &["[2x3]", "[2x4]"], |c| c.float(&[2, 3]).pad(&[0, 2], [2, 4]));
    mistake("concat", &["[2x3]", "[4x3]"], |c| c.float(&[2, 3]).concat(&[c.float(&[4, 3])], 1));
    mistake("concat", &["[2x3]", "axis 2"], |c| c.float(&[2, 3]).concat(&[c.float(&[2, 3])], 2));
    mistake("sum", &["[2x3]"], |c| c.float(&[2, 3]).sum(&[2]));
    mistake("amax", &["[2x3]"], |c| c.float(&[2, 3]).amax(&[0, 3]));
    // A mean is a sum that is divided.
    mistake("sum", &["[2x3]"], |c| c.float(&[2, 3]).mean(&[5]));
}

#[test]
fn products() {
    mistake("matmul", &["[2x3]", "[4x5]", "3 and 4"], |c| c.float(&[2, 3]).matmul(c.float(&[4, 5])));
    mistake("matmul", &["transposed"], |c| c.float(&[2, 3]).matmul_t(true, c.float(&[3, 5]), false));
    mistake("matmul", &["[2x3x1]", "2 axes"], |c| c.float(&[2, 3, 1]).matmul(c.float(&[3, 5])));
    let conv = Conv2d::default();
    mistake("conv2d", &["[1x5x5x3]", "[3x3x2x4]", "HWIO"], |c| {
        c.float(&[1, 5, 5, 3]).conv2d(c.float(&[3, 3, 2, 4]), conv)
    });
    mistake("conv2d", &["[1x5x5x3]", "larger"], |c| {
        c.float(&[1, 5, 5, 3]).conv2d(c.float(&[7, 3, 3, 4]), conv)
    });
    mistake("conv2d", &["zero"], |c| {
        c.float(&[1, 5, 5, 3]).conv2d(c.float(&[3, 3, 3, 4]), Conv2d { stride: [0, 1], ..conv })
    });
    mistake("conv2d", &["2 groups"], |c| {
        c.float(&[1, 5, 5, 4]).conv2d(c.float(&[3, 3, 2, 3]), Conv2d { groups: 2, ..conv })
    });
    mistake("conv2d", &["4 axes"], |c| c.float(&[5, 5, 3]).conv2d(c.float(&[3, 3, 3, 4]), conv));
    mistake("conv2d.input_grad", &["[1x2x3x4]"], |c| {
        let input = Shape::new(&[1, 5, 5, 3]);
        c.float(&[1, 2, 3, 4]).conv2d_input_grad(c.float(&[3, 3, 3, 4]), input, conv)
    });
    mistake("conv2d.weight_grad", &["[1x2x3x4]"], |c| {
        let filter = Shape::new(&[3, 3, 3, 4]);
        c.float(&[1, 5, 5, 3]).conv2d_weight_grad(c.float(&[1, 2, 3, 4]), filter, conv)
    });
}

#[test]
fn pooling() {
    mistake("max_pool.index", &["[1x5x5x3]"], |c| c.float(&[1, 5, 5, 3]).max_pool(Pool::square(6, 1, 0)));
    mistake("max_pool.index", &["half"], |c| c.float(&[1, 5, 5, 3]).max_pool(Pool::square(3, 1, 2)));
    mistake("max_pool.index", &["4 axes"], |c| c.float(&[5, 5, 3]).max_pool(Pool::square(2, 1, 0)));
    mistake("avg_pool", &["[1x5x5x3]"], |c| c.float(&[1, 5, 5, 3]).avg_pool(Pool::square(2, 0, 0)));
    mistake("global_avg_pool", &["[5x3]", "4 axes"], |c| c.float(&[5, 3]).global_avg_pool());
}

#[test]
fn rows() {
    mistake("softmax", &["[]"], |c| c.float(&[]).softmax());
    mistake("log_softmax", &["u32"], |c| c.integer(&[4]).log_softmax());
    mistake("argmax", &["[]"], |c| c.float(&[]).argmax());
    mistake("cross_entropy", &["[4x10]", "[5]"], |c| c.float(&[4, 10]).cross_entropy(c.integer(&[5])));
    mistake("cross_entropy", &["f32", "u32"], |c| c.float(&[4, 10]).cross_entropy(c.float(&[4])));
    mistake("cross_entropy", &["[4x2x5]", "2 axes"], |c| c.float(&[4, 2, 5]).cross_entropy(c.integer(&[4])));
    mistake("mul", &["[4x10]", "[4x9]"], |c| c.float(&[4, 10]).cross_entropy_soft(c.float(&[4, 9])));
    mistake("sub", &["[4x10]", "[4x9]"], |c| c.float(&[4, 10]).kl_divergence(c.float(&[4, 9])));
    mistake("correct", &["[4x10]", "[3]"], |c| c.float(&[4, 10]).correct(c.integer(&[3])));
    mistake("one_hot", &["f32"], |c| c.float(&[4]).one_hot(10));
    mistake("one_hot", &["[4x2]", "1 axes"], |c| c.integer(&[4, 2]).one_hot(10));
    mistake("gather_rows", &["f32"], |c| c.float(&[9, 2]).gather_rows(c.float(&[4])));
    mistake("gather_rows", &["no rows"], |c| c.float(&[]).gather_rows(c.integer(&[4])));
    mistake("random.uniform", &["[3]", "[5x2]"], |c| {
        let (key, counter) = (c.integer(&[2]), c.integer(&[2]));
        let draw = Draw { key, counter, example: c.integer(&[3]) };
        draw.uniform(Purpose::TEST, Shape::new(&[5, 2]))
    });
    let changes = Augment { padding: 5, flip: true, ..Augment::default() };
    mistake("augment", &["5 pixels", "[9x8x5x1]"], |c| {
        let draw = Draw { key: c.integer(&[2]), counter: c.integer(&[2]), example: c.integer(&[3]) };
        c.tape.source("images", [9, 8, 5, 1], DType::U8).augmented(changes, draw)
    });
    mistake("augment", &["f32", "u8"], |c| {
        let draw = Draw { key: c.integer(&[2]), counter: c.integer(&[2]), example: c.integer(&[3]) };
        c.float(&[9, 8, 8, 1]).augmented(changes, draw)
    });
    mistake("random.normal", &["[1]"], |c| {
        let (key, counter) = (c.integer(&[1]), c.integer(&[2]));
        let draw = Draw { key, counter, example: c.integer(&[3]) };
        draw.normal(Purpose::TEST, Shape::new(&[3]))
    });
}

#[test]
fn a_mistake_inside_a_layer_names_the_layer() {
    let tape = Tape::new();
    tape.scope("layer1", || {
        tape.scope("conv2", || tape.source("a", [2], DType::F32) + tape.source("b", [3], DType::F32))
    });
    let text = tape.check().unwrap_err().to_string();
    assert!(text.contains("layer1.conv2"), "{text}");
}
