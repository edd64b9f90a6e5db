"""The contest: who takes part, the rounds, the record."""

import datetime
import importlib.util
import json
import os
import pathlib
import platform
import selectors
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np

from . import report, setup, works
from .protocol import read_tensors, write_tensors
from .works import LIMITS, REDUCED, TOLERANCE

HERE = pathlib.Path(__file__).resolve().parent
# Share of a batch's images whose input gradient may differ more, because a ReLU turns over.
TURNED = 0.5
# Works that are more than another one.
HEAVIER = {"W1": ("W2c",), "W2a": ("W2b", "W2c"), "W2b": ("W2c",)}
# Seconds that the runs of a round fill at least.
ROUND = 0.1


class Failed(Exception):
    """A contestant cannot do what it was asked, or has ended."""


class Contestant:
    """A worker process, started when it is first needed."""

    def __init__(self, name, device, command, environment=None, does=None, missing=None, reduced=False):
        self.name, self.device, self.command = name, device, command
        # Computes in less than f32, which is held to other limits.
        self.reduced = reduced
        self.environment, self.does, self.missing = environment or {}, does, missing
        self.process, self.about = None, {}

    def start(self, options):
        threads = str(options.threads)
        names = [
            "RAYON_NUM_THREADS",
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "LP_NUM_THREADS",
            "THREADS",
        ]
        environment = {**os.environ, **{name: threads for name in names}, "NODEVICE_SELECT": "1", **self.environment}
        # Compiled code that a library keeps is kept with the peers.
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(options.folder / "inductor")
        environment["XDG_CACHE_HOME"] = str(options.folder / "cache")
        self.log = open(options.folder / f"{self.name.replace(' ', '-').replace('/', '-')}.log", "w")
        pipe = subprocess.PIPE
        # In a session of its own, so that Ctrl-C ends the contest and not the worker in the middle of an answer.
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=self.log, env=environment, text=True, bufsize=1,
            start_new_session=True,
        )  # fmt: skip
        self.about |= self.ask({"do": "hello"}, max(options.limit, 120))

    def ask(self, request, limit):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed("has ended") from error
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                self.stop()
                raise Failed(f"took more than {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.process = None
            raise Failed(f"ended with code {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def adapters(worker):
    """The Vulkan, Metal or DX12 adapters that adamant sees: number, name, whether it is software."""
    listed = subprocess.run([str(worker), "devices"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(listed.stdout.strip().splitlines()[-1])


def has_cuda(python):
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.call([str(python), "-c", code], stderr=subprocess.DEVNULL) == 0


def contestants(options, root):
    """Everyone who could take part on this machine; who cannot says why in `missing`."""
    python, threads = sys.executable, str(options.threads)
    worker = setup.adamant(options, root)
    found = [
        Contestant("adamant", "cpu", [str(worker), "worker", "cpu"]),
        Contestant("adamant f16", "cpu", [str(worker), "worker", "cpu", "f16"], does=halves, reduced=True),
    ]

    def torch(name, device, *flags, does=None, missing=None, reduced=False):
        command = [python, str(HERE / "torch_worker.py"), "--threads", threads, "--device", device.split()[0], *flags]
        found.append(Contestant(name, device, command, does=does, missing=missing, reduced=reduced))

    no_compiler = None if shutil.which("g++") or shutil.which("cc") else "torch.compile needs a C++ compiler"
    attacks = lambda name, work: work["kind"] == "train" and work["steps"] > 0
    steps = lambda name, work: not name.startswith("W4")
    torch("torch eager", "cpu", does=steps)
    torch("torch eager channels_last", "cpu", "--channels-last")
    torch("torch compile", "cpu", "--compile", does=steps, missing=no_compiler)
    torch("torch compile channels_last", "cpu", "--compile", "--channels-last", does=steps, missing=no_compiler)
    only_attacks = lambda name, work: attacks(name, work) and steps(name, work)
    torch("torchattacks channels_last", "cpu", "--torchattacks", "--channels-last", does=only_attacks)
    burn, no_burn = setup.rust_peer(options, "burn")
    candle, no_candle = setup.rust_peer(options, "candle")
    found.append(Contestant("burn flex", "cpu", [str(burn), "flex"], does=peers, missing=no_burn))
    found.append(Contestant("candle", "cpu", [str(candle)], does=peers, missing=no_candle))
    found.append(tinygrad(python, "cpu", "CPU"))
    seen = adapters(worker)
    for adapter in seen:
        device = f"vulkan {adapter['index']}"
        about = {"adapter": adapter["name"], "software": adapter["software"]}
        does = software if adapter["software"] else None
        of_peers = (lambda name, work: software(name, work) and peers(name, work)) if adapter["software"] else peers
        own = [str(worker), "worker", str(adapter["index"])]
        also = (lambda name, work: software(name, work) and halves(name, work)) if adapter["software"] else halves
        on_it = [
            Contestant("adamant", device, own, does=does),
            Contestant("adamant f16", device, [*own, "f16"], does=also, reduced=True),
        ]
        # The peers pick an adapter by themselves: hardware before software, the first one.
        if adapter == next((a for a in seen if not a["software"]), seen[0]):
            on_it.append(Contestant("burn wgpu", device, [str(burn), "wgpu"], does=of_peers, missing=no_burn))
            if not adapter["software"]:
                spirv, no_spirv = setup.rust_peer(options, "burn", "spirv")
                on_it.append(Contestant("burn wgpu spirv", device, [str(spirv), "wgpu"], missing=no_spirv))
            on_it.append(tinygrad(python, device, "WEBGPU", of_peers))
        for one in on_it:
            one.about = dict(about)
        found += on_it
    if has_cuda(python):
        cuda, no_cuda = setup.rust_peer(options, "burn", "cuda")
        found.append(Contestant("burn cuda", "cuda", [str(cuda), "cuda"], does=peers, missing=no_cuda))
        for precision in ["fp32", "tf32", "amp"]:
            flags = ["--precision", precision, "--channels-last"]
            torch(f"torch {precision} channels_last", "cuda", *flags, reduced=precision != "fp32")
        torch("torch fp32", "cuda")
        torch(
            "torch compile amp channels_last",
            "cuda",
            "--precision",
            "amp",
            "--channels-last",
            "--compile",
            missing=no_compiler,
            reduced=True,
        )
    return found


def tinygrad(python, device, backend, does=None):
    """tinygrad on one of its backends; what it lacks, if anything."""
    found = lambda module: importlib.util.find_spec(module)
    environment, missing = {"DEV": backend, "CPU_COUNT": str(os.cpu_count())}, None
    if not found("tinygrad"):
        missing = "tinygrad is not installed"
    elif backend == "CPU":
        compilers = ["clang", *(f"clang-{version}" for version in range(25, 13, -1))]
        compiler = next(filter(shutil.which, compilers), None)
        environment["CC"] = compiler or ""
        missing = None if compiler else "tinygrad's CPU backend needs clang"
    elif found("pydawn"):
        folder = pathlib.Path(found("pydawn").origin).parent / "lib"
        environment["WEBGPU_PATH"] = next(map(str, folder.glob(f"*{platform.machine()}.so")), "")
    else:
        missing = "tinygrad's WEBGPU backend needs dawn-python"
    command = [python, str(HERE / "tinygrad_worker.py")]
    return Contestant(f"tinygrad {backend}", device, command, environment, does or peers, missing)


def peers(name, work):
    """What is asked of the slower engines: not the scaling of W4 nor W2's standard step."""
    return not name.startswith(("W2 standard", "W4"))


def halves(name, work):
    """What adamant can do in half precision: passes of networks and attacks, in W1 and W2."""
    return name.startswith(("W1", "W2")) and work.get("steps", 1) > 0


def software(name, work):
    """What is asked of an adapter that is software: no training of the ResNet, and of W4 nothing."""
    return not name.startswith(("W2c", "W2 standard", "W4"))


class Entry:
    """A contestant at one work."""

    def __init__(self, contestant):
        self.contestant, self.seconds, self.runs, self.rounds, self.errors, self.why = contestant, [], 1, 0, {}, None
        # What is wrong with a time that counts all the same.
        self.turned, self.doubt = None, None

    @property
    def median(self):
        return statistics.median(self.seconds) if self.seconds and not self.why else None


def difference(got, want):
    """Largest difference as a share of the largest magnitude wanted."""
    if got.shape != want.shape:
        return float("inf")
    most = float(np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-30))
    return most if np.isfinite(most) else float("inf")


def length_of_difference(got, want):
    """The length of the difference as a share of the length wanted."""
    error = float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64)))
    return error if np.isfinite(error) else float("inf")


def check(entry, results, reference):
    """Holds results against PyTorch's; `entry.why` is "wrong" where one is."""
    reduced = entry.contestant.reduced
    weights = [name for name in reference if name.startswith("gradient.")]
    # Not every contestant can be asked for the gradients of weights.
    if weights and weights[0] in results:
        got, want = (np.concatenate([t[name].ravel() for name in weights]) for t in (results, reference))
        entry.errors["weight_gradients"] = length_of_difference(got, want)
    for name in reference.keys() - weights:
        if name not in results:
            entry.why = f"wrong: gives no {name}"
        elif name == "input_gradient" and results[name].shape == reference[name].shape:
            if reduced:
                entry.errors[name] = length_of_difference(results[name], reference[name])
                continue
            entry.errors[name] = image_by_image(entry, results[name], reference[name])
        else:
            entry.errors[name] = difference(results[name], reference[name])
    for kind, error in entry.errors.items():
        if error <= (REDUCED if reduced else LIMITS).get(kind, TOLERANCE):
            continue
        if kind == "weight_gradients" and not entry.contestant.name.startswith("adamant"):
            # In the peer's favour: its time counts, marked, since its logits and input gradient are right.
            entry.doubt = f"its weight gradients differ by {error:.1e}"
        else:
            entry.why = f"wrong: {kind} differs by {error:.1e}"


def image_by_image(entry, got, want):
    """The difference of the images whose gradients agree; or of all where too few do.

    A ReLU whose input is so near to zero that rounding turns it over changes the gradient of its image as a whole, by
    1e-3 and more. Of the 70 million of a batch of W2b some dozen do in f32 (PyTorch's own f32 differs from its f64 so
    in 6 of 128 images), while every other image agrees to 1e-6.
    """
    differs = np.abs(got.astype(np.float64) - want).reshape(len(want), -1).max(1) / np.abs(want).max()
    agree = differs <= TOLERANCE
    entry.turned = int((~agree).sum())
    if not np.isfinite(differs).all() or entry.turned > TURNED * len(want) or differs.max() > 0.1:
        return float(np.nan_to_num(differs, nan=np.inf).max())
    return float(differs[agree].max())


class Contest:
    def __init__(self, options, root):
        self.options, self.root = options, root
        self.files = options.folder / "works"
        self.files.mkdir(exist_ok=True)
        command = [sys.executable, str(HERE / "torch_worker.py"), "--threads", str(options.threads), "--reference"]
        self.referee = Contestant("reference", "cpu", command)
        self.rounds = 3 if options.quick else options.rounds
        # Contestants that took too long, and at which work.
        self.too_slow = {}

    def prepare(self, work):
        """The files of a work's inputs and of PyTorch's results, made when they are missing."""
        # Whatever changes numbers is part of the name.
        sources = [HERE / "works.py", HERE / "torch_worker.py", self.root / "tools" / "torch_models.py"]
        stamp = works.hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
        inputs, results = (self.files / f"{works.key(work)}-{stamp}-{what}.safetensors" for what in ("in", "out"))
        if not results.exists():
            write_tensors(inputs, works.inputs(work))
            if not self.referee.process:
                self.referee.start(self.options)
            self.referee.ask({"do": "load", "work": work, "file": str(inputs)}, 600)
            self.referee.ask({"do": "check", "file": str(results)}, 600)
        return inputs, read_tensors(results)

    def enter(self, entry, work, inputs, reference):
        """Loads the work, checks the result, warms up, and says how many rounds there will be."""
        one, options, results = entry.contestant, self.options, self.files / "check.safetensors"
        try:
            if not one.process:
                one.start(options)
            one.ask({"do": "load", "work": work, "file": str(inputs)}, options.limit)
            results.unlink(missing_ok=True)
            one.ask({"do": "check", "file": str(results)}, 3 * options.limit)
            check(entry, read_tensors(results), reference)
            if entry.why:
                return
            once = one.ask({"do": "round", "runs": 1}, options.limit)["seconds"]
            if once > options.budget:
                # Too slow for rounds: the check has warmed it up, and this was its time.
                entry.seconds = [once]
                return
            once = min(once, one.ask({"do": "round", "runs": 1}, options.limit)["seconds"])
            entry.runs = max(1, round(ROUND / once))
            entry.rounds = max(1, min(self.rounds, int(options.budget / (once * entry.runs))))
        except Failed as why:
            entry.why = str(why)

    def hold(self, name, work, everyone):
        """All rounds of one work."""
        entries = [Entry(one) for one in everyone if not one.does or one.does(name, work)]
        inputs, reference = self.prepare(work)
        for entry in entries:
            lighter = self.too_slow.get(entry.contestant)
            if entry.contestant.missing:
                entry.why = entry.contestant.missing
                continue
            if lighter and name in HEAVIER.get(lighter, ()):
                entry.why = f"not tried: {lighter} took more than {self.options.limit:.0f} s"
                continue
            print(
                f"\r\033[K{name}: {entry.contestant.device} {entry.contestant.name}",
                end="",
                file=sys.stderr,
                flush=True,
            )
            self.enter(entry, work, inputs, reference)
            if entry.why and entry.why.startswith("took more than"):
                self.too_slow[entry.contestant] = name
        for turn in range(self.rounds):
            print(f"\r\033[K{name}: round {turn + 1} of {self.rounds}", end="", file=sys.stderr, flush=True)
            for entry in entries:
                if entry.why or turn >= entry.rounds:
                    continue
                try:
                    request = {"do": "round", "runs": entry.runs}
                    seconds = entry.contestant.ask(request, 3 * self.options.limit)["seconds"]
                    entry.seconds.append(seconds / entry.runs)
                except Failed as why:
                    entry.why = str(why)
        best = min((e for e in entries if e.median), key=lambda e: e.median, default=None)
        told = f"; fastest {best.contestant.name} {best.median:.4g} s" if best else ""
        print(f"\r\033[K{name}{told}", file=sys.stderr, flush=True)
        return entries

    def extra(self, contestant, work, what):
        """The answer to `memory` or `overhead` of a process started for it, or why there is none."""
        inputs, _ = self.prepare(work)
        fresh = Contestant(contestant.name + " " + what, contestant.device, contestant.command, contestant.environment)
        try:
            fresh.start(self.options)
            fresh.ask({"do": "load", "work": work, "file": str(inputs)}, self.options.limit)
            fresh.ask({"do": "round", "runs": 1}, self.options.limit)
            return fresh.ask({"do": what}, 3 * self.options.limit)
        except Failed as why:
            return {"error": str(why)}
        finally:
            fresh.stop()


def load_average():
    return os.getloadavg()[0]


def processor():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit(root):
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=root, capture_output=True, text=True
    )
    return asked.stdout.strip() or None


def selected(options, everyone):
    chosen = {
        name: work for name, work in works.WORKS.items() if not options.works or name.startswith(tuple(options.works))
    }
    if options.quick and not options.works:
        chosen = {
            name: work for name, work in chosen.items() if name in ("W1", "W2c") or "3-64" in name or "128 at" in name
        }
    if not any(one.device == "cuda" for one in everyone):
        chosen.pop("W2c 128", None)
    return chosen


def main(options, root):
    everyone = contestants(options, root)
    if options.only:
        everyone = [one for one in everyone if any(word in f"{one.device} {one.name}" for word in options.only)]
    contest = Contest(options, root)
    started = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": load_average(),
    }
    begun, held, extras = time.monotonic(), {}, {}
    try:
        chosen = selected(options, everyone)
        try:
            for name, work in chosen.items():
                held[name] = contest.hold(name, work, everyone)
        except KeyboardInterrupt:
            # What was measured by then is told and kept.
            started["interrupted"] = True
        for one in everyone:
            if (
                "W2c" in held
                and one.device in ("cpu", "cuda")
                and one.name in ("adamant", "torch eager", "torch eager channels_last")
            ):
                extras[f"memory, {one.device} {one.name}"] = contest.extra(one, chosen["W2c"], "memory")
            if "W1" in held and one.name == "adamant" and one.device.startswith("vulkan"):
                extras[f"overhead, {one.device} {one.name}"] = contest.extra(one, chosen["W1"], "overhead")
    finally:
        for one in [*everyone, contest.referee]:
            one.stop()
    record = report.record(everyone, held, extras) | {
        "machine": {"processor": processor(), "threads": options.threads, "system": platform.platform()},
        "commit": commit(root), "rounds": contest.rounds, "seconds": time.monotonic() - begun, **started,
    }  # fmt: skip
    text = report.markdown(record)
    print(text)
    folders = [options.out] if options.out else []
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compare.md").write_text(text)
        (folder / "compare.json").write_text(json.dumps(record, indent=1))
    if options.record:
        device = "-".join(processor().lower().replace("(r)", "").split()[:2])
        base = root / "benches" / "record" / f"{record['date'][:10]}-{device}-{options.threads}-threads-compare"
        base.with_suffix(".md").write_text(text)
        base.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"recorded in {base}.md and .json", file=sys.stderr)
        if not (options.works or options.only or options.quick or "interrupted" in started):
            report.into_readme(root / "README.md", record, base.relative_to(root).with_suffix(".md"))
