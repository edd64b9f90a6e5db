"""Computes tests/reference/attacks.safetensors: what torchattacks and Foolbox find on the hardened MNIST network.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors torchattacks foolbox pyautoattack
    venv/bin/python tools/make_attack_reference.py

In float64, on the first images of the sample that models/mnist-fast-pgd classifies right. Stored are images of the
attacks in a ball, and distances of the minimum-norm attacks (NaN where nothing was found); tests/attacks/packages.rs holds
adamant's attacks against them. Where a package has a bug that the attack here has not, it is mended below, each with a
word why. FAB's projections of random points are stored whole.
"""

import gzip
import pathlib
import sys

import eagerpy as ep
import foolbox
import numpy as np
import torch
import torchattacks
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from make_reference import Store, uniform  # noqa: E402
from torch_models import by_name, load  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
COUNT = 20
EPSILON, STEP, STEPS = 0.1, 0.02, 7


def idx(name, header):
    return np.frombuffer(gzip.decompress((ROOT / "src/data/sample" / f"{name}.gz").read_bytes()), np.uint8, offset=header)


class MendedCw(torchattacks.CW):
    """torchattacks' CW with the largest other logit rather than the larger of it and 0, pixels of 0 and 1 that can move,
    and no early end, which depends on the batch."""

    def f(self, outputs, labels):
        one_hot = nn.functional.one_hot(labels, outputs.shape[1]).to(outputs)
        other = (outputs - 1e30 * one_hot).amax(1)
        return torch.clamp((one_hot * outputs).sum(1) - other, min=-self.kappa)

    def inverse_tanh_space(self, x):
        return self.atanh((x * 2 - 1) * 0.999999)

    def forward(self, images, labels):
        w = self.inverse_tanh_space(images).detach().requires_grad_()
        best, nearest = images.clone(), torch.full((len(images),), 1e10)
        optimizer = torch.optim.Adam([w], lr=self.lr)
        for _ in range(self.steps):
            adversarial = self.tanh_space(w)
            distance = (adversarial - images).square().flatten(1).sum(1)
            outputs = self.get_logits(adversarial)
            optimizer.zero_grad()
            (distance.sum() + self.c * self.f(outputs, labels).sum()).backward()
            optimizer.step()
            better = (outputs.argmax(1) != labels) & (nearest > distance.detach())
            nearest = torch.where(better, distance.detach(), nearest)
            best = torch.where(better[:, None, None, None], adversarial.detach(), best)
        return best


class MendedFmnL2(foolbox.attacks.L2FMNAttack):
    """Foolbox's L2 FMN with the projection it means: its factor is norm / norm."""

    def project(self, x, x0, epsilon):
        norms = ep.maximum(ep.norms.l2(foolbox.devutils.flatten(x - x0), -1), 1e-12)
        factor = foolbox.devutils.atleast_kd(ep.minimum(1, epsilon / norms), x.ndim)
        return x0 + (x - x0) * factor


def lengths(changes):
    flat = changes.flatten(1)
    return {"linf": flat.abs().amax(1), "l2": flat.norm(dim=1), "l1": flat.abs().sum(1)}


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    store = Store()
    model = load(by_name("mnist-fast", (1, 28, 28)), load_file(ROOT / "models/mnist-fast-pgd/weights.safetensors"))
    model = model.double().eval()
    images = torch.from_numpy(idx("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28).astype(np.float64) / 255)
    labels = torch.from_numpy(idx("t10k-labels-idx1-ubyte", 8).astype(np.int64))
    with torch.no_grad():
        right = (model(images[:200]).argmax(1) == labels[:200]).nonzero()[:COUNT, 0]
    x, y = images[right].clone(), labels[right].clone()
    store["examples"] = right.numpy()

    for name, attack in [
        ("bim", torchattacks.BIM(model, EPSILON, STEP, STEPS)),
        ("mi-fgsm", torchattacks.MIFGSM(model, EPSILON, STEP, STEPS)),
        ("ni-fgsm", torchattacks.NIFGSM(model, EPSILON, STEP, STEPS)),
    ]:
        adversarial = attack(x, y)
        with torch.no_grad():
            print(name, (model(adversarial).argmax(1) == y).sum().item(), "stand", adversarial.dtype)
        store[name] = adversarial.detach().numpy().astype(np.float32)

    def distances(name, adversarial, norm):
        with torch.no_grad():
            broken = model(adversarial).argmax(1) != y
        found = torch.where(broken, lengths(adversarial - x)[norm], torch.nan).detach()
        store[name] = found.numpy()
        print(name, broken.sum().item(), "broken, median", found.nanmedian().item(), adversarial.dtype)

    # Where ten steps lead, whether they break the image or not: those that fifty do not break wander.
    store["deepfool.l2"] = lengths(torchattacks.DeepFool(model, steps=10)(x, y) - x)["l2"].detach().numpy()
    distances("cw.l2", MendedCw(model, c=10, lr=0.05, steps=200)(x, y), "l2")
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    for name, attack, norm in [
        ("ddn.l2", foolbox.attacks.DDNAttack(), "l2"),
        ("fmn.l2", MendedFmnL2(), "l2"),
        ("fmn.linf", foolbox.attacks.LInfFMNAttack(max_stepsize=1.0), "linf"),
        ("fmn.l1", foolbox.attacks.L1FMNAttack(), "l1"),
    ]:
        distances(name, attack.run(wrapped, x, y), norm)
    # It turns its images into floats.
    single, torch.Tensor.float = torch.Tensor.float, torch.Tensor.double
    for norm in ["Linf", "L2", "L1"]:
        fab = FABAttack_PT(model, norm=norm, n_restarts=1, n_iter=20, eps=1e9, targeted=False, device="cpu")
        distances(f"fab.{norm.lower()}", fab.attack_single_run(x, y), norm.lower())
    torch.Tensor.float = single

    points, weights = uniform(11, (60, 50)), 2 * uniform(12, (60, 50)) - 1
    # Some corners of the box, some weights of 0.
    points = np.where(points < 0.2, 0, np.where(points > 0.8, 1, points))
    weights = np.where(uniform(13, (60, 50)) < 0.1, 0, weights * 10.0 ** (6 * uniform(14, (60, 1)) - 3))
    heights = (weights * points).sum(1) + (2 * uniform(15, (60,)) - 1) * np.abs(weights).sum(1) * 0.4
    points, weights, heights = map(torch.from_numpy, (points, weights, heights))
    store["projection.points"], store["projection.weights"] = points.numpy(), weights.numpy()
    store["projection.heights"] = heights.numpy()
    for name, projection in [("linf", projection_linf), ("l2", projection_l2), ("l1", projection_l1)]:
        store[f"projection.{name}"] = projection(points, weights, heights).numpy()
    store.save("attacks.safetensors", "see tools/make_attack_reference.py")


if __name__ == "__main__":
    main()
