"""Where the numbers of lines stand in a figure: on their lines, away from other lines and numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Line = NDArray[np.float64]
"""The vertices of a line, ``(n, 2)``."""

SAMPLES = 60
ENOUGH = 7.0  # a line that is farther away than this does not matter, in 1/72 inch
APART = 20.0  # nor a number that is farther away than this
BEYOND = 5.0  # how far beyond the ends of its line a number may stand, in 1/72 inch


def spread(lines: Sequence[Line], count: int) -> list[tuple[float, float]]:
    """A place on each of the first ``count`` lines or just beyond an end of it, in 1/72 inch.

    One after the other, each where the distances to the nearest other line, up to ``ENOUGH``, and to the nearest of the
    numbers so far, up to ``APART``, add up to the most.
    """
    along = [_along(line) for line in lines]
    found: list[Line] = []
    for place in range(count):
        others = [line for i, line in enumerate(along) if i != place]
        places = _with_ends(along[place])
        to_lines = _distance(places, others)
        to_numbers = _distance(places, [np.array(found)] if found else [])
        found.append(places[np.argmax(np.minimum(to_lines, ENOUGH) + np.minimum(to_numbers, APART))])
    return [(float(x), float(y)) for x, y in found]


def _with_ends(points: Line) -> Line:
    """Also the points that are ``BEYOND`` further at either end; of a line of one point above and below it."""
    steps = np.stack([points[0] - points[1], points[-1] - points[-2]])
    if not steps.any():
        steps = np.array([[0.0, 1.0], [0.0, -1.0]])
    ends = points[[0, -1]] + BEYOND * steps / np.hypot(*steps.T)[:, None]
    return np.concatenate([ends[:1], points, ends[1:]])


def _along(line: Line) -> Line:
    """Points at equal distances along a line, ``(SAMPLES, 2)``."""
    lengths = np.hypot(*np.diff(line, axis=0).T)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    steps = np.linspace(0, at[-1], SAMPLES)
    return np.stack([np.interp(steps, at, line[:, axis]) for axis in (0, 1)], axis=1)


def _distance(points: Line, lines: Sequence[Line]) -> NDArray[np.float64]:
    """From each point to the nearest point of all lines; infinite without lines."""
    if not lines:
        return np.full(len(points), np.inf)
    other = np.concatenate(lines)
    return np.asarray(np.sqrt(((points[:, None] - other[None]) ** 2).sum(2)).min(1))
