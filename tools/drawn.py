"""Random numbers as adamant draws them, and a small network and images made of them, for the tools that let official attacks
run on the same ones."""

import numpy as np
import torch
from torch.nn import functional as F

START, TEST = 4, 6  # purposes
KEY = [11, 0]
HIDDEN, CLASSES = 20, 5


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


def normal(purpose, counter, example, count):
    """Standard normal numbers of elements 0 to count - 1 of an example."""
    pairs = draw(purpose, counter, example, (count + 3) // 4 * 4).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log(1 - pairs[:, 0])), 2 * np.pi * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)[:count]


def tensor(number, shape, bound):
    """Uniform in [-bound, bound), rounded to f32."""
    values = (2 * draw(TEST, [0, 0], number, int(np.prod(shape))) - 1) * bound
    return torch.from_numpy(values.astype(np.float32).astype(np.float64)).reshape(shape)


def network(pixels, bound):
    """A network of one hidden layer whose first weights are in [-bound, bound), on images NCHW that it flattens as NHWC."""
    w1, b1 = tensor(0, (pixels, HIDDEN), bound), tensor(1, (HIDDEN,), 0.3)
    w2, b2 = tensor(2, (HIDDEN, CLASSES), 0.6), tensor(3, (CLASSES,), 0.3)
    return lambda x: F.relu(x.permute(0, 2, 3, 1).flatten(1) @ w1 + b1) @ w2 + b2


def images(batch, rows, channels):
    """Images of bytes, NCHW in [0, 1]."""
    count = rows * rows * channels
    drawn = [torch.from_numpy(np.floor(draw(TEST, [1, 0], i, count) * 256) / 255) for i in range(batch)]
    return torch.stack(drawn).reshape(batch, rows, rows, channels).permute(0, 3, 1, 2).contiguous()
