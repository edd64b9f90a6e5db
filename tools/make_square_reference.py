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
from drawn import START, draw, images, network
from pyautoattack.square import SquareAttack
from safetensors.numpy import save_file

FILE = pathlib.Path(__file__).parent.parent / "tests" / "reference" / "square.safetensors"
BATCH, ROWS, CHANNELS = 16, 10, 3
NUMBERS = ROWS * ROWS * CHANNELS
QUERIES = [1, 2, 12, 60, 300]
EPSILON = 0.6
# Streams of the attack's purpose: at the start signs and turns, later rows and columns of both windows, turn, signs.
START_SIGNS, START_TURNS = 0, 7
PLACES, TURN, SIGNS = [1, 2, 3, 4], 5, 6


torch.set_default_dtype(torch.float64)
MODEL, IMAGES = network(NUMBERS, 0.3), images(BATCH, ROWS, CHANNELS)


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
    labels = MODEL(IMAGES).argmax(1)
    tensors = {"labels": labels.numpy().astype(np.uint32)}
    for queries in QUERIES:
        images = []
        for i in range(BATCH):
            attack = Drawn(MODEL, norm="L2", n_queries=queries, eps=radius, resc_schedule=False)
            attack.begin(i)
            attack.init_hyperparam(IMAGES[i : i + 1])
            images.append(attack.attack_single_run(IMAGES[i : i + 1], labels[i : i + 1])[1])
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
