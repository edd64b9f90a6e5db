//! Constants of a graph: weights, and the integers that shapes are made of; and the operators that are worked out on
//! them while a file is read.

use super::Why;
use super::call::{Call, axis_of};
use super::proto::{Tensor, types};
use std::sync::Arc;

/// Most axes of a constant.
const MAX_RANK: usize = 8;

/// Elements of a constant.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Of any floating type, as f32.
    Float(Arc<[f32]>),
    /// Of any integer type, and truth values.
    Int(Arc<[i64]>),
}

/// A tensor that is known while a file is read.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    /// What a parameter made of it is called.
    pub name: String,
    /// Extents.
    pub dims: Vec<usize>,
    /// As many elements as they say.
    pub data: Data,
}

/// Elements that constants may still be made of by working out operators: what a chain of doublings may take is bounded
/// by it.
pub(super) struct Budget(pub usize);

impl Budget {
    /// Takes a tensor of these extents off it, and says how many elements that is.
    fn take(&mut self, dims: &[usize]) -> Result<usize, Why> {
        let len = if dims.len() > MAX_RANK { None } else { product(dims) };
        let left = len.and_then(|len| self.0.checked_sub(len));
        self.0 = left.ok_or_else(|| format!("makes a constant of {dims:?}, larger than a network's are"))?;
        Ok(len.unwrap_or(0))
    }
}

/// Number of elements, if it can be said.
pub(super) fn product(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// Row-major strides.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

impl Constant {
    /// Floats.
    pub fn floats(name: &str, dims: Vec<usize>, values: Vec<f32>) -> Constant {
        Constant { name: name.into(), dims, data: Data::Float(values.into()) }
    }

    /// A list of integers.
    pub fn ints(name: &str, values: Vec<i64>) -> Constant {
        Constant { name: name.into(), dims: vec![values.len()], data: Data::Int(values.into()) }
    }

    /// A tensor of a file.
    pub fn read(tensor: &Tensor) -> Result<Constant, Why> {
        let name = &tensor.name;
        if tensor.data_location != 0 {
            return Err(format!(
                "tensor `{name}` lies in another file (external data), which is not read: export the network as one \
                 file, by torch.onnx.export(..., external_data=False) or, with an older PyTorch, (..., dynamo=False); or \
                 onnx.save(onnx.load(FILE), ONE_FILE)"
            ));
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let dims = dims.filter(|dims| dims.len() <= MAX_RANK);
        let (Some(dims), Some(len)) = (dims.clone(), dims.as_deref().and_then(product)) else {
            let axes = tensor.dims.len();
            let dims = &tensor.dims[..axes.min(MAX_RANK)];
            return Err(format!(
                "tensor `{name}` has extents {dims:?} ({axes} axes), which no tensor can have"
            ));
        };
        let data = elements(tensor, len).map_err(|why| format!("tensor `{name}` of {dims:?} {why}"))?;
        Ok(Constant { name: name.clone(), dims, data })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int(values) => values.len(),
        }
    }

    /// The elements, if they are floats.
    pub fn as_floats(&self) -> Result<&Arc<[f32]>, Why> {
        match &self.data {
            Data::Float(values) => Ok(values),
            Data::Int(_) => Err(format!("`{}` holds integers where floats are needed", self.name)),
        }
    }

    /// The elements, if they are integers in a list (or a single one).
    pub fn as_ints(&self) -> Result<&[i64], Why> {
        match &self.data {
            Data::Int(values) if self.dims.len() <= 1 => Ok(values),
            Data::Int(_) => Err(format!("`{}` is {:?} where a list is needed", self.name, self.dims)),
            Data::Float(_) => Err(format!("`{}` holds floats where integers are needed", self.name)),
        }
    }

    /// The float it is, if it is one alone.
    pub fn single(&self) -> Option<f64> {
        match &self.data {
            Data::Float(values) if values.len() == 1 => Some(f64::from(values[0])),
            _ => None,
        }
    }

    /// The same elements under other extents, of which there must be as many.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Constant, Why> {
        if product(&dims) != Some(self.len()) || dims.len() > MAX_RANK {
            return Err(format!("cannot give {:?} the extents {dims:?}", self.dims));
        }
        Ok(Constant { name: self.name.clone(), dims, data: self.data.clone() })
    }

    /// The tensor of these extents whose element at index vector `o` is `self[index(o)]`, a row-major index.
    fn picked(
        &self,
        budget: &mut Budget,
        dims: Vec<usize>,
        index: impl Fn(&[usize]) -> usize,
    ) -> Result<Constant, Why> {
        let len = budget.take(&dims)?;
        let mut at = vec![0; dims.len()];
        let mut order = Vec::with_capacity(len);
        for _ in 0..len {
            order.push(index(&at));
            for axis in (0..dims.len()).rev() {
                at[axis] += 1;
                if at[axis] < dims[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        let data = match &self.data {
            Data::Float(values) => Data::Float(order.iter().map(|&i| values[i]).collect()),
            Data::Int(values) => Data::Int(order.iter().map(|&i| values[i]).collect()),
        };
        Ok(Constant { name: self.name.clone(), dims, data })
    }

    /// Axes permuted: axis `i` of the result is axis `perm[i]`, a permutation.
    pub fn transposed(&self, budget: &mut Budget, perm: &[usize]) -> Result<Constant, Why> {
        let strides = strides(&self.dims);
        let dims = perm.iter().map(|&axis| self.dims[axis]).collect();
        self.picked(budget, dims, |at| perm.iter().zip(at).map(|(&axis, &i)| i * strides[axis]).sum())
    }

    /// Stretched to `dims`, which it broadcasts to by NumPy's rule.
    fn stretched(&self, budget: &mut Budget, dims: &[usize]) -> Result<Constant, Why> {
        let lead = dims.len() - self.dims.len();
        let strides = strides(&self.dims);
        self.picked(budget, dims.to_vec(), |at| {
            let mine = self.dims.iter().zip(&strides).zip(&at[lead..]);
            mine.map(|((&dim, &stride), &i)| if dim == 1 { 0 } else { i * stride }).sum()
        })
    }
}

/// Elements of a tensor in a file.
fn elements(tensor: &Tensor, len: usize) -> Result<Data, Why> {
    let kind = tensor.data_type;
    let width = match kind {
        types::UINT8 | types::INT8 | types::BOOL => 1,
        types::UINT16 | types::INT16 | types::FLOAT16 | types::BFLOAT16 => 2,
        types::FLOAT | types::INT32 | types::UINT32 => 4,
        types::DOUBLE | types::INT64 | types::UINT64 => 8,
        other => {
            return Err(format!("has elements of type {other}, which is not known: floats and integers are"));
        }
    };
    let wrong = |have: usize| format!("holds {have} elements instead of {len}");
    if let Some(raw) = &tensor.raw_data {
        if len.checked_mul(width) != Some(raw.len()) {
            return Err(wrong(raw.len() / width));
        }
        fn each<const N: usize, T>(raw: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
            raw.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
        }
        let ints = |values: Vec<i64>| Ok(Data::Int(values.into()));
        return match kind {
            types::FLOAT => Ok(Data::Float(each(raw, f32::from_le_bytes).into())),
            types::DOUBLE => Ok(Data::Float(each(raw, |b| f64::from_le_bytes(b) as f32).into())),
            types::FLOAT16 => Ok(Data::Float(each(raw, |b| half::f16::from_le_bytes(b).to_f32()).into())),
            types::BFLOAT16 => Ok(Data::Float(each(raw, |b| half::bf16::from_le_bytes(b).to_f32()).into())),
            types::INT8 => ints(each(raw, |b| i8::from_le_bytes(b).into())),
            types::INT16 => ints(each(raw, |b| i16::from_le_bytes(b).into())),
            types::UINT16 => ints(each(raw, |b| u16::from_le_bytes(b).into())),
            types::INT32 => ints(each(raw, |b| i32::from_le_bytes(b).into())),
            types::UINT32 => ints(each(raw, |b| u32::from_le_bytes(b).into())),
            types::INT64 => ints(each(raw, i64::from_le_bytes)),
            types::UINT64 => ints(each(raw, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX))),
            // Bytes and truth values.
            _ => ints(raw.iter().map(|&byte| byte.into()).collect()),
        };
    }
    let held = match kind {
        types::FLOAT => tensor.float_data.len(),
        types::DOUBLE => tensor.double_data.len(),
        types::INT64 => tensor.int64_data.len(),
        types::UINT32 | types::UINT64 => tensor.uint64_data.len(),
        _ => tensor.int32_data.len(),
    };
    if held != len {
        return Err(wrong(held));
    }
    let bits = |value: &i32| *value as u16;
    Ok(match kind {
        types::FLOAT => Data::Float(tensor.float_data.as_slice().into()),
        types::DOUBLE => Data::Float(tensor.double_data.iter().map(|&x| x as f32).collect()),
        types::FLOAT16 => {
            Data::Float(tensor.int32_data.iter().map(|x| half::f16::from_bits(bits(x)).to_f32()).collect())
        }
        types::BFLOAT16 => {
            Data::Float(tensor.int32_data.iter().map(|x| half::bf16::from_bits(bits(x)).to_f32()).collect())
        }
        types::INT64 => Data::Int(tensor.int64_data.as_slice().into()),
        types::UINT32 | types::UINT64 => {
            Data::Int(tensor.uint64_data.iter().map(|&x| i64::try_from(x).unwrap_or(i64::MAX)).collect())
        }
        _ => Data::Int(tensor.int32_data.iter().map(|&x| x.into()).collect()),
    })
}

/// Shape two tensors broadcast to by NumPy's rule.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Why> {
    let rank = a.len().max(b.len());
    let from_end = |dims: &[usize], i: usize| if i < dims.len() { dims[dims.len() - 1 - i] } else { 1 };
    let mut result = vec![1; rank];
    for i in 0..rank {
        result[rank - 1 - i] = match (from_end(a, i), from_end(b, i)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => return Err(format!("{a:?} and {b:?} do not broadcast to one shape")),
        };
    }
    Ok(result)
}

/// The extents that a reshape of a tensor of extents `from` asks for by `wanted`, where 0 keeps one (unless
/// `allow_zero`) and -1 is what is left.
pub(super) fn target(from: &[usize], wanted: &[i64], allow_zero: bool) -> Result<Vec<usize>, Why> {
    let wrong = || format!("cannot give {from:?} the extents {:?}", &wanted[..wanted.len().min(MAX_RANK)]);
    let mut dims = Vec::new();
    let mut open = None;
    if wanted.len() > MAX_RANK {
        return Err(wrong());
    }
    for (axis, &extent) in wanted.iter().enumerate() {
        dims.push(match extent {
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            0 if !allow_zero => *from.get(axis).ok_or_else(wrong)?,
            extent => usize::try_from(extent).map_err(|_| wrong())?,
        });
    }
    let (len, known) = (product(from).ok_or_else(wrong)?, product(&dims).ok_or_else(wrong)?);
    match open {
        Some(axis) if known > 0 && len % known == 0 => dims[axis] = len / known,
        None if known == len => {}
        _ => return Err(wrong()),
    }
    Ok(dims)
}

/// First index, count and step that a slice takes of an axis of `extent`, by ONNX's rules (as NumPy's); steps forward
/// alone.
pub(super) fn span(extent: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize, usize), Why> {
    let step = usize::try_from(step).ok().filter(|&step| step > 0);
    let step = step.ok_or("slices backwards, which is not supported: steps of 1 or more are")?;
    let limit = extent as i64;
    let clamp = |i: i64| if i < 0 { i.saturating_add(limit).max(0) } else { i.min(limit) } as usize;
    let (start, end) = (clamp(start), clamp(end));
    Ok((start, end.saturating_sub(start).div_ceil(step), step))
}

/// The result of an operator all of whose inputs are constants; `None` if it is not one that is worked out.
pub(super) fn fold(
    call: &Call<'_>,
    inputs: &[Option<Arc<Constant>>],
    budget: &mut Budget,
) -> Result<Option<Constant>, Why> {
    let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
    let needed = |i: usize| input(i).ok_or_else(|| format!("lacks input {}", i + 1));
    let op = call.op();
    let result = match op {
        "Constant" => constant(call)?,
        "ConstantOfShape" => {
            let value = match call.tensor("value")? {
                None => Constant::floats("", vec![1], vec![0.0]),
                Some(tensor) => Constant::read(tensor)?,
            };
            if value.len() != 1 {
                return Err(format!("has a value of {} elements instead of one", value.len()));
            }
            let dims: Result<Vec<usize>, _> =
                needed(0)?.as_ints()?.iter().map(|&d| usize::try_from(d)).collect();
            let dims = dims.map_err(|_| "is asked for a negative extent".to_string())?;
            value.reshaped(vec![1])?.picked(budget, dims, |_| 0)?
        }
        "Identity" | "Dropout" => {
            call.ignore(&["ratio", "seed", "is_test"]);
            needed(0)?.as_ref().clone()
        }
        "Cast" => cast(call, needed(0)?)?,
        "Shape" => {
            let dims: Vec<i64> = needed(0)?.dims.iter().map(|&dim| dim as i64).collect();
            Constant::ints("", shape_part(call, &dims)?)
        }
        "Reshape" => {
            let x = needed(0)?;
            let allow_zero = call.int("allowzero", 0)? != 0;
            x.reshaped(target(&x.dims, needed(1)?.as_ints()?, allow_zero)?)?
        }
        "Flatten" => {
            let x = needed(0)?;
            let rank = x.dims.len() as i64;
            let axis = call.int("axis", 1)?;
            let axis = if axis < 0 { axis + rank } else { axis };
            if !(0..=rank).contains(&axis) {
                return Err(format!("has axis {axis}, but the constant has {rank} axes"));
            }
            let (before, after) = x.dims.split_at(axis as usize);
            x.reshaped(vec![product(before).unwrap_or(0), product(after).unwrap_or(0)])?
        }
        "Squeeze" => {
            let x = needed(0)?;
            let axes = call.axes(input(1), x.dims.len())?;
            let goes = |axis: usize| match &axes {
                Some(axes) => axes.contains(&axis),
                None => x.dims[axis] == 1,
            };
            x.reshaped((0..x.dims.len()).filter(|&axis| !goes(axis)).map(|axis| x.dims[axis]).collect())?
        }
        "Unsqueeze" => {
            let x = needed(0)?;
            x.reshaped(call.unsqueezed(input(1), &x.dims)?)?
        }
        "Transpose" => {
            let x = needed(0)?;
            x.transposed(budget, &call.permutation(x.dims.len())?)?
        }
        "Concat" => {
            let all: Result<Vec<_>, _> = (0..inputs.len()).map(needed).collect();
            concat(call, &all?, budget)?
        }
        "Slice" => {
            let x = needed(0)?;
            let spans = call.spans(&[input(1), input(2), input(3), input(4)], &x.dims)?;
            let strides = strides(&x.dims);
            let dims = spans.iter().map(|&(_, count, _)| count).collect();
            x.picked(budget, dims, |at| {
                spans
                    .iter()
                    .zip(at)
                    .zip(&strides)
                    .map(|((&(start, _, step), &i), s)| (start + i * step) * s)
                    .sum()
            })?
        }
        "Gather" => {
            let (x, index) = (needed(0)?, needed(1)?);
            let axis = axis_of(call.int("axis", 0)?, x.dims.len())?;
            let Data::Int(index_values) = &index.data else {
                return Err("gathers by indices that are floats".into());
            };
            let extent = x.dims[axis] as i64;
            if let Some(bad) = index_values.iter().find(|&&i| i < -extent || i >= extent) {
                return Err(format!("gathers index {bad} of an axis of {extent}"));
            }
            let mut dims = x.dims[..axis].to_vec();
            dims.extend(&index.dims);
            dims.extend(&x.dims[axis + 1..]);
            let (mine, theirs) = (strides(&x.dims), strides(&index.dims));
            let after = axis + index.dims.len();
            x.picked(budget, dims, |at| {
                let which: usize = at[axis..after].iter().zip(&theirs).map(|(i, s)| i * s).sum();
                let which = index_values[which].rem_euclid(extent) as usize;
                let before: usize = at[..axis].iter().zip(&mine).map(|(i, s)| i * s).sum();
                let behind: usize = at[after..].iter().zip(&mine[axis + 1..]).map(|(i, s)| i * s).sum();
                before + which * mine[axis] + behind
            })?
        }
        "Expand" => {
            let x = needed(0)?;
            let wanted: Result<Vec<usize>, _> =
                needed(1)?.as_ints()?.iter().map(|&d| usize::try_from(d)).collect();
            let wanted = wanted.map_err(|_| "is asked for a negative extent".to_string())?;
            x.stretched(budget, &broadcast(&x.dims, &wanted)?)?
        }
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(op, needed(0)?, needed(1)?, budget)?,
        "Neg" | "Sqrt" | "Reciprocal" | "Exp" => {
            let x = needed(0)?;
            budget.take(&x.dims)?;
            let data = match &x.data {
                Data::Int(values) if op == "Neg" => {
                    Data::Int(values.iter().map(|x| x.wrapping_neg()).collect())
                }
                _ => {
                    let of: fn(f32) -> f32 = match op {
                        "Neg" => |x| -x,
                        "Sqrt" => f32::sqrt,
                        "Exp" => f32::exp,
                        _ => |x| 1.0 / x,
                    };
                    Data::Float(x.as_floats()?.iter().map(|&x| of(x)).collect())
                }
            };
            Constant { name: x.name.clone(), dims: x.dims.clone(), data }
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// The tensor of a `Constant` node.
fn constant(call: &Call<'_>) -> Result<Constant, Why> {
    let given = [
        call.tensor("value")?.map(Constant::read),
        call.some_float("value_float")?.map(|x| Ok(Constant::floats("", vec![], vec![x]))),
        call.some_floats("value_floats")?.map(|x| Ok(Constant::floats("", vec![x.len()], x.to_vec()))),
        call.some_int("value_int")?
            .map(|x| Ok(Constant { name: String::new(), dims: vec![], data: Data::Int([x].into()) })),
        call.some_ints("value_ints")?.map(|x| Ok(Constant::ints("", x.to_vec()))),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(value), None) => value,
        _ => Err("needs one of value, value_float, value_floats, value_int and value_ints".into()),
    }
}

/// A constant as another type: between integers as they are, to an integer towards zero.
fn cast(call: &Call<'_>, x: &Constant) -> Result<Constant, Why> {
    call.ignore(&["saturate"]);
    let data = match (call.int("to", 0)? as i32, &x.data) {
        (types::FLOAT | types::DOUBLE | types::FLOAT16 | types::BFLOAT16, Data::Int(values)) => {
            Data::Float(values.iter().map(|&x| x as f32).collect())
        }
        (types::FLOAT | types::DOUBLE | types::FLOAT16 | types::BFLOAT16, data) => data.clone(),
        (types::BOOL, Data::Int(values)) => Data::Int(values.iter().map(|&x| i64::from(x != 0)).collect()),
        (types::INT32 | types::INT64, Data::Float(values)) => {
            Data::Int(values.iter().map(|&x| x as i64).collect())
        }
        (types::INT32 | types::INT64, data) => data.clone(),
        (other, _) => {
            return Err(format!("casts to type {other}, which is not supported: to floats, int32, int64 is"));
        }
    };
    Ok(Constant { name: x.name.clone(), dims: x.dims.clone(), data })
}

/// What `Shape` gives of extents: all, or from `start` to `end` (since opset 15).
pub(super) fn shape_part(call: &Call<'_>, dims: &[i64]) -> Result<Vec<i64>, Why> {
    let end = call.int("end", i64::MAX)?;
    let (start, count, _) = span(dims.len(), call.int("start", 0)?, end, 1)?;
    Ok(dims[start..start + count].to_vec())
}

fn concat(call: &Call<'_>, all: &[&Arc<Constant>], budget: &mut Budget) -> Result<Constant, Why> {
    let first = all.first().ok_or("has no inputs")?;
    let axis = axis_of(call.some_int("axis")?.ok_or("lacks attribute axis")?, first.dims.len())?;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for x in all {
        let fits = x.dims.len() == dims.len() && (0..dims.len()).all(|i| i == axis || x.dims[i] == dims[i]);
        if !fits {
            return Err(format!("{:?} does not continue {:?} along axis {axis}", x.dims, first.dims));
        }
        dims[axis] = dims[axis].checked_add(x.dims[axis]).ok_or("is too large")?;
    }
    budget.take(&dims)?;
    let outer = product(&dims[..axis]).unwrap_or(0);
    fn joined<T: Copy>(parts: &[(&[T], usize)], outer: usize) -> Vec<T> {
        (0..outer)
            .flat_map(|o| parts.iter().flat_map(move |(x, n)| &x[o * n..(o + 1) * n]))
            .copied()
            .collect()
    }
    let rows = |x: &Constant| x.len().checked_div(outer).unwrap_or(0);
    let data = if all.iter().all(|x| matches!(x.data, Data::Int(_))) {
        let parts: Vec<(&[i64], usize)> = all
            .iter()
            .filter_map(|x| match &x.data {
                Data::Int(values) => Some((&values[..], rows(x))),
                Data::Float(_) => None,
            })
            .collect();
        Data::Int(joined(&parts, outer).into())
    } else {
        let parts: Result<Vec<(&[f32], usize)>, Why> =
            all.iter().map(|x| Ok((&x.as_floats()?[..], rows(x)))).collect();
        Data::Float(joined(&parts?, outer).into())
    };
    Ok(Constant { name: first.name.clone(), dims, data })
}

fn arithmetic(op: &str, a: &Constant, b: &Constant, budget: &mut Budget) -> Result<Constant, Why> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let (x, y) = (a.stretched(budget, &dims)?, b.stretched(budget, &dims)?);
    let name = if a.len() >= b.len() { a.name.clone() } else { b.name.clone() };
    let data = match (&x.data, &y.data) {
        (Data::Float(x), Data::Float(y)) => {
            let of: fn(f32, f32) -> f32 = match op {
                "Add" => |x, y| x + y,
                "Sub" => |x, y| x - y,
                "Mul" => |x, y| x * y,
                _ => |x, y| x / y,
            };
            Data::Float(x.iter().zip(y.iter()).map(|(&x, &y)| of(x, y)).collect())
        }
        (Data::Int(x), Data::Int(y)) => {
            let of: fn(i64, i64) -> Option<i64> = match op {
                "Add" => i64::checked_add,
                "Sub" => i64::checked_sub,
                "Mul" => i64::checked_mul,
                _ => i64::checked_div,
            };
            let values: Option<Vec<i64>> = x.iter().zip(y.iter()).map(|(&x, &y)| of(x, y)).collect();
            Data::Int(values.ok_or("divides integers by zero, or leaves their range")?.into())
        }
        _ => return Err("is of a float and an integer".into()),
    };
    Ok(Constant { name, dims, data })
}
