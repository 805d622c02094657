"""Do decoded pictures drift in colour? The mean error of each channel, over images and over regions of 64x64.

    python benchmarks/colour_cast.py FOLDER -o runs/colour_cast [--recipe default] [--bpp 0.1 | --step S]
        [--points FILE] [--crop SIDE] [--perception P] [--limit N]

Each image, or its central square, is compressed to at most so many bits per pixel and decoded. With ``--step`` it is
encoded once, with this step of the quantizer, and the mean rate over the images is what it is. With ``--points``, a
table of ``rate_distortion.py``, it is encoded once as well, at the step that has the rate of ``--bpp`` in the table:
the logarithm of the rate is interpolated over that of the step. The rate is then nearly the one asked for.

The error of a channel is decoded minus original, in grey levels of 255. Detail cancels out in its mean over an image
or a region, and a cast of colour stays. Regions at the right and lower edges are smaller where a side is no multiple of
64. Each image's result is kept in OUTPUT, so a run that was stopped goes on. Exit code 1 where a mean over an image is
beyond 1 grey level, or over a region beyond 4.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pscx
from pscx.ablation.report import markdown
from pscx.api import Codec, Pixels
from pscx.codecs.specs import codec_spec
from pscx.data.files import image_files
from pscx.rate_control import BPP, Step
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from rate_distortion import Record, central, digest, read, region  # found through the line above

REGION = 64
WHOLE_BOUND, REGION_BOUND = 1.0, 4.0  # grey levels
CHANNELS = ("red", "green", "blue")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/colour_cast"))
    parser.add_argument("--recipe", default="default")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--bpp", type=float, default=0.1)
    rate.add_argument("--step", type=float)
    parser.add_argument("--points", type=Path, metavar="FILE", help="points.csv of rate_distortion.py")
    parser.add_argument("--crop", type=int, metavar="SIDE")
    parser.add_argument("--perception", type=float, metavar="P", help="as in pscx decompress")
    parser.add_argument("--limit", type=int, metavar="N", help="images")
    options = parser.parse_args()
    if options.points is not None and options.step is not None:
        parser.error("--points finds the step of --bpp: give --points or --step")
    codec = pscx.load_codec(options.recipe)
    target: BPP | Step = BPP(options.bpp) if options.step is None else Step(options.step)
    points = [] if options.points is None else read(options.points).values()
    place = options.recipe, f"pscx {digest(codec)}", region(options.crop)
    found = []
    for file in image_files(options.folder, "FOLDER")[: options.limit]:
        pixels = central(pscx.read_image(file), options.crop)
        if options.points is not None:
            target = Step(step_at(options.bpp, steps_of(points, file.stem, place)))
        found.append((file.stem, result(options.output, codec, pixels, target, options.perception)))
        print(f"{file.stem}: {found[-1][1]['bpp']:.4f} bpp, {found[-1][1]['psnr']:.2f} dB", file=sys.stderr, flush=True)
    rows = [
        [
            name,
            f"{one['bpp']:.4f}",
            f"{one['psnr']:.2f}",
            *(f"{mean:+.2f}" for mean in one["means"]),
            f"{one['region']:.2f}",
        ]
        for name, one in found
    ]
    print(markdown(["image", "bpp", "PSNR", *CHANNELS, "worst region"], rows))
    whole = max(abs(mean) for _, one in found for mean in one["means"])
    largest = max(one["region"] for _, one in found)
    print(f"\n{fmean(one['bpp'] for _, one in found):.4f} bpp, ", end="")
    print(f"largest mean over an image {whole:.2f} (at most {WHOLE_BOUND:g}), ", end="")
    print(f"over a region {largest:.2f} (at most {REGION_BOUND:g})")
    return int(whole > WHOLE_BOUND or largest > REGION_BOUND)


def steps_of(points: Iterable[Record], image: str, place: tuple[str, str, str]) -> dict[float, float]:
    """Steps and bits per pixel of an image in a table; ``place`` has its columns codec, version and crop."""
    wanted = (image, *place)
    found = [row for row in points if (row["image"], row["codec"], row["version"], row["crop"]) == wanted]
    return {float(row["setting"].split()[1]): float(row["bpp"]) for row in found}


def step_at(bpp: float, known: dict[float, float]) -> float:
    """The step of a rate between known ones. Ends the program where the table does not hold rates around it."""
    if not known or not min(known.values()) <= bpp <= max(known.values()):
        sys.exit(f"--points: no rates of this codec around {bpp:g} bits per pixel; there are {sorted(known.values())}")
    steps = sorted(known, reverse=True)  # rates then rise
    logs = np.log([[known[step], step] for step in steps]).T
    return float(np.exp(np.interp(np.log(bpp), *logs)))


def result(output: Path, codec: Codec, pixels: Pixels, target: BPP | Step, perception: float | None) -> dict[str, Any]:
    """The errors of one image, measured or known."""
    own = codec.signal_codec
    rate = type(target).__name__, target.value
    facts = [codec_spec(own), own.fingerprint().hex(), rate, perception, pixels.shape]
    told = json.dumps(facts, sort_keys=True)
    file = output / f"{sha256(told.encode() + pixels.tobytes()).hexdigest()[:16]}.json"
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known
    done = codec.simulate(pixels, target=target)
    data, decoded = done.data, done.pixels
    if perception is not None:
        decoded = codec.decompress(data, perception=perception)
    error = decoded.astype(np.float64) - pixels.astype(np.float64)
    one = {
        "bpp": pscx.metrics.bits_per_pixel(len(data), *pixels.shape[:2]),
        "psnr": pscx.metrics.psnr(pixels, decoded),
        "means": [float(mean) for mean in error.mean((0, 1))],
        "region": largest_of_regions(error),
    }
    write_whole(file, json.dumps(one).encode(), force=True)
    return one


def largest_of_regions(error: NDArray[np.floating[Any]]) -> float:
    """The largest magnitude of a channel's mean over a region of ``(height, width, 3)`` errors."""
    height, width = error.shape[:2]
    regions = [
        error[top : top + REGION, left : left + REGION]
        for top in range(0, height, REGION)
        for left in range(0, width, REGION)
    ]
    return max(float(np.abs(region.mean((0, 1))).max()) for region in regions)


if __name__ == "__main__":
    sys.exit(main())
