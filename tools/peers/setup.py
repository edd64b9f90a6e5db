"""Sets up the peers, each from its registry, in a folder of their own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def say(text):
    print(text, file=sys.stderr, flush=True)


def python(options):
    """The Python that has the packages of requirements.txt, in an environment made when it is missing or old."""
    if options.python:
        return options.python.absolute()
    folder, wanted = options.folder / "python", (HERE / "requirements.txt").read_text()
    interpreter, installed = folder / "bin" / "python", folder / "installed.txt"
    if options.no_setup:
        return interpreter if interpreter.exists() else pathlib.Path(sys.executable)
    if not (interpreter.exists() and installed.exists() and installed.read_text() == wanted):
        say(f"installing {', '.join(line for line in wanted.split() if '==' in line)} into {folder}")
        subprocess.check_call([sys.executable, "-m", "venv", str(folder)])
        lines = [line for line in wanted.splitlines() if line and not line.startswith("#")]
        for line in lines:
            # One by one: what does not install is a contestant less, no end of all.
            if subprocess.call([str(interpreter), "-m", "pip", "install", "--quiet", line], stdout=sys.stderr):
                say(f"{line} does not install")
        installed.write_text(wanted)
    return interpreter


def adamant(options, root):
    """adamant's worker, built."""
    if options.adamant:
        return options.adamant.absolute()
    command = ["cargo", "bench", "--bench", "compare", "--no-run", "--message-format=json"]
    if options.no_setup:
        command.append("--offline")
    say("building adamant")
    built = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "compare":
            return pathlib.Path(message["executable"])
    raise SystemExit("cargo built no worker")


def rust_peer(options, name, feature=None):
    """The binary of the package tools/peers/NAME, built under the folder of the peers; or why there is none."""
    target = options.folder / ("rust" if feature is None else f"rust-{feature}")
    binary = target / "release" / f"{name}-worker"
    if options.no_setup or not shutil.which("cargo"):
        return (binary, None) if binary.exists() else (None, "not built, and nothing is to be set up")
    say(f"building {name} (the first time takes minutes)")
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", str(HERE / name / "Cargo.toml")]
    command += ["--features", feature] if feature else []
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_INCREMENTAL": "0"}
    if subprocess.call(command, env=environment, stdout=sys.stderr):
        return None, "does not build here"
    return binary, None
