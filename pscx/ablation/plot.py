"""Rate-distortion plots: colour, marker and line style each stand for one axis, a panel for what is left.

Where no curve differs from the baseline on more than one axis, each axis has a panel instead.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pscx.ablation.plan import Axis, Plan
from pscx.ablation.results import Curve, measures
from pscx.evaluation.measures import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart with any kind of colour vision, but for a brown: their yellow is too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A5A2B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
STYLES = {"color": COLORS, "marker": MARKERS, "linestyle": LINES}
PLAIN = {"color": "#555555", "marker": "o", "linestyle": "-"}
PANEL = (5.0, 4.2)
PANELS_A_ROW = 3
BASELINE = "baseline"
WIDE = 16  # times the lowest rate of a panel; beyond, there are fewer labels

Labels = Mapping[str, str]
"""The label of a curve on each axis."""

Drawn = tuple[Curve, Sequence[tuple[float, float]]]
"""A curve, and its points ``(rate, quality)``."""


@dataclass(frozen=True)
class Look:
    """Which axis each property of a line stands for, and the axes that panels stand for."""

    axes: Mapping[str, Axis]
    panels: Sequence[Axis]

    def style(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Properties of the line of a curve."""
        return {**PLAIN, **{name: self.value(name, labels[axis.key]) for name, axis in self.axes.items()}}

    def value(self, name: str, label: str) -> Any:
        """The colour, marker or line style of a label; line styles tell apart what has one colour."""
        place, values = list(self.axes[name].values).index(label), STYLES[name]
        again = name == "linestyle" and self.axes.get("color") is self.axes[name]
        return values[place // len(COLORS) if again else place % len(values)]

    @property
    def several(self) -> bool:
        """Whether more than one axis is told apart."""
        return len({axis.key for axis in (*self.axes.values(), *self.panels)}) > 1

    def panel(self, labels: Mapping[str, str]) -> str:
        """The title of the panel that a curve is drawn in."""
        return ", ".join(f"{axis.name}: {labels[axis.key]}" for axis in self.panels)


def draw(plan: Plan, found: Sequence[Curve]) -> dict[str, bytes]:
    """``COLUMN.svg`` and ``COLUMN.png`` for each metric; the same curves give the same bytes."""
    make = one_at_a_time if varied_alone(plan, found) else crossed
    return as_files({key: partial(make, plan, found, key, measure) for key, measure in measures(found).items()})


def as_files(figures: Mapping[str, Callable[[], Figure]]) -> dict[str, bytes]:
    """``NAME.svg`` and ``NAME.png`` of each figure, without what changes from one call to the next."""
    import matplotlib

    files = {}
    with matplotlib.rc_context({"svg.hashsalt": "pscx", "font.size": 10}):
        for name, make in figures.items():
            figure = make()
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                data = io.BytesIO()
                figure.savefig(data, format=suffix, dpi=150, bbox_inches="tight", metadata=metadata)
                files[f"{name}.{suffix}"] = data.getvalue()
    return files


def look(axes: Sequence[Axis]) -> Look:
    """The axis with the most values gets colour, the next ones marker and line style, as far as those suffice.

    An axis that is varied alone gets all three, if it has more values than there are colours.
    """
    varied = sorted((axis for axis in axes if len(axis.values) > 1), key=lambda axis: -len(axis.values))
    if len(varied) == 1 and len(COLORS) < len(varied[0].values) <= len(COLORS) * len(LINES):
        return Look(dict.fromkeys(STYLES, varied[0]), [])
    free = dict(STYLES)
    taken: dict[str, Axis] = {}
    for axis in varied:
        name = next((name for name, values in free.items() if len(axis.values) <= len(values)), None)
        if name is not None:
            taken[name] = axis
            del free[name]
    return Look(taken, [axis for axis in varied if axis not in taken.values()])


def varied_alone(plan: Plan, found: Sequence[Curve]) -> bool:
    """Whether several axes are varied, and every curve has the baseline's labels on all of them but one.

    Not so where an axis has more values than there are colours.
    """
    axes = [axis for axis in plan.curve_axes if len(_drawn(axis, found).values) > 1]
    enough = all(len(axis.values) <= len(COLORS) for axis in axes)
    return len(axes) > 1 and enough and all(len(_differences(plan, curve)) <= 1 for curve in found)


def one_at_a_time(plan: Plan, found: Sequence[Curve], column: str, measure: Measure) -> Figure:
    """A panel an axis: the baseline, and the curves that differ from it there."""
    axes = [axis for axis in plan.curve_axes if len(_drawn(axis, found).values) > 1]
    figure, panels = _panels(len(axes), len(axes) if len(axes) <= PANELS_A_ROW else -(-len(axes) // 2))
    for panel, axis in zip(panels, axes, strict=True):
        curves = [curve for curve in found if not _differences(plan, curve) - {axis.key}]
        own = Look({"color": axis, "marker": axis}, [])
        _panel(panel, axis.name, [(curve, curve.of(column)) for curve in curves], plan.baseline, own, measure)
        lines = [line for line in panel.get_lines() if line.get_gid() != BASELINE]
        panel.legend(lines, [_plain(curve.labels[axis.key]) for curve in curves], loc="lower right", fontsize=9)
    return figure


def crossed(plan: Plan, found: Sequence[Curve], column: str, measure: Measure) -> Figure:
    """All curves, their axes told apart by :func:`look`."""
    shown = look([_drawn(axis, found) for axis in plan.curve_axes])
    titles = list(dict.fromkeys(shown.panel(curve.labels) for curve in found))
    figure, panels = _panels(len(titles), min(len(titles), PANELS_A_ROW))
    marked = plan.baseline if shown.several else None
    for title, axes in zip(titles, panels, strict=True):
        own = [(curve, curve.of(column)) for curve in found if shown.panel(curve.labels) == title]
        _panel(axes, title, own, marked, shown, measure)
    baseline = any(curve.labels == marked for curve in found)
    figure.legend(handles=list(_legend(shown, baseline)), loc="outside right upper", frameon=False)
    return figure


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels that share their scales; places left over stay empty."""
    from matplotlib.figure import Figure

    down = -(-count // columns)
    figure = Figure((PANEL[0] * columns, PANEL[1] * down), layout="constrained")
    panels = list(figure.subplots(down, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    for axes in panels[max(count - columns, 0) : count]:  # the lowest of their columns
        axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def _differences(plan: Plan, curve: Curve) -> set[str]:
    """The axes on which a curve is not the baseline."""
    return {key for key, label in plan.baseline.items() if curve.labels[key] != label}


def _drawn(axis: Axis, found: Sequence[Curve]) -> Axis:
    """An axis without the values that no curve has."""
    labels = {curve.labels[axis.key] for curve in found}
    return Axis(axis.key, {label: value for label, value in axis.values.items() if label in labels})


def _panel(
    axes: Axes, title: str, found: Sequence[Drawn], baseline: Labels | None, shown: Look, measure: Measure
) -> None:
    """Draw curves, on a grey band the one with the labels of ``baseline``."""
    for curve, points in found:
        rates, qualities = [rate for rate, _ in points], [quality for _, quality in points]
        if curve.labels == baseline:
            axes.plot(rates, qualities, color="#cccccc", linewidth=7, solid_capstyle="round", zorder=1, gid=BASELINE)
        axes.plot(rates, qualities, markersize=5, linewidth=1.5, **shown.style(curve.labels))
    axes.set(title=_plain(title), ylabel=_plain(measure.label))
    over_rate(axes)


def over_rate(axes: Axes) -> None:
    """Make the horizontal axis the logarithm of the rate, with labels that do not meet, on a light grid."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(xscale="log", xlabel="rate (bpp)")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > WIDE * low else (1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(shown: Look, baseline: bool) -> Iterator[Any]:
    """The axes one after the other, each value with what stands for it; then the baseline if drawn."""
    from matplotlib.lines import Line2D

    for axis in {axis.key: axis for axis in shown.axes.values()}.values():
        yield Line2D([], [], linestyle="none", label=f"$\\bf{{{_bold(axis.name)}}}$")
        own = {name: one for name, one in shown.axes.items() if one is axis}
        name = next(iter(own))
        for label in axis.values:
            style: dict[str, Any] = {**PLAIN, **({} if "marker" in own else {"marker": ""})}
            style |= {one: shown.value(one, label) for one in own}
            yield Line2D([], [], label=_plain(label), markersize=5, linewidth=2 if name == "color" else 1.5, **style)
    if baseline:
        yield Line2D([], [], color="#cccccc", linewidth=7, label="baseline")


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _bold(name: str) -> str:
    """Text inside a formula; what would be a command there is left out."""
    return re.sub(r"[^\w .=-]", "", name).replace("_", r"\_").replace(" ", r"\ ")
