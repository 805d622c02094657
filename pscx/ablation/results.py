"""What a cell wrote, read back; and curves of several."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pscx.ablation.plan import Cell, Plan
from pscx.evaluation.bd import bd_rate, overlap
from pscx.evaluation.evaluate import MEANS, summary
from pscx.runtime.safe_yaml import read_bounded

MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
"""Measures of quality that have a curve, and how axes of plots call them."""

TABLE_BYTES = 1 << 26

Row = dict[str, str]


@dataclass(frozen=True)
class Results:
    """The tables of a cell: a row an image, and the means; a measure that does not exist is an empty field."""

    images: Sequence[Row]
    means: Row

    @property
    def left_out(self) -> int:
        """Images that could not be coded."""
        return int(self.means.get("left_out") or 0)

    def mean(self, measure: str) -> float | None:
        """The mean of a measure over those images that have it."""
        value = self.means.get(measure)  # a cell that is older than a measure lacks it
        return float(value) if value else None


@dataclass(frozen=True)
class Curve:
    """Cells that differ in the rate axis alone; ``points`` are those with results, by rising rate."""

    labels: Mapping[str, str]
    points: Sequence[Results]

    def of(self, measure: str) -> list[tuple[float, float]]:
        """Points ``(bpp, quality)`` of the means over images."""
        pairs = [(point.mean("bpp"), point.mean(measure)) for point in self.points]
        return [(rate, quality) for rate, quality in pairs if rate is not None and quality is not None]


def read_results(folder: Path, left_out: bool = False) -> Results | None:
    """The results of a cell, or none where they are not whole: both tables and the stream of every image.

    Nor are they where images were left out, unless ``left_out`` allows for that.
    """
    try:
        images = _rows(folder / "images.csv")
        means = _rows(folder / "summary.csv")[0]
        whole = len(images) == int(means["images"]) and all(_is_whole(row, folder) for row in images)
        whole = whole and float(means["bpp"]) > 0 and (left_out or means.get("left_out", "0") == "0")
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error):
        return None
    return Results(images, means) if whole else None


def alike(results: Mapping[str, Results]) -> dict[str, Results]:
    """The results of cells over those images that all of them have: a mean over others says nothing of a codec.

    They stay as they are where all cells have the same images, and where there is no image that all have.
    """
    names = [{row["name"] for row in result.images} for result in results.values()]
    common = set.intersection(*names) if names else set()
    if not common or all(own == common for own in names):
        return dict(results)
    return {key: _over(result, common) for key, result in results.items()}


def _over(result: Results, names: set[str]) -> Results:
    images = [row for row in result.images if row["name"] in names]
    numbers = [{key: float(row[key]) if row.get(key) else None for key in MEANS} for row in images]
    means = {key: "" if value is None else str(value) for key, value in summary(numbers).items()}
    return Results(images, {**result.means, **means})


def curves(plan: Plan, results: Mapping[str, Results]) -> list[Curve]:
    """A curve for every combination of the other axes, the baseline first; ``results`` go by the ids of cells."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in plan.cells:
        key = tuple(cell.labels[axis.key] for axis in plan.curve_axes)
        groups.setdefault(key, []).append(cell)
    found = []
    for cells in groups.values():
        labels = {axis.key: cells[0].labels[axis.key] for axis in plan.curve_axes}
        points = [results[cell.id] for cell in cells if cell.id in results]
        found.append(Curve(labels, sorted(points, key=lambda point: float(point.means["bpp"]))))
    return sorted(found, key=lambda curve: curve.labels != plan.baseline)


def compared(baseline: Curve, curve: Curve, measure: str) -> tuple[float | None, str]:
    """BD-rate of a curve against the baseline in percent, and over which qualities; or none, and why."""
    anchor, test = baseline.of(measure), curve.of(measure)
    try:
        low, high = overlap(anchor, test)
        return bd_rate(anchor, test), f"{MEASURES[measure]} {low:.4g} to {high:.4g}"
    except ValueError as error:
        return None, str(error)


def measures(found: Sequence[Curve]) -> list[str]:
    """The measures of quality that at least one point has."""
    return [measure for measure in MEASURES if any(curve.of(measure) for curve in found)]


def _rows(path: Path) -> list[Row]:
    text = read_bounded(path, TABLE_BYTES).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _is_whole(row: Row, folder: Path) -> bool:
    stream = folder / "streams" / f"{row['name']}.pscx"
    return stream.stat().st_size == int(row["bytes"]) and float(row["psnr"]) > 0
