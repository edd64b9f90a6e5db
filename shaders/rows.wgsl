// Kernels over the rows of a matrix, mostly logits. m and s are the maximum of a row and the sum of e^(x - m).
//
//   softmax        out[r, c] = finish(e^(x - m) / s), or with LOG its logarithm x - m - log s
//   forward        cross-entropy: out[r] = finish(log s - (x[r, label] - m))
//   input_grad     out[r, c] = finish(e^(x - m) / s - (c == label)), with UNIT each row times the power of two that brings
//                  its largest magnitude into [1/2, 1)
//   input_grad_loss, input_grad_correct, input_grad_loss_correct
//                  as input_grad, and of the same pass losses[r] as forward, right[r] as correct; without stages
//   correct        out[r] = finish(1 where the first largest of the row stands at label, else 0)
//   argmax         index[r] = where the first largest of the row stands; a NaN never wins against a number
//   one_hot        out[r, c] = finish(c == label)
//
// Bindings: x [rows, columns], labels [rows], out [rows, columns] or [rows], index, losses, right [rows]. A label past the last class
// counts as the last class in the loss and its gradient, is never correct, and has a row of zeros as one-hot.
// Tiling: WIDTH lanes of a workgroup share a row (a power of two, 1 for short rows and on software adapters, where
// no barrier is left then), so a workgroup has WORKGROUP / WIDTH rows.

const WORKGROUP = 64u;
const WIDTH = 1u;
const PER = 1u;
// 1 for the logarithm of softmax.
const LOG = 0u;
// 1 for rows of unit magnitude.
const UNIT = 0u;
// No index.
const NONE = 0xffffffffu;

struct Params {
    rows: u32,
    columns: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
alias In1 = f32;
@group(0) @binding(1) var<storage, read> x: array<In1>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
// The labels where they are the only input.
@group(0) @binding(1) var<storage, read> only_labels: array<u32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;
@group(0) @binding(6) var<storage, read_write> right: array<f32>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;
@group(0) @binding(7) var<storage, read_write> index: array<u32>;

var<workgroup> sh_value: array<f32, WORKGROUP>;
var<workgroup> sh_index: array<u32, WORKGROUP>;

// #include common/index.wgsl
// #include common/element.wgsl
// #include common/nan.wgsl
// #include common/finish.wgsl

// The largest v of the lanes that share a row.
fn widest(v: f32, lane: u32) -> f32 {
    if WIDTH == 1u {
        return v;
    }
    sh_value[lane] = v;
    workgroupBarrier();
    for (var width = WIDTH / 2u; width > 0u; width /= 2u) {
        if lane % WIDTH < width {
            sh_value[lane] = max(sh_value[lane], sh_value[lane + width]);
        }
        workgroupBarrier();
    }
    let result = sh_value[lane - lane % WIDTH];
    workgroupBarrier();
    return result;
}

// The sum of v over the lanes that share a row.
fn total(v: f32, lane: u32) -> f32 {
    if WIDTH == 1u {
        return v;
    }
    sh_value[lane] = v;
    workgroupBarrier();
    for (var width = WIDTH / 2u; width > 0u; width /= 2u) {
        if lane % WIDTH < width {
            sh_value[lane] += sh_value[lane + width];
        }
        workgroupBarrier();
    }
    let result = sh_value[lane - lane % WIDTH];
    workgroupBarrier();
    return result;
}

// Where a lane works: `row` is one that exists even where `inside` is false, so that every lane reaches every
// barrier; the lane's columns are first, first + WIDTH, ...
struct Lane {
    row: u32,
    first: u32,
    base: u32,
    inside: bool,
}

fn place(group: vec3<u32>, groups: vec3<u32>, lane: u32) -> Lane {
    let row = flat(group, groups) * (WORKGROUP / WIDTH) + lane / WIDTH;
    let safe = min(row, params.rows - 1u);
    return Lane(safe, lane % WIDTH, safe * params.columns, row < params.rows);
}

// m of a lane's row.
fn row_max(at: Lane, lane: u32) -> f32 {
    // A lane without columns of its own repeats the first.
    var m = f32(x[at.base + select(0u, at.first, at.first < params.columns)]);
    for (var c = at.first + WIDTH; c < params.columns; c += WIDTH) {
        m = max(m, f32(x[at.base + c]));
    }
    return widest(m, lane);
}

// s of a lane's row.
fn row_sum(at: Lane, m: f32, lane: u32) -> f32 {
    var s = 0f;
    for (var c = at.first; c < params.columns; c += WIDTH) {
        s += exp(f32(x[at.base + c]) - m);
    }
    return total(s, lane);
}

@compute @workgroup_size(WORKGROUP)
fn softmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    let s = row_sum(at, m, lane);
    if at.inside {
        let log_s = log(s);
        for (var c = at.first; c < params.columns; c += WIDTH) {
            let i = at.base + c;
            if LOG == 1u {
                out[i] = Out(finish(f32(x[i]) - m - log_s, i));
            } else {
                out[i] = Out(finish(exp(f32(x[i]) - m) / s, i));
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    let s = row_sum(at, m, lane);
    if at.inside && at.first == 0u {
        out[at.row] = Out(finish(loss(at, m, s), at.row));
    }
}

// -log softmax at the label of a row.
fn loss(at: Lane, m: f32, s: f32) -> f32 {
    let label = min(labels[at.row], params.columns - 1u);
    return log(s) - (f32(x[at.base + label]) - m);
}

@compute @workgroup_size(WORKGROUP)
fn input_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    write_gradient(at, m, row_sum(at, m, lane), lane);
}

@compute @workgroup_size(WORKGROUP)
fn input_grad_loss(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    let s = row_sum(at, m, lane);
    write_gradient(at, m, s, lane);
    write_loss(at, m, s);
}

@compute @workgroup_size(WORKGROUP)
fn input_grad_correct(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    write_gradient(at, m, row_sum(at, m, lane), lane);
    write_right(at, lane);
}

@compute @workgroup_size(WORKGROUP)
fn input_grad_loss_correct(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let m = row_max(at, lane);
    let s = row_sum(at, m, lane);
    write_gradient(at, m, s, lane);
    write_loss(at, m, s);
    write_right(at, lane);
}

fn write_loss(at: Lane, m: f32, s: f32) {
    if at.inside && at.first == 0u {
        losses[at.row] = loss(at, m, s);
    }
}

fn write_right(at: Lane, lane: u32) {
    let best = first_largest(at, lane);
    if at.inside && at.first == 0u {
        right[at.row] = select(0f, 1f, best == labels[at.row]);
    }
}

fn write_gradient(at: Lane, m: f32, s: f32, lane: u32) {
    let label = min(labels[at.row], params.columns - 1u);
    var scale = 1f;
    var others = 0f;
    if UNIT == 1u {
        // Of a sure network p - 1 is rounded away where what the others add up to is still there. As that sum it is
        // the row's largest.
        for (var c = at.first; c < params.columns; c += WIDTH) {
            if c != label {
                others += slope(at.base + c, m, s, false);
            }
        }
        others = total(others, lane);
        // 2^(126 - b) for a float whose exponent bits are b.
        let bits = bitcast<u32>(others) >> 23u;
        scale = bitcast<f32>((253u - min(bits, 252u)) << 23u);
    }
    if at.inside {
        for (var c = at.first; c < params.columns; c += WIDTH) {
            let i = at.base + c;
            var v = slope(i, m, s, c == label);
            if UNIT == 1u && c == label {
                v = -others;
            }
            out[i] = Out(finish(v * scale, i));
        }
    }
}

// softmax - onehot at element i.
fn slope(i: u32, m: f32, s: f32, hot: bool) -> f32 {
    return exp(f32(x[i]) - m) / s - select(0f, 1f, hot);
}

// Whether value v at column c beats the best so far.
fn beats(v: f32, c: u32, best: f32, best_c: u32) -> bool {
    if c == NONE {
        return false;
    }
    return best_c == NONE || v > best || (v == best && c < best_c) || (is_nan(best) && !is_nan(v));
}

// Where the first largest of a lane's row stands.
fn first_largest(at: Lane, lane: u32) -> u32 {
    var best = 0f;
    var best_c = NONE;
    for (var c = at.first; c < params.columns; c += WIDTH) {
        let v = f32(x[at.base + c]);
        if beats(v, c, best, best_c) {
            best = v;
            best_c = c;
        }
    }
    if WIDTH == 1u {
        return best_c;
    }
    sh_value[lane] = best;
    sh_index[lane] = best_c;
    workgroupBarrier();
    for (var width = WIDTH / 2u; width > 0u; width /= 2u) {
        if lane % WIDTH < width {
            let other = lane + width;
            if beats(sh_value[other], sh_index[other], sh_value[lane], sh_index[lane]) {
                sh_value[lane] = sh_value[other];
                sh_index[lane] = sh_index[other];
            }
        }
        workgroupBarrier();
    }
    return sh_index[lane - lane % WIDTH];
}

@compute @workgroup_size(WORKGROUP)
fn correct(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let best = first_largest(at, lane);
    if at.inside && at.first == 0u {
        out[at.row] = Out(finish(select(0f, 1f, best == labels[at.row]), at.row));
    }
}

@compute @workgroup_size(WORKGROUP)
fn argmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = place(group, groups, lane);
    let best = first_largest(at, lane);
    if at.inside && at.first == 0u {
        index[at.row] = best;
    }
}

@compute @workgroup_size(WORKGROUP)
fn one_hot(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = flat(group, groups);
    for (var j = 0u; j < PER; j++) {
        let i = element(tile, lane, j);
        if i < params.rows * params.columns {
            let hot = only_labels[i / params.columns] == i % params.columns;
            out[i] = Out(finish(select(0f, 1f, hot), i));
        }
    }
}
