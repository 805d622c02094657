"""Is the cost of a pixel the same at any size, how much memory does a pixel take, and does a large photograph finish?

    python benchmarks/large_images.py [--recipe fast] [--image FILE | --folder FOLDER]
    python benchmarks/large_images.py --megapixels 12 --folder FOLDER

Without ``--megapixels``: processor seconds of one thread for each pixel, to compress at quality 1, at 64x64 to 768x512,
one image at a time and where small ones share network calls (at most ``--batch``, as in ``pscx compress --batch``); and
the most memory a process of its own takes at these sizes and larger ones, with the slope of a straight line
through it. With it: one photograph of so many megapixels is compressed at quality 1 and restored, and decompressed by
a second process; prints bytes, peak memory of both and whether the pixels are the same, exit code 1 where they are not.

``--iterations`` and ``--steps`` shorten a recipe, for its memory, which hardly depends on them: the slope is measured
with 3 and 2 unless they say otherwise.

The photograph is the file given, cut or repeated to size, or a mosaic of those of a folder, or of the bundled ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pscx import Codec, Decompressor, PscxError, load_codec
from pscx.codecs import Progress
from pscx.data.files import image_files
from pscx.data.folder import BUNDLED
from pscx.images import read_image
from pscx.rate_control import Quality
from pscx.runtime.allocator import keep_freed_memory

Pixels = NDArray[np.uint8]
TIMED = ((64, 64), (128, 128), (256, 256), (512, 512), (768, 512))
WEIGHED = ((512, 512), (768, 512), (1024, 768), (1536, 1024))
TOGETHER = 65536  # pixels of the images of one size that are timed together


def photograph(width: int, height: int, files: list[Path]) -> Pixels:
    """A mosaic of photographs, each cut to the smallest of them, row after row."""
    images = [read_image(file) for file in files]
    down, across = (min(image.shape[axis] for image in images) for axis in (0, 1))
    number = 0
    canvas = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, down):
        for left in range(0, width, across):
            room = canvas[top : top + down, left : left + across]
            room[:] = images[number % len(images)][: room.shape[0], : room.shape[1]]
            number += 1
    return canvas


def files_of(options: argparse.Namespace) -> list[Path]:
    if options.image is not None:
        return [options.image]
    folder = options.folder or BUNDLED
    return image_files(folder, "--folder")


def peak() -> int:
    """Most bytes of memory that this process has had, on Linux; elsewhere at least what its parent had then."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def reporting(what: str) -> Progress:
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        text = f"{what}: segment {done} of {total}, {time.monotonic() - started:.0f} s, peak {peak() / 1e9:.2f} GB"
        print(text, file=sys.stderr, flush=True)

    return report


def codec_of(options: argparse.Namespace) -> Codec:
    """The recipe, shortened where that is asked for."""
    changes: dict[str, Any] = {} if options.iterations is None else {"iterations": options.iterations}
    if options.steps is not None:
        changes |= {key: {"steps": options.steps} for key in ("sampler", "restoration_sampler")}
    return load_codec(options.recipe, **changes)


def compress(options: argparse.Namespace) -> dict[str, Any]:
    """Compress in this process and, where there is a file to write to, restore; what it came to."""
    codec = codec_of(options)
    width, height = options.size
    image = photograph(width, height, files_of(options))
    start, started = peak(), time.process_time()
    if options.stream is None:
        data, pixels = codec.compress(image, quality=1), None
    else:
        done = codec.simulate(image, target=Quality(1), progress=reporting("compress"))
        data, pixels = done.data, done.pixels
        options.stream.write_bytes(data)
    facts = {"bytes": len(data), "start": start, "peak": peak(), "seconds": time.process_time() - started}
    return facts if pixels is None else {**facts, "pixels": sha256(pixels.tobytes()).hexdigest()}


def decompress(options: argparse.Namespace) -> dict[str, Any]:
    started = time.process_time()
    pixels = Decompressor().decompress(options.stream.read_bytes(), progress=reporting("decompress"))
    return {"pixels": sha256(pixels.tobytes()).hexdigest(), "peak": peak(), "seconds": time.process_time() - started}


def alone(options: argparse.Namespace, job: str, size: tuple[int, int], stream: Path | None = None) -> dict[str, Any]:
    """A job in a process of its own."""
    command = [sys.executable, __file__, "--job", job, "--recipe", options.recipe, "--threads", str(options.threads)]
    command += ["--size", *map(str, size)]
    for name in ("image", "folder", "iterations", "steps"):
        value = getattr(options, name)
        command += [] if value is None else [f"--{name}", str(value)]
    command += [] if stream is None else ["--stream", str(stream)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def time_per_pixel(options: argparse.Namespace) -> None:
    """Least processor time of several rounds over all sizes, so that what else the machine does counts little."""
    codec, files = load_codec(options.recipe), files_of(options)
    codec.compress(photograph(64, 64, files), quality=1)  # tables are made once
    one, many = (dict.fromkeys(TIMED, float("inf")) for _ in range(2))
    for _ in range(options.rounds):
        for size in TIMED:
            image, area = photograph(*size, files), size[0] * size[1]
            count = max(1, TOGETHER // area)  # a clock tick is long beside a small image
            for best, batch in ((one, 1), (many, options.batch)):
                if best is many and count == 1:
                    many[size] = one[size]
                    continue
                started = time.process_time()
                for done in codec.compress_many([image] * count, batch=batch, quality=1):
                    if isinstance(done, PscxError):
                        raise done
                best[size] = min(best[size], (time.process_time() - started) / count / area)
    print("| size | microseconds a pixel | ratio to least | in batches of | microseconds a pixel | ratio to least |")
    print("|---|---|---|---|---|---|")
    least = min(one.values()), min(many.values())
    for size in TIMED:
        batch = min(max(1, TOGETHER // (size[0] * size[1])), options.batch)
        print(f"| {size[0]}x{size[1]} | {one[size] * 1e6:.0f} | {one[size] / least[0]:.2f} ", end="")
        print(f"| {batch} | {many[size] * 1e6:.0f} | {many[size] / least[1]:.2f} |")
    ratios = max(one.values()) / least[0], max(many.values()) / least[1]
    print(f"\nlargest over smallest: {ratios[0]:.2f} one at a time, {ratios[1]:.2f} in batches\n", flush=True)


def memory_per_pixel(options: argparse.Namespace) -> None:
    short = argparse.Namespace(**{**vars(options), "iterations": options.iterations or 3, "steps": options.steps or 2})
    pixels, peaks = [], []
    print("| size | peak MB | of it before the image MB |\n|---|---|---|", flush=True)
    for size in WEIGHED:
        facts = alone(short, "compress", size)
        pixels.append(size[0] * size[1])
        peaks.append(facts["peak"])
        print(f"| {size[0]}x{size[1]} | {facts['peak'] / 1e6:.0f} | {facts['start'] / 1e6:.0f} |", flush=True)
    slope, rest = np.polyfit(pixels, peaks, 1)
    print(f"\npeak memory: {rest / 1e6:.0f} MB and {slope:.0f} bytes a pixel")


def large(options: argparse.Namespace) -> int:
    """The photograph of ``--megapixels``, 4:3."""
    height = round((options.megapixels * 1e6 * 3 / 4) ** 0.5)
    size = round(options.megapixels * 1e6 / height), height
    with TemporaryDirectory() as folder:
        stream = Path(folder) / "large.pscx"
        encoded, decoded = (alone(options, job, size, stream) for job in ("compress", "decompress"))
    same = encoded["pixels"] == decoded["pixels"]
    area = size[0] * size[1]
    short = "".join(f", {name} {getattr(options, name)}" for name in ("iterations", "steps") if getattr(options, name))
    print(f"{size[0]}x{size[1]}, recipe {options.recipe}{short}, quality 1: {encoded['bytes']} bytes")
    for what, facts in (("compress and restore", encoded), ("decompress", decoded)):
        print(f"{what}: peak {facts['peak'] / 1e9:.2f} GB, {facts['seconds'] / area * 1e6:.0f} microseconds a pixel")
    print(f"decoded pixels are the encoder's: {same}")
    return 0 if same else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fast", help="a recipe or a config file")
    parser.add_argument("--megapixels", type=float)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--batch", type=int, default=8, help="small images that share network calls")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--job", choices=("compress", "decompress"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()  # as the program does
    torch.set_num_threads(options.threads)
    if options.job is not None:
        print(json.dumps(compress(options) if options.job == "compress" else decompress(options)))
        return 0
    try:
        load_codec(options.recipe)
        files_of(options)
    except PscxError as error:
        parser.error(str(error))
    if options.megapixels is not None:
        return large(options)
    time_per_pixel(options)
    memory_per_pixel(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
