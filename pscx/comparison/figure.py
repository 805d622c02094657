"""The curves of a comparison: pscx black and red, other measured codecs coloured, published ones grey and numbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pscx.ablation.plot import LINES, MARKERS, as_files, over_rate
from pscx.comparison.curve import Compared
from pscx.comparison.numbers import spread
from pscx.comparison.tables import Comparison
from pscx.evaluation.measures import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 1.5  # how far beyond the measured rates published points are shown, as a factor
SIZE = (9.0, 5.6)
ENTRY = 0.16  # inches that an entry of the legend is high
FEW = 4  # curves of pscx that are thick
OWN = ("#000000", "#D0021B")
COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A5A2B")  # Okabe and Ito (2008), and a brown
PUBLISHED = {"color": "#b4b4b4", "linewidth": 0.9, "marker": ".", "markersize": 2.5, "zorder": 2}
NUMBER: dict[str, Any] = {
    "fontsize": 6.5,
    "color": "#444444",
    "ha": "center",
    "va": "center",
    "zorder": 6,
    "in_layout": False,
}
ROOM = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}

Style = Mapping[str, Any]
"""Properties of a line."""


def figures(comparison: Comparison) -> dict[str, bytes]:
    """``COLUMN.svg`` and ``COLUMN.png`` for each metric; the same curves give the same bytes."""
    return as_files({key: partial(_figure, comparison, key, m) for key, m in comparison.measures.items()})


def _figure(comparison: Comparison, column: str, measure: Measure) -> Figure:
    from matplotlib.figure import Figure

    shown = comparison.shown(column)
    low, high = _rates([curve for curve in shown if curve.measured], column)
    points = {
        curve.key: [point for point in sorted(curve.points[column]) if low <= point[0] <= high] for curve in shown
    }
    drawn = [curve for curve in shown if points[curve.key]]
    looks = styles([curve for curve in drawn if curve.measured])
    published = in_order(comparison, [curve for curve in drawn if not curve.measured], column)
    figure = Figure((SIZE[0], max(SIZE[1], ENTRY * (len(drawn) + 6))), layout="constrained")
    axes = figure.subplots()
    for curve in drawn:
        axes.plot(*zip(*points[curve.key], strict=True), **looks.get(curve.key, PUBLISHED))
    axes.set(ylabel=_plain(measure.label))
    over_rate(axes)
    _legend(figure, groups([curve for curve in drawn if curve.measured], looks, published))
    figure.draw_without_rendering()  # only then is it known where points are
    _number(axes, [points[curve.key] for curve in published], [points[key] for key in looks])
    return figure


def styles(measured: Sequence[Compared]) -> dict[str, Style]:
    """The lines of measured curves, by their keys.

    Codecs of pscx are thick, if they are few, the first black, the second red. Of the others each codec has a colour,
    and each of its variants a line style.
    """
    own = [curve for curve in measured if curve.own]
    colors, width = [*OWN, *COLORS], 2.2 if len(own) <= FEW else 1.5
    found = {
        curve.key: _style(colors[place % len(colors)], place, place // len(colors), width, 5.5, 5)
        for place, curve in enumerate(own)
    }
    variants: dict[str, list[Compared]] = {}
    for curve in measured:
        if not curve.own:
            variants.setdefault(curve.key.partition(" ")[0].partition("-")[0], []).append(curve)
    for place, curves in enumerate(variants.values(), max(0, len(own) - len(OWN))):
        for line, curve in enumerate(curves):
            found[curve.key] = _style(COLORS[place % len(COLORS)], place, line + place // len(COLORS), 1.5, 4, 4)
    return found


def _style(color: str, marker: int, line: int, width: float, size: float, above: int) -> Style:
    look = {"color": color, "marker": MARKERS[marker % len(MARKERS)], "linestyle": LINES[line % len(LINES)]}
    return {**look, "linewidth": width, "markersize": size, "zorder": above}


def in_order(comparison: Comparison, curves: Sequence[Compared], column: str) -> list[Compared]:
    """From the fewest bits at equal quality to the most; those that do not compare with the anchor last."""
    values = {curve.key: comparison.difference(comparison.against, curve, column)[0] for curve in curves}
    return sorted(curves, key=lambda curve: float("inf") if (value := values[curve.key]) is None else value)


def groups(
    measured: Sequence[Compared], looks: Mapping[str, Style], published: Sequence[Compared]
) -> dict[str, list[tuple[str, Style]]]:
    """The entries of the legend under their titles; a group that is alone has none."""
    found: dict[str, list[tuple[str, Style]]] = {
        "pscx": [(curve.title, looks[curve.key]) for curve in measured if curve.own],
        "others, measured here": [(curve.title, looks[curve.key]) for curve in measured if not curve.own],
        "published": [(f"{number}  {curve.title}", PUBLISHED) for number, curve in enumerate(published, 1)],
    }
    filled = [(title, entries) for title, entries in found.items() if entries]
    return dict(filled) if len(filled) > 1 else {"": [one for _, entries in filled for one in entries]}


def _legend(figure: Figure, entries: Mapping[str, Sequence[tuple[str, Style]]]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for title, group in entries.items():
        if title:
            handles.append(Line2D([], [], linestyle="none", label=title))
        handles += [Line2D([], [], label=_plain(label), **style) for label, style in group]
    legend = figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
    for text in legend.get_texts():
        if text.get_text() in entries:
            text.set_fontweight("bold")


def _number(axes: Axes, published: Sequence[Any], measured: Sequence[Any]) -> None:
    """The number of each published curve on its line, where it is farthest from other lines and numbers."""
    lines = [_in_points(axes, points) for points in chain(published, measured)]
    for number, (x, y) in enumerate(spread(lines, len(published)), 1):
        at = axes.transData.inverted().transform((x * axes.figure.dpi / 72, y * axes.figure.dpi / 72))
        axes.text(at[0], at[1], str(number), bbox=ROOM, **NUMBER)


def _in_points(axes: Axes, points: Any) -> NDArray[np.float64]:
    """Where the points of a curve are in the figure, ``(n, 2)``, in 1/72 inch."""
    return np.asarray(axes.transData.transform(points)) * 72 / axes.figure.dpi


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _rates(measured: Sequence[Compared], column: str) -> tuple[float, float]:
    """The rates that are shown: those that were measured, and somewhat more on either side."""
    rates = [rate for curve in measured for rate, _ in curve.points.get(column, ())]
    return (min(rates) / MARGIN, max(rates) * MARGIN) if rates else (0.0, float("inf"))
