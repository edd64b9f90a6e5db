//! ResNet-50 and its deeper, wider and grouped kin (He et al., "Deep residual learning for image recognition", 2016; the
//! stride on the 3x3 convolution, as in PyTorch. Wider: Zagoruyko and Komodakis, "Wide residual networks", 2016. Grouped:
//! Xie et al., "Aggregated residual transformations", 2017): torchvision/models/resnet.py for ImageNet,
//! pytorch-cifar/models/resnet.py (kuangliu) for small images.

use super::residual::{Block, Stages, Stem, WIDTH, conv1x1, layer, write_width};
use super::{Built, once, options, width};
use crate::nn::{Architecture, Conv2d, Net, Var};

/// A bottleneck gives so many times the channels of its stage.
const EXPANSION: usize = 4;

/// What these networks differ in.
pub struct Form {
    /// The name.
    pub name: &'static str,
    /// Bottlenecks in each stage.
    blocks: [usize; 4],
    /// Groups of the 3x3 convolutions.
    groups: usize,
    /// Channels of each group in the first stage where that has 64.
    base: usize,
}

const fn form(name: &'static str, blocks: [usize; 4], groups: usize, base: usize) -> Form {
    Form { name, blocks, groups, base }
}

/// Those of torchvision.
pub static FORMS: [Form; 8] = [
    form("resnet50", [3, 4, 6, 3], 1, 64),
    form("resnet101", [3, 4, 23, 3], 1, 64),
    form("resnet152", [3, 8, 36, 3], 1, 64),
    form("wide-resnet50-2", [3, 4, 6, 3], 1, 128),
    form("wide-resnet101-2", [3, 4, 23, 3], 1, 128),
    form("resnext50-32x4d", [3, 4, 6, 3], 32, 4),
    form("resnext101-32x8d", [3, 4, 23, 3], 32, 8),
    form("resnext101-64x4d", [3, 4, 23, 3], 64, 4),
];

impl Form {
    /// Which form has so many blocks in its second and third stage, and 3x3 convolutions of so many `outputs` from each
    /// `inputs` in a first stage of `width` channels.
    pub(crate) fn told(
        blocks: [usize; 2],
        width: usize,
        [outputs, inputs]: [usize; 2],
    ) -> Option<&'static Form> {
        let fits = |form: &&Form| {
            form.blocks[1..3] == blocks
                && form.inner(width) == outputs
                && outputs == inputs.saturating_mul(form.groups)
        };
        FORMS.iter().find(fits)
    }

    /// Channels of the 3x3 convolution where a stage has so many.
    fn inner(&self, channels: usize) -> usize {
        channels * self.base / WIDTH * self.groups
    }
}

/// Stem, four stages of bottlenecks, mean over the pixels, linear. ResNet-50 has 25 557 032 parameters for ImageNet's 1000
/// classes, 23 520 842 with the stem for small images and ten classes.
pub struct ResNet50 {
    form: &'static Form,
    input: [usize; 3],
    classes: usize,
    width: usize,
    stem: Stem,
}

/// One of the forms with the options of its name.
pub(super) fn build<const FORM: usize>(text: &str, input: [usize; 3], classes: usize) -> Built {
    let form = &FORMS[FORM];
    let (mut wide, mut stem) = (None, Stem::ImageNet);
    for option in options(text) {
        match option.strip_prefix('w') {
            Some(text) => once(&mut wide, width(text)?, option)?,
            None if option == "cifar" => stem = Stem::Cifar,
            None => {
                return Err(format!("`{option}` is neither a width as `w8`, nor `cifar`, nor `normalized`"));
            }
        }
    }
    let width = wide.unwrap_or(WIDTH);
    if form.inner(width) == 0 {
        let least = WIDTH.div_ceil(form.base);
        return Err(format!("of width {width} has groups without channels: the least width is {least}"));
    }
    Ok(Box::new(ResNet50 { form, input, classes, width, stem }))
}

impl Architecture for ResNet50 {
    fn name(&self) -> String {
        let stem = if self.stem == Stem::Cifar { "-cifar" } else { "" };
        format!("{}{stem}{}", self.form.name, write_width(self.width, WIDTH))
    }

    fn input(&self) -> [usize; 3] {
        self.input
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn forward<'t>(&self, net: &Net<'t>, x: Var<'t>) -> Var<'t> {
        let x = net.images(x, self.input);
        let [shortcut, last] = self.stem.names();
        let x = net.initialised(self.stem.scheme(), || {
            self.stages(net, self.stem.record(net, x, self.width), shortcut)
        });
        net.linear(last, x.global_avg_pool(), self.classes)
    }
}

impl ResNet50 {
    fn stages<'t>(&self, net: &Net<'t>, x: Var<'t>, shortcut: &str) -> Var<'t> {
        let Form { blocks, .. } = self.form;
        let stages = Stages { inputs: self.width, blocks, width: self.width, expansion: EXPANSION };
        stages.record(net, x, layer, |net, x, block| self.bottleneck(net, x, block, shortcut))
    }

    /// 1x1, 3x3 and 1x1 convolution, each with batch norm, relu behind the first two; relu of the sum with the shortcut.
    fn bottleneck<'t>(&self, net: &Net<'t>, x: Var<'t>, block: Block, shortcut: &str) -> Var<'t> {
        let inner = self.form.inner(block.channels);
        let grouped = Conv2d {
            stride: [block.stride; 2],
            padding: [1, 1],
            groups: self.form.groups,
            ..Conv2d::default()
        };
        let y = net.batch_norm("bn1", conv1x1(net, "conv1", x, inner, 1)).relu();
        let y = net.batch_norm("bn2", net.conv("conv2", y, inner, [3, 3], grouped, false)).relu();
        let y = net.batch_norm("bn3", conv1x1(net, "conv3", y, block.outputs, 1));
        let other = match block.shortcut {
            true => net
                .within(shortcut, || net.batch_norm("1", conv1x1(net, "0", x, block.outputs, block.stride))),
            false => x,
        };
        (y + other).relu()
    }
}
