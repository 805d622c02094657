"""Target of the decoded image's peak signal-to-noise ratio (PSNR)."""

from __future__ import annotations

from math import inf

from pscx.codecs.base import SignalCodec
from pscx.metrics import psnr
from pscx.rate_control.base import TARGETS, Target, TargetError, check_parameter
from pscx.rate_control.search import Window, find
from pscx.rate_control.trials import Run, Setting, Trials

CLOSE = 0.1  # dB
SLOPE = 3.5  # dB over an octave of the parameter
OVER_ROWS = 10.0  # dB over all measurements
PSNR_AT_ONE = 27.9
"""Decibels at a step of 1, and with the slope at any other: a fit to the default recipe on Kodak crops. It is only
where the search begins."""
HIGHEST = 100.0  # dB for equal images, whose PSNR is infinite


@TARGETS.register("psnr")
class PSNR(Target):
    """PSNR of the decoder's first restoration, within 0.1 dB.

    An image of few pixels, whose streams have no PSNR in between, gets the closest.

    Args:
        value: dB, over 0; a PSNR that is out of reach for the image is refused.
    """

    references = ()

    def __init__(self, value: float) -> None:
        if not 0 < value < inf:
            raise ValueError(f"target.value of psnr must be over 0 and finite, got {value}")
        self.value = value

    def check(self, codec: SignalCodec) -> None:
        check_parameter("psnr", codec)

    def reach(self, trials: Trials) -> Setting:
        def measure(run: Run) -> float:
            return min(_psnr(trials, run), HIGHEST)

        window = Window(self.value - CLOSE, self.value, self.value + CLOSE)
        start = 2 ** ((PSNR_AT_ONE - self.value) / SLOPE)
        found = find(trials, measure, window, start, SLOPE, OVER_ROWS)
        if found.low and found.high:
            off = {setting: abs(value - self.value) for setting, value in found.settings.items()}
            return found.hit or min(off, key=off.__getitem__)
        end, word = (max, "at most") if found.low else (min, "at least")
        reached = end(found.settings.values())
        raise TargetError(f"{self.value:g} dB cannot be reached: this image has {word} {reached:.4g} dB")

    def outcome(self, trials: Trials, setting: Setting) -> str:
        reached = _psnr(trials, trials.run(setting))
        closest = "" if abs(reached - self.value) <= CLOSE else f", the closest to {self.value:g}"
        return f"{reached:.2f} dB{closest}"


def _psnr(trials: Trials, run: Run) -> float:
    return psnr(trials.pixels, run.images(1)[0])
