#!/usr/bin/env python3
"""Cut the MNIST sample that adamant embeds out of the four original files.

    tools/make_mnist_sample.py FOLDER [OUT]

FOLDER holds the four IDX files of MNIST as distributed (gzip); OUT defaults to src/data/sample. Every sixth training
image (0, 6, 12, ...: 10 000) and every fifth test image (0, 5, 10, ...: 2 000) is kept, in the original order. The
inputs are held against their published checksums first. Python's standard library is enough; the gzip headers carry
no time or name, so that the same zlib gives the same bytes. Prints the checksums that README.md lists.
"""

import gzip
import hashlib
import io
import pathlib
import struct
import sys

# SHA-256 of the inflated originals, images kept one in ...
ORIGINALS = {
    "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 6),
    "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 6),
    "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 5),
    "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 5),
}


def cut(idx: bytes, every: int) -> bytes:
    """The IDX file with one record in `every` kept, starting with the first."""
    rank = idx[3]
    count, *extents = struct.unpack(f">{rank}I", idx[4 : 4 + 4 * rank])
    record = 1
    for extent in extents:
        record *= extent
    start = 4 + 4 * rank
    kept = range(0, count, every)
    body = b"".join(idx[start + i * record : start + (i + 1) * record] for i in kept)
    return idx[:4] + struct.pack(f">{rank}I", len(kept), *extents) + body


def compress(data: bytes) -> bytes:
    """gzip -9 without time or name in the header."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as stream:
        stream.write(data)
    return out.getvalue()


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2] if len(sys.argv) == 3 else pathlib.Path(__file__).parent.parent / "src/data/sample")
    for name, (checksum, every) in ORIGINALS.items():
        original = gzip.decompress((folder / f"{name}.gz").read_bytes())
        found = hashlib.sha256(original).hexdigest()
        if found != checksum:
            sys.exit(f"{name}: SHA-256 is {found}, the published one is {checksum}: download the file again")
        sample = cut(original, every)
        packed = compress(sample)
        (out / f"{name}.gz").write_bytes(packed)
        print(f"{hashlib.sha256(sample).hexdigest()}  {name}  ({len(packed)} bytes compressed)")


if __name__ == "__main__":
    main()
