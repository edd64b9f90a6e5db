// Philox4x32-10 and what is made of its words.

// High and low word of a * b, by halves: WGSL has no 64-bit product.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    // No sum here exceeds 32 bits: (2^16 - 1)^2 + 2 (2^16 - 1) < 2^32.
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return vec2<u32>(a1 * b1 + (middle >> 16u) + (other >> 16u), a * b);
}

fn philox(seed: vec2<u32>, start: vec4<u32>) -> vec4<u32> {
    var key = seed;
    var v = start;
    for (var round = 0u; round < 10u; round++) {
        let a = wide_product(0xD2511F53u, v.x);
        let b = wide_product(0xCD9E8D57u, v.z);
        v = vec4<u32>(b.x ^ v.y ^ key.x, b.y, a.x ^ v.w ^ key.y, a.y);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return v;
}

// Uniform in [0, 1), exact.
fn to_uniform(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(words >> vec4<u32>(8u)) * 5.9604644775390625e-8f;
}

// log x for x in (0, 1], to about 1 ulp: WGSL's own may be off by 2^-21 near 1. Polynomial of Cephes' logf on the
// significand in [sqrt 1/2, sqrt 2), after Moshier.
fn precise_log(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    var e = f32(bits >> 23u) - 126f;
    var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f000000u);
    if m < 0.70710678f {
        e -= 1f;
        m = m + m;
    }
    m -= 1f;
    let z = m * m;
    var y = fma(7.0376836292e-2f, m, -1.1514610310e-1f);
    y = fma(y, m, 1.1676998740e-1f);
    y = fma(y, m, -1.2420140846e-1f);
    y = fma(y, m, 1.4249322787e-1f);
    y = fma(y, m, -1.6668057665e-1f);
    y = fma(y, m, 2.0000714765e-1f);
    y = fma(y, m, -2.4999993993e-1f);
    y = fma(y, m, 3.3333331174e-1f);
    y = y * m * z;
    y = fma(-2.12194440e-4f, e, y);
    y = fma(-0.5f, z, y);
    return fma(0.693359375f, e, m + y);
}

// Two standard normal numbers of two uniform ones: sqrt(-2 log(1 - u)) times cosine and sine of 2 pi v. The angle is
// taken apart into quarter turns, exactly, and the rest by Taylor polynomials to 1 ulp: WGSL's own sine and cosine may
// be off by 2^-11.
fn box_muller(u: vec2<f32>) -> vec2<f32> {
    let radius = sqrt(-2f * precise_log(1f - u.x));
    let quarter = floor(u.y * 4f + 0.5f);
    let t = (u.y - quarter * 0.25f) * 6.2831855f;
    let s = t * t;
    let sine = t + t * s * (-0.16666667f + s * (8.3333333e-3f + s * (-1.9841270e-4f + s * 2.7557319e-6f)));
    let cosine = 1f + s * (-0.5f + s * (4.1666667e-2f + s * (-1.3888889e-3f + s * 2.4801587e-5f)));
    switch u32(quarter) & 3u {
        case 1u: {
            return radius * vec2<f32>(-sine, cosine);
        }
        case 2u: {
            return radius * vec2<f32>(-cosine, -sine);
        }
        case 3u: {
            return radius * vec2<f32>(sine, -cosine);
        }
        default: {
            return radius * vec2<f32>(cosine, sine);
        }
    }
}
