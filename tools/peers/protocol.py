"""The worker's side of the conversation with tools/compare: one JSON object a line in, one a line out.

benches/compare/worker.rs lists what is asked and answered. A worker in Python derives from Worker and calls serve.
"""

import json
import os
import pathlib
import sys
import time
import traceback

import numpy as np

KINDS = {"F32": np.float32, "I64": np.int64}


def read_tensors(path):
    """The f32 tensors of a safetensors file as arrays. (A few lines here, so that a peer needs numpy alone.)"""
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], KINDS[entry["dtype"]]).reshape(entry["shape"]).copy()
    return tensors


def write_tensors(path, tensors):
    """Writes arrays as a safetensors file of f32 tensors."""
    header, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor, np.float32)
        header[name] = {"dtype": "F32", "shape": list(data.shape), "data_offsets": [offset, offset + data.nbytes]}
        parts.append(data.tobytes())
        offset += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def status(field):
    """Bytes of a line of /proc/self/status."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    return None


class Worker:
    """What a contestant does; `load` leaves the work ready."""

    def hello(self):
        """A dict with `name` and `versions`."""
        raise NotImplementedError

    def load(self, work, tensors):
        """Gets a work ready on these arrays; raises NotImplementedError with a reason where it cannot do it."""
        raise NotImplementedError

    def results(self):
        """Arrays of what the work computes, see work.rs."""
        raise NotImplementedError

    def run(self, runs):
        """Does the work so many times and waits for the end."""
        raise NotImplementedError

    def warm(self):
        """Has the library allocate what it keeps anyway, before memory is measured."""

    def device_memory(self):
        """Most bytes on the device since the last call, where it is not the host's."""
        return

    def answer(self, request):
        what = request["do"]
        if what == "hello":
            return self.hello()
        if what == "load":
            self.warm()
            self.before = status("VmRSS:")
            self.load(request["work"], read_tensors(request["file"]))
        elif what == "check":
            write_tensors(request["file"], self.results())
        elif what == "round":
            start = time.perf_counter()
            self.run(request["runs"])
            return {"seconds": time.perf_counter() - start}
        elif what == "memory":
            self.device_memory()
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            self.run(2)
            device = self.device_memory()
            resident = status("VmHWM:") - self.before
            return {"resident": resident, "measured": resident if device is None else device}
        elif what != "quit":
            raise NotImplementedError(f"cannot {what}")
        return {}


def serve(make):
    """Answers requests with the worker that `make` gives, until the end of standard input."""
    # The conversation has standard output for itself; what libraries print goes to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            worker = worker or make()
            answer = worker.answer(request)
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0]}"[:300]}
        print(json.dumps(answer), file=out, flush=True)
        if request["do"] == "quit":
            break
