"""Checks ONNX in and out on networks as they are used, against onnxruntime and PyTorch.

    python3 -m venv venv && venv/bin/pip install torch torchvision numpy safetensors onnx onnxruntime onnxscript
    venv/bin/python tools/check_onnx.py                    # about ten minutes on two cores, mostly exporting
    venv/bin/python tools/check_onnx.py FILE.onnx ...      # these files too, on random images in [0, 1] (--image 3,224,224
                                                           # where a file leaves their size open)
    venv/bin/python tools/check_onnx.py --only resnet      # those whose name has this in it

In: networks of the ONNX model zoo (as the package onnx brings them, with random weights, before their softmax), of PyTorch and torchvision (random weights, shaken statistics), exported by tracing and by torch.export, are read
by adamant; logits are held against onnxruntime's, gradients by the images against PyTorch's in f64. Out: what adamant writes
of every architecture it has, normalised too, is run by onnxruntime and held against adamant's own logits. Differences are
relative to the largest element; the bound is 1e-5.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torchvision
from safetensors.numpy import load_file, save_file
from torch import nn

from make_onnx_reference import Normalize, answers, export, gradient, shake
from torch_models import by_name

BOUND = 1e-5
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

# The networks of tools/torch_models.py.
HOUSE = [
    ("mlp", (1, 28, 28)),
    ("mnist-fast", (1, 28, 28)),
    ("mnist-madry", (1, 28, 28)),
    ("lenet5", (1, 28, 28)),
    ("small-cnn", (1, 28, 28)),
    ("preact-resnet18", (3, 32, 32)),
    ("resnet18", (3, 32, 32)),
    ("wide-resnet-16-2", (3, 32, 32)),
    ("vgg11-bn", (3, 32, 32)),
    ("vgg16-bn", (3, 32, 32)),
    ("resnet50-cifar", (3, 32, 32)),
    ("convnext-tiny", (3, 64, 64)),
]

# Networks of torchvision, with the side of their images.
VISION = [
    ("alexnet", 224),
    ("resnet18", 96),
    ("resnet50", 96),
    ("vgg11_bn", 224),
    ("mobilenet_v2", 96),
    ("mobilenet_v3_small", 96),
    ("squeezenet1_0", 96),
    ("squeezenet1_1", 96),
    ("densenet121", 96),
    ("shufflenet_v2_x1_0", 96),
    ("mnasnet1_0", 96),
    ("efficientnet_b0", 96),
    ("googlenet", 96),
]


# What torch.export writes with operators that adamant refuses, by their names: Split.
REFUSED = ["torchvision-shufflenet_v2_x1_0"]

# What their constructors need besides.
MORE = {"googlenet": {"aux_logits": False, "init_weights": False}}


def networks(only):
    for name, image in HOUSE:
        for full in [name, f"{name}-normalized"]:
            if only in full:
                torch.manual_seed(0)
                yield full, shake(by_name(full, image).float(), 1), image
    for name, side in VISION:
        if only in f"torchvision-{name}":
            torch.manual_seed(0)
            model = getattr(torchvision.models, name)(num_classes=50, **MORE.get(name, {}))
            yield f"torchvision-{name}", nn.Sequential(Normalize(*IMAGENET), model.eval()), (3, side, side)


def zoo(only):
    """The networks of the model zoo that the package onnx tests with: their weights, all the same, become random ones."""
    random = np.random.default_rng(2)
    for path in sorted(pathlib.Path(onnx.__file__).parent.glob("backend/test/data/light/light_*.onnx")):
        model = onnx.load(path)
        graph = model.graph
        if only not in path.stem or any(node.op_type == "LRN" for node in graph.node):
            continue
        given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        made = {node.output[0]: given[node.input[0]] for node in graph.node if node.op_type == "ConstantOfShape"}
        norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
        positive = {name for node in norms for name in (node.input[1], node.input[4])}
        for name, shape in made.items():
            fan = max(int(np.prod(shape[1:])), 1)
            values = random.standard_normal(shape) * np.sqrt(2 / fan) if len(shape) > 1 else 0.1 * random.standard_normal(shape)
            if name in positive:
                values = 0.5 + random.random(shape)
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        rest = [node for node in graph.node if node.op_type != "ConstantOfShape"]
        if rest[-1].op_type == "Softmax":  # Of random weights it would be zeros and ones.
            graph.output[0].name = rest.pop().input[0]
        del graph.node[:]
        graph.node.extend(rest)
        image = next(value for value in graph.input if value.name not in given)
        yield path.stem, model.SerializeToString(), [dim.dim_value for dim in image.type.tensor_type.shape.dim][1:]


def write(folder, name, model, x, torch_model=None):
    """A file, images and what others say of them."""
    tensors = {"x": x, "y": answers(model, x)}
    if torch_model is not None:
        random = np.random.default_rng(3)
        v = random.standard_normal(tensors["y"].shape).astype(np.float32)
        tensors |= {"v": v, "dx": gradient(torch_model, torch.from_numpy(x), v)}
        # At some images a unit is so near 0 that the rounding of weights into which a batch norm is folded opens or closes it,
        # and the gradient turns: it does for PyTorch too if the image moves by as little, one way or the other.
        little, size = 3e-7 * random.standard_normal(x.shape), np.abs(tensors["dx"]).max()
        near = [torch.from_numpy((x + way * little).astype(np.float32)) for way in (1, -1)]
        turned = max(np.abs(gradient(torch_model, image, v) - tensors["dx"]).max() for image in near)
        tensors["turned"] = np.array([turned / size], np.float32)
    (folder / f"{name}.onnx").write_bytes(model)
    save_file(tensors, folder / f"{name}.safetensors")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="*", type=pathlib.Path)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--image", default="3,224,224", help="channels, rows, columns")
    arguments.add_argument("--folder", type=pathlib.Path, help="where the files are made, and kept")
    options = arguments.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)

    for name, model, image in networks(options.only):
        x = random.random((4, *image), np.float32)
        for exporter, opset in [("traced", 13), ("dynamo", 18)]:
            if exporter == "dynamo" and name in REFUSED:
                continue
            try:
                made = export(model, torch.from_numpy(x), exporter == "dynamo", opset)
            except Exception as error:  # What PyTorch cannot export is none of ours.
                print(f"{name} ({exporter}): PyTorch does not export it: {str(error).splitlines()[0]}")
                continue
            write(folder, f"{name}.{exporter}", made, x, model)
    for name, model, image in zoo(options.only):
        write(folder, name, model, random.random((2, *image), np.float32))
    for file in options.files:
        dims = [dim.dim_value for dim in onnx.load(file).graph.input[0].type.tensor_type.shape.dim][1:]
        dims = dims if all(dims) else [int(dim) for dim in options.image.split(",")]
        write(folder, file.stem, file.read_bytes(), random.random((4, *dims), np.float32))

    root = pathlib.Path(__file__).parent.parent
    command = ["cargo", "test", "--release", "--test", "onnx", "real_networks", "--", "--nocapture"]
    read = subprocess.run(command, cwd=root, env=os.environ | {"ADAMANT_ONNX": str(folder.resolve())})

    wrong = 0
    for path in sorted((folder / "exported").glob("*.onnx")):
        model = path.read_bytes()
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
        tensors = load_file(path.with_suffix(".safetensors"))
        there = answers(model, tensors["x"])
        off = np.abs(there - tensors["y"]).max() / np.abs(there).max()
        wrong += not off <= BOUND
        kinds = sorted({node.op_type for node in onnx.load_from_string(model).graph.node})
        print(f"{path.stem:40} exported   {off:.1e}  {' '.join(kinds)}")
    if read.returncode or wrong:
        sys.exit(f"{wrong} exported networks differ by more than {BOUND}" if wrong else "networks were read wrongly")


if __name__ == "__main__":
    main()
