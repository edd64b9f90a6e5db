//! Extents and element types: the words every other room uses.

use std::fmt;

/// Most axes a tensor may have.
pub const MAX_RANK: usize = 6;

/// Element type of a tensor.
///
/// `F32` means "the executor's float": 32 bits on a GPU and on the CPU executor that trains, 64 bits on the
/// reference executor (`Device::reference()`). Integers are integers everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// The executor's float.
    F32,
    /// Half precision storage, accumulated in f32.
    F16,
    /// Bytes: images of a data set.
    U8,
    /// Indices, labels, counters, random-number keys.
    U32,
}

impl DType {
    /// Bytes an element takes in a GPU buffer or in the f32 executor.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 => 2,
            DType::U8 => 1,
        }
    }

    /// Bytes of a buffer of `len` elements on a GPU: whole words of four, and never none.
    pub fn buffer_bytes(self, len: usize) -> u64 {
        (len as u64 * self.bytes() as u64).max(1).next_multiple_of(4)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::U8 => "u8",
            DType::U32 => "u32",
        })
    }
}

/// Extents of a tensor, outermost axis first; at most [`MAX_RANK`] axes. The empty shape is a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape with these extents.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] extents; [`Shape::try_new`] is for extents that come from outside.
    pub fn new(dims: &[usize]) -> Shape {
        Shape::try_new(dims).unwrap_or_else(|| panic!("a shape has at most {MAX_RANK} axes, got {dims:?}"))
    }

    /// The shape with these extents, or `None` when there are too many.
    pub fn try_new(dims: &[usize]) -> Option<Shape> {
        let mut shape = Shape { dims: [1; MAX_RANK], rank: u8::try_from(dims.len()).ok()? };
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(shape)
    }

    /// The shape of a single number.
    pub fn scalar() -> Shape {
        Shape::new(&[])
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// Number of elements (1 for a scalar).
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether some extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.dims[axis];
        }
        strides
    }

    /// This shape with one extent replaced.
    pub fn with(&self, axis: usize, extent: usize) -> Shape {
        let mut shape = *self;
        shape.dims[..shape.rank as usize][axis] = extent;
        shape
    }

    /// Shape both broadcast to (NumPy's rule: align the last axes; an extent of 1 stretches), or `None`.
    pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
        let rank = a.rank().max(b.rank());
        let from_end = |s: &Shape, i: usize| if i < s.rank() { s.dims()[s.rank() - 1 - i] } else { 1 };
        let mut dims = [1; MAX_RANK];
        for i in 0..rank {
            dims[rank - 1 - i] = match (from_end(a, i), from_end(b, i)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => return None,
            };
        }
        Some(Shape::new(&dims[..rank]))
    }
}

impl std::ops::Index<usize> for Shape {
    type Output = usize;
    fn index(&self, axis: usize) -> &usize {
        &self.dims()[axis]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, extent) in self.dims().iter().enumerate() {
            write!(f, "{}{extent}", if axis > 0 { "x" } else { "" })?;
        }
        f.write_str("]")
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Shape {
        Shape::new(&dims)
    }
}

/// How an operand of an elementwise stage is indexed when it has fewer elements than the result: element `i` of
/// the result reads element `(i / div) % modulo` of the operand.
///
/// This covers a scalar (`modulo` 1), a channel of NHWC (`div` 1, `modulo` C), a value per example (`div` HWC,
/// `modulo` N) and the full tensor (`div` 1, `modulo` all). Other broadcasts are copied out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Elements of the result that share one element of the operand in a row.
    pub div: usize,
    /// Elements of the operand.
    pub modulo: usize,
}

impl Stretch {
    /// The stretch that takes an operand of shape `from` to `to`, if index arithmetic of this form can do it.
    pub fn between(from: &Shape, to: &Shape) -> Option<Stretch> {
        if Shape::broadcast(from, to)? != *to {
            return None;
        }
        let lead = to.rank() - from.rank();
        let kept = |axis: usize| axis >= lead && from[axis - lead] == to[axis];
        // The axes of extent > 1 that the operand really has must be one run.
        let matters: Vec<usize> = (0..to.rank()).filter(|&axis| to[axis] > 1).collect();
        let real: Vec<usize> = matters.iter().copied().filter(|&axis| kept(axis)).collect();
        let (Some(&first), Some(&last)) = (real.first(), real.last()) else {
            return Some(Stretch { div: 1, modulo: 1 });
        };
        if matters.iter().any(|&axis| axis > first && axis < last && !kept(axis)) {
            return None;
        }
        let div = to.dims()[last + 1..].iter().product();
        let modulo = to.dims()[first..=last].iter().product();
        Some(Stretch { div, modulo })
    }

    /// Index into the operand for element `i` of the result.
    #[inline]
    pub fn index(&self, i: usize) -> usize {
        (i / self.div) % self.modulo
    }
}

/// An axis of a result that is read from a source through strides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StridedAxis {
    /// Elements of the result.
    pub extent: usize,
    /// Stride in the source.
    pub stride: usize,
    /// First index inside of the source.
    pub lo: usize,
    /// First index behind.
    pub hi: usize,
}

impl StridedAxis {
    /// Whether every index lies inside.
    pub fn is_whole(&self) -> bool {
        self.lo == 0 && self.hi >= self.extent
    }
}

/// The axes of such a result that matter, innermost first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StridedAxes {
    axes: [StridedAxis; MAX_RANK],
    rank: usize,
}

impl StridedAxes {
    /// Axes of extent 1 that lie inside are dropped, neighbours that are one run in the source are joined.
    pub fn joined(dims: &[usize], strides: &[usize], lo: &[usize], hi: &[usize]) -> StridedAxes {
        let mut all = StridedAxes { axes: [StridedAxis::default(); MAX_RANK], rank: 0 };
        for i in (0..dims.len()).rev() {
            let axis = StridedAxis { extent: dims[i], stride: strides[i], lo: lo[i], hi: hi[i] };
            if axis.extent == 1 && axis.is_whole() {
                continue;
            }
            match all.axes[..all.rank].last_mut() {
                Some(inner)
                    if inner.is_whole() && axis.is_whole() && axis.stride == inner.stride * inner.extent =>
                {
                    inner.extent *= axis.extent;
                    inner.hi = inner.extent;
                }
                _ => {
                    all.axes[all.rank] = axis;
                    all.rank += 1;
                }
            }
        }
        all
    }

    /// The axes.
    pub fn list(&self) -> &[StridedAxis] {
        &self.axes[..self.rank]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_follows_numpy() {
        let b = |x: &[usize], y: &[usize]| Shape::broadcast(&Shape::new(x), &Shape::new(y));
        assert_eq!(b(&[2, 1, 3], &[4, 1]), Some(Shape::new(&[2, 4, 3])));
        assert_eq!(b(&[], &[5]), Some(Shape::new(&[5])));
        assert_eq!(b(&[2], &[3]), None);
    }

    #[test]
    fn stretch_indexes_like_a_materialised_broadcast() {
        let cases: [(&[usize], &[usize]); 7] = [
            (&[], &[2, 3]),
            (&[3], &[2, 4, 3]),
            (&[2, 1, 1], &[2, 4, 3]),
            (&[2, 4, 1], &[2, 4, 3]),
            (&[1, 4, 1], &[2, 4, 3]),
            (&[2, 4, 3], &[2, 4, 3]),
            (&[2, 1, 1, 3], &[2, 1, 1, 3]),
        ];
        for (from, to) in cases {
            let (from, to) = (Shape::new(from), Shape::new(to));
            let stretch = Stretch::between(&from, &to).unwrap();
            let strides = from.strides();
            let lead = to.rank() - from.rank();
            for i in 0..to.len() {
                let want: usize = (0..from.rank())
                    .map(|a| (i / to.strides()[a + lead]) % to[a + lead] % from[a] * strides[a])
                    .sum();
                assert_eq!(stretch.index(i), want, "{from} to {to} at {i}");
            }
        }
        assert_eq!(Stretch::between(&Shape::new(&[2, 1, 3]), &Shape::new(&[2, 4, 3])), None);
    }

    #[test]
    fn axes_that_are_one_run_are_joined() {
        // A whole tensor, a transposition of its first two axes, a padded one.
        let axes = |dims: &[usize], strides: &[usize], lo: &[usize], hi: &[usize]| {
            let found = StridedAxes::joined(dims, strides, lo, hi);
            found.list().iter().map(|axis| (axis.extent, axis.stride)).collect::<Vec<_>>()
        };
        assert_eq!(axes(&[2, 3, 4], &[12, 4, 1], &[0; 3], &[2, 3, 4]), [(24, 1)]);
        assert_eq!(axes(&[3, 2, 4, 1], &[4, 12, 1, 9], &[0; 4], &[3, 2, 4, 1]), [(4, 1), (2, 12), (3, 4)]);
        assert_eq!(axes(&[4, 5], &[3, 1], &[1, 1], &[3, 4]), [(5, 1), (4, 3)]);
        assert_eq!(axes(&[], &[], &[], &[]), []);
    }
}
