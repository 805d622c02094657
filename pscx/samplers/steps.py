"""Schedules of noise levels for samplers."""

from __future__ import annotations

from math import exp, log

from pscx.priors.base import Prior
from pscx.priors.schedules import nearest

SPACINGS = ("linear", "log")


def schedule(prior: Prior, start: float | None, stop: float, steps: int, spacing: str) -> list[float]:
    """Noise levels from ``start`` down to ``stop``, at most ``steps`` of them, strictly falling.

    ``linear`` ones are evenly spaced places on the prior's grid. ``log`` ones are evenly spaced in the logarithm: as
    they are where the prior is continuous and not exact, else the nearest ones on its grid, since a machine's own
    logarithm may show in its last digits. Levels outside of the grid mean its ends, and ``start`` none its last.
    """
    grid = prior.levels
    first = len(grid) - 1 if start is None else nearest(grid, start)
    end = nearest(grid, stop)
    if spacing == "linear":
        places = evenly(first, end, steps) if first > end else [first]
        return [float(grid[place]) for place in sorted({round(place) for place in places}, reverse=True)]
    if prior.continuous and not prior.exact:
        lowest, highest = float(grid[0]), float(grid[-1])
        return logarithmic(min(max(highest if start is None else start, lowest), highest), max(stop, lowest), steps)
    wanted = logarithmic(float(grid[first]), float(grid[end]), steps)
    return [float(grid[place]) for place in sorted({nearest(grid, level) for level in wanted}, reverse=True)]


def logarithmic(start: float, stop: float, steps: int) -> list[float]:
    """``steps`` levels from ``start`` to ``stop``, evenly spaced in the logarithm; never below ``stop``."""
    if steps == 1 or start <= stop:
        return [start]
    between = [exp(point) for point in evenly(log(start), log(stop), steps)[1:-1]]
    return [start, *between, stop]


def evenly(first: float, last: float, count: int) -> list[float]:
    """``count`` numbers from ``first`` to ``last`` at equal distances; ``first`` alone if it is one.

    In Python's arithmetic: a library's own ranges differ in the last digit from one instruction set to the next.
    """
    return [first + (last - first) * i / max(count - 1, 1) for i in range(count)]
