//! The nodes and constants of a file, written one value of the recording after the other.

use super::super::Why;
use super::super::proto::{Attribute, Node, Tensor, kinds, types};
use super::super::value::Order;
use super::form::{Form, Forms};
use crate::nn::{Init, Layout, Param, Role};
use crate::shape::Shape;
use crate::tape::{Axes, Binary, Op, Pool, Reduction, Unary};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// A value that is written: its name, and how what the recording holds lies in it.
#[derive(Clone)]
struct Written {
    name: String,
    order: Order,
}

/// A file being written.
pub(super) struct Writer<'a> {
    forms: &'a Forms<'a>,
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
    names: HashSet<String>,
    written: HashMap<usize, Written>,
    /// Where in the network what is written belongs.
    scope: String,
}

/// An attribute.
fn attribute(name: &str, kind: i32) -> Attribute {
    Attribute { name: name.into(), kind, ..Attribute::default() }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { i: Some(value), ..attribute(name, kinds::INT) }
}

fn float(name: &str, value: f64) -> Attribute {
    Attribute { f: Some(value as f32), ..attribute(name, kinds::FLOAT) }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute { ints: values.iter().map(|&value| value as i64).collect(), ..attribute(name, kinds::INTS) }
}

/// Padding as ONNX has it: before rows and columns, after rows and columns.
fn pads([rows, columns]: [usize; 2]) -> Attribute {
    ints("pads", &[rows, columns, rows, columns])
}

/// ONNX's axis of an image's axis here.
fn axis_there(order: Order, axis: usize) -> usize {
    match order {
        Order::Image => [0, 2, 3, 1][axis],
        _ => axis,
    }
}

impl<'a> Writer<'a> {
    /// Whose input of this name holds the images, as vectors where `features` says how long.
    pub fn new(forms: &'a Forms<'a>, images: usize, name: &str, features: Option<usize>) -> Writer<'a> {
        let mut writer = Writer {
            forms,
            nodes: Vec::new(),
            constants: Vec::new(),
            names: HashSet::from([name.to_string()]),
            written: HashMap::new(),
            scope: String::new(),
        };
        let name = match features {
            Some(count) => writer.reshaped(name, &[count, 1, 1]),
            None => name.to_string(),
        };
        writer.written.insert(images, Written { name, order: Order::Image });
        writer
    }

    /// Nodes and constants, with the value of this place as the output.
    pub fn finish(mut self, last: usize, name: &str) -> Result<(Vec<Node>, Vec<Tensor>), Why> {
        let value = self.plain(last)?;
        match self.nodes.last_mut() {
            Some(node) if node.output == [value.clone()] => node.output = vec![name.into()],
            _ => return Err("does nothing to its images".into()),
        }
        Ok((self.nodes, self.constants))
    }

    /// `name`, or with a number behind it if that is taken.
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_string();
        let mut count = 1;
        while !self.names.insert(unique.clone()) {
            unique = format!("{name}_{count}");
            count += 1;
        }
        unique
    }

    /// A node with one output, the name of which it gives.
    fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let place =
            if self.scope.is_empty() { String::new() } else { format!("/{}", self.scope.replace('.', "/")) };
        let name = self.unique(&format!("{place}/{op}"));
        let output = format!("{name}_output_0");
        self.nodes.push(Node {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.clone()],
            name,
            op_type: op.into(),
            attribute: attributes,
            domain: String::new(),
        });
        output
    }

    /// A constant of floats.
    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, types::FLOAT, raw)
    }

    /// A list of integers.
    fn longs(&mut self, name: &str, values: &[i64]) -> String {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, &[values.len()], types::INT64, raw)
    }

    /// A constant; the one there is, where it is there.
    fn tensor(&mut self, name: &str, dims: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        let tensor = Tensor {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type,
            raw_data: Some(Bytes::from(raw)),
            ..Tensor::default()
        };
        let known = self
            .constants
            .iter()
            .find(|have| have.name == name && have.dims == tensor.dims && have.raw_data == tensor.raw_data);
        if known.is_some() {
            return name.into();
        }
        let name = self.unique(name);
        self.constants.push(Tensor { name: name.clone(), ..tensor });
        name
    }

    /// A number.
    fn scalar(&mut self, value: f64) -> String {
        self.floats("constant", &[], &[value as f32])
    }

    fn value(&self, id: usize) -> Result<Written, Why> {
        self.written.get(&id).cloned().ok_or_else(|| "takes what is not computed from the images".to_string())
    }

    fn shape(&self, id: usize) -> Shape {
        self.forms.nodes[id].shape
    }

    /// The value as it lies here.
    fn plain(&mut self, id: usize) -> Result<String, Why> {
        let Written { name, order } = self.value(id)?;
        Ok(match order {
            Order::Plain => name,
            Order::Image => self.node("Transpose", &[&name], vec![ints("perm", &[0, 2, 3, 1])]),
            Order::Flat([c, h, w]) => {
                let image = self.reshaped(&name, &[c, h, w]);
                let turned = self.node("Transpose", &[&image], vec![ints("perm", &[0, 2, 3, 1])]);
                self.reshaped(&turned, &[c * h * w])
            }
        })
    }

    /// The value as NCHW.
    fn image(&mut self, id: usize) -> Result<String, Why> {
        let Written { name, order } = self.value(id)?;
        match order {
            Order::Image => Ok(name),
            Order::Plain if self.shape(id).rank() == 4 => {
                Ok(self.node("Transpose", &[&name], vec![ints("perm", &[0, 3, 1, 2])]))
            }
            _ => Err(format!("takes {} for an image", self.shape(id))),
        }
    }

    /// A value under these extents behind its batch.
    fn reshaped(&mut self, name: &str, dims: &[usize]) -> String {
        let to: Vec<i64> = std::iter::once(0).chain(dims.iter().map(|&dim| dim as i64)).collect();
        let shape = self.longs("shape", &to);
        self.node("Reshape", &[name, &shape], vec![])
    }

    /// Writes the value of a place, whose inputs are written.
    pub fn write(&mut self, id: usize) -> Result<(), Why> {
        self.scope = self.forms.nodes[id].scope.to_string();
        let written = match self.forms.form(id)? {
            Form::Linear { x, weight, bias } => self.linear(x, weight, bias)?,
            Form::Conv { x, filter, bias, conv } => {
                let x = self.image(x)?;
                let shape = self.shape(filter);
                let layout = (shape, Layout::Conv);
                let mut inputs = vec![x, self.weight(filter, "weight", layout)?];
                if let Some(bias) = bias {
                    inputs.push(self.weight(bias, "bias", (self.shape(bias), Layout::Plain))?);
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let attributes = vec![
                    ints("dilations", &conv.dilation),
                    int("group", conv.groups as i64),
                    ints("kernel_shape", &shape.dims()[..2]),
                    pads(conv.padding),
                    ints("strides", &conv.stride),
                ];
                Written { name: self.node("Conv", &inputs, attributes), order: Order::Image }
            }
            Form::Norm { x, sources, epsilon } => {
                let Written { mut name, mut order } = self.value(x)?;
                if matches!(order, Order::Flat(_)) {
                    (name, order) = (self.plain(x)?, Order::Plain);
                }
                if order == Order::Plain && self.shape(x).rank() != 2 {
                    (name, order) = (self.image(x)?, Order::Image);
                }
                let mut inputs = vec![name];
                for source in sources {
                    inputs.push(self.weight(source, "norm", (self.shape(source), Layout::Plain))?);
                }
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let name = self.node("BatchNormalization", &inputs, vec![float("epsilon", epsilon)]);
                Written { name, order }
            }
            Form::MaxPool { x, pool } => self.pool("MaxPool", x, pool, vec![])?,
            Form::AveragePool { x, pool } => {
                self.pool("AveragePool", x, pool, vec![int("count_include_pad", 1)])?
            }
            Form::Mean { x, axes } => {
                let Written { name, order } = self.value(x)?;
                if order == Order::Image && axes == Axes::new(&[1, 2]) {
                    Written { name: self.node("GlobalAveragePool", &[&name], vec![]), order }
                } else {
                    let (name, order, axes) = self.folded(x, axes)?;
                    let attributes = vec![ints("axes", &axes), int("keepdims", 1)];
                    Written { name: self.node("ReduceMean", &[&name], attributes), order }
                }
            }
            Form::One { x } => self.one(id, x)?,
            Form::Many { of } => self.many(id, &of)?,
        };
        self.written.insert(id, written);
        Ok(())
    }

    /// A constant in PyTorch's layout, under its own name or one from where it belongs.
    fn weight(&mut self, id: usize, what: &str, (shape, layout): (Shape, Layout)) -> Result<String, Why> {
        let values: Vec<f32> = self.forms.constant(id)?.into_iter().map(|x| x as f32).collect();
        let (init, role) = (Init::Constant(0.0), Role::Constant);
        let param = Param { name: String::new(), shape, layout, role, init };
        let (dims, values) = param.to_torch(&values).map_err(|e| e.to_string())?;
        let name = match self.forms.name(id) {
            Some(name) => name.to_string(),
            None => format!("{}.{what}", self.scope),
        };
        Ok(self.floats(&name, &dims, &values))
    }

    /// A product, the columns of whose weight follow the order that an image was flattened in.
    fn linear(&mut self, x: usize, weight: usize, bias: Option<usize>) -> Result<Written, Why> {
        let Written { name, order } = self.value(x)?;
        let flattened = match order {
            Order::Flat([c, h, w]) => Some([h, w, c]),
            _ => None,
        };
        let layout = (self.shape(weight), Layout::Linear { flattened });
        let mut inputs = vec![name, self.weight(weight, "weight", layout)?];
        if let Some(bias) = bias {
            inputs.push(self.weight(bias, "bias", (self.shape(bias), Layout::Plain))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(Written { name: self.node("Gemm", &inputs, vec![int("transB", 1)]), order: Order::Plain })
    }

    fn pool(&mut self, op: &str, x: usize, pool: Pool, mut more: Vec<Attribute>) -> Result<Written, Why> {
        let x = self.image(x)?;
        more.extend([ints("kernel_shape", &pool.kernel), pads(pool.padding), ints("strides", &pool.stride)]);
        Ok(Written { name: self.node(op, &[&x], more), order: Order::Image })
    }

    /// A value to be folded over axes, its order, and those axes in it.
    fn folded(&mut self, x: usize, axes: Axes) -> Result<(String, Order, Vec<usize>), Why> {
        let Written { mut name, mut order } = self.value(x)?;
        if matches!(order, Order::Flat(_)) {
            (name, order) = (self.plain(x)?, Order::Plain);
        }
        let here = (0..self.shape(x).rank()).filter(|&axis| axes.has(axis));
        let mut axes: Vec<usize> = here.map(|axis| axis_there(order, axis)).collect();
        axes.sort_unstable();
        Ok((name, order, axes))
    }

    /// An op on one activation.
    fn one(&mut self, id: usize, x: usize) -> Result<Written, Why> {
        let (from, to) = (self.shape(x), self.shape(id));
        let Written { name, order } = self.value(x)?;
        match &self.forms.nodes[id].op {
            Op::Unary(unary) => Ok(Written { name: self.unary(unary, &name)?, order }),
            Op::Reshape if from.rank() == 0 || to.rank() == 0 || from[0] != to[0] => {
                Err("mixes the images of a batch".into())
            }
            Op::Reshape => {
                if to.rank() == 2 && order == Order::Image {
                    let [h, w, c] = [from[1], from[2], from[3]];
                    let line = c == 1 || h * w == 1;
                    let order = if line { Order::Plain } else { Order::Flat([c, h, w]) };
                    return Ok(Written { name: self.node("Flatten", &[&name], vec![int("axis", 1)]), order });
                }
                let name = self.plain(x)?;
                Ok(Written { name: self.reshaped(&name, &to.dims()[1..]), order: Order::Plain })
            }
            Op::Transpose { perm } => {
                let name = self.plain(x)?;
                Ok(Written {
                    name: self.node("Transpose", &[&name], vec![ints("perm", perm)]),
                    order: Order::Plain,
                })
            }
            Op::Softmax | Op::LogSoftmax => {
                let op = if self.forms.nodes[id].op == Op::Softmax { "Softmax" } else { "LogSoftmax" };
                let axis = if order == Order::Image { 1 } else { -1 };
                Ok(Written { name: self.node(op, &[&name], vec![int("axis", axis)]), order })
            }
            Op::Reduce { kind, axes } => {
                let (name, order, axes) = self.folded(x, *axes)?;
                let name = match kind {
                    Reduction::Max => {
                        self.node("ReduceMax", &[&name], vec![ints("axes", &axes), int("keepdims", 1)])
                    }
                    Reduction::Sum => {
                        let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
                        let axes = self.longs("axes", &axes);
                        self.node("ReduceSum", &[&name, &axes], vec![int("keepdims", 1)])
                    }
                };
                Ok(Written { name, order })
            }
            Op::Slice { start } => {
                let (mut name, mut order) = (name, order);
                if matches!(order, Order::Flat(_)) {
                    (name, order) = (self.plain(x)?, Order::Plain);
                }
                let cut: Vec<usize> = (0..to.rank()).filter(|&axis| to[axis] != from[axis]).collect();
                let list = |of: &dyn Fn(usize) -> usize| -> Vec<i64> {
                    cut.iter().map(|&axis| of(axis) as i64).collect()
                };
                let starts = self.longs("starts", &list(&|axis| start[axis]));
                let ends = self.longs("ends", &list(&|axis| start[axis] + to[axis]));
                let axes = self.longs("axes", &list(&|axis| axis_there(order, axis)));
                Ok(Written { name: self.node("Slice", &[&name, &starts, &ends, &axes], vec![]), order })
            }
            Op::Pad { before } => {
                let (mut name, mut order) = (name, order);
                if matches!(order, Order::Flat(_)) {
                    (name, order) = (self.plain(x)?, Order::Plain);
                }
                let rank = to.rank();
                let mut around = vec![0; 2 * rank];
                for axis in 0..rank {
                    let there = axis_there(order, axis);
                    around[there] = before[axis] as i64;
                    around[rank + there] = (to[axis] - from[axis] - before[axis]) as i64;
                }
                let around = self.longs("pads", &around);
                Ok(Written { name: self.node("Pad", &[&name, &around], vec![]), order })
            }
            _ => Err("is not written as ONNX".into()),
        }
    }

    /// A function of each element, whatever the order.
    fn unary(&mut self, unary: &Unary, x: &str) -> Result<String, Why> {
        let plain = |op: &'static str| Ok::<_, Why>((op, vec![]));
        let (op, attributes) = match *unary {
            Unary::Affine { scale, shift } => {
                let mut x = x.to_string();
                if scale != 1.0 {
                    let by = self.scalar(scale);
                    x = self.node("Mul", &[&x, &by], vec![]);
                }
                if shift != 0.0 {
                    let by = self.scalar(shift);
                    x = self.node("Add", &[&x, &by], vec![]);
                }
                return Ok(x);
            }
            Unary::Square => return Ok(self.node("Mul", &[x, x], vec![])),
            Unary::Silu => {
                let sigmoid = self.node("Sigmoid", &[x], vec![]);
                return Ok(self.node("Mul", &[x, &sigmoid], vec![]));
            }
            Unary::Gelu => {
                // x (1 + erf(x / sqrt(2))) / 2: the operator of that name came with opset 20.
                let root = self.scalar(std::f64::consts::SQRT_2);
                let (one, half) = (self.scalar(1.0), self.scalar(0.5));
                let scaled = self.node("Div", &[x, &root], vec![]);
                let erf = self.node("Erf", &[&scaled], vec![]);
                let added = self.node("Add", &[&erf, &one], vec![]);
                let product = self.node("Mul", &[x, &added], vec![]);
                return Ok(self.node("Mul", &[&product, &half], vec![]));
            }
            Unary::Clamp { lo, hi } => {
                let bound = |writer: &mut Self, value: f64| match value.is_finite() {
                    true => writer.scalar(value),
                    false => String::new(),
                };
                let (lo, hi) = (bound(self, lo), bound(self, hi));
                return Ok(self.node("Clip", &[x, &lo, &hi], vec![]));
            }
            Unary::LeakyRelu { slope } => ("LeakyRelu", vec![float("alpha", slope)]),
            Unary::Exp => plain("Exp")?,
            Unary::Log => plain("Log")?,
            Unary::Sqrt => plain("Sqrt")?,
            Unary::Abs => plain("Abs")?,
            Unary::Sign => plain("Sign")?,
            Unary::Relu => plain("Relu")?,
            Unary::Tanh => plain("Tanh")?,
            Unary::Sigmoid => plain("Sigmoid")?,
            Unary::Erf => plain("Erf")?,
        };
        Ok(self.node(op, &[x], attributes))
    }

    /// An op on activations and constants.
    fn many(&mut self, id: usize, of: &[usize]) -> Result<Written, Why> {
        let rank = self.shape(id).rank();
        let activations: Vec<usize> = of.iter().copied().filter(|&arg| self.forms.depends(arg)).collect();
        let mut orders = Vec::new();
        for &arg in &activations {
            if self.shape(arg).rank() != rank {
                return Err(format!("takes {} beside {}", self.shape(arg), self.shape(id)));
            }
            orders.push(self.value(arg)?.order);
        }
        let first = *orders.first().ok_or("depends on nothing")?;
        // One order for all: a constant does not follow the one that an image was flattened in.
        let same = orders.iter().all(|order| *order == first) && activations.len() == of.len();
        let order = match first {
            order if same => order,
            _ if rank == 4 => Order::Image,
            _ => Order::Plain,
        };
        let mut names = Vec::new();
        for &arg in of {
            names.push(match order {
                _ if !self.forms.depends(arg) => self.broadcast(arg, rank, order)?,
                _ if same => self.value(arg)?.name,
                Order::Image => self.image(arg)?,
                _ => self.plain(arg)?,
            });
        }
        let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
        let name = match &self.forms.nodes[id].op {
            Op::Concat { axis } => {
                let order = if matches!(order, Order::Flat(_)) { Order::Plain } else { order };
                let names: Result<Vec<String>, Why> = match same && order == Order::Plain {
                    true => of.iter().map(|&arg| self.plain(arg)).collect(),
                    false => Ok(names.clone()),
                };
                let names = names?;
                let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
                let axis = axis_there(order, *axis) as i64;
                return Ok(Written { name: self.node("Concat", &inputs, vec![int("axis", axis)]), order });
            }
            Op::Binary(Binary::Add) => self.node("Add", &inputs, vec![]),
            Op::Binary(Binary::Sub) => self.node("Sub", &inputs, vec![]),
            Op::Binary(Binary::Mul) => self.node("Mul", &inputs, vec![]),
            Op::Binary(Binary::Div) => self.node("Div", &inputs, vec![]),
            Op::Binary(Binary::Max) => self.node("Max", &inputs, vec![]),
            Op::Binary(Binary::Min) => self.node("Min", &inputs, vec![]),
            Op::Binary(Binary::AddScaled { scale }) => {
                let by = self.scalar(*scale);
                let scaled = self.node("Mul", &[inputs[1], &by], vec![]);
                self.node("Add", &[inputs[0], &scaled], vec![])
            }
            _ => return Err("is not written as ONNX".into()),
        };
        Ok(Written { name, order })
    }

    /// A constant that broadcasts to a value of so many axes, in this order.
    fn broadcast(&mut self, id: usize, rank: usize, order: Order) -> Result<String, Why> {
        let shape = self.shape(id);
        let values: Vec<f32> = self.forms.constant(id)?.into_iter().map(|x| x as f32).collect();
        let name = self.forms.name(id).unwrap_or("constant").to_string();
        if values.len() == 1 {
            return Ok(self.floats(&name, &[], &values));
        }
        if order != Order::Image {
            return Ok(self.floats(&name, shape.dims(), &values));
        }
        let mut dims = vec![1; rank - shape.rank()];
        dims.extend(shape.dims());
        let [1, h, w, c] = dims[..] else { return Err(format!("takes a constant of {shape} for images")) };
        let image: Vec<f32> = (0..c * h * w).map(|i| values[i % (h * w) * c + i / (h * w)]).collect();
        Ok(self.floats(&name, &[c, h, w], &image))
    }
}
