"""How curves compare, as rows, as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pscx.ablation.report import markdown
from pscx.comparison.curve import Compared
from pscx.evaluation.bd import bd_rate, overlap
from pscx.evaluation.measures import Measure

Range = tuple[float, float]
ROW = ("metric", "curve", "against", "bd_rate", "over", "note")


@dataclass(frozen=True)
class Comparison:
    """What is compared: the curves, measured ones first, the one all stand against, the metrics, and within which.

    ``within`` are the lowest and the highest quality that BD-rates are taken over, by column; all that both curves
    reach where a column has none.
    """

    curves: Sequence[Compared]
    against: Compared
    measures: Mapping[str, Measure]
    within: Mapping[str, Range]

    @property
    def measured(self) -> list[Compared]:
        """The curves that were measured here."""
        return [curve for curve in self.curves if curve.measured]

    @property
    def own(self) -> list[Compared]:
        """The codecs of pscx, or all that was measured where there is none."""
        return [curve for curve in self.measured if curve.own] or self.measured

    def of(self, column: str) -> list[Compared]:
        """The curves that have a metric."""
        return [curve for curve in self.curves if curve.points.get(column)]

    def shown(self, column: str) -> list[Compared]:
        """The curves that have some quality in common with the anchor or with a codec of pscx."""
        rivals = [self.against, *self.own]
        return [
            curve
            for curve in self.of(column)
            if curve in rivals or any(self.difference(rival, curve, column)[0] is not None for rival in rivals)
        ]

    def difference(self, anchor: Compared, test: Compared, column: str) -> tuple[float | None, str]:
        """BD-rate of ``test`` against ``anchor`` in percent and over which qualities, or none and why."""
        measure = self.measures[column]
        fronts = [curve.front(column, measure) for curve in (anchor, test)]
        higher, within = measure.higher_is_better, self.within.get(column)
        try:
            low, high = overlap(fronts[0], fronts[1], higher, within)
            return bd_rate(fronts[0], fronts[1], higher, within), f"{low:.4g} to {high:.4g}"
        except ValueError as error:
            return None, str(error)


def rows(comparison: Comparison) -> list[dict[str, str]]:
    """A row for each metric and pair: all curves against the anchor, and measured ones against all others.

    BD-rate in percent and over which qualities, or why there is none.
    """
    found = []
    for column in comparison.measures:
        for anchor, test in _pairs(comparison, column):
            value, about = comparison.difference(anchor, test, column)
            shown = ("", "", about) if value is None else (f"{value:.2f}", about, "")
            found.append(dict(zip(ROW, (column, test.key, anchor.key, *shown), strict=True)))
    return found


def points(comparison: Comparison) -> list[dict[str, str]]:
    """A row for each point of each curve."""
    return [
        {"metric": column, "curve": curve.key, "bpp": f"{rate:.6g}", "value": f"{value:.6g}", "source": curve.about}
        for column in comparison.measures
        for curve in comparison.curves
        for rate, value in curve.points.get(column, ())
    ]


def table(comparison: Comparison, column: str) -> str:
    """One metric: every curve against the anchor, by falling rate, and each codec of pscx against every curve.

    A curve that has nothing in common with any of these is named below.
    """
    against = comparison.against
    there = bool(against.points.get(column))
    columns = [curve for curve in comparison.own if curve is not against and curve.points.get(column)]
    shown, lines = comparison.shown(column), []
    for curve in shown:
        first = 0.0 if curve is against else comparison.difference(against, curve, column)[0]
        others = [None if own is curve else comparison.difference(curve, own, column)[0] for own in columns]
        facts = [curve.title, "here" if curve.measured else "published", _count(curve.images)]
        lines.append((first, [*facts, *([_percent(first)] if there else []), *map(_percent, others)]))
    lines.sort(key=lambda line: (line[0] is None, -(line[0] or 0.0)))
    differences = [f"against {against.title}"] if there else []
    header = ["codec", "measured", "images", *differences, *(f"{own.title} against it" for own in columns)]
    text = markdown(header, [cells for _, cells in lines])
    missing = [curve.title for curve in comparison.of(column) if curve not in shown]
    return f"{text}\n\nNo quality in common: {', '.join(missing)}." if missing else text


def _count(images: int | None) -> str:
    return "?" if images is None else str(images)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def sources(comparison: Comparison) -> str:
    """Who measured which curve."""
    groups: dict[str, list[str]] = {}
    for curve in comparison.curves:
        groups.setdefault(curve.about, []).append(curve.title)
    return markdown(["curves", "from"], [[", ".join(titles), about] for about, titles in groups.items()])


def _pairs(comparison: Comparison, column: str) -> list[tuple[Compared, Compared]]:
    there = comparison.of(column)
    pairs = [(comparison.against, curve) for curve in there if curve is not comparison.against]
    pairs += [(curve, own) for own in there if own.measured for curve in there if curve is not own]
    return list({(anchor.key, test.key): (anchor, test) for anchor, test in pairs}.values())
