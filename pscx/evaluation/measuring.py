"""The metrics of an evaluation: values of each image, and values of the set at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from torch import Tensor

from pscx.api import Pixels
from pscx.errors import PscxError
from pscx.evaluation.measures import Measure
from pscx.evaluation.tables import COSTS, PLACE, RATES
from pscx.metrics import METRICS, ImageMetric, Metric, SetMetric, SetState
from pscx.metrics.pixels import arrays
from pscx.registry import class_path
from pscx.runtime.returned import number

DEFAULT_METRICS = ("psnr", "ssim", "ms_ssim")
RESERVED = (*PLACE, *RATES, *COSTS, "images", "left_out", "cell", "image")
"""Columns of tables that no metric may have."""

Measured = dict[str, dict[str, Any]]
"""By a metric's column its ``value``, none where the image is too small, and the ``version`` it was measured with."""


class Measuring:
    """Measures images with the metrics of an evaluation, in one process.

    Args:
        metrics: per-image metrics and metrics over the set, each with its own column.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = {_column(metric): metric for metric in metrics}
        if len(self.metrics) < len(metrics):
            columns = [metric.column for metric in metrics]
            double = next(column for column in columns if columns.count(column) > 1)
            raise ValueError(f"metrics must have different columns in tables, but two are called '{double}'")
        self.of_image = {key: metric for key, metric in self.metrics.items() if isinstance(metric, ImageMetric)}
        self.facts: dict[str, dict[str, Any]] = {}
        self.state = SetState([])

    @property
    def measures(self) -> dict[str, Measure]:
        """Title, unit and direction of each metric, by its column."""
        return {
            column: Measure(metric.title, metric.unit, metric.higher_is_better, isinstance(metric, SetMetric))
            for column, metric in self.metrics.items()
        }

    def start(self) -> None:
        """Clear the set, and load what the metrics need. Raises :class:`PscxError` if something is missing."""
        self.state = SetState([metric for metric in self.metrics.values() if isinstance(metric, SetMetric)])
        for metric in self.metrics.values():
            metric.prepare()
        self.facts = {column: facts_of(metric) for column, metric in self.metrics.items()}

    def image(self, original: Pixels, picture: Pixels, known: Measured) -> Measured:
        """The values of one image; those that are ``known`` by the same metrics are not measured again."""
        found: Measured = {}
        for column, metric in self.of_image.items():
            version = self.facts[column]["version"]
            if column in known and known[column].get("version") == version:
                found[column] = known[column]
            else:
                found[column] = {"value": value_of(metric, original, picture), "version": version}
        return found

    def keep(self, name: str, original: Pixels, picture: Pixels) -> None:
        """Update the metrics of the set with one image."""
        self.state.update(name, original, picture)

    def of_set(self, states: Sequence[Sequence[Mapping[str, Tensor]]]) -> dict[str, float | None]:
        """The metrics of the set by column, ``states`` being those of all processes.

        A metric that has seen too few images has no value; stderr says why.
        """
        for state in states:
            self.state.merge(state)
        values: dict[str, float | None] = {}
        for metric in self.state.metrics:
            try:
                values[metric.column] = self.state.value(metric)
            except PscxError as error:
                values[metric.column] = None
                print(f"pscx: warning: no value of {metric.column}: {error}", file=sys.stderr)
        return values


def value_of(metric: ImageMetric, original: Pixels, picture: Pixels) -> float | None:
    """:meth:`pscx.metrics.ImageMetric.value`, but raises :class:`PscxError` if the metric returns no number."""
    first, second = arrays(original, picture)
    if not metric.fits(*first.shape[:2]):
        return None
    return number(metric, "measure", metric.measure(first, second))


def default_metrics() -> list[Metric]:
    """PSNR, SSIM and MS-SSIM."""
    return [METRICS.get(name)() for name in DEFAULT_METRICS]


def facts_of(metric: Metric) -> dict[str, Any]:
    """What ``metrics.json`` says of a metric: its name in figures, its options, and SHA-256 of its weights.

    ``version`` changes with the options and the weights.
    """
    options = METRICS.spec(metric)
    told = {"options": options, "weights": metric.digests()}
    plain = json.loads(json.dumps(told, default=lambda value: class_path(type(value))))
    version = sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    of = "set" if isinstance(metric, SetMetric) else "image"
    named = {"title": metric.title, "unit": metric.unit, "higher_is_better": metric.higher_is_better, "of": of}
    return {**named, **plain, "version": version}


def _column(metric: Metric) -> str:
    """The column of a metric. Raises ``ValueError`` where tables cannot have it."""
    cls = type(metric)
    if cls not in METRICS.classes.values():
        raise ValueError(f"metrics must be registered, but {class_path(cls)} is not: decorate it with METRICS.register")
    column = metric.column
    if column in RESERVED or not column.isidentifier():
        raise ValueError(f"the column of a metric must be an identifier and not in use, got '{column}'")
    return column
