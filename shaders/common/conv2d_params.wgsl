// Extents of a convolution x [N,H,W,C] * w [R,S,C/G,K] -> y [N,P,Q,K] with G groups, of CG = C / G and KG = K / G
// channels each.
struct Params {
    n: u32,
    h: u32,
    w: u32,
    c: u32,
    r: u32,
    s: u32,
    p: u32,
    q: u32,
    k: u32,
    cg: u32,
    kg: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    dilation_h: u32,
    dilation_w: u32,
    // Distance between taps that divide in the same phase: stride / gcd(stride, dilation).
    step_h: u32,
    step_w: u32,
    // Depth a workgroup sums, how many share the depth, and how far apart their results are (the elements of the
    // result, or 0 where there is one share).
    chunk: u32,
    shares: u32,
    partial: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// The first tap that divides in a phase, or the number of taps.
fn first_tap(phase: u32, padding: u32, stride: u32, dilation: u32, taps: u32) -> u32 {
    for (var t = 0u; t < min(stride, taps); t++) {
        // phase + padding - t dilation, without going negative.
        if (phase + padding + t * dilation * (stride - 1u)) % stride == 0u {
            return t;
        }
    }
    return taps;
}

