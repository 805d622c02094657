"""Pictures of several codecs at equal bytes, side by side: first without labels, then with them.

    python benchmarks/contact_sheet.py PHOTO... -o sheet.webp [--bpp 0.1 0.2] [--side 256]
        [--codecs default perceptual avif-looks jxl]

A row is the central square of one photograph at one rate: the original, then every codec at no more bytes than the rate
allows, and as near as its settings go: recipes of pscx by their rate control, the others by bisection of their quality.
A codec that cannot go that low is shown at the fewest bytes that it can.
In the upper half the order of a row is drawn from its name and nothing is written; the lower half has the same pictures
in the order of ``--codecs``, with bytes, PSNR and SSIMULACRA 2. Look at the upper half first.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import pscx
from pscx.metrics import PSNR, SSIMULACRA2
from pscx.rate_control import MaxBytes

sys.path.append(str(Path(__file__).parent))

from file_formats import FORMATS, FileFormat  # found through the line above

Pixels = NDArray[np.uint8]
GAP, TEXT, FONT = 6, 34, 13
QUALITIES = {"avif": "quality {} 4:2:0 speed 4", "avif-looks": "quality {} 4:2:0 speed 4", "webp": "quality {}"}
DISTANCES = {"jxl": "distance {} effort 9"}
COARSEST, FINEST, BISECTIONS = 25.0, 0.3, 9  # of JPEG XL's distance


@dataclass(frozen=True)
class Picture:
    """What a codec shows, and the bytes that it took; none for the original."""

    name: str
    pixels: Pixels
    size: int | None = None

    def label(self, original: Pixels) -> str:
        """Two lines below the picture."""
        if self.size is None:
            return self.name
        quality = f"{PSNR().value(original, self.pixels):.1f} dB, {SSIMULACRA2().value(original, self.pixels):.0f}"
        return f"{self.name}, {self.size} bytes\n{quality}"


def of_recipe(name: str, pixels: Pixels, budget: int) -> Picture:
    """A recipe of pscx by its own rate control."""
    done = pscx.load_codec(name).simulate(pixels, target=MaxBytes(budget))
    return Picture(name, done.pixels, len(done.data))


def of_format(name: str, pixels: Pixels, budget: int) -> Picture:
    """Another codec at its finest setting that fits, or its coarsest; ``SystemExit`` where it is not installed."""
    form = FORMATS[name]
    if form.implementation() is None:
        raise SystemExit(f'{name} is not installed here: python -m pip install -e ".[benchmarks]" brings it')
    data = finest(form, settings_of(name), pixels, budget)
    return Picture(name, form.decode(data), len(data))


def settings_of(name: str) -> Sequence[str]:
    """All settings that are tried, the coarsest first."""
    if name in QUALITIES:
        return [QUALITIES[name].format(quality) for quality in range(101)]
    steps = 2**BISECTIONS
    ratio = FINEST / COARSEST
    return [DISTANCES[name].format(round(COARSEST * ratio ** (step / steps), 3)) for step in range(steps + 1)]


def finest(form: FileFormat, settings: Sequence[str], pixels: Pixels, budget: int) -> bytes:
    """The file of the finest setting with at most that many bytes, by bisection; if there is none, of the coarsest."""
    best, low, high = form.encode(pixels, settings[0]), 1, len(settings)
    while low < high:
        middle = (low + high) // 2
        data = form.encode(pixels, settings[middle])
        if len(data) <= budget:
            best, low = data, middle + 1
        else:
            high = middle
    return best


def square(path: Path, side: int) -> Pixels:
    """The central square of a photograph, or of its shorter side where that is less."""
    pixels = pscx.read_image(path)
    side = min(side, *pixels.shape[:2])
    top, left = ((size - side) // 2 for size in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def sheet(rows: Sequence[tuple[str, list[Picture]]], side: int) -> Image.Image:
    """Both halves; a row is named, and holds the original and then the codecs."""
    columns = len(rows[0][1])
    wide, upper, lower = GAP + columns * (side + GAP), side + GAP, side + TEXT + GAP
    image = Image.new("RGB", (wide, GAP + len(rows) * (upper + lower)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT)
    for number, (name, pictures) in enumerate(rows):
        shuffled = random.Random(name).sample(pictures, columns)
        for column in range(columns):
            left = GAP + column * (side + GAP)
            image.paste(Image.fromarray(shuffled[column].pixels), (left, GAP + number * upper))
            top = GAP + len(rows) * upper + number * lower
            image.paste(Image.fromarray(pictures[column].pixels), (left, top))
            draw.text((left, top + side + 2), pictures[column].label(pictures[0].pixels), "black", font)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/contact_sheet.webp"))
    parser.add_argument("--bpp", nargs="+", type=float, default=[0.1, 0.2])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--codecs", nargs="+", default=["default", "perceptual", "avif-looks", "jxl"])
    options = parser.parse_args()
    rows = []
    for path in options.photos:
        pixels = square(path, options.side)
        for rate in options.bpp:
            budget = int(rate * pixels.shape[0] * pixels.shape[1] / 8)
            pictures = [Picture(f"{path.stem}, {rate} bpp", pixels)]
            for name in options.codecs:
                make: Callable[[str, Pixels, int], Picture] = of_format if name in FORMATS else of_recipe
                pictures.append(make(name, pixels, budget))
                print(pictures[0].name, pictures[-1].label(pixels).replace("\n", ", "), flush=True)
            rows.append((pictures[0].name, pictures))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, options.side).save(options.output)
    print(options.output)


if __name__ == "__main__":
    main()
