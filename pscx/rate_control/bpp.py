"""Target of the whole file's bits per pixel."""

from __future__ import annotations

from math import inf

from pscx.codecs.base import SignalCodec
from pscx.rate_control.base import TARGETS, Target, TargetError, check_parameter
from pscx.rate_control.sizes import find_size, in_bytes, is_close, largest
from pscx.rate_control.trials import Setting, Trials


@TARGETS.register("bpp")
class BPP(Target):
    """The whole file's bits per pixel: never above, and at least 98 % of it.

    An image of few pixels, whose stream has no size in between, gets the largest below.

    Args:
        value: bits per pixel, over 0; a file whose size is out of reach for the image is refused.
    """

    references = ()

    def __init__(self, value: float) -> None:
        if not 0 < value < inf:
            raise ValueError(f"target.value of bpp must be over 0 and finite, got {value}")
        self.value = value

    def check(self, codec: SignalCodec) -> None:
        check_parameter("bpp", codec)

    def reach(self, trials: Trials) -> Setting:
        limit = self.value * trials.area / 8
        found = find_size(trials, limit)
        if found.low and found.high:
            return largest(found, trials, limit)
        end, word = (max, "at most") if found.low else (min, "at least")
        rate = 8 * in_bytes(end(found.settings.values()), trials) / trials.area
        raise TargetError(f"{self.value:g} bpp cannot be reached: this image needs {word} {rate:.4g} bpp")

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool | None:
        return is_close(size, self.value * area / 8)
