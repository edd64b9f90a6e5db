//! A data set on a device: images as bytes, vectors of features as f32 with what an attacker may do to them.

use crate::attack::Inputs;
use crate::data::{Change, Dataset, Examples};
use crate::error::Result;
use crate::tensor::{Host, Store};

/// What the examples of `data` are on a device.
pub fn inputs(data: &Dataset) -> Inputs {
    match &data.examples {
        Examples::Images(_) => Inputs::Images,
        Examples::Features(_, limits) => Inputs::Features { magnitude: limits.magnitude() },
    }
}

/// Puts `data` into the store: `{name}.images` u8 `[N,H,W,C]` or f32 `[N,1,1,F]`, and `{name}.labels` u32 `[N]`; for
/// vectors of features also `{name}.least`, `.most`, `.down` and `.up`, f32 `[1,1,1,F]`, see
/// [`crate::attack::Limits`].
///
/// # Errors
/// Of the device.
pub fn put(store: &Store, name: &str, data: &Dataset) -> Result<()> {
    let [h, w, c] = data.image;
    let tensor = |what: &str| format!("{name}.{what}");
    match &data.examples {
        Examples::Images(pixels) => {
            store.put(&tensor("images"), [data.len(), h, w, c], &Host::U8(pixels.clone()))?;
        }
        Examples::Features(values, limits) => {
            store.put(&tensor("images"), [data.len(), h, w, c], &Host::F32(values.clone()))?;
            let flags = |may: fn(Change) -> bool| {
                limits.changes.iter().map(|change| f32::from(u8::from(may(*change)))).collect()
            };
            for (what, values) in [
                ("least", limits.least.clone()),
                ("most", limits.most.clone()),
                ("down", flags(Change::may_shrink)),
                ("up", flags(Change::may_grow)),
            ] {
                store.put(&tensor(what), [1, h, w, c], &Host::F32(values))?;
            }
        }
    }
    store.put(&tensor("labels"), [data.len()], &Host::U32(data.labels.clone()))
}

/// Puts the numbers 0, 1, 2, ... of the rows and columns of its images beside a data set: `{name}.rows` f32 `[1,H,1,1]` and
/// `{name}.columns` f32 `[1,1,W,1]`. Boxes are cut by them.
///
/// # Errors
/// Of the device.
pub fn put_places(store: &Store, name: &str, data: &Dataset) -> Result<()> {
    let [h, w, _] = data.image;
    let places = |extent: usize| Host::F32((0..extent).map(|place| place as f32).collect());
    store.put(&format!("{name}.rows"), [1, h, 1, 1], &places(h))?;
    store.put(&format!("{name}.columns"), [1, 1, w, 1], &places(w))
}
