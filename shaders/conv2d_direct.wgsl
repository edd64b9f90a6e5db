// Convolution of many small groups, depthwise included, and the fold that ends an input gradient of few channels.
//
//   forward      y[n,p,q,k]  = finish(sum over (r, s, c) of x[n, p stride - padding + r dilation, ..., g CG + c]
//                              w[r,s,c,k]), g = k / KG
//   input_grad   dx[n,h,w,c] = finish(sum over (r, s, k in group) of dy[n, (h + padding - r dilation) / stride, ..., k]
//                              w[r,s,c mod CG,k]), where that divides
//   weight_grad  dw[r,s,c,k] = finish(sum over (n, p, q) of x dy), or that of a share of the (n, p, q)
//   fold         dx[n,h,w,c] = finish(sum over (r, s) of t[n, (h + padding - r dilation) / stride, ..., r, s, c])
//
// Bindings: a is x, dy, x, t; b is w, w, dy; out. t [N,P,Q,R,S,C] is the matrix product of dy [N P Q, K] and w
// [R S C, K] transposed (col2im, Chellapilla et al. 2006).
//
// Tiling: an invocation an element of the result, channels innermost, so that neighbours read neighbours. A product
// tile would be wasted here: its columns are the channels of a group (see src/kernels/conv2d.rs for where the line is).

const WORKGROUP = 64u;

alias In1 = f32;
alias In2 = f32;
@group(0) @binding(1) var<storage, read> a: array<In1>;
@group(0) @binding(2) var<storage, read> b: array<In2>;
alias Out = f32;
@group(0) @binding(7) var<storage, read_write> out: array<Out>;

// #include common/finish.wgsl
// #include common/index.wgsl
// #include common/conv2d_params.wgsl

@compute @workgroup_size(WORKGROUP)
fn forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.n * params.p * params.q * params.k {
        return;
    }
    let k = i % params.k;
    let pixel = i / params.k;
    let line = pixel / params.q;
    let first = (k / params.kg) * params.cg;
    var sum = 0f;
    for (var r = 0u; r < params.r; r++) {
        // Above the image the unsigned difference is huge.
        let y = (line % params.p) * params.stride_h + r * params.dilation_h - params.padding_h;
        for (var s = 0u; s < params.s; s++) {
            let x = (pixel % params.q) * params.stride_w + s * params.dilation_w - params.padding_w;
            if y < params.h && x < params.w {
                let at = (((line / params.p) * params.h + y) * params.w + x) * params.c + first;
                let tap = (r * params.s + s) * params.cg;
                for (var c = 0u; c < params.cg; c++) {
                    sum = fma(f32(a[at + c]), f32(b[(tap + c) * params.k + k]), sum);
                }
            }
        }
    }
    out[i] = Out(finish(sum, i));
}

// Where an input row or column meets tap t of an output: that output, or one behind the last.
fn met(position: u32, t: u32, padding: u32, dilation: u32, stride: u32) -> u32 {
    let at = position + padding - t * dilation;
    return select(0xffffffffu, at / stride, position + padding >= t * dilation && at % stride == 0u);
}

// Row and column of the first tap that divides at (h, w); the next ones are (step_h, step_w) apart.
fn first_taps(h: u32, w: u32) -> vec2<u32> {
    return vec2<u32>(
        first_tap(h % params.stride_h, params.padding_h, params.stride_h, params.dilation_h, params.r),
        first_tap(w % params.stride_w, params.padding_w, params.stride_w, params.dilation_w, params.s),
    );
}

@compute @workgroup_size(WORKGROUP)
fn input_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.n * params.h * params.w * params.c {
        return;
    }
    let c = i % params.c;
    let pixel = i / params.c;
    let line = pixel / params.w;
    let first = (c / params.cg) * params.kg;
    let tap = first_taps(line % params.h, pixel % params.w);
    var sum = 0f;
    for (var r = tap.x; r < params.r; r += params.step_h) {
        // Above the image the unsigned difference is huge.
        let p = (line % params.h + params.padding_h - r * params.dilation_h) / params.stride_h;
        for (var s = tap.y; s < params.s; s += params.step_w) {
            let q = (pixel % params.w + params.padding_w - s * params.dilation_w) / params.stride_w;
            if p < params.p && q < params.q {
                let at = (((line / params.h) * params.p + p) * params.q + q) * params.k + first;
                let weight = ((r * params.s + s) * params.cg + c % params.cg) * params.k + first;
                for (var k = 0u; k < params.kg; k++) {
                    sum = fma(f32(a[at + k]), f32(b[weight + k]), sum);
                }
            }
        }
    }
    out[i] = Out(finish(sum, i));
}

@compute @workgroup_size(WORKGROUP)
fn weight_grad(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.r * params.s * params.cg * params.k {
        return;
    }
    let k = i % params.k;
    let tap = i / (params.k * params.cg);
    let c = (k / params.kg) * params.cg + (i / params.k) % params.cg;
    let begin = group.z * params.chunk;
    let end = min(begin + params.chunk, params.n * params.p * params.q);
    var sum = 0f;
    for (var pixel = begin; pixel < end; pixel++) {
        let line = pixel / params.q;
        let y = (line % params.p) * params.stride_h + (tap / params.s) * params.dilation_h - params.padding_h;
        let x = (pixel % params.q) * params.stride_w + (tap % params.s) * params.dilation_w - params.padding_w;
        if y < params.h && x < params.w {
            let at = (((line / params.p) * params.h + y) * params.w + x) * params.c + c;
            sum = fma(f32(a[at]), f32(b[pixel * params.k + k]), sum);
        }
    }
    let result = group.z * params.partial + i;
    out[result] = Out(finish(sum, result));
}

@compute @workgroup_size(WORKGROUP)
fn fold(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = flat(group, groups) * WORKGROUP + lane;
    if i >= params.n * params.h * params.w * params.c {
        return;
    }
    let pixel = i / params.c;
    let line = pixel / params.w;
    let tap = first_taps(line % params.h, pixel % params.w);
    var sum = 0f;
    for (var r = tap.x; r < params.r; r += params.step_h) {
        // Above the image the unsigned difference is huge.
        let p = (line % params.h + params.padding_h - r * params.dilation_h) / params.stride_h;
        for (var s = tap.y; s < params.s; s += params.step_w) {
            let q = (pixel % params.w + params.padding_w - s * params.dilation_w) / params.stride_w;
            if p < params.p && q < params.q {
                let at = ((line / params.h) * params.p + p) * params.q + q;
                sum += f32(a[((at * params.r + r) * params.s + s) * params.c + i % params.c]);
            }
        }
    }
    out[i] = Out(finish(sum, i));
}
