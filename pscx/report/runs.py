"""What ``pscx test`` and ``pscx ablate`` left in their folders, read back for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from pscx.ablation import Plan, Results, load_plan, read_results
from pscx.ablation.plan import in_words
from pscx.ablation.saved import NAME as GRID
from pscx.errors import PscxError

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Run:
    """One evaluation: its folder, what it is called, its tables and its resolved configuration, also as text.

    ``labels`` are those of a cell of an ablation, by axis; none for a run of ``pscx test``.
    """

    folder: Path
    name: str
    results: Results
    config: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """Names of its images, in order."""
        return [row["name"] for row in self.results.images]

    def row(self, image: str) -> Mapping[str, str]:
        """What the table says of an image."""
        return next(row for row in self.results.images if row["name"] == image)

    def stream(self, image: str) -> Path:
        """The file that an image was compressed to."""
        return self.folder / "streams" / f"{image}.pscx"

    def reconstruction(self, image: str) -> Path:
        """The first restoration of an image."""
        return self.folder / "reconstructions" / f"{image}.png"

    def mean(self, measure: str) -> float | None:
        """Mean of a measure over the images; none where it has no value, or none that is finite."""
        value = self.results.mean(measure)
        return value if value is not None and isfinite(value) else None


@dataclass(frozen=True)
class Source:
    """What one argument of ``pscx report`` stands for: an evaluation, or an ablation's ``plan`` and finished cells."""

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
    if not folder.is_dir():
        raise PscxError(f"no such folder: '{folder}'")
    if (folder / GRID).exists() or (folder / "cells").is_dir():
        return _ablation(folder)
    return Source([_run(folder, folder.resolve().name)])


def _ablation(folder: Path) -> Source:
    plan = load_plan(folder)
    done = [cell for cell in plan.cells if read_results(cell.folder, left_out=True) is not None]
    if not done:
        raise PscxError(f"'{folder}' has no finished cell: run pscx ablate again")
    return Source([_run(cell.folder, in_words(cell.labels), cell.labels) for cell in done], plan)


def _run(folder: Path, name: str, labels: Mapping[str, str] | None = None) -> Run:
    results = read_results(folder, left_out=True)
    if results is None:
        raise PscxError(_why_not(folder))
    text, config = _config(folder / CONFIG)
    return Run(folder, name, results, config, text, labels or {})


def _why_not(folder: Path) -> str:
    """What is wrong with a folder without whole results, in a sentence."""
    done = len(list((folder / "rows").glob("*.json")))
    if (folder / "images.csv").exists():
        return f"'{folder}' is not whole: its tables or streams were damaged; run pscx test again"
    if done:
        return f"'{folder}' is not finished, {done} of its images are done: run pscx test again, which goes on there"
    return f"'{folder}' is no run of pscx test or pscx ablate: it holds no results"


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        if not isinstance(tree["model"]["init_args"], dict) or not isinstance(tree["data"], dict):
            raise TypeError
    except OSError as error:
        raise PscxError(f"cannot read '{path}': {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise PscxError(f"'{path}' is not the configuration that pscx test writes") from error
    return text, tree
