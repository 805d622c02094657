"""The search for a setting: over the quantizer's parameters, then over the number of measured rows.

Bytes and PSNR rise with a finer parameter, but for noise, and the logarithm of the bytes and the PSNR itself are nearly
linear in the logarithm of the parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pscx.rate_control.ladder import Ladder
from pscx.rate_control.trials import Run, Setting, Trials

MOST_TRIALS = 12  # encodings of each of the two searches, at most; photographs take three or four
POINTS = 5  # points before bisection starts
STRIDE = 256  # largest move by a slope only, or an eighth of all positions
FLATTEST, STEEPEST = 0.1, 3.0  # times the assumed slope, what a measured one may be


@dataclass(frozen=True)
class Window:
    """Accepted values; ``aim`` lies between ``low`` and ``high``."""

    low: float
    aim: float
    high: float


class Bracket:
    """Two positions between which a rising function meets its aim, by regula falsi and, after a few points, bisection.

    A smooth function needs no bisection; for one that jumps over its aim bisection ends the search.

    Args:
        size: positions are 0 to ``size - 1``; before something was found, the ends lie just outside of these.
        slope: slope of the function, over 0, used while two points do not give one.
        excess: value less aim at the position ``size``, if that is known.
    """

    def __init__(self, size: int, slope: float, excess: float | None = None) -> None:
        self.below, self.above, self._stride = -1, size, max(STRIDE, size // 8)
        self._lack: float | None = None
        self._excess = excess
        self._slope = self._assumed = slope
        self._last: tuple[int, float] | None = None
        self._points = 0

    def take(self, position: int, error: float) -> None:
        """Take in a point whose ``error`` (value less aim) is not zero."""
        if self._last is not None and (error < 0) == (self._last[1] < 0):
            slope = (error - self._last[1]) / (position - self._last[0])
            self._slope = min(max(slope, self._assumed * FLATTEST), self._assumed * STEEPEST)
        if error < 0:
            self.below, self._lack = position, error
        else:
            self.above, self._excess = position, error
        self._last = position, error
        self._points += 1

    @property
    def done(self) -> bool:
        """Whether nothing is left between the ends."""
        return self.above - self.below <= 1

    def next(self) -> int:
        """The next position, between the ends; there is one."""
        if self._lack is not None and self._excess is not None:
            share = self._lack / (self._lack - self._excess) if self._points < POINTS else 0.5
            position = self.below + (self.above - self.below) * share
        elif self._lack is not None:
            position = self.below + min(-self._lack / self._slope, self._stride)
        else:
            assert self._excess is not None  # a point was taken, or the end is known
            position = self.above - min(self._excess / self._slope, self._stride)
        return min(max(round(position), self.below + 1), self.above - 1)


def search(value: Callable[[int], float], window: Window, bracket: Bracket, start: int | None = None) -> int | None:
    """A position where ``value`` lies in the window; none where two neighbours lie on either side of it.

    ``start`` is the first, or none where the bracket knows one end.
    """
    position = start
    for _ in range(MOST_TRIALS):
        if bracket.done:
            return None
        position = bracket.next() if position is None else position
        found = value(position)
        if window.low <= found <= window.high:
            return position
        bracket.take(position, found - window.aim)
        position = None
    return None


@dataclass(frozen=True)
class Found:
    """What a search found.

    ``settings`` holds the value of every setting that was tried; ``hit`` is one in the window, or none; without one,
    ``low`` and ``high`` say whether a setting below and one above the window was found.
    """

    settings: dict[Setting, float]
    hit: Setting | None
    low: bool = True
    high: bool = True


def find(
    trials: Trials, measure: Callable[[Run], float], window: Window, start: float, octave: float, rows: float
) -> Found:
    """Search for a setting whose ``measure`` lies in the window.

    The search goes over the parameters first, from the one that is worth a quantizer's step of ``start`` on. If the
    measure jumps over the window between two parameters, as on images of few pixels, the search goes over the number of
    measurements at the finer of the two. ``octave`` is roughly the rise of the measure over an octave of the parameter,
    ``rows`` that over all measurements.
    """
    ladder = Ladder(*trials.codec.quality_range)
    settings: dict[Setting, float] = {}
    counts: dict[Setting, int] = {}

    def value(setting: Setting) -> float:
        run = trials.run(setting)
        settings[setting], counts[setting] = measure(run), sum(run.account.segment_symbols)
        return settings[setting]

    bracket = Bracket(len(ladder), octave / 128)
    first = ladder.position(start * trials.codec.parameter_at_step)
    hit = search(lambda position: value(Setting(ladder[position])), window, bracket, first)
    if hit is not None:
        return Found(settings, Setting(ladder[hit]))
    if bracket.below < 0 or bracket.above == len(ladder):
        return Found(settings, None, low=bracket.below >= 0, high=bracket.above < len(ladder))
    finer = Setting(ladder[bracket.above])
    count = counts[finer]
    bracket = Bracket(count, rows / max(count, 1), settings[finer] - window.aim)
    kept = search(lambda keep: value(Setting(finer.parameter, keep)), window, bracket)
    return Found(settings, None if kept is None else Setting(finer.parameter, kept))
