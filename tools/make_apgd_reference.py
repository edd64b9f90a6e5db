"""Computes tests/reference/apgd.safetensors: what the official AutoAttack's APGD does on a small network, in float64.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors pyautoattack
    venv/bin/python tools/make_apgd_reference.py

Weights, images and starting noise are not stored: they are drawn by tools/drawn.py, which is src/philox.rs. tests/attacks/apgd_reference.rs
draws the same and holds adamant's APGD against these numbers, run by run and for runs of several lengths (each of which
has windows of its own): the best loss of each example, and whether it was broken. The radius is the one that adamant's
projections use.

Beside them: values and gradients of DLR and targeted DLR at random logits.
"""

import pathlib

import numpy as np
import torch
from drawn import START, draw, images, network, normal, tensor
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from safetensors.numpy import save_file

FILE = pathlib.Path(__file__).parent.parent / "tests" / "reference" / "apgd.safetensors"
BATCH, ROWS = 24, 6
PIXELS = ROWS * ROWS
LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 100]
EPSILON = {"Linf": 0.025, "L2": 0.15}
TARGETS = 4

torch.set_default_dtype(torch.float64)
MODEL, IMAGES = network(PIXELS, 0.6), images(BATCH, ROWS, 1)


def radius(norm):
    """What adamant's projections use for these epsilons."""
    ulp = 2.0**-24
    if norm == "Linf":
        return EPSILON[norm] - ulp
    return EPSILON[norm] * (1 - 4e-6) - PIXELS**0.5 * ulp


def start(norm, eps, run):
    make = (lambda i: 2 * draw(START, [run, 0], i, PIXELS) - 1) if norm == "Linf" else (lambda i: normal(START, [run, 0], i, PIXELS))
    noise = torch.from_numpy(np.stack([make(i) for i in range(BATCH)])).reshape(IMAGES.shape)
    attack = APGDAttack(MODEL, eps=eps, norm=norm)
    attack.init_hyperparam(IMAGES)
    return (IMAGES + eps * attack.normalize(noise)).clamp(0, 1)


def runs(tensors, norm):
    labels = MODEL(IMAGES).argmax(1)
    eps = radius(norm)
    order = MODEL(IMAGES).sort(dim=1)[1]
    for steps in LENGTHS:
        for loss in ["ce", "dlr"]:
            attack = APGDAttack(MODEL, n_iter=steps, eps=eps, norm=norm, loss=loss)
            keep(tensors, f"{norm}.{loss}.{steps}", attack, labels, start(norm, eps, 0))
        for target in range(TARGETS):
            attack = APGDAttack_targeted(MODEL, n_iter=steps, eps=eps, norm=norm)
            attack.y_target = order[:, -target - 2]
            keep(tensors, f"{norm}.dlr-targeted.{steps}.{target}", attack, labels, start(norm, eps, target))


def keep(tensors, name, attack, labels, begin):
    attack.init_hyperparam(IMAGES)
    _, stands, best, _ = attack.attack_single_run(IMAGES, labels, x_init=begin)
    tensors[f"{name}.loss"] = best.numpy()
    tensors[f"{name}.stands"] = stands.numpy().astype(np.uint8)


def ratios(tensors):
    for classes in [3, 4, 10]:
        logits = tensor(100 + classes, (BATCH, classes), 4.0).requires_grad_()
        labels = torch.arange(BATCH) % classes
        attack = APGDAttack(MODEL, eps=1.0)
        gradient(tensors, f"dlr {classes}", attack.dlr_loss(logits, labels), logits)
        if classes > 3:
            attack = APGDAttack_targeted(MODEL, eps=1.0)
            attack.y_target = (torch.arange(BATCH) + 1) % classes
            gradient(tensors, f"dlr-targeted {classes}", attack.dlr_loss_targeted(logits, labels), logits)


def gradient(tensors, name, loss, logits):
    tensors[f"{name}.loss"] = loss.detach().numpy()
    tensors[f"{name}.gradient"] = torch.autograd.grad(loss.sum(), logits)[0].numpy()


def main():
    tensors = {}
    for norm in EPSILON:
        runs(tensors, norm)
    ratios(tensors)
    tensors["labels"] = MODEL(IMAGES).argmax(1).numpy().astype(np.uint32)
    text = "tools/make_apgd_reference.py, pyautoattack 0.2.0"
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, FILE, {"tensors": text})
    for name, stands in tensors.items():
        if name.endswith(".stands"):
            print(name, int(stands.sum()), "of", BATCH)
    print(FILE, FILE.stat().st_size, "bytes; labels", tensors["labels"])


if __name__ == "__main__":
    main()
