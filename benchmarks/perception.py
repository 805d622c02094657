"""Fits what ``--perception`` chooses from: restorations of each recipe, between least error and most realistic.

    python benchmarks/perception.py FOLDER -o runs/perception [--recipes fast default best turbo] [--limit 8]
        [--side 128] [--steps 1.4 0.6 0.3] [--warm-start 0.25 0.4] [--entries 4] [--minutes 5] [--write]

FOLDER holds photographs that the prior was trained on, or others that no result is reported on. Each is shrunk by a
factor between 1 and 2 and cropped, both drawn from its name. A recipe encodes each crop at several steps; every
candidate restores the same measurements: samples drawn with several ``eta``, ``warm_start`` and ``stop``, alone, in
means and in blends. PSNR, ssimulacra2, flip, gmsd, haarpsi and detail (energy in the finest octave of brightness, over
that of the original) go to ``points/``, a file for each crop and step, so a run that was stopped goes on; ``--minutes``
stops one itself.

The table of a recipe has two parts, by means over crops and steps, and PSNR falls from each entry to the next. The
first part leads from the least error to the highest ssimulacra2, which rises; that may be one entry. The second leads
on to the detail of the original, which rises, never above it. Each entry costs the least PSNR for what it gains, and a
part has at most ``--entries``. They are printed with the evaluations (NFE) that each takes. ``--write`` puts them into
the table that ships.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

import pscx
from pscx.ablation.report import markdown
from pscx.api import Pixels
from pscx.codecs import PSC, Outcome, SignalCodec
from pscx.codecs.pixels import shown, signal_of
from pscx.codecs.specs import codec_spec
from pscx.compression.restoring import TABLE, perception_table
from pscx.data.files import image_files
from pscx.metrics import METRICS, ImageMetric
from pscx.restorations import RESTORATIONS, Blend, Drawn, Mean, Restoration, Sample
from pscx.runtime.files import write_whole

METRIC_NAMES = ("psnr", "ssimulacra2", "flip", "gmsd", "haarpsi")
NAMES = (*METRIC_NAMES, "detail")
OF_PSC = {"eta": (1.0, 0.85, 0.7, 0.5), "stop": (0.02, 0.05)}
OF_PATHS = {"eta": (1.0, 0.7, 0.4), "steps": (2, 4)}
FULL = 1.0  # detail of the original
MOST = 4  # samples

Candidate = dict[str, Any]


@dataclass(frozen=True)
class Mixed:
    """The mean of a candidate's values over crops and steps."""

    spec: Candidate
    values: Mapping[str, float]
    evaluations: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/perception"))
    parser.add_argument("--recipes", nargs="+", default=["fast", "default", "best", "turbo"])
    parser.add_argument("--limit", type=int, default=8, help="photographs")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", nargs="+", type=float, default=[1.4, 0.6, 0.3])
    parser.add_argument("--warm-start", nargs="+", type=float, default=[0.25, 0.4])
    parser.add_argument("--entries", type=int, default=4, help="of each part of a recipe's table, at most")
    parser.add_argument("--minutes", type=float, help="begin no point after that")
    parser.add_argument("--write", action="store_true", help="write the table that ships")
    options = parser.parse_args()
    ends = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    crops = dict(crops_of(options.folder, options.limit, options.side))
    table = {name: list(settings) for name, settings in perception_table().items()}
    for recipe in options.recipes:
        codec = pscx.load_codec(recipe).signal_codec
        files = [options.output / "points" / f"{recipe}-{name}.json" for name in crops]
        points: list[list[dict[str, Any]]] = []
        for file, pixels in zip(files, crops.values(), strict=True):
            for step in options.steps:
                own = file.with_name(f"{file.stem}-{step:g}.json")
                found = point(own, codec, pixels, step, options.warm_start, ends)
                if found is None:
                    sys.exit(f"{own} and others are missing: run this again")
                points.append(found)
        table[recipe] = summary(recipe, points, options.entries)
    if options.write:
        head = TABLE.read_text(encoding="utf-8").partition("\n\n")[0]
        lines = [f"{name}:\n" + "".join(f"- {flow(one)}\n" for one in table[name]) for name in sorted(table)]
        TABLE.write_text(head + "\n\n" + "".join(lines), encoding="utf-8")


def crops_of(folder: Path, limit: int, side: int) -> Iterator[tuple[str, Pixels]]:
    """A crop of each of the first photographs that are large enough, by the photograph's name."""
    count = 0
    for file in image_files(folder, "FOLDER"):
        image = Image.fromarray(pscx.read_image(file))
        digest = sha256(file.name.encode()).hexdigest()
        random = np.random.default_rng(int(digest[:16], 16))
        factor = random.uniform(1, 2)
        image = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.LANCZOS)
        if count == limit:
            return
        if min(image.size) >= side:
            count += 1
            left, top = (int(random.integers(length - side + 1)) for length in image.size)
            yield digest[:8], np.array(image.crop((left, top, left + side, top + side)))


def point(
    file: Path, codec: SignalCodec, pixels: Pixels, step: float, warm_starts: Sequence[float], ends: float | None
) -> list[dict[str, Any]] | None:
    """The values of all candidates on a crop at a step; none where they are not known and no time is left."""
    codec = codec.with_parameter(step * codec.parameter_at_step)
    key = json.dumps([codec_spec(codec), codec.parameter, codec.fingerprint().hex(), warm_starts], sort_keys=True)
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["codec"] == key:
            found: list[dict[str, Any]] = known["candidates"]
            return found
    if ends is not None and time.monotonic() > ends:
        return None
    measured = list(measure(codec, pixels, warm_starts))
    text = json.dumps({"codec": key, "candidates": measured}, indent=1)
    write_whole(file, text.encode(), force=True)
    best = max(measured, key=lambda one: float(one["ssimulacra2"]))
    print(f"{file.name}: ssimulacra2 at most {best['ssimulacra2']:.2f} by {flow(best['restoration'])}", flush=True)
    return measured


def measure(codec: SignalCodec, pixels: Pixels, warm_starts: Sequence[float]) -> Iterator[dict[str, Any]]:
    """What each candidate makes of one crop, which is encoded once."""
    signal = signal_of(codec, pixels)
    _, outcome = codec.encode(signal)
    metrics: list[ImageMetric] = [METRICS.get(name)() for name in METRIC_NAMES]  # type: ignore[misc]  # of images
    for metric in metrics:
        metric.prepare()
    for drawing in drawings(codec, warm_starts):
        drawn = draws(codec, outcome, tuple(signal.shape), drawing)
        for restoration in mixtures(drawing):
            restored = restoration.restore(partial(part_of, drawn), 0)
            picture = shown(codec, restored, *pixels.shape[:2])
            asked = Drawn(restoration, **drawing)
            cost = codec.restored_by(asked).evaluations(1) - codec.evaluations(0)
            values = {name: metric.value(pixels, picture) for name, metric in zip(METRIC_NAMES, metrics, strict=True)}
            values["detail"] = fine_energy(picture) / fine_energy(pixels)
            yield {"restoration": RESTORATIONS.spec(asked), "evaluations": cost, **values}


def part_of(drawn: Tensor, indices: range) -> Iterator[Tensor]:
    """Samples that are drawn already, as a restoration asks for them."""
    yield drawn[indices.start : indices.stop]


def fine_energy(pixels: Pixels) -> float:
    """Energy of brightness in the finest octave: what the means of 2x2 pixels lack."""
    luma = pixels.astype(np.float64).mean(2)
    height, width = luma.shape[0] // 2, luma.shape[1] // 2
    blocks = luma[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    return float(np.square(blocks - blocks.mean((1, 3), keepdims=True)).sum())


def drawings(codec: SignalCodec, warm_starts: Sequence[float]) -> Iterator[dict[str, Any]]:
    """The options with which samples are drawn."""
    if not isinstance(codec, PSC):
        yield {"steps": 1}
    grid = {**OF_PSC, "warm_start": tuple(warm_starts)} if isinstance(codec, PSC) else OF_PATHS
    yield from (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def draws(codec: SignalCodec, outcome: Outcome, shape: tuple[int, ...], drawing: Mapping[str, Any]) -> Tensor:
    """Samples number 0 and on, ``(n, channels, height, width)``."""
    asked = codec.restored_by(Drawn(Sample(), **drawing))
    count = 1 if drawing.get("steps") == 1 else MOST  # one step draws no noise
    return torch.stack([asked.restore(outcome, shape, index) for index in range(count)])


def mixtures(drawing: Mapping[str, float]) -> list[Restoration]:
    """What is made of the samples."""
    if drawing.get("steps") == 1:
        return [Sample()]
    return [Sample(), Mean(2), Mean(MOST), Blend(2, 0.25), Blend(2, 0.5), Blend(2, 0.75)]


def summary(recipe: str, points: Sequence[Sequence[dict[str, Any]]], entries: int) -> list[Candidate]:
    """Print and return a recipe's entries."""
    mixed = [
        Mixed(
            same[0]["restoration"],
            {name: fmean(float(one[name]) for one in same) for name in NAMES},
            fmean(one["evaluations"] for one in same),
        )
        for same in zip(*points, strict=True)
    ]
    chosen = parts(mixed, entries)
    titles = ["perception", "restoration", *NAMES, "NFE"]
    rows = [
        [
            f"{place / max(len(chosen) - 1, 1):.2f}",
            f"`{flow(short(one.spec))}`",
            *(f"{one.values[name]:.3f}" for name in NAMES),
            f"{one.evaluations:g}",
        ]
        for place, one in enumerate(chosen)
    ]
    print(f"\n{recipe}, {len(points)} crops and steps\n\n{markdown(titles, rows)}")
    return [short(one.spec) for one in chosen]


def parts(mixed: Sequence[Mixed], entries: int) -> list[Mixed]:
    """The table: to the highest ssimulacra2, and from there towards full detail."""
    first = front(mixed, "ssimulacra2")
    best = first[-1]
    more = [one for one in mixed if best.values["detail"] < one.values["detail"] <= FULL]
    below = [best, *(one for one in more if one.values["psnr"] < best.values["psnr"])]
    return [*spaced(first, "ssimulacra2", entries), *spaced(front(below, "detail"), "detail", entries + 1)[1:]]


def front(mixed: Sequence[Mixed], name: str) -> list[Mixed]:
    """Those that no other beats in PSNR and another value: PSNR falls, and the other rises."""
    kept: list[Mixed] = []
    for one in sorted(mixed, key=lambda one: (-one.values["psnr"], -one.values[name])):
        if not kept or one.values[name] > kept[-1].values[name]:
            kept.append(one)
    return kept


def spaced(front: Sequence[Mixed], name: str, entries: int) -> list[Mixed]:
    """At most so many of a front, its ends among them, at about even distances of a value."""
    low, high = front[0].values[name], front[-1].values[name]
    wanted = [low + (high - low) * place / (entries - 1) for place in range(entries)]
    nearest = {min(range(len(front)), key=lambda i: abs(front[i].values[name] - value)) for value in wanted}
    return [front[place] for place in sorted(nearest)]


def short(spec: Candidate) -> Candidate:
    """A spec without options that are none."""
    return {key: short(value) if isinstance(value, dict) else value for key, value in spec.items() if value is not None}


def flow(spec: Candidate) -> str:
    """A spec in one line of YAML."""
    return yaml.safe_dump(short(spec), default_flow_style=True, sort_keys=False, width=1000).strip()


if __name__ == "__main__":
    main()
