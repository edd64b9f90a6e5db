"""Computes the reference numbers under tests/reference/ with PyTorch, in float64 on the CPU.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors
    venv/bin/python tools/make_reference.py

Weights and inputs are not stored: `formula` below gives them, and tests/reference/mod.rs gives the same bits in
Rust. tests/reference/README.md says what every stored tensor is.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import functional as F

from torch_models import by_name, load, pgd, state

FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "reference"
# Tensors up to DOUBLE elements are stored in f64, up to FULL in f32, larger ones as a digest.
DOUBLE, FULL, SAMPLES, PROJECTIONS = 1024, 8192, 1024, 4


def splitmix64(x):
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014), elementwise, modulo 2^64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashes(number, count):
    return splitmix64((np.uint64(number) << np.uint64(32)) + np.arange(count, dtype=np.uint64))


def uniform(number, shape):
    """Multiples of 2^-24 in [0, 1) for tensor `number`, in f64."""
    return ((hashes(number, int(np.prod(shape))) >> np.uint64(40)) * 2.0**-24).reshape(shape)


def formula(name, number, shape):
    """Tensor `number` of a state dict: computed in f64, rounded once to f32, returned as f64."""
    u = uniform(number, shape)
    if len(shape) > 1:
        values = (u * 2 - 1) * np.sqrt(3.0 / np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        values = 0.5 + u
    else:  # a bias or a running mean
        values = (u * 2 - 1) * 0.1
    return torch.from_numpy(values.astype(np.float32).astype(np.float64))


class Store(dict):
    """What goes into one file."""

    def put(self, name, tensor):
        values = tensor.detach().numpy()
        if values.size <= DOUBLE:
            self[name] = values.copy()
        elif values.size <= FULL:
            self[name] = values.astype(np.float32)
        else:
            flat = values.reshape(-1)
            picked = np.arange(SAMPLES) * flat.size // SAMPLES
            directions = [2 * uniform(1_000_000 + k, flat.shape) - 1 for k in range(PROJECTIONS)]
            self[name + "#sample"] = flat[picked].astype(np.float32)
            self[name + "#stats"] = np.array(
                [np.abs(flat).max(), np.linalg.norm(flat), *(direction @ flat for direction in directions)]
            )

    def put_all(self, prefix, tensors):
        for name, tensor in tensors.items():
            self.put(f"{prefix}.{name}", tensor)

    def save(self, file, text):
        save_file({name: np.ascontiguousarray(t) for name, t in self.items()}, FOLDER / file, {"tensors": text})


def gradients(store, prefix, model, images, labels):
    """Logits, mean cross-entropy and its gradient by the input and by every parameter."""
    model.zero_grad()
    x = images.clone().requires_grad_()
    logits = model(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    store.put(f"{prefix}.logits", logits)
    store.put(f"{prefix}.loss", loss)
    store.put(f"{prefix}.grad.input", x.grad)
    store.put_all(f"{prefix}.grad", {name: p.grad for name, p in model.named_parameters()})


def attack(store, prefix, model, images, labels, start, epsilon, step):
    """Five steps of PGD; x after each."""
    for i, x in enumerate(pgd(model, images, labels, start, epsilon, step, 5), start=1):
        store.put(f"{prefix}.x{i}", x)
    on_ball = ((x - images).abs() > epsilon - 1e-9).sum()
    on_box = ((x == 0) | (x == 1)).sum()
    assert on_ball > 0 and on_box > 0, "projection and clipping must both bind"


def apart(parameters):
    """Groups of an optimiser: biases without weight decay."""
    parameters = list(parameters)
    biases = [p for p in parameters if p.dim() == 1]
    return [{"params": [p for p in parameters if p.dim() > 1]}, {"params": biases, "weight_decay": 0.0}]


def optimisers(store, fresh, images, labels):
    """Weights after three steps on the same batch, full gradients, for each update rule."""
    rules = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=5e-4),
        "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=1e-2),
        "adam-numbers": lambda p: torch.optim.Adam(p, lr=2e-3, betas=(0.5, 0.9), eps=1e-2),
        # Decay on weights alone, as on the 'DW' variables of Madry et al.
        "sgd-weights": lambda p: torch.optim.SGD(apart(p), lr=0.1, momentum=0.9, weight_decay=5e-2),
        "adamw-weights": lambda p: torch.optim.AdamW(apart(p), lr=2e-3, weight_decay=1.0),
    }
    for name, rule in rules.items():
        model = fresh()
        optimiser = rule(model.parameters())
        for _ in range(3):
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimiser.step()
        store.put_all(f"after.{name}", state(model))


def penalty(store, model, images, labels):
    """Gradient of a gradient: by every parameter, of the mean over the batch of |d CE / d x|^2."""
    x = images.clone().requires_grad_()
    (dx,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x, create_graph=True)
    value = dx.square().sum((1, 2, 3)).mean()
    names, parameters = zip(*model.named_parameters())
    grads = torch.autograd.grad(value, parameters)
    store.put("penalty.value", value)
    store.put_all("penalty.grad", dict(zip(names, grads, strict=True)))


def model_file(name, batch, image, epsilon, step):
    build = lambda: by_name(name, image)
    shapes = {key: tuple(t.shape) for key, t in state(build()).items()}

    def fresh(train=False):
        tensors = {key: formula(key, number, shape) for number, (key, shape) in enumerate(shapes.items())}
        return load(build().double(), tensors).train(train)

    count = len(shapes)
    shape = (batch, *image)
    images = torch.from_numpy(uniform(count, shape))  # multiples of 2^-24 are f32 already
    noise = uniform(count + 1, shape) * 2 - 1
    start = np.clip(images.numpy() + epsilon * noise, 0, 1).astype(np.float32).astype(np.float64)
    start = torch.from_numpy(start)
    labels = torch.from_numpy((hashes(count + 2, batch) % np.uint64(10)).astype(np.int64))

    store = Store()
    # A few values of the formula, for the Rust side to hold itself against.
    known = [formula(key, number, shape) for number, (key, shape) in enumerate(shapes.items())] + [images, start]
    known = [t.flatten()[[0, t.numel() // 2, -1]] for t in known]
    store["formula"] = torch.stack(known).numpy().astype(np.float32)
    store["labels"] = labels.numpy()

    model = fresh()
    gradients(store, "eval", model, images, labels)
    attack(store, "pgd", model, images, labels, start, epsilon, step)
    if any(key.endswith("running_mean") for key in shapes):
        for prefix, function, numbers in [("train", gradients, ()), ("pgd-train", attack, (start, epsilon, step))]:
            model = fresh(train=True)
            function(store, prefix, model, images, labels, *numbers)
            store.put_all(f"{prefix}.after", {key: t for key, t in state(model).items() if "running" in key})
    if name == "mnist-fast":
        optimisers(store, fresh, images, labels)
        penalty(store, fresh(), images, labels)
    rows = [*shapes.items(), ("images", shape), ("start", shape), ("labels", (batch,))]
    text = "\n".join(f"{key} {'x'.join(map(str, extents))}" for key, extents in rows)
    store.save(f"{name}.safetensors", text)


class Ops(Store):
    """Cases of single ops: each stores what goes in, what comes out, and gradients of sum(dy * y)."""

    number = 0

    def input(self, shape, low=-2.0, high=2.0):
        """Floats that f32 holds exactly."""
        self.number += 1
        values = (low + (high - low) * uniform(self.number, shape)).astype(np.float32)
        return torch.from_numpy(values.astype(np.float64))

    def case(self, name, function, **inputs):
        # Copies: gradients of cases that share an input must not add up.
        tensors = {key: torch.as_tensor(x, dtype=torch.float64).clone().requires_grad_() for key, x in inputs.items()}
        y = function(*tensors.values())
        dy = self.input(tuple(y.shape))
        y.backward(dy)
        self.put_all(name, {**tensors, "y": y, "dy": dy})
        self.put_all(name, {f"d{key}": x.grad for key, x in tensors.items()})


def ops_file():
    ops = Ops()
    x = ops.input
    labels = torch.tensor([2, 0, 4, 1])
    # Logits from flat to far beyond what exp can hold.
    logits = torch.cat([x((2, 5)), x((1, 5)) * 40, torch.tensor([[1e4, -1e4, 0.0, 1e4, 3.0]])])
    soft = x((4, 5), 0.0, 1.0)
    soft = (soft / soft.sum(1, keepdim=True)).float().double()
    ops["labels"] = labels.numpy()
    ops.case("softmax", lambda x: F.softmax(x, 1), x=logits)
    ops.case("log_softmax", lambda x: F.log_softmax(x, 1), x=logits)
    ops.case("cross_entropy", lambda x: F.cross_entropy(x, labels, reduction="none"), x=logits)
    ops.case("cross_entropy.smooth", lambda x: F.cross_entropy(x, labels, reduction="none", label_smoothing=0.1), x=logits)
    ops.case("cross_entropy.soft", lambda x: F.cross_entropy(x, soft, reduction="none"), x=logits)
    ops.put("cross_entropy.soft.target", soft)
    # KL(softmax(p) || softmax(q)) per example, gradient through both, as TRADES needs it.
    kl = lambda p, q: F.kl_div(F.log_softmax(q, 1), F.log_softmax(p, 1), reduction="none", log_target=True).sum(1)
    ops.case("kl", kl, p=x((4, 5)), q=x((4, 5)) * 4)

    line = torch.cat([torch.linspace(-6, 6, 25), torch.tensor([-30.0, 30.0, 1e-4])])
    for name, function in {
        "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "erf": torch.erf,
        "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.1), "abs": torch.abs,
        "clamp": lambda x: x.clamp(-1.5, 2.0),
    }.items():  # fmt: skip
        ops.case(name, lambda x, function=function: function(x), x=line)

    tied = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    ops.case("amax", lambda x: x.amax(1), x=tied)
    ops.case("maximum", torch.maximum, a=tied, b=[[1.0, 2.0, 4.0], [2.0, 1.0, 3.0]])
    ops.case("minimum", torch.minimum, a=tied, b=[[1.0, 2.0, 4.0], [2.0, 1.0, 3.0]])

    convolutions = {  # input, filter, stride, padding, dilation, groups
        "plain": ((2, 3, 5, 7), (4, 3, 3, 3), 1, 0, 1, 1),
        "stride": ((2, 3, 8, 7), (4, 3, 4, 4), 2, 1, 1, 1),
        "uneven": ((1, 2, 9, 6), (3, 2, 3, 2), (2, 3), (2, 1), (1, 2), 1),
        "dilated": ((1, 2, 9, 9), (3, 2, 3, 3), 1, 2, 2, 1),
        "groups": ((2, 4, 5, 5), (6, 2, 3, 3), 1, 1, 1, 2),
        "depthwise": ((1, 4, 6, 6), (8, 1, 3, 3), 2, 1, 1, 4),
        "pointwise": ((2, 4, 5, 5), (3, 4, 1, 1), 2, 0, 1, 1),
    }
    for name, (input_shape, filter_shape, *attributes) in convolutions.items():
        ops.case(f"conv2d.{name}", lambda x, w, a=attributes: F.conv2d(x, w, None, *a), x=x(input_shape), w=x(filter_shape))

    ops.case("avg_pool.padded", lambda x: F.avg_pool2d(x, 3, 2, 1), x=x((2, 3, 6, 7)))
    # All below zero, so that padding would win if it counted as zero; rounded, so that windows hold ties.
    below = x((2, 3, 6, 7), -4.0, -1.0).round()
    ops.case("max_pool.padded", lambda x: F.max_pool2d(x, 3, 2, 1), x=below)
    ops.case("max_pool.overlap", lambda x: F.max_pool2d(x, (3, 2), (1, 2)), x=below)

    for name, train in {"train": True, "eval": False}.items():
        mean, var = x((3,)), x((3,), 0.5, 1.5)
        ops.put(f"batch_norm.{name}.running_mean", mean)
        ops.put(f"batch_norm.{name}.running_var", var)
        function = lambda x, w, b: F.batch_norm(x, mean, var, w, b, training=train, momentum=0.1, eps=1e-5)
        ops.case(f"batch_norm.{name}", function, x=x((2, 3, 4, 5)), w=x((3,)), b=x((3,)))
        ops.put(f"batch_norm.{name}.running_mean.after", mean)
        ops.put(f"batch_norm.{name}.running_var.after", var)
    ops.save("ops.safetensors", "")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    mnist = dict(batch=4, image=(1, 28, 28), epsilon=0.3, step=0.1)
    cifar = dict(batch=2, image=(3, 32, 32), epsilon=8 / 255, step=2 / 255)
    for name in ["mlp", "mnist-fast", "mnist-madry", "lenet5", "small-cnn"]:
        model_file(name, **mnist)
    for name in ["preact-resnet18-w4", "resnet18-w4", "vgg11-bn-w2"]:
        model_file(name, **cifar)
    # Smaller images make smaller files; the last maps are 2x2 or 4x4, so that batch norm has something to norm.
    # Where batch norm has few values, deep networks are so ill-conditioned that PyTorch's own f32 differs from its f64
    # by 1e-4 (resnet34-w2 on two images of 16x16) or 3e-3 (resnet50, at any of a dozen sizes tried).
    for name, side, batch in [
        ("preact-resnet18-gradalign-w2", 16, 2), ("resnet34-w2", 12, 6), ("resnet50-w2", 36, 2),
        ("resnet50-cifar-w2", 16, 2), ("wide-resnet-16-2", 8, 2), ("convnext-tiny-w4", 32, 2),
    ]:  # fmt: skip
        model_file(name, **{**cifar, "image": (3, side, side), "batch": batch})
    ops_file()
    for file in sorted(FOLDER.glob("*.safetensors")):
        print(f"{file.name}: {file.stat().st_size} bytes")
