"""Writes weight files as other programs do, and the logits PyTorch gets from them: tests/reference/weights/.

    python3 -m venv venv && venv/bin/pip install torch torchvision numpy safetensors
    venv/bin/python tools/make_weights.py

Each file holds small random weights under the names and in the nesting of a program that is named beside it, written
by torch.save itself. `expected.safetensors` has images (NCHW) and logits in float64 for each.
"""

import argparse
import collections
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from torch_models import by_name

FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "reference" / "weights"
MU, SIGMA = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
expected = {}


def network(name, image, classes=10, dtype=torch.float32):
    """A network with random weights and statistics, as `dtype` holds them."""
    model = by_name(name, image, classes)
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            if tensor_name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1:
                tensor.normal_(1.0 if tensor_name.endswith("weight") else 0.0, 0.2)
            tensor.copy_(tensor.to(dtype))
        else:
            tensor.fill_(7)
    return model.eval()


def logits(file, model, image, normalise=False):
    """Images and what the network makes of them, kept beside the others."""
    x = torch.rand(2, *image).float()
    y = (x.double() - MU.double()[:, None, None]) / SIGMA.double()[:, None, None] if normalise else x.double()
    with torch.no_grad():
        expected[f"{file}.logits"] = model.double()(y)
    expected[f"{file}.images"] = x
    model.float()


def state(model, dtype=torch.float32):
    """Its state dict, metadata and all, with floats as `dtype`."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor.to(dtype)
    return state


def renamed(state, change):
    """The same tensors under other names, in an OrderedDict; where `change` gives None, without."""
    return collections.OrderedDict((change(n), t) for n, t in state.items() if change(n) is not None)


def save(objects, file, **options):
    FOLDER.mkdir(exist_ok=True)
    torch.save(objects, FOLDER / file, **options)


def torchvision_names():
    """That the networks of torch_models.py are torchvision's: the same names, and the same logits of the same weights."""
    import torchvision

    for ours, theirs in [("resnet18-imagenet", "resnet18"), ("resnet34-imagenet", "resnet34"), ("resnet50", "resnet50")]:
        model, other = by_name(ours, (3, 224, 224), 1000).eval(), getattr(torchvision.models, theirs)().eval()
        other.load_state_dict(model.state_dict(), strict=True)
        x = torch.rand(1, 3, 64, 64)
        assert torch.allclose(model(x), other(x), atol=1e-5), theirs


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.parse_args()
    torch.manual_seed(5)
    torchvision_names()
    small, large = (3, 16, 16), (3, 40, 40)

    # torchvision: torch.save(model.state_dict(), ...).
    model = network("resnet18-imagenet-w2", large, 7)
    logits("torchvision-resnet18", model, large)
    save(state(model), "torchvision-resnet18.pth")

    # RobustBench, CIFAR-10: statistics of the pixels as buffers of the network, DataParallel, under "state_dict".
    model = network("resnet18-w2", small)
    logits("robustbench-resnet18", model, small, normalise=True)
    wrapped = renamed(state(model), lambda n: f"module.{n}")
    wrapped["module.mu"], wrapped["module.sigma"] = MU.view(1, 3, 1, 1), SIGMA.view(1, 3, 1, 1)
    save({"state_dict": wrapped, "epoch": 76}, "robustbench-resnet18.pt")
    # The same in the form of PyTorch before 1.6.
    save({"state_dict": wrapped, "epoch": 76}, "legacy-resnet18.pt", _use_new_zipfile_serialization=False)

    # RobustBench, ImageNet: normalize_model, an nn.Sequential of "normalize" and "model"; in a newer protocol.
    model = network("resnet50-w1", large, 5)
    logits("sequential-resnet50", model, large, normalise=True)
    wrapped = renamed(state(model), lambda n: f"model.{n}")
    wrapped["normalize.mean"], wrapped["normalize.std"] = MU.view(1, 3, 1, 1), SIGMA.view(1, 3, 1, 1)
    save(wrapped, "sequential-resnet50.pt", pickle_protocol=5)

    # TRADES and those that follow it, in half precision: a block that is never used, DataParallel.
    model = network("wide-resnet-10-1", small, dtype=torch.float16)
    logits("trades-wide-resnet", model, small)
    wrapped = renamed(state(model, torch.float16), lambda n: f"module.{n}")
    for name, tensor in list(wrapped.items()):
        if name.startswith("module.block1.layer.0.bn"):
            wrapped[name.replace("block1", "sub_block1")] = tensor
    save(wrapped, "trades-wide-resnet.pt")

    # RobustBench's Wong2020Fast, in bfloat16, in the middle of a checkpoint with everything that training leaves there.
    model = network("preact-resnet18-gradalign-w2", small, dtype=torch.bfloat16)
    logits("checkpoint-preact-resnet18", model, small)
    optimiser = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1, momentum=0.9)
    checkpoint = {
        "epoch": 3, "best_accuracy": np.float64(0.5), "scores": np.arange(3.0), "name": "wong", "flags": {1, 2},
        "args": argparse.Namespace(lr=0.1, layers=[1, 2], half=True, device=torch.device("cpu")),
        "counts": collections.defaultdict(int, a=1), "shape": torch.Size([1, 2]), "dtype": torch.bfloat16,
        "optimizer": optimiser.state_dict(), "none": None, "large": 2**70,
        "model_state_dict": state(model, torch.bfloat16),
    }  # fmt: skip
    save(checkpoint, "checkpoint-preact-resnet18.pt")

    # MadryLab/robustness: the network twice, once inside of the attacker.
    model = network("resnet18-w1", small)
    logits("robustness-resnet18", model, small, normalise=True)
    wrapped = collections.OrderedDict()
    for name in ["module.normalizer", "module.attacker.normalize"]:
        wrapped[f"{name}.new_mean"], wrapped[f"{name}.new_std"] = MU.view(3, 1, 1), SIGMA.view(3, 1, 1)
    for name, tensor in state(model).items():
        wrapped[f"module.model.{name}"] = wrapped[f"module.attacker.model.{name}"] = tensor
    save({"model": wrapped, "epoch": 9, "schedule": None}, "robustness-resnet18.pt")

    # Views: everything in one flat tensor, filters as channels_last, matrices transposed; in double precision.
    model = network("mnist-fast", (1, 10, 10), 3)
    logits("views-mnist-fast", model, (1, 10, 10))
    views, flat = collections.OrderedDict(), []
    for name, tensor in state(model, torch.float64).items():
        if tensor.dim() == 4:
            tensor = tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        elif tensor.dim() == 2:
            tensor = tensor.t().contiguous().t()
        views[name] = tensor
        flat.append(tensor.as_strided((tensor.numel(),), (1,)))
    flat, start = torch.cat(flat), 0
    for name, tensor in views.items():
        views[name] = torch.as_strided(flat, tensor.shape, tensor.stride(), start)
        start += tensor.numel()
    # The last one is the first column of a matrix.
    last = list(views)[-1]
    views[last] = torch.stack([views[last], torch.zeros(3, dtype=torch.float64)], 1)[:, 0]
    save(views, "views-mnist-fast.pt")

    # Parameters instead of tensors, compiled, under a key and names that no one knows.
    model = network("mlp-6", (1, 4, 4), 3)
    logits("names-mlp", model, (1, 4, 4))
    own = {"1.weight": "encoder.hidden.weight", "1.bias": "encoder.hidden.bias", "3.weight": "top.w", "3.bias": "top.b"}
    wrapped = {f"_orig_mod.{own[n]}": nn.Parameter(t) for n, t in state(model).items()}
    wrapped["_orig_mod.aux.weight"] = torch.zeros(2)
    save({"ema": {"weights": wrapped}, "last": {}}, "names-mlp.pt")

    # torch.compile of a network behind DataParallel, as safetensors.
    model = network("preact-resnet18-w1", small)
    logits("compiled-preact-resnet18", model, small)
    wrapped = {f"_orig_mod.module.{n}": t.contiguous() for n, t in state(model).items()}
    save_file(wrapped, FOLDER / "compiled-preact-resnet18.safetensors")

    save_file({name: t.contiguous() for name, t in expected.items()}, FOLDER / "expected.safetensors")
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
