"""Target of a quality from 1 to 100, without a search."""

from __future__ import annotations

from pscx.codecs.base import SignalCodec
from pscx.rate_control.base import TARGETS, Target, check_parameter
from pscx.rate_control.trials import Setting, Trials

LOWEST, HIGHEST = 1, 100


@TARGETS.register("quality")
class Quality(Target):
    """A quality from 1 to 100: the logarithm of the quantizer's parameter is linear in it.

    For quantizers with a step, quality 1 is a step of 8, 50 one of 0.293 and 100 one of 0.01; each unit makes the step
    6.5 % finer. There is no search: the image is encoded once.

    Args:
        value: from 1 to 100; need not be whole.
    """

    references = ()

    def __init__(self, value: float) -> None:
        if not LOWEST <= value <= HIGHEST:
            raise ValueError(f"target.value of quality must lie in {LOWEST}..{HIGHEST}, got {value}")
        self.value = value

    def check(self, codec: SignalCodec) -> None:
        check_parameter("quality", codec)

    def reach(self, trials: Trials) -> Setting:
        return Setting(self._parameter(trials.codec))

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool:
        return parameter == self._parameter(codec)

    def _parameter(self, codec: SignalCodec) -> float | None:
        coarsest, finest = codec.quality_range
        parameter = coarsest * (finest / coarsest) ** ((self.value - LOWEST) / (HIGHEST - LOWEST))
        return codec.with_parameter(parameter).parameter
