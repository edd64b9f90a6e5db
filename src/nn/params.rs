//! Parameters of a network: names, shapes, roles, initial values, and the border to PyTorch's layout.

use super::{Architecture, Init, Mode, Net};
use crate::error::{Error, Result};
use crate::shape::{DType, Shape};
use crate::tape::Tape;

/// How a parameter's elements lie here and in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The same in both.
    Plain,
    /// `[channels]` here, `[channels, 1, 1]` there.
    Channels,
    /// `[rows, columns, inputs / groups, outputs]` here (HWIO), `[outputs, inputs / groups, rows, columns]` there.
    Conv,
    /// `[inputs, outputs]` here, `[outputs, inputs]` there.
    Linear {
        /// Rows, columns and channels of the image that the inputs were flattened from: they are in that order here,
        /// while PyTorch flattens channels, rows, columns.
        flattened: Option<[usize; 3]>,
    },
}

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weight of a convolution or linear layer.
    Weight,
    /// Its bias.
    Bias,
    /// Factor of a batch or layer norm.
    NormWeight,
    /// Summand of a batch or layer norm.
    NormBias,
    /// Factor on the channels of a residual branch.
    LayerScale,
    /// Running mean of a batch norm.
    RunningMean,
    /// Running (unbiased) variance of a batch norm.
    RunningVar,
    /// A constant of the network, as the mean that its input is normalised by.
    Constant,
}

impl Role {
    /// Whether gradients change it.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVar | Role::Constant)
    }

    /// Whether weight decay takes it where biases and batch norm are left out; also what AWP perturbs.
    pub fn is_weight(self) -> bool {
        self == Role::Weight
    }
}

/// A parameter: trained or not, everything a weight file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name in PyTorch's state dict, as "layer1.0.conv1.weight".
    pub name: String,
    /// Its shape here.
    pub shape: Shape,
    /// How that relates to PyTorch's.
    pub layout: Layout,
    /// What it is for.
    pub role: Role,
    /// How it is drawn.
    pub init: Init,
}

impl Param {
    /// Here, as four axes `[a, b, c, d]` that PyTorch orders `[d, c, a, b]`; `None` where the layouts are the same.
    fn axes(&self) -> Option<[usize; 4]> {
        let shape = self.shape.dims();
        match self.layout {
            Layout::Plain | Layout::Channels => None,
            Layout::Conv => shape.try_into().ok(),
            Layout::Linear { flattened } => {
                let [rows, columns, channels] = flattened.unwrap_or([1, 1, shape[0]]);
                Some([rows, columns, channels, shape[1]])
            }
        }
    }

    /// Extents in PyTorch.
    pub fn torch_shape(&self) -> Vec<usize> {
        match (self.layout, self.shape.dims()) {
            (Layout::Conv, &[rows, columns, inputs, outputs]) => vec![outputs, inputs, rows, columns],
            (Layout::Linear { .. }, &[inputs, outputs]) => vec![outputs, inputs],
            (Layout::Channels, &[channels]) => vec![channels, 1, 1],
            (_, dims) => dims.to_vec(),
        }
    }

    /// Extents and elements in PyTorch's layout of elements in ours.
    ///
    /// # Errors
    /// [`Error::Tensor`] when there are not as many elements as the parameter has.
    pub fn to_torch<T: Copy>(&self, values: &[T]) -> Result<(Vec<usize>, Vec<T>)> {
        self.hold(&Shape::from([values.len()]), values.len() == self.shape.len())?;
        let there = match self.axes() {
            None => values.to_vec(),
            Some([a, b, c, d]) => reorder([d, c, a, b], [1, d, b * c * d, c * d], values),
        };
        Ok((self.torch_shape(), there))
    }

    /// Elements in our layout of a tensor in PyTorch's.
    ///
    /// # Errors
    /// [`Error::Tensor`] when its extents are not the parameter's in PyTorch.
    pub fn from_torch<T: Copy>(&self, dims: &[usize], values: &[T]) -> Result<Vec<T>> {
        let have = Shape::try_new(dims).unwrap_or_else(|| Shape::from([values.len()]));
        self.hold(&have, dims == self.torch_shape() && values.len() == self.shape.len())?;
        Ok(match self.axes() {
            None => values.to_vec(),
            Some([a, b, c, d]) => reorder([a, b, c, d], [b, 1, a * b, a * b * c], values),
        })
    }

    fn hold(&self, have: &Shape, fits: bool) -> Result<()> {
        let want = Shape::new(&self.torch_shape()).to_string();
        if fits {
            Ok(())
        } else {
            Err(Error::Tensor { name: self.name.clone(), have: have.to_string(), want })
        }
    }
}

/// The tensor of extents `to` whose element at index vector `o` is `values[o . strides]`.
fn reorder<T: Copy>(to: [usize; 4], strides: [usize; 4], values: &[T]) -> Vec<T> {
    let mut result = Vec::with_capacity(values.len());
    for i in 0..to[0] {
        for j in 0..to[1] {
            for k in 0..to[2] {
                let base = i * strides[0] + j * strides[1] + k * strides[2];
                result.extend((0..to[3]).map(|l| values[base + l * strides[3]]));
            }
        }
    }
    result
}

/// Named, ordered parameters of a network, in the order of PyTorch's state dict for the architectures here.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    list: Vec<Param>,
}

impl Params {
    /// The parameters of an architecture, read off a scratch recording of its forward pass.
    ///
    /// # Errors
    /// [`Error::Shape`] when its layers do not fit its images, or its logits are not `[batch, classes]`.
    pub fn of(architecture: &dyn Architecture) -> Result<Params> {
        let tape = Tape::new();
        let net = Net::new(&tape, Mode::Eval);
        let [rows, columns, channels] = architecture.input();
        let x = tape.source("images", [1, rows, columns, channels], DType::F32);
        let logits = architecture.forward(&net, x);
        tape.check()?;
        let want = Shape::from([1, architecture.classes()]);
        if logits.shape() != want {
            let (have, want) = (logits.shape().to_string(), want.to_string());
            return Err(Error::Tensor { name: "logits".into(), have, want });
        }
        Ok(Params { list: net.params() })
    }

    /// All parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.list.iter()
    }

    /// Those that gradients change, in order.
    pub fn trained(&self) -> impl Iterator<Item = &Param> {
        self.list.iter().filter(|param| param.role.is_trained())
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.list.iter().find(|param| param.name == name)
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of trained elements: what papers call the number of parameters.
    pub fn count(&self) -> usize {
        self.trained().map(|param| param.shape.len()).sum()
    }

    /// Initial elements of each parameter in our layout and in order: a pure function of the seed.
    pub fn initial(&self, seed: u64) -> Vec<Vec<f32>> {
        let draw = |(stream, param): (usize, &Param)| param.init.draw(param.shape.len(), seed, stream as u32);
        self.list.iter().enumerate().map(draw).collect()
    }

    /// Extents and elements in PyTorch's layout of parameter `name`, given its elements in ours.
    ///
    /// # Errors
    /// With no such parameter, or not as many elements as it has.
    pub fn to_torch<T: Copy>(&self, name: &str, values: &[T]) -> Result<(Vec<usize>, Vec<T>)> {
        self.find(name)?.to_torch(values)
    }

    /// Elements in our layout of parameter `name`, given its extents and elements in PyTorch's.
    ///
    /// # Errors
    /// With no such parameter, or other extents than it has.
    pub fn from_torch<T: Copy>(&self, name: &str, dims: &[usize], values: &[T]) -> Result<Vec<T>> {
        self.find(name)?.from_torch(dims, values)
    }

    fn find(&self, name: &str) -> Result<&Param> {
        let names = || self.list.iter().map(|param| param.name.as_str()).collect::<Vec<_>>();
        self.get(name).ok_or_else(|| Error::unknown("parameter", name, &names()))
    }
}

impl<'a> IntoIterator for &'a Params {
    type Item = &'a Param;
    type IntoIter = std::slice::Iter<'a, Param>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(shape: &[usize], layout: Layout) -> Param {
        let init = Init::Constant(0.0);
        Param { name: "w".into(), shape: Shape::new(shape), layout, role: Role::Weight, init }
    }

    #[test]
    fn convolutions_go_to_oihw_and_back() {
        let [r, s, c, k] = [2, 3, 4, 5];
        let p = param(&[r, s, c, k], Layout::Conv);
        let ours: Vec<usize> = (0..r * s * c * k).collect();
        let (dims, theirs) = p.to_torch(&ours).unwrap();
        assert_eq!(dims, [k, c, r, s]);
        for i in 0..r {
            for j in 0..s {
                for l in 0..c {
                    for o in 0..k {
                        assert_eq!(
                            theirs[((o * c + l) * r + i) * s + j],
                            ours[((i * s + j) * c + l) * k + o]
                        );
                    }
                }
            }
        }
        assert_eq!(p.from_torch(&dims, &theirs).unwrap(), ours);
    }

    #[test]
    fn columns_behind_a_flattened_image_are_permuted() {
        let ([h, w, c], out) = ([2, 3, 4], 5);
        let p = param(&[h * w * c, out], Layout::Linear { flattened: Some([h, w, c]) });
        let ours: Vec<usize> = (0..h * w * c * out).collect();
        let (dims, theirs) = p.to_torch(&ours).unwrap();
        assert_eq!(dims, [out, c * h * w]);
        for row in 0..h {
            for column in 0..w {
                for channel in 0..c {
                    for o in 0..out {
                        let here = (row * w + column) * c + channel;
                        let there = (channel * h + row) * w + column;
                        assert_eq!(theirs[o * c * h * w + there], ours[here * out + o]);
                    }
                }
            }
        }
        assert_eq!(p.from_torch(&dims, &theirs).unwrap(), ours);
    }

    #[test]
    fn plain_linear_weights_are_transposed() {
        let p = param(&[2, 3], Layout::Linear { flattened: None });
        let (dims, theirs) = p.to_torch(&[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((dims, theirs), (vec![3, 2], vec![1, 4, 2, 5, 3, 6]));
        assert_eq!(p.from_torch(&[3, 2], &[1, 4, 2, 5, 3, 6]).unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        let p = param(&[2, 3], Layout::Linear { flattened: None });
        assert!(matches!(p.from_torch(&[2, 3], &[0.0; 6]), Err(Error::Tensor { .. })));
        assert!(matches!(p.from_torch(&[3, 2], &[0.0; 5]), Err(Error::Tensor { .. })));
        assert!(matches!(p.from_torch(&[1; 7], &[0.0; 1]), Err(Error::Tensor { .. })));
        assert!(matches!(p.to_torch(&[0.0; 5]), Err(Error::Tensor { .. })));
    }
}
