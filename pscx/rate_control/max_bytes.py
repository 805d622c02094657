"""Target of the file size in bytes."""

from __future__ import annotations

from pscx.codecs.base import SignalCodec
from pscx.rate_control.base import TARGETS, Target, TargetError, check_parameter
from pscx.rate_control.sizes import find_size, in_bytes, is_close, largest
from pscx.rate_control.trials import Setting, Trials


@TARGETS.register("max_bytes")
class MaxBytes(Target):
    """The whole file's bytes: never above, and at least 98 % of it.

    An image of few pixels, whose stream has no size in between, gets the largest below, and a limit that no stream of
    the image comes up to gets the finest.

    Args:
        value: bytes, at least 1; a limit below the smallest stream of an image is refused.
    """

    references = ()

    def __init__(self, value: int) -> None:
        if not value >= 1:  # also not a number
            raise ValueError(f"target.value of max_bytes must be at least 1, got {value}")
        self.value = value

    def check(self, codec: SignalCodec) -> None:
        check_parameter("max_bytes", codec)

    def reach(self, trials: Trials) -> Setting:
        found = find_size(trials, self.value)
        if found.low:
            return largest(found, trials, self.value)
        least = in_bytes(min(found.settings.values()), trials)
        raise TargetError(f"{self.value} bytes cannot be reached: this image needs at least {least} bytes")

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool | None:
        return is_close(size, self.value)
