"""Checks trained weights with PyTorch alone: the same architecture, the weights loaded strictly, the same images.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors
    venv/bin/python tools/check_torch.py runs/RUN                     # clean and PGD-40 accuracy
    venv/bin/python tools/check_torch.py runs/RUN --logits FILE       # compare logits with those adamant wrote

FILE is a safetensors file with a tensor `logits` of [N, classes] for the first N test images, in order.
"""

import argparse
import gzip
import math
import pathlib
import sys

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from torch_models import by_name, load, pgd, state

SAMPLE = pathlib.Path(__file__).parent.parent / "src" / "data" / "sample"


def read_idx(folder, name):
    """An IDX file of bytes (LeCun's MNIST format), plain or .gz."""
    path = next((p for p in [folder / name, folder / f"{name}.gz"] if p.exists()), None)
    if path is None:
        sys.exit(f"{folder}: no {name} and no {name}.gz")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:3] != b"\0\0\x08":
        sys.exit(f"{path}: not an IDX file of bytes")
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape.astype(int))


def build(path, name, image):
    """The model called `name`, or without a name the one that the file says, for images (channels, rows, columns)."""
    with safe_open(path, "np") as file:
        name = name or (file.metadata() or {}).get("model")
    if name is None:
        sys.exit(f"{path} does not say what model it is of: give its name by --model")
    tensors = load_file(path)
    # The bias of the last layer.
    last = list(state(by_name(name, image)))[-1]
    if last not in tensors:
        sys.exit(f"{path}: no tensor `{last}`, so these are not weights of `{name}`")
    return name, load(by_name(name, image, len(tensors[last])), tensors).eval()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("weights", type=pathlib.Path, help="a safetensors file, or a folder that holds one")
    arguments.add_argument("--model", help="architecture, as adamant calls it (default: what the file says)")
    arguments.add_argument("--data", type=pathlib.Path, default=SAMPLE, help="folder with the t10k IDX files")
    arguments.add_argument("--images", type=int, default=2000, help="how many test images, from the first")
    arguments.add_argument("--logits", type=pathlib.Path, help="compare with these logits instead of attacking")
    arguments.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of a logit allowed")
    arguments.add_argument("--epsilon", type=float, default=0.3)
    arguments.add_argument("--step", type=float, default=0.01)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--batch", type=int, default=500)
    options = arguments.parse_args()

    path = options.weights
    if path.is_dir():
        names = ["best.safetensors", "weights.safetensors", "last.safetensors"]
        path = next((path / n for n in names if (path / n).exists()), None)
        if path is None:
            sys.exit(f"{options.weights}: holds none of {', '.join(names)}")
    images = read_idx(options.data, "t10k-images-idx3-ubyte")[: options.images]
    images = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    labels = torch.from_numpy(read_idx(options.data, "t10k-labels-idx1-ubyte")[: options.images].astype(np.int64))
    name, model = build(path, options.model, tuple(images.shape[1:]))
    print(f"{path}: {name}, {len(images)} test images of {options.data}")

    with torch.no_grad():
        logits = torch.cat([model(x) for x in images.split(options.batch)])
    if options.logits:
        theirs = load_file(options.logits)["logits"][: len(logits)]
        ours = logits[: len(theirs)]
        difference = (ours - theirs).abs().max().item()
        agree = (ours.argmax(1) == theirs.argmax(1)).float().mean().item()
        print(f"{len(ours)} images: largest difference of a logit {difference:.2e}, {agree:.2%} of the answers agree")
        # Written so that NaN fails.
        sys.exit(0 if difference <= options.tolerance else f"more than {options.tolerance}")

    clean = logits.argmax(1) == labels
    torch.manual_seed(0)
    robust = []
    for x, y in zip(images.split(options.batch), labels.split(options.batch)):
        start = (x + options.epsilon * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        *_, adversarial = pgd(model, x, y, start, options.epsilon, options.step, options.steps)
        with torch.no_grad():
            robust.append(model(adversarial).argmax(1) == y)
    robust = torch.cat(robust) & clean
    line = f"PGD-{options.steps}, Linf {options.epsilon:g}, step {options.step:g}, random start, {len(images)} images"
    error = 100 * math.sqrt(0.25 / len(images))
    print(f"clean {clean.float().mean():.2%}")
    print(f"robust {robust.float().mean():.2%} ({line}; standard error at most {error:.1f} points)")


if __name__ == "__main__":
    main()
