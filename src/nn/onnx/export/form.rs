//! What a recording says, in the terms of layers.

use super::super::Why;
use crate::shape::Shape;
use crate::tape::{Axes, Binary, Conv2d, Node, Op, Pool, Reduction, Unary};
use std::collections::{BTreeSet, HashMap};

/// What a value is made by; places on the tape.
pub(super) enum Form {
    /// `x w + bias`, with constants for the last two.
    Linear {
        x: usize,
        weight: usize,
        bias: Option<usize>,
    },
    /// A convolution, with constants for filter and bias.
    Conv {
        x: usize,
        filter: usize,
        bias: Option<usize>,
        conv: Conv2d,
    },
    /// A batch norm by running statistics: the sources of weight, bias, mean and variance.
    Norm {
        x: usize,
        sources: [usize; 4],
        epsilon: f64,
    },
    MaxPool {
        x: usize,
        pool: Pool,
    },
    AveragePool {
        x: usize,
        pool: Pool,
    },
    /// A mean over axes, which stay with extent 1.
    Mean {
        x: usize,
        axes: Axes,
    },
    /// An op on one activation.
    One {
        x: usize,
    },
    /// An op on activations and constants, in order; broadcasts taken off.
    Many {
        of: Vec<usize>,
    },
}

impl Form {
    /// The values it is made of that may depend on the images.
    fn inputs(&self) -> Vec<usize> {
        match self {
            Form::Linear { x, .. }
            | Form::Conv { x, .. }
            | Form::Norm { x, .. }
            | Form::MaxPool { x, .. }
            | Form::AveragePool { x, .. }
            | Form::Mean { x, .. }
            | Form::One { x } => vec![*x],
            Form::Many { of } => of.clone(),
        }
    }
}

/// A recording to be read.
pub(super) struct Forms<'a> {
    pub nodes: &'a [Node],
    weights: &'a HashMap<&'a str, &'a [f32]>,
    /// Which values depend on the images.
    depends: Vec<bool>,
}

impl<'a> Forms<'a> {
    pub fn new(nodes: &'a [Node], images: usize, weights: &'a HashMap<&'a str, &'a [f32]>) -> Forms<'a> {
        let mut depends = vec![false; nodes.len()];
        depends[images] = true;
        for id in images + 1..nodes.len() {
            depends[id] = depends[id] || nodes[id].args.iter().any(|&arg| depends[arg]);
        }
        Forms { nodes, weights, depends }
    }

    /// Whether a value depends on the images.
    pub fn depends(&self, id: usize) -> bool {
        self.depends[id]
    }

    /// The value behind a broadcast, which ONNX does without.
    fn bare(&self, id: usize) -> usize {
        match self.nodes[id].op {
            Op::Broadcast => self.nodes[id].args[0],
            _ => id,
        }
    }

    /// Places that have to be written for this one, in order.
    pub fn needed(&self, last: usize) -> Result<BTreeSet<usize>, Why> {
        let mut needed = BTreeSet::new();
        let mut open = vec![last];
        while let Some(id) = open.pop() {
            let image = self.nodes[id].args.is_empty();
            if !self.depends[id] || image || !needed.insert(id) {
                continue;
            }
            open.extend(self.form(id)?.inputs());
        }
        Ok(needed)
    }

    /// What makes a value that depends on the images.
    pub fn form(&self, id: usize) -> Result<Form, Why> {
        let node = &self.nodes[id];
        let x = *node.args.first().ok_or("is not a network of its images alone")?;
        Ok(match &node.op {
            Op::Binary(Binary::Add) => match self.norm(id).or_else(|| self.with_bias(id)) {
                Some(form) => form,
                None => Form::Many { of: node.args.iter().map(|&arg| self.bare(arg)).collect() },
            },
            Op::Binary(_) => Form::Many { of: node.args.iter().map(|&arg| self.bare(arg)).collect() },
            Op::MatMul { ta: false, tb: false } | Op::Conv2d(_) => {
                self.product(id, None).ok_or("takes weights that depend on the images")?
            }
            Op::PoolGather(pool) => match &self.nodes[node.args[1]] {
                Node { op: Op::MaxPoolIndex(same), args, .. } if same == pool && args == &[x] => {
                    Form::MaxPool { x, pool: *pool }
                }
                _ => return Err("picks what is no maximum".into()),
            },
            Op::AvgPool(pool) => Form::AveragePool { x, pool: *pool },
            Op::Unary(Unary::Affine { scale, shift }) if *shift == 0.0 => match self.nodes[x].op {
                Op::Reduce { kind: Reduction::Sum, axes } if self.is_mean(x, *scale) => {
                    Form::Mean { x: self.nodes[x].args[0], axes }
                }
                _ => Form::One { x },
            },
            Op::Concat { .. } => Form::Many { of: node.args.clone() },
            Op::Broadcast => return Err("stretches what depends on the images".into()),
            _ => Form::One { x },
        })
    }

    /// Whether a sum times `scale` is a mean.
    fn is_mean(&self, sum: usize, scale: f64) -> bool {
        let from = self.nodes[self.nodes[sum].args[0]].shape.len() as f64;
        (scale * from / self.nodes[sum].shape.len() as f64 - 1.0).abs() < 1e-9
    }

    /// A product or convolution by constants.
    fn product(&self, id: usize, bias: Option<usize>) -> Option<Form> {
        let node = &self.nodes[id];
        let &[x, by] = node.args.as_slice() else { return None };
        if self.depends[by] || !self.depends[x] {
            return None;
        }
        match node.op {
            Op::MatMul { ta: false, tb: false } => Some(Form::Linear { x, weight: by, bias }),
            Op::Conv2d(conv) => Some(Form::Conv { x, filter: by, bias, conv }),
            _ => None,
        }
    }

    /// A sum of a product and a constant, one number an output.
    fn with_bias(&self, id: usize) -> Option<Form> {
        let &[product, bias] = self.nodes[id].args.as_slice() else { return None };
        let bias = self.bare(bias);
        let outputs = *self.nodes[product].shape.dims().last()?;
        let fits = !self.depends[bias] && self.nodes[bias].shape == Shape::from([outputs]);
        if fits { self.product(product, Some(bias)) } else { None }
    }

    /// `x * (weight / sqrt(variance + epsilon)) + (bias - mean * (weight / sqrt(variance + epsilon)))`.
    fn norm(&self, id: usize) -> Option<Form> {
        let binary = |id: usize, op: Binary| match &self.nodes[self.bare(id)] {
            Node { op: Op::Binary(have), args, .. } if *have == op => Some([args[0], args[1]]),
            _ => None,
        };
        let source = |id: usize| matches!(self.nodes[id].op, Op::Source { .. }).then_some(id);
        let [product, shift] = binary(id, Binary::Add)?;
        let [x, scale] = binary(product, Binary::Mul)?;
        let [bias, shifted] = binary(shift, Binary::Sub)?;
        let [mean, same] = binary(shifted, Binary::Mul)?;
        let scale = self.bare(scale);
        let [weight, deviation] = binary(scale, Binary::Div)?;
        let (Op::Unary(Unary::Sqrt), [added]) =
            (&self.nodes[deviation].op, self.nodes[deviation].args.as_slice())
        else {
            return None;
        };
        let (Op::Unary(Unary::Affine { scale: one, shift: epsilon }), [variance]) =
            (&self.nodes[*added].op, self.nodes[*added].args.as_slice())
        else {
            return None;
        };
        let sources = [source(weight)?, source(bias)?, source(mean)?, source(*variance)?];
        let fits = self.depends[x] && same == scale && *one == 1.0;
        fits.then_some(Form::Norm { x, sources, epsilon: *epsilon })
    }

    /// What a constant is called where it is a weight.
    pub fn name(&self, id: usize) -> Option<&'a str> {
        match &self.nodes[id].op {
            Op::Source { name } => Some(name),
            Op::Reshape => self.name(self.nodes[id].args[0]),
            _ => None,
        }
    }

    /// The elements of a value that does not depend on the images.
    pub fn constant(&self, id: usize) -> Result<Vec<f64>, Why> {
        let node = &self.nodes[id];
        let argument = |i: usize| self.constant(node.args[i]);
        Ok(match &node.op {
            Op::Source { name } => {
                let values =
                    self.weights.get(name.as_str()).ok_or_else(|| format!("lacks the weights `{name}`"))?;
                if values.len() != node.shape.len() {
                    return Err(format!("has {} weights `{name}` for {}", values.len(), node.shape));
                }
                values.iter().map(|&x| f64::from(x)).collect()
            }
            Op::Fill { value } => vec![*value; node.shape.len()],
            Op::Reshape => argument(0)?,
            Op::Unary(unary) => {
                let of: Box<dyn Fn(f64) -> f64> = match *unary {
                    Unary::Affine { scale, shift } => Box::new(move |x| scale * x + shift),
                    Unary::Sqrt => Box::new(f64::sqrt),
                    ref other => return Err(format!("computes {} of weights", other.name())),
                };
                argument(0)?.into_iter().map(of).collect()
            }
            other => return Err(format!("computes {} of weights", other.name())),
        })
    }
}
