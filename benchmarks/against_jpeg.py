"""Default recipe against JPEG at equal whole-file bytes, and against the paper's recipe on small crops.

    python benchmarks/against_jpeg.py FOLDER -o runs/against_jpeg [--limit N] [--paper N]

Each image's central crop is coded at several quantizer steps; PSNR is read off that curve, linearly in the logarithm
of the bytes, where JPEG (Pillow, ``optimize=True``) stands for each quality. Prints one line a quality: mean bpp, mean
PSNR of both, then the BD-rate of the mean curves. With ``--paper N``, the central 64x64 of the first N images also go
through the recipe ``paper-pixel`` (dense rows, float8, 8 bits a row), with 16 iterations. Every point is written to
``points.csv``.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

import pscx
from pscx.bd import bd_rate
from pscx.data.files import image_files
from pscx.metrics import bits_per_pixel, psnr

Pixels = NDArray[np.uint8]
Point = dict[str, Any]
STEPS = (1.0, 0.7, 0.45, 0.3, 0.2, 0.13, 0.09)
QUALITIES = (10, 20, 35)


def central(pixels: Pixels, side: int) -> Pixels:
    """The central square of that side."""
    top, left = ((n - side) // 2 for n in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def jpeg(name: str, pixels: Pixels, quality: int) -> Point:
    """One JPEG file of the image."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
    decoded = np.asarray(Image.open(file))
    return point(name, "jpeg", quality, pixels, len(file.getvalue()), decoded)


def coded(name: str, codec: pscx.Codec, label: str, setting: float, pixels: Pixels) -> Point:
    """One stream of the image, and what its decoder shows."""
    started = time.perf_counter()
    result = codec.simulate(pixels)
    return point(name, label, setting, pixels, len(result.data), result.pixels) | {
        "evaluations": result.account.evaluations,
        "seconds": round(time.perf_counter() - started, 2),
        "network_share": round(result.account.network_seconds / result.account.seconds, 3),
    }


def point(name: str, codec: str, setting: float, pixels: Pixels, size: int, decoded: Pixels) -> Point:
    """One row of the table."""
    height, width = pixels.shape[:2]
    rate, quality = bits_per_pixel(size, height, width), psnr(pixels, decoded)
    return {"image": name, "codec": codec, "setting": setting, "bytes": size, "bpp": rate, "psnr": quality}


def at_bytes(curve: list[Point], size: int) -> float:
    """PSNR of a curve at a file size; outside of the curve that of its nearest end."""
    ordered = sorted(curve, key=lambda p: p["bytes"])
    return float(np.interp(np.log(size), [np.log(p["bytes"]) for p in ordered], [p["psnr"] for p in ordered]))


def measure(files: list[Path], paper: int) -> Iterator[Point]:
    """Every point of every image."""
    default = [(step, pscx.load_codec("default", step=step)) for step in STEPS]
    published = pscx.load_codec("paper-pixel", iterations=16) if paper else None
    for number, file in enumerate(track(files, "images")):
        pixels = pscx.read_image(file)
        crop = central(pixels, 128)
        for quality in QUALITIES:
            yield jpeg(file.stem, crop, quality)
        for step, codec in default:
            yield coded(file.stem, codec, "pscx", step, crop)
        if published is not None and number < paper:
            small = central(pixels, 64)
            yield coded(f"{file.stem}-64", published, "paper", 16, small)
            for step, codec in default[1:5]:
                yield coded(f"{file.stem}-64", codec, "pscx", step, small)


def mean_curve(points: list[Point], codec: str) -> list[tuple[float, float]]:
    """Mean bpp and PSNR of a codec at each of its settings, over the images at 128x128."""
    own = [p for p in points if p["codec"] == codec and not p["image"].endswith("-64")]
    settings = [[p for p in own if p["setting"] == setting] for setting in {p["setting"] for p in own}]
    return [(float(np.mean([p["bpp"] for p in of])), float(np.mean([p["psnr"] for p in of]))) for of in settings]


def report(points: list[Point]) -> None:
    """Means over images at each JPEG quality, and the paper's recipe beside the default at its bytes."""
    for quality in QUALITIES:
        there = [p for p in points if p["codec"] == "jpeg" and p["setting"] == quality]
        ours = [at_bytes([q for q in points if q["codec"] == "pscx" and q["image"] == p["image"]], p["bytes"])
                for p in there]  # fmt: skip
        rate, theirs = np.mean([p["bpp"] for p in there]), np.mean([p["psnr"] for p in there])
        print(f"JPEG quality {quality}: {rate:.3f} bpp, JPEG {theirs:.2f} dB, pscx {np.mean(ours):.2f} dB")
    difference = bd_rate(mean_curve(points, "jpeg"), mean_curve(points, "pscx"))
    print(f"BD-rate of pscx against JPEG, mean curves: {difference:+.1f}%")
    for p in (p for p in points if p["codec"] == "paper"):
        print(f"{p['image']}: paper {p['bpp']:.3f} bpp {p['psnr']:.2f} dB {p['evaluations']} evaluations")
        for q in (q for q in points if q["codec"] == "pscx" and q["image"] == p["image"]):
            print(f"    default {q['bpp']:.3f} bpp {q['psnr']:.2f} dB {q['evaluations']} evaluations")
    own = [p for p in points if p["codec"] == "pscx"]
    shares, seconds = [p["network_share"] for p in own], [p["seconds"] for p in own]
    print(f"network share of the loop {np.mean(shares):.3f}, both directions at most {max(seconds):.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/against_jpeg"))
    parser.add_argument("--limit", type=int, default=None, help="the first N images alone")
    parser.add_argument("--paper", type=int, default=0, help="images that also go through the paper's recipe")
    options = parser.parse_args()
    points = list(measure(image_files(options.folder)[: options.limit], options.paper))
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for p in points for key in p}))
        writer.writeheader()
        writer.writerows(points)
    report(points)


if __name__ == "__main__":
    main()
