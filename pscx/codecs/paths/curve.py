"""The squared error of a denoiser on a typical photograph, and noise levels that are placed along it.

A *precision* is ``1 / sigma^2``. Going from one precision to the next costs ``(next - precision) error / 2`` nats of
Kullback-Leibler divergence, with ``error`` the denoiser's squared error at the first of the two (Theis et al. 2022).
Everything here is single IEEE operations, so that encoder and decoder find the same levels on every machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from math import sqrt

FINEST = 2.0**-7  # noise level of the last entry of ERRORS; each entry before it is sqrt(2) noisier
REFINED = 3  # times that a knot is put between two
ERRORS = (
    *(0.247709, 0.234484, 0.219477, 0.196639, 0.169138, 0.130062, 0.105217, 0.0820829, 0.0669926, 0.0550467),
    *(0.0423621, 0.0324669, 0.0240566, 0.01766, 0.0125421, 0.00861131, 0.00582412, 0.00385617, 0.00241206),
    *(0.00147434, 0.000895197, 0.000533059, 0.000312947, 0.000182199, 0.000105786, 6.1733e-05, 3.68856e-05),
)
"""Mean squared error of the embedded prior per number of a signal in [-1, 1], over the centres (128x128) of 24
photographs of the training part of BSDS500, from the noise level 64 down to 2^-7."""


def _knots() -> list[tuple[float, float]]:
    """Precisions, rising, and the typical error at each, with geometric means between those of :data:`ERRORS`."""
    first = 2.0 ** (1 - len(ERRORS)) / (FINEST * FINEST)
    knots = [(first * 2.0**place, error) for place, error in enumerate(ERRORS)]
    for _ in range(REFINED):
        between = [(sqrt(a * b), sqrt(c * d)) for (a, c), (b, d) in pairwise(knots)]
        knots = [*(knot for both in zip(knots, between, strict=False) for knot in both), knots[-1]]
    return knots


KNOTS = _knots()
PRECISIONS = [precision for precision, _ in KNOTS]


def typical_error(precision: float) -> float:
    """Squared error per number at a precision, linear between the knots and constant outside of them."""
    after = bisect_right(PRECISIONS, precision)
    if after in (0, len(KNOTS)):
        return KNOTS[min(after, len(KNOTS) - 1)][1]
    (low, first), (high, second) = KNOTS[after - 1], KNOTS[after]
    return first + (second - first) * ((precision - low) / (high - low))


def nats(low: float, first: float, high: float, second: float) -> float:
    """Nats, up to a factor, from one knot to the next: steps of equal sums are steps of equal divergence."""
    return (high - low) * (first + second)


def savings(low: float, first: float, high: float, second: float) -> float:
    """Length from one knot to the next along which equal steps have the least divergence in all.

    ``n`` steps cost ``sum (next - precision) error(precision) / 2``, a left Riemann sum. Its excess over the integral
    is least if the density of the steps is proportional to ``sqrt(-d error / d precision)``.
    """
    return sqrt(max(first - second, 0.0) * (high - low))


Measure = Callable[[float, float, float, float], float]


def divided(start: float, end: float, parts: int, measure: Measure) -> list[float]:
    """The precisions at the ends of ``parts`` parts of equal measure between two precisions, the last one ``end``."""
    inner = [precision for precision in PRECISIONS if start < precision < end]
    points = [(precision, typical_error(precision)) for precision in (start, *inner, end)]
    sums = [0.0]
    for (low, first), (high, second) in pairwise(points):
        sums.append(sums[-1] + measure(low, first, high, second))
    found = []
    for part in range(1, parts):
        wanted = sums[-1] * part / parts
        after = min(bisect_right(sums, wanted), len(sums) - 1)
        length = sums[after] - sums[after - 1]
        share = (wanted - sums[after - 1]) / length if length else 1.0
        low, high = points[after - 1][0], points[after][0]
        found.append(low + (high - low) * share)
    return [*found, end]
