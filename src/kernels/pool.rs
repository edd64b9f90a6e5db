//! Host side of shaders/pool.wgsl: maximum and average pooling and their transposes.

use super::map::{WORKGROUP, per_invocation};
use super::{Call, Calls, Shader, Target, params};
use crate::error::Result;
use crate::launch::{Kernel, Launch};

/// shaders/pool.wgsl.
pub(super) static SHADER: Shader =
    Shader { path: "pool.wgsl", text: include_str!("../../shaders/pool.wgsl"), fields: Params::FIELDS };

params! {
    /// Rows of the image.
    h: u32,
    /// Columns of the image.
    w: u32,
    /// Channels.
    c: u32,
    /// Rows of windows.
    p: u32,
    /// Columns of windows.
    q: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    padding_h: u32,
    padding_w: u32,
    /// Elements of the result; of max_index words.
    len: u32,
    /// Elements of the pooled tensor.
    pooled: u32,
    /// One over the elements of a window.
    scale: f32,
}

/// The call of a pooling kernel.
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let (entry, s) = match &launch.kernel {
        Kernel::MaxPoolIndex(s) => ("max_index", s),
        Kernel::PoolGather(s) => ("gather", s),
        Kernel::PoolScatter(s) => ("scatter", s),
        Kernel::AvgPool(s) => ("average", s),
        Kernel::AvgPoolGrad(s) => ("average_grad", s),
        other => unreachable!("{} is not a pooling", other.name()),
    };
    let (len, window) = (launch.shape.len(), &s.window);
    let params = Params {
        h: s.h as u32,
        w: s.w as u32,
        c: s.c as u32,
        p: s.p as u32,
        q: s.q as u32,
        kernel_h: window.kernel[0] as u32,
        kernel_w: window.kernel[1] as u32,
        stride_h: window.stride[0] as u32,
        stride_w: window.stride[1] as u32,
        padding_h: window.padding[0] as u32,
        padding_w: window.padding[1] as u32,
        len: len as u32,
        pooled: (s.n * s.p * s.q * s.c) as u32,
        scale: 1.0 / (window.kernel[0] * window.kernel[1]) as f32,
    };
    let per = per_invocation(len, target);
    let grid = target.grid(len.div_ceil(WORKGROUP * per));
    let call = Call::new(&SHADER, entry, &params, launch, grid).constant("PER", per as u32);
    Ok(call.constant("BITS", s.position_bits() as u32).into())
}
