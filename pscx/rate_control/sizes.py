"""Search for a stream of a given size in bytes."""

from __future__ import annotations

from math import exp, log

from pscx.rate_control.search import Found, Window, find
from pscx.rate_control.trials import Run, Setting, Trials

CLOSE = 0.98  # share of the limit that is accepted
SLOPE = 1.1 * log(2)  # rise of the logarithm of the bytes over an octave of the parameter
OVER_ROWS = 1.0  # its rise over all measurements, if all cost the same
BPP_AT_ONE = 0.31
"""Bits per pixel at a step of 1, and with the slope at any other: a fit to the default recipe on Kodak crops, where
single photographs are off by a factor of two either way. It is only where the search begins."""


def find_size(trials: Trials, limit: float) -> Found:
    """Search for a stream of 98 % to all of ``limit`` bytes; values are logarithms of the payload's bytes."""

    def measure(run: Run) -> float:
        return _log(len(run.data) - trials.overhead)

    parts = (CLOSE, (1 + CLOSE) / 2, 1)
    window = Window(*(_log(limit * part - trials.overhead) for part in parts))
    start = (BPP_AT_ONE * trials.area / (8 * limit)) ** (log(2) / SLOPE)
    return find(trials, measure, window, start, SLOPE, OVER_ROWS)


def is_close(size: int, limit: float) -> bool | None:
    """Whether a stream of ``size`` bytes is in the window of :func:`find_size`.

    None if it is smaller: an image of few pixels may have no closer stream.
    """
    return None if size < CLOSE * limit else size <= limit


def largest(found: Found, trials: Trials, limit: float) -> Setting:
    """The setting in the window, or else that of the largest stream that was found within the limit."""
    if found.hit is not None:
        return found.hit
    highest = _log(limit - trials.overhead)
    within = {setting: size for setting, size in found.settings.items() if size <= highest}
    return max(within, key=within.__getitem__)


def in_bytes(value: float, trials: Trials) -> int:
    """The bytes of a stream with this value in the search."""
    return trials.overhead + round(exp(value))


def _log(size: float) -> float:
    """Below one byte that of half a byte, which no payload has."""
    return log(size) if size >= 1 else log(0.5)
