// Bytes as floats in [0, 1].

// b / 255 rounded to nearest, for b < 256, by integers, because a WGSL division may be off by 2.5 ulp. The binary
// digits of b / 255 are b's eight over and over: rotated until the first is a 1, the first 24 are the significand, and
// as the next is that same 1, it always rounds up.
fn share(b: u32) -> f32 {
    if b == 0u {
        return 0f;
    }
    let digits = b * 0x01010101u;
    let shift = countLeadingZeros(digits);
    let rotated = (digits << shift) | (digits >> ((32u - shift) & 31u));
    return bitcast<f32>(((126u - shift) << 23u) + (rotated >> 8u) + 1u - 0x800000u);
}
