"""The squared error of a denoiser on a typical photograph, and noise levels that are placed along it.

A *precision* is ``1 / sigma^2``. Going from one precision to the next costs ``(next - precision) error / 2`` nats of
Kullback-Leibler divergence, with ``error`` the denoiser's squared error at the first of the two (Theis et al. 2022).
Everything here is single IEEE operations, so that encoder and decoder find the same levels on every machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt

Measure = Callable[[float, float, float, float], float]

FINEST = 2.0**-7  # noise level of the last entry of ERRORS; each entry before it is sqrt(2) noisier
REFINED = 3  # times that a knot is put between two
ERRORS = (
    *(0.247709, 0.234484, 0.219477, 0.196639, 0.169138, 0.130062, 0.105217, 0.0820829, 0.0669926, 0.0550467),
    *(0.0423621, 0.0324669, 0.0240566, 0.01766, 0.0125421, 0.00861131, 0.00582412, 0.00385617, 0.00241206),
    *(0.00147434, 0.000895197, 0.000533059, 0.000312947, 0.000182199, 0.000105786, 6.1733e-05, 3.68856e-05),
)
"""Mean squared error of the embedded prior per number of a signal in [-1, 1], over the centres (128x128) of 24
photographs of the training part of BSDS500, from the noise level 64 down to 2^-7."""
COARSEST = 1 / (FINEST * FINEST) * 2.0 ** (1 - len(ERRORS))  # precision of the first entry of ERRORS
SMALLEST, LARGEST = 1e-12, 4096.0  # squared errors


@dataclass(frozen=True)
class ErrorCurve:
    """A typical error at the levels of :data:`ERRORS`; linear in the precision between knots, constant outside.

    Knots are the entries of ``errors`` and, :data:`REFINED` times over, geometric means between them.
    """

    errors: tuple[float, ...] = ERRORS

    @cached_property
    def knots(self) -> list[tuple[float, float]]:
        """Precisions, rising, and the typical error at each."""
        knots = [(COARSEST * 2.0**place, error) for place, error in enumerate(self.errors)]
        for _ in range(REFINED):
            between = [(sqrt(a * b), sqrt(c * d)) for (a, c), (b, d) in pairwise(knots)]
            knots = [*(knot for both in zip(knots, between, strict=False) for knot in both), knots[-1]]
        return knots

    @cached_property
    def precisions(self) -> list[float]:
        """Those of the knots."""
        return [precision for precision, _ in self.knots]

    def error(self, precision: float) -> float:
        """Squared error per number at a precision."""
        after = bisect_right(self.precisions, precision)
        if after in (0, len(self.knots)):
            return self.knots[min(after, len(self.knots) - 1)][1]
        (low, first), (high, second) = self.knots[after - 1], self.knots[after]
        return first + (second - first) * ((precision - low) / (high - low))

    def divided(self, start: float, end: float, parts: int, measure: Measure) -> list[float]:
        """The ends of ``parts`` parts of equal measure between two precisions; the last one is ``end``."""
        inner = [precision for precision in self.precisions if start < precision < end]
        points = [(precision, self.error(precision)) for precision in (start, *inner, end)]
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

    def cost(self, precisions: Sequence[float]) -> float:
        """Nats per number of the steps from each of these precisions to the next."""
        return sum((after - before) * self.error(before) for before, after in pairwise(precisions)) / 2


def curve_of(option: Sequence[float] | None) -> ErrorCurve:
    """The curve of a codec's option ``curve``: none for the one that ships.

    Raises ``ValueError`` unless there is a number for each level, in [1e-12, 4096], and none is over the one before.
    """
    errors = ERRORS if option is None else tuple(map(float, option))
    if len(errors) != len(ERRORS):
        raise ValueError(f"curve must be {len(ERRORS)} numbers, got {len(errors)}")
    wrong = [error for error in errors if not SMALLEST <= error <= LARGEST]
    if wrong:
        raise ValueError(f"curve must lie in {SMALLEST:g}..{LARGEST:g}, got {wrong[0]}")
    risen = [(before, after) for before, after in pairwise(errors) if after > before]
    if risen:
        raise ValueError(f"curve must not rise towards lower levels, got {risen[0][1]:g} after {risen[0][0]:g}")
    return ErrorCurve(errors)


def levels() -> list[float]:
    """The noise levels of the entries of a curve, falling from 64."""
    return [FINEST * 2.0 ** ((len(ERRORS) - 1 - place) / 2) for place in range(len(ERRORS))]


def nats(low: float, first: float, high: float, second: float) -> float:
    """Nats, up to a factor, from one knot to the next: steps of equal sums are steps of equal divergence."""
    return (high - low) * (first + second)


def savings(low: float, first: float, high: float, second: float) -> float:
    """Length from one knot to the next along which equal steps have the least divergence in all.

    ``n`` steps cost ``sum (next - precision) error(precision) / 2``, a left Riemann sum. Its excess over the integral
    is least if the density of the steps is proportional to ``sqrt(-d error / d precision)``.
    """
    return sqrt(max(first - second, 0.0) * (high - low))
