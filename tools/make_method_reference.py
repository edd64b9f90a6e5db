"""Computes the reference numbers of training methods under tests/reference/ with PyTorch, in float64 on the CPU.

    venv/bin/python tools/make_method_reference.py        (a venv as tools/make_reference.py says)

Each function below restates the loss of a method's reference implementation (named beside it) in PyTorch's own terms;
tests/methods.rs holds a training step of adamant against what they give for the same weights, images and noise.
tests/reference/README.md says what every stored tensor is.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from make_reference import Store, formula, hashes, uniform
from torch_models import load, state

BATCH, IMAGE, CLASSES = 5, (2, 6, 6), 10
EPSILON, STEP, STEPS = 0.1, 0.03, 3
RATE, MOMENTUM = 0.05, 0.9


class Tiny(nn.Module):
    """Two convolutions with batch norm, one linear layer."""

    def __init__(self, outputs=CLASSES):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.linear = nn.Linear(54, outputs)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(F.relu(self.bn2(self.conv2(x))).flatten(1))


def fresh(outputs=CLASSES):
    shapes = {key: tuple(t.shape) for key, t in state(Tiny(outputs)).items()}
    tensors = {key: formula(key, number, shape) for number, (key, shape) in enumerate(shapes.items())}
    return load(Tiny(outputs).double(), tensors).train()


COUNT = len(state(Tiny()))
# Bytes over 255, as images are.
x = torch.from_numpy(np.floor(uniform(COUNT, (BATCH, *IMAGE)) * 256) / 255)
y = torch.from_numpy((hashes(COUNT + 2, BATCH) % np.uint64(10)).astype(np.int64))


def noise(number):
    """Uniform in [-1, 1)."""
    return torch.from_numpy(uniform(1000 + number, (BATCH, *IMAGE)) * 2 - 1)


def normal(number):
    """Near normal: the sum of twelve uniforms."""
    return sum(noise(100 + 12 * number + k) for k in range(12)) / 2


class Mode:
    """A model with batch norm in the attack's mode: eval, train, or train with the running statistics left alone."""

    def __init__(self, model, mode):
        self.model, self.mode = model, mode
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def __enter__(self):
        self.model.train(self.mode != "eval")
        for norm in self.norms:
            norm.momentum = 0.0 if self.mode == "train-frozen" else 0.1
        return self.model

    def __exit__(self, *_):
        self.model.train()
        for norm in self.norms:
            norm.momentum = 0.1


def per_example(t):
    return t.flatten(1)


def into_l1(candidate, epsilon):
    """The nearest point of L1 ball and box, by bisection down to f64's last bits (Croce and Hein 2021)."""
    delta = candidate - x
    room = torch.where(delta > 0, 1 - x, x)
    result = []
    for d, r in zip(delta, room):
        kept = lambda t: torch.minimum((d.abs() - t).clamp(min=0), r)
        low, high = 0.0, float(d.abs().max())
        if kept(0.0).sum() <= epsilon:
            high = 0.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle).sum() > epsilon else (low, middle)
        result.append(d.sign() * kept(high))
    return (x + torch.stack(result)).clamp(0, 1)


def ascend(at, g, norm, step):
    if norm == "linf":
        at = at + step * g.sign()
        return torch.minimum(torch.maximum(at, x - EPSILON), x + EPSILON).clamp(0, 1)
    if norm == "l2":
        at = at + step * g / (per_example(g).norm(dim=1).view(-1, 1, 1, 1) + 1e-10)
        delta = at - x
        length = per_example(delta).norm(dim=1).view(-1, 1, 1, 1)
        return (x + delta * EPSILON / length.clamp(min=EPSILON)).clamp(0, 1)
    # SLIDE / APGD-L1: the largest twentieth of the gradient, by sorting.
    count = int(np.ceil(0.05 * g[0].numel()))
    least = per_example(g).abs().sort(dim=1, descending=True).values[:, count - 1].view(-1, 1, 1, 1)
    chosen = g.sign() * (g.abs() >= least)
    return into_l1(at + step * chosen / chosen.abs().sum((1, 2, 3), keepdim=True), EPSILON)


def pgd(model, starts, mode="eval", loss="ce", norm="linf", step=STEP, steps=STEPS, use_best=False, target=None):
    """Madry et al.; Rice et al. for restarts (the worst end), MadryLab/robustness for use_best, TRADES for KL."""
    best, best_loss = None, None
    target = y if target is None else target

    def keep(at, losses):
        nonlocal best, best_loss
        if best is None:
            best, best_loss = at.clone(), losses.detach().clone()
            return
        better = losses >= best_loss
        best[better], best_loss[better] = at[better], losses.detach()[better]

    with Mode(model, "train-frozen" if mode == "train" else mode), torch.no_grad():
        clean = F.log_softmax(model(x), 1) if loss == "kl" else None
    with Mode(model, mode):
        for start in starts:
            at = start
            for _ in range(steps):
                at = at.detach().requires_grad_()
                logits = model(at)
                if loss == "kl":
                    losses = F.kl_div(F.log_softmax(logits, 1), clean, reduction="none", log_target=True).sum(1)
                else:
                    losses = F.cross_entropy(logits, target, reduction="none")
                (g,) = torch.autograd.grad(losses.sum(), at)
                if use_best:
                    keep(at.detach(), losses)
                at = ascend(at.detach(), g, norm, step)
            if use_best or len(starts) > 1:
                keep(at, F.cross_entropy(model(at), target, reduction="none"))
    return best if best is not None else at


def kl(adversarial, clean):
    return F.kl_div(F.log_softmax(adversarial, 1), F.log_softmax(clean, 1), reduction="none", log_target=True).sum(1)


# The losses that an update descends, by (model, adversarial images).


def plain(smoothing=0.0):
    return lambda model, adv: F.cross_entropy(model(adv), y, label_smoothing=smoothing)


def share(ratio):
    """ART, AdversarialTrainer: the first ceil(ratio * B) of the batch are adversarial."""
    some = int(np.ceil(ratio * BATCH))
    return lambda model, adv: F.cross_entropy(model(torch.cat([adv[:some], x[some:]])), y)


def both(model, adv):
    """HAT, keep_clean."""
    return F.cross_entropy(model(torch.cat([x, adv])), torch.cat([y, y]))


def trades(beta, smoothing=0.0):
    """TRADES, trades.py: passes clean, adversarial, clean."""

    def loss(model, adv):
        natural = F.cross_entropy(model(x), y, label_smoothing=smoothing)
        logits = model(adv)
        return natural + beta * kl(logits, model(x)).mean()

    return loss


def trades_awp(beta):
    """AWP, trades_AWP/utils_awp.py: passes adversarial, clean, clean."""

    def loss(model, adv):
        robust = kl(model(adv), model(x)).mean()
        return F.cross_entropy(model(x), y) + beta * robust

    return loss


def mart(beta):
    """MART, mart.py."""

    def loss(model, adv):
        logits, logits_adv = model(x), model(adv)
        adv_probs = F.softmax(logits_adv, 1)
        top = torch.argsort(adv_probs, dim=1)[:, -2:]
        other = torch.where(top[:, -1] == y, top[:, -2], top[:, -1])
        boosted = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), other)
        nat_probs = F.softmax(logits, 1)
        true = nat_probs.gather(1, y[:, None]).squeeze(1)
        each = F.kl_div(torch.log(adv_probs + 1e-12), nat_probs, reduction="none").sum(1)
        return boosted + beta * (each * (1.0000001 - true)).sum() / BATCH

    return loss


def grad_align(weight, g1, point):
    """understanding-fast-adv-training, train.py: g1 detached, backpropagation through g2 alone; adversarial first."""

    def loss(model, adv):
        natural = F.cross_entropy(model(adv), y)
        at = point.clone().requires_grad_()
        (g2,) = torch.autograd.grad(F.cross_entropy(model(at), y), at, create_graph=True)
        n1, n2 = (g.pow(2).sum((1, 2, 3)).sqrt() for g in (g1, g2))
        good = (n1 != 0) & (n2 != 0)
        assert good.all()
        cosine = (g1 * g2).sum((1, 2, 3))[good] / (n1[good] * n2[good])
        return natural + weight * (1 - cosine.mean())

    return loss


def ducat(clean_share, adversarial_share):
    """DUCAT, adv_train_dummy.py."""

    def loss(model, adv):
        def target(w):
            e = F.one_hot(y, 2 * CLASSES).double()
            dummy = F.one_hot(y + CLASSES, 2 * CLASSES).double()
            return (1 - w) * e + w * dummy

        targets = torch.cat([target(clean_share), target(adversarial_share)])
        return F.cross_entropy(model(torch.cat([x, adv])), targets)

    return loss


def awp(model, loss, adv, gamma):
    """AWP, utils_awp.py: the perturbation v of each weight, from a throw-away copy in train mode."""
    proxy = load(Tiny().double(), {k: t.clone() for k, t in state(model).items()}).train()
    value = loss(proxy, adv)
    names = [name for name, p in proxy.named_parameters() if p.dim() > 1 and "weight" in name]
    parameters = dict(proxy.named_parameters())
    gradients = torch.autograd.grad(value, [parameters[name] for name in names])
    own = dict(model.named_parameters())
    return {
        name: gamma * own[name].detach().norm() * g / (g.norm() + 1e-20)
        for name, g in zip(names, gradients, strict=True)
    }


class Cases(Store):
    def case(self, name, starts, attack, loss, outputs=CLASSES, gamma=0.0, weight_decay=0.0):
        """One step of training: what the attack made of the images, loss, gradients, running statistics, weights."""
        model = fresh(outputs)
        for number, start in enumerate(starts):
            self.put(f"{name}.start{number}", start)
        adv = attack(model)
        self.put(f"{name}.adversarial", adv)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=weight_decay)
        own = dict(model.named_parameters())
        v = awp(model, loss, adv, gamma) if gamma else {}
        with torch.no_grad():
            for key, move in v.items():
                own[key].add_(move)
        self.put_all(f"{name}.v", v)
        value = loss(model, adv)
        value.backward()
        optimiser.step()
        with torch.no_grad():
            for key, move in v.items():
                own[key].sub_(move)
        self.put(f"{name}.loss", value)
        # The gradient with weight decay added, where there is some.
        self.put_all(f"{name}.grad", {key: optimiser.state[p]["momentum_buffer"] for key, p in own.items()})
        after = {key: t for key, t in state(model).items() if "running" in key or gamma}
        self.put_all(f"{name}.after", after)

    def free(self, name, replays):
        """FreeAdversarialTraining, main_free.py; a batch that begins with a perturbation from the batch before."""
        model, delta = fresh(), 0.8 * EPSILON * noise(40)
        self.put(f"{name}.before", delta)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        for replay in range(replays):
            delta = delta.detach().requires_grad_()
            optimiser.zero_grad()
            value = F.cross_entropy(model((x + delta).clamp(0, 1)), y)
            value.backward()
            moved = (delta + EPSILON * delta.grad.sign()).clamp(-EPSILON, EPSILON)
            optimiser.step()
            self.put(f"{name}.loss{replay}", value)
            self.put(f"{name}.perturbation{replay}", moved)
            delta = moved
        self.put_all(f"{name}.after", state(model))


def main():
    uniform_start = (x + EPSILON * noise(0)).clamp(0, 1)
    second_start = (x + EPSILON * noise(1)).clamp(0, 1)
    near = x + 0.001 * normal(0)
    cases = Cases()
    single = lambda start, step, mode="eval": lambda model: pgd(model, [start], mode, step=step, steps=1)
    cases.case("standard", [], lambda model: x, plain())
    cases.case("fgsm", [], single(x, EPSILON), plain())
    rough = x + EPSILON * noise(2)
    cases.case("fgsm-rs", [rough], single(rough, 1.25 * EPSILON, "train"), plain())

    def n_fgsm(model):
        at = (x + 2 * EPSILON * noise(3)).clamp(0, 1).requires_grad_()
        with Mode(model, "train"):
            (g,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
        return (at.detach() + EPSILON * g.sign()).clamp(0, 1)

    cases.case("n-fgsm", [(x + 2 * EPSILON * noise(3)).clamp(0, 1)], n_fgsm, plain())
    for mode in ["eval", "train", "train-frozen"]:
        cases.case(f"pgd-{mode}", [uniform_start], lambda model, m=mode: pgd(model, [uniform_start], m), plain())
    for norm in ["l2", "l1"]:
        cases.case(f"pgd-{norm}", [uniform_start], lambda model, n=norm: pgd(model, [uniform_start], norm=n), plain())
    starts = [uniform_start, second_start]
    cases.case("pgd-restarts", starts, lambda model: pgd(model, starts), plain())
    far = lambda model: pgd(model, [uniform_start], step=0.15, use_best=True)
    cases.case("pgd-use-best", [uniform_start], far, plain())
    one = lambda model: pgd(model, [uniform_start])
    cases.case("pgd-smooth", [uniform_start], one, plain(0.1))
    # What mixup and CutMix make of labels: any distribution over the classes.
    soft = torch.from_numpy(uniform(2000, (BATCH, CLASSES)) ** 4)
    soft = soft / soft.sum(1, keepdim=True)
    cases.put("pgd-soft.targets", soft)
    softly = lambda model: pgd(model, [uniform_start], target=soft)
    cases.case("pgd-soft", [uniform_start], softly, lambda model, adv: F.cross_entropy(model(adv), soft))
    cases.case("pgd-share", [uniform_start], one, share(0.5))
    cases.case("pgd-both", [uniform_start], one, both)
    cases.case("pgd-awp", [uniform_start], one, plain(), gamma=0.01, weight_decay=5e-4)
    climb = lambda model: pgd(model, [near], loss="kl")
    cases.case("trades", [near], climb, trades(6.0))
    cases.case("trades-smooth", [near], lambda model: pgd(model, [near], loss="kl", norm="l2"), trades(5.0, 0.1))
    cases.case("trades-awp", [near], climb, trades_awp(6.0), gamma=0.005, weight_decay=5e-4)
    cases.case("mart", [near], lambda model: pgd(model, [near]), mart(5.0))
    point = x + EPSILON * noise(4)
    cases.put("grad-align.point", point)
    first = {}

    def keeping(model):
        at = x.clone().requires_grad_()
        with Mode(model, "train"):
            (g1,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
        first["g1"] = g1
        return torch.minimum(torch.maximum(x + 1.25 * EPSILON * g1.sign(), x - EPSILON), x + EPSILON).clamp(0, 1)

    cases.case("grad-align", [], keeping, lambda model, adv: grad_align(0.5, first["g1"], point)(model, adv))
    cases.free("free", 2)
    rows = [*((key, tuple(t.shape)) for key, t in state(Tiny()).items())]
    save(cases, "methods.safetensors", rows)

    dummies = Cases()

    def attack(model):
        at = uniform_start
        with Mode(model, "eval"):
            for _ in range(STEPS):
                at = at.detach().requires_grad_()
                (g,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
                at = ascend(at.detach(), g, "linf", STEP)
        return at

    dummies.case("ducat", [uniform_start], attack, ducat(0.25, 1.0), outputs=2 * CLASSES)
    model = fresh(2 * CLASSES).eval()
    logits = model(x)
    dummies.put("collapsed", torch.logsumexp(torch.stack([logits[:, :CLASSES], logits[:, CLASSES:]]), 0))
    rows = [*((key, tuple(t.shape)) for key, t in state(Tiny(2 * CLASSES)).items())]
    save(dummies, "methods-dummies.safetensors", rows)


def save(store, file, rows):
    rows = [*rows, ("images", (BATCH, *IMAGE)), ("start", (BATCH, *IMAGE)), ("labels", (BATCH,))]
    store.save(file, "\n".join(f"{key} {'x'.join(map(str, extents))}" for key, extents in rows))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main()
