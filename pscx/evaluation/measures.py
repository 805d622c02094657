"""``metrics.json``: the metrics of a run's tables, for reports and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pscx.runtime.safe_yaml import read_json

FILE = "metrics.json"
LONGEST = 80  # letters of a title or a unit


@dataclass(frozen=True)
class Measure:
    """Title and unit of a metric for figures, and whether higher is better."""

    title: str
    unit: str = ""
    higher_is_better: bool = True
    of_set: bool = False

    @property
    def label(self) -> str:
        """Title and unit, as axes of plots show them."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def shown(self, value: float) -> str:
        """A value and its unit: ``31.00 dB``, ``0.9134``."""
        return f"{value:.{2 if self.unit or abs(value) >= 10 else 4}f} {self.unit}".rstrip()


def read_measures(folder: Path) -> dict[str, Measure]:
    """The metrics of a run by their columns.

    Raises ``OSError`` where the file is missing, ``ValueError``, ``KeyError`` or ``TypeError`` where it is damaged.
    """
    return measures_of(read_json(folder / FILE))


def measures_of(facts: Any) -> dict[str, Measure]:
    """The metrics of what ``metrics.json`` holds; raises as :func:`read_measures` where it is damaged."""
    return {column: _measure(column, own) for column, own in dict(facts).items()}


def read_versions(folder: Path) -> dict[str, str]:
    """The version of each metric of a run by its column; raises as :func:`read_measures`."""
    return {column: str(facts.get("version")) for column, facts in dict(read_json(folder / FILE)).items()}


def as_json(facts: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The content of ``metrics.json``."""
    return f"{json.dumps(facts, indent=1)}\n".encode()


def _measure(column: str, facts: Mapping[str, Any]) -> Measure:
    title, unit = facts["title"], facts["unit"]
    higher, of = facts["higher_is_better"], facts["of"]
    if not column.isidentifier() or not all(_is_text(text) for text in (title, unit)) or not title:
        raise ValueError(f"{column!r} is not a metric")
    if not isinstance(higher, bool) or of not in ("image", "set"):
        raise ValueError(f"{column!r}: higher_is_better must be true or false, and of must be image or set")
    return Measure(title, unit, higher, of == "set")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST and value.isprintable()
