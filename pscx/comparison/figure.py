"""The curves of a comparison: measured ones thick, published ones thin, over the rates that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pscx.ablation.plot import COLORS, LINES, as_files, over_rate
from pscx.comparison.curve import Compared
from pscx.comparison.tables import Comparison
from pscx.evaluation.measures import Measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 1.5  # how far beyond the measured rates published points are shown, as a factor
SIZE = (8.0, 5.2)


def figures(comparison: Comparison) -> dict[str, bytes]:
    """``COLUMN.svg`` and ``COLUMN.png`` for each metric; the same curves give the same bytes."""
    return as_files({key: partial(_figure, comparison.shown(key), key, m) for key, m in comparison.measures.items()})


def _figure(curves: Sequence[Compared], column: str, measure: Measure) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots()
    low, high = _rates([curve for curve in curves if curve.measured], column)
    for number, curve in enumerate(_inside(curves, column, low, high)):
        points = [point for point in sorted(curve.points[column]) if low <= point[0] <= high]
        axes.plot(*zip(*points, strict=True), label=curve.title.replace("$", r"\$"), **_style(curve, number))
    axes.set(ylabel=measure.label.replace("$", r"\$"))
    over_rate(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _style(curve: Compared, number: int) -> dict[str, Any]:
    color, line = COLORS[number % len(COLORS)], LINES[number // len(COLORS) % len(LINES)]
    strong = {"linewidth": 2.4, "marker": "o", "markersize": 6, "zorder": 3}
    weak = {"linewidth": 1.0, "marker": ".", "markersize": 5}
    return {"color": color, "linestyle": line, **(strong if curve.measured else weak)}


def _rates(measured: Sequence[Compared], column: str) -> tuple[float, float]:
    """The rates that are shown: those that were measured, and somewhat more on either side."""
    rates = [rate for curve in measured for rate, _ in curve.points.get(column, ())]
    return (min(rates) / MARGIN, max(rates) * MARGIN) if rates else (0.0, float("inf"))


def _inside(curves: Sequence[Compared], column: str, low: float, high: float) -> list[Compared]:
    return [curve for curve in curves if any(low <= rate <= high for rate, _ in curve.points.get(column, ()))]
