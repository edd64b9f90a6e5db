"""Makes tests/reference/onnx.safetensors: small ONNX networks, and what onnxruntime says of them.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors onnx onnxruntime onnxscript
    venv/bin/python tools/make_onnx_reference.py

For each network NAME there are NAME.model (the bytes of the file), NAME.x (images NCHW) and NAME.y (onnxruntime's output).
Those of PyTorch, exported by both of its exporters, have NAME.dx too: PyTorch's gradient, in f64, of the sum of the
output times NAME.v. The others are single operators in the forms that attributes give them.
"""

import copy
import io
import pathlib
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch import nn

OUT = pathlib.Path(__file__).parent.parent / "tests" / "reference" / "onnx.safetensors"


# What tools/check_onnx.py uses too.


def export(model, x, dynamo, opset, batch="open"):
    """The bytes of a model as one of PyTorch's exporters writes it: by tracing, or (dynamo) by torch.export."""
    model = model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},) if batch == "open" else None
            program = torch.onnx.export(model, (x,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False)
            return program.model_proto.SerializeToString()
        axes = {"x": {0: "batch"}, "y": {0: "batch"}} if batch == "open" else None
        out = io.BytesIO()
        torch.onnx.export(
            model, (x,), out, dynamo=False, opset_version=opset, dynamic_axes=axes, input_names=["x"], output_names=["y"]
        )
        return out.getvalue()


def bare(model):
    """The file without what only people read: where nodes came from, types of inner values."""
    model = onnx.load_from_string(model)
    del model.graph.value_info[:]
    for part in [model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        part.doc_string = ""
        del part.metadata_props[:]
    return model.SerializeToString()


def answers(model, x):
    """onnxruntime's output for images x, one by one where the file fixes its batch at 1."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    step = first.shape[0] if isinstance(first.shape[0], int) else len(x)
    parts = [session.run(None, {first.name: x[i : i + step]})[0] for i in range(0, len(x), step)]
    return np.concatenate(parts).reshape(len(x), -1)


def gradient(model, x, v):
    """PyTorch's gradient of the sum of output times v, in f64."""
    model = copy.deepcopy(model).eval().double()
    x = x.double().requires_grad_()
    (model(x).flatten(1) * torch.from_numpy(v).double()).sum().backward()
    return x.grad.float().numpy()


def shake(model, seed):
    """Weights, statistics too, that are not what a fresh network has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.dtype.is_floating_point and tensor.dim() == 1 and "mean" != name and "std" != name:
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


# Networks of PyTorch.


class Normalize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


class Viewed(nn.Module):
    """Convolutions, and a view by the size of the batch."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(3, 4, 4, stride=2, padding=1)
        self.fc1 = nn.Linear(36, 7)
        self.fc2 = nn.Linear(7, 4)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        x = x.view(x.size(0), -1)
        return self.fc2(torch.tanh(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x):
        out = torch.relu(self.bn1(x))
        return self.conv2(torch.relu(self.bn2(self.conv1(out)))) + self.shortcut(out)


class PreAct(nn.Module):
    def __init__(self):
        super().__init__()
        self.normalize = Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26])
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.layers = nn.Sequential(Block(3, 3, 1), Block(3, 5, 2))
        self.bn = nn.BatchNorm2d(5)
        self.linear = nn.Linear(5 * 4, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.layers(self.conv(self.normalize(x)))))
        x = nn.functional.avg_pool2d(x, 2)
        return self.linear(x.reshape(x.shape[0], -1))


class Mobile(nn.Module):
    """Depthwise convolutions, relu6, squeeze-and-excitation, concatenation, a mean over pixels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.BatchNorm2d(6), nn.LeakyReLU(0.1))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 2, 1), nn.ReLU(), nn.Conv2d(2, 6, 1), nn.Sigmoid())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(x)
        y = torch.cat([x, y * self.gate(y)], 1)
        return self.head(self.drop(self.pool(y).mean([2, 3])))


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(12, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3), nn.Softmax(dim=1)
        )


NETWORKS = [("viewed", Viewed, (1, 12, 12)), ("preact", PreAct, (3, 8, 8)), ("mobile", Mobile, (3, 9, 11)), ("plain", Plain, (3, 2, 2))]


def networks():
    for name, build, image in NETWORKS:
        torch.manual_seed(len(name))
        model = shake(build(), 7)
        x = torch.rand(3, *image)
        for exporter in ["traced", "dynamo"]:
            dynamo = exporter == "dynamo"
            opset = 18 if dynamo else {"viewed": 9, "preact": 13, "mobile": 11, "plain": 17}[name]
            yield f"{name}.{exporter}", bare(export(model, x, dynamo, opset)), x, model
        if name in ("viewed", "plain"):
            yield f"{name}.one", bare(export(model, x[:1], False, 12, batch="fixed")), x, model


def training():
    """The bytes of a network that was exported as it trains, with batch norms and dropout in place, its images, itself."""
    torch.manual_seed(6)
    model = shake(Mobile(), 7)
    x = torch.rand(3, 3, 9, 11)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), out, dynamo=False, opset_version=15, training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}},
        )
    return bare(out.getvalue()), x, model.eval()


# Single operators.


def graph(nodes, constants=(), image=(2, 5, 6), opset=13, batch="batch"):
    """A file of these nodes from `x`, ending in `y`, which is flattened."""
    nodes = [helper.make_node(*node[:3], name=f"{node[0]}-{i}", **(node[3] if len(node) > 3 else {})) for i, node in enumerate(nodes)]
    nodes.append(helper.make_node("Flatten", ["y"], ["out"], axis=1))
    made = helper.make_graph(
        nodes,
        "operators",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *image])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, "numbers"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def operators():
    random = np.random.default_rng(5)

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    def ints(*values):
        return np.array(values, np.int64)

    def one(op, opset=13, image=(2, 5, 6), constants=(), **attributes):
        names = [name for name, _ in constants]
        return graph([(op, ["x", *names], ["y"], attributes)], constants, image, opset), image

    w = ("w", normal(4, 2, 3, 2))
    yield "conv.uneven", one("Conv", constants=[w, ("b", normal(4))], pads=[2, 0, 1, 1], strides=[2, 1])
    yield "conv.dilated", one("Conv", constants=[w], pads=[1, 2, 1, 2], dilations=[1, 2], kernel_shape=[3, 2])
    for same in ["SAME_UPPER", "SAME_LOWER", "VALID"]:
        yield f"conv.{same}", one("Conv", constants=[w], auto_pad=same, strides=[2, 2])
    yield "conv.groups", one("Conv", constants=[("w", normal(6, 1, 2, 3))], group=2, pads=[0, 1, 0, 1])
    for op in ["MaxPool", "AveragePool"]:
        yield f"{op}.padded", one(op, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
        yield f"{op}.ceil", one(op, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
        yield f"{op}.ceil-padded", one(op, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1], ceil_mode=1)
        yield f"{op}.uneven", one(op, kernel_shape=[3, 3], pads=[0, 1, 2, 0])
        yield f"{op}.same", one(op, kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 2])
    yield "AveragePool.counts", one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    yield "AveragePool.counts-ceil", one(
        "AveragePool", 19, kernel_shape=[3, 3], pads=[1, 0, 1, 0], strides=[2, 2], count_include_pad=1, ceil_mode=1
    )
    for op in ["GlobalAveragePool", "GlobalMaxPool", "Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Erf"]:
        yield op, one(op)
    for op in ["Log", "Sqrt"]:
        yield op, one(op)
    yield "HardSwish", one("HardSwish", 14)
    yield "HardSigmoid", one("HardSigmoid", alpha=0.3, beta=0.4)
    yield "Gelu", one("Gelu", 20)
    yield "Gelu.tanh", one("Gelu", 20, approximate="tanh")
    yield "LeakyRelu", one("LeakyRelu", alpha=0.2)
    yield "Clip.attributes", one("Clip", 9, min=0.2, max=0.7)
    yield "Clip.inputs", one("Clip", constants=[("lo", np.float32(0.25)), ("hi", np.float32(0.5))])
    yield "Clip.half", (graph([("Clip", ["x", "", "hi"], ["y"])], [("hi", np.float32(0.5))]), (2, 5, 6))
    yield "Dropout", one("Dropout", 9, ratio=0.4)
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min"]:
        shape = {"Add": (2, 1, 1), "Sub": (1, 2, 1, 1), "Mul": (6,), "Div": (2, 5, 1), "Max": (1, 1, 5, 6), "Min": (2, 5, 6)}[op]
        constant = 0.5 + np.abs(normal(*shape))
        yield f"{op}.constant", one(op, constants=[("c", constant)])
        yield f"{op}.turned", (graph([(op, ["c", "x"], ["y"])], [("c", constant)]), (2, 5, 6))
        yield f"{op}.single", (graph([(op, ["c", "x"], ["y"])], [("c", np.float32(0.4))]), (2, 5, 6))
    both = [("Tanh", ["x"], ["t"]), ("GlobalAveragePool", ["x"], ["m"]), ("Mul", ["t", "m"], ["u"]), ("Sub", ["u", "x"], ["y"])]
    yield "arithmetic.both", (graph(both), (2, 5, 6))
    yield "Sum", (graph([("Tanh", ["x"], ["t"]), ("Sum", ["x", "t", "x"], ["y"])]), (2, 5, 6))
    turned = [("Transpose", ["x"], ["t"], {"perm": [0, 2, 3, 1]}), ("Mul", ["t", "c"], ["u"]), ("Transpose", ["u"], ["y"], {"perm": [0, 3, 1, 2]})]
    yield "transpose.there-and-back", (graph(turned, [("c", normal(2))]), (2, 5, 6))
    yield "transpose.other", one("Transpose", perm=[0, 3, 1, 2])
    mixed = [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1, 3]}), ("Transpose", ["t"], ["u"], {"perm": [0, 2, 1, 3]}), ("Add", ["u", "x"], ["y"])]
    yield "transpose.mixed", (graph(mixed), (2, 5, 6))
    yield "Softmax.channels", one("Softmax", axis=1)
    yield "Softmax.columns", one("Softmax")
    yield "Softmax.early", one("Softmax", 11)
    yield "Softmax.early-rows", one("Softmax", 11, axis=2)
    yield "LogSoftmax", one("LogSoftmax", axis=2)
    yield "ReduceMean.pixels", one("ReduceMean", axes=[2, 3])
    yield "ReduceMean.gone", one("ReduceMean", axes=[-1, 2], keepdims=0)
    yield "ReduceMean.rows", one("ReduceMean", axes=[2], keepdims=0)
    yield "ReduceMean.input", one("ReduceMean", 18, constants=[("a", ints(1))], keepdims=0)
    yield "ReduceSum.input", one("ReduceSum", constants=[("a", ints(1, 3))])
    yield "ReduceSum.early", one("ReduceSum", 11, axes=[1], keepdims=0)
    yield "ReduceMax", one("ReduceMax", axes=[1, 2])
    yield "Pad.attributes", one("Pad", 9, pads=[0, 1, 0, 2, 0, 0, 3, 0], value=0.5)
    yield "Pad.inputs", one("Pad", constants=[("p", ints(0, 0, 1, 1, 0, 0, 2, 0)), ("v", np.float32(-2))])
    yield "Pad.axes", (graph([("Pad", ["x", "p", "", "a"], ["y"])], [("p", ints(1, 2)), ("a", ints(3))], opset=18), (2, 5, 6))
    yield "Slice.attributes", one("Slice", 9, axes=[1, 2], starts=[1, -4], ends=[2, 100])
    yield "Slice.steps", (
        graph([("Slice", ["x", "s", "e", "a", "t"], ["y"])], [("s", ints(0, 1)), ("e", ints(99, 99)), ("a", ints(2, 3)), ("t", ints(2, 3))]),
        (2, 5, 6),
    )
    yield "Gather.channel", one("Gather", constants=[("i", np.array(-1, np.int64))], axis=1)
    yield "Gather.row", one("Gather", constants=[("i", ints(3))], axis=2)
    yield "Concat.channels", (graph([("Tanh", ["x"], ["t"]), ("Concat", ["x", "t"], ["y"], {"axis": 1})]), (2, 5, 6))
    yield "Concat.rows", (graph([("Tanh", ["x"], ["t"]), ("Concat", ["x", "t", "x"], ["y"], {"axis": -2})]), (2, 5, 6))
    yield "Squeeze.all", one("Squeeze", 11, (2, 5, 1))
    yield "Squeeze.input", one("Squeeze", 13, (1, 5, 6), [("a", ints(1))])
    yield "Unsqueeze.attributes", one("Unsqueeze", 11, (3,), axes=[1, 2])
    yield "Unsqueeze.input", one("Unsqueeze", 13, (4,), [("a", ints(-1))])
    yield "Flatten.two", (graph([("Reshape", ["x", "s"], ["r"]), ("Relu", ["r"], ["y"])], [("s", ints(0, 5, -1, 3))]), (2, 5, 6))
    halves = [("Reshape", ["x", "s"], ["r"]), ("Transpose", ["r"], ["t"], {"perm": [0, 2, 1, 3, 4]}), ("Reshape", ["t", "o"], ["y"])]
    yield "shuffle", (graph(halves, [("s", ints(-1, 2, 3, 4, 2)), ("o", ints(0, 6, 4, 2))], (6, 4, 2)), (6, 4, 2))
    back = [("Flatten", ["x"], ["f"]), ("Tanh", ["f"], ["t"]), ("Reshape", ["t", "s"], ["r"]), ("Conv", ["r", "w"], ["y"])]
    yield "flattened-and-back", (graph(back, [("s", ints(-1, 2, 5, 6)), w]), (2, 5, 6))
    shaped = [
        ("Shape", ["x"], ["s"]),
        ("Gather", ["s", "zero"], ["n"]),
        ("Unsqueeze", ["n"], ["n1"], {"axes": [0]}),
        ("Shape", ["x"], ["s2"]),
        ("Slice", ["s2", "two", "four"], ["hw"]),
        ("ConstantOfShape", ["one"], ["c"], {"value": helper.make_tensor("", TensorProto.INT64, [1], [-1])}),
        ("Cast", ["hw"], ["hw64"], {"to": TensorProto.INT64}),
        ("Mul", ["hw64", "ones"], ["hw2"]),
        ("Concat", ["n1", "c", "hw2"], ["to"], {"axis": 0}),
        ("Reshape", ["x", "to"], ["y"]),
    ]
    numbers = [("zero", np.array(0, np.int64)), ("two", ints(2)), ("four", ints(4)), ("one", ints(1)), ("ones", ints(1, 1))]
    yield "shape-arithmetic", (graph(shaped, numbers, opset=11), (2, 5, 6))
    w2 = normal(60, 4)
    yield "MatMul", (graph([("Flatten", ["x"], ["f"]), ("MatMul", ["f", "w"], ["m"]), ("Add", ["m", "b"], ["y"])], [("w", w2), ("b", normal(4))]), (2, 5, 6))
    yield "MatMul.last-axis", one("MatMul", constants=[("w", normal(6, 3))])
    yield "Gemm.scaled", (
        graph([("Flatten", ["x"], ["f"]), ("Gemm", ["f", "w", "c"], ["y"], {"alpha": 0.5, "beta": 2.0})], [("w", w2), ("c", normal(1, 4))]),
        (2, 5, 6),
    )
    folded = [("Transpose", ["w"], ["t"], {"perm": [1, 0]}), ("Flatten", ["x"], ["f"]), ("Gemm", ["f", "t"], ["y"], {"transB": 1})]
    yield "Gemm.folded", (graph(folded, [("w", w2)]), (2, 5, 6))
    statistics = [("g", normal(2)), ("b", normal(2)), ("m", normal(2)), ("v", 0.5 + np.abs(normal(2)))]
    yield "BatchNormalization", one("BatchNormalization", 15, constants=statistics, epsilon=0.01)
    vectors = [(name, np.tile(value, 30)) for name, value in statistics]
    yield "BatchNormalization.flat", (
        graph([("Flatten", ["x"], ["f"]), ("BatchNormalization", ["f", "g", "b", "m", "v"], ["y"])], vectors),
        (2, 5, 6),
    )
    vectors = [("g", normal(6)), ("b", normal(6))]
    yield "LayerNormalization", one("LayerNormalization", 17, constants=vectors, epsilon=0.02)
    for exponent in [0.5, 2, 3]:
        yield f"Pow.{exponent}", one("Pow", constants=[("e", np.float32(exponent))])
    half = [("w", normal(3, 2, 2, 2).astype(np.float16))]
    yield "half-weights", (graph([("Cast", ["w"], ["w32"], {"to": 1}), ("Conv", ["x", "w32"], ["y"])], half), (2, 5, 6))
    yield "same-weight-twice", (
        graph([("Conv", ["x", "w"], ["a"], {"pads": [1, 1, 1, 1]}), ("Conv", ["a", "w"], ["y"])], [("w", normal(2, 2, 3, 3))]),
        (2, 5, 6),
    )
    yield "fixed-batch", (graph([("Reshape", ["x", "s"], ["y"])], [("s", ints(1, 60))], batch=1), (2, 5, 6))


def main():
    tensors = {}

    def add(name, model, x):
        onnx.checker.check_model(onnx.load_from_string(model))
        tensors[f"{name}.model"] = np.frombuffer(model, np.uint8)
        tensors[f"{name}.x"] = x
        tensors[f"{name}.y"] = answers(model, x)

    model, x, torch_model = training()
    tensors["mobile.training.model"] = np.frombuffer(model, np.uint8)
    tensors["mobile.training.x"] = x.numpy()
    tensors["mobile.training.y"] = torch_model(x).detach().numpy()
    for name, model, x, torch_model in networks():
        add(name, model, x.numpy())
        v = np.random.default_rng(3).standard_normal(tensors[f"{name}.y"].shape).astype(np.float32)
        tensors[f"{name}.v"] = v
        tensors[f"{name}.dx"] = gradient(torch_model, x, v)
    random = np.random.default_rng(11)
    for name, (model, image) in operators():
        # Negative values too, except where there is no answer to them.
        low = 0.1 if name in ("Log", "Sqrt", "Pow.0.5") or ".turned" in name or ".single" in name else -1.0
        add(f"op.{name}", model, random.uniform(low, 1, (2, *image)).astype(np.float32))
    save_file(tensors, OUT)
    print(f"{OUT.name}: {sum(name.endswith('.model') for name in tensors)} networks, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
