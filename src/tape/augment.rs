//! Random changes of training images, as attributes of the op that gathers them: the mathematics that the CPU executor
//! runs and that shaders/gather_augmented.wgsl repeats.

/// Random changes of training images, in this order: brightness and contrast of the pixels, a crop of the padded image,
/// mirroring, a hole. All by integers, on bytes as PIL does them, so that every device does the same to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Augment {
    /// The image is padded by so many pixels on each side, and a box of its own size is cut out anywhere in that;
    /// 0 leaves it where it is. Less than its height and width.
    pub padding: usize,
    /// Pad with the image mirrored at its outermost pixels (`reflect`) instead of zeros.
    pub reflect: bool,
    /// Mirror the crop, left to right, in one of two cases.
    pub flip: bool,
    /// Side of a square that becomes 0, anywhere inside the image (cutout; DeVries and Taylor 2017, "Improved
    /// Regularization of Convolutional Neural Networks with Cutout", in the form of Rice et al. 2020, whose square never
    /// lies half outside). At most height and width; 0 cuts nothing out.
    pub cutout: usize,
    /// Pixels are multiplied by a number within 1 plus or minus this, in parts of [`Augment::ONE`], the same for an image.
    pub brightness: u32,
    /// Distances of pixels from the middle grey, 128, are multiplied so; as `brightness`. (Not from the image's mean, as
    /// PIL has it, which would take a pass over the image for every pixel.)
    pub contrast: u32,
}

/// What [`Augment::choose`] chose for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Row and column of the padded image that the crop begins at.
    pub corner: [usize; 2],
    /// Whether the crop is mirrored.
    pub mirrored: bool,
    /// Row and column that the hole begins at.
    pub hole: [usize; 2],
    /// What pixels are multiplied by, in parts of [`Augment::ONE`].
    pub brightness: u32,
    /// What distances from the middle grey are multiplied by, likewise.
    pub contrast: u32,
}

impl Augment {
    /// Uniform numbers it takes an image.
    pub const DRAWS: usize = 7;

    /// What `brightness` and `contrast` are in parts of: small enough for 16 bits of a random number times it to fit
    /// into 32.
    pub const ONE: u32 = 1 << 14;

    /// Whether it changes nothing.
    pub fn is_none(self) -> bool {
        self == Augment { reflect: self.reflect, ..Augment::default() }
    }

    /// What becomes of an image of height and width `sides`, by its uniform numbers. A number is a multiple of 2^-24; its
    /// upper 16 bits choose, by integers, so that every device chooses the same. (Places and factors are then equally
    /// likely to 1 in 2^16.)
    pub fn choose(self, sides: [usize; 2], uniform: [f64; Augment::DRAWS]) -> Choice {
        let word = |at: usize| (uniform[at] * f64::from(1 << 16)) as u64;
        let below = |at: usize, count: usize| ((word(at) * count as u64) >> 16) as usize;
        let factor =
            |at: usize, most: u32| Augment::ONE - most + ((word(at) * u64::from(2 * most + 1)) >> 16) as u32;
        let places = 2 * self.padding + 1;
        Choice {
            corner: [below(0, places), below(1, places)],
            mirrored: self.flip && word(2) >> 15 == 1,
            hole: [3, 4].map(|at: usize| below(at, sides[at - 3] + 1 - self.cutout)),
            brightness: factor(5, self.brightness),
            contrast: factor(6, self.contrast),
        }
    }

    /// Row or column of the image that row or column `i` of the padded one is, among `extent`; `None` for a zero.
    pub fn inside(self, i: usize, extent: usize) -> Option<usize> {
        let (i, last) = (i as isize - self.padding as isize, extent as isize - 1);
        match self.reflect {
            true => Some((last - (last - i.abs()).abs()) as usize),
            false => (0..=last).contains(&i).then_some(i as usize),
        }
    }

    /// Whether the pixel in this row and column of the result is in the hole that begins at `hole`.
    pub fn is_cut(self, [y, x]: [usize; 2], hole: [usize; 2]) -> bool {
        let cut = |at: usize, from: usize| (from..from + self.cutout).contains(&at);
        cut(y, hole[0]) && cut(x, hole[1])
    }
}

impl Choice {
    /// What becomes of a byte of a pixel.
    pub fn byte(self, byte: u8) -> u8 {
        let half = Augment::ONE / 2;
        let bright = ((u32::from(byte) * self.brightness + half) / Augment::ONE).min(255);
        let far = (bright as i32 - 128) * self.contrast as i32 + half as i32;
        // An arithmetic shift rounds down on both sides of 128, as the shader's does.
        (128 + (far >> Augment::ONE.trailing_zeros())).clamp(0, 255) as u8
    }
}
