"""The table and the record: medians, ratios, and the bars they are held to."""

import math

from . import works

TORCH = ("torch", "torchattacks")


def record(everyone, held, extras):
    """All that was found, as plain data."""
    return {
        "contestants": [
            {
                **one.about,
                "name": one.name,
                "device": one.device,
                "runs_on": one.about.get("name"),
                **({"missing": one.missing} if one.missing else {}),
            }
            for one in everyone
        ],
        "works": {
            name: [
                {
                    "contestant": entry.contestant.name,
                    "device": entry.contestant.device,
                    "reduced": entry.contestant.reduced,
                    "median": entry.median,
                    "seconds": entry.seconds,
                    "runs": entry.runs,
                    "differs": entry.errors,
                    "images_turned": entry.turned,
                    "why": entry.why,
                    "doubt": entry.doubt,
                }
                for entry in entries
            ]
            for name, entries in held.items()
        },
        "extras": extras,
    }


def figure(x):
    """Three digits."""
    if x is None:
        return "-"
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}"


def is_peer(name):
    return not name.startswith("adamant")


class Found:
    """What a record says of a work."""

    def __init__(self, record):
        self.record = record

    def median(self, work, device, contestant):
        for row in self.record["works"].get(work, []):
            if (row["device"], row["contestant"]) == (device, contestant):
                return row["median"]
        return None

    def best(self, work, device, wanted=is_peer):
        """The fastest peer at a work: its name and median, or None."""
        rows = self.record["works"].get(work, [])
        rows = [r for r in rows if r["device"] == device and r["median"] and wanted(r["contestant"])]
        return min(((r["contestant"], r["median"]) for r in rows), key=lambda row: row[1], default=None)

    def ratio(self, work, device, wanted=is_peer):
        """How many times faster adamant is than the fastest peer; that peer."""
        own, best = self.median(work, device, "adamant"), self.best(work, device, wanted)
        return (best[1] / own, best[0]) if own and best else None

    def devices(self):
        seen = []
        for one in self.record["contestants"]:
            if one["device"] not in seen:
                seen.append(one["device"])
        return seen

    def names(self, device):
        return [one["name"] for one in self.record["contestants"] if one["device"] == device]


def is_torch(name):
    return name.startswith(TORCH)


def table(head, rows, left=1):
    rule = "|" + "---|" * left + "--:|" * (len(head) - left)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def cell(record, work, device, contestant, show):
    for row in record["works"].get(work, []):
        if (row["device"], row["contestant"]) == (device, contestant):
            if row["median"]:
                return show(row["median"]) + ("*" if row["doubt"] else "")
            return "wrong" if row["why"] and row["why"].startswith("wrong") else "x"
    return ""


def block(record, title, columns, show, devices):
    """A table a device: a row a contestant, a column a work; empty where nobody has anything."""
    parts = []
    for device in devices:
        rows = [
            [one["name"], *(cell(record, work, device, one["name"], lambda s, w=work: show(w, s)) for work in columns)]
            for one in record["contestants"]
            if one["device"] == device
        ]
        rows = [row for row in rows if any(row[1:])]
        if rows:
            heads = [column.split(",")[0] if "," not in column else column.split(", ")[1] for column in columns]
            parts.append(f"### {title}, {describe(record, device)}\n\n" + table(["", *heads], rows))
    return "\n\n".join(parts)


def describe(record, device):
    for one in record["contestants"]:
        if one["device"] == device and one.get("adapter"):
            return one["adapter"]
    return {"cpu": "CPU", "cuda": "CUDA"}.get(device, device)


def geometric(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def bars(record):
    """Rows of (what, ours, theirs, figure, bar, aim, whether larger is better), as far as they were measured."""
    found, rows = Found(record), []

    def add(what, ours, theirs, value, bar, aim, more=True, unit="x"):
        if value is not None:
            rows.append(
                {
                    "what": what,
                    "ours": ours,
                    "theirs": theirs,
                    "figure": value,
                    "bar": bar,
                    "aim": aim,
                    "more": more,
                    "unit": unit,
                }
            )

    def speed(what, work, device, bar, aim, wanted=is_peer):
        ratio = found.ratio(work, device, wanted)
        if ratio:
            theirs = f"{figure(found.best(work, device, wanted)[1])} s, {ratio[1]}"
            add(what, f"{figure(found.median(work, device, 'adamant'))} s", theirs, ratio[0], bar, aim)

    speed("W1, CPU executor against PyTorch's best", "W1", "cpu", 1.5, 2.5, is_torch)
    speed("W2c, CPU executor against PyTorch's best", "W2c", "cpu", 1.2, 1.6, is_torch)
    names = [f"W3 {what}, {shape}" for what in ("forward", "input gradient") for shape in works.SHAPES]
    ratios = [found.ratio(name, "cpu", is_torch) for name in names]
    if all(ratios):
        add(
            "W3 forward and input gradient, CPU executor against PyTorch's best, geometric mean",
            "",
            "",
            geometric([r[0] for r in ratios]),
            1.2,
            1.6,
        )
    speed(
        "first layer's input gradient (3-64 at 32x32), CPU executor against PyTorch's best",
        "W3 input gradient, 3-64 at 32x32",
        "cpu",
        3,
        6,
        is_torch,
    )
    for device in found.devices():
        if not device.startswith("vulkan"):
            continue
        software = any(one.get("software") for one in record["contestants"] if one["device"] == device)
        for work in ("W1", "W2b"):
            speed(
                f"{work}, {describe(record, device)} against the best peer on it",
                work,
                device,
                5 if software else 1,
                10 if software else 1,
            )
        names = [f"W3 {what}, {shape}" for what in works.WHATS for shape in works.SHAPES]
        times = [found.median(name, device, "adamant") for name in names]
        if software and all(times):
            slowest = min(works.flops(works.WORKS[name]) / time / 1e9 for name, time in zip(names, times))
            add(
                f"W3, {describe(record, device)}, slowest of forward, input and weight gradients, GFLOP/s",
                "",
                "",
                slowest,
                15,
                25,
                unit="",
            )
        overhead = record["extras"].get(f"overhead, {device} adamant", {})
        if "step" in overhead:
            share = 100 * (overhead["step"] - overhead["kernels"]) / overhead["step"]
            add(
                f"replay overhead of W1, {describe(record, device)}: step less its kernels, % of the step",
                f"{figure(overhead['step'])} s, {overhead['launches']} launches", f"{figure(overhead['kernels'])} s in kernels", share, 5, 2, False, " %",
            )  # fmt: skip
    own, standard = found.median("W2c", "cpu", "adamant"), found.median("W2 standard", "cpu", "adamant")
    if own and standard:
        best, best_standard = found.best("W2c", "cpu", is_torch), found.best("W2 standard", "cpu", is_torch)
        theirs = f"PyTorch {figure(best[1] / best_standard[1])}" if best and best_standard else ""
        add(
            "PGD-10 training step over a standard one, ResNet-18, CPU executor",
            f"{figure(own)} s / {figure(standard)} s",
            theirs,
            own / standard,
            7.2,
            6,
            False,
        )
    memory(record, add)
    if found.median("W2c 128", "cuda", "torch fp32"):
        device = next((d for d in found.devices() if d.startswith("vulkan")), None)
        for what, ours, peer, bar, aim in [
            ("fp32 without TF32", ["adamant"], ["torch fp32"], 0.7, 1.0),
            ("with AMP", ["adamant", "adamant f16"], ["torch amp", "torch compile amp"], 0.25, 0.5),
        ]:
            own = found.best("W2c 128", device, lambda name, ours=ours: name in ours)
            best = found.best("W2c 128", "cuda", lambda name, peer=peer: name.startswith(tuple(peer)))
            if own and best:
                add(
                    f"W2c at batch 128 against PyTorch CUDA {what}",
                    f"{figure(own[1])} s, {own[0]}",
                    f"{figure(best[1])} s, {best[0]}",
                    best[1] / own[1],
                    bar,
                    aim,
                )
    return rows


def memory(record, add):
    own = record["extras"].get("memory, cpu adamant", {})
    if "planned" not in own:
        return
    mebi = lambda count: f"{count / 2**20:.0f} MiB"
    share = own["measured"] / own["planned"]
    add(
        "memory of W2c, measured over planned, CPU executor",
        mebi(own["measured"]),
        mebi(own["planned"]) + " planned",
        share,
        1.02,
        1.02,
        False,
    )
    theirs = {
        name.split(" ", 2)[2]: entry["resident"]
        for name, entry in record["extras"].items()
        if name.startswith("memory, cpu torch") and "resident" in entry
    }
    if theirs and own.get("resident"):
        name = min(theirs, key=theirs.get)
        add(
            "peak resident memory of W2c over what it was before, against PyTorch's", mebi(own["resident"]),
            f"{mebi(theirs[name])}, {name}", own["resident"] / theirs[name], 0.7, 0.4, False,
        )  # fmt: skip


def verdict(row):
    better = (lambda a, b: a >= b) if row["more"] else (lambda a, b: a <= b)
    return "aim" if better(row["figure"], row["aim"]) else "bar" if better(row["figure"], row["bar"]) else "**below**"


def scaling(record):
    """W4: time a sample as K and the batch grow."""
    found, parts = Found(record), []
    for title, names in [
        (
            "K grows, batch 128: seconds a sample and step of the attack",
            {k: "W1" if k == 10 else f"W4 K {k}" for k in works.STEPS},
        ),
        ("the batch grows, K 10: seconds a sample", {b: "W1" if b == 128 else f"W4 batch {b}" for b in works.BATCHES}),
    ]:
        rows = []
        for device in found.devices():
            for contestant in found.names(device):
                samples = []
                for extent, name in names.items():
                    seconds = found.median(name, device, contestant)
                    # A step of the attack and the update each are about a pass; K + 1 of them.
                    count = 128 * (extent + 1) if "K" in title[:1] else extent
                    samples.append(seconds / count if seconds else None)
                if sum(x is not None for x in samples) > 2:
                    least = min(x for x in samples if x)
                    rows.append(
                        [
                            f"{describe(record, device)} {contestant}",
                            *(f"{figure(1e6 * x)} us ({x / least:.2f})" if x else "" for x in samples),
                        ]
                    )
        if rows:
            heads = [f"K {k}" if title[0] == "K" else str(k) for k in names]
            parts.append(f"### W4: {title}, and its ratio to the least\n\n" + table(["", *heads], rows))
    return "\n\n".join(parts)


def reasons(record):
    lines = []
    for one in record["contestants"]:
        if one.get("missing"):
            lines.append(f"- {one['device']} {one['name']}: {one['missing']}")
    for work, rows in record["works"].items():
        for row in rows:
            if row["why"] and not any(row["why"] in line for line in lines):
                lines.append(f"- {row['device']} {row['contestant']}, {work}: {row['why']}")
            if row["doubt"]:
                lines.append(f"- {row['device']} {row['contestant']}, {work}, marked with a star: {row['doubt']}")
    return lines


def bars_table(record):
    rows = [
        [
            r["what"],
            r["ours"],
            r["theirs"],
            figure(r["figure"]) + r["unit"],
            f"{r['bar']:g}",
            f"{r['aim']:g}",
            verdict(r),
        ]
        for r in bars(record)
    ]
    return table(["what", "adamant", "beside it", "figure", "bar", "aim", "reached"], rows, 3) if rows else ""


def into_readme(path, record, full):
    """Puts the bars between the README's two lines for it."""
    text = path.read_text()
    begin, end = "<!-- tools/compare --record writes", "<!-- end of what tools/compare --record writes -->"
    start = text.index("\n", text.index(begin)) + 1
    machine = record["machine"]
    words = (
        f"{record['date'][:10]}, {machine['processor']}, {machine['threads']} threads, load average {record['load']:.2f} when it began; "
        f"everything that was measured is in [{full}]({full}).\n\n"
    )
    path.write_text(text[:start] + words + bars_table(record) + "\n" + text[text.index(end) :])


def markdown(record):
    found = Found(record)
    devices = found.devices()
    machine = record["machine"]
    head = [
        "# tools/compare\n",
        f"- machine: {machine['processor']}, {machine['threads']} threads for every contestant; {machine['system']}",
        f"- commit {record['commit']}, {record['date']}, load average when it began {record['load']:.2f}, {record['seconds'] / 60:.1f} minutes",
        f"- medians of {record['rounds']} rounds taken in turn (fewer where a contestant is slow)",
    ]
    if record.get("interrupted"):
        head.append("- interrupted: works that are missing were not begun or not finished")
    for one in record["contestants"]:
        if one.get("versions"):
            versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items() if version)
            head.append(f"- {one['device']} {one['name']}: {versions}")
    networks = ["W1", "W2a", "W2b", "W2c", "W2 standard", "W2c 128"]
    networks = [name for name in networks if name in record["works"]]
    gflops = lambda work, seconds: figure(works.flops(works.WORKS[work]) / seconds / 1e9)
    parts = ["\n".join(head)]
    if bars_table(record):
        parts.append("## Against the bars\n\n" + bars_table(record))
    parts.append(block(record, "Networks: seconds", networks, lambda work, s: figure(s), devices))
    parts.append(
        "W1: MNIST CNN, batch 128, PGD-10 training step. W2: ResNet-18 on 32x32; a forward, b forward and input\n"
        "gradient, both at batch 128 with running statistics; c PGD-10 training step at batch 32 (the attack with\n"
        "running statistics, the update in training mode); standard is the same step without the attack. Updates are\n"
        "SGD with momentum 0.9."
    )
    for what in works.WHATS:
        columns = [f"W3 {what}, {shape}" for shape in [*works.SHAPES, "3-64 at 32x32"]]
        columns = [name for name in columns if name in record["works"]]
        if columns:
            parts.append(
                block(record, f"W3, {what} of 3x3 convolutions at batch 32: GFLOP/s", columns, gflops, devices)
            )
    if "W3 GEMM 1024^3" in record["works"]:
        parts.append(block(record, "W3, matrix product: GFLOP/s", ["W3 GEMM 1024^3"], gflops, devices))
    parts.append(scaling(record))
    lines = reasons(record)
    if lines:
        parts.append("## Not in the tables, or with a doubt\n\n" + "\n".join(lines))
    parts.append(
        f"A result counts when it differs from PyTorch's in f64 by at most {works.TOLERANCE:g} of the tensor's largest\n"
        "magnitude: logits and input gradients of networks (but for images where rounding turns a ReLU over), results of\n"
        "convolutions and products. The mean loss of an update depends on the random start: at most "
        f"{works.LIMITS['loss']:g}. Weight\ngradients, by the length of the difference: at most {works.LIMITS['weight_gradients']:g}; "
        "a peer beyond that keeps its time, with a star. Largest\ndifferences seen: "
        + largest(record)
        + ".\nLess than f32 (f16, TF32, AMP) is held to: "
        + ", ".join(f"{kind.replace('_', ' ')} {limit:g}" for kind, limit in works.REDUCED.items())
        + "; gradients by the length of the difference."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def largest(record):
    most = {}
    for rows in record["works"].values():
        for row in rows:
            if row["median"] and not row["reduced"]:
                for kind, error in row["differs"].items():
                    most[kind] = max(most.get(kind, 0), error)
    return ", ".join(f"{kind.replace('_', ' ')} {error:.1e}" for kind, error in most.items()) or "none"
