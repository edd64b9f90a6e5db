//! What residual networks share: their stem for small images, their stages of blocks, the pre-activation block.

use crate::nn::{Conv2d, Net, Pool, Scheme, Var};

/// Channels of the first stage unless a name says otherwise.
pub(super) const WIDTH: usize = 64;

/// What follows a network's name for this width, where `usual` is not spelt out.
pub(super) fn write_width(width: usize, usual: usize) -> String {
    if width == usual { String::new() } else { format!("-w{width}") }
}

/// What a network is for: its stem, and the names that its reference gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 7x7 convolution of stride 2 and 3x3 maximum pooling of stride 2: torchvision.
    ImageNet,
    /// 3x3 convolution: pytorch-cifar.
    Cifar,
}

impl Stem {
    /// Names of a block's shortcut and of the last layer.
    pub(super) fn names(self) -> [&'static str; 2] {
        match self {
            Stem::ImageNet => ["downsample", "fc"],
            Stem::Cifar => ["shortcut", "linear"],
        }
    }

    /// How its reference draws convolutions: torchvision by He's rule, pytorch-cifar by PyTorch's default.
    pub(super) fn scheme(self) -> Scheme {
        match self {
            Stem::ImageNet => Scheme::HeNormal,
            Stem::Cifar => Scheme::Torch,
        }
    }

    /// Records it: convolution with `width` channels, batch norm, relu, pooling where there is one.
    pub(super) fn record<'t>(self, net: &Net<'t>, x: Var<'t>, width: usize) -> Var<'t> {
        match self {
            Stem::ImageNet => {
                let conv = Conv2d { stride: [2, 2], padding: [3, 3], ..Conv2d::default() };
                let x = net.conv("conv1", x, width, [7, 7], conv, false);
                net.batch_norm("bn1", x).relu().max_pool(Pool::square(3, 2, 1))
            }
            Stem::Cifar => net.batch_norm("bn1", conv3x3(net, "conv1", x, width, 1)).relu(),
        }
    }
}

/// The extents of a block.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Channels of its 3x3 convolutions.
    pub(super) channels: usize,
    /// Channels it gives.
    pub(super) outputs: usize,
    /// Stride of the convolution that strides.
    pub(super) stride: usize,
    /// Whether its shortcut needs a convolution: extents or channels change.
    pub(super) shortcut: bool,
}

/// Stages of blocks: the first of a stage strides, all others keep the extents.
pub(super) struct Stages<'a> {
    /// Channels that enter.
    pub(super) inputs: usize,
    /// Blocks in each stage.
    pub(super) blocks: &'a [usize],
    /// Channels of the 3x3 convolutions of the first stage; each stage has twice as many as the one before.
    pub(super) width: usize,
    /// A block gives so many times the channels of its 3x3 convolutions.
    pub(super) expansion: usize,
}

impl Stages<'_> {
    /// Records the stages, each block under the name that `name` gives it by stage (from 1) and index. The first stage
    /// has stride 1, the others 2.
    pub(super) fn record<'t>(
        &self,
        net: &Net<'t>,
        mut x: Var<'t>,
        name: impl Fn(usize, usize) -> String,
        block: impl Fn(&Net<'t>, Var<'t>, Block) -> Var<'t>,
    ) -> Var<'t> {
        // By the architecture's own arithmetic, not by shapes: those of a failed recording say nothing.
        let mut before = self.inputs;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            let channels = self.width << stage;
            let outputs = channels * self.expansion;
            for index in 0..blocks {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let shortcut = stride != 1 || before != outputs;
                let extents = Block { channels, outputs, stride, shortcut };
                x = net.within(&name(stage + 1, index), || block(net, x, extents));
                before = outputs;
            }
        }
        x
    }
}

/// `layer1.0`, `layer1.1`, ...: how PyTorch's ResNets name their blocks.
pub(super) fn layer(stage: usize, index: usize) -> String {
    format!("layer{stage}.{index}")
}

/// What the convolution of a pre-activation block's shortcut takes, where there is one; and its name.
#[derive(Clone, Copy)]
pub(super) enum Shortcut {
    /// The first activation, after batch norm and relu.
    Activated(&'static str),
    /// What the block was given.
    Raw(&'static str),
}

/// Batch norm, relu, convolution, twice (He et al., "Identity mappings in deep residual networks", 2016). `between` is
/// what happens to the second activation: dropout, or nothing.
pub(super) fn preactivated<'t>(
    net: &Net<'t>,
    x: Var<'t>,
    block: Block,
    shortcut: Shortcut,
    between: impl Fn(Var<'t>) -> Var<'t>,
) -> Var<'t> {
    let first = net.batch_norm("bn1", x).relu();
    let y = conv3x3(net, "conv1", first, block.channels, block.stride);
    let y = between(net.batch_norm("bn2", y).relu());
    let y = conv3x3(net, "conv2", y, block.channels, 1);
    let (name, of) = match shortcut {
        Shortcut::Activated(name) => (name, first),
        Shortcut::Raw(name) => (name, x),
    };
    y + if block.shortcut { conv1x1(net, name, of, block.outputs, block.stride) } else { x }
}

/// A 1x1 convolution without bias.
pub(super) fn conv1x1<'t>(net: &Net<'t>, name: &str, x: Var<'t>, channels: usize, stride: usize) -> Var<'t> {
    let strided = Conv2d { stride: [stride; 2], ..Conv2d::default() };
    net.conv(name, x, channels, [1, 1], strided, false)
}

/// A 3x3 convolution without bias, padded by 1.
pub(super) fn conv3x3<'t>(net: &Net<'t>, name: &str, x: Var<'t>, channels: usize, stride: usize) -> Var<'t> {
    let conv = Conv2d { stride: [stride; 2], padding: [1, 1], ..Conv2d::default() };
    net.conv(name, x, channels, [3, 3], conv, false)
}
