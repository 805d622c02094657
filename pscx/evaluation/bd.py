"""Bjontegaard's difference of two rate-distortion curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import expm1, isfinite, log

Curve = Sequence[tuple[float, float]]
"""Points ``(rate, quality)`` of one codec at several settings, in any order."""


def bd_rate(
    anchor: Curve, test: Curve, higher_is_better: bool = True, within: tuple[float, float] | None = None
) -> float:
    """Bjontegaard's mean difference in rate at equal quality (VCEG-M33, 2001), in percent; below 0 ``test`` needs less.

    ``exp(mean of ln(rate of test) - ln(rate of anchor)) - 1`` over the qualities that both curves reach, or those of
    them that lie ``within`` two qualities. Between its points a curve is a monotone piecewise cubic (PCHIP, as in
    JCTVC-K0279) of the logarithm of the rate. Any unit of rate will do, and any measure of quality that rises with it,
    or falls where higher is not better.

    Raises ``ValueError`` where a curve has fewer than two points, a rate that is not over 0 or a quality that does not
    rise (or fall) with the rate, or where the curves have no quality in common, ``within`` included.

    >>> anchor = [(0.25, 28.0), (0.5, 31.0), (1.0, 34.0)]
    >>> round(bd_rate(anchor, [(0.8 * rate, quality) for rate, quality in anchor]), 3)
    -20.0
    """
    low, high = overlap(anchor, test, higher_is_better, within)
    from bjontegaard.interpolation import interpolate  # it imports pyplot

    logs = []
    for name, curve in (("anchor", anchor), ("test", test)):
        rates, qualities = _checked(name, curve, higher_is_better)
        rising = sorted(zip(qualities, rates, strict=True))
        spline = interpolate([quality for quality, _ in rising], [log(rate) for _, rate in rising], "pchip")
        logs.append(float(spline.integrate(low, high)) / (high - low))
    return 100 * expm1(logs[1] - logs[0])


def overlap(
    anchor: Curve, test: Curve, higher_is_better: bool = True, within: tuple[float, float] | None = None
) -> tuple[float, float]:
    """The lowest and the highest quality that both curves reach, of those ``within`` two qualities.

    Raises ``ValueError`` as :func:`bd_rate` does.
    """
    found = [_checked(name, curve, higher_is_better)[1] for name, curve in (("anchor", anchor), ("test", test))]
    ends = [(min(curve), max(curve)) for curve in found] + ([] if within is None else [within])
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    if low >= high:
        ranges = " and ".join(f"{first:.4g} to {last:.4g}" for first, last in ends)
        raise ValueError(f"the curves have no quality in common: {ranges}")
    return low, high


def front(curve: Curve, higher_is_better: bool = True) -> list[tuple[float, float]]:
    """The Pareto front by rising rate: points that are better than all points of a lower rate.

    >>> front([(0.25, 28.0), (0.5, 27.0), (1.0, 34.0)])
    [(0.25, 28.0), (1.0, 34.0)]
    """
    sign = 1 if higher_is_better else -1
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -sign * point[1])):
        if not kept or sign * (quality - kept[-1][1]) > 0:
            kept.append((rate, quality))
    return kept


def _checked(name: str, curve: Curve, higher_is_better: bool) -> tuple[list[float], list[float]]:
    """Rates in rising order, and their qualities."""
    points = sorted(curve)
    if len(points) < 2:
        raise ValueError(f"{name}: a curve needs at least 2 points, got {len(points)}")
    if not all(isfinite(rate) and rate > 0 and isfinite(quality) for rate, quality in points):
        raise ValueError(f"{name}: rates must be over 0 and qualities finite, got {points}")
    for before, after in pairwise(points):
        worse = after[1] <= before[1] if higher_is_better else after[1] >= before[1]
        if before[0] >= after[0] or worse:
            pairs = " and ".join(f"{quality:.4g} at {rate:.4g}" for rate, quality in (before, after))
            way = "rise" if higher_is_better else "fall"
            raise ValueError(f"{name}: quality must {way} with the rate, got {pairs}")
    return [rate for rate, _ in points], [quality for _, quality in points]
