//! A node while it is translated: its attributes, by name and kind.

use super::Why;
use super::constant::{Constant, span};
use super::proto::{Attribute, Node, Tensor, kinds};
use std::cell::RefCell;
use std::sync::Arc;

/// A node, and which of its attributes were asked for: those that nobody asked for are an error in the end, so that
/// nothing a file says is passed over.
pub(super) struct Call<'a> {
    pub node: &'a Node,
    /// Version of ONNX's operators.
    pub opset: i64,
    asked: RefCell<Vec<&'static str>>,
}

/// First index, count and step along an axis.
pub(super) type Span = (usize, usize, usize);

/// An axis counted from the front, of so many.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, Why> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| format!("has axis {axis}, but its input has {rank} axes"))
}

impl<'a> Call<'a> {
    pub fn new(node: &'a Node, opset: i64) -> Call<'a> {
        Call { node, opset, asked: RefCell::default() }
    }

    /// Its operator.
    pub fn op(&self) -> &'a str {
        &self.node.op_type
    }

    /// That it has the attributes asked for, and no others.
    pub fn done(&self) -> Result<(), Why> {
        let asked = self.asked.borrow();
        match self.node.attribute.iter().find(|have| !asked.contains(&have.name.as_str())) {
            None => Ok(()),
            Some(other) => {
                let known = if asked.is_empty() { "none".into() } else { asked.join(", ") };
                Err(format!("has attribute `{}`, which is not supported here: known are {known}", other.name))
            }
        }
    }

    /// Attributes that change nothing here.
    pub fn ignore(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    fn attribute(&self, name: &'static str, kind: i32) -> Result<Option<&'a Attribute>, Why> {
        self.asked.borrow_mut().push(name);
        let mut found = self.node.attribute.iter().filter(|have| have.name == name);
        let (first, second) = (found.next(), found.next());
        if second.is_some() {
            return Err(format!("has attribute `{name}` twice"));
        }
        match first {
            // Early files do not say the kind.
            Some(have) if have.kind != kind && have.kind != 0 => {
                Err(format!("has attribute `{name}` of kind {} instead of {kind}", have.kind))
            }
            other => Ok(other),
        }
    }

    pub fn some_int(&self, name: &'static str) -> Result<Option<i64>, Why> {
        Ok(self.attribute(name, kinds::INT)?.map(|have| have.i.unwrap_or(0)))
    }

    pub fn int(&self, name: &'static str, default: i64) -> Result<i64, Why> {
        Ok(self.some_int(name)?.unwrap_or(default))
    }

    pub fn some_float(&self, name: &'static str) -> Result<Option<f32>, Why> {
        Ok(self.attribute(name, kinds::FLOAT)?.map(|have| have.f.unwrap_or(0.0)))
    }

    /// A finite float.
    pub fn float(&self, name: &'static str, default: f32) -> Result<f64, Why> {
        let value = self.some_float(name)?.unwrap_or(default);
        if value.is_finite() { Ok(value.into()) } else { Err(format!("has {name} = {value}")) }
    }

    pub fn some_floats(&self, name: &'static str) -> Result<Option<&'a [f32]>, Why> {
        Ok(self.attribute(name, kinds::FLOATS)?.map(|have| have.floats.as_slice()))
    }

    pub fn some_ints(&self, name: &'static str) -> Result<Option<&'a [i64]>, Why> {
        Ok(self.attribute(name, kinds::INTS)?.map(|have| have.ints.as_slice()))
    }

    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a Tensor>, Why> {
        Ok(self.attribute(name, kinds::TENSOR)?.and_then(|have| have.t.as_ref()))
    }

    /// A string attribute, or what it is where it is not given.
    pub fn text(&self, name: &'static str, default: &'a str) -> Result<&'a str, Why> {
        match self.attribute(name, kinds::STRING)?.and_then(|have| have.s.as_ref()) {
            None => Ok(default),
            Some(bytes) => std::str::from_utf8(bytes).map_err(|_| format!("has a {name} that is no text")),
        }
    }

    /// So many extents, each from `least` on; the default is the same everywhere.
    pub fn extents<const N: usize>(
        &self,
        name: &'static str,
        least: usize,
        default: usize,
    ) -> Result<[usize; N], Why> {
        let Some(values) = self.some_ints(name)? else { return Ok([default; N]) };
        let known: Option<Vec<usize>> = values
            .iter()
            .map(|&value| usize::try_from(value).ok().filter(|value| (least..=MAX_EXTENT).contains(value)))
            .collect();
        known.and_then(|known| known.try_into().ok()).ok_or_else(|| {
            let shown = &values[..values.len().min(8)];
            format!("has {name} = {shown:?}, but {N} numbers from {least} to {MAX_EXTENT} are supported")
        })
    }

    /// Distinct axes of so many, from an attribute (before opset 13, and 18 for most reductions) or an input; `None`
    /// where neither is given.
    pub fn axes(&self, input: Option<&Arc<Constant>>, rank: usize) -> Result<Option<Vec<usize>>, Why> {
        let given = match (self.some_ints("axes")?, input) {
            (Some(axes), None) => axes,
            (None, Some(axes)) => axes.as_ints()?,
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err("has axes both as attribute and as input".into()),
        };
        let mut axes = Vec::new();
        for &axis in given {
            let axis = axis_of(axis, rank)?;
            if axes.contains(&axis) {
                return Err(format!("names axis {axis} twice"));
            }
            axes.push(axis);
        }
        Ok(Some(axes))
    }

    /// Extents with axes of extent 1 put in, as `Unsqueeze` says where.
    pub fn unsqueezed(&self, input: Option<&Arc<Constant>>, dims: &[usize]) -> Result<Vec<usize>, Why> {
        let count = match (self.some_ints("axes")?, input) {
            (Some(axes), _) => axes.len(),
            (None, Some(axes)) => axes.as_ints()?.len(),
            (None, None) => return Err("lacks axes".into()),
        };
        let rank = dims.len() + count.min(MAX_EXTENT);
        let axes = self.axes(input, rank)?.unwrap_or_default();
        let mut old = dims.iter();
        Ok((0..rank).map(|axis| if axes.contains(&axis) { 1 } else { *old.next().unwrap_or(&1) }).collect())
    }

    /// The permutation of `Transpose`; without one, axes are reversed.
    pub fn permutation(&self, rank: usize) -> Result<Vec<usize>, Why> {
        let Some(perm) = self.some_ints("perm")? else { return Ok((0..rank).rev().collect()) };
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank as i64) {
            return Err(format!(
                "has perm = {:?}, which does not permute {rank} axes",
                &perm[..perm.len().min(8)]
            ));
        }
        Ok(perm.iter().map(|&axis| axis as usize).collect())
    }

    /// What `Slice` takes of each axis: by attributes before opset 10, else by the inputs starts, ends, axes and steps.
    pub fn spans(&self, inputs: &[Option<&Arc<Constant>>; 4], dims: &[usize]) -> Result<Vec<Span>, Why> {
        let attributes = [self.some_ints("starts")?, self.some_ints("ends")?, self.some_ints("axes")?];
        let mut lists: [Option<&[i64]>; 4] = [attributes[0], attributes[1], attributes[2], None];
        for (list, input) in lists.iter_mut().zip(inputs) {
            if let Some(input) = input {
                *list = Some(input.as_ints()?);
            }
        }
        let [Some(starts), Some(ends), axes, steps] = lists else {
            return Err("lacks starts or ends".into());
        };
        let every: Vec<i64> = (0..starts.len() as i64).collect();
        let (ones, axes) = (vec![1; starts.len()], axes.unwrap_or(&every));
        let steps = steps.unwrap_or(&ones);
        if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
            return Err("has starts, ends, axes and steps of different lengths".into());
        }
        let mut spans: Vec<Span> = dims.iter().map(|&dim| (0, dim, 1)).collect();
        let mut seen = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let axis = axis_of(axis, dims.len())?;
            if seen.contains(&axis) {
                return Err(format!("names axis {axis} twice"));
            }
            seen.push(axis);
            spans[axis] = span(dims[axis], starts[i], ends[i], steps[i])?;
        }
        Ok(spans)
    }
}

/// Longest kernel, stride or padding.
const MAX_EXTENT: usize = 1 << 14;
