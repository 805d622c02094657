"""Reads the results of cells, and forms curves of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from pscx.ablation.plan import Cell, Plan
from pscx.errors import PscxError
from pscx.evaluation.bd import bd_rate, front, overlap
from pscx.evaluation.measures import Measure, read_measures
from pscx.evaluation.tables import COUNTS, PLACE, summary
from pscx.runtime.safe_yaml import read_bounded

TABLE_BYTES = 1 << 26

Record = dict[str, str]


@dataclass(frozen=True)
class Results:
    """The tables of a cell: a record an image, and the means; a value that does not exist is an empty field.

    ``measures`` are its metrics by column.
    """

    images: Sequence[Record]
    means: Record
    measures: Mapping[str, Measure]

    @property
    def left_out(self) -> int:
        """Images that could not be coded."""
        return int(self.means.get("left_out") or 0)

    def mean(self, column: str) -> float | None:
        """The mean of a column over those images that have it, or the value of a metric of the set."""
        value = self.means.get(column)  # a cell that is older than a metric lacks it
        return float(value) if value else None


@dataclass(frozen=True)
class Curve:
    """Cells that differ only in the rate axis; ``points`` are those with results, by rising rate."""

    labels: Mapping[str, str]
    points: Sequence[Results]

    def of(self, measure: str) -> list[tuple[float, float]]:
        """Points ``(bpp, quality)`` of the means over images, as far as they are finite."""
        pairs = [(point.mean("bpp"), point.mean(measure)) for point in self.points]
        return [(rate, value) for rate, value in pairs if rate is not None and value is not None and isfinite(value)]


def read_results(folder: Path, left_out: bool = False) -> Results | None:
    """The results of a cell, or none where they are not whole: all tables and the stream of every image.

    Results with left-out images count as incomplete unless ``left_out`` is true.
    """
    try:
        images = _records(folder / "images.csv")
        means = _records(folder / "summary.csv")[0]
        measures = read_measures(folder)
        whole = len(images) == int(means["images"]) and all(_is_whole(record, folder) for record in images)
        whole = whole and float(means["bpp"]) > 0 and (left_out or means.get("left_out", "0") == "0")
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error, PscxError):
        return None
    return Results(images, means, measures) if whole else None


def alike(results: Mapping[str, Results]) -> dict[str, Results]:
    """The results of cells over the images that all of them have, so that their means compare.

    They stay as they are where all cells have the same images, and where there is no image that all have.
    """
    names = [{record["name"] for record in result.images} for result in results.values()]
    common = set.intersection(*names) if names else set()
    if not common or all(own == common for own in names):
        return dict(results)
    return {key: over(result, common) for key, result in results.items()}


def over(result: Results, names: set[str]) -> Results:
    """Means over some of the images; metrics of the set are of others, and have no value."""
    images = [record for record in result.images if record["name"] in names]
    columns = [key for key in images[0] if key not in PLACE]
    numbers = [{key: float(record[key]) if record.get(key) else None for key in columns} for record in images]
    means = {key: "" if value is None else str(value) for key, value in summary(numbers).items()}
    of_set = {key: "" for key, measure in result.measures.items() if measure.of_set}
    return replace(result, images=images, means={**result.means, **means, **of_set})


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


def compared(baseline: Curve, curve: Curve, column: str) -> tuple[float | None, str]:
    """BD-rate of a curve against the baseline in percent, and over which qualities; or none, and why.

    A point that is no better than one of a lower rate is left out, with a note.
    """
    measure = measures([baseline, curve]).get(column, Measure(column))
    points = [one.of(column) for one in (baseline, curve)]
    fronts = [front(one, measure.higher_is_better) for one in points]
    less = sum(map(len, points)) - sum(map(len, fronts))
    without = f", without {less} {'point' if less == 1 else 'points'} no better than one of fewer bits" if less else ""
    try:
        low, high = overlap(fronts[0], fronts[1], measure.higher_is_better)
        value = bd_rate(fronts[0], fronts[1], measure.higher_is_better)
    except ValueError as error:
        return None, f"{error}{without}"
    return value, f"{measure.label} {low:.4g} to {high:.4g}{without}"


def measures(found: Sequence[Curve]) -> dict[str, Measure]:
    """The metrics that at least one point has a value of, by column."""
    known = {key: measure for curve in found for point in curve.points for key, measure in point.measures.items()}
    return {key: measure for key, measure in known.items() if any(curve.of(key) for curve in found)}


def columns(results: Iterable[Results]) -> list[str]:
    """All columns of the means that have a value somewhere."""
    found = list(results)
    known = dict.fromkeys(key for result in found for key in result.means if key not in COUNTS)
    return [key for key in known if any(result.means.get(key) for result in found)]


def in_short(results: Results) -> str:
    """Rate and the first metric that has a value, in a few words."""
    found = [f"{results.mean('bpp'):.4g} bpp"]
    values = ((measure, results.mean(column)) for column, measure in results.measures.items())
    found += [f"{measure.title} {measure.shown(value)}" for measure, value in values if value is not None][:1]
    return ", ".join(found)


def _records(path: Path) -> list[Record]:
    text = read_bounded(path, TABLE_BYTES).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _is_whole(record: Record, folder: Path) -> bool:
    stream = folder / "streams" / f"{record['name']}.pscx"
    return stream.stat().st_size == int(record["bytes"]) and None not in record.values()
