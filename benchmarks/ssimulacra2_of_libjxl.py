"""Does the metric `ssimulacra2` agree with libjxl's tool of that name, on photographs at several qualities and sizes?

    python benchmarks/ssimulacra2_of_libjxl.py FOLDER [--tool ssimulacra2] [--qualities 5 20 50 90] [--crops 16 61 128]

The tool comes with libjxl 0.8 or later (Debian 13: the package libjxl-devtools). Each image is compared whole and in
square crops of its upper left corner with what JPEG makes of it.

The tool blurs with a recursive filter in float32. That filter is barely stable, so its rounding errors add up along a
row: the more pixels, and the better the picture, the more they count. How much they can count is measured by the same
recursion in float32 in place of the metric's blur, which has the filter's impulse response in float64. Prints the
largest differences by size and score, and exit code 1 where one is over 0.05 and over the most that float32 moves a
score of that size.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import pscx
from pscx.data.files import image_files
from pscx.metrics import SSIMULACRA2, ssimulacra2
from pscx.metrics.ssimulacra2 import RADIUS

ALLOWED = 0.05
HIGH = 80.0  # score
SINGLE = torch.float32

Pixels = NDArray[np.uint8]


def recursively(image: Tensor) -> Tensor:
    """The blur of :func:`pscx.metrics.ssimulacra2.blurred` as libjxl computes it: a recursion in float32."""
    across = _recursion(image.to(SINGLE))
    return _recursion(across.mT).mT.to(image)


def _recursion(x: Tensor) -> Tensor:
    """Along the last axis: Charalampidis 2016, Eq. 35, whose three terms each depend on their last two values."""
    omega, beta = cosines()
    factors = [torch.from_numpy(-beta * np.cos(omega * (RADIUS + 1))), torch.from_numpy(2 * np.cos(omega))]
    gain, back = (factor.to(SINGLE)[:, None, None, None] for factor in factors)
    side = x.shape[-1]
    padded = torch.nn.functional.pad(x, (2 * RADIUS, 2 * RADIUS))
    last = before = torch.zeros(3, *x.shape[:-1], dtype=SINGLE)
    found = []
    for place in range(1 - RADIUS, side):
        ends = padded[..., place + RADIUS - 1] + padded[..., place + 3 * RADIUS - 1]
        last, before = gain * ends + back * last - before, last
        if place >= 0:
            found.append(last[0] + last[1] + last[2])
    return torch.stack(found, -1)


def cosines() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies and amplitudes of the filter's impulse response, found from it by least squares."""
    omega = np.array([1, 3, 5]) * np.pi / (2 * RADIUS)
    taps = ssimulacra2._taps()
    beta, *_ = np.linalg.lstsq(np.cos(np.outer(np.arange(1 - RADIUS, RADIUS), omega)), taps, rcond=None)
    return omega, beta


@contextmanager
def recursive() -> Iterator[None]:
    """Within it the metric blurs as the tool does."""
    kept = ssimulacra2.blurred
    ssimulacra2.blurred = recursively
    try:
        yield
    finally:
        ssimulacra2.blurred = kept


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Through JPEG at that quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.array(decoded)


def of_tool(tool: str, original: Pixels, other: Pixels) -> float:
    """What libjxl's tool says."""
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("original.png", "other.png")]
        for file, image in zip(files, (original, other), strict=True):
            Image.fromarray(image).save(file)
        done = subprocess.run([tool, *map(str, files)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def main(args: Sequence[str] | None = None) -> int:
    """Compare, and print a line for each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photographs")
    parser.add_argument("--tool", default="ssimulacra2", metavar="PROGRAM", help="libjxl's ssimulacra2")
    parser.add_argument("--qualities", type=int, nargs="+", default=[5, 20, 50, 90], metavar="Q", help="of JPEG")
    parser.add_argument("--crops", type=int, nargs="*", default=[16, 61, 128], metavar="SIDE", help="beside the whole")
    options = parser.parse_args(args)
    try:
        files = image_files(options.folder, "FOLDER")
    except pscx.PscxError as error:
        parser.error(str(error))
    metric, fine = SSIMULACRA2(), True
    for side in (*options.crops, None):
        by_score: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for file in files:
            image = pscx.read_image(file)
            for quality in options.qualities:
                pair = [np.ascontiguousarray(x[:side, :side]) for x in (image, jpeg(image, quality))]
                score, other = metric(*pair), of_tool(options.tool, *pair)
                with recursive():
                    moved = abs(metric(*pair) - score)
                by_score[other >= HIGH].append((abs(score - other), moved))
        for high, found in by_score.items():
            if found:
                most, rounding = (max(column) for column in zip(*found, strict=True))
                fine = fine and most <= max(ALLOWED, rounding)
                where = f"{side or 'whole'}, scores {'from' if high else 'below'} {HIGH:g}"
                print(f"{where}: {len(found)} pairs, at most {most:.3f} apart; float32 moves at most {rounding:.3f}")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
