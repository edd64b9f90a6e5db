//! Tensors on their way in and out: safetensors files in PyTorch's layout.

use adamant::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor in PyTorch's layout.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<f32>,
}

impl Tensor {
    /// The tensor with axes permuted: axis `i` of the result is axis `order[i]`.
    pub fn permuted(&self, order: &[usize]) -> Tensor {
        let stride = |axis: usize| self.shape[axis + 1..].iter().product::<usize>();
        let mut indices = vec![0];
        for &axis in order {
            let steps = |base: usize| (0..self.shape[axis]).map(move |k| base + k * stride(axis));
            indices = indices.into_iter().flat_map(steps).collect();
        }
        Tensor {
            shape: order.iter().map(|&axis| self.shape[axis]).collect(),
            values: indices.into_iter().map(|i| self.values[i]).collect(),
        }
    }

    /// NCHW as NHWC.
    pub fn to_nhwc(&self) -> Tensor {
        self.permuted(&[0, 2, 3, 1])
    }

    /// NHWC as NCHW.
    pub fn to_nchw(&self) -> Tensor {
        self.permuted(&[0, 3, 1, 2])
    }
}

/// Named tensors, in order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

fn refuse(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::argument("file", path.display(), why.to_string())
}

/// Reads a file of f32 tensors.
pub fn read(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).map_err(|e| refuse(path, e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| refuse(path, e))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(refuse(path, format!("`{name}` is {:?}, not F32", view.dtype())));
        }
        let values = bytemuck::pod_collect_to_vec(view.data());
        tensors.insert(name.to_string(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// Writes a file of f32 tensors.
pub fn write(path: &Path, tensors: &Tensors) -> Result<()> {
    let view = |tensor| {
        let Tensor { shape, values }: &Tensor = tensor;
        TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))
    };
    let views = tensors.iter().map(|(name, tensor)| Ok((name, view(tensor)?)));
    let views = views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let bytes = views.and_then(|views| safetensors::serialize(views, None)).map_err(|e| refuse(path, e))?;
    std::fs::write(path, bytes).map_err(|e| refuse(path, e))
}
