"""The picture of ``docs/method.md``: the mean of samples and one sample, restored from the same stream.

    python benchmarks/restorations.py -o runs/restorations [--recipe default] [--step 1]

The first 128x96 pixels of two bundled photographs: the original, the mean that the recipe restores by, and one sample
that the decoder was asked for. Writes ``restorations.webp``, twice as large, and prints rates and PSNR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import pscx
from pscx.ablation.report import markdown
from pscx.api import Pixels
from pscx.data.folder import BUNDLED
from pscx.metrics import bits_per_pixel, psnr

PHOTOS = ("astronaut", "chelsea")
HEIGHT, WIDTH = 96, 128
GAP, SCALE = 4, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/restorations"))
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--step", type=float, default=1.0)
    options = parser.parse_args()
    codec = pscx.load_codec(options.recipe, step=options.step)
    rows, lines = [], []
    for name in PHOTOS:
        pixels = np.ascontiguousarray(pscx.read_image(BUNDLED / f"{name}.png")[:HEIGHT, :WIDTH])
        data = codec.compress(pixels)
        mean, sample = codec.decompress(data), codec.decompress(data, restoration="sample")
        rows.append([pixels, mean, sample])
        rate, decibels = bits_per_pixel(len(data), HEIGHT, WIDTH), [psnr(pixels, one) for one in (mean, sample)]
        lines.append([name, f"{rate:.2f}", *(f"{value:.1f}" for value in decibels), f"{decibels[0] - decibels[1]:.1f}"])
    options.output.mkdir(parents=True, exist_ok=True)
    beside(rows).save(options.output / "restorations.webp", quality=95)
    print(markdown(["photograph", "bpp", "PSNR of the mean, dB", "of one sample, dB", "less"], lines))


def beside(rows: list[list[Pixels]]) -> Image.Image:
    """Pictures in rows and columns on white."""
    high, wide = SCALE * HEIGHT + GAP, SCALE * WIDTH + GAP
    sheet = Image.new("RGB", (len(rows[0]) * wide - GAP, len(rows) * high - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, pixels in enumerate(pictures):
            picture = Image.fromarray(pixels).resize((SCALE * WIDTH, SCALE * HEIGHT), Image.Resampling.LANCZOS)
            sheet.paste(picture, (column * wide, row * high))
    return sheet


if __name__ == "__main__":
    main()
