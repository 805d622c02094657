"""Reads the folders of ``pscx test`` and ``pscx ablate`` for a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from pscx.ablation import Plan, Results, load_plan, read_results
from pscx.ablation.plan import in_words
from pscx.ablation.saved import NAME as GRID
from pscx.errors import PscxError
from pscx.evaluation import measures
from pscx.evaluation.kept import FOLDER as RECORDS
from pscx.report.inside import file_inside, is_plain
from pscx.runtime.safe_yaml import UnreadableError, parse_yaml, read_bounded, read_json

CONFIG = "config.yaml"
TABLES = ("images.csv", "summary.csv")
METRICS = measures.FILE
COLUMNS = {"name", "bytes", "bpp"}
"""What the table of images has at least."""


@dataclass(frozen=True)
class Run:
    """One evaluation: its folder, name, tables and resolved configuration, also as text.

    ``labels`` are those of a cell of an ablation, by axis; none for a run of ``pscx test``.
    """

    folder: Path
    name: str
    results: Results
    config: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The name with the label on every axis."""
        return in_words(self.labels) or self.name

    @property
    def images(self) -> list[str]:
        """Names of its images, in order."""
        return [record["name"] for record in self.results.images]

    def record(self, image: str) -> Mapping[str, str]:
        """The record of an image in the table."""
        return next(record for record in self.results.images if record["name"] == image)

    def digest(self, image: str) -> str | None:
        """That of the original's pixels (:func:`pscx.evaluation.kept.pixels_digest`); none where it was not kept.

        Raises :class:`PscxError` as :meth:`stream` does.
        """
        if not (self.folder / RECORDS / f"{image}.json").exists():
            return None
        try:
            return str(read_json(file_inside(self.folder, RECORDS, f"{image}.json"))["original"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def stream(self, image: str) -> Path:
        """The file that an image was compressed to. Raises :class:`PscxError` where it lies outside the folder."""
        return file_inside(self.folder, "streams", f"{image}.pscx")

    def reconstruction(self, image: str) -> Path:
        """The first restoration of an image. Raises :class:`PscxError` as :meth:`stream` does."""
        return file_inside(self.folder, "reconstructions", f"{image}.png")

    def mean(self, measure: str) -> float | None:
        """Mean of a measure over the images; none if it has no finite value."""
        value = self.results.mean(measure)
        return value if value is not None and isfinite(value) else None


@dataclass(frozen=True)
class Source:
    """One argument of ``pscx report``: an evaluation, or an ablation's ``plan`` and finished cells."""

    runs: Sequence[Run]
    plan: Plan | None = None


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """One source a folder. Raises :class:`PscxError` where one holds no results, or unfinished ones, or comes twice."""
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise PscxError(f"'{folder}' is named more than once")
    return [read_source(folder) for folder in folders]


def read_source(folder: Path) -> Source:
    """An evaluation or an ablation. Raises :class:`PscxError` as :func:`read_sources` does."""
    if not folder.exists():
        raise PscxError(f"no such folder: '{folder}'")
    if not folder.is_dir():
        raise PscxError(f"'{folder}' is a file: name the folder of a run")
    if (folder / GRID).exists() or (folder / "cells").is_dir():
        return _ablation(folder)
    _check_tables(folder)
    return Source([_run(folder, folder.resolve().name)])


def _check_tables(folder: Path, *cell: str) -> None:
    """Raise :class:`PscxError` where the tables or the configuration of a run are links that lead out of ``folder``."""
    for name in (*TABLES, METRICS, CONFIG):
        if folder.joinpath(*cell, name).exists():
            file_inside(folder, *cell, name)


def _ablation(folder: Path) -> Source:
    if (folder / GRID).exists():
        file_inside(folder, GRID)
    plan = load_plan(folder)
    for cell in plan.cells:
        _check_tables(folder, "cells", cell.folder.name)
    done = [cell for cell in plan.cells if read_results(cell.folder, left_out=True) is not None]
    if not done:
        raise PscxError(f"'{folder}' has no finished cell: run pscx ablate again")
    return Source([_run(cell.folder, in_words(cell.labels), cell.labels) for cell in done], plan)


def _run(folder: Path, name: str, labels: Mapping[str, str] | None = None) -> Run:
    results = read_results(folder, left_out=True)
    if results is None:
        raise PscxError(_why_not(folder))
    _check_results(results, folder)
    text, config = _config(folder / CONFIG)
    return Run(folder, name, results, config, text, labels or {})


def _check_results(results: Results, folder: Path) -> None:
    """Raise :class:`PscxError` unless names are plain, each there once, and everything else is a number or empty."""
    for name, count in Counter(record["name"] for record in results.images).items():
        if not is_plain(name):
            raise PscxError(f"'{folder / TABLES[0]}' lists an image {name[:64]!r}, which is not a file name")
        if count > 1:
            raise PscxError(f"'{folder / TABLES[0]}' lists the image {name!r} {count} times")
    columns = {key for key, measure in results.measures.items() if not measure.of_set}
    for file, records in zip(TABLES, (results.images, [results.means]), strict=True):
        for record in records:
            missing = (COLUMNS | columns if file == TABLES[0] else results.measures.keys()) - record.keys()
            if missing:
                raise PscxError(f"'{folder / file}' has no column '{min(missing)}': run pscx test again")
            for key, value in record.items():
                if not isinstance(key, str) or not (key == "name" or _is_number(value)):
                    raise PscxError(f"'{folder / file}' is damaged: {str(key)[:64]!r} must hold numbers")


def _is_number(value: str | None) -> bool:
    try:
        float(value or 0)  # an empty field is a measure without a value
    except (ValueError, TypeError):
        return False
    return value is not None


def _why_not(folder: Path) -> str:
    """What is wrong with a folder without whole results, in a sentence."""
    done = len(list((folder / RECORDS).glob("*.json")))
    if (folder / "images.csv").exists():
        return f"'{folder}' is not whole: its tables or streams were damaged; run pscx test again"
    if done:
        return f"'{folder}' is not finished, {done} of its images are done: run pscx test again, which goes on there"
    return f"'{folder}' is no run of pscx test or pscx ablate: it holds no results"


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        text = read_bounded(path).decode()
        tree = parse_yaml(text, f"'{path}'")
        if not isinstance(tree["model"]["init_args"], dict) or not isinstance(tree["data"], dict):
            raise TypeError
        _check_components(tree)
    except OSError as error:
        raise PscxError(f"cannot read '{path}': {error.strerror or error}") from error
    except UnreadableError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise PscxError(f"'{path}' is not the configuration that pscx test writes") from error
    return text, tree


def _check_components(value: Any) -> None:
    """Raise ``TypeError`` where a key is not text, or a component not written as ``class_path`` and ``init_args``."""
    if isinstance(value, list):
        for item in value:
            _check_components(item)
    if not isinstance(value, dict):
        return
    is_component = isinstance(value.get("class_path", ""), str) and isinstance(value.get("init_args") or {}, dict)
    if not is_component or not all(isinstance(key, str) for key in value):
        raise TypeError
    for item in value.values():
        _check_components(item)
