"""The architectures in PyTorch, with the parameter names that adamant's weight files carry.

Shared by make_reference.py and check_torch.py; sources are named per model.
"""

import torch
from torch import nn
from torch.nn import functional as F


def mlp():
    """784-100-10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))


def mnist_fast():
    """MNIST network of Wong, Rice and Kolter 2020 (fast_adversarial, MNIST/mnist_net.py)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100), nn.ReLU(),
        nn.Linear(100, 10),
    )  # fmt: skip


class MnistMadry(nn.Module):
    """MNIST network of Madry et al. 2018 (mnist_challenge, model.py), its features flattened in PyTorch's order."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 1024)
        self.fc2 = nn.Linear(1024, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice (He et al. 2016b); the shortcut's convolution reads the activation after BN and ReLU."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for 32x32 images (robust_overfitting, preactresnet.py), `width` channels in the first stage."""

    def __init__(self, width=64, channels=3, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        cin = width
        for stage in range(4):
            cout = width << stage
            blocks = [PreActBlock(cin, cout, 1 if stage == 0 else 2), PreActBlock(cout, cout, 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            cin = cout
        self.bn = nn.BatchNorm2d(cin)
        self.linear = nn.Linear(cin, classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(F.relu(self.bn(x)).mean((2, 3)))


class Block(nn.Module):
    """Conv-BN-ReLU, conv-BN, ReLU of the sum with the shortcut (He et al. 2016a; pytorch-cifar, models/resnet.py)."""

    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images (kuangliu's pytorch-cifar, models/resnet.py), `width` channels in the first stage."""

    def __init__(self, width=64, channels=3, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        cin = width
        for stage in range(4):
            cout = width << stage
            self.add_module(
                f"layer{stage + 1}", nn.Sequential(Block(cin, cout, 1 if stage == 0 else 2), Block(cout, cout, 1))
            )
            cin = cout
        self.linear = nn.Linear(cin, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


MODELS = {
    "mlp": mlp, "mnist-fast": mnist_fast, "mnist-madry": MnistMadry,
    "preact-resnet18": PreActResNet18, "resnet18": ResNet18,
}  # fmt: skip


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
