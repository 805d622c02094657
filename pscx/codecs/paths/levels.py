"""Where the steps of a path are."""

from __future__ import annotations

from typing import Literal

from pscx.codecs.paths.curve import COARSEST, ErrorCurve, Measure, nats, savings
from pscx.priors.base import Prior

Schedule = Literal["even", "kl", "least"]
MEASURES: dict[str, Measure] = {"kl": nats, "least": savings}


def start_of(schedule: str, prior: Prior, steps: int) -> float:
    """The precision of the first state: of the prior's noisiest level under ``even``, else of the level 64."""
    if schedule == "even":
        first = even_levels(prior, steps)[0]
        return 1 / (first * first)
    return COARSEST


def precisions(schedule: str, prior: Prior, level: float, steps: int, curve: ErrorCurve) -> list[float]:
    """The precision after each step of a schedule that ends at a noise level, along a typical curve."""
    end = 1 / (level * level)
    if schedule == "even":
        return [*(1 / (one * one) for one in even_levels(prior, steps)[1:] if one > level), end]
    return curve.divided(start_of(schedule, prior, steps), end, steps, MEASURES[schedule])


def even_levels(prior: Prior, steps: int) -> list[float]:
    """Levels of the prior at equal distances of their places, falling."""
    count = len(prior.levels)
    places = [((steps - step) * count) // steps - 1 for step in range(steps)]
    return [float(prior.levels[max(place, 0)]) for place in places]
