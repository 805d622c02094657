"""Bjontegaard's difference of two rate-distortion curves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

Curve = Sequence[tuple[float, float]]
"""Points ``(rate, quality)`` of one codec at several settings, in any order."""


def bd_rate(anchor: Curve, test: Curve) -> float:
    """Bjontegaard's mean difference in rate at equal quality (VCEG-M33, 2001), in percent; negative: ``test`` is less.

    ``exp(mean of ln(rate of test) - ln(rate of anchor)) - 1`` over the qualities that both curves reach. Between its
    points a curve is a monotone piecewise cubic (PCHIP, as in JCTVC-K0279) of the logarithm of the rate. Any unit of
    rate will do, and any measure of quality that rises with it.

    Raises ``ValueError`` where a curve has fewer than two points, a rate that is not over 0 or a quality that does not
    rise with the rate, or where the curves have no quality in common.

    >>> anchor = [(0.25, 28.0), (0.5, 31.0), (1.0, 34.0)]
    >>> round(bd_rate(anchor, [(0.8 * rate, quality) for rate, quality in anchor]), 3)
    -20.0
    """
    overlap(anchor, test)
    from bjontegaard import bd_rate as between  # it imports pyplot

    curves = (*_checked("anchor", anchor), *_checked("test", test))
    return float(between(*curves, method="pchip", require_matching_points=False, min_overlap=0))


def overlap(anchor: Curve, test: Curve) -> tuple[float, float]:
    """The lowest and the highest quality that both curves reach. Raises ``ValueError`` as :func:`bd_rate` does."""
    _, first = _checked("anchor", anchor)
    _, second = _checked("test", test)
    low, high = max(first[0], second[0]), min(first[-1], second[-1])
    if low >= high:
        ranges = " and ".join(f"{curve[0]:.4g} to {curve[-1]:.4g}" for curve in (first, second))
        raise ValueError(f"the curves have no quality in common: {ranges}")
    return low, high


def _checked(name: str, curve: Curve) -> tuple[list[float], list[float]]:
    """Rates and qualities in rising order."""
    points = sorted(curve)
    if len(points) < 2:
        raise ValueError(f"{name}: a curve needs at least 2 points, got {len(points)}")
    if not all(isfinite(rate) and rate > 0 and isfinite(quality) for rate, quality in points):
        raise ValueError(f"{name}: rates must be over 0 and qualities finite, got {points}")
    for before, after in pairwise(points):
        if before[0] >= after[0] or before[1] >= after[1]:
            pairs = " and ".join(f"{quality:.4g} at {rate:.4g}" for rate, quality in (before, after))
            raise ValueError(f"{name}: quality must rise with the rate, got {pairs}")
    return [rate for rate, _ in points], [quality for _, quality in points]
