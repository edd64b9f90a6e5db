"""Prints the logits that torchvision's networks of bottlenecks give, for tests/weights/torchvision.rs.

    python3 -m venv venv && venv/bin/pip install torch torchvision numpy
    venv/bin/python tools/make_torchvision.py

Weights and images are a function of their place, so that no file of them is needed: the test makes the same.
"""

import numpy as np
import torch
import torchvision

SIDE, CLASSES = 64, 5


def noise(count, key):
    """Numbers in [-0.5, 0.5), by a hash of (key, index)."""
    x = (np.arange(count, dtype=np.uint64) + np.uint64(key << 32)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5


def values(name, shape, key):
    """A tensor of the state dict."""
    drawn = noise(int(np.prod(shape)), key).reshape(shape)
    if len(shape) > 1:
        return drawn * np.sqrt(24 / np.prod(shape[1:]))
    if name.endswith("running_var"):
        return 1 + drawn
    # Branches are small beside what they are added to.
    return (0.4 + 0.2 * drawn) if name.endswith("weight") else 0.2 * drawn


def main():
    torch.set_default_dtype(torch.float64)
    image = torch.tensor(noise(3 * SIDE * SIDE, 0).reshape(1, 3, SIDE, SIDE) + 0.5)
    for name in ["resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d",
                 "resnext101_64x4d"]:  # fmt: skip
        model = getattr(torchvision.models, name)(num_classes=CLASSES).eval()
        state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
        made = {k: torch.tensor(values(k, tuple(state[k].shape), key)).float() for key, k in enumerate(sorted(state), 1)}
        missing, surplus = model.load_state_dict({k: v.double() for k, v in made.items()}, strict=False)
        assert not surplus and all(k.endswith("num_batches_tracked") for k in missing), (missing, surplus)
        with torch.no_grad():
            print(name, [float(f"{x:.9g}") for x in model(image.float().double())[0]])


if __name__ == "__main__":
    main()
