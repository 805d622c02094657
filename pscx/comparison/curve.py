"""A rate-distortion curve in a comparison, whoever measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pscx.evaluation.bd import front
from pscx.evaluation.measures import Measure

Point = tuple[float, float]
"""Rate in bits per pixel, and quality."""


@dataclass(frozen=True)
class Compared:
    """A codec's curve for each metric.

    Args:
        key: its name on the command line and in tables.
        title: its name in figures.
        about: who measured it and how.
        images: how many images its means are over; none where that is not told.
        points: ``(bpp, quality)`` by column of the metric, means over the images.
        measured: whether it was measured here, or published by others.
        own: whether it is a codec of pscx, which tables compare with every other curve.
    """

    key: str
    title: str
    about: str
    images: int | None
    points: Mapping[str, Sequence[Point]] = field(repr=False)
    measured: bool
    own: bool = False

    def front(self, column: str, measure: Measure) -> list[Point]:
        """The points of one metric that are worth their bits, by rising rate."""
        return front(self.points.get(column, ()), measure.higher_is_better)
