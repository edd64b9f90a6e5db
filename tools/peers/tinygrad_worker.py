"""tinygrad as a contestant of tools/compare, on the device its environment names (DEV=CPU, DEV=WEBGPU)."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from importlib.metadata import version

from peers.protocol import Worker, serve
from tinygrad import Device, Tensor, TinyJit


def number(text):
    over, _, under = text.partition("/")
    return float(over) / float(under or 1)


class Tiny(Worker):
    def hello(self):
        return {"name": Device.DEFAULT, "versions": {"tinygrad": version("tinygrad")}}

    def conv(self, x, name, stride, padding, bias=False):
        return x.conv2d(
            self.p[f"{name}.weight"], self.p[f"{name}.bias"] if bias else None, stride=stride, padding=padding
        )

    def norm(self, x, name, training):
        weight, bias, mean, variance = (
            self.p[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if not training:
            scale = weight / (variance + 1e-5).sqrt()
            return x * scale + (bias - mean * scale)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        batch_mean = x.mean((0, 2, 3), keepdim=True)
        centred = x - batch_mean
        batch_variance = centred.square().mean((0, 2, 3), keepdim=True)
        for part, old, new in [
            ("running_mean", mean, batch_mean), ("running_var", variance, batch_variance * (count / (count - 1)))
        ]:  # fmt: skip
            self.updates[f"{name}.{part}"] = (old * 0.9 + new.detach() * 0.1).flatten()
        return centred * (weight / (batch_variance + 1e-5).sqrt()) + bias

    def forward(self, x, training=False):
        self.updates = {}
        linear = lambda x, name: x.linear(self.p[f"{name}.weight"].transpose(), self.p[f"{name}.bias"])
        if self.work["net"] == "cnn":
            for name, stride in [("conv1", 1), ("conv2", 2), ("conv3", 2)]:
                x = self.conv(x, name, stride, 1, True).relu()
            return linear(linear(x.flatten(1), "fc1").relu(), "fc2")
        x = self.norm(self.conv(x, "conv1", 1, 1), "bn1", training).relu()
        for stage in range(1, 5):
            for block in range(2):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = self.norm(self.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1", training).relu()
                y = self.norm(self.conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2", training)
                if stride == 2:
                    x = self.norm(self.conv(x, f"{name}.shortcut.0", 2, 0), f"{name}.shortcut.1", training)
                x = (y + x).relu()
        return linear(x.mean((2, 3)), "linear")

    def loss(self, logits):
        return -(logits.log_softmax(axis=1) * self.one_hot).sum()

    def gradient(self, x):
        logits = self.forward(x)
        return logits, self.loss(logits).gradient(x)[0]

    def load(self, work, tensors):
        self.work, self.step = work, None
        kind = work["kind"]
        if kind == "product":
            a, b = (Tensor(tensors[name]).realize() for name in "ab")
            self.once = TinyJit(lambda: (a @ b).realize())
            return
        if kind == "convolution":
            self.load_convolution(work, {name: Tensor(array).realize() for name, array in tensors.items()})
            return
        self.p = {name[8:]: Tensor(array).realize() for name, array in tensors.items() if name.startswith("weights.")}
        self.images = Tensor(tensors["images"]).realize()
        self.one_hot = Tensor(tensors["labels"].astype("int32")).one_hot(10).float().realize()
        x = self.images
        if kind == "logits":
            self.once = TinyJit(lambda: self.forward(x).realize())
        elif kind == "gradient":
            self.once = TinyJit(lambda: tuple(t.realize() for t in self.gradient(x)))
        else:
            self.load_training(work)

    def load_convolution(self, work, t):
        if work["what"] == "forward":
            self.once = TinyJit(lambda: t["x"].conv2d(t["filter"], padding=1).realize())
            return
        n, s, c, k = (work[name] for name in ("batch", "size", "inputs", "outputs"))
        # A tensor that the gradient does not depend on is not in the file.
        x = t["x"] if "x" in t else Tensor.zeros(n, c, s, s).contiguous().realize()
        w = t["filter"] if "filter" in t else Tensor.zeros(k, c, 3, 3).contiguous().realize()
        by = x if work["what"] == "input_gradient" else w
        self.once = TinyJit(lambda: (x.conv2d(w, padding=1) * t["dy"]).sum().gradient(by)[0].realize())

    def load_training(self, work):
        epsilon, size, x = number(work["epsilon"]), number(work["step_size"]), self.images
        low, high = (x - epsilon).clip(0, 1).realize(), (x + epsilon).clip(0, 1).realize()
        trained = [name for name in self.p if "running" not in name]
        velocity = {name: self.p[name].zeros_like().contiguous().realize() for name in trained}

        @TinyJit
        def ascend(now):
            return (now + size * self.gradient(now)[1].sign()).maximum(low).minimum(high).realize()

        @TinyJit
        def update(found):
            mean, gradients = self.weight_gradients(found)
            changed = [mean]
            for name, gradient in gradients.items():
                velocity[name].assign(velocity[name] * 0.9 + gradient)
                self.p[name].assign(self.p[name] - work["learning_rate"] * velocity[name])
                changed += [velocity[name], self.p[name]]
            for name, new in self.updates.items():
                changed.append(self.p[name].assign(new))
            Tensor.realize(*changed)
            return mean

        def step():
            found = x
            if work["steps"]:
                found = (x + (Tensor.rand(*x.shape) * 2 - 1) * epsilon).clip(0, 1).realize()
                for _ in range(work["steps"]):
                    # The JIT hands out the same buffer again: a copy of its own is what it may read next.
                    found = ascend(found).clone().realize()
            return update(found.contiguous().realize() if work["steps"] else found)

        self.step = step

    def weight_gradients(self, x):
        """Mean loss in training mode and its gradients by the trained parameters."""
        names = [name for name in self.p if "running" not in name]
        mean = self.loss(self.forward(x, training=True)) / x.shape[0]
        return mean, dict(zip(names, mean.gradient(*(self.p[name] for name in names))))

    def run(self, runs):
        for _ in range(runs):
            (self.step or self.once)()
        Device[Device.DEFAULT].synchronize()

    def results(self):
        if not self.step and self.work["kind"] not in ("gradient", "logits"):
            return {"result": self.once().numpy()}
        if self.work["kind"] == "logits":
            return {"logits": self.once().numpy()}
        logits, gradient = self.gradient(self.images)
        found = {"logits": logits.numpy(), "input_gradient": gradient.numpy()}
        if self.step:
            gradients = self.weight_gradients(self.images)[1]
            found |= {f"gradient.{name}": gradient.numpy() for name, gradient in gradients.items()}
            found["loss"] = self.step().numpy().reshape(1)
        return found


if __name__ == "__main__":
    serve(Tiny)
