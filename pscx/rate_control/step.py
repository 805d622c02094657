"""Target that is the quantizer's parameter itself."""

from __future__ import annotations

from pscx.codecs.base import SignalCodec
from pscx.rate_control.base import TARGETS, Target, check_parameter
from pscx.rate_control.trials import Setting, Trials


@TARGETS.register("step")
class Step(Target):
    """The quantizer's parameter, such as its step, rounded to bfloat16.

    Args:
        value: a parameter that the quantizer allows; smaller is finer.
    """

    references = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def check(self, codec: SignalCodec) -> None:
        check_parameter("step", codec)
        codec.with_parameter(self.value)

    def reach(self, trials: Trials) -> Setting:
        return Setting(trials.codec.with_parameter(self.value).parameter)

    def is_met(self, codec: SignalCodec, parameter: float | None, size: int, area: int) -> bool:
        return parameter == codec.with_parameter(self.value).parameter
