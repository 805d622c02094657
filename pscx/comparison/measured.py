"""Curves that were measured here: runs of ``pscx test`` and ``pscx ablate``, and of ``rate_distortion.py``."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pscx.ablation.results import TABLE_BYTES, Record, Results, alike, over
from pscx.ablation.results import Curve as Points
from pscx.comparison.curve import Compared
from pscx.comparison.published_sets import ImageSet
from pscx.errors import PscxError
from pscx.evaluation.measures import Measure, measures_of
from pscx.report.curves import curves_of, numbered
from pscx.report.runs import Run, Source, read_sources
from pscx.runtime.safe_yaml import read_bounded, read_json

POINTS, ABOUT = "points.csv", "about.json"
"""What ``benchmarks/rate_distortion.py`` writes."""


@dataclass(frozen=True)
class Measured:
    """A curve with the results of its points, before its means are taken.

    ``own`` says that the codec is one of pscx; ``runs`` are those of ``pscx test``.
    """

    name: str
    about: str
    results: Sequence[Results]
    own: bool
    runs: Sequence[Run] = ()


def read_measured(folders: Sequence[Path]) -> list[Measured]:
    """The curves of all folders, those of runs first; a name that several have is numbered.

    Raises :class:`PscxError` where a folder holds no finished results.
    """
    tables = [folder for folder in folders if (folder / POINTS).is_file()]
    sources = read_sources([folder for folder in folders if folder not in tables])
    found = [*_of_runs(sources), *(curve for folder in tables for curve in _of_table(folder))]
    names = numbered([curve.name for curve in found])
    return [replace(curve, name=name) for name, curve in zip(names, found, strict=True)]


def compared(found: Sequence[Measured], of: ImageSet | None) -> list[Compared]:
    """The means of the curves over the images that all of them have, of one size where the set has one.

    Curves of a table over another part of the images, such as a crop, are left out. Raises :class:`PscxError` where a
    run has no image of that size, or the curves have no image in common.
    """
    fitting = [replace(curve, results=[_fitting(results, of) for results in curve.results]) for curve in found]
    whole = [curve for curve in fitting if all(results.images for results in curve.results)]
    if not whole or any(curve.runs for curve in fitting if curve not in whole):
        title, size = (of.title, of.pixels) if of else ("", 0)
        raise PscxError(f"the published images of {title} have {size} pixels, and no image of a run has as many")
    keys = {f"{i} {j}": results for i, curve in enumerate(whole) for j, results in enumerate(curve.results)}
    shared = alike(keys)
    names = {frozenset(record["name"] for record in results.images) for results in shared.values()}
    if len(names) > 1:
        raise PscxError("the runs have no image in common, so their means cannot be compared")
    points = [[shared[f"{i} {j}"] for j in range(len(curve.results))] for i, curve in enumerate(whole)]
    return [_compared(curve, results) for curve, results in zip(whole, points, strict=True)]


def measures_in(found: Sequence[Measured]) -> dict[str, Measure]:
    """The metrics of all curves, by column."""
    return {key: measure for curve in found for results in curve.results for key, measure in results.measures.items()}


def _compared(curve: Measured, results: Sequence[Results]) -> Compared:
    points = Points({}, results)
    columns = dict.fromkeys(column for one in results for column in one.measures)
    by_column = {column: pairs for column in columns if (pairs := points.of(column))}
    return Compared(curve.name, curve.name, curve.about, len(results[0].images), by_column, True, curve.own)


def _fitting(results: Results, of: ImageSet | None) -> Results:
    """Results without the images that are no whole ones of the set; where all fit, or sizes are not told, as they are.

    A run whose images are the set's keeps the values of its metrics over the set.
    """
    if of is None or of.pixels is None:
        return results
    whole = {record["name"] for record in results.images if _pixels(record) == of.pixels}
    if len(whole) == len(results.images):
        return results
    return over(results, whole) if whole else Results([], {}, results.measures)


def _pixels(record: Record) -> int:
    return round(8 * int(record["bytes"]) / float(record["bpp"]))


def _of_runs(sources: Sequence[Source]) -> Iterator[Measured]:
    for curve in curves_of(sources) if sources else ():
        folders = ", ".join(str(run.folder) for run in curve.runs[:2])
        more = f" and {len(curve.runs) - 2} more" if len(curve.runs) > 2 else ""
        yield Measured(curve.name, f"pscx test: {folders}{more}", [run.results for run in curve.runs], True, curve.runs)


def _of_table(folder: Path) -> Iterator[Measured]:
    """The curves of ``points.csv``: one for each codec, version, region and variant, such as a subsampling."""
    records, measures = _read_table(folder)
    groups: dict[tuple[str, str, str, str], dict[str, list[Record]]] = {}
    for record in records:
        setting = record["setting"]
        key = (record["codec"], record["version"], record["crop"], variant(setting))
        groups.setdefault(key, {}).setdefault(setting, []).append(record)
    for (codec, version, crop, how), settings in groups.items():
        alike = [key for key in groups if key[0] == codec]
        apart = [part for place, part in ((1, version), (2, crop)) if len({key[place] for key in alike}) > 1]
        name = " ".join([codec, *filter(None, [how]), *apart])
        own = any(record.get("evaluations") for group in settings.values() for record in group)
        results = [_results(group, measures) for group in settings.values()]
        yield Measured(name, f"{version}, in {folder / POINTS}", results, own)


def variant(setting: str) -> str:
    """A setting without the number that stands for the rate, its first, and that number's name.

    >>> variant("quality 30 4:2:0 speed 4"), variant("step 0.5")
    ('4:2:0 speed 4', '')
    """
    return re.sub(r"^[a-z]* ?[\d.]+ ?(bpp)?", "", setting).strip()


def _results(records: Sequence[Record], measures: Mapping[str, Measure]) -> Results:
    """The images of one setting, and their means; a column that one of them lacks has none."""
    means = {}
    for column in ("bytes", "bpp", *measures):
        values = [float(record[column]) for record in records if record.get(column)]
        means[column] = str(sum(values) / len(values)) if len(values) == len(records) else ""
    images = [{"name": record["image"], **{key: record.get(key, "") for key in means}} for record in records]
    return Results(images, means, measures)


def _read_table(folder: Path) -> tuple[list[Record], dict[str, Measure]]:
    try:
        facts: Any = read_json(folder / ABOUT)["metrics"]
        text = read_bounded(folder / POINTS, TABLE_BYTES).decode()
        records = list(csv.DictReader(io.StringIO(text, newline="")))
        for record in records:
            if None in record.values() or not float(record["bpp"]) > 0 or int(record["bytes"]) < 1:
                raise ValueError
            for key in ("image", "codec", "version", "crop", "setting"):
                record[key] = str(record[key])
        if not records:
            raise ValueError
        return records, measures_of(facts)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise PscxError(f"'{folder}' does not hold {POINTS} and {ABOUT} as rate_distortion.py writes them") from error
