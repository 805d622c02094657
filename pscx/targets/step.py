"""The quantizer's own parameter."""

from __future__ import annotations

from pscx.quantizers.base import Quantizer
from pscx.targets.base import TARGETS, Target, check_parameter
from pscx.trials import Setting, Trials


@TARGETS.register("step")
class Step(Target):
    """The quantizer's parameter, which is its step in those that have one; rounded to bfloat16.

    Args:
        value: what the quantizer allows: smaller is finer.
    """

    references = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def check(self, quantizer: Quantizer) -> None:
        check_parameter("step", quantizer)
        quantizer.with_parameter(self.value)

    def reach(self, trials: Trials) -> Setting:
        return Setting(trials.quantizer.with_parameter(self.value).parameter)

    def is_met(self, quantizer: Quantizer, parameter: float | None, size: int, area: int) -> bool:
        return parameter == quantizer.with_parameter(self.value).parameter
