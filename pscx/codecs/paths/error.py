"""What both sides take the denoiser's squared error on this image to be, step by step."""

from __future__ import annotations

from math import ldexp, log2

from pscx.codecs.paths.curve import ErrorCurve
from pscx.codecs.paths.sides import Side

ROOTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)  # powers of 2^(1/4)
FIRST = 6  # bits of the first factor
FARTHEST = 1 << (FIRST - 1)  # quarter octaves
CLOSE = 0.9  # quarter octaves from the last factor that are not worth a change
SAME, SAME_AGAIN = 0.8, 0.75  # probabilities that the factor stays, and that it moves no further


class TrackedError:
    """Follows the error as the typical one times a factor of ``2^(q / 4)``, whose changes are coded.

    Args:
        side: where the changes go, or come from.
        count: numbers of the signal.
        curve: the typical error.
    """

    def __init__(self, side: Side, count: int, curve: ErrorCurve) -> None:
        self._side, self._count, self._curve = side, count, curve
        self._quarters: int | None = None

    def follow(self, precision: float, actual: float | None) -> float:
        """The predicted squared error, summed over the signal; an encoder gives the ``actual`` one."""
        typical = self._curve.error(precision) * self._count
        wanted = 0 if actual is None else self._quantized(4 * log2(max(actual, 1e-300) / typical))
        if self._quarters is None:
            self._quarters = self._side.number(wanted + FARTHEST, FIRST) - FARTHEST
        else:
            self._quarters += self._change(wanted - self._quarters)
        octave, quarter = divmod(self._quarters, 4)
        return ldexp(ROOTS[quarter] * typical, octave)

    def _quantized(self, quarters: float) -> int:
        """The factor that an encoder asks for: the last one if that is close, else the nearest."""
        if self._quarters is not None and abs(quarters - self._quarters) < CLOSE:
            return self._quarters
        return min(max(round(quarters), -FARTHEST), FARTHEST - 1)

    def _change(self, wanted: int) -> int:
        """Write or read the change of the factor, in quarter octaves; it stays within ±FARTHEST."""
        assert self._quarters is not None
        if self._side.decision(wanted == 0, SAME):
            return 0
        sign = -1 if self._side.decision(wanted < 0, 0.5) else 1
        size = 1
        while -FARTHEST < self._quarters + sign * size < FARTHEST - 1:
            if self._side.decision(abs(wanted) == size, SAME_AGAIN):
                break
            size += 1
        return min(max(sign * size, -FARTHEST - self._quarters), FARTHEST - 1 - self._quarters)
