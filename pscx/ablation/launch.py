"""Running cells. A launcher takes cells and yields an outcome each; another one may run them elsewhere."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from pscx.ablation.plan import ACCELERATOR, Cell, Plan
from pscx.ablation.results import read_results
from pscx.config import ConfigError, built
from pscx.errors import LeftOutError, PscxError
from pscx.evaluation.measures import read_versions
from pscx.evaluation.measuring import default_metrics, facts_of
from pscx.runs.accelerators import best_accelerator, on_device
from pscx.runs.lightning import run_configuration
from pscx.runtime.termination import terminable

LOG = "log.txt"


@dataclass(frozen=True)
class Outcome:
    """A cell that was run: ``error`` is a sentence, or none where its results are whole."""

    cell: Cell
    error: str | None
    seconds: float


Launcher = Callable[[Iterable[Cell]], Iterator[Outcome]]
"""Yields outcomes as they come, in any order; a cell that fails is an outcome, not an exception."""


def is_done(cell: Cell) -> bool:
    """Whether a cell's results are whole, and measured by all metrics that it asks for, with the same weights.

    Raises :class:`PscxError` where a metric's weights are missing.
    """
    if read_results(cell.folder) is None:
        return False
    forms = cell.tree["model"]["init_args"].get("metrics")
    metrics = default_metrics() if forms is None else built(forms)
    there = read_versions(cell.folder)
    return all(there.get(metric.column) == facts_of(metric)["version"] for metric in metrics)


def placed(plan: Plan, cells: Iterable[Cell], device: Mapping[str, Any], *, here: bool) -> list[Cell]:
    """Cells on ``device``, the trainer's options for it; if it is empty, on the one that the plan names.

    Where neither names one and the cells run ``here``, it is the best one of this machine. A cell keeps its id. Raises
    :class:`ConfigError` where both name one and the plan does it by an axis.
    """
    if device and any(axis.key == ACCELERATOR for axis in plan.axes):
        raise ConfigError(f"option --device cannot be given: {ACCELERATOR} is an axis of this ablation")
    if here and not device and not plan.names_accelerator and (kind := best_accelerator()):
        device = {"accelerator": kind}
    return [replace(cell, tree=on_device(cell.tree, device)) for cell in cells]


def run_here(cells: Iterable[Cell]) -> Iterator[Outcome]:
    """The launcher that runs cells in this process, one after the other."""
    with terminable():
        yield from map(run_cell, cells)


def run_cell(cell: Cell) -> Outcome:
    """Evaluate a cell as ``pscx test`` would; what that prints, and the traceback of a failure, go to ``log.txt``."""
    started = time.perf_counter()
    cell.folder.mkdir(parents=True, exist_ok=True)
    error = None
    with (cell.folder / LOG).open("w", encoding="utf-8") as log, redirect_stdout(log):
        try:
            code = run_configuration("test", cell.tree, versions=False)
            if code or read_results(cell.folder) is None:
                error = f"its results are not whole (exit code {code})"
        except LeftOutError as failure:  # the others are in the tables
            error = None if read_results(cell.folder, left_out=True) is not None else str(failure)
        except Exception as failure:  # whatever it is, the other cells are still run
            traceback.print_exc(file=log)
            error = _sentence(failure)
    return Outcome(cell, error, time.perf_counter() - started)


def _sentence(failure: Exception) -> str:
    text = " ".join(str(failure).split())
    return text if isinstance(failure, PscxError) else f"{type(failure).__name__}: {text}".removesuffix(": ")
