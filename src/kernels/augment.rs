//! Host side of shaders/gather_augmented.wgsl: images of a table, changed at random.

use super::map::{WORKGROUP, per_invocation};
use super::{Call, Calls, Shader, Target, params};
use crate::error::{Error, Result};
use crate::launch::{Kernel, Launch};

/// shaders/gather_augmented.wgsl.
pub(super) static SHADER: Shader = Shader {
    path: "gather_augmented.wgsl",
    text: include_str!("../../shaders/gather_augmented.wgsl"),
    fields: Params::FIELDS,
};

params! {
    /// Rows of an image.
    h: u32,
    /// Columns of an image.
    w: u32,
    /// Channels.
    c: u32,
    /// Images of the table.
    table: u32,
    /// Elements of the result.
    len: u32,
    /// Pixels around the image.
    padding: u32,
    /// 1: pad with the mirrored image.
    reflect_edges: u32,
    /// 1: one image in two is mirrored.
    flip: u32,
    /// Side of the hole.
    cutout: u32,
    /// Most that brightness changes by, in parts of 2^14.
    brightness: u32,
    /// Most that contrast changes by, in parts of 2^14.
    contrast: u32,
}

/// The call of a [`Kernel::Augment`].
///
/// # Errors
/// [`Error::Unsupported`] for an empty table, one of 2^32 bytes and more, or sides or padding of 2^15
/// pixels and more.
pub(super) fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    let Kernel::Augment { table, image: [h, w, c], augment, .. } = launch.kernel else {
        unreachable!("{} augments no images", launch.kernel.name())
    };
    if table == 0
        || table.saturating_mul(h * w * c) >= 1 << 32
        || augment.padding >= 1 << 15
        || h.max(w) >= 1 << 15
    {
        let what = format!("{table} images of {h}x{w}x{c}, padded by {}", augment.padding);
        return Err(Error::Unsupported(format!("{what}, are not augmented")));
    }
    let len = launch.shape.len();
    let params = Params {
        h: h as u32,
        w: w as u32,
        c: c as u32,
        table: table as u32,
        len: len as u32,
        padding: augment.padding as u32,
        reflect_edges: augment.reflect.into(),
        flip: augment.flip.into(),
        cutout: augment.cutout as u32,
        brightness: augment.brightness,
        contrast: augment.contrast,
    };
    let per = per_invocation(len, target);
    let grid = target.grid(len.div_ceil(WORKGROUP * per));
    Ok(Call::new(&SHADER, "forward", &params, launch, grid).constant("PER", per as u32).into())
}
