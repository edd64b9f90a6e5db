"""PyTorch as a contestant of tools/compare.

    python3 torch_worker.py [--device cpu|cuda] [--precision fp32|tf32|amp] [--channels-last] [--compile]
                            [--torchattacks] [--threads N] [--reference]

--reference computes in f64 on the CPU: what every contestant is checked against.
"""

import argparse
import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from peers.protocol import Worker, serve
from torch_models import by_name, load


def cnn():
    """W1's network."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


# PyTorch's names in a Sequential for those in the files.
CNN_NAMES = {"conv1": "0", "conv2": "2", "conv3": "4", "fc1": "7", "fc2": "9"}


class Torch(Worker):
    def __init__(self, options):
        self.options = options
        self.device = torch.device(options.device)
        self.type = torch.float64 if options.reference else torch.float32
        self.format = torch.channels_last if options.channels_last else torch.contiguous_format
        torch.set_num_threads(options.threads)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
                backend.allow_tf32 = options.precision == "tf32"
        self.amp = options.precision == "amp"

    def hello(self):
        versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
        name = f"{self.options.device}, {torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        if self.options.torchattacks:
            import torchattacks

            versions["torchattacks"] = torchattacks.__version__
        return {"name": name, "versions": versions}

    def warm(self):
        x = torch.rand(2, 3, 8, 8, device=self.device, requires_grad=True)
        F.conv2d(x, torch.rand(4, 3, 3, 3, device=self.device)).sum().backward()

    def device_memory(self):
        if self.device.type != "cuda":
            return None
        most = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return most

    def tensor(self, array):
        tensor = torch.from_numpy(array).to(self.device, self.type)
        return tensor.to(memory_format=self.format) if tensor.dim() == 4 else tensor

    def compiled(self, function):
        if not self.options.compile:
            return function
        torch._dynamo.reset()
        return torch.compile(function)

    def autocast(self):
        return torch.autocast(self.device.type, torch.float16, enabled=self.amp)

    def load(self, work, tensors):
        self.model = self.optimizer = self.step = None
        kind = work["kind"]
        if kind in ("convolution", "product"):
            self.load_product(work, {name: self.tensor(array) for name, array in tensors.items()})
            return
        if self.options.torchattacks and (kind != "train" or work["steps"] == 0):
            raise NotImplementedError("not an attack")
        self.images = self.tensor(tensors["images"])
        self.labels = torch.from_numpy(tensors["labels"]).to(self.device, torch.int64)
        weights = {name[8:]: array for name, array in tensors.items() if name.startswith("weights.")}
        if work["net"] == "cnn":
            weights = {f"{CNN_NAMES[name.split('.')[0]]}.{name.split('.')[1]}": a for name, a in weights.items()}
        self.names = {name: key for key, name in zip((n for n in tensors if n.startswith("weights.")), weights)}
        self.model = cnn() if work["net"] == "cnn" else by_name("resnet18")
        self.model = load(self.model, {name: torch.from_numpy(array) for name, array in weights.items()})
        self.model = self.model.to(self.device, self.type).to(memory_format=self.format).eval().requires_grad_(False)
        self.forward = self.compiled(self.model)
        self.kind, self.work = kind, work
        if kind == "train":
            self.load_training(work)

    def load_product(self, work, t):
        self.kind = "product"
        if work["kind"] == "product":
            function = self.compiled(torch.mm)
            self.once = lambda: function(t["a"], t["b"])
            return
        what, filter_shape = work["what"], (work["outputs"], work["inputs"], 3, 3)
        if what == "forward":
            function = self.compiled(lambda x, w: F.conv2d(x, w, padding=1))
            self.once = lambda: function(t["x"], t["filter"])
            return
        # The backward kernel with the mask that asks for one gradient only, as autograd would.
        wanted = [what == "input_gradient", what == "weight_gradient", False]

        def backward(dy, x, w):
            one = [1, 1]
            return torch.ops.aten.convolution_backward(dy, x, w, None, one, one, one, False, [0, 0], 1, wanted)

        function = self.compiled(backward)
        index = wanted.index(True)
        x = t.get("x")
        if x is None:
            shape = (work["batch"], work["inputs"], work["size"], work["size"])
            x = torch.zeros(shape, device=self.device, dtype=self.type).to(memory_format=self.format)
        w = t.get("filter")
        if w is None:
            w = torch.zeros(filter_shape, device=self.device, dtype=self.type).to(memory_format=self.format)
        self.once = lambda: function(t["dy"], x, w)[index]

    def load_training(self, work):
        numerator, _, denominator = work["epsilon"].partition("/")
        epsilon = float(numerator) / float(denominator or 1)
        numerator, _, denominator = work["step_size"].partition("/")
        size = float(numerator) / float(denominator or 1)
        steps, model = work["steps"], self.model
        fused = self.type == torch.float32
        self.optimizer = torch.optim.SGD(model.parameters(), work["learning_rate"], momentum=0.9, fused=fused)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        x, labels = self.images, self.labels
        if self.options.torchattacks:
            import torchattacks

            attack = torchattacks.PGD(self.forward, eps=epsilon, alpha=size, steps=steps, random_start=True)

            def attacked():
                with self.autocast():
                    return attack(x, labels).to(memory_format=self.format)
        else:

            def attacked():
                if steps == 0:
                    return x
                low, high = (x - epsilon).clamp_(0, 1), (x + epsilon).clamp_(0, 1)
                now = torch.empty_like(x).uniform_(-epsilon, epsilon).add_(x).clamp_(0, 1)
                for _ in range(steps):
                    gradient = self.gradient(now)[1]
                    now = torch.clamp(now + size * gradient.sign_(), low, high)
                return now

        def step():
            model.eval()
            if not self.options.torchattacks:
                model.requires_grad_(False)
            found = attacked()
            model.train().requires_grad_(True)
            with self.autocast():
                loss = F.cross_entropy(self.forward(found), labels)
            self.optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(self.optimizer)
            scaler.update()
            return loss

        self.step = step

    def gradient(self, x):
        """Logits at x, and the gradient of the summed cross-entropy by x."""
        x = x.detach().requires_grad_()
        with self.autocast():
            logits = self.forward(x)
            loss = F.cross_entropy(logits, self.labels, reduction="sum")
        return logits.detach(), torch.autograd.grad(loss, x)[0]

    def run(self, runs):
        for _ in range(runs):
            if self.kind == "product":
                with torch.inference_mode(), self.autocast():
                    self.once()
            elif self.kind == "logits":
                with torch.inference_mode(), self.autocast():
                    self.forward(self.images)
            elif self.kind == "gradient":
                self.gradient(self.images)
            else:
                self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def results(self):
        found = {}
        if self.kind == "product":
            with torch.inference_mode(), self.autocast():
                found["result"] = self.once()
        elif self.kind == "logits":
            with torch.inference_mode(), self.autocast():
                found["logits"] = self.forward(self.images)
        else:
            found["logits"], found["input_gradient"] = self.gradient(self.images)
        if self.kind == "train":
            found |= self.weight_gradients()
            if self.options.reference:
                # In f32 as the others do it, which is what their losses are near to.
                torch.manual_seed(0)
            found["loss"] = self.step().detach().reshape(1)
        return {name: tensor.detach().double().cpu().numpy() for name, tensor in found.items()}

    def weight_gradients(self):
        """Gradients of the mean loss of the clean images by every weight, in training mode, statistics left alone."""
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        self.model.train().requires_grad_(True)
        with self.autocast():
            loss = F.cross_entropy(self.model(self.images), self.labels)
        names, parameters = zip(*self.model.named_parameters())
        gradients = torch.autograd.grad(loss, parameters)
        self.model.eval().requires_grad_(False)
        for name, b in self.model.named_buffers():
            b.copy_(buffers[name])
        return {self.names[name].replace("weights.", "gradient."): g for name, g in zip(names, gradients)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "amp"])
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    for flag in ["--channels-last", "--compile", "--torchattacks", "--reference"]:
        arguments.add_argument(flag, action="store_true")
    options = arguments.parse_args()
    serve(lambda: Torch(options))


if __name__ == "__main__":
    main()
