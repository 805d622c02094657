"""Rate and distortion of pscx beside JPEG, JPEG 2000, WebP, AVIF and JPEG XL, on the same images, whole files.

    python benchmarks/rate_distortion.py FOLDER -o runs/rate_distortion [--codecs default jpeg avif] [--crop 256]

Each image's central square goes through every codec at several rates over about 0.1 to 1 bpp. A codec is a recipe of
pscx or a config file, at several steps of its quantizer, or one of jpeg, jp2, webp, avif and jxl. With ``--paper N``,
the central 64x64 of the first N images also goes through the recipe ``paper-pixel`` with 4, 8 and 16 iterations (dense
rows, float8, 8 bits a row), and through the recipes of pscx.

Under ``-o`` comes ``points.csv``, with a row for each image, codec and setting; rows that are there already are not
measured again, so a run that was stopped goes on, and one with another codec adds to it. A recipe that has changed is
another version of it. Then ``about.json`` (machine, versions, date), ``summary.md`` (what is printed: BD-rates, PSNR at
given rates) and the curves, ``psnr.svg`` and ``ms_ssim.svg``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
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
from pscx.ablation.results import MEASURES, Curve, Results
from pscx.api import Simulation
from pscx.codecs.specs import codec_spec
from pscx.data.files import image_files
from pscx.data.folder import unique_names
from pscx.evaluation.bd import bd_rate
from pscx.evaluation.tables import as_csv
from pscx.format.container import unpack
from pscx.metrics import bits_per_pixel, ms_ssim, psnr
from pscx.rate_control import Step
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from file_formats import FORMATS, FileFormat  # found through the line above

Pixels = NDArray[np.uint8]
Row = dict[str, str]
Key = tuple[str, ...]
KEY = ("image", "crop", "codec", "version", "setting")
VALUES = ("bytes", "payload", "bpp", "psnr", "ms_ssim", "lpips", "seconds", "evaluations")
SHOWN = ("psnr", "ms_ssim")
STEPS = (2.2, 1.3, 0.75, 0.42, 0.24)
RATES = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
PAPER, PAPER_SIDE, PAPER_ITERATIONS = "paper-pixel", 64, (4, 8, 16)
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"


@dataclass(frozen=True)
class Coded:
    """A file, what its decoder shows, and of pscx the denoiser evaluations of the encoder and the payload's bytes."""

    size: int
    decoded: Pixels
    evaluations: int | None = None
    payload: int | None = None


@dataclass(frozen=True)
class Contender:
    """A codec at its settings. ``version`` changes where its files might."""

    name: str
    version: str
    settings: Sequence[str]
    run: Callable[[Pixels, str], Coded]


@dataclass(frozen=True)
class Cell:
    """One point that is wanted."""

    name: str
    file: Path
    crop: int
    contender: Contender
    setting: str

    @property
    def key(self) -> Key:
        """Its row of the table has these in the columns of ``KEY``."""
        return (self.name, str(self.crop), self.contender.name, self.contender.version, self.setting)


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

    return Contender(Path(name).stem, digest(codec), [f"step {step}" for step in steps], run)


def paper() -> Contender:
    """The paper's rows and coding, at several numbers of iterations."""
    codecs = {f"iterations {count}": pscx.load_codec(PAPER, iterations=count) for count in PAPER_ITERATIONS}

    def run(pixels: Pixels, setting: str) -> Coded:
        return coded(codecs[setting].simulate(pixels))

    return Contender(PAPER, digest(next(iter(codecs.values()))), list(codecs), run)


def coded(done: Simulation) -> Coded:
    """What is measured of a stream of pscx."""
    return Coded(len(done.data), done.pixels, done.account.evaluations, len(unpack(done.data)[1]))


def other(name: str, form: FileFormat) -> Contender:
    """A codec that is not of pscx."""

    def run(pixels: Pixels, setting: str) -> Coded:
        data = form.encode(pixels, setting)
        return Coded(len(data), form.decode(data))

    return Contender(name, str(form.implementation()), form.settings, run)


def digest(codec: pscx.Codec) -> str:
    """Eight digits that change with any option of a codec but the step, and with its prior's weights."""
    facts = json.dumps(codec_spec(codec.signal_codec), sort_keys=True).encode() + codec.signal_codec.prior.fingerprint()
    return f"pscx {pscx.__version__} {hashlib.sha256(facts).hexdigest()[:8]}"


def contenders(names: Sequence[str], steps: Sequence[float] = STEPS) -> Iterator[Contender]:
    """The codecs of these names. Raises ``SystemExit`` where the library of one is not installed."""
    for name in names:
        form = FORMATS.get(name)
        if form is not None and form.implementation() is None:
            raise SystemExit(f'{name} is not installed here: python -m pip install -e ".[benchmarks]" brings it')
        yield recipe(name, steps) if form is None else other(name, form)


def plan(files: Mapping[str, Path], found: Sequence[Contender], crop: int, paper_images: int) -> list[Cell]:
    """All points that are wanted, those of the quick codecs first. ``files`` are the images by their names."""
    ordered = sorted(found, key=lambda contender: contender.name not in FORMATS)
    large = [Cell(*file, crop, one, setting) for one in ordered for file in files.items() for setting in one.settings]
    own = [one for one in ordered if one.name not in FORMATS] + ([paper()] if paper_images else [])
    few = list(files.items())[:paper_images]
    return large + [Cell(*file, PAPER_SIDE, one, setting) for one in own for file in few for setting in one.settings]


def measure(cell: Cell, pixels: Pixels) -> Row:
    """The row of a cell."""
    started = time.perf_counter()
    done = cell.contender.run(pixels, cell.setting)
    seconds = time.perf_counter() - started
    height, width = pixels.shape[:2]
    values = {
        "bytes": done.size,
        "payload": done.payload,
        "bpp": bits_per_pixel(done.size, height, width),
        "psnr": psnr(pixels, done.decoded),
        "ms_ssim": ms_ssim(pixels, done.decoded),
        "lpips": lpips(pixels, done.decoded),
        "seconds": round(seconds, 3),
        "evaluations": done.evaluations,
    }
    texts = {key: "" if value is None else str(value) for key, value in values.items()}
    return dict(zip(KEY, cell.key, strict=True)) | texts


def has_lpips() -> bool:
    """Whether LPIPS can be had without a download."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_WEIGHTS
    return find_spec("torchvision") is not None and weights.is_file()


def lpips(first: Pixels, second: Pixels) -> float | None:
    """LPIPS with AlexNet (Zhang et al. 2018), 0 for equal images; or none, see :func:`has_lpips`."""
    if not has_lpips():
        return None
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as between

    pair = [torch.from_numpy(image.copy()).movedim(-1, 0)[None] / 127.5 - 1 for image in (first, second)]
    return float(between(*pair, net_type="alex"))


def central(pixels: Pixels, side: int) -> Pixels:
    """The central square of that side. Raises ``SystemExit`` where the image is smaller."""
    if min(pixels.shape[:2]) < side:
        raise SystemExit(f"--crop must fit into every image, got {side} for {pixels.shape[1]}x{pixels.shape[0]}")
    top, left = ((n - side) // 2 for n in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def read(path: Path, names: Sequence[str] = KEY) -> dict[Key, Row]:
    """The rows of a table by their keys; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[name] for name in names): row for row in csv.DictReader(file)}


def fill(cells: Sequence[Cell], path: Path) -> dict[Key, Row]:
    """Measure the cells that the table lacks, and write it after each; returns the rows of all cells."""
    table = {key: dict.fromkeys((*KEY, *VALUES), "") | row for key, row in read(path).items()}
    to_do = [cell for cell in cells if cell.key not in table]
    with Progress() as bars:
        bar = bars.add_task("points", total=len(cells), completed=len(cells) - len(to_do))
        for cell in to_do:
            bars.update(bar, description=f"{cell.contender.name} {cell.setting} {cell.name}")
            table[cell.key] = measure(cell, central(pscx.read_image(cell.file), cell.crop))
            write_whole(path, as_csv(list(table.values())), force=True)
            bars.advance(bar)
    return {cell.key: table[cell.key] for cell in cells}


@dataclass(frozen=True)
class Point:
    """Means over images of one codec at one setting."""

    setting: str
    values: Mapping[str, float | None]


def curves(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """The mean points of each codec, by rising rate."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["codec"], {}).setdefault(row["setting"], []).append(row)
    return {
        codec: sorted((_mean(*item) for item in settings.items()), key=lambda point: point.values["bpp"] or 0.0)
        for codec, settings in groups.items()
    }


def front(points: Sequence[Point], quality: str) -> list[Point]:
    """The points by rising rate that are worth their bytes: none is above its quality at no more.

    Of a codec with variants, such as two subsamplings, a point is left out where the curve of another variant passes
    above it.
    """
    kept: list[Point] = []
    for point in points:
        value, best = point.values[quality], kept[-1].values[quality] if kept else None
        rivals = {variant(other.setting) for other in points} - {variant(point.setting)}
        beaten = any(_passes_above(point, [p for p in points if variant(p.setting) == v], quality) for v in rivals)
        if value is not None and (best is None or value > best) and not beaten:
            kept.append(point)
    return kept


def variant(setting: str) -> str:
    """A setting without the number that stands for the rate, its first."""
    return re.sub(r"[\d.]+", "", setting, count=1)


def pairs(points: Sequence[Point], quality: str) -> list[tuple[float, float]]:
    """``(bpp, quality)`` of the points on the front."""
    return [(point.values["bpp"] or 0.0, point.values[quality] or 0.0) for point in front(points, quality)]


def by_image(rows: Sequence[Row]) -> list[dict[str, list[Point]]]:
    """The curves of each image on its own."""
    images = dict.fromkeys(row["image"] for row in rows)
    return [curves([row for row in rows if row["image"] == image]) for image in images]


def bd_table(images: Sequence[Mapping[str, list[Point]]], qualities: Sequence[str] = SHOWN) -> str:
    """BD-rate of every codec of pscx against every other codec, in percent: of each image, then the mean over images.

    Settings mean another rate on each image for some codecs and the same for others, so curves through means over
    images would not do. An image on which two curves have no quality in common is left out, and counted.
    """
    names = list(images[0])
    lines = []
    for own in (name for name in names if name not in FORMATS):
        for anchor in (name for name in names if name != own):
            values = [_mean_difference(images, anchor, own, quality) for quality in qualities]
            lines.append([own, anchor, *values])
    return markdown(["codec", "against", *(f"BD-rate in %, {MEASURES[q].partition(' ')[0]}" for q in qualities)], lines)


def rate_table(images: Sequence[Mapping[str, list[Point]]]) -> str:
    """Mean PSNR of every codec at given rates, where its curve of every image has them."""
    lines = []
    for name in images[0]:
        found = [[_read_off(pairs(own[name], "psnr"), rate) for own in images] for rate in RATES]
        lines.append([name, *("-" if None in values else f"{_average(values):.2f}" for values in found)])
    return markdown(["PSNR (dB) at", *(f"{rate:g} bpp" for rate in RATES)], lines)


def equal_bytes_table(rows: Sequence[Row], anchor: str = "jpeg") -> str:
    """Mean PSNR of pscx at the bytes of each file of another codec, read off each image's own curve."""
    files = [row for row in rows if row["codec"] == anchor]
    own = [name for name in dict.fromkeys(row["codec"] for row in rows) if name not in FORMATS]
    lines = []
    for setting in dict.fromkeys(row["setting"] for row in files):
        there = [row for row in files if row["setting"] == setting]
        means = [fmean(float(row[key]) for row in there) for key in ("bpp", "psnr")]
        found = [[at_bytes([r for r in rows if r["codec"] == name], row) for row in there] for name in own]
        texts = ["-" if None in values else f"{_average(values):.2f}" for values in found]
        lines.append([setting, f"{means[0]:.3f}", f"{means[1]:.2f}", *texts])
    return markdown([f"at the bytes of {anchor}", "bpp", f"{anchor} (dB)", *(f"{name} (dB)" for name in own)], lines)


def at_bytes(rows: Sequence[Row], row: Row) -> float | None:
    """PSNR of a codec's rows of the image of ``row`` at its bytes; none outside of its curve."""
    points = sorted((float(r["bytes"]), float(r["psnr"])) for r in rows if r["image"] == row["image"])
    return _read_off(points, float(row["bytes"]))


def settings_table(found: Mapping[str, list[Point]]) -> str:
    """Which settings of each codec make its curve, and what they cost."""
    lines = []
    for name, points in found.items():
        for point in points:
            best = ", ".join(quality for quality in SHOWN if point in front(points, quality))
            numbers = (point.values[key] for key in ("bpp", *SHOWN, "lpips", "seconds", "evaluations"))
            lines.append([name, point.setting, *("-" if n is None else f"{n:.4g}" for n in numbers), best])
    header = ["codec", "setting", "bpp", "PSNR (dB)", "MS-SSIM", "LPIPS", "seconds", "evaluations", "on the curve of"]
    return markdown(header, lines)


def paper_table(rows: Sequence[Row]) -> str:
    """The small crops, image by image."""
    columns = ("image", "codec", "setting", "bpp", "psnr", "evaluations")
    lines = [[f"{float(row[key]):.4g}" if key in ("bpp", "psnr") else row[key] for key in columns] for row in rows]
    return markdown(columns, sorted(lines))


def pictures(found: Mapping[str, list[Point]], root: Path) -> dict[str, bytes]:
    """``psnr.svg`` and ``ms_ssim.svg``: the front of each codec."""
    axes = [Axis("codec", {name: name for name in found}), Axis("setting", {})]
    baseline = {"codec": "jpeg" if "jpeg" in found else next(iter(found))}
    whole = Plan(axes, "setting", baseline, [], root)
    files: dict[str, bytes] = {}
    for quality in SHOWN:
        lines = [
            Curve({"codec": name}, [_result(point, quality) for point in front(points, quality)])
            for name, points in found.items()
        ]
        drawn = [line for line in lines if line.points]
        files |= {name: data for name, data in draw(whole, drawn).items() if name.endswith(".svg")} if drawn else {}
    return files


def about(options: argparse.Namespace, found: Sequence[Contender]) -> bytes:
    """Where and with what the last run was made, as JSON."""
    packages = ("torch", "numpy", "pillow", "torchmetrics", "constriction")
    facts = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "options": {key: str(value) for key, value in vars(options).items() if key not in ("folder", "output")},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "codecs": {contender.name: contender.version for contender in found},
        "lpips": "AlexNet" if has_lpips() else "left empty: torchvision or its AlexNet weights are not installed",
    }
    return f"{json.dumps(facts, indent=1)}\n".encode()


def report(rows: Sequence[Row], crop: int) -> tuple[str, dict[str, list[Point]]]:
    """The tables, and the curves at the large crop."""
    large = [row for row in rows if row["crop"] == str(crop)]
    found = curves(large)
    small = [row for row in rows if row["crop"] != str(crop)]
    images = len({row["image"] for row in rows})
    parts = [
        f"Means over {images} images, central {crop}x{crop}, whole files.",
        "Rate at equal quality, of each image, then the mean (below 0: fewer bits than the codec it is against):",
        bd_table(by_image(large)),
        rate_table(by_image(large)),
        *([equal_bytes_table(large)] if "jpeg" in found else []),
        settings_table(found),
    ]
    if small:
        parts += [f"Central {PAPER_SIDE}x{PAPER_SIDE}:", bd_table(by_image(small), ["psnr"])]
        if all(row["payload"] for row in small):
            bare = [row | {"bpp": str(bits_per_pixel(int(row["payload"]), PAPER_SIDE, PAPER_SIDE))} for row in small]
            parts += [
                "The same of payloads alone, without what a file says of its codec:",
                bd_table(by_image(bare), ["psnr"]),
            ]
        parts += [paper_table(small)]
    return "\n\n".join(parts), found


def main(args: Sequence[str] | None = None) -> None:
    """Measure what is missing, and report."""
    parser = _parser()
    options = parser.parse_args(args)
    if options.paper and options.crop == PAPER_SIDE:
        parser.error(f"--crop must be other than {PAPER_SIDE}, the side of the crops of --paper")
    try:
        files = images(options.folder, options.limit)
        found = list(contenders(options.codecs or ["default", *_installed()], options.steps))
    except pscx.PscxError as error:
        parser.error(str(error))
    cells = plan(files, found, options.crop, options.paper)
    options.output.mkdir(parents=True, exist_ok=True)
    write_whole(options.output / "about.json", about(options, found), force=True)
    rows = list(fill(cells, options.output / "points.csv").values())
    text, means = report(rows, options.crop)
    write_whole(options.output / "summary.md", f"{text}\n".encode(), force=True)
    for name, data in pictures(means, options.output).items():
        write_whole(options.output / name, data, force=True)
    print(text)
    if not has_lpips():
        print("\nno LPIPS: torchvision or its AlexNet weights are not installed")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of images")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/rate_distortion"))
    parser.add_argument(
        "--codecs", nargs="+", metavar="CODEC", help="recipes, config files, or of " + ", ".join(FORMATS)
    )
    parser.add_argument("--steps", type=float, nargs="+", default=STEPS, metavar="STEP", help="of pscx's quantizer")
    parser.add_argument("--crop", type=int, default=256, help="side of the central square, in pixels")
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


def _mean(setting: str, rows: Sequence[Row]) -> Point:
    return Point(setting, {key: _mean_of([row[key] for row in rows]) for key in VALUES})


def _mean_of(texts: Sequence[str]) -> float | None:
    return fmean(map(float, texts)) if all(texts) else None


def _mean_difference(images: Sequence[Mapping[str, list[Point]]], anchor: str, own: str, quality: str) -> str:
    values = [_difference(found[anchor], found[own], quality) for found in images]
    there = [value for value in values if value is not None]
    some = f" ({len(there)} of {len(images)})" if len(there) < len(images) else ""
    return f"{fmean(there):+.1f}{some}" if there else "-"


def _difference(anchor: list[Point], test: list[Point], quality: str) -> float | None:
    try:
        return bd_rate(pairs(anchor, quality), pairs(test, quality))
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


def _result(point: Point, quality: str) -> Results:
    values = {"bpp": point.values["bpp"], **dict.fromkeys(MEASURES), quality: point.values[quality]}
    return Results([], {key: "" if value is None else str(value) for key, value in values.items()})


if __name__ == "__main__":
    main()
