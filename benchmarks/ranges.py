"""BD-rates over a part of the rates, and how far their mean over the images can be trusted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import log

import numpy as np

from pscx.evaluation.bd import Curve

Range = tuple[float, float]
"""From, to."""

LEVEL = 0.95
RESAMPLES = 10_000


def range_of(text: str) -> Range:
    """``0.05-0.25`` as two rates in bits per pixel. Raises ``argparse.ArgumentTypeError`` for anything else."""
    low, _, high = text.partition("-")
    try:
        found = (float(low), float(high))
    except ValueError:
        found = (0.0, 0.0)
    if not 0 < found[0] < found[1]:
        raise argparse.ArgumentTypeError(f"must be two rates over 0 in rising order, such as 0.05-0.25, got '{text}'")
    return found


def quality_range(curve: Curve, rates: Range) -> Range:
    """The lowest and the highest quality of a curve at these rates, as far as it goes; linear in the rate's logarithm.

    Raises ``ValueError`` where the curve has no point, or lies outside of these rates.
    """
    if not curve:
        raise ValueError("a curve without points has no quality")
    found, values = zip(*sorted(curve), strict=True)
    if found[-1] <= rates[0] or found[0] >= rates[1]:
        raise ValueError(f"a curve from {found[0]:.4g} to {found[-1]:.4g} bpp has no part at {rates}")
    first, last = np.interp(np.log(rates), [log(rate) for rate in found], values)
    return float(min(first, last)), float(max(first, last))


def share(curve: Curve, qualities: Range) -> float:
    """How much of a range of qualities a curve reaches, from 0 to 1."""
    values = [quality for _, quality in curve]
    if not values or qualities[0] >= qualities[1]:
        return 0.0
    reached = min(max(values), qualities[1]) - max(min(values), qualities[0])
    return max(reached, 0.0) / (qualities[1] - qualities[0])


def interval(values: Sequence[float]) -> Range:
    """The bootstrap's percentile interval of a mean (Efron 1979) at :data:`LEVEL`; the same for the same values."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(np.asarray(values), (RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
