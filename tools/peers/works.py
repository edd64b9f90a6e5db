"""The works: what is computed, on which numbers, and what counts as the right result."""

import hashlib
import json
import math

import numpy as np

# How much a result may differ from PyTorch's (in f64), as a share of the tensor's largest magnitude.
TOLERANCE = 1e-4
# Other limits: gradients of weights (all together, as the length of the difference over the length) sum over all
# images, those with a ReLU that turns over (see contest.image_by_image) too; the mean loss of the update depends on each
# contestant's own random start.
LIMITS = {"weight_gradients": 1e-2, "loss": 0.05}
# What half precision, TF32 and AMP are held to: that they compute the same at all. Gradients as the length of the
# difference over the length, since every ReLU whose input is near to zero may turn over.
REDUCED = {"logits": 0.05, "input_gradient": 0.3, "weight_gradients": 0.3, "result": 0.02, "loss": 0.05}
# Linf PGD as each work has it.
MNIST = {"epsilon": "0.3", "step_size": "0.05", "learning_rate": 1e-3}
CIFAR = {"epsilon": "8/255", "step_size": "2/255", "learning_rate": 1e-3}


def train(net, batch, steps, numbers):
    return {"kind": "train", "net": net, "batch": batch, "steps": steps, **numbers}


def convolution(what, size, inputs, outputs, batch=32):
    return {"kind": "convolution", "what": what, "batch": batch, "size": size, "inputs": inputs, "outputs": outputs}


SHAPES = {
    "64 at 32x32": (32, 64, 64),
    "128 at 16x16": (16, 128, 128),
    "256 at 8x8": (8, 256, 256),
    "512 at 4x4": (4, 512, 512),
}
STEPS = [1, 5, 10, 20, 50]
BATCHES = [16, 32, 64, 128, 256, 512]
WHATS = {"forward": "forward", "input gradient": "input_gradient", "weight gradient": "weight_gradient"}

WORKS = {
    "W1": train("cnn", 128, 10, MNIST),
    "W2a": {"kind": "logits", "net": "resnet18", "batch": 128},
    "W2b": {"kind": "gradient", "net": "resnet18", "batch": 128},
    "W2c": train("resnet18", 32, 10, CIFAR),
    "W2 standard": train("resnet18", 32, 0, CIFAR),
    "W2c 128": train("resnet18", 128, 10, CIFAR),
    **{f"W3 {name}, {shape}": convolution(what, *extents) for name, what in WHATS.items() for shape, extents in SHAPES.items()},
    "W3 forward, 3-64 at 32x32": convolution("forward", 32, 3, 64),
    "W3 input gradient, 3-64 at 32x32": convolution("input_gradient", 32, 3, 64),
    "W3 GEMM 1024^3": {"kind": "product", "size": 1024},
    **{f"W4 K {steps}": train("cnn", 128, steps, MNIST) for steps in STEPS if steps != 10},
    **{f"W4 batch {batch}": train("cnn", batch, 10, MNIST) for batch in BATCHES if batch != 128},
}  # fmt: skip

IMAGES = {"cnn": (1, 28, 28), "resnet18": (3, 32, 32)}


def flops(work):
    """Floating-point operations of a convolution or product, None for a network."""
    if work["kind"] == "product":
        return 2 * work["size"] ** 3
    if work["kind"] == "convolution":
        return 2 * work["batch"] * work["size"] ** 2 * 9 * work["inputs"] * work["outputs"]
    return None


def shapes(net):
    """The network's parameters by their names in PyTorch."""
    if net == "cnn":
        layers = {
            "conv1": (32, 1, 3, 3),
            "conv2": (64, 32, 3, 3),
            "conv3": (64, 64, 3, 3),
            "fc1": (128, 3136),
            "fc2": (10, 128),
        }
        return {
            f"{layer}.{part}": s if part == "weight" else s[:1]
            for layer, s in layers.items()
            for part in ("weight", "bias")
        }
    found = {}

    def norm(name, channels):
        found.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    found["conv1.weight"] = (64, 3, 3, 3)
    norm("bn1", 64)
    inputs = 64
    for stage in range(4):
        outputs = 64 << stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            found[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            norm(f"{name}.bn1", outputs)
            found[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                found[f"{name}.shortcut.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{name}.shortcut.1", outputs)
            inputs = outputs
    return found | {"linear.weight": (10, 512), "linear.bias": (10,)}


def parameter(name, shape, random):
    """A parameter drawn as adamant's reference numbers are (tests/reference/README.md)."""
    u = random.random(shape)
    if len(shape) > 1:
        return (2 * u - 1) * math.sqrt(3 / np.prod(shape[1:]))
    return 0.5 + u if name.endswith(("weight", "running_var")) else (2 * u - 1) * 0.1


def inputs(work):
    """Weights and inputs as f32 arrays in PyTorch's layout, a function of the work alone."""
    random = np.random.Generator(np.random.PCG64(int(key(work), 16)))
    if work["kind"] == "product":
        n = work["size"]
        made = {name: random.random((n, n)) * 2 - 1 for name in ("a", "b")}
    elif work["kind"] == "convolution":
        n, s, c, k = (work[name] for name in ("batch", "size", "inputs", "outputs"))
        extents = {"x": (n, c, s, s), "dy": (n, k, s, s), "filter": (k, c, 3, 3)}
        del extents[{"forward": "dy", "input_gradient": "x", "weight_gradient": "filter"}[work["what"]]]
        made = {name: random.random(shape) * 2 - 1 for name, shape in extents.items()}
    else:
        made = {f"weights.{name}": parameter(name, shape, random) for name, shape in shapes(work["net"]).items()}
        # Multiples of 1/255, as adamant keeps its data sets in bytes.
        made["images"] = random.integers(0, 256, (work["batch"], *IMAGES[work["net"]])).astype(np.float32) / np.float32(
            255
        )
        made["labels"] = random.integers(0, 10, work["batch"])
    return {name: np.asarray(array, np.float32) for name, array in made.items()}


def key(work):
    """A short name for a work's files, a function of all that is in it."""
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:16]
