"""Rate and distortion of pscx beside JPEG, JPEG 2000, WebP, AVIF and JPEG XL, on the same images, whole files.

    python benchmarks/rate_distortion.py FOLDER -o runs/rate_distortion [--protocol kodak] [--codecs default jpeg avif]

Each whole image, or its central square of the side ``--crop``, goes through every codec at several rates over about
0.05 to 1 bpp. A codec is a recipe of pscx or a config file, at several steps of its quantizer, or one of jpeg, jp2,
webp, avif (tuned to PSNR), avif-looks and jxl. ``--protocol`` checks that the folder holds images of a known set, and
takes the crop that its papers take. With ``--paper N``, the central 64x64 of the first N images also goes through the
recipe ``paper-pixel`` with 4, 8 and 16 iterations (dense rows, float8, 8 bits a row), and through the recipes of pscx.

Under ``-o`` comes ``points.csv``, with a record for each image, codec and setting; those that are there already, with
all metrics, are not measured again, so a run that was stopped goes on, and one with another codec adds to it.
``--metrics`` names any metrics of an image (``pscx components metrics``). A recipe that has changed is another version
of it. Then ``about.json`` (machine, versions, date), ``summary.md`` (what is printed: how each codec was run, BD-rates,
those in ``--ranges`` of the rate with bootstrap intervals over the images, PSNR at given rates) and the curves,
``psnr.svg`` and so on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

import pscx
from pscx.ablation.plan import Axis, Plan
from pscx.ablation.plot import draw
from pscx.ablation.report import markdown
from pscx.ablation.results import Curve, Results
from pscx.api import Simulation
from pscx.codecs.specs import codec_spec
from pscx.data.files import image_files
from pscx.data.folder import unique_names
from pscx.evaluation.bd import bd_rate
from pscx.evaluation.measures import Measure
from pscx.evaluation.measuring import facts_of
from pscx.evaluation.tables import as_csv
from pscx.format.container import unpack
from pscx.metrics import METRICS, MSSSIM, PSNR, ImageMetric, bits_per_pixel
from pscx.rate_control import Step
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from facts import as_json, facts  # found through the line above
from file_formats import FORMATS, FileFormat
from protocols import PROTOCOLS, Protocol, size_of
from ranges import LEVEL, Range, interval, quality_range, range_of, share

Pixels = NDArray[np.uint8]
Record = dict[str, str]
Key = tuple[str, ...]
KEY = ("image", "crop", "codec", "version", "setting")
COSTS = ("bytes", "payload", "bpp", "seconds", "evaluations")
SHOWN: tuple[ImageMetric, ...] = (PSNR(), MSSSIM())
STEPS = (2.2, 1.3, 0.75, 0.42, 0.24)
RATES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
WHOLE = "whole"
RANGES: tuple[Range, ...] = ((0.05, 0.25), (0.25, 1.0))
LEAST_SHARE = 0.5
EVALUATIONS = Measure("NFE to compress", "", higher_is_better=False)
ANCHORS = ("avif", "jpeg")
PAPER, PAPER_SIDE, PAPER_ITERATIONS = "paper-pixel", 64, (4, 8, 16)


@dataclass(frozen=True)
class Coded:
    """A file, what its decoder shows, bytes without container or header, and the encoder's denoiser evaluations."""

    size: int
    decoded: Pixels
    payload: int | None = None
    evaluations: int | None = None


@dataclass(frozen=True)
class Contender:
    """A codec at its settings. ``version`` changes where its files might."""

    name: str
    version: str
    settings: Sequence[str]
    run: Callable[[Pixels, str], Coded]


@dataclass(frozen=True)
class Cell:
    """One point that is wanted: of the central square of the side ``crop``, or of the whole image."""

    name: str
    file: Path
    crop: int | None
    contender: Contender
    setting: str

    @property
    def key(self) -> Key:
        """Its record of the table has these in the columns of ``KEY``."""
        return (self.name, region(self.crop), self.contender.name, self.contender.version, self.setting)


def region(crop: int | None) -> str:
    """What the column ``crop`` holds."""
    return WHOLE if crop is None else str(crop)


def images(folder: Path, limit: int | None = None) -> dict[str, Path]:
    """The photographs of a folder by a name of their own. Raises :class:`pscx.PscxError` where there are none."""
    files = image_files(folder, "FOLDER")
    named = list(zip(unique_names(folder, files), files, strict=True))
    return dict(named[:limit])


def recipe(name: str, steps: Sequence[float] = STEPS) -> Contender:
    """A recipe of pscx, or a config file, at several steps."""
    codec = pscx.load_codec(name)

    def run(pixels: Pixels, setting: str) -> Coded:
        return coded(codec.simulate(pixels, target=Step(float(setting.split()[1]))))

    return Contender(Path(name).stem, f"pscx {digest(codec)}", [f"step {step}" for step in steps], run)


def paper() -> Contender:
    """The paper's rows and coding, at several numbers of iterations."""
    codecs = {f"iterations {count}": pscx.load_codec(PAPER, iterations=count) for count in PAPER_ITERATIONS}

    def run(pixels: Pixels, setting: str) -> Coded:
        return coded(codecs[setting].simulate(pixels))

    return Contender(PAPER, f"pscx {digest(next(iter(codecs.values())))}", list(codecs), run)


def coded(done: Simulation) -> Coded:
    """What is measured of a stream of pscx."""
    return Coded(len(done.data), done.pixels, len(unpack(done.data)[1]), done.account.evaluations)


def other(name: str, form: FileFormat) -> Contender:
    """A codec that is not of pscx."""

    def run(pixels: Pixels, setting: str) -> Coded:
        data = form.encode(pixels, setting)
        return Coded(len(data), form.decode(data), form.payload(data))

    return Contender(name, str(form.implementation()), form.settings, run)


def digest(codec: pscx.Codec) -> str:
    """Eight digits that change with any option of a codec but the one that rate control turns, and with its prior."""
    facts = json.dumps(codec_spec(codec.signal_codec), sort_keys=True).encode() + codec.signal_codec.fingerprint()
    return hashlib.sha256(facts).hexdigest()[:8]


def contenders(names: Sequence[str], steps: Sequence[float] = STEPS) -> Iterator[Contender]:
    """The codecs of these names. Raises ``SystemExit`` where the library of one is not installed."""
    for name in names:
        form = FORMATS.get(name)
        if form is not None and form.implementation() is None:
            raise SystemExit(f'{name} is not installed here: python -m pip install -e ".[benchmarks]" brings it')
        yield recipe(name, steps) if form is None else other(name, form)


def plan(files: Mapping[str, Path], found: Sequence[Contender], crop: int | None, paper_images: int) -> list[Cell]:
    """All points that are wanted, those of the quick codecs first. ``files`` are the images by their names."""
    ordered = sorted(found, key=lambda contender: contender.name not in FORMATS)
    large = [Cell(*file, crop, one, setting) for one in ordered for file in files.items() for setting in one.settings]
    own = [one for one in ordered if one.name not in FORMATS] + ([paper()] if paper_images else [])
    few = list(files.items())[:paper_images]
    return large + [Cell(*file, PAPER_SIDE, one, setting) for one in own for file in few for setting in one.settings]


def measure(cell: Cell, pixels: Pixels, metrics: Sequence[ImageMetric] = SHOWN) -> Record:
    """The record of a cell."""
    started = time.perf_counter()
    done = cell.contender.run(pixels, cell.setting)
    seconds = time.perf_counter() - started
    height, width = pixels.shape[:2]
    values = {
        "bytes": done.size,
        "payload": done.payload,
        "bpp": bits_per_pixel(done.size, height, width),
        **{metric.column: metric.value(pixels, done.decoded) for metric in metrics},
        "seconds": round(seconds, 3),
        "evaluations": done.evaluations,
    }
    texts = {key: "" if value is None else str(value) for key, value in values.items()}
    return dict(zip(KEY, cell.key, strict=True)) | texts


def metrics_of(names: Sequence[str]) -> tuple[ImageMetric, ...]:
    """The metrics of these names, ready. Raises :class:`pscx.PscxError` where there is none, or weights are missing."""
    found = []
    for name in dict.fromkeys(["psnr", *names]):
        cls = METRICS.find(name)
        if cls is None or not issubclass(cls, ImageMetric):
            raise pscx.PscxError(f"--metrics takes metrics of an image, see pscx components metrics, got '{name}'")
        found.append(cls())
        found[-1].prepare()
    return tuple(found)


def central(pixels: Pixels, side: int | None) -> Pixels:
    """The central square of that side, or all. Raises ``SystemExit`` where the image is smaller."""
    if side is None:
        return pixels
    if min(pixels.shape[:2]) < side:
        raise SystemExit(f"--crop must fit into every image, got {side} for {pixels.shape[1]}x{pixels.shape[0]}")
    top, left = ((n - side) // 2 for n in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def read(path: Path, names: Sequence[str] = KEY) -> dict[Key, Record]:
    """The records of a table by their keys; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(record[name] for name in names): record for record in csv.DictReader(file)}


def fill(cells: Sequence[Cell], path: Path, metrics: Sequence[ImageMetric] = SHOWN) -> dict[Key, Record]:
    """Measure the cells that the table lacks, and write it after each; returns the records of all cells."""
    columns = (*KEY, *COSTS[:3], *(metric.column for metric in metrics), *COSTS[3:])
    table = {key: dict.fromkeys(columns, "") | record for key, record in read(path).items()}
    to_do = [cell for cell in cells if not _is_measured(table.get(cell.key), cell, metrics)]
    with Progress() as bars:
        bar = bars.add_task("points", total=len(cells), completed=len(cells) - len(to_do))
        for cell in to_do:
            bars.update(bar, description=f"{cell.contender.name} {cell.setting} {cell.name}")
            known = table.get(cell.key, {})
            table[cell.key] = known | measure(cell, central(pscx.read_image(cell.file), cell.crop), metrics)
            write_whole(path, as_csv(list(table.values())), force=True)
            bars.advance(bar)
    return {cell.key: table[cell.key] for cell in cells}


def _is_measured(record: Record | None, cell: Cell, metrics: Sequence[ImageMetric]) -> bool:
    """Whether a table has a cell with every metric that is defined for its size."""
    if record is None:
        return False
    sides = size_of(cell.file) if cell.crop is None else (cell.crop, cell.crop)
    return all(record[metric.column] for metric in metrics if metric.fits(*sides))


@dataclass(frozen=True)
class Point:
    """Means over images of one codec at one setting."""

    setting: str
    values: Mapping[str, float | None]


def curves(records: Sequence[Record]) -> dict[str, list[Point]]:
    """The mean points of each codec, by rising rate."""
    groups: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        groups.setdefault(record["codec"], {}).setdefault(record["setting"], []).append(record)
    return {
        codec: sorted((_mean(*item) for item in settings.items()), key=lambda point: point.values["bpp"] or 0.0)
        for codec, settings in groups.items()
    }


def front(points: Sequence[Point], quality: str, higher_is_better: bool = True) -> list[Point]:
    """The points by rising rate that are worth their bytes: none is above its quality at no more.

    Of a codec with variants, such as two subsamplings, a point is left out where the curve of another variant passes
    above it.
    """
    kept: list[Point] = []
    points = [point for point in points if point.values.get(quality) is not None]
    upright = [_upright(point, quality, higher_is_better) for point in points]
    best: float | None = None
    for point, own in zip(points, upright, strict=True):
        value = own.values[quality]
        rivals = {variant(other.setting) for other in points} - {variant(point.setting)}
        beaten = any(_passes_above(own, [p for p in upright if variant(p.setting) == v], quality) for v in rivals)
        if value is not None and (best is None or value > best) and not beaten:
            kept.append(point)
            best = value
    return kept


def _upright(point: Point, quality: str, higher_is_better: bool) -> Point:
    """A point whose quality is better where it is higher."""
    value = point.values[quality]
    return point if higher_is_better or value is None else Point(point.setting, {**point.values, quality: -value})


def variant(setting: str) -> str:
    """A setting without the number that stands for the rate, its first."""
    return re.sub(r"[\d.]+", "", setting, count=1)


def pairs(points: Sequence[Point], quality: str, higher_is_better: bool = True) -> list[tuple[float, float]]:
    """``(bpp, quality)`` of the points on the front."""
    found = front(points, quality, higher_is_better)
    return [(point.values["bpp"] or 0.0, point.values[quality] or 0.0) for point in found]


def by_image(records: Sequence[Record]) -> list[dict[str, list[Point]]]:
    """The curves of each image on its own."""
    images = dict.fromkeys(record["image"] for record in records)
    return [curves([record for record in records if record["image"] == image]) for image in images]


def bd_table(images: Sequence[Mapping[str, list[Point]]], metrics: Sequence[ImageMetric] = SHOWN) -> str:
    """BD-rate of every codec of pscx against every other codec, in percent: of each image, then the mean over images.

    Settings mean another rate on each image for some codecs and the same for others, so curves through means over
    images would not do. An image on which two curves have no quality in common is left out, and counted.
    """
    names = list(images[0])
    lines = []
    for own in (name for name in names if name not in FORMATS):
        for anchor in (name for name in names if name != own):
            values = [_mean_difference(images, anchor, own, metric) for metric in metrics]
            lines.append([own, anchor, *values])
    return markdown(["codec", "against", *(f"BD-rate in %, {metric.title}" for metric in metrics)], lines)


def range_table(
    images: Sequence[Mapping[str, list[Point]]], ranges: Sequence[Range], metrics: Sequence[ImageMetric] = SHOWN
) -> str:
    """BD-rates over those qualities that the codec it is against reaches at given rates, with bootstrap intervals.

    Of each image on its own, then the mean. An image on which the other curve reaches less than half of these
    qualities is left out, and counted. Every codec of pscx stands against every other codec, and the others against
    the first codec of ``ANCHORS`` that is there.
    """
    names = list(images[0])
    anchor = next((name for name in ANCHORS if name in names), None)
    pairs = [(own, other) for own in names if own not in FORMATS for other in names if other != own]
    pairs += [(name, anchor) for name in names if name in FORMATS and anchor not in (None, name)]
    lines = []
    for metric in metrics:
        for own, other in pairs:
            cells = [_in_range(images, other, own, metric, where) for where in ranges]
            lines.append([metric.title, own, other, *cells])
    header = [f"{low:g} to {high:g} bpp of the latter" for low, high in ranges]
    return markdown(["metric", "BD-rate of", "against", *header], lines)


def rate_table(images: Sequence[Mapping[str, list[Point]]]) -> str:
    """Mean PSNR of every codec at given rates, where its curve of every image has them."""
    lines = []
    for name in images[0]:
        found = [[_read_off(pairs(own[name], "psnr"), rate) for own in images] for rate in RATES]
        lines.append([name, *("-" if None in values else f"{_average(values):.2f}" for values in found)])
    return markdown(["PSNR (dB) at", *(f"{rate:g} bpp" for rate in RATES)], lines)


def equal_bytes_table(records: Sequence[Record], anchor: str = "jpeg") -> str:
    """Mean PSNR of pscx at the bytes of each file of another codec, read off each image's own curve."""
    files = [record for record in records if record["codec"] == anchor]
    own = [name for name in dict.fromkeys(record["codec"] for record in records) if name not in FORMATS]
    lines = []
    for setting in dict.fromkeys(record["setting"] for record in files):
        there = [record for record in files if record["setting"] == setting]
        means = [fmean(float(record[key]) for record in there) for key in ("bpp", "psnr")]
        found = [[at_bytes([r for r in records if r["codec"] == name], record) for record in there] for name in own]
        texts = ["-" if None in values else f"{_average(values):.2f}" for values in found]
        lines.append([setting, f"{means[0]:.3f}", f"{means[1]:.2f}", *texts])
    return markdown([f"at the bytes of {anchor}", "bpp", f"{anchor} (dB)", *(f"{name} (dB)" for name in own)], lines)


def at_bytes(records: Sequence[Record], record: Record) -> float | None:
    """PSNR of a codec's records of the image of ``record`` at its bytes; none outside of its curve."""
    points = sorted((float(r["bytes"]), float(r["psnr"])) for r in records if r["image"] == record["image"])
    return _read_off(points, float(record["bytes"]))


def settings_table(found: Mapping[str, list[Point]], metrics: Sequence[ImageMetric] = SHOWN) -> str:
    """Which settings of each codec make its curve, and what they cost."""
    lines = []
    for name, points in found.items():
        for point in points:
            best = ", ".join(m.column for m in metrics if point in front(points, m.column, m.higher_is_better))
            columns = ("bpp", *(metric.column for metric in metrics), "seconds", "evaluations")
            numbers = (point.values.get(key) for key in columns)
            lines.append([name, point.setting, *("-" if n is None else f"{n:.4g}" for n in numbers), best])
    labels = [_measure_of(metric).label for metric in metrics]
    header = ["codec", "setting", "bpp", *labels, "seconds", "evaluations", "on the curve of"]
    return markdown(header, lines)


def paper_table(records: Sequence[Record]) -> str:
    """The small crops, image by image."""
    columns = ("image", "codec", "setting", "bpp", "psnr", "evaluations")
    lines = [
        [f"{float(record[key]):.4g}" if key in ("bpp", "psnr") else record[key] for key in columns]
        for record in records
    ]
    return markdown(columns, sorted(lines))


def pictures(found: Mapping[str, list[Point]], root: Path, metrics: Sequence[ImageMetric] = SHOWN) -> dict[str, bytes]:
    """``psnr.svg`` and so on: the front of each codec; ``evaluations.svg``: what those with a denoiser ask of it."""
    axes = [Axis("codec", {name: name for name in found}), Axis("setting", {})]
    baseline = {"codec": "jpeg" if "jpeg" in found else next(iter(found))}
    whole = Plan(axes, "setting", baseline, [], root)
    kept: dict[str, tuple[Measure, Mapping[str, list[Point]]]] = {"evaluations": (EVALUATIONS, found)}
    for metric in metrics:
        fronts = {name: front(points, metric.column, metric.higher_is_better) for name, points in found.items()}
        kept[metric.column] = _measure_of(metric), fronts
    files: dict[str, bytes] = {}
    for column, (measure, named) in kept.items():
        lines = [
            Curve({"codec": name}, [_result(one, column, measure) for one in points]) for name, points in named.items()
        ]
        drawn = [line for line in lines if line.of(column)]
        files |= {name: data for name, data in draw(whole, drawn).items() if name.endswith(".svg")} if drawn else {}
    return files


def bare(records: Sequence[Record]) -> list[Record]:
    """The records of files that have a container, as codecs of their own without it."""
    found = [record for record in records if record["codec"] in FORMATS and record["payload"]]
    rates = [float(record["bpp"]) * int(record["payload"]) / int(record["bytes"]) for record in found]
    name = "{} without container"
    return [r | {"codec": name.format(r["codec"]), "bpp": str(rate)} for r, rate in zip(found, rates, strict=True)]


def tuning_table(records: Sequence[Record]) -> str:
    """How each codec was run."""
    versions = dict.fromkeys((record["codec"], record["version"]) for record in records)
    lines = [[c, v, FORMATS[c].tuning if c in FORMATS else "recipe, whole file"] for c, v in versions]
    return markdown(["codec", "version", "how it is run"], lines)


def about(options: argparse.Namespace, found: Sequence[Contender], metrics: Sequence[ImageMetric]) -> bytes:
    """Where and with what the last run was made, as JSON."""
    more = {
        "options": {key: str(value) for key, value in vars(options).items() if key not in ("folder", "output")},
        "threads": torch.get_num_threads(),
        "codecs": {contender.name: contender.version for contender in found},
        "metrics": {metric.column: facts_of(metric) for metric in metrics},
    }
    return as_json(facts() | more)


def report(
    records: Sequence[Record],
    crop: int | None,
    metrics: Sequence[ImageMetric] = SHOWN,
    ranges: Sequence[Range] = RANGES,
    protocol: Protocol | None = None,
) -> tuple[str, dict[str, list[Point]]]:
    """The tables, and the curves at the large crop."""
    large = [record for record in records if record["crop"] == region(crop)]
    found = curves(large)
    small = [record for record in records if record["crop"] != region(crop)]
    compared = by_image(large if crop is None else [*large, *bare(large)])
    parts = [
        _what(len({record["image"] for record in records}), crop, protocol),
        tuning_table(large),
        "Rate at equal quality, of each image, then the mean (below 0: fewer bits than the codec it is against).",
        *([bd_table(compared, metrics)] if any(name not in FORMATS for name in found) else []),
        f"Over ranges of the rate, with {100 * LEVEL:g} % bootstrap intervals over the images:",
        range_table(compared, ranges, metrics),
        rate_table(compared),
        *([equal_bytes_table(large)] if "jpeg" in found else []),
        settings_table(found, metrics),
    ]
    if small:
        parts += small_tables(small)
    return "\n\n".join(parts), found


def _what(images: int, crop: int | None, protocol: Protocol | None) -> str:
    part = "whole images" if crop is None else f"central {crop}x{crop}"
    if protocol is None:
        return f"Means over {images} images, {part}, whole files."
    number = f"all {images}" if images == protocol.images else f"{images} of the {protocol.images}"
    return f"Means over {number} images of {protocol.title}, {part}, whole files."


def small_tables(small: Sequence[Record]) -> list[str]:
    """The paper's recipe beside pscx on small crops."""
    parts = [f"Central {PAPER_SIDE}x{PAPER_SIDE}:", bd_table(by_image(small), [PSNR()])]
    if all(record["payload"] for record in small):
        rates = [bits_per_pixel(int(record["payload"]), PAPER_SIDE, PAPER_SIDE) for record in small]
        payloads = [record | {"bpp": str(rate)} for record, rate in zip(small, rates, strict=True)]
        parts += [
            "The same of payloads alone, without what a file says of its codec:",
            bd_table(by_image(payloads), [PSNR()]),
        ]
    return [*parts, paper_table(small)]


def main(args: Sequence[str] | None = None) -> None:
    """Measure what is missing, and report."""
    parser = _parser()
    options = parser.parse_args(args)
    if options.paper and options.crop == PAPER_SIDE:
        parser.error(f"--crop must be other than {PAPER_SIDE}, the side of the crops of --paper")
    try:
        files = images(options.folder, options.limit)
        protocol = PROTOCOLS.get(options.protocol)
        if protocol is not None:
            protocol.check(files)
        metrics = metrics_of(options.metrics)
        found = list(contenders(options.codecs or ["default", *_installed()], options.steps))
    except pscx.PscxError as error:
        parser.error(str(error))
    crop = options.crop if protocol is None or options.crop is not None else protocol.crop
    cells = plan(files, found, crop, options.paper)
    options.output.mkdir(parents=True, exist_ok=True)
    write_whole(options.output / "about.json", about(options, found, metrics), force=True)
    records = list(fill(cells, options.output / "points.csv", metrics).values())
    text, means = report(records, crop, metrics, options.ranges, protocol)
    write_whole(options.output / "summary.md", f"{text}\n".encode(), force=True)
    for name, data in pictures(means, options.output, metrics).items():
        write_whole(options.output / name, data, force=True)
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of images")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/rate_distortion"))
    parser.add_argument(
        "--codecs", nargs="+", metavar="CODEC", help="recipes, config files, or of " + ", ".join(FORMATS)
    )
    parser.add_argument("--steps", type=float, nargs="+", default=STEPS, metavar="STEP", help="of pscx's quantizer")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="the set that the images are from")
    parser.add_argument("--crop", type=int, help="side of the central square, in pixels; default: whole images")
    parser.add_argument(
        "--ranges",
        type=range_of,
        nargs="+",
        default=RANGES,
        metavar="LOW-HIGH",
        help="of bits per pixel, over which BD-rates are also taken; default: 0.05-0.25 0.25-1",
    )
    names = [METRICS.name_of(type(metric)) for metric in SHOWN]
    parser.add_argument(
        "--metrics", nargs="+", default=names, metavar="METRIC", help="of an image; PSNR is always among them"
    )
    parser.add_argument("--limit", type=int, default=None, help="the first N images alone")
    parser.add_argument(
        "--paper", type=int, default=0, metavar="N", help="images that also go through the paper's recipe"
    )
    return parser


def _installed() -> list[str]:
    """The other codecs that are there; says which are not."""
    missing = [name for name, form in FORMATS.items() if form.implementation() is None]
    if missing:
        print(f'left out, not installed: {", ".join(missing)} (python -m pip install -e ".[benchmarks]")')
    return [name for name in FORMATS if name not in missing]


def _mean(setting: str, records: Sequence[Record]) -> Point:
    columns = dict.fromkeys(key for record in records for key in record if key not in KEY)
    return Point(setting, {key: _mean_of([record.get(key, "") for record in records]) for key in columns})


def _mean_of(texts: Sequence[str]) -> float | None:
    return fmean(map(float, texts)) if all(texts) else None


def _mean_difference(images: Sequence[Mapping[str, list[Point]]], anchor: str, own: str, metric: ImageMetric) -> str:
    values = [_difference(found[anchor], found[own], metric) for found in images]
    there = [value for value in values if value is not None]
    some = f" ({len(there)} of {len(images)})" if len(there) < len(images) else ""
    return f"{fmean(there):+.1f}{some}" if there else "-"


def _in_range(
    images: Sequence[Mapping[str, list[Point]]], anchor: str, own: str, metric: ImageMetric, where: Range
) -> str:
    found = [_difference(curves[anchor], curves[own], metric, where) for curves in images]
    there = [value for value in found if value is not None]
    if len(there) < 2:
        return f"- ({len(there)} of {len(images)})"
    some = f" ({len(there)} of {len(images)})" if len(there) < len(images) else ""
    low, high = interval(there)
    return f"{fmean(there):+.1f} [{low:+.1f}, {high:+.1f}]{some}"


def _difference(
    anchor: list[Point], test: list[Point], metric: ImageMetric, where: Range | None = None
) -> float | None:
    higher = metric.higher_is_better
    first, second = (pairs(points, metric.column, higher) for points in (anchor, test))
    try:
        within = None if where is None else quality_range(first, where)
        if within is not None and share(second, within) < LEAST_SHARE:
            return None
        return bd_rate(first, second, higher, within)
    except ValueError:  # no quality in common, or no values
        return None


def _read_off(points: Sequence[tuple[float, float]], rate: float) -> float | None:
    """The quality of a curve at a rate, linear in its logarithm; none outside of its points."""
    rates, values = zip(*points, strict=True)
    return float(np.interp(np.log(rate), np.log(rates), values)) if rates[0] <= rate <= rates[-1] else None


def _average(values: Sequence[float | None]) -> float:
    return fmean(value for value in values if value is not None)


def _passes_above(point: Point, others: Sequence[Point], quality: str) -> bool:
    """Whether the curve of other points, linear in the logarithm of the rate, is better at the rate of this one."""
    value = point.values[quality]
    curve = [(other.values["bpp"] or 0.0, other.values[quality] or 0.0) for other in others]
    rival = _read_off(curve, point.values["bpp"] or 0.0)
    return value is not None and rival is not None and rival > value


def _result(point: Point, column: str, measure: Measure) -> Results:
    values = {"bpp": point.values["bpp"], column: point.values.get(column)}
    means = {key: "" if value is None else str(value) for key, value in values.items()}
    return Results([], means, {column: measure})


def _measure_of(metric: ImageMetric) -> Measure:
    return Measure(metric.title, metric.unit, metric.higher_is_better)


if __name__ == "__main__":
    main()
