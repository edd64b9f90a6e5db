"""The architectures in PyTorch, with the parameter names that adamant's weight files carry.

Shared by make_reference.py and check_torch.py; sources are named per model.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


def mlp(image=(1, 28, 28), classes=10, hidden=(100,)):
    """Hidden layers of these widths on flattened pixels."""
    layers, inputs = [nn.Flatten()], image[0] * image[1] * image[2]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def mnist_fast(image=(1, 28, 28), classes=10):
    """MNIST network of Wong, Rice and Kolter 2020 (fast_adversarial, MNIST/mnist_net.py)."""
    channels, rows, columns = image
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (rows // 2 // 2) * (columns // 2 // 2), 100), nn.ReLU(),
        nn.Linear(100, classes),
    )  # fmt: skip


class MnistMadry(nn.Module):
    """MNIST network of Madry et al. 2018 (mnist_challenge, model.py), its features flattened in PyTorch's order."""

    def __init__(self, image=(1, 28, 28), classes=10):
        super().__init__()
        channels, rows, columns = image
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * (rows // 4) * (columns // 4), 1024)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with relu and maximum pooling, as in PyTorch's tutorials; 28x28 images are padded by 2."""

    def __init__(self, image=(1, 28, 28), classes=10):
        super().__init__()
        channels, *sides = image
        pad = 2 if min(sides) < 32 else 0
        rows, columns = (((side + 2 * pad - 4) // 2 - 4) // 2 for side in sides)
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=pad)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * rows * columns, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class SmallCnn(nn.Module):
    """MNIST network of TRADES (Zhang et al. 2019; models/small_cnn.py)."""

    def __init__(self, image=(1, 28, 28), classes=10):
        super().__init__()
        channels, *sides = image
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in sides)
        conv = lambda name, cin, cout: [(f"conv{name}", nn.Conv2d(cin, cout, 3)), (f"relu{name}", nn.ReLU())]
        self.feature_extractor = nn.Sequential(OrderedDict([
            *conv(1, channels, 32), *conv(2, 32, 32), ("maxpool1", nn.MaxPool2d(2, 2)),
            *conv(3, 32, 64), *conv(4, 64, 64), ("maxpool2", nn.MaxPool2d(2, 2)),
        ]))  # fmt: skip
        self.classifier = nn.Sequential(OrderedDict([
            ("fc1", nn.Linear(64 * rows * columns, 200)), ("relu1", nn.ReLU()), ("drop", nn.Dropout(0.5)),
            ("fc2", nn.Linear(200, 200)), ("relu2", nn.ReLU()), ("fc3", nn.Linear(200, classes)),
        ]))  # fmt: skip

    def forward(self, x):
        return self.classifier(self.feature_extractor(x).flatten(1))


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice (He et al. 2016b); the shortcut's convolution reads the activation after BN and ReLU, or the input.

    `raw`: the input.
    """

    def __init__(self, cin, cout, stride, raw=False):
        super().__init__()
        self.raw = raw
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(x if self.raw else out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


def stages(make, blocks, width, cin, expansion=1):
    """Sequences of blocks `make(cin, cout, stride)`; each stage has twice the channels of the one before."""
    for stage, count in enumerate(blocks):
        cout, layers = width << stage, []
        for index in range(count):
            layers.append(make(cin, cout, 2 if stage > 0 and index == 0 else 1))
            cin = cout * expansion
        yield f"layer{stage + 1}", nn.Sequential(*layers)


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for 32x32 images (robust_overfitting, preactresnet.py), `width` channels in the first stage.

    Forms of other code: `fast` (fast_adversarial, CIFAR10/preact_resnet.py) gives the shortcut's convolution the block's
    input; `gradalign` (understanding-fast-adv-training, models.py) that too, and is without the last batch norm and relu;
    `nobn` (pytorch-cifar, models/preact_resnet.py) is without those alone.
    """

    def __init__(self, width=64, channels=3, classes=10, form=""):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        make = lambda cin, cout, stride: PreActBlock(cin, cout, stride, form in ("fast", "gradalign"))
        for name, stage in stages(make, [2, 2, 2, 2], width, width):
            self.add_module(name, stage)
        self.bn = None if form in ("gradalign", "nobn") else nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        x = F.relu(self.bn(x)) if self.bn else x
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """Pre-activation block of TRADES/models/wideresnet.py."""

    def __init__(self, cin, cout, stride, dropout):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.dropout = dropout
        self.convShortcut = nn.Conv2d(cin, cout, 1, stride, bias=False) if cin != cout else None

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.convShortcut(out) if self.convShortcut else x
        out = F.dropout(F.relu(self.bn2(self.conv1(out))), self.dropout, self.training)
        return shortcut + self.conv2(out)


class WideResNet(nn.Module):
    """Wide ResNet of TRADES/models/wideresnet.py, without its unused `sub_block1`."""

    def __init__(self, depth=34, factor=10, channels=3, classes=10, dropout=0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        make = lambda cin, cout, stride: WideBlock(cin, cout, stride, dropout)
        for number, (_, stage) in enumerate(stages(make, [(depth - 4) // 6] * 3, 16 * factor, 16), start=1):
            self.add_module(f"block{number}", nn.Sequential(OrderedDict(layer=stage)))
        self.bn1 = nn.BatchNorm2d(64 * factor)
        self.fc = nn.Linear(64 * factor, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class Block(nn.Module):
    """Conv-BN-ReLU, conv-BN, ReLU of the sum with the shortcut (He et al. 2016a; pytorch-cifar, models/resnet.py)."""

    def __init__(self, cin, cout, stride, shortcut="shortcut"):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        layers = nn.Sequential()
        if stride != 1 or cin != cout:
            layers = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
        self.add_module(shortcut, layers)
        self.name = shortcut

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + getattr(self, self.name)(x))


class ResNet(nn.Module):
    """ResNet-18 and -34 for 32x32 images (kuangliu's pytorch-cifar, models/resnet.py), `width` channels in the first stage.

    `imagenet`: stem and names of torchvision/models/resnet.py.
    """

    def __init__(self, blocks, width=64, channels=3, classes=10, imagenet=False):
        super().__init__()
        self.imagenet = imagenet
        self.conv1 = nn.Conv2d(channels, width, *((7, 2, 3) if imagenet else (3, 1, 1)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        make = lambda cin, cout, stride: Block(cin, cout, stride, "downsample" if imagenet else "shortcut")
        for name, stage in stages(make, blocks, width, width):
            self.add_module(name, stage)
        self.add_module("fc" if imagenet else "linear", nn.Linear(8 * width, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.imagenet else x
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return (self.fc if self.imagenet else self.linear)(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution (torchvision/models/resnet.py)."""

    def __init__(self, cin, cout, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv3 = nn.Conv2d(cout, 4 * cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * cout)
        if stride != 1 or cin != 4 * cout:
            layers = nn.Sequential(nn.Conv2d(cin, 4 * cout, 1, stride, bias=False), nn.BatchNorm2d(4 * cout))
            self.add_module(shortcut, layers)
        self.name = shortcut

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        return F.relu(out + (getattr(self, self.name)(x) if hasattr(self, self.name) else x))


class ResNet50(nn.Module):
    """ResNet-50: torchvision/models/resnet.py, or with `cifar` the stem and names of pytorch-cifar's."""

    def __init__(self, width=64, channels=3, classes=10, cifar=False):
        super().__init__()
        self.cifar = cifar
        stem = (3, 1, 1) if cifar else (7, 2, 3)
        self.conv1 = nn.Conv2d(channels, width, *stem, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        make = lambda cin, cout, stride: Bottleneck(cin, cout, stride, "shortcut" if cifar else "downsample")
        for name, stage in stages(make, [3, 4, 6, 3], width, width, 4):
            self.add_module(name, stage)
        self.add_module("linear" if cifar else "fc", nn.Linear(32 * width, classes))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x if self.cifar else F.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return (self.linear if self.cifar else self.fc)(x.mean((2, 3)))


class Vgg(nn.Module):
    """VGG with batch norm for 32x32 images (kuangliu's pytorch-cifar, models/vgg.py)."""

    def __init__(self, convolutions, width=64, channels=3, classes=10):
        super().__init__()
        layers = []
        for count, times in zip(convolutions, [1, 2, 4, 8, 8]):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width * times, 3, padding=1), nn.BatchNorm2d(width * times), nn.ReLU()]
                channels = width * times
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of NCHW (torchvision/models/convnext.py)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """CNBlock of torchvision/models/convnext.py, without stochastic depth."""

    def __init__(self, dim):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.Identity(), nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim),
        )  # fmt: skip
        self.layer_scale = nn.Parameter(torch.full((dim, 1, 1), 1e-6))

    def forward(self, x):
        y = self.block[0](x).permute(0, 2, 3, 1)
        return x + self.layer_scale * self.block[2:](y).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """ConvNeXt-T (torchvision/models/convnext.py), `width` channels in the first stage, patches of this side."""

    def __init__(self, width=96, channels=3, classes=10, patch=4):
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(channels, width, patch, patch), LayerNorm2d(width, eps=1e-6))]
        for stage, count in enumerate([3, 3, 9, 3]):
            dim = width << stage
            layers.append(nn.Sequential(*(ConvNextBlock(dim) for _ in range(count))))
            if stage < 3:
                layers.append(nn.Sequential(LayerNorm2d(dim, eps=1e-6), nn.Conv2d(dim, 2 * dim, 2, 2)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            LayerNorm2d(8 * width, eps=1e-6), nn.Flatten(1), nn.Linear(8 * width, classes)
        )

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3), keepdim=True))


class Normalized(nn.Module):
    """A network behind the normalisation of its pixels; the constants lie beside its weights, as adamant has them."""

    def __init__(self, model, channels):
        super().__init__()
        self.normalize = nn.Module()
        self.normalize.register_buffer("mean", torch.zeros(channels))
        self.normalize.register_buffer("std", torch.ones(channels))
        self.model = model
        # Under their own names, without "model." before them.
        self._register_state_dict_hook(lambda _, state, __, ___: strip(state))
        self.register_load_state_dict_pre_hook(prefix)

    def forward(self, x):
        return self.model((x - self.normalize.mean[:, None, None]) / self.normalize.std[:, None, None])


def strip(state):
    """Takes "model." off the names of a state dict."""
    for name in [name for name in state if name.startswith("model.")]:
        state[name.removeprefix("model.")] = state.pop(name)


def prefix(_, state, *__):
    """Puts it back."""
    for name in [name for name in state if not name.startswith("normalize.")]:
        state[f"model.{name}"] = state.pop(name)


# What a name begins with, and the network by (width, image, classes, other options).
MODELS = {
    "mlp": lambda w, image, classes, rest: mlp(image, classes, [int(n) for n in rest] or [100]),
    "mnist-fast": lambda w, image, classes, rest: mnist_fast(image, classes),
    "mnist-madry": lambda w, image, classes, rest: MnistMadry(image, classes),
    "lenet5": lambda w, image, classes, rest: LeNet5(image, classes),
    "small-cnn": lambda w, image, classes, rest: SmallCnn(image, classes),
    "preact-resnet18": lambda w, image, classes, rest: PreActResNet18(
        w or 64, image[0], classes, next((r for r in rest if r in ("fast", "gradalign", "nobn")), "")
    ),
    "resnet18": lambda w, image, classes, rest: ResNet([2, 2, 2, 2], w or 64, image[0], classes, "imagenet" in rest),
    "resnet34": lambda w, image, classes, rest: ResNet([3, 4, 6, 3], w or 64, image[0], classes, "imagenet" in rest),
    "resnet50": lambda w, image, classes, rest: ResNet50(w or 64, image[0], classes, "cifar" in rest),
    "wide-resnet": lambda w, image, classes, rest: WideResNet(int(rest[0]), int(rest[1]), image[0], classes),
    "vgg11-bn": lambda w, image, classes, rest: Vgg([1, 1, 2, 2, 2], w or 64, image[0], classes),
    "vgg16-bn": lambda w, image, classes, rest: Vgg([2, 2, 3, 3, 3], w or 64, image[0], classes),
    "convnext-tiny": lambda w, image, classes, rest: ConvNext(
        w or 96, image[0], classes, next((int(r[1:]) for r in rest if r[0] == "p"), 4)
    ),
}


def by_name(name, image=(3, 32, 32), classes=10):
    """The network that adamant calls `name`, as "resnet18-w8-normalized"; `image` is channels, rows, columns."""
    known = max((known for known in MODELS if f"{name}-".startswith(f"{known}-")), key=len, default=None)
    if known is None:
        raise ValueError(f"{name}: no such model; there are {', '.join(MODELS)}")
    rest = [option for option in name[len(known) :].split("-") if option]
    width = next((int(option[1:]) for option in rest if option[0] == "w"), None)
    model = MODELS[known](width, image, classes, [option for option in rest if option != "normalized"])
    return Normalized(model, image[0]) if "normalized" in rest else model


def state(model):
    """The model's state dict without the counters of batch norm, which adamant has no use for."""
    return {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def load(model, tensors):
    """Loads exactly these tensors into the model: a missing, superfluous or misshapen one is an error.

    The counters of batch norm alone may be missing.
    """
    counters = {n: t for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **tensors}, strict=True)
    return model


def pgd(model, x, labels, start, epsilon, step, steps):
    """Iterates of Linf PGD (Madry et al. 2018) on the cross-entropy, inside [0, 1]; yields x after each step."""
    adversarial = start
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = F.cross_entropy(model(adversarial), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = adversarial.detach() + step * gradient.sign()
        adversarial = torch.clamp(torch.maximum(torch.minimum(adversarial, x + epsilon), x - epsilon), 0, 1)
        yield adversarial
