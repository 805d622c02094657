"""All codec families on one prior: the same images, real files, decoded pixels.

    python benchmarks/families.py FOLDER -o runs/families [--crop 128] [--limit 6] [--rows fast turbo ddcm ...]

Each image's central square goes through every row of the table at several settings: the quantizer's steps of PSC, the
final noise levels of the others, and for published settings the number of atoms. Each stream is decoded again from its
bytes; the pixels must be those of the encoder, and PSNR is theirs. ``--target 0.25`` adds what a stream of so many bits
per pixel costs with the search for its setting. The row ``diffc-ideal`` counts divergences and makes no file.

``points.csv`` has a record for each image, row and setting; a run that was stopped goes on. ``summary.md`` is what is
printed: BD-rates against ``fast``, of payloads and of whole files; evaluations (NFE) to encode, seconds in both
directions, means over the settings; and with the search for the target, evaluations and encodings. A decoder takes the
evaluations of one encoding and those of the restoration: 8 for the recipes of PSC, one for the others.
``psnr.svg`` has PSNR over the bits of payloads, and these over ``fast``'s. Without a folder, it is drawn of the points
that there are:

    python benchmarks/families.py --points benchmarks/results/families/points.csv -o runs/families
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pscx
from pscx.ablation.report import markdown
from pscx.codecs import DiffC
from pscx.codecs.pixels import shown, signal_of
from pscx.evaluation.bd import bd_rate, front
from pscx.evaluation.tables import as_csv
from pscx.format.container import unpack
from pscx.metrics import psnr
from pscx.rate_control import BPP
from pscx.runtime.files import write_whole

sys.path.append(str(Path(__file__).parent))

from rate_distortion import central, digest, images, read  # found through the line above

Pixels = NDArray[np.uint8]
Record = dict[str, str]
KEY = ("image", "crop", "row", "version", "setting")
ANCHOR, IDEAL, TARGET = "fast", "diffc-ideal", "target"
STEPS = (1.4, 0.8, 0.45, 0.26)
LEVELS = (0.4, 0.22, 0.125, 0.07)
LOWEST = 0.0078125  # at the end of the published paths
BITS, TIMES = (0.0625, 0.125, 0.25, 0.5, 1, 2, 4), (0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 6)  # ticks
EXACT = {"name": "ddpm", "exact": True}


@dataclass(frozen=True)
class Row:
    """A codec at several settings; ``make`` gives the codec at one of them."""

    name: str
    make: Callable[[float], pscx.Codec]
    settings: Sequence[float]


def family(name: str, settings: Sequence[float] = LEVELS, turned: str = "level", **options: Any) -> Row:
    """A row of a family that shares the exact embedded prior."""
    codec = name.partition("-")[0]
    base = {"name": {"turbo": "turbo_ddcm"}.get(codec, codec), "prior": EXACT, **options}

    def make(setting: float) -> pscx.Codec:
        value = int(setting) if float(setting).is_integer() else setting  # a number of atoms is whole
        return pscx.load_codec(config({**base, turned: value}))

    return Row(name, make, settings)


def config(codec: Mapping[str, Any]) -> Path:
    """A config file of a codec."""
    text = json.dumps({"model": {"codec": codec}})
    path = Path("runs/families-configs") / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    write_whole(path, text.encode(), force=True)
    return path


def recipe(name: str, settings: Sequence[float]) -> Row:
    """A row of a recipe."""
    return Row(name, lambda setting: pscx.load_codec(name, step=setting), settings)


def rows() -> dict[str, Row]:
    """All rows by name, in the order in which they are measured. Names begin with the family."""
    published = {"schedule": "even", "group": 16, "level": LOWEST}
    found = [
        recipe("fast", STEPS),
        recipe("turbo", LEVELS),
        family("turbo-kl", steps=24, schedule="kl"),
        family("ddcm-one-atom", atoms=1),
        family(IDEAL, steps=24),
        family("diffc-chunks", steps=24),
        family("turbo-48", steps=48),
        family("turbo-12", steps=12),
        family("turbo-published", (10, 25, 60, 140), "atoms", steps=20, **published),
        family("turbo-published-kl", (10, 25, 60, 140), "atoms", steps=20, schedule="kl", group=16, level=0.125),
        family("diffc-even", steps=100, schedule="even"),
        family("ddcm-published", (1, 3, 8), "atoms", steps=100, entries=12, weight_bits=3, **published),
        recipe("default", STEPS),
    ]
    return {row.name: row for row in found}


@dataclass(frozen=True)
class Cell:
    """One point that is wanted."""

    image: str
    file: Path
    crop: int
    row: Row
    setting: str

    @property
    def target(self) -> bool:
        """Whether the setting is searched for."""
        return self.setting.startswith(TARGET)

    @property
    def number(self) -> float:
        return float(self.setting.split()[-1])

    def codec(self) -> pscx.Codec:
        """The codec; at any of its settings if that is searched for."""
        return self.row.make(self.row.settings[0] if self.target else self.number)

    def key(self, codec: pscx.Codec) -> tuple[str, ...]:
        """What its record has in the columns of ``KEY``."""
        return self.image, str(self.crop), self.row.name, digest(codec), self.setting


def measure(cell: Cell, codec: pscx.Codec, pixels: Pixels) -> Record:
    """The record of a cell."""
    values = _ideal(codec, pixels) if cell.row.name == IDEAL else _coded(codec, pixels, cell)
    return dict(zip(KEY, cell.key(codec), strict=True)) | {key: str(value) for key, value in values.items()}


def _coded(codec: pscx.Codec, pixels: Pixels, cell: Cell) -> dict[str, Any]:
    started = time.perf_counter()
    done = codec.encode(pixels, target=BPP(cell.number) if cell.target else None)
    encoding = time.perf_counter() - started
    started = time.perf_counter()
    decoded = codec.decompress(done.data)
    decoding = time.perf_counter() - started
    return {
        "bytes": len(done.data),
        "payload": len(unpack(done.data)[1]),
        "psnr": psnr(pixels, decoded),
        "encoding": round(encoding, 2),
        "decoding": round(decoding, 2),
        "evaluations": done.account.evaluations,
        "encodings": done.account.encodings,
    }


def _ideal(codec: pscx.Codec, pixels: Pixels) -> dict[str, Any]:
    """Counted bits, and no file."""
    family = codec.signal_codec
    assert isinstance(family, DiffC)
    signal = signal_of(family, pixels)
    bits, outcome = family.ideal(signal)
    decoded = shown(family, family.restore(outcome, tuple(signal.shape)), *pixels.shape[:2])
    return {"bytes": bits / 8, "payload": bits / 8, "psnr": psnr(pixels, decoded)} | dict.fromkeys(
        ("encoding", "decoding", "evaluations", "encodings"), ""
    )


def plan(
    files: Mapping[str, Path], names: Sequence[str], crop: int, target: float | None, settings: int | None = None
) -> Iterator[Cell]:
    """All points that are wanted, row by row; the coarsest so many settings of each, or all."""
    known = rows()
    for name in names:
        row = known[name]
        for image, file in files.items():
            for setting in row.settings[:settings]:
                yield Cell(image, file, crop, row, f"{setting:g}")
    for name in names if target else ():
        for image, file in files.items():
            if name != IDEAL and "published" not in name:
                yield Cell(image, file, crop, known[name], f"{TARGET} {target:g}")


def fill(cells: Sequence[Cell], path: Path) -> list[Record]:
    """Measure the cells that the table lacks, and write it after each; the records of all cells."""
    table = read(path, KEY)
    codecs: dict[tuple[str, str], pscx.Codec] = {}
    found = []
    for number, cell in enumerate(cells, 1):
        place = cell.row.name, cell.setting
        codec = codecs.get(place)
        if codec is None:
            codec = cell.codec()
            codecs = {place: codec}
        key = cell.key(codec)
        if key not in table:
            table[key] = measure(cell, codec, central(pscx.read_image(cell.file), cell.crop))
            write_whole(path, as_csv(list(table.values())), force=True)
            print(f"{number} of {len(cells)}: {' '.join(table[key].values())}", flush=True)
        found.append(table[key])
    return found


def summary(records: Sequence[Record]) -> str:
    """The table: BD-rates of each image, then the mean; costs, means over images and settings, then with a search."""
    lines = []
    for name in dict.fromkeys(record["row"] for record in records):
        differences = [_difference(records, name, column) for column in ("payload", "bytes")]
        costs = [_cost(records, name, column) for column in ("evaluations", "encoding", "decoding")]
        searched = [_cost(records, name, column, searched=True) for column in ("evaluations", "encodings")]
        lines.append([name, *differences, *costs, *searched])
    head = ["row", "BD-rate of payloads, %", "of files, %", "NFE to encode", "s to encode", "s to decode"]
    head += ["NFE with search", "encodings"]
    return markdown(head, lines)


def _difference(records: Sequence[Record], name: str, column: str) -> str:
    if name == IDEAL and column == "bytes":
        return "no file"
    images = list(dict.fromkeys(record["image"] for record in records))
    values = []
    for image in images:
        anchor, test = (
            front([(float(r[column]), float(r["psnr"])) for r in records if _of(r, image, row)])
            for row in (ANCHOR, name)
        )
        try:
            values.append(bd_rate(anchor, test))
        except ValueError:  # no quality in common
            continue
    some = f" ({len(values)} of {len(images)})" if len(values) < len(images) else ""
    return f"{fmean(values):+.1f}{some}" if values else "-"


def _of(record: Record, image: str, row: str) -> bool:
    return record["image"] == image and record["row"] == row and not record["setting"].startswith(TARGET)


def _cost(records: Sequence[Record], name: str, column: str, searched: bool = False) -> str:
    of_row = [one for one in records if one["row"] == name and one["setting"].startswith(TARGET) == searched]
    found = [float(one[column]) for one in of_row if one[column]]
    return f"{fmean(found):.1f}" if found else "-"


def averages(records: Sequence[Record]) -> tuple[list[str], dict[str, list[tuple[float, float]]]]:
    """Images, and payload bits per pixel and PSNR of each row by setting, means over those images.

    The images are those that every row has at all its settings; targets are left out.
    """
    points = [record for record in records if not record["setting"].startswith(TARGET)]
    rows = {name: [record for record in points if record["row"] == name] for name in _unique(points, "row")}
    settings = {name: _unique(found, "setting") for name, found in rows.items()}
    have = {(record["row"], record["image"], record["setting"]): record for record in points}
    images = [
        image
        for image in _unique(points, "image")
        if all((name, image, setting) in have for name in rows for setting in settings[name])
    ]
    if not images:
        raise SystemExit("no image has all settings of all rows")
    found = {}
    for name in rows:
        parts = [[have[name, image, setting] for image in images] for setting in settings[name]]
        found[name] = sorted((fmean(map(_bpp, part)), fmean(float(one["psnr"]) for one in part)) for part in parts)
    return images, found


def _unique(records: Sequence[Record], column: str) -> list[str]:
    return list(dict.fromkeys(record[column] for record in records))


def _bpp(record: Record) -> float:
    return 8 * float(record["payload"]) / int(record["crop"]) ** 2


def picture(records: Sequence[Record]) -> bytes:
    """Two plots as SVG: PSNR over payload bits per pixel, and those bits over ``fast``'s at equal PSNR.

    A line for each row, means over images; the same points give the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    images, found = averages(records)
    with matplotlib.rc_context({"svg.hashsalt": "pscx", "font.size": 10}):
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        curves, ratios = figure.subplots(1, 2)
        for number, (name, line) in enumerate(found.items()):
            style = "--" if "published" in name else ":" if name == IDEAL else "-"
            look: dict[str, Any] = {"color": f"C{number % 10}" if number < 10 else "0.2", "linestyle": style}
            curves.plot(*zip(*line, strict=True), marker="o", markersize=4, label=name, **look)
            if ANCHOR in found:
                ratios.plot(*over(found[ANCHOR], line), marker="o", markersize=4, **look)
        of = f"image {images[0]}" if len(images) == 1 else f"mean of {len(images)} images"
        curves.set(xlabel="bits per pixel of the payload", ylabel="PSNR, dB", title=of, xscale="log")
        ratios.set(
            xlabel="PSNR, dB", ylabel=f"times the bits of {ANCHOR}", yscale="log", title="at equal PSNR, logarithmic"
        )
        for axis, ticks in ((curves.xaxis, BITS), (ratios.yaxis, TIMES)):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter("{x:g}")
        curves.grid(alpha=0.3)
        ratios.grid(alpha=0.3)
        figure.legend(loc="outside right center")
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def over(anchor: Sequence[tuple[float, float]], line: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """PSNR of the points of a line, ``(rate, PSNR)``, that the anchor's line covers, and their rates over the anchor's.

    The logarithm of the anchor's rate is interpolated linearly in PSNR. Both lines ascend.
    """
    rates, qualities = np.array(anchor).T
    inside = [(rate, quality) for rate, quality in line if qualities[0] <= quality <= qualities[-1]]
    reference = [float(np.exp(np.interp(quality, qualities, np.log(rates)))) for _, quality in inside]
    ratios = [rate / of_anchor for (rate, _), of_anchor in zip(inside, reference, strict=True)]
    return [quality for _, quality in inside], ratios


def main(args: Sequence[str] | None = None) -> None:
    """Measure what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of images")
    parser.add_argument("--points", type=Path, help="a table to draw, instead of a folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/families"))
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=list(rows()), default=list(rows())[:-1])
    parser.add_argument("--crop", type=int, default=128, help="side of the central square, in pixels")
    parser.add_argument("--limit", type=int, default=6, help="the first N images alone")
    parser.add_argument("--settings", type=int, default=None, metavar="N", help="the coarsest N of each row alone")
    parser.add_argument("--target", type=float, default=None, help="bits per pixel of streams whose cost is shown")
    options = parser.parse_args(args)
    if (options.folder is None) == (options.points is None):
        parser.error("give a folder of images or --points, and not both")
    if options.points is not None:
        write_whole(options.output / "psnr.svg", picture(list(read(options.points, KEY).values())), force=True)
        return
    files = images(options.folder, options.limit)
    cells = list(plan(files, options.rows, options.crop, options.target, options.settings))
    records = fill(cells, options.output / "points.csv")
    text = summary(records)
    write_whole(options.output / "summary.md", f"{text}\n".encode(), force=True)
    write_whole(options.output / "psnr.svg", picture(records), force=True)
    print(text)


if __name__ == "__main__":
    main()
