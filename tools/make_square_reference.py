"""Computes tests/reference/square.safetensors: what the official AutoAttack's Square does under L2 to RGB images, in float64.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors pyautoattack
    venv/bin/python tools/make_square_reference.py

Weights, images and whatever the attack draws are Philox's, as src/philox.rs has them; tests/attacks/square_reference.rs
draws the same. The reference draws for a batch, adamant for an example: here each example is a batch of its own, and what the
attack draws is what adamant draws for it: windows, whether bumps lie side by side, and signs of channels. The radius is the
one that adamant's projections use.
"""

import pathlib

import numpy as np
import torch
from pyautoattack.square import SquareAttack
from safetensors.numpy import save_file
from torch.nn import functional as F

FILE = pathlib.Path(__file__).parent.parent / "tests" / "reference" / "square.safetensors"
BATCH, ROWS, CHANNELS, HIDDEN, CLASSES = 16, 10, 3, 20, 5
NUMBERS = ROWS * ROWS * CHANNELS
QUERIES = [1, 2, 12, 60, 300]
EPSILON = 0.6
KEY = [11, 0]
START, TEST = 4, 6  # purposes
# Streams of the attack's purpose: at the start signs and turns, later rows and columns of both windows, turn, signs.
START_SIGNS, START_TURNS = 0, 7
PLACES, TURN, SIGNS = [1, 2, 3, 4], 5, 6


def philox(key, counter):
    """Philox4x32-10 (Salmon et al. 2011)."""
    mask = 0xFFFFFFFF
    key = list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & mask, (a >> 32) ^ counter[3] ^ key[1], a & mask]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return counter


def draw(purpose, counter, example, count):
    """Uniform numbers of elements 0 to count - 1 of an example."""
    groups = range((count + 3) // 4)
    four = [philox([KEY[0], KEY[1] ^ purpose], [group, example, counter[1], counter[0]]) for group in groups]
    return (np.array(four, dtype=np.uint64).reshape(-1)[:count] >> np.uint64(8)) * 2.0**-24


def tensor(number, shape, bound):
    """Uniform in [-bound, bound), rounded to f32."""
    values = (2 * draw(TEST, [0, 0], number, int(np.prod(shape))) - 1) * bound
    return torch.from_numpy(values.astype(np.float32).astype(np.float64)).reshape(shape)


torch.set_default_dtype(torch.float64)
WEIGHTS = [tensor(0, (NUMBERS, HIDDEN), 0.3), tensor(1, (HIDDEN,), 0.3)]
WEIGHTS += [tensor(2, (HIDDEN, CLASSES), 0.6), tensor(3, (CLASSES,), 0.3)]
# NHWC, as adamant has them.
IMAGES = torch.stack(
    [torch.from_numpy(np.floor(draw(TEST, [1, 0], i, NUMBERS) * 256) / 255) for i in range(BATCH)]
).reshape(BATCH, ROWS, ROWS, CHANNELS)


def model(x):
    w1, b1, w2, b2 = WEIGHTS
    return F.relu(x.permute(0, 2, 3, 1).flatten(1) @ w1 + b1) @ w2 + b2


class Drawn(SquareAttack):
    """The official attack, with what adamant draws for one example."""

    def begin(self, example):
        self.example, self.query, self.places, self.tile = example, 0, 0, 0

    def uniform(self, stream, count):
        return draw(START | stream << 8, [0, self.query], self.example, count)

    def random_int(self, low=0, high=1, shape=[1]):
        # The first place begins a query.
        self.query += self.places == 0
        u = self.uniform(PLACES[self.places], 1)
        self.places = (self.places + 1) % 4
        return torch.tensor(low + (high - low) * u).long()

    def eta(self, s):
        # A turn for each tile of the start, in the order of rows and columns.
        u = self.uniform(START_TURNS, self.tile + 1)[-1] if self.query == 0 else self.uniform(TURN, 1)[0]
        rand, torch.rand = torch.rand, lambda shape: torch.tensor([1.0 if u >= 0.5 else 0.0])
        try:
            return super().eta(s)
        finally:
            torch.rand = rand

    def random_choice(self, shape):
        first = self.tile * CHANNELS if self.query == 0 else 0
        u = self.uniform(START_SIGNS if self.query == 0 else SIGNS, first + CHANNELS)[first:]
        self.tile += 1
        return torch.tensor(np.where(u >= 0.5, 1.0, -1.0)).reshape(shape)


def main():
    ulp = 2.0**-24
    radius = EPSILON * (1 - 4e-6) - NUMBERS**0.5 * ulp
    x = IMAGES.permute(0, 3, 1, 2).contiguous()
    labels = model(x).argmax(1)
    tensors = {"labels": labels.numpy().astype(np.uint32)}
    for queries in QUERIES:
        images = []
        for i in range(BATCH):
            attack = Drawn(model, norm="L2", n_queries=queries, eps=radius, resc_schedule=False)
            attack.begin(i)
            attack.init_hyperparam(x[i : i + 1])
            images.append(attack.attack_single_run(x[i : i + 1], labels[i : i + 1])[1])
        images = torch.cat(images)
        margins = attack.margin_and_loss(images, labels)[0]
        tensors[f"{queries}.margin"] = margins.numpy()
        tensors[f"{queries}.image"] = images.permute(0, 2, 3, 1).numpy().astype(np.float32)
        print(queries, "queries:", int((margins > 0).sum()), "of", BATCH, "stand")
    text = "tools/make_square_reference.py, pyautoattack 0.2.0"
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, FILE, {"tensors": text})
    print(FILE, FILE.stat().st_size, "bytes; labels", tensors["labels"])


if __name__ == "__main__":
    main()
